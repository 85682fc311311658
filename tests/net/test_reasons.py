#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a relay cannot carry goes to the kernel and says why: each case is done by a real socket in
the steered cgroup; it must work as it does in the kernel, its flow entry must name the reason, and
that reason's counter must have moved by one. Also: which sockets a policy governs at all (nested
cgroups, sockets older than the attach, processes that moved), and the guarded ports."""

import contextlib
import ctypes
import errno
import os
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import CLONE_NEWNET, Skip, World, libc, main, sh, test, wait_for

PORT, UDP_PORT, MD5_PORT, FAST_OPEN_PORT, ECHO_PORT = range(8501, 8506)
OTHER4, OTHER6 = "198.18.0.11", "fd00:198:18::11"  # second addresses of c0
LINK2_CLIENT, LINK2_SERVER = ("198.18.1.1", "fd00:198:19::1"), ("198.18.1.2", "fd00:198:19::2")
FAR4, FAR6 = "203.0.113.1", "2001:db8:113::1"  # behind the server

IP_TRANSPARENT, IP_BIND_ADDRESS_NO_PORT, IPV6_TRANSPARENT = 19, 24, 75
TCP_MD5SIG, TCP_FASTOPEN, MSG_FASTOPEN = 14, 23, 0x20000000


class ReasonWorld(World):
    def __init__(self):
        super().__init__()
        self.second_link()
        for host in ("client", "server"):
            for name in ("all", "c0", "c1", "s0", "s1"):
                path = f"net.ipv4.conf.{name}.rp_filter"
                self.run("sysctl", "-qw", f"{path}=0", host=host, check=False)
        c, s = self.ns["client"], self.ns["server"]
        sh("ip", "-n", c, "addr", "add", f"{OTHER4}/24", "dev", "c0")
        sh("ip", "-n", c, "addr", "add", f"{OTHER6}/64", "dev", "c0", "nodad")
        sh("ip", "-n", s, "addr", "add", f"{FAR4}/32", "dev", "lo")
        sh("ip", "-n", s, "addr", "add", f"{FAR6}/128", "dev", "lo")
        self.serve(tell_peer, PORT)
        self.serve_echo(ECHO_PORT)
        self.serve(tell_peer, PORT, host="client")
        self.up()

    def stays(self, reason, fn, *args, cgroup="/fast", host="client", flow=True):
        """fn ends in the steered cgroup as in the kernel's, for @reason."""
        kernel = self.call(fn, *args, cgroup="/kernel", host=host)
        before = self.reasons()
        steered = self.stack()["flows_opened"]
        got = self.call(fn, *args, cgroup=cgroup, host=host)
        after = self.reasons()
        assert got.outcome == kernel.outcome, f"kernel: {kernel}, here: {got}"
        assert after[reason] == before[reason] + 1, \
            f"{reason} counted {after[reason] - before[reason]} times, not once"
        assert self.stack()["flows_opened"] == steered, "it went through the stack"
        if flow:
            entry = self.flow_from(got.local)
            assert (entry["verdict"], entry["stack"], entry["reason"]) == \
                ("kernel", "kernel", reason), entry
        return got

    def goes_through_stack(self, fn, *args, cgroup="/fast", rule="fast-out"):
        before = self.reasons()
        got = self.call(fn, *args, cgroup=cgroup)
        assert got.outcome == "told", got
        assert self.is_steered(got.local[1]), f"wire port {got.local}"
        assert self.reasons()["rule"] == before["rule"] + 1, "decided not exactly once"
        entry = self.flow_from(got.local)
        assert (entry["verdict"], entry["stack"], entry["rule"]) == ("userspace", "fast", rule), \
            entry
        return got

    def settle_route(self, addr, reason):
        """Waits until the hooks' view of the routes has followed."""
        wait_for(f"route to {addr}: {reason}", lambda: self.ctl_json(
            "explain", "tcp", "connect", addr, PORT, "--cgroup",
            self.cgroup("/fast"))["reason"] == reason)

    def flow_from(self, local):
        """The newest flow entry with this local address and port."""
        addr, port = local
        name = f"[{addr}]:{port}" if ":" in addr and not addr.startswith("::ffff:") else \
            f"{addr.replace('::ffff:', '')}:{port}"
        found = [f for f in self.flows() if f["local"] == name]
        assert found, f"no flow from {name}: {self.flows()[-5:]}"
        return min(found, key=lambda f: f["age_ms"])


