#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""connect() through a stack ends as the wire does, and as the kernel's own connect() would: each
case runs in a kernel cgroup and in a steered one, and the two answers must be the same."""

import ctypes
import errno
import os
import select
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import World, libc, main, sh, test, wait_for

OPEN, CLOSED, OTHER = 8001, 8002, 8006
HOLE = """table inet hole {{
    chain in {{
        type filter hook input priority 0
        tcp dport {} {}
    }}
}}
"""
TCP_SYNCNT = 7


class ConnectWorld(World):
    def __init__(self):
        super().__init__()
        self.serve(tell_peer, OPEN)
        self.serve(tell_peer, OTHER)
        self.up()

    def both(self, fn, *args, timeout=60):
        """The kernel's answer and the stack's; a case that was not steered at all is a failure."""
        kernel = self.call(fn, *args, cgroup="/kernel", timeout=timeout)
        before = self.connects()
        steered = self.call(fn, *args, cgroup="/fast", timeout=timeout)
        assert self.connects() > before, "the connect was not steered"
        return kernel, steered

    def connects(self):
        return self.instance()["connects"]


def tell_peer(c):
    """Says who it sees, then echoes until EOF."""
    host, port = c.getpeername()[:2]
    c.sendall(f"{host} {port}\n".encode())
    while data := c.recv(65536):
        c.sendall(data)


def family_of(addr):
    return socket.AF_INET6 if ":" in addr else socket.AF_INET


def errno_of(fn, *args):
    try:
        fn(*args)
        return 0
    except OSError as e:
        return e.errno


def names(addr):
    with socket.socket(family_of(addr)) as s:
        s.connect((addr, OPEN))
        seen = s.makefile().readline().split()
        return s.getsockname()[:2], s.getpeername()[:2], (seen[0].replace("::ffff:", ""),
                                                          int(seen[1]))


def check_names(w, addr, local):
    for cgroup, steered in (("/kernel", False), ("/fast", True)):
        mine, peer, seen = w.call(names, addr, cgroup=cgroup)
        assert peer == (addr, OPEN), f"{cgroup}: getpeername() {peer}"
        assert mine[0] == local, f"{cgroup}: getsockname() {mine}"
        assert mine == seen, f"{cgroup}: getsockname() {mine}, the server saw {seen}"
        assert w.is_steered(mine[1]) == steered, f"{cgroup}: wire port {mine[1]}"


@test
def names_are_true_ipv4(w):
    check_names(w, w.server4, w.client4)


@test
def names_are_true_ipv6(w):
    check_names(w, w.server6, w.client6)


def mapped(addr):
    with socket.socket(socket.AF_INET6) as s:
        s.connect((f"::ffff:{addr}", OPEN))
        seen = s.makefile().readline().split()
        return s.getsockname()[:2], s.getpeername()[:2], int(seen[1])


@test
def names_are_true_v4_mapped(w):
    for cgroup, steered in (("/kernel", False), ("/fast", True)):
        mine, peer, seen = w.call(mapped, w.server4, cgroup=cgroup)
        assert peer == (f"::ffff:{w.server4}", OPEN), peer
        assert mine == (f"::ffff:{w.client4}", seen), (mine, seen)
        assert w.is_steered(seen) == steered


def mptcp_names(addr):
    with socket.socket(family_of(addr), socket.SOCK_STREAM, 262) as s:
        s.connect((addr, OPEN))
        seen = s.makefile().readline().split()
        return s.getsockname()[:2], s.getpeername()[:2], int(seen[1])


@test
def names_are_true_for_mptcp(w):
    for addr, local in ((w.server4, w.client4), (w.server6, w.client6)):
        for cgroup, steered in (("/kernel", False), ("/fast", True)):
            mine, peer, seen = w.call(mptcp_names, addr, cgroup=cgroup)
            assert peer == (addr, OPEN), peer
            assert mine == (local, seen), (mine, seen)
            assert w.is_steered(seen) == steered


def blocking(addr, port, syncnt=0):
    with socket.socket(family_of(addr)) as s:
        if syncnt:
            s.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, syncnt)
        return errno_of(s.connect, (addr, port))


@test
def refused_is_refused(w):
    for addr in (w.server4, w.server6):
        assert w.both(blocking, addr, CLOSED) == (errno.ECONNREFUSED, errno.ECONNREFUSED)


def non_blocking(addr, port):
    """errno of connect(), the poll events, SO_ERROR, SO_ERROR again, whether it can write."""
    with socket.socket(family_of(addr)) as s:
        s.setblocking(False)
        first = s.connect_ex((addr, port))
        ep = select.epoll()
        ep.register(s, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP)
        events = 0
        while not events & (select.EPOLLOUT | select.EPOLLERR):
            got = ep.poll(30)
            assert got, "epoll never said anything"
            events = got[0][1]
        events &= ~select.EPOLLIN  # the greeting may be there already
        err = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        again = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        sent = errno_of(s.send, b"x")
        return first, events, err, again, sent


@test
def non_blocking_connect_with_epoll(w):
    for addr in (w.server4, w.server6):
        kernel, steered = w.both(non_blocking, addr, OPEN)
        assert kernel == steered and steered[0] == errno.EINPROGRESS and steered[2] == 0, (kernel,
                                                                                         steered)
        kernel, steered = w.both(non_blocking, addr, CLOSED)
        assert kernel == steered and steered[2] == errno.ECONNREFUSED, (kernel, steered)


class Blackhole:
    """The server host swallows SYNs to one port: neither answer nor refusal."""

    def __init__(self, w, port, verdict):
        self.w, self.port, self.verdict = w, port, verdict

    def __enter__(self):
        self.w.run("nft", "-f", "-", host="server", input=HOLE.format(self.port, self.verdict))

    def __exit__(self, *_):
        self.w.run("nft", "delete", "table", "inet", "hole", host="server")


@test
def silence_times_out(w):
    with Blackhole(w, 8003, "drop"):
        for addr in (w.server4, w.server6):
            got = w.both(blocking, addr, 8003, 1)
            assert got == (errno.ETIMEDOUT, errno.ETIMEDOUT), got


@test
def icmp_unreachable_reaches_the_application(w):
    cases = (("icmpx type host-unreachable", errno.EHOSTUNREACH),
             ("icmpx type admin-prohibited", None),
             ("icmpx type port-unreachable", errno.ECONNREFUSED))
    for kind, want in cases:
        with Blackhole(w, 8004, f"reject with {kind}"):
            for addr in (w.server4, w.server6):
                kernel, steered = w.both(blocking, addr, 8004, 1)
                assert kernel == steered, f"{kind} {addr}: kernel {kernel}, stack {steered}"
                assert want in (None, steered), f"{kind}: {steered}"


@test
def a_neighbour_that_is_not_there_is_unreachable(w):
    for addr in ("198.18.0.77", "fd00:198:18::77"):
        kernel, steered = w.both(blocking, addr, OPEN)
        assert kernel == steered == errno.EHOSTUNREACH, (addr, kernel, steered)


def close_while_connecting(addr, port):
    s = socket.socket(family_of(addr))
    s.setblocking(False)
    first = s.connect_ex((addr, port))
    local = s.getsockname()[1]
    time.sleep(0.2)
    s.close()
    return first, local


@test
def close_while_connecting_frees_the_wire(w):
    with Blackhole(w, 8005, "drop"):
        kernel, steered = w.both(close_while_connecting, w.server4, 8005)
        assert kernel[0] == steered[0] == errno.EINPROGRESS
    wait_for("the instance lets go of the flow",
             lambda: w.instance()["flows"] == 0)


def reuse(addr):
    """A socket whose connect was refused can be connected again, elsewhere and to loopback."""
    s = socket.socket(family_of(addr))
    first = s.connect_ex((addr, CLOSED))
    second = s.connect_ex((addr, OPEN))
    line = s.makefile().readline() if not second else ""
    return first, second, bool(line), s.getpeername()[:2]


@test
def a_refused_socket_can_connect_again(w):
    for addr in (w.server4, w.server6):
        kernel, steered = w.both(reuse, addr)
        assert kernel == steered, (kernel, steered)


def connect_twice(addr):
    with socket.socket(family_of(addr)) as s:
        s.connect((addr, OPEN))
        twice = errno_of(s.connect, (addr, OPEN))
        s.makefile().readline()
        return twice


@test
def connecting_twice_is_eisconn(w):
    assert w.both(connect_twice, w.server4) == (errno.EISCONN, errno.EISCONN)


def disconnect(s):
    """connect() to AF_UNSPEC, which the socket module has no address for."""
    unspec = struct.pack("H14x", socket.AF_UNSPEC)
    return ctypes.get_errno() if libc.connect(s.fileno(), unspec, len(unspec)) else 0


def connect_elsewhere(addr):
    """Connects, disconnects, connects to another port; what the socket and its peers say."""
    with socket.socket(family_of(addr)) as s:
        s.settimeout(30)
        s.connect((addr, OPEN))
        first = s.makefile().readline().split()
        assert first[1] == str(s.getsockname()[1]), first
        undone = disconnect(s)
        peer = errno_of(s.getpeername)
        again = errno_of(s.connect, (addr, OTHER))
        second = s.makefile().readline().split()
        assert second[1] == str(s.getsockname()[1]), (second, s.getsockname())
        s.sendall(b"ping")
        return (undone, peer, again, s.getpeername()[:2], s.recv(4)), int(second[1])


@test
def a_disconnected_socket_can_connect_elsewhere(w):
    for addr in (w.server4, w.server6):
        (kernel, _), (steered, port) = w.both(connect_elsewhere, addr)
        assert kernel == steered == (0, errno.ENOTCONN, 0, (addr, OTHER), b"ping"), (kernel, steered)
        assert w.is_steered(port), f"the second connection left from {port}"


def many_at_once(addr, n):
    socks = []
    for _ in range(n):
        s = socket.socket(family_of(addr))
        s.setblocking(False)
        s.connect_ex((addr, OPEN))
        socks.append(s)
    ports = set()
    for s in socks:
        s.setblocking(True)
        s.settimeout(30)
        seen = s.makefile().readline().split()
        assert s.getsockname()[1] == int(seen[1])
        ports.add(int(seen[1]))
    return len(ports)


@test
def many_connects_at_once(w):
    assert w.both(many_at_once, w.server4, 200) == (200, 200)


if __name__ == "__main__":
    main(ConnectWorld)
