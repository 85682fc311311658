#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Servers in a steered cgroup: they listen as always, and their clients come through a stack."""

import contextlib
import errno
import os
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import World, amount, main, sh, test, wait_for

PORT, OTHER = 8080, 8081


class ServeWorld(World):
    extra4 = "198.18.0.11"  # a second address of the servers' host
    far4 = "198.18.0.12"    # and of the clients'

    def __init__(self):
        super().__init__()
        sh("ip", "-n", self.ns["client"], "addr", "add", f"{self.extra4}/24", "dev", "c0")
        sh("ip", "-n", self.ns["server"], "addr", "add", f"{self.far4}/24", "dev", "s0")
        self.dmmd()
        self.serve_by("fast")

    def serve_by(self, stack, match="", unavailable="kernel"):
        """/fast has its clients by @stack."""
        more = f", onUnavailable: {unavailable}" if stack != "kernel" else ""
        self.apply(self.policy(rules=f"""
    - name: web
      match: {{cgroup: /fast, proto: tcp, direction: listen, local: {{ports: [{PORT}, 32768-60999]}}{match}}}
      action: {{stack: {stack}{more}}}
    - name: out
      match: {{cgroup: /out, proto: tcp}}
      action: {{stack: fast}}"""))
        self.ready()

    def listening(self, addr="::", port=PORT, cgroup="/fast", **kw):
        """A server that says who each client is, then echoes."""
        return Server(self, addr, port, cgroup, **kw)

    def ask(self, addr, port=PORT, source=None, **kw):
        """One client of the server at @addr: its own address, and what it was told."""
        return self.call(ask, addr, port, source, host="server", **kw)

    def by_stack(self, addr, port=PORT, source=None):
        """Did that client come through the stack? It is served in any case."""
        me, told = self.ask(addr, port, source)
        assert [plain(a) for a in told] == [me, me, (addr, port)], (me, told)
        flow = next(f for f in self.flows() if f["remote"] == written(me))  # the latest
        assert flow["direction"] == "listen" and flow["state"] == "closed", flow
        return flow["verdict"] == "userspace"


class Server:
    def __init__(self, w, addr, port, cgroup, backlog=128, accepts=True):
        ready, other = socket.socketpair()
        self.child = w.start(_listen, addr, port, backlog, accepts, other, cgroup=cgroup)
        other.close()
        self.port = struct.unpack("=H", ready.recv(2))[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()


def _listen(addr, port, backlog, accepts, ready):
    family = socket.AF_INET6 if ":" in addr else socket.AF_INET
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, addr != "::")
    if port:
        s.bind((addr, port))
    s.listen(backlog)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    ready.send(struct.pack("=H", s.getsockname()[1]))
    while not accepts:
        time.sleep(60)
    while True:
        c, peer = s.accept()
        if os.fork() == 0:
            s.close()
            c.sendall(repr((peer[:2], c.getpeername()[:2], c.getsockname()[:2])).encode() + b"\n")
            while data := c.recv(65536):
                c.sendall(data)
            os._exit(0)
        c.close()


def connect(addr, port, source=None):
    return socket.create_connection((addr, port), timeout=20,
                                    source_address=(source, 0) if source else None)


def ask(addr, port, source, payload=b"x" * 100000):
    with connect(addr, port, source) as c:
        me = c.getsockname()[:2]
        f = c.makefile("rb")
        told = eval(f.readline())
        c.sendall(payload)
        c.shutdown(socket.SHUT_WR)
        assert f.read() == payload
    return me, told


def plain(addr):
    return addr[0].removeprefix("::ffff:"), addr[1]


def written(addr):
    return f"[{addr[0]}]:{addr[1]}" if ":" in addr[0] else f"{addr[0]}:{addr[1]}"


def error_of(addr, port):
    """What connect() says, as an errno name; "" where it works."""
    try:
        connect(addr, port).close()
        return ""
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))


# --- listeners of all kinds ---

@test
def a_server_sees_its_real_clients(w):
    with w.listening():
        for addr in (w.client4, w.client6, w.extra4):
            assert w.by_stack(addr), addr


@test
def listeners_of_every_kind(w):
    for bound, addrs in (("0.0.0.0", (w.client4, w.extra4)), (w.client4, (w.client4,)),
                         (w.client6, (w.client6,)), (w.extra4, (w.extra4,))):
        with w.listening(bound):
            for addr in addrs:
                assert w.by_stack(addr), (bound, addr)
    with w.listening("0.0.0.0", 0) as server:  # listen() without bind(): any port
        assert server.port != 0 and w.by_stack(w.client4, server.port)


@test
def what_the_policy_does_not_name_stays_in_the_kernel(w):
    with w.listening(port=OTHER), w.listening(cgroup="/kernel"):
        w.ctl("attach", "--cgroup", "/kernel")
    with w.listening(port=OTHER), w.listening(cgroup="/kernel"):
        for addr in (w.client4, w.client6):
            assert not w.by_stack(addr, OTHER) and not w.by_stack(addr)


