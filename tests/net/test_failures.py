#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The k-th allocation and the k-th bpf() call fail, at the start of dmmd, in an apply, at the stop:
no crash; what cannot be is said; a policy that is not live has changed nothing; and nothing is left
behind. For every k with LONG=1, else for some of them.
    SEED=n  which ones"""

import json
import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import LONG, OUT, ROOT, World, amount, main, sh, test, wait_for

SOME = amount(12)
SHIM = os.path.join(OUT, "tests/net/failat.so")


class FailureWorld(World):
    def __init__(self):
        super().__init__()
        self.count = f"{self.dir}/count"
        with open(f"{self.dir}/start.yaml", "w") as f:
            f.write(self.policy())
        with open(f"{self.dir}/other.yaml", "w") as f:
            f.write(self.policy(unavailable="reject"))

    def life(self, kind, at):
        """One dmmd from start to stop with a failure on its way. How far it came, and its log."""
        log = f"{self.dir}/dmmd.log"
        for name in (log, self.count):
            if os.path.exists(name):
                os.unlink(name)
        env = {**os.environ, "LD_PRELOAD": SHIM, "FAIL_KIND": kind, "FAIL_AT": str(at),
               "FAIL_COUNT": self.count}
        dmmd = self.dmmd("--policy", f"{self.dir}/start.yaml", wait=False, env=env)
        try:
            came = self.use(dmmd)
        finally:
            if dmmd.poll() is None:
                dmmd.send_signal(signal.SIGTERM)
            code = dmmd.wait(30)
        assert code in (0, 1, 5), f"{kind} {at}: dmmd ended with {code}\n{self.log()}"
        assert (code == 0) == (came != "start"), f"{kind} {at}: {code} after {came}\n{self.log()}"
        return came

    def use(self, dmmd):
        """Applies, if it comes up: "start" (it did not), "apply" (that failed), "all"."""
        def up():
            if dmmd.poll() is not None:
                return True
            said = self.ctl("status", "-o", "json", check=False)
            return said.returncode == 0 and json.loads(said.stdout)["policy"]
        wait_for("its policy is live or it is gone", up, every=0.01)
        if dmmd.poll() is not None:
            return "start"
        r = self.ctl("apply", f"{self.dir}/other.yaml", check=False)
        if r.returncode == 0:
            return "all"
        # 3: no memory for so much as the connection, or for the answer: then nobody can know
        closed = "closed the connection" in r.stderr
        assert r.returncode in (1, 3) and (closed or "ENOMEM" in r.stderr), \
            f"exit {r.returncode}: {r.stderr}"
        assert dmmd.poll() is None, f"an apply ended it:\n{self.log()}"
        now = self.ctl_json("status")["policy"]["generation"]
        assert now == 1 or r.returncode == 3, f"applied all the same: {r.stderr}"
        assert self.ready(), "the stack is not served any more"
        return "apply"

    def census(self):
        """What a life must not leave: names in bpffs, instances, hooks on the cgroups."""
        left = [n for n in ("progs", "maps", "links") if os.path.exists(f"{self.bpffs}/{n}")]
        left += sh("ip", "netns", "pids", self.ns["client"]).stdout.split()
        for cgroup in ("", "kernel", "fast"):
            tree = sh("bpftool", "cgroup", "show", self.cgroup(cgroup), check=False).stdout
            left += [line for line in tree.splitlines() if "dmm" in line]
        left += [line for line in self.run("ip", "-d", "link", "show").stdout.splitlines()
                 if "prog/xdp" in line]
        left += self.run("tc", "filter", "show", "dev", "lo", "egress").stdout.splitlines()
        return left

    def clean_up(self):
        r = self.ctl("teardown", check=False)
        assert r.returncode == 0, f"teardown: {r.stdout}{r.stderr}"
        try:
            wait_for("nothing is left", lambda: not self.census())
        except AssertionError as e:
            raise AssertionError(f"{e}: {self.census()}") from None
        sh("rm", "-rf", f"{self.dir}/state", f"{self.dir}/run")


def every_failure(w, kind):
    came = w.life(kind, 0)
    assert came == "all", f"without a failure: {came}\n{w.log()}"
    w.clean_up()
    with open(w.count, "rb") as f:
        n = int.from_bytes(f.read(8), "little")
    assert n > SOME, f"only {n} of kind {kind}: is the shim in it?"
    ks = range(1, n + 1)
    if not LONG:
        ks = sorted(random.Random(int(os.environ.get("SEED", 0)) or 1).sample(ks, SOME))
    ends, silent = {}, []
    for k in ks:
        came = w.life(kind, k)
        ends[came] = ends.get(came, 0) + 1
        log = w.log()
        if came == "start" and "error" not in log:
            silent.append((k, log))
        w.clean_up()
    print(f"# {len(ks)} of {n} {kind} calls failed: {ends}")
    assert not silent, f"no word about it: {silent[:3]}"


@test
def bpf_calls_that_fail(w):
    every_failure(w, "bpf")


@test
def allocations_that_fail(w):
    every_failure(w, "malloc")


def checked(w, path, at):
    """`dmmctl check` with the at-th allocation failing: its exit code, how many there were."""
    env = {**os.environ, "LD_PRELOAD": SHIM, "FAIL_KIND": "malloc", "FAIL_AT": str(at),
           "FAIL_COUNT": w.count}
    said = sh(os.path.join(OUT, "dmmctl"), "check", path, env=env, check=False,
              errors="replace")
    with open(w.count, "rb") as f:
        n = int.from_bytes(f.read(8), "little")
    os.unlink(w.count)
    return said, n


@test
def a_wrong_policy_stays_wrong_without_memory(w):
    folder, tried = os.path.join(ROOT, "policy/wrong"), 0
    for name in sorted(n for n in os.listdir(folder) if n.endswith(".yaml")):
        said, n = checked(w, os.path.join(folder, name), 0)
        if said.returncode == 0:  # only warnings
            continue
        assert said.returncode == 5 and n > 5, f"{name}: exit {said.returncode}, {n} allocations"
        for k in range(1, n + 1):
            said, _ = checked(w, os.path.join(folder, name), k)
            assert said.returncode in (1, 5) and said.stderr, \
                f"{name}, allocation {k}: exit {said.returncode}: {said.stdout}{said.stderr}"
            tried += 1
    print(f"# {tried} allocations failed while wrong policies were checked")
    assert tried > 200


if __name__ == "__main__":
    main(FailureWorld)
