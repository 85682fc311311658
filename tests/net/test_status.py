#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""status is OK where new connections get what the policy says, and else names what is in the way."""

import contextlib
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import World, main, sh, test, wait_for

ECHO = 8641


class StatusWorld(World):
    def __init__(self):
        super().__init__()
        self.serve_echo(ECHO)
        self.dmmd()
        self.apply(self.policy())
        self.ready()

    def link(self, dev, state):
        sh("ip", "-n", self.ns["client"], "link", "set", dev, state)

    def problems(self):
        """Health is what the list says."""
        status = self.ctl_json("status")
        assert status["health"] == ("degraded" if status["problems"] else "ok"), status
        return status["problems"]

    def is_well(self):
        wait_for("all is well", lambda: not self.problems())
        self.check_policy()
        assert "health OK" in self.ctl("status").stdout

    def one_problem(self, *words):
        def told():
            found = self.problems()
            return len(found) == 1 and all(word in found[0] for word in words)
        with contextlib.suppress(AssertionError):
            return wait_for("the problem", told)
        raise AssertionError(f"{words}: {self.problems()}")


@test
def a_stack_that_drains_or_is_stopped(w):
    w.is_well()
    w.ctl("stacks", "drain", "fast")
    w.one_problem("stack fast#0: stopped", "onUnavailable decides")
    assert not w.is_steered(w.port())
    w.ctl("stacks", "restart", "fast")
    w.ready()
    w.is_well()


@test
def an_instance_that_stands_still(w):
    pid = w.ready()
    os.kill(pid, signal.SIGSTOP)
    w.one_problem("stack fast#0: no heartbeat for ", " s: onUnavailable decides")
    os.kill(pid, signal.SIGCONT)
    w.is_well()


@test
def one_of_two_instances_is_enough(w):
    two = w.policy(stack=", instances: 2").replace(f", localPorts: {w.ports}", "")
    w.apply(two)
    w.ready("fast#0"), w.ready("fast#1")
    w.is_well()
    w.ctl("stacks", "drain", "fast#1")
    wait_for("it has ended", lambda: w.instance("fast#1")["state"] == "stopped")
    w.is_well()
    w.ctl("stacks", "drain", "fast#0")
    wait_for("both are named", lambda: [p.split(":")[0] for p in w.problems()] ==
             ["stack fast#0", "stack fast#1"])
    w.ctl("stacks", "restart", "fast")
    w.is_well()
    w.apply(two.replace(", instances: 2", ""))
    wait_for("it is gone", lambda: len(w.ctl_json("stacks", "list")["items"]) == 1)
    w.apply(w.policy())
    w.ready()
    w.is_well()


@test
def an_interface_that_is_down(w):
    w.link("c0", "down")
    w.one_problem("interface c0 of stack fast: down")
    w.link("c0", "up")
    sh("ip", "-n", w.ns["client"], "addr", "replace", f"{w.client6}/64", "dev", "c0", "nodad")
    w.is_well()


@test
def loopback_that_is_down(w):
    w.link("lo", "down")
    w.one_problem("interface lo: down", "steered connections fail")
    w.link("lo", "up")
    w.is_well()


@test
def filters_on_both_ways_of_lo_are_listed(w):
    for way in ("egress", "ingress"):
        rule = ("dev", "lo", way, "protocol", "ip", "pref", "20")
        w.run("tc", "filter", "add", *rule, "u32", "match", "ip", "dst", "127.9.9.9/32", "flowid",
              "1:1")
        said = w.ctl("status").stdout
        assert f"after ours at lo {way}: u32" in said, said
        w.run("tc", "filter", "del", *rule)
        wait_for("it is gone", lambda: f"lo {way}" not in w.ctl("status").stdout)
    w.is_well()


@test
def check_says_what_would_be_and_apply_what_was(w):
    path = f"{w.dir}/other.yaml"
    with open(path, "w") as f:
        f.write(w.policy().replace("localPorts: 20000", "localPorts: 20500"))
    said = w.ctl("check", path)
    words = said.stdout + said.stderr
    assert "stack fast: changed, to be restarted; its flows will be reset" in words, words
    pid = w.ready()
    said = w.ctl("apply", path)
    words = said.stdout + said.stderr
    assert "stack fast: changed, restarted; its flows are reset" in words, words
    assert w.ready(not_pid=pid)
    w.apply(w.policy())
    w.ready()


if __name__ == "__main__":
    main(StatusWorld)