@test
def who_listened_before_the_attach_stays_in_the_kernel_and_is_told(w):
    with w.listening(cgroup="/early"):
        said = w.ctl("attach", "--cgroup", "/early").stdout
        assert "1 listener stays in the kernel: restart the server to move it" in said, said
        me, told = w.ask(w.client4)
        assert plain(told[0]) == me
        assert not [f for f in w.flows() if f["remote"] == written(me)]
    with w.listening(cgroup="/early"):
        assert not w.by_stack(w.client4)  # the default's
    w.ctl("detach", "--cgroup", "/early")


@test
def a_port_belongs_to_its_address(w):
    """Another server on the same port of another address has its clients by the kernel."""
    with w.listening(w.client4), w.listening(w.extra4, cgroup="/nobody"):
        assert w.by_stack(w.client4)
        me, told = w.ask(w.extra4)
        assert plain(told[0]) == me
        assert not [f for f in w.flows() if f["remote"] == written(me)]
        for cgroup in ("/fast", "/nobody"):
            assert w.call(bind_errno, w.client4, PORT, cgroup=cgroup) == errno.EADDRINUSE


def bind_errno(addr, port):
    with socket.socket() as s:
        try:
            s.bind((addr, port))
        except OSError as e:
            return e.errno
    return 0


@test
def ports_are_split_by_client_and_by_address(w):
    w.serve_by("fast", f", remote: {{cidr: {w.server4}/32}}")
    with w.listening():
        assert w.by_stack(w.client4) and not w.by_stack(w.client4, source=w.far4)
        assert not w.by_stack(w.client6)
    w.apply(w.policy(rules=f"""
    - name: web
      match: {{cgroup: /fast, direction: listen, local: {{cidr: ["{w.client6}/128", {w.extra4}/32], ports: {PORT}}}}}
      action: {{stack: fast}}"""))
    with w.listening():
        assert w.by_stack(w.client6) and w.by_stack(w.extra4) and not w.by_stack(w.client4)
    w.serve_by("fast")


@test
def a_server_gets_the_class_of_a_newer_policy(w):
    """Its cgroup is told apart from the one above it only while it listens already."""
    w.cgroup("fast/inner")
    with w.listening(cgroup="/fast/inner"):
        assert w.by_stack(w.client4)
        w.apply(w.policy(rules=f"""
    - name: inner
      match: {{cgroup: /fast/inner, direction: listen}}
      action: {{stack: kernel}}
    - name: web
      match: {{cgroup: /fast, direction: listen, local: {{ports: {PORT}}}}}
      action: {{stack: fast}}"""))
        assert not w.by_stack(w.client4)
        w.serve_by("fast")
        assert w.by_stack(w.client4)


def explained(w, local, remote, cgroup="/fast"):
    doc = w.ctl_json("explain", "tcp", "listen", local, "from", remote, "--cgroup", cgroup)
    return doc["verdict"], doc["rule"]["name"]


@test
def explain_says_what_happens(w):
    w.serve_by("fast", f", remote: {{cidr: {w.server4}/32}}")
    assert explained(w, f"{w.client4}:{PORT}", w.server4) == ("userspace", "web")
    assert explained(w, f"{w.client4}:{PORT}", w.far4) == ("kernel", "default")
    assert explained(w, f"{w.client4}:{OTHER}", w.server4) == ("kernel", "default")
    assert explained(w, f"[{w.client6}]:{PORT}", w.server6) == ("kernel", "default")
    said = w.ctl("explain", "tcp", "listen", w.client4, str(PORT), "from", w.server4, "--cgroup", "/fast").stdout
    assert f"tcp to a server at {w.client4}:{PORT}, from {w.server4}" in said, said
    assert "USERSPACE" in said and "if it were down: kernel" in said, said
    for bad in ((w.client4, "from", w.server4), (f"{w.client4}:1", "from", w.server6),
                (f"{w.client4}:1", w.server4), (f"{w.client4}:1", "from")):
        assert w.ctl("explain", "tcp", "listen", *bad, check=False).returncode == 2, bad
    w.serve_by("fast")


# --- the end of it ---

def talk(addr, port, say, source=None):
    """Keeps a connection, and echoes a line each time it is told to; ends when told so."""
    with connect(addr, port, source) as c:
        f = c.makefile("rb")
        f.readline()
        n = 0
        while say.recv(1) == b"1":
            n += 1
            c.sendall(b"line %d\n" % n)
            assert f.readline() == b"line %d\n" % n
            say.send(b"1")
        c.shutdown(socket.SHUT_WR)
        assert f.read() == b""
    return n


