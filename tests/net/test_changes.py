#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What changes under running flows: the network around them, their cgroups, descriptors that run out.
None of it cuts a flow of a stack that it would not cut in the kernel."""

import errno
import os
import resource
import select
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import OUT, SLOW, Skip, World, amount, main, sh, test, wait_for
from flows import Flows

ECHO = 8651
# reached through a gateway, which is the server by either of two addresses
BEHIND = {"203.0.113.1": "203.0.113.0/24", "2001:db8:77::1": "2001:db8:77::/64"}
SECOND = ("198.18.0.3", "fd00:198:18::3")


class ChangingWorld(World):
    def __init__(self):
        super().__init__()
        for host in ("client", "server"):
            self.run("sysctl", "-qw", "net.ipv6.conf.all.keep_addr_on_down=1", host=host)
        for addr, bits in zip(SECOND, (24, 64)):
            self.run("ip", "addr", "add", f"{addr}/{bits}", "dev", "s0", "nodad", host="server")
        for addr, bits in zip(BEHIND, (32, 128)):
            self.run("ip", "addr", "add", f"{addr}/{bits}", "dev", "lo", "nodad", host="server")
        self.first = (self.server4, self.server6)
        self.serve_echo(ECHO)
        self.up()
        self.ready()

    def route_by(self, gateways):
        for gateway, to in zip(gateways, BEHIND.values()):
            self.run("ip", "route", "replace", to, "via", gateway)


def goes_down_and_up(w, dev, host):
    with Flows(w) as flows:
        w.run("ip", "link", "set", dev, "down", host=host)
        time.sleep(1)
        w.run("ip", "link", "set", dev, "up", host=host)
        flows.all_go_on()
    w.check_policy()


@test
def an_interface_goes_down_and_up(w):
    goes_down_and_up(w, "c0", "client")


@test
def the_peer_goes_down_and_up(w):
    goes_down_and_up(w, "s0", "server")


@test
def the_mtu_changes(w):
    with Flows(w) as flows:
        for mtu in (1280, 1500):
            w.run("ip", "link", "set", "c0", "mtu", mtu)
            w.run("ip", "link", "set", "s0", "mtu", mtu, host="server")
            flows.all_go_on()
            w.check_policy()


@test
def the_peer_gets_another_hardware_address(w):
    with Flows(w) as flows:
        for last in ("01", "02"):
            w.run("ip", "link", "set", "s0", "address", f"02:00:00:00:77:{last}", host="server")
            w.run("ip", "neigh", "flush", "dev", "c0")
            flows.all_go_on()
    w.check_policy()


@test
def neighbours_are_forgotten(w):
    with Flows(w) as flows:
        for _ in range(5):
            w.run("ip", "neigh", "flush", "dev", "c0")
            flows.all_go_on()


@test
def the_gateway_changes(w):
    w.route_by(w.first)
    with Flows(w, addrs=tuple(BEHIND)) as flows:
        for gateways in (SECOND, w.first):
            w.route_by(gateways)
            flows.all_go_on()
        for addr in BEHIND:
            assert w.is_steered(w.port(addr)), addr


@test
def a_route_goes_and_comes_back(w):
    w.route_by(w.first)
    with Flows(w, addrs=tuple(BEHIND)) as flows:
        for to in BEHIND.values():
            w.run("ip", "route", "del", to)
        time.sleep(0.5)
        w.route_by(w.first)
        flows.all_go_on()


@test
def an_address_goes_and_comes_back(w):
    with Flows(w) as flows:
        for addr in (f"{w.client4}/24", f"{w.client6}/64"):
            w.run("ip", "addr", "del", addr, "dev", "c0")
        time.sleep(0.5)
        for addr in (f"{w.client4}/24", f"{w.client6}/64"):
            w.run("ip", "addr", "add", addr, "dev", "c0", "nodad")
        flows.all_go_on()
    w.check_policy()


# --- addresses and cgroups ---

def change_addresses(w, verb, n):
    """@n addresses of c0 at once."""
    sh("ip", "-n", w.ns["client"], "-batch", "-", input="".join(
        f"addr {verb} 10.{i >> 8}.{i & 255}.1/32 dev c0\n" for i in range(n)))


@test
def more_addresses_than_are_mirrored_stop_steering(w):
    """A part of them would decide wrongly. Flows go on, the status says why, and it ends with it."""
    with Flows(w) as flows:
        change_addresses(w, "add", 4200)
        wait_for("the status says so", lambda: any(
            "more addresses" in p for p in w.ctl_json("status")["problems"]), seconds=30)
        assert not w.is_steered(w.port()), "steered by a part of the addresses"
        flows.all_go_on()
        change_addresses(w, "del", 4200)
        wait_for("it is over", lambda: w.ctl_json("status")["health"] == "ok", seconds=30)
        w.check_policy()
        flows.all_go_on()
    assert w.log().count("warning: addresses and routes") == 1, "told more than once"


@test
def a_cgroup_removed_and_made_again_is_attached_again(w):
    """Under load: each time it is another cgroup, with another id, and each time it is steered."""
    rule = """
    - name: comes-and-goes
      match: {cgroup: /comes, proto: tcp, direction: connect}
      action: {stack: fast, onUnavailable: reject}"""
    w.apply(w.policy(rules=rule))
    with Flows(w, cgroups=("/kernel",)) as flows:
        for _ in range(amount(10, 100)):
            w.cgroup("/comes")
            wait_for("it is steered", lambda: w.is_steered(w.port(cgroup="/comes")))
            os.rmdir(f"{w.cgroup_root}/comes")
        flows.all_go_on()
    w.apply(w.policy())
    wait_for("nothing is left of those that are gone",
             lambda: len([n for n in os.listdir(f"{w.bpffs}/links") if "cgroup-" in n]) == 8,
             seconds=30)


# --- out of descriptors ---

FEW = 200  # more than dmmd and its instance need for themselves


class FewWorld(ChangingWorld):
    """dmmd, and so its instance, may have no more than FEW descriptors."""

    def spawn(self, *args, **kw):
        if args[0] == os.path.join(OUT, "dmmd"):
            args = ("prlimit", f"--nofile={FEW}:{FEW}", *args)
        return super().spawn(*args, **kw)


def open_many(addr, n, begun):
    """@n connects at once, then an echo on each and its end: how many came back."""
    socks, done = [], 0
    for _ in range(n):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex((addr, ECHO))
        socks.append(s)
    open(begun, "w").close()
    for s in socks:
        poll = select.poll()
        poll.register(s, select.POLLOUT)
        assert poll.poll(60000), "a connect hangs"
        err = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        assert not err, os.strerror(err)
    time.sleep(1)
    for s in socks:
        s.settimeout(60)
        s.sendall(b"ping")
        done += s.recv(4, socket.MSG_WAITALL) == b"ping"
        s.close()
    return done


@test
def an_instance_out_of_descriptors_waits_for_some(_):
    if SLOW > 1:
        raise Skip("so slow a CPU lets connects wait longer than the relay has patience for")
    w = FewWorld()
    try:
        pid, begun = w.ready(), f"{w.dir}/begun"
        with Flows(w) as flows:
            child = w.start(open_many, w.server4, FEW + 50, begun, cgroup="/fast")
            wait_for("all have begun", lambda: os.path.exists(begun))
            wait_for("it is full", lambda: len(os.listdir(f"/proc/{pid}/fd")) == FEW)
            flows.all_go_on()
            assert w.instance()["state"] == "ready"
            assert child.result(90) == FEW + 50
            flows.all_go_on()
        assert w.ready() == pid
    finally:
        w.close()


def until_there_are_none(addr):
    """Connects until there is no descriptor left; those it has go on; one that is closed makes room for
    another: how many there were, and the errno."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    socks, err = [], None
    while not err:
        try:
            socks.append(socket.create_connection((addr, ECHO), timeout=30))
        except OSError as e:
            err = e.errno
    socks.pop().close()
    socks.append(socket.create_connection((addr, ECHO), timeout=30))
    for s in socks:
        s.sendall(b"ping")
        assert s.recv(4, socket.MSG_WAITALL) == b"ping"
    return len(socks), err