class Got:
    """What an application found: its outcome ("told" or an errno's name) and its local name."""

    def __init__(self, outcome, local=None):
        self.outcome, self.local = outcome, local

    def __repr__(self):
        return f"{self.outcome} from {self.local}"


def tell_peer(c):
    host, port = c.getpeername()[:2]
    c.sendall(f"{host.replace('::ffff:', '')} {port}\n".encode())
    while data := c.recv(65536):
        c.sendall(data)


def family_of(addr):
    return socket.AF_INET6 if ":" in addr else socket.AF_INET


def talk(s, dest):
    """Connects, checks that all names are true, that bytes come back, and that the end is clean."""
    s.settimeout(30)
    try:
        s.connect(dest)
    except OSError as e:
        return Got(errno.errorcode.get(e.errno, str(e)))
    line = b""
    while not line.endswith(b"\n"):
        line += s.recv(1)
    host, port = line.decode().split()
    local, peer = s.getsockname()[:2], s.getpeername()[:2]
    assert (local[0].replace("::ffff:", "").split("%")[0], local[1]) == \
        (host.split("%")[0], int(port)), f"getsockname() {local}, the server saw {host} {port}"
    assert peer == dest[:2], f"getpeername() {peer}, connected to {dest}"
    data = os.urandom(100000)
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    back = b""
    while piece := s.recv(65536):
        back += piece
    assert back == data
    s.close()
    return Got("told", local)


def plain(addr, port=PORT):
    return talk(socket.socket(family_of(addr)), (addr, port))


def with_option(addr, level, name, value):
    s = socket.socket(family_of(addr))
    s.setsockopt(level, name, value)
    return talk(s, (addr, PORT))


# --- what the socket is ---

@test
def plain_sockets_are_steered(w):
    """Else everything below would be proven by a stack that never works."""
    for addr in (w.server4, w.server6):
        kernel = w.call(plain, addr, cgroup="/kernel")
        got = w.goes_through_stack(plain, addr)
        assert got.local[0] == kernel.local[0], f"the kernel's source {kernel}, the stack's {got}"


@test
def socket_bound_to_a_device(w):
    for addr in (w.server4, w.server6):
        w.stays("bound-device", with_option, addr, socket.SOL_SOCKET, socket.SO_BINDTODEVICE,
                b"c0\0")


@test
def transparent_sockets(w):
    w.stays("transparent", with_option, w.server4, socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    w.stays("transparent", with_option, w.server6, socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)


@test
def sockets_with_ip_options(w):
    """What the application set there is for the wire, which only the kernel writes so."""
    nops = b"\x01\x01\x01\x00"
    pad = b"\x00\x00" + b"\x01\x04\x00\x00\x00\x00"  # PadN in one header of 8 bytes
    w.stays("ip-options", with_option, w.server4, socket.IPPROTO_IP, socket.IP_OPTIONS, nops)
    for name in (socket.IPV6_HOPOPTS, socket.IPV6_DSTOPTS):
        w.stays("ip-options", with_option, w.server6, socket.IPPROTO_IPV6, name, pad)


def md5_key(addr, key):
    """struct tcp_md5sig for a peer."""
    raw = socket.inet_pton(family_of(addr), addr)
    if len(raw) == 4:
        sockaddr = struct.pack("=HH4s", socket.AF_INET, 0, raw)
    else:
        sockaddr = struct.pack("=HHI16s", socket.AF_INET6, 0, 0, raw)
    return struct.pack("=128sBBHi80s", sockaddr, 0, 0, len(key), 0, key)


def md5_server(addrs, ready):
    s = socket.socket(socket.AF_INET6)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("::", MD5_PORT))
    for addr in addrs:
        s.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, md5_key(addr, b"secret"))
    s.listen(8)
    ready.send(b"R")
    while True:
        c, _ = s.accept()
        tell_peer(c)
        c.close()


def with_md5(addr):
    s = socket.socket(family_of(addr))
    s.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, md5_key(addr, b"secret"))
    return talk(s, (addr, MD5_PORT))


@test
def sockets_with_md5_signatures(w):
    with socket.socket() as s:
        try:
            s.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, md5_key("127.0.0.1", b"x"))
        except OSError as e:
            raise Skip("the kernel has no TCP_MD5SIG") from e
    ready, other = socket.socketpair()
    w.start(md5_server, (f"::ffff:{w.client4}", w.client6, OTHER6), other, host="server")
    ready.settimeout(20)
    assert ready.recv(1) == b"R"
    for addr in (w.server4, w.server6):
        w.stays("tcp-md5", with_md5, addr)