class Talk:
    """A connection that goes on."""

    def __init__(self, w, addr, port=PORT, source=None):
        self.line, other = socket.socketpair()
        self.line.settimeout(30)
        self.child = w.start(talk, addr, port, other, source, host="server")
        other.close()
        self.goes_on()

    def goes_on(self):
        self.line.send(b"1")
        assert self.line.recv(1) == b"1", self.child.result()

    def ends_well(self):
        self.line.send(b"0")
        assert self.child.result() > 0


@test
def accepted_connections_outlive_the_listener(w):
    for how in (signal.SIGTERM, signal.SIGKILL):
        with w.listening() as server:
            talks = [Talk(w, addr) for addr in (w.client4, w.client6)]
            server.child.kill(how)
            wait_for("the listener is gone",
                     lambda: w.call(error_of, w.client4, PORT, host="server") == "ECONNREFUSED")
            for t in talks:
                t.goes_on()
            assert w.call(error_of, w.client6, PORT, host="server") == "ECONNREFUSED"
            with w.listening():  # another one, while they live
                assert w.by_stack(w.client4)
                for t in talks:
                    t.goes_on()
                    t.ends_well()


@test
def flows_keep_their_stack_across_applies(w):
    with w.listening():
        talks = []
        for stack in ("fast", "kernel") * 5:
            w.serve_by(stack)
            talks += [Talk(w, addr) for addr in (w.client4, w.client6)]
            assert w.by_stack(w.client4) == (stack == "fast")
        verdicts = [f["verdict"] for f in w.flows() if f["state"] == "established"]
        assert verdicts.count("userspace") == verdicts.count("kernel") == 10, verdicts
        for _ in range(amount(10, 100)):
            w.serve_by("kernel")
            w.serve_by("fast")
            for t in talks:
                t.goes_on()
        for t in talks:
            t.ends_well()


@test
def a_full_backlog_is_seen_as_with_the_kernel(w):
    def fill(addr):
        socks = []
        for _ in range(30):
            s = socket.socket()
            s.settimeout(0.3)
            socks.append(s)
            try:
                s.connect((addr, PORT))
            except TimeoutError:
                return len(socks)
        return len(socks)
    got = {}
    for stack in ("kernel", "fast"):
        w.serve_by(stack)
        with w.listening("0.0.0.0", backlog=4, accepts=False):
            got[stack] = w.call(fill, w.client4, host="server")
    # while one is on its way from the wire to the backlog, another may come: it waits for accept()
    # there as one does whose last ACK a kernel has dropped
    assert got["kernel"] <= got["fast"] <= got["kernel"] + 1 < 10, got


@test
def an_instance_that_dies_resets_its_clients(w):
    with w.listening():
        talks = [Talk(w, addr) for addr in (w.client4, w.client6)]
        pid = w.instance_pid()
        os.kill(pid, signal.SIGKILL)
        for t in talks:
            t.line.send(b"1")
            with contextlib.suppress(OSError):
                t.line.recv(1)
            try:
                t.child.result()
                raise AssertionError("it went on")
            except OSError as e:
                assert e.errno in (errno.ECONNRESET, errno.EPIPE), e
        w.ready(not_pid=pid)
        assert w.by_stack(w.client4) and w.by_stack(w.client6)
    assert not [f for f in w.flows() if f["state"] == "established"], w.flows()


@test
def the_ports_of_a_serving_stack_can_change(w):
    """Its sockets are bound to them: they are in nobody's way."""
    all_ports = w.ports
    with w.listening():
        for ports in ("20000-25999", "23000-31999", all_ports):
            pid, w.ports = w.instance_pid(), ports
            w.serve_by("fast")
            w.ready(not_pid=pid)
            assert w.by_stack(w.client4) and w.by_stack(w.client6), ports


@test
def resets_and_half_closes_pass(w):
    def reset(addr):
        c = connect(addr, PORT)
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.recv(1)
        c.close()
    with w.listening():
        for addr in (w.client4, w.client6):
            w.call(reset, addr, host="server")
        wait_for("both have ended", lambda: not [f for f in w.flows() if f["state"] == "established"])
        states = [f["state"] for f in w.flows()[:2]]
        assert states == ["reset", "reset"], w.flows()[:2]


@test
def many_clients(w):
    def crowd(addr, n):
        socks = [connect(addr, PORT) for _ in range(n)]
        for s in socks:
            s.sendall(b"hello\n")
        for s in socks:
            f = s.makefile("rb")
            f.readline()
            assert f.readline() == b"hello\n"
            s.close()
    with w.listening(backlog=4096):
        w.call(crowd, w.client4, amount(1000), host="server", timeout=120)
        w.call(crowd, w.client6, amount(1000), host="server", timeout=120)
        for _ in range(3):
            assert w.by_stack(w.client4)
    stack = w.stack()
    assert stack["flows_refused"] == 0, stack


if __name__ == "__main__":
    sys.exit(main(ServeWorld))
