#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The native stack and the kernel over a link that loses, delays, repeats and damages: every byte arrives,
and no other one. Goodput beside the kernel's is printed, not judged; with LONG=1 the whole matrix."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import LONG, ROOT, World, main, test

sys.path.insert(0, os.path.join(ROOT, "tools/bench"))
sys.dont_write_bytecode = True
import goodput  # noqa: E402

# rounds, bytes, and at most so many seconds of each transfer
AMOUNT = (5, 64 << 20, 5) if LONG else (1, 2 << 20, 2)
HAPPENS = ("lost", "late", "repeated", "damaged")


def bad_checksums(world):
    """TCP segments that the server has dropped for them."""
    head, values = (line.split() for line in world.run("cat", "/proc/net/snmp", host="server")
                    .stdout.splitlines() if line.startswith("Tcp:"))
    return int(values[head.index("InCsumErrors")])


@test
def all_bytes_arrive_whatever_the_link_does(_):
    for line in goodput.measure(goodput.CELLS if LONG else goodput.FEW, *AMOUNT,
                                lambda line: print("# " + "  ".join(goodput.columns(line)), flush=True)):
        for what in HAPPENS:  # what was to happen did, and nothing else
            assert (line["link"][what] > 0) == (line[what] > 0), (what, line)


@test
def damaged_bytes_reach_the_checksums(_):
    """Else nothing above would be shown by the bytes being right."""
    world = goodput.LinkWorld(1500)
    try:
        for who in goodput.CGROUPS:
            before = bad_checksums(world)
            _, counts = world.transfer(goodput.Cell(1500, damaged=20000), who, "up", 7, 2 << 20, 5)
            found = bad_checksums(world) - before
            print(f"# {who}: {counts[0]['damaged']} damaged, {found} found by the server")
            assert found > 0
    finally:
        world.close()


@test
def jumbo_frames_are_refused(_):
    """The matrix has no MTU of 9000: AF_XDP takes no such interface."""
    world = World()
    try:
        world.dmmd()
        for host, dev in (("client", "c0"), ("server", "s0")):
            world.run("ip", "link", "set", dev, "mtu", goodput.NOT_POSSIBLE, host=host)
        refused = world.apply(world.policy(plugin="native"), check=False)
        assert refused.returncode and "too large for AF_XDP" in refused.stderr, refused
    finally:
        world.close()


if __name__ == "__main__":
    main(lambda: None)
