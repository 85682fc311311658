#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Each planted bug of the matcher and the compiler is caught by the test over random policies."""

import glob
import os
import sys

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
sys.path.insert(0, os.path.join(ROOT, "tests/lib"))

import planted  # noqa: E402

patches = sorted(glob.glob(os.path.join(ROOT, "tests/planted/matcher-*.patch")))
if len(patches) < 5:
    sys.exit("tests/planted/matcher-*.patch: only %d" % len(patches))
sys.exit(planted.main(["tests/unit/test_compile_random.c", "--", "tests/lib/randpolicy.c",
                       "userspace/base/suggest.c", "userspace/policy", "--", *patches]))
