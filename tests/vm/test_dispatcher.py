#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Another's XDP program, loaded by libxdp's dispatcher, and DMM on one interface. DMM holds the hook by a
link, alone: who comes second is refused, is told by whom, and the first one works on."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import OUT, Skip, World, main, sh, test, wait_for
from progs import ids, traced

ECHO = 8721
OBJECT, PROGRAM = f"{OUT}/bench/floor.bpf.o", "floor_xdp"  # passes everything


class DispatcherWorld(World):
    def __init__(self):
        super().__init__()
        if sh("which", "xdp-loader", check=False).returncode:
            raise Skip("no xdp-loader here")
        self.serve_echo(ECHO)

    def close(self):
        if os.getpid() == self.owner and self.dir:
            self.loader("unload", "c0", "--all", check=False)
        super().close()

    def loader(self, *args, check=True):
        return self.run("xdp-loader", *args, check=check)

    def load_other(self):
        r = self.loader("load", "-m", "native", "-n", PROGRAM, "c0", OBJECT, check=False)
        if r.returncode:
            raise Skip(f"xdp-loader cannot load: {(r.stdout + r.stderr).strip().splitlines()[-1]}")

    def sees(self, name, traffic):
        """Does the one program of that name run while @traffic does?"""
        prog_id, = ids(name)
        return traced(prog_id, name, traffic)[0] > 0

    def sees_ours(self):
        """The same of our dmmd's: others may run beside."""
        prog = sh("bpftool", "-j", "prog", "show", "pinned", f"{self.bpffs}/progs/dmm_xdp").stdout
        return traced(json.loads(prog)["id"], "dmm_xdp", self.check_policy)[0] > 0


@test
def who_holds_the_interface_is_told_and_works_on(w):
    w.load_other()
    w.dmmd()
    r = w.apply(w.policy(), check=False)
    assert r.returncode and "xdp_dispatcher" in r.stderr and "c0" in r.stderr, r.stderr
    print("# " + r.stderr.strip().replace("\n", "\n# "))
    assert w.sees(PROGRAM, lambda: w.port(cgroup="/fast")), "the other program sees nothing"
    assert not w.is_steered(w.port(cgroup="/fast"))
    assert PROGRAM in w.loader("status", "c0").stdout


@test
def when_the_other_one_has_left_the_policy_goes_in(w):
    w.loader("unload", "c0", "--all")
    w.apply(w.policy())
    w.ready()
    assert w.sees_ours()


@test
def libxdp_is_refused_where_dmm_is_and_steering_goes_on(w):
    r = w.loader("load", "-m", "native", "-n", PROGRAM, "c0", OBJECT, check=False)
    assert r.returncode, r.stdout + r.stderr
    print("# " + (r.stdout + r.stderr).strip().replace("\n", "\n# "))
    assert "dmm_xdp" in w.loader("status", "c0").stdout
    assert w.sees_ours()


@test
def after_a_teardown_libxdp_has_the_interface(w):
    w.ctl("teardown")
    wait_for("dmmd ended", lambda: w.daemon.poll() is not None)
    w.load_other()
    assert w.sees(PROGRAM, lambda: w.port(cgroup="/fast")), "the other program sees nothing"


if __name__ == "__main__":
    main(DispatcherWorld)
