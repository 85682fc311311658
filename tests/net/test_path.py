#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What lies on the way: the interface's MTU in the MSS, a router with a smaller MTU behind it, and
routers that say no. Each is done by the kernel and by the stack, and must end the same.

    client c0 ---- s0 server (a router here) r0 ---- f0 far      MTU 1500, then 1300
"""

import errno
import os
import random
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import World, connected, echo, main, sh, test, wait_for

ECHO, MSS = 8601, 8602
FAR4, FAR6, ROUTER4, ROUTER6 = "198.18.2.2", "fd00:198:20::2", "198.18.2.1", "fd00:198:20::1"
NOWHERE4, NOWHERE6 = "198.18.9.{}", "fd00:198:29::{}"
FAR_MTU = 1300
SIZE = 4 << 20


class PathWorld(World):
    def __init__(self):
        super().__init__()
        c, r = self.ns["client"], self.ns["server"]
        f = self.ns["far"] = f"dmm-{self.id}-far"
        sh("ip", "netns", "add", f)
        sh("ip", "link", "add", "r0", "mtu", FAR_MTU, "netns", r, "type", "veth",
           "peer", "name", "f0", "mtu", FAR_MTU, "netns", f)
        for ns, dev, a4, a6 in ((r, "r0", ROUTER4, ROUTER6), (f, "f0", FAR4, FAR6)):
            sh("ip", "-n", ns, "addr", "add", f"{a4}/24", "dev", dev)
            sh("ip", "-n", ns, "addr", "add", f"{a6}/64", "dev", dev, "nodad")
            sh("ip", "-n", ns, "link", "set", "lo", "up")
            sh("ip", "-n", ns, "link", "set", dev, "up")
            # what is cut into segments must be seen by the router as such
            self.run("ethtool", "-K", dev, "tx", "off", "gro", "off", host=ns)
        self.run("ethtool", "-K", "c0", "tso", "off", "gso", "off", check=False)
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
                 host="server")
        for ns, via4, via6 in ((c, self.server4, self.server6), (f, ROUTER4, ROUTER6)):
            sh("ip", "-n", ns, "route", "add", "default", "via", via4)
            sh("ip", "-n", ns, "-6", "route", "add", "default", "via", via6)
        for host in ("client", "server", "far"):
            # options in every segment would make the kernel's MSS another than the stack's
            self.run("sysctl", "-qw", "net.ipv4.tcp_timestamps=0", host=host)
        self.serve(tell_mss, MSS)
        self.serve(echo, ECHO, host="far")
        self.up(unavailable="reject")

    def both(self, fn, *args):
        """The same by the kernel and by the stack."""
        before = self.instance()["connects"]
        kernel = self.call(fn, *args, cgroup="/kernel")
        assert self.instance()["connects"] == before
        steered = self.call(fn, *args, cgroup="/fast")
        assert self.instance()["connects"] > before, "it did not go through the stack"
        return kernel, steered

    def snmp(self, host, *names):
        """Counters of a host's IP, summed over both versions."""
        text = self.run("nstat", "-asz", *names, host=host).stdout
        return {n: int(line.split()[1]) for line in text.splitlines() for n in names
                if line.startswith(n)}


def tell_mss(c):
    c.sendall(b"%d\n" % c.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))


def asked_mss(addr):
    with connected(addr, MSS) as s:
        return int(s.makefile().readline())


@test
def the_mss_is_that_of_the_interface(w):
    for mtu in (1280, 1400, 1500):
        sh("ip", "-n", w.ns["client"], "link", "set", "c0", "mtu", mtu)
        for addr, headers in ((w.server4, 40), (w.server6, 60)):
            wait_for(f"MSS {mtu - headers} to {addr}", lambda: w.both(asked_mss, addr) ==
                     (mtu - headers, mtu - headers), seconds=20)


