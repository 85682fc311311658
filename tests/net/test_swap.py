#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Policies swapped under load. Policy A sends port 8301 through the stack and 8302 through the
kernel, policy B the other way round; a policy that is neither whole A nor whole B gives itself away
because every connect must get what the generation kept in its own flow entry says: by the rule's
name, which must be one of that generation's policy, and by the wire port that the server sees."""

import os
import re
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import LONG, World, main, test

PORTS = (8301, 8302)
SWAPS = 1000 if LONG else 120


class SwapWorld(World):
    def __init__(self):
        super().__init__()
        for port in PORTS:
            self.serve(say_port, port)
        self.dmmd()
        self.steered_in = {}  # generation: the port that its policy steers
        self.swap(PORTS[0])

    def swap(self, steered):
        said = self.apply(policy(self, steered)).stdout
        self.steered_in[int(re.search(r"generation (\d+)", said)[1])] = steered


def say_port(c):
    c.sendall(b"%d\n" % c.getpeername()[1])


def policy(w, steered):
    """Names of rules carry what they ask for, so that a flow entry can be judged by itself."""
    other = PORTS[0] + PORTS[1] - steered
    return w.policy(rules=f"""
    - name: stack-{steered}
      match: {{cgroup: /fast, proto: tcp, direction: connect, remote: {{ports: [{steered}]}}}}
      action: {{stack: fast, onUnavailable: reject}}
    - name: kernel-{other}
      match: {{cgroup: /fast, proto: tcp, direction: connect, remote: {{ports: [{other}]}}}}
      action: {{stack: kernel}}""")


def connect_until(addr, stop):
    """[(local port, remote port)] of every connect until the stop file is there."""
    done = []
    while not os.path.exists(stop):
        for port in PORTS:
            with socket.socket() as s:
                s.settimeout(30)
                s.connect((addr, port))
                seen = int(s.makefile().readline())
                assert seen == s.getsockname()[1], (seen, s.getsockname())
                done.append((seen, port))
    return done


@test
def no_connect_sees_half_a_policy(w):
    stop = os.path.join(w.dir, "stop")
    without = w.reasons()["no-policy"]
    loads = [w.start(connect_until, w.server4, stop, cgroup="/fast") for _ in range(2)]
    start = time.monotonic()
    for i in range(SWAPS):
        w.swap(PORTS[(i + 1) % 2])
    seconds = time.monotonic() - start
    flows = {(f["local"].rpartition(":")[2], f["remote"].rpartition(":")[2]): f
             for f in w.flows()}
    open(stop, "w").close()
    done = [d for load in loads for d in load.result(120)]
    print(f"# {SWAPS} swaps in {seconds:.2f} s, {len(done)} connects")
    assert len(done) > SWAPS, "not enough load to see anything"
    without = w.reasons()["no-policy"] - without
    assert not without, f"{without} connects met no policy at all"
    seen = set()
    judged = 0
    for local, remote in done:
        seen.add((w.is_steered(local), remote))
        flow = flows.get((str(local), str(remote)))
        if not flow:
            continue
        judged += 1
        assert flow["rule"], f"no rule decided: {flow}"
        kind, _, port = flow["rule"].partition("-")
        assert int(port) == remote, f"rule {flow['rule']} decided a connect to {remote}"
        assert (kind == "stack") == w.is_steered(local), f"{flow}"
        steered = w.steered_in[flow["generation"]]
        assert (kind == "stack") == (remote == steered), f"that policy steered {steered}: {flow}"
    print(f"# {judged} connects judged by their flow entry")
    assert judged > 100
    assert len(seen) == 4, f"both policies must have decided for both ports: {seen}"


@test
def flows_keep_their_stack_across_swaps(w):
    def long_flow(addr, port, stop):
        with socket.socket() as s:
            s.settimeout(60)
            s.connect((addr, port))
            local = s.getsockname()
            s.makefile().readline()
            while not os.path.exists(stop):
                time.sleep(0.05)
            return local == s.getsockname() and s.getpeername() == (addr, port)
    stop = os.path.join(w.dir, "stop2")
    children = [w.start(long_flow, w.server4, p, stop, cgroup="/fast") for p in PORTS]
    time.sleep(0.5)
    for i in range(10):
        w.swap(PORTS[i % 2])
    open(stop, "w").close()
    assert all(c.result() for c in children)


if __name__ == "__main__":
    main(SwapWorld)
