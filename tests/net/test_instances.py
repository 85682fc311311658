#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Several instances of one stack on one interface: each new flow gets one of them, in both directions,
and keeps it while others come and go."""

import collections
import contextlib
import os
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import amount, main, sh, test, wait_for
from serving import PORT, ServeWorld, Talk, connect

ECHO = 8701


class InstancesWorld(ServeWorld):
    def __init__(self):
        super().__init__()
        self.serve_echo(ECHO)

    def use(self, n, more="", check=True):
        """/fast has its connects and its clients by @n instances."""
        said = self.apply(f"""
apiVersion: dmm/v1alpha1
kind: Policy
metadata: {{name: several}}
spec:
  interfaces: [{{name: c0}}]
  stacks:
    - {{name: fast, plugin: {self.plugin}, interface: c0, instances: {n}{more}}}
  rules:
    - name: all
      match: {{cgroup: /fast, proto: tcp, direction: any}}
      action: {{stack: fast, onUnavailable: reject}}
  default: {{stack: kernel}}
""", check=check)
        if check:
            wait_for(f"{n} instances are there", lambda: all(
                s["state"] in ("ready", "draining") for s in self.stacks()) and len(self.stacks()) >= n)
        return said

    def stacks(self):
        return self.ctl_json("stacks", "list")["items"]

    def pids(self):
        return {s["instance"]: s["pid"] for s in self.stacks()}

    def hops(self):
        return [line.split()[1].split("@")[0] for line in
                self.run("ip", "-o", "link", "show", "type", "veth").stdout.splitlines()
                if "dmm-hop" in line]

    def shares(self, since):
        """How many flows were opened by each instance since."""
        now = {s["instance"]: s["flows_opened"] for s in self.stacks()}
        return {name: now[name] - since.get(name, 0) for name in now}

    def opened(self):
        return self.shares({})


def many(addr, port, n, greeted):
    """@n connections one after another, each byte-exact."""
    for _ in range(n):
        with connect(addr, port) as c:
            f = c.makefile("rb")
            if greeted:
                f.readline()
            payload = os.urandom(20000)
            c.sendall(payload)
            c.shutdown(socket.SHUT_WR)
            assert f.read() == payload


@test
def each_instance_gets_its_share(w):
    n = amount(60)
    for count in (1, 2, 3):
        w.use(count)
        assert len(w.hops()) == 2 * (count - 1), w.hops()
        with w.listening():
            for addr4, addr6, cgroup, host, port, greeted in (
                    (w.server4, w.server6, "/fast", "client", ECHO, False),
                    (w.client4, w.client6, None, "server", PORT, True)):
                before = w.opened()
                for addr in (addr4, addr6):
                    w.call(many, addr, port, n, greeted, host=host, cgroup=cgroup, timeout=120)
                shares = w.shares(before)
                assert sum(shares.values()) == 2 * n, shares
                assert min(shares.values()) >= 2 * n / count / 3, (count, port, shares)


@test
def flows_stay_where_they_began(w):
    """More instances, fewer, more again: those that go on are never restarted, a flow never moves."""
    w.use(1)
    first = w.pids()["fast#0"]
    with w.listening():
        talks = []
        for count in (1, 2, 1, 3, 2):
            said = w.use(count) if count else None
            talks += [Talk(w, addr) for addr in (w.client4, w.client6) * 2]
            assert w.pids()["fast#0"] == first
            assert "restarted" not in said.stdout, said.stdout
            for t in talks:
                t.goes_on()
        for t in talks:
            t.goes_on()
            t.ends_well()
    wait_for("fast#1 is back, fast#2 gone", lambda: [s["state"] for s in w.stacks()] == ["ready"] * 2,
             seconds=30)
    wait_for("and so is its hop", lambda: len(w.hops()) == 2)


@test
def one_that_dies_leaves_its_flows_to_nobody_and_its_share_to_the_others(w):
    w.use(2)
    with w.listening():
        talks = [Talk(w, addr) for addr in (w.client4, w.client6) * 8]
        pids = w.pids()
        os.kill(w.daemon.pid, signal.SIGSTOP)  # nobody brings it back
        try:
            os.kill(pids["fast#1"], signal.SIGKILL)
            for _ in range(5):
                w.call(many, w.client4, PORT, 4, True, host="server")
                w.call(many, w.server4, ECHO, 4, False, cgroup="/fast")
        finally:
            os.kill(w.daemon.pid, signal.SIGCONT)
        alive = collections.Counter()
        for t in talks:
            with contextlib.suppress(OSError):
                t.line.send(b"1")
                alive[t.line.recv(1)] += 1
        assert 0 < alive[b"1"] < len(talks), alive
        wait_for("it is back", lambda: w.pids().get("fast#1") not in (0, pids["fast#1"]) and
                 [s["state"] for s in w.stacks()] == ["ready", "ready"])
        assert w.pids()["fast#0"] == pids["fast#0"]
        before = w.opened()
        w.call(many, w.client4, PORT, 40, True, host="server")
        assert min(w.shares(before).values()) > 0


@test
def dmmd_may_die_and_adopts_them(w):
    w.use(3)
    pids = w.pids()
    with w.listening():
        talks = [Talk(w, addr) for addr in (w.client4, w.client6) * 4]
        w.stop(signal.SIGKILL)
        for t in talks:
            t.goes_on()
        w.call(many, w.client4, PORT, 10, True, host="server")
        w.restart()
        assert w.pids() == pids
        for t in talks:
            t.goes_on()
            t.ends_well()
        w.call(many, w.client4, PORT, 10, True, host="server")


@test
def one_can_be_drained_and_restarted_by_name(w):
    w.use(2)
    pids = w.pids()
    w.ctl("stacks", "drain", "fast#1")
    wait_for("it has ended", lambda: [s["state"] for s in w.stacks()] == ["ready", "stopped"], seconds=30)
    assert w.hops() == []
    w.call(many, w.server4, ECHO, 10, False, cgroup="/fast")
    w.ctl("stacks", "restart", "fast#1")
    wait_for("both are ready", lambda: [s["state"] for s in w.stacks()] == ["ready", "ready"])
    assert w.pids()["fast#0"] == pids["fast#0"] and w.pids()["fast#1"] != pids["fast#1"]
    pids = w.pids()
    said = w.ctl("stacks", "restart", "fast").stdout  # all of them, one after another
    assert "fast#0 restarted: ready" in said and "fast#1 restarted: ready" in said, said
    assert not set(w.pids().values()) & set(pids.values())
    w.ctl("stacks", "drain", "fast")
    wait_for("both have ended", lambda: [s["state"] for s in w.stacks()] == ["stopped"] * 2, seconds=30)


@test
def a_hop_that_somebody_removes_comes_back(w):
    w.use(2)
    pids = w.pids()
    assert "dmm-hop" not in w.ctl("doctor", check=False).stdout
    near, = (name for name in w.hops() if not name.endswith("-far"))
    w.run("ip", "link", "del", near)
    wait_for("it has a new one", lambda: w.pids()["fast#1"] not in (0, None, pids["fast#1"]) and [
        s["state"] for s in w.stacks()] == ["ready", "ready"], seconds=30)
    assert "fast#1: its hop to interface c0 is gone" in w.log(), w.log()
    assert w.pids()["fast#0"] == pids["fast#0"]
    w.call(many, w.server4, ECHO, 10, False, cgroup="/fast")


@test
def local_ports_are_shared_out(w):
    w.use(2, ", localPorts: 20000-20999")
    assert [(s["port_first"], s["port_last"]) for s in w.stacks()] == [(20000, 20499), (20500, 20999)]
    said = w.use(3, ", localPorts: 20000-20001", check=False)
    assert said.returncode == 5 and "E037" in said.stderr, said.stderr
    said = w.use(9, check=False)
    assert said.returncode == 5 and "'9' is not a number from 1 to 8" in said.stderr, said.stderr


@test
def teardown_removes_the_hops(w):
    w.use(3)
    assert len(w.hops()) == 4
    w.ctl("teardown")
    assert w.hops() == []


if __name__ == "__main__":
    sys.exit(main(InstancesWorld))