def in_namespace_of(path, addr):
    """A socket made in another network namespace, used from here."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(path, os.O_RDONLY)
    if libc.setns(there, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    s = socket.socket(family_of(addr))
    if libc.setns(here, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    return talk(s, (addr, PORT))


@test
def sockets_of_another_namespace(w):
    for addr in (w.server4, w.server6):
        w.stays("other-netns", in_namespace_of, f"/run/netns/{w.ns['server']}", addr)
        w.stays("other-netns", plain, addr, host="server")


# --- what it is bound to ---

def bound(addr, local, port=0, late=False):
    s = socket.socket(family_of(addr))
    if late:
        s.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((local, port))
    mine = s.getsockname()[:2]
    got = talk(s, (addr, PORT))
    assert got.outcome != "told" or port == 0 or got.local[1] == port, got
    assert got.outcome != "told" or not mine[1] or got.local[1] == mine[1], \
        f"bound to {mine}, connected as {got}"
    return got


@test
def socket_bound_to_a_port(w):
    for i, (addr, any_addr) in enumerate(((w.server4, "0.0.0.0"), (w.server6, "::"))):
        got = w.stays("bound-port", bound, addr, any_addr, 17001 + i)
        assert got.local[1] == 17001 + i


@test
def socket_that_has_been_given_a_port_by_bind(w):
    """bind() to port 0 has shown a port to the application already: it must stay that port."""
    for addr, local in ((w.server4, w.client4), (w.server6, w.client6)):
        got = w.stays("bound-port", bound, addr, local)
        assert got.local[0] == local and not w.is_steered(got.local[1]), got


@test
def socket_bound_to_an_address_of_another_interface(w):
    for addr, local in zip((w.server4, w.server6), LINK2_CLIENT):
        got = w.stays("bound-address", bound, addr, local, 0, True)
        assert got.local[0] == local


@test
def socket_bound_to_an_address_of_the_interface_is_steered_from_it(w):
    for addr, locals_ in ((w.server4, (w.client4, OTHER4)), (w.server6, (w.client6, OTHER6))):
        for local in locals_:
            got = w.goes_through_stack(bound, addr, local, 0, True)
            assert got.local[0] == local, got


# --- where it goes ---

@test
def loopback_destinations(w):
    for addr in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"):
        w.stays("builtin-loopback", plain, addr)


def to_nowhere(addr):
    """Connecting to the unspecified address means this host; getpeername() then says which."""
    s = socket.socket(family_of(addr))
    s.settimeout(30)
    s.connect((addr, PORT))
    local = s.getsockname()[:2]
    return Got("told" if s.recv(1) else "end", local)


@test
def unspecified_destinations(w):
    for addr in ("0.0.0.0", "::"):
        w.stays("builtin-loopback", to_nowhere, addr)


@test
def multicast_destinations(w):
    for addr in ("224.0.0.1", "239.1.2.3", "255.255.255.255", "ff0e::1"):
        w.stays("multicast", plain, addr, flow=False)


@test
def own_addresses(w):
    for addr in (w.client4, w.client6, OTHER4, OTHER6, *LINK2_CLIENT):
        w.stays("builtin-own", plain, addr)


def to_link_local(addr, dev):
    s = socket.socket(socket.AF_INET6)
    scope = socket.if_nametoindex(dev)
    s.settimeout(30)
    s.connect((addr, PORT, 0, scope))
    line = s.makefile().readline()
    assert s.getpeername()[0].startswith("fe80:"), s.getpeername()
    local = s.getsockname()[:2]
    return Got("told" if line else "end", (local[0].split("%")[0], local[1]))


@test
def scoped_link_local_destinations(w):
    def address(dev, host):
        def ready():
            out = w.run("ip", "-6", "-o", "addr", "show", "dev", dev, "scope", "link",
                        host=host).stdout
            return "tentative" not in out and out.partition("inet6 ")[2].partition("/")[0]
        return wait_for(f"link-local address of {dev}", ready)
    address("c0", "client")
    w.stays("scoped-link-local", to_link_local, address("s0", "server"), "c0")


@test
def destinations_by_another_interface(w):
    for addr in LINK2_SERVER:
        w.stays("builtin-route", plain, addr)


@test
def routes_are_followed_as_they_change(w):
    c = w.ns["client"]
    for far, gateways in ((FAR4, (LINK2_SERVER[0], w.server4)),
                          (FAR6, (LINK2_SERVER[1], w.server6))):
        w.stays("no-route", plain, far, flow=False)
        sh("ip", "-n", c, "route", "add", far, "via", gateways[0])
        w.settle_route(far, "builtin-route")
        w.stays("builtin-route", plain, far)
        sh("ip", "-n", c, "route", "replace", far, "via", gateways[1])
        w.settle_route(far, "rule")
        w.goes_through_stack(plain, far)
        sh("ip", "-n", c, "route", "replace", "unreachable", far)
        w.settle_route(far, "no-route")
        got = w.stays("no-route", plain, far, flow=False)
        assert got.outcome == "EHOSTUNREACH", got
        sh("ip", "-n", c, "route", "del", "unreachable", far)
        w.settle_route(far, "no-route")
        got = w.stays("no-route", plain, far, flow=False)
        assert got.outcome == "ENETUNREACH", got


def udp(addr, connect, port=0):
    """The port that the server sees; the datagram comes back."""
    s = socket.socket(family_of(addr), socket.SOCK_DGRAM)
    s.settimeout(20)
    s.bind(("", port))
    if connect:
        s.connect((addr, UDP_PORT))
        assert s.getpeername()[:2] == (addr, UDP_PORT)
        s.send(b"ping")
    else:
        s.sendto(b"ping", (addr, UDP_PORT))
    data, source = s.recvfrom(100)
    assert source[:2] == (addr, UDP_PORT), source
    said, port = data.split()
    assert said == b"ping" and int(port) == s.getsockname()[1]
    return int(port)


def udp_server(ready):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.bind(("::", UDP_PORT))
    ready.send(b"R")
    while True:
        data, source = s.recvfrom(100)
        s.sendto(b"%s %d" % (data, source[1]), source)


@test
def udp_is_left_alone(w):
    ready, other = socket.socketpair()
    w.start(udp_server, other, host="server")
    assert ready.recv(1) == b"R"
    before, flows = w.stack(), {f["cookie"] for f in w.flows()}
    for addr in (w.server4, w.server6):
        for connect in (False, True):
            port = w.call(udp, addr, connect, cgroup="/fast")
            assert not w.is_steered(port), port
            # UDP ports of the instance's numbers are the kernel's, in and out
            assert w.call(udp, addr, connect, 20100, cgroup="/kernel") == 20100
    after = w.stack()
    assert after["flows_opened"] == before["flows_opened"]
    assert after["tx_packets"] == before["tx_packets"]
    assert flows.issuperset(f["cookie"] for f in w.flows())  # old ones leave the list


def fast_open(addr, port):
    """connect() and first bytes in one call, twice: the second time with a cookie."""
    said = []
    for _ in range(2):
        s = socket.socket(family_of(addr))  # must block: without a cookie this is a connect()
        s.sendto(b"early", MSG_FASTOPEN, (addr, port))
        s.shutdown(socket.SHUT_WR)
        got = b""
        while data := s.recv(100):
            got += data
        said.append(got.split(b"\n", 1)[1])
    return said


def fast_open_server(ready):
    s = socket.socket(socket.AF_INET6)
    s.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
    s.bind(("::", FAST_OPEN_PORT))
    s.listen(8)
    ready.send(b"R")
    while True:
        c, _ = s.accept()
        tell_peer(c)
        c.close()


@test
def fast_open_loses_no_data(w):
    w.run("sysctl", "-qw", "net.ipv4.tcp_fastopen=3", host="server")
    ready, other = socket.socketpair()
    w.start(fast_open_server, other, host="server")
    assert ready.recv(1) == b"R"
    for addr in (w.server4, w.server6):
        for cgroup in ("/kernel", "/fast"):
            assert w.call(fast_open, addr, FAST_OPEN_PORT, cgroup=cgroup) == [b"early"] * 2


# --- guarded ports ---

def try_bind(addr, port, kind=socket.SOCK_STREAM, options=()):
    with socket.socket(family_of(addr), kind) as s:
        for name in options:
            s.setsockopt(socket.SOL_SOCKET, name, 1)
        try:
            s.bind((addr, port))
            return 0
        except OSError as e:
            return e.errno


@test
def the_instances_ports_cannot_be_bound(w):
    first, last = map(int, w.ports.split("-"))
    addrs = ("0.0.0.0", "127.0.0.1", w.client4, "::", w.client6)
    w.cgroup("/elsewhere/deep")
    for cgroup in ("/kernel", "/fast", "/elsewhere/deep"):
        for addr in addrs:
            for port in (first, (first + last) // 2, last):
                before = w.reasons()["port-owned"]
                got = w.call(try_bind, addr, port, cgroup=cgroup)
                assert got == errno.EADDRINUSE, (cgroup, addr, port, got)
                assert w.reasons()["port-owned"] == before + 1
    for options in ((socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,)):
        assert w.call(try_bind, "0.0.0.0", first, socket.SOCK_STREAM, options,
                      cgroup="/kernel") == errno.EADDRINUSE
    for addr in addrs:  # not UDP, not the ports beside them, nor other namespaces
        assert w.call(try_bind, addr, first, socket.SOCK_DGRAM, cgroup="/kernel") == 0
        for port in (first - 1, last + 1):
            assert w.call(try_bind, addr, port, cgroup="/kernel") == 0, (addr, port)
    for addr in ("0.0.0.0", "::", w.server4, w.server6):
        assert w.call(try_bind, addr, first, host="server", cgroup="/kernel") == 0


@test
def the_kernel_picks_no_port_of_an_instance(w):
    reserved = w.run("sysctl", "-n", "net.ipv4.ip_local_reserved_ports").stdout
    assert w.ports in reserved, reserved


# --- whom the policy governs ---

EVERYTHING = """
    - name: everything
      match: {cgroup: /, proto: tcp}
      action: {stack: fast}"""


@test
def a_rule_for_the_root_attaches_everything(w):
    w.apply(w.policy(rules=EVERYTHING))
    try:
        for cgroup in ("/kernel", "/fast", "/nobody/named/this"):
            assert w.is_steered(w.port(cgroup=cgroup)), cgroup
    finally:
        w.apply(w.policy())
    assert not w.is_steered(w.port(cgroup="/kernel"))


@test
def a_policy_that_governs_nothing_says_so(w):
    nowhere = """
    - name: anywhere
      match: {proto: tcp}
      action: {stack: fast}"""
    said = w.apply(w.policy(rules=nowhere)).stderr
    assert "W153" in said and "governs nothing" in said, said
    assert "W153" not in w.apply(w.policy()).stderr


INNER_FIRST = """
    - name: inner
      match: {cgroup: /fast/inner, proto: tcp, direction: connect}
      action: {stack: kernel}
    - name: outer
      match: {cgroup: /fast, proto: tcp, direction: connect}
      action: {stack: fast}"""
OUTER_FIRST = """
    - name: outer
      match: {cgroup: /fast, proto: tcp, direction: connect}
      action: {stack: fast}
    - name: inner
      match: {cgroup: /fast/inner, proto: tcp, direction: connect}
      action: {stack: kernel}"""
BOTH_STACK = """
    - name: inner
      match: {cgroup: /fast/inner, proto: tcp, direction: connect}
      action: {stack: fast}
    - name: outer
      match: {cgroup: /fast, proto: tcp, direction: connect}
      action: {stack: fast}"""


@contextlib.contextmanager
def policy_of(w, rules):
    w.cgroup("/fast/inner/most")
    w.apply(w.policy(rules=rules))
    try:
        yield
    finally:
        w.apply(w.policy())


@test
def nested_attached_cgroups_decide_once(w):
    """Hooks of both cgroups run for one connect()."""
    with policy_of(w, BOTH_STACK):
        for cgroup, rule in (("/fast/inner", "inner"), ("/fast/inner/most", "inner"),
                             ("/fast", "outer")):
            for addr in (w.server4, w.server6):
                before = w.stack()["flows_opened"]
                w.goes_through_stack(plain, addr, cgroup=cgroup, rule=rule)
                assert w.stack()["flows_opened"] == before + 1


@test
def nested_cgroups_follow_the_order_of_rules(w):
    with policy_of(w, INNER_FIRST):
        for cgroup in ("/fast/inner", "/fast/inner/most"):
            for addr in (w.server4, w.server6):
                got = w.stays("rule", plain, addr, cgroup=cgroup)
                assert w.flow_from(got.local)["rule"] == "inner"
        w.goes_through_stack(plain, w.server4, cgroup="/fast", rule="outer")
    with policy_of(w, OUTER_FIRST):
        for cgroup in ("/fast/inner", "/fast/inner/most", "/fast"):
            w.goes_through_stack(plain, w.server4, cgroup=cgroup, rule="outer")


def wait_file(path):
    end = time.monotonic() + 30
    while not os.path.exists(path):
        assert time.monotonic() < end, path
        time.sleep(0.02)


def made_before(addr, made, go):
    """One socket that is connected before, one that is connected after, one that is new."""
    old, talking = socket.socket(family_of(addr)), socket.socket(family_of(addr))
    talking.settimeout(30)
    talking.connect((addr, PORT))
    name = talking.getsockname()
    reader = talking.makefile()
    reader.readline()
    with open(made, "w"):
        pass
    wait_file(go)
    talking.sendall(b"on\n")
    assert reader.readline() == "on\n" and talking.getsockname() == name
    assert talking.getpeername()[:2] == (addr, PORT)
    return name[:2], talk(old, (addr, PORT)), plain(addr)


@test
def sockets_older_than_the_attach(w):
    made, go = f"{w.dir}/made", f"{w.dir}/go"
    for addr in (w.server4, w.server6):
        w.cgroup("/late")
        child = w.start(made_before, addr, made, go, cgroup="/late")
        wait_for("sockets are made", lambda: os.path.exists(made))
        w.apply(w.policy(rules="""
    - name: late
      match: {cgroup: /late, proto: tcp, direction: connect}
      action: {stack: fast}"""))
        open(go, "w").close()
        talking, old, new = child.result()
        assert not w.is_steered(talking[1])
        assert w.is_steered(old.local[1]), "its connect() came after the attach"
        assert w.is_steered(new.local[1])
        assert w.flow_from(old.local)["rule"] == "late"
        w.apply(w.policy())
        os.unlink(made)
        os.unlink(go)
        w.ctl("detach", "--cgroup", "/late", check=False)


def move(w, cgroup):
    with open(os.path.join(w.cgroup(cgroup), "cgroup.procs"), "w") as f:
        f.write("0")


def moved_between(w, addr, target):
    """A socket made here and one made and connected here go along into another cgroup."""
    s, talking = socket.socket(family_of(addr)), socket.socket(family_of(addr))
    talking.settimeout(30)
    talking.connect((addr, PORT))
    name, reader = talking.getsockname(), talking.makefile()
    reader.readline()
    move(w, target)
    talking.sendall(b"on\n")
    assert reader.readline() == "on\n" and talking.getsockname() == name
    return name[:2], talk(s, (addr, PORT)), plain(addr)


@test
def sockets_keep_the_class_they_were_made_in(w):
    """The hooks run by the socket's cgroup: that of the process when it made the socket."""
    for addr in (w.server4, w.server6):
        talking, old, new = w.call(moved_between, w, addr, "/fast", cgroup="/kernel")
        assert [w.is_steered(x[1]) for x in (talking, old.local, new.local)] == [
            False, False, True], (talking, old, new)
        talking, old, new = w.call(moved_between, w, addr, "/kernel", cgroup="/fast")
        assert [w.is_steered(x[1]) for x in (talking, old.local, new.local)] == [
            True, True, False], (talking, old, new)


def reconnected(addr):
    """A socket that was steered goes to loopback, and back: nothing of the old may stick."""
    s = socket.socket(family_of(addr))
    s.settimeout(30)
    s.connect((addr, PORT))
    first = s.getsockname()[1]
    s.makefile().readline()
    unspecified = struct.pack("=H14x", socket.AF_UNSPEC)
    if libc.connect(s.fileno(), unspecified, len(unspecified)):
        raise OSError(ctypes.get_errno(), "connect(AF_UNSPEC)")
    here = "::1" if ":" in addr else "127.0.0.1"
    s.connect((here, PORT))
    peer, mine = s.getpeername()[:2], s.getsockname()[0]
    line = s.makefile().readline().split()
    return first, peer == (here, PORT) and mine == here and line[0] == here


@test
def a_reused_socket_forgets_its_stack(w):
    for addr in (w.server4, w.server6):
        first, clean = w.call(reconnected, addr, cgroup="/fast")
        assert w.is_steered(first) and clean


if __name__ == "__main__":
    main(ReasonWorld)
