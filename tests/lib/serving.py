# SPDX-License-Identifier: Apache-2.0
"""For tests of the listen side: servers in a steered cgroup of the host `client`, and their clients on
the host `server`."""

import errno
import os
import signal
import socket
import struct
import time

from dmmtest import SLOW, World, sh

PORT, OTHER = 8080, 8081


class ServeWorld(World):
    # what these tests are about are not instances that other work keeps from running for a while
    patience = ("--stale-after", "2" if SLOW == 1 else "5")
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
        said = self.apply(self.policy(rules=f"""
    - name: web
      match: {{cgroup: /fast, proto: tcp, direction: listen, local: {{ports: [{PORT}, 32768-60999]}}{match}}}
      action: {{stack: {stack}{more}}}
    - name: out
      match: {{cgroup: /out, proto: tcp}}
      action: {{stack: fast}}"""))
        self.ready()
        return said

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
    with listen_at(addr, port, backlog) as s:
        ready.send(struct.pack("=H", s.getsockname()[1]))
        while not accepts:
            time.sleep(60)
        serve(s)


def listen_at(addr, port, backlog=128):
    family = socket.AF_INET6 if ":" in addr else socket.AF_INET
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, addr != "::")
    if port:
        s.bind((addr, port))
    s.listen(backlog)
    return s


def serve(s):
    """A process for each client: tells it who it is, then echoes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
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


# --- connections that go on ---

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