@test
def an_application_out_of_descriptors_is_told_and_goes_on(w):
    before = w.instance()["flows_opened"]
    for addr in w.first:
        n, err = w.call(until_there_are_none, addr, cgroup="/fast")
        kernels, kernels_err = w.call(until_there_are_none, addr, cgroup="/kernel")
        assert (n, err) == (kernels, kernels_err) and err == errno.EMFILE, (n, err, kernels, kernels_err)
    wait_for("nothing is left", lambda: w.instance()["flows"] == 0)
    assert w.instance()["flows_opened"] == before + 2 * (n + 1)


def lasting_fds(pid):
    """Without those that it has for a moment, when it looks around."""
    lasting = None
    for _ in range(20):
        now = {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
        lasting = now if lasting is None else lasting & now
        time.sleep(0.02)
    return lasting


@test
def dmmd_out_of_descriptors_says_so_and_recovers(w):
    pid = w.daemon.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)

    def full():
        """No descriptor of its lasting ones may have gone meanwhile: then there is one."""
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(set(range(hard)) - lasting_fds(pid)), hard))
        r = w.ctl("status", check=False)
        if not r.returncode:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        return r.returncode and r
    with Flows(w) as flows:
        r = wait_for("it has no descriptor left", full)
        time.sleep(3)  # it looks around every second
        flows.all_go_on()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert r.returncode == 3, f"exit {r.returncode}: {r.stdout}{r.stderr}"
        assert w.ctl("status").returncode == 0
        assert "out of file descriptors" in w.log()
    w.check_policy()


if __name__ == "__main__":
    main(ChangingWorld)