def upload(addr, seed):
    """What an echo server gives back for it."""
    data = random.Random(seed).randbytes(SIZE)
    with connected(addr, ECHO) as s:
        pid = os.fork()
        if pid == 0:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            os._exit(0)
        got = bytearray()
        while piece := s.recv(1 << 16):
            got += piece
        os.waitpid(pid, 0)
    return bytes(got) == data


PATH_COUNTERS = ("IpFragCreates", "Ip6FragCreates", "IpFragOKs", "Ip6FragOKs")
TOO_BIG = ("IcmpOutDestUnreachs", "Icmp6OutPktTooBigs")


@test
def a_smaller_mtu_behind_a_router_is_learnt(w):
    """The far host asks for an MSS that would fit a wider path: the router has to say so."""
    for proto, via, mss in (((), ROUTER4, 1460), (("-6",), ROUTER6, 1440)):
        sh("ip", "-n", w.ns["far"], *proto, "route", "change", "default", "via", via,
           "advmss", mss)
    for addr, said in ((FAR4, TOO_BIG[0]), (FAR6, TOO_BIG[1])):
        for cgroup in ("/kernel", "/fast"):
            before = w.snmp("server", *TOO_BIG, *PATH_COUNTERS)
            w.run("ip", "route", "flush", "cache")
            w.run("ip", "-6", "route", "flush", "cache")
            assert w.call(upload, addr, cgroup, cgroup=cgroup), "not the same bytes came back"
            after = w.snmp("server", *TOO_BIG, *PATH_COUNTERS)
            n = after[said] - before[said]
            print(f"# {addr} {cgroup}: the router said {n} times that it is too big")
            assert 0 < n < 200, f"{said}: {n}"
            assert all(after[c] == before[c] for c in PATH_COUNTERS), \
                f"fragments: {before} {after}"


def connect_errno(addr):
    s = socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET)
    s.settimeout(30)
    try:
        s.connect((addr, ECHO))
    except OSError as e:
        return errno.errorcode[e.errno]
    return "connected"


@test
def a_router_that_says_no_is_heard(w):
    """Each kind of route has an error of its own; the application gets the kernel's errno for it."""
    for i, kind in enumerate(("unreachable", "prohibit"), 1):
        for place, proto, bits in ((NOWHERE4, (), 32), (NOWHERE6, ("-6",), 128)):
            addr = place.format(i)
            sh("ip", "-n", w.ns["server"], *proto, "route", "add", kind, f"{addr}/{bits}")
            kernel, steered = w.both(connect_errno, addr)
            print(f"# {kind} {addr}: {kernel}, {steered}")
            assert kernel == steered != "connected"


def talk_over_an_outage(addr, cut, healed):
    with connected(addr, ECHO) as s:
        s.sendall(b"before")
        assert s.recv(100) == b"before"
        cut.send(b"C")
        healed.recv(1)
        s.sendall(b"in the meantime")
        cut.send(b"S")
        s.settimeout(60)
        return s.recv(100)


@test
def an_established_flow_outlives_an_outage(w):
    """Errors that may pass are for a connect() to hear, not for a flow that stands (RFC 5461)."""
    for addr, proto in ((FAR4, ()), (FAR6, ("-6",))):
        bits = "128" if proto else "32"
        for cgroup in ("/kernel", "/fast"):
            said, cut = socket.socketpair()
            heal, healed = socket.socketpair()
            said.settimeout(30)
            flow = w.start(talk_over_an_outage, addr, cut, healed, cgroup=cgroup)
            assert said.recv(1) == b"C"
            sh("ip", "-n", w.ns["server"], *proto, "route", "add", "unreachable", f"{addr}/{bits}",
               "metric", 1)
            heal.send(b"H")
            assert said.recv(1) == b"S"
            time.sleep(0.7)  # some of its segments are answered with errors
            sh("ip", "-n", w.ns["server"], *proto, "route", "del", "unreachable", f"{addr}/{bits}",
               "metric", 1)
            assert flow.result(90) == b"in the meantime"


if __name__ == "__main__":
    main(PathWorld)
