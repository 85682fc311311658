#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Ten thousand connections at once through one instance: each works, what they cost is bounded, and
one that does not read harms none of the others."""

import os
import resource
import select
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import World, amount, main, status_of, test, wait_for

FLOWS = amount(10000)
AT_ONCE = 200  # connects in progress
PORT, FLOOD_PORT = 8401, 8402
# of the instance, for an idle flow: the plug-in's block, the relay's entry
FLOW_MEMORY = 4096


class ManyWorld(World):
    def __init__(self):
        super().__init__()
        self.serve(flood, FLOOD_PORT)
        self.dmmd()
        self.apply(self.policy(rules="""
    - name: fast
      match: {cgroup: /fast, proto: tcp, direction: any}
      action: {stack: fast, onUnavailable: reject}"""))
        self.ready()
        self.many_echo("server")
        self.many_echo("client", "/fast")

    def many_echo(self, host, cgroup=None):
        ready = f"{self.dir}/listening-{host}"
        self.start(echo_many, PORT, ready, host=host, cgroup=cgroup)
        wait_for("the server listens", lambda: os.path.exists(ready))


def all_descriptors():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def echo_many(port, ready):
    """One process for all: they are too many for one each."""
    all_descriptors()
    listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=4096,
                                    dualstack_ipv6=True)
    listener.setblocking(False)
    open(ready, "w").close()
    poll, conns = select.epoll(), {}
    poll.register(listener, select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                c, _ = listener.accept()
                conns[c.fileno()] = c
                poll.register(c, select.EPOLLIN)
                continue
            data = conns[fd].recv(65536)
            if data:
                conns[fd].sendall(data)
            else:
                poll.unregister(fd)
                conns.pop(fd).close()


def flood(c):
    while True:
        c.sendall(bytes(1 << 16))


def hold_many(addr, n, opened, stop):
    """Opens @n connections, then echoes once around all of them until told to stop: how many
    rounds there were, and the wire ports."""
    all_descriptors()
    poll, waiting, conns = select.epoll(), {}, []

    def begin():
        s = socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET)
        s.setblocking(False)
        s.connect_ex((addr, PORT))
        waiting[s.fileno()] = s
        poll.register(s, select.EPOLLOUT)
    began, end = 0, time.monotonic() + 180
    while len(conns) < n:
        while began < n and len(waiting) < AT_ONCE:
            begin()
            began += 1
        for fd, _ in poll.poll(1):
            s = waiting.pop(fd)
            err = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert err == 0, f"connection {len(conns)}: {os.strerror(err)}"
            poll.unregister(fd)
            s.settimeout(60)
            conns.append(s)
        assert time.monotonic() < end, f"only {len(conns)} connections"
    open(opened, "w").close()
    rounds = 0
    while not rounds or not os.path.exists(stop):
        for i in range(0, n, AT_ONCE):
            some = conns[i:i + AT_ONCE]
            for j, s in enumerate(some):
                s.sendall(b"%08d" % (i + j + rounds))
            for j, s in enumerate(some):
                back = s.recv(8, socket.MSG_WAITALL)
                assert back == b"%08d" % (i + j + rounds), (i + j, back)
        rounds += 1
    return rounds, [s.getsockname()[1] for s in conns]


def not_reading(addr, began, stop):
    s = socket.create_connection((addr, FLOOD_PORT))
    s.recv(1)
    open(began, "w").close()
    while not os.path.exists(stop):
        time.sleep(0.05)


def memory_of(pid):
    return int(status_of(pid)["RssAnon"].split()[0]) << 10


def check_many(w, addr, neighbour, **side):
    """@side has them, while @neighbour does not read."""
    pid = w.ready()
    before = memory_of(pid)
    opened, stop, began = (f"{w.dir}/{n}-{addr}" for n in ("opened", "stop", "began"))
    neighbour(began, stop)
    wait_for("one does not read", lambda: os.path.exists(began))
    start = time.monotonic()
    child = w.start(hold_many, addr, FLOWS, opened, stop, **side)
    wait_for("all are open", lambda: os.path.exists(opened), seconds=200)
    took = time.monotonic() - start
    wait_for("all are counted", lambda: w.instance()["flows"] == FLOWS + 1)
    per_flow = (memory_of(pid) - before) / FLOWS
    open(stop, "w").close()
    rounds, ports = child.result(180)
    print(f"# {FLOWS} flows open after {took:.1f} s, {per_flow:.0f} bytes of the instance each, "
          f"{rounds} rounds of echoes")
    assert len(set(ports)) == FLOWS
    assert per_flow < FLOW_MEMORY, per_flow
    assert w.ready() == pid, "the instance died"
    wait_for("all are gone", lambda: w.instance()["flows"] == 0, seconds=60)
    return ports


@test
def ten_thousand_flows_at_once(w):
    def neighbour(began, stop):
        w.start(not_reading, w.server4, began, stop, cgroup="/fast")
    ports = check_many(w, w.server4, neighbour, cgroup="/fast")
    assert all(w.is_steered(p) for p in ports)


@test
def ten_thousand_clients_at_once(w):
    def neighbour(began, stop):
        w.serve(flood, FLOOD_PORT, host="client", cgroup="/fast")
        w.start(not_reading, w.client4, began, stop, host="server")
    pid = w.instance_pid()
    w.ctl("stacks", "restart", "fast")  # none of the other test's memory
    w.ready(not_pid=pid)
    check_many(w, w.client4, neighbour, host="server")
    assert w.instance()["flows_opened"] == FLOWS + 1


if __name__ == "__main__":
    main(ManyWorld)
