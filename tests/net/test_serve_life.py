#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The listen side under kills, stalls, drains and changes: a client gets its whole answer or an error,
never a clean end that is none, and nothing is left behind."""

import collections
import contextlib
import errno
import os
import random
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import SLOW, amount, main, test, wait_for
from leaks import fds_of, table_sizes, tuples_left, xdp_sockets
from serving import PORT, ServeWorld, Talk, connect

SEED = int(os.environ.get("SEED", 0)) or 1
KILLS = amount(10, 200)
PAYLOAD = bytes(range(256)) * 400  # more than a window
CLIENTS = 6


def one_client(addr, source, rng):
    """"served", or how it ended; a clean end before all has come back is "cut"."""
    try:
        with connect(addr, PORT, source) as c:
            f = c.makefile("rb")
            if not f.readline().endswith(b"\n"):
                return "cut"
            time.sleep(rng.random() * 0.02)
            c.sendall(PAYLOAD)
            c.shutdown(socket.SHUT_WR)
            back = f.read()
            return "served" if back == PAYLOAD else "cut" if PAYLOAD.startswith(back) else "mangled"
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))


def clients_until(stop, addrs, seed):
    """Clients one after another; {how: how many ended so}."""
    rng, ends = random.Random(seed), collections.Counter()
    while not os.path.exists(stop):
        ends[one_client(rng.choice(addrs), None, rng)] += 1
    return ends


class LifeWorld(ServeWorld):
    @contextlib.contextmanager
    def storm(self):
        """Clients all the while; their ends are in the Counter that is given, afterwards."""
        stop = f"{self.dir}/stop-{random.random()}"
        ends = collections.Counter()
        children = [self.start(clients_until, stop, (self.client4, self.client6), SEED + i, host="server")
                    for i in range(CLIENTS)]
        yield ends
        open(stop, "w").close()
        for c in children:
            ends.update(c.result(120))
        print(f"# {dict(ends)}")

    def by_verdict(self):
        """Clients that came so far by stack and by kernel, as the flow list has them."""
        return collections.Counter(f["verdict"] for f in self.flows() if f["direction"] == "listen")

    def turned_away(self):
        """Clients whose instance had no fresh heartbeat."""
        return sum(n for word, n in self.reasons().items() if word.startswith("instance-stale"))

    def wait_for_another(self, pid):
        """A second of life resets the back-off: the next kill is no crash loop."""
        def ready():
            inst = self.instance()
            return inst["state"] == "ready" and inst["pid"] != pid and inst["ready_for_ms"] > 1000
        wait_for("the instance is back", ready, seconds=60)


@test
def an_instance_killed_again_and_again_leaves_nothing(w):
    rng = random.Random(SEED)
    with w.listening(backlog=1024):
        assert w.by_stack(w.client4)
        fds, sizes = fds_of(w.daemon.pid), table_sizes(w)
        with w.storm() as ends:
            for _ in range(KILLS):
                time.sleep(rng.random() * 0.3)
                pid = w.instance_pid()
                os.kill(pid, signal.SIGKILL)
                w.wait_for_another(pid)
        assert ends["served"] > KILLS, ends
        # what had been accepted is reset; who is just coming may find the old flow's end, too
        assert set(ends) <= {"served", "ECONNRESET", "EPIPE", "ENOTCONN"}, ends
        wait_for("no flow is left open", lambda: not [f for f in w.flows() if f["closed_ms"] is None])
        wait_for("no tuple is left", lambda: not tuples_left(w))
        wait_for("the instance is idle", lambda: w.instance()["flows"] == 0)
        wait_for(f"dmmd has no more than {fds} descriptors", lambda: fds_of(w.daemon.pid) <= fds)
        assert table_sizes(w) == sizes, f"tables had {sizes}, have {table_sizes(w)}"
        assert xdp_sockets(w) == 1
        assert w.by_stack(w.client4) and w.by_stack(w.client6)


def ends_of_a_killed_server(w, reads):
    """The server process of one client is killed: how the client's connection ends."""
    def client(addr, told):
        with connect(addr, PORT) as c:
            f = c.makefile("rb")
            f.readline()
            if not reads:
                c.sendall(PAYLOAD)  # the server echoes into a client that does not read
            told.send(b"1")
            try:
                while f.read1(65536):
                    pass
                c.sendall(b"more")
                return "eof"
            except OSError as e:
                return errno.errorcode[e.errno]
    told, other = socket.socketpair()
    child = w.start(client, w.client4, other, host="server")
    other.close()
    assert told.recv(1) == b"1", child.result()
    time.sleep(0.2)
    for pid in servers_of_clients(w):
        os.kill(pid, signal.SIGKILL)
    return child.result()


