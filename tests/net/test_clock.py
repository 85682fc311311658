#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Time does odd things: the clock is set by hours under dmmd, and dmmd or an instance is stopped for ten
seconds (a minute with LONG=1) and goes on. No flow is cut, nothing is taken for dead or old.

The machine's own clock is left alone: dmmd gets another one from a preloaded shim. (A time namespace
has no time of day of its own.)"""

import contextlib
import errno
import os
import re
import signal
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import (LONG, OUT, ROOT, Skip, World, alive, connect_errno, main, sh, test,
                     wait_for)
from flows import Flows

ECHO = 8671
STOPPED = 60 if LONG else 10
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


@test
def an_instance_never_asks_for_the_time_of_day(w):
    """No shim can get into one: it is started without an environment. So what it is made of is asked."""
    for program in ("dmm-stack", "stacks/lwip.so"):
        path = os.path.join(OUT, program)
        used = set(re.findall(r" U (\w*time\w*|\w*clock\w*)@GLIBC",
                              sh("nm", "-D", "--undefined-only", path).stdout))
        assert used <= {"clock_gettime"}, f"{program} uses {used}"
    for folder in ("base", "pktio", "net", "stacks", "instance"):
        for dirpath, _, names in os.walk(os.path.join(ROOT, "userspace", folder)):
            for name in names:
                with open(os.path.join(dirpath, name), errors="replace") as f:
                    assert "CLOCK_REALTIME" not in f.read(), f"{dirpath}/{name}"


@test
def another_monotonic_clock_is_refused(w):
    """In a time namespace heartbeats would be old from the start, or never get old."""
    dirs = (f"--{k}={w.dir}/other-{k}" for k in ("run-dir", "state-dir"))
    for offset in (-100, 3600):
        r = w.run("unshare", "-T", f"--monotonic={offset}", "--fork", *w.program("dmmd"), *dirs,
                  "--bpffs", f"{w.bpffs}-other", check=False, timeout=30)
        if "unshare failed" in r.stderr:
            raise Skip("no time namespaces: " + r.stderr.strip())
        assert r.returncode == 1 and f"is {offset} s off" in r.stderr, r
        assert not os.path.exists(f"{w.bpffs}-other")


@contextlib.contextmanager
def stopped(*pids, seconds=STOPPED):
    """They stand still in the block, and at its end have done so for that long."""
    begin = time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
        time.sleep(max(0, begin + seconds - time.monotonic()))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@test
def dmmd_stands_still(w):
    """Nothing needs it: flows go on, connects follow the policy; and where the instance dies, its fail
    mode."""
    pid = w.ready()
    with Flows(w) as flows:
        with stopped(w.daemon.pid):
            for _ in range(STOPPED // 2):
                w.check_policy()
                flows.all_go_on()
                time.sleep(1)
        flows.all_go_on()
        assert w.ctl_json("status")["health"] == "ok"
    assert w.ready() == pid
    w.check_policy()
    for unavailable in ("kernel", "reject"):
        w.apply(w.policy(unavailable=unavailable))
        pid = w.ready()
        with stopped(w.daemon.pid, seconds=1):
            os.kill(pid, signal.SIGKILL)
            wait_for("it is gone", lambda p=pid: not alive(p))
            for addr in (w.server4, w.server6):
                if unavailable == "kernel":
                    assert not w.is_steered(w.port(addr)), "a dead instance was used"
                else:
                    assert w.call(connect_errno, addr, ECHO, cgroup="/fast") == errno.EPERM
        w.ready(not_pid=pid)
    w.apply(w.policy())
    w.check_policy()


@test
def an_instance_stands_still(w):
    """Shorter than --dead-after: its flows wait and go on."""
    pid = w.ready()
    with Flows(w, cgroups=("/kernel",)) as others, Flows(w, cgroups=("/fast",), name="own") as own:
        with stopped(pid):
            time.sleep(0.5)  # from then on connects follow the rule
            for _ in range(STOPPED // 2):
                assert not any(w.is_steered(w.port(addr)) for addr in (w.server4, w.server6))
                others.all_go_on()
                time.sleep(0.5)
        others.all_go_on()
        own.all_go_on()
        wait_for("new flows are steered again", lambda: w.is_steered(w.port()))
    assert w.ready() == pid
    w.check_policy()


@test
def dmmd_and_its_instance_stand_still(w):
    """As on a machine that sleeps, for longer than --dead-after: nobody is taken for dead, since nobody
    ran."""
    w.stop()
    w.restart("--dead-after", "2")
    pid = w.ready()
    with Flows(w) as flows:
        with stopped(w.daemon.pid, pid):
            assert STOPPED > 4
        time.sleep(2)  # dmmd looks around every second
        flows.all_go_on()
    assert w.ready() == pid, w.stack()["last_death"]
    w.check_policy()


if __name__ == "__main__":
    main(ClockWorld)
