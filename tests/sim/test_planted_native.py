#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Each planted bug of the native engine is found by the simulator: a quarter of them (SEED=n picks the
same ones again), LONG=1 all."""

import glob
import os
import random
import sys

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
sys.path.insert(0, os.path.join(ROOT, "tests/lib"))

import planted  # noqa: E402

patches = sorted(glob.glob(os.path.join(ROOT, "tests/planted/native-*.patch")))
if len(patches) < 20:
    sys.exit("tests/planted/native-*.patch: only %d" % len(patches))
if not os.environ.get("LONG"):
    seed = int(os.environ.get("SEED") or random.randrange(1 << 32))
    print("# SEED=%d" % seed, flush=True)
    patches = random.Random(seed).sample(patches, len(patches) // 4)
os.environ.pop("SEED", None)  # the simulator's: of a world
os.environ.update(SEEDS="2000", STOP="1", JOBS="1")
os.environ["LIBS"] = "cmocka"
os.environ["CFLAGS"] = "-O1 -w"
sys.exit(planted.main(["tests/sim/test_sim_seeds.c", "--", "tests/lib/netsim.c",
                       "tests/lib/netsim_link.c", "userspace/net", "--", *patches]))