def servers_of_clients(w):
    with open(f"{w.cgroup('/fast')}/cgroup.procs") as f:
        pids = [int(pid) for pid in f.read().split()]
    return pids[1:]  # the first has the listener


@test
def a_server_that_is_killed_ends_its_clients_as_in_the_kernel(w):
    ends = {}
    for stack in ("kernel", "fast"):
        w.serve_by(stack)
        with w.listening():
            ends[stack] = [ends_of_a_killed_server(w, reads) for reads in (True, False)]
    assert ends["fast"] == ends["kernel"], ends
    wait_for("nothing is left open", lambda: not [f for f in w.flows() if f["closed_ms"] is None])


@test
def opposite_verdicts_under_a_storm_of_clients(w):
    n = amount(100, 2000)
    with w.listening(backlog=1024):
        before = w.by_verdict()
        with w.storm() as ends:
            for i in range(n):
                w.serve_by("kernel" if i % 2 else "fast")
        assert set(ends) == {"served"}, ends
        after = w.by_verdict()
        print(f"# {n} applies; before {dict(before)}, after {dict(after)}")
        assert all(after[v] > before[v] for v in ("userspace", "kernel")), (before, after)
    w.serve_by("fast")


@test
def a_stall_cuts_no_client(w):
    with w.listening():
        talks = [Talk(w, addr) for addr in (w.client4, w.client6)]
        pid = w.instance_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(2.2 * SLOW)  # longer than --stale-after
            me, told = w.ask(w.client4)
            assert told[0][1] == me[1]
            assert [f["reason"] for f in w.flows() if f["local"] == f"{w.client4}:{PORT}"][0] != "rule"
        finally:
            os.kill(pid, signal.SIGCONT)
        for t in talks:
            t.goes_on()
            t.ends_well()
        wait_for("the stack serves again", lambda: w.by_stack(w.client4))
        assert w.instance_pid() == pid


@test
def a_drained_stack_keeps_its_clients(w):
    with w.listening():
        talks = [Talk(w, addr) for addr in (w.client4, w.client6)]
        pid = w.instance_pid()
        w.ctl("stacks", "drain", "fast")
        wait_for("it drains", lambda: w.stack()["state"] == "draining")
        for t in talks:
            t.goes_on()
        assert not w.by_stack(w.client4) and not w.by_stack(w.client6)
        for t in talks:
            t.goes_on()
            t.ends_well()
        wait_for("it has ended", lambda: w.stack()["state"] == "stopped", seconds=30)
        w.ctl("stacks", "restart", "fast")
        w.ready(not_pid=pid)
        assert w.by_stack(w.client4)


@test
def the_daemon_may_die_and_come_back(w):
    with w.listening():
        talks = [Talk(w, addr) for addr in (w.client4, w.client6)]
        with w.storm() as ends:
            for _ in range(amount(3, 30)):
                before, turned_away = w.by_verdict(), w.turned_away()
                w.stop(signal.SIGKILL)
                for t in talks:
                    t.goes_on()
                me, told = w.ask(w.client4)  # nobody is there, and yet
                assert told[0][1] == me[1]
                w.restart()
                assert w.by_verdict()["userspace"] > before["userspace"]
                # other work may keep the instance from running for that long, and the hooks say so
                left = [f for f in w.flows() if f["verdict"] == "kernel"]
                assert len(left) - before["kernel"] <= w.turned_away() - turned_away, left[:3]
        assert set(ends) == {"served"}, ends
        for t in talks:
            t.goes_on()
            t.ends_well()


if __name__ == "__main__":
    sys.exit(main(LifeWorld))
