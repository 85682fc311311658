#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Time does odd things: the clock is set by hours under dmmd, and dmmd or an instance is stopped for a
while (a minute with LONG=1) and goes on. No flow is cut, nothing is taken for dead or old."""

import os
import signal
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import LONG, OUT, World, main, test, wait_for
from flows import Flows

ECHO = 8671
STOPPED = 60 if LONG else 3
SHIM = os.path.join(OUT, "tests/net/clockstep.so")


class ClockWorld(World):
    def __init__(self):
        super().__init__()
        self.serve_echo(ECHO)
        self.step_file = f"{self.dir}/step"
        self.step(0)
        self.dmmd("--dead-after", "120",
                  env={**os.environ, "LD_PRELOAD": SHIM, "CLOCK_STEP": self.step_file})
        self.apply(self.policy())
        self.ready()

    def step(self, seconds):
        """In place: dmmd has the file mapped."""
        fd = os.open(self.step_file, os.O_WRONLY | os.O_CREAT)
        os.pwrite(fd, struct.pack("=q", seconds), 0)
        os.close(fd)

    def applied(self):
        return self.ctl_json("status")["policy"]["applied_at"]


@test
def the_clock_is_set(w):
    pid = w.ready()
    with Flows(w) as flows:
        for hours in (1, -2, 24 * 365, -24 * 365, 0):
            w.step(hours * 3600)
            time.sleep(1.2)  # one tick of dmmd at least
            flows.all_go_on()
            w.check_policy()
            w.apply(w.policy())
            at = time.gmtime(time.time() + hours * 3600)
            assert w.applied().startswith(time.strftime("%Y-%m-%d", at)), \
                f"{hours} h: applied at {w.applied()}: is the shim in it?"
            # the listed ages are no matter of the time of day
            assert all(f["age_ms"] < 120000 for f in w.flows()), w.flows()
    status = w.ctl_json("status")
    assert w.ready() == pid and status["health"] == "ok", status
    assert status["uptime_ms"] < 300000, status["uptime_ms"]


def stopped(w, pid):
    """The process stands still; connects meanwhile follow the policy or its fail mode."""
    os.kill(pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        time.sleep(1.5)  # an instance's heartbeat is old by then: before, a connect waits for it
        while time.monotonic() - begin < STOPPED:
            w.port()
            time.sleep(0.2)
    finally:
        os.kill(pid, signal.SIGCONT)


@test
def dmmd_stands_still(w):
    pid = w.ready()
    with Flows(w) as flows:
        stopped(w, w.daemon.pid)
        flows.all_go_on()
        assert w.ctl_json("status")["health"] == "ok"
    assert w.ready() == pid
    w.check_policy()


@test
def an_instance_stands_still(w):
    """Shorter than --dead-after: its flows wait and go on."""
    pid = w.ready()
    with Flows(w, cgroups=("/kernel",)) as others, Flows(w, cgroups=("/fast",), name="own") as own:
        stopped(w, pid)
        others.all_go_on()
        own.all_go_on()
        wait_for("new flows are steered again", lambda: w.is_steered(w.port()))
    assert w.ready() == pid
    w.check_policy()


if __name__ == "__main__":
    main(ClockWorld)
