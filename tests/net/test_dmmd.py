#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""dmmd may come and go: killed, restarted and stopped over its pins while flows run, it cuts none of
them, and connects follow the policy all the while. It supervises its instances, keeps nothing of
what it handed over, and applies changes while others run."""

import contextlib
import ctypes
import errno
import json
import os
import platform
import pwd
import re
import resource
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import plugins
from dmmtest import (OUT, ROOT, World, alive, amount, bpf_objects, connect_errno, connected,
                     libc, main, sh, status_of, test, wait_for)
from flows import Flows

ECHO = 8601
NOBODY = 65534
PIDFD_GETFD = 438
SOCKET_SYSCALL = {"x86_64": 41, "aarch64": 198}.get(platform.machine(), -1)
IP_HDRINCL, IP_PKTINFO, IP_UNICAST_IF = 3, 8, 50
IPV6_HDRINCL, IPV6_PKTINFO, IPV6_UNICAST_IF = 36, 50, 76


class DmmdWorld(World):
    def __init__(self):
        super().__init__()
        self.serve_echo(ECHO)
        self.dmmd()
        self.apply(self.policy())

    def pid_in_maps(self):
        """The instance's pid without asking a daemon."""
        out = json.loads(sh("bpftool", "-j", "map", "lookup", "pinned",
                            f"{self.bpffs}/maps/dmm_instances", "key", "0", "0", "0", "0").stdout)
        return out["formatted"]["value"]["pid"]


@test
def killed_and_restarted_it_cuts_no_flow(w):
    before = w.stack()
    with Flows(w) as flows:
        for _ in range(amount(10, 100)):
            w.stop(signal.SIGKILL)
            flows.all_go_on()
            w.check_policy()
            w.restart()
            now = w.stack()
            assert (now["pid"], now["incarnation"]) == (before["pid"], before["incarnation"]), \
                "the instance was not adopted"
            w.ready()
            flows.all_go_on()
            w.check_policy()
    flows.tell()


OTHER_RULES = """
    - name: other
      match: {cgroup: /fast, proto: tcp, direction: connect}
      action: {stack: fast}"""


def rule_of_fast(w):
    return w.ctl_json("explain", "tcp", "connect", w.server4, ECHO, "--cgroup",
                      w.cgroup("/fast"))["rule"]["name"]


@test
def killed_in_an_apply_it_leaves_one_whole_policy(w):
    """Either the old or the new one is live, by name, and the next dmmd goes on with it."""
    lived = {"fast-out": 0, "other": 0}
    with open(f"{w.dir}/other.yaml", "w") as f:
        f.write(w.policy(rules=OTHER_RULES))
    for i in range(amount(12, 60)):
        w.apply(w.policy())
        apply = w.spawn(os.path.join(OUT, "dmmctl"), "--run-dir", f"{w.dir}/run", "apply",
                        f"{w.dir}/other.yaml")
        time.sleep(0.002 * (i % 12) + 0.0003 * (i // 12))
        w.stop(signal.SIGKILL)
        apply.wait(20)
        live = rule_of_fast(w)
        lived[live] += 1
        w.check_policy()
        w.restart()
        w.ready()
        assert rule_of_fast(w) == live
        w.check_policy()
    print(f"# live when it was killed: {lived}")


@test
def killed_before_it_stored_what_is_live_it_goes_on_with_that(w):
    """The moment between the switch and the file: as it leaves the state directory, made by hand."""
    w.apply(w.policy())
    stored = f"{w.dir}/state/policy.yaml"
    with open(stored) as f:
        before = f.read()
    w.apply(w.policy(rules=OTHER_RULES))
    w.stop(signal.SIGKILL)
    generation = w.ctl_json("explain", "tcp", "connect", w.server4, ECHO)["generation"]
    os.rename(stored, f"{stored}.{generation}")
    for name, text in ((stored, before), (f"{stored}.{generation + 1}", "never live")):
        with open(name, "w") as f:
            f.write(text)
    w.restart()
    w.ready()
    assert rule_of_fast(w) == "other"
    with open(stored) as f:
        assert "name: other" in f.read()
    assert [n for n in os.listdir(f"{w.dir}/state") if n.startswith("policy")] == ["policy.yaml"]
    w.apply(w.policy())


@test
def adopted_instance_is_supervised(w):
    w.stop(signal.SIGKILL)
    w.restart()
    pid = w.ready()
    os.kill(pid, signal.SIGKILL)
    w.ready(not_pid=pid)
    w.check_policy()
    assert w.stack()["last_death"], "its death is not told"


@test
def instance_that_died_meanwhile_is_started_again(w):
    w.stop(signal.SIGKILL)
    pid = w.pid_in_maps()
    os.kill(pid, signal.SIGKILL)
    wait_for("the instance is gone", lambda: not alive(pid))
    assert not w.is_steered(w.port()), "a dead instance was used"
    w.restart()
    w.ready(not_pid=pid)
    w.check_policy()


@test
def stopped_gracefully_it_leaves_steering(w):
    pid = w.ready()
    with Flows(w) as flows:
        assert w.stop() == 0
        flows.all_go_on()
        w.check_policy()
        assert alive(pid)
        w.restart()
        assert w.ready() == pid
        flows.all_go_on()


# --- what it holds, and what the instance may ---

def sockets_of(pid):
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            name = os.readlink(f"/proc/{pid}/fd/{fd}")
            if name.startswith(("socket:", "/memfd:")):
                found.add(name)
    return found


@test
def nothing_handed_over_is_kept(w):
    """A copy of a listener or of an AF_XDP socket would make a dead instance look alive."""
    for _ in range(2):
        pid = w.ready()
        instance, dmmd = sockets_of(pid), sockets_of(w.daemon.pid)
        assert len(instance) >= 7, instance  # 2 relays, 2 raw, control, channel, xsk
        assert not instance & dmmd, f"both hold {instance & dmmd}"
        assert not [n for n in dmmd if n.startswith("/memfd:")], dmmd
        os.kill(pid, signal.SIGKILL)  # once more for an instance that was restarted
        w.ready(not_pid=pid)


@test
def instance_has_no_privileges(w):
    status = status_of(w.ready())
    assert set(status["Uid"].split()) == set(status["Uid"].split()[:1]) != {"0"}, status["Uid"]
    assert set(status["Gid"].split()) != {"0"}, status["Gid"]
    assert status["Groups"].split() in ([], status["Gid"].split()[:1]), status["Groups"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, f"{name} {status[name]}"
    assert status["NoNewPrivs"] == "1", status
    with open(f"/proc/{w.ready()}/environ", "rb") as f:
        assert f.read() == b"", "dmmd's environment was handed on"
    try:
        pwd.getpwnam("dmm")
    except KeyError:
        assert "there is no user dmm" in w.log() and "useradd --system dmm" in w.log()


@test
def dmmd_keeps_only_the_capabilities_it_lists(w):
    """And so all tests of this folder show that they are enough."""
    with open(os.path.join(ROOT, "userspace/dmmd/caps.c")) as f:
        listed = re.findall(r"^\t(CAP_\w+),", f.read(), re.M)
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY:
        listed.append("CAP_IPC_LOCK")
    out = sh("gcc", "-E", "-P", "-", input="#include <linux/capability.h>\n" + "\n".join(listed))
    want = sum(1 << int(n) for n in out.stdout.split()[-len(listed):])
    mine = int(status_of("self")["CapPrm"], 16)
    status = status_of(w.daemon.pid)
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[name], 16) == want & mine, f"{name} {status[name]}, want {want & mine:x}"
    assert len(listed) in (12, 13) and int(status["CapInh"], 16) == 0


def take_raw_sockets(pid):
    """Copies of the instance's raw sockets, as whoever takes over the instance would have them."""
    pidfd, found = os.pidfd_open(pid), []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if not os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:"):
            continue
        copy = libc.syscall(PIDFD_GETFD, pidfd, int(fd), 0)
        assert copy >= 0, os.strerror(ctypes.get_errno())
        with contextlib.suppress(OSError):  # AF_XDP has no names
            s = socket.socket(fileno=copy)
            if s.type == socket.SOCK_RAW and s.family in (socket.AF_INET, socket.AF_INET6):
                found.append(s)
    os.close(pidfd)
    return found


def own_raw(family):
    s = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    v4 = family == socket.AF_INET
    s.setsockopt(*(socket.IPPROTO_IP, IP_HDRINCL, 1) if v4 else (socket.IPPROTO_IPV6, IPV6_HDRINCL, 1))
    return s


def send_out_of(s, dev, client, server, payload):
    """A forged packet, sent by every means that name an interface. How many calls took it."""
    index, sent = socket.if_nametoindex(dev), 0
    src, dst = (socket.inet_pton(s.family, a) for a in (client, server))
    if s.family == socket.AF_INET:
        packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 253, 0, src, dst) + payload
        info = (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("i4s4s", index, src, b"\0" * 4))
        unicast_if = (socket.IPPROTO_IP, IP_UNICAST_IF, struct.pack("!i", index))
    else:
        packet = struct.pack("!IHBB16s16s", 6 << 28, len(payload), 253, 64, src, dst) + payload
        info = (socket.IPPROTO_IPV6, IPV6_PKTINFO, struct.pack("16si", src, index))
        unicast_if = (socket.IPPROTO_IPV6, IPV6_UNICAST_IF, struct.pack("!i", index))
    for ancillary in ([], [info]):
        with contextlib.suppress(OSError):
            sent += s.sendmsg([packet], ancillary, 0, (server, 0)) > 0
    for level, option, value in ((socket.SOL_SOCKET, socket.SO_BINDTODEVICE, dev.encode()),
                                 (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b""), unicast_if):
        with contextlib.suppress(OSError):
            s.setsockopt(level, option, value)
        with contextlib.suppress(OSError):
            sent += s.sendmsg([packet], [], 0, (server, 0)) > 0
    return sent


def forge(w, pid):
    """By raw sockets of our own, then as nobody by those of the instance."""
    taken = take_raw_sockets(pid)
    own = [own_raw(s.family) for s in taken]
    hosts = {socket.AF_INET: (w.client4, w.server4), socket.AF_INET6: (w.client6, w.server6)}
    for s in own:
        assert send_out_of(s, "c0", *hosts[s.family], b"ours, to see that it works")
    os.setgroups(())
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    for s in taken:
        send_out_of(s, "c0", *hosts[s.family], b"forged by the instance's socket")
    return sorted(s.family for s in taken)


def listen_in(ready, stop):
    """Frames on s0, until the stop file is there."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.bind(("s0", 0))
    s.settimeout(0.1)
    ready.send(b"R")
    seen = []
    while True:
        try:
            seen.append(s.recv(2048))
        except TimeoutError:
            if os.path.exists(stop):
                return seen


@test
def raw_sockets_reach_loopback_only(w):
    """Whoever holds them: SO_BINDTODEVICE is overruled by what comes with a packet."""
    stop, (ready, other) = f"{w.dir}/stop-listening", socket.socketpair()
    w.check_policy()  # knows its neighbours from now on
    child = w.start(listen_in, other, stop, host="server")
    assert ready.recv(1) == b"R"
    assert w.call(forge, w, w.ready()) == [socket.AF_INET, socket.AF_INET6]
    open(stop, "w").close()
    seen = child.result()
    for kind in (b"\x08\x00", b"\x86\xdd"):
        assert any(b"ours, to see" in f for f in seen if f[12:14] == kind), "the test sees nothing"
        assert not any(b"forged by" in f for f in seen if f[12:14] == kind), kind
    assert not [n for n in os.listdir(w.cgroup_root) if n.startswith(".dmm-made")]
    w.check_policy()


def relay_ports(w):
    pid = w.ready()
    out = w.run("ss", "-tlnpH").stdout
    ports = {m[2]: int(m[3]) for m in re.finditer(
        r"^\S+\s+\d+\s+\d+\s+((127\.0\.0\.1|\[::1\]):(\d+)).*", out, re.M)
        if f"pid={pid}," in m[0]}
    assert set(ports) == {"127.0.0.1", "[::1]"}, out
    return {name.strip("[]"): port for name, port in ports.items()}


def visit(addr, port, uid):
    """What a stranger at the relay port sees."""
    os.setuid(uid)
    try:
        s = connected(addr, port)
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return s.recv(1) or "eof"
    except OSError as e:
        return errno.errorcode[e.errno]


@test
def stranger_at_the_relay_port_is_reset(w):
    with Flows(w) as flows:
        for addr, port in relay_ports(w).items():
            for uid in (0, NOBODY):
                got = w.call(visit, addr, port, uid)
                assert got in ("ECONNRESET", "EPIPE"), f"{addr}:{port} uid {uid}: {got}"
        flows.all_go_on()


def binds(s, addr):
    with contextlib.suppress(OSError):
        s.bind(addr)
        return True


def squat(ports, ready, stop):
    """Listens where the relay did; how many came, within the block."""
    listeners = []
    for addr, port in ports.items():
        s = socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # the dead instance's sockets go a moment after its /proc entries
        wait_for("its port is free", lambda: binds(s, (addr, port)))
        s.listen(8)
        s.setblocking(False)
        listeners.append(s)
    with open(ready, "w"):
        pass
    came = 0
    while not os.path.exists(stop):
        for s in listeners:
            with contextlib.suppress(BlockingIOError):
                s.accept()
                came += 1
        time.sleep(0.01)
    return came


@test
def squatter_on_a_dead_relays_port_gets_nothing(w):
    ports, pid = relay_ports(w), w.ready()
    ready, stop = f"{w.dir}/squats", f"{w.dir}/leaves"
    os.kill(w.daemon.pid, signal.SIGSTOP)  # it must not bring the instance back meanwhile
    try:
        os.kill(pid, signal.SIGKILL)
        wait_for("the instance is gone", lambda: not alive(pid))
        child = w.start(squat, ports, ready, stop)
        wait_for("the squatter listens", lambda: os.path.exists(ready))
        for addr in (w.server4, w.server6):
            for _ in range(5):
                assert not w.is_steered(w.port(addr))
        flow = min((f for f in w.flows() if f["remote"].endswith(f":{ECHO}")),
                   key=lambda f: f["age_ms"])
        assert flow["reason"] in ("instance-no-relay", "instance-stale"), flow
    finally:
        os.kill(w.daemon.pid, signal.SIGCONT)
    w.ready(not_pid=pid)
    w.check_policy()
    open(stop, "w").close()
    assert child.result() == 0, "the squatter got connections"


# --- policy changes ---

def two_stacks(w, second=True, first_port=12000):
    rules = """
    - name: second-out
      match: {cgroup: /second, proto: tcp, direction: connect}
      action: {stack: second, onUnavailable: reject}""" if second else ""
    stack = f"""
    - {{name: second, plugin: {w.plugin}, interface: c1, localPorts: {first_port}-12999}}""" \
        if second else ""
    return f"""apiVersion: dmm/v1alpha1
kind: Policy
metadata: {{name: two}}
spec:
  interfaces: [{{name: c0}}, {{name: c1}}]
  stacks:
    - {{name: fast, plugin: {w.plugin}, interface: c0, localPorts: {w.ports}}}{stack}
  rules:
    - name: fast-out
      match: {{cgroup: /fast, proto: tcp, direction: connect}}
      action: {{stack: fast}}{rules}
  default: {{stack: kernel}}
"""


@test
def stacks_come_and_go_while_others_run(w):
    w.second_link()
    w.cgroup("/second")
    pid = w.ready()
    with Flows(w) as flows:
        w.apply(two_stacks(w))
        first = w.ready("second")
        for addr in ("198.18.1.2", "fd00:198:19::2"):
            assert 12000 <= w.port(addr, "/second") <= 12999
        assert w.call(connect_errno, w.server4, ECHO, cgroup="/second") == 0  # route by another interface
        flows.all_go_on()
        w.apply(two_stacks(w, first_port=12500))  # other ports: that instance starts anew
        w.ready("second", not_pid=first)
        assert 12500 <= w.port("198.18.1.2", "/second") <= 12999
        w.apply(two_stacks(w, second=False))
        wait_for("the removed stack is gone", lambda: [
            s["name"] for s in w.ctl_json("stacks", "list")["items"]] == ["fast"])
        assert w.call(connect_errno, "198.18.1.2", ECHO, cgroup="/second") == 0
        flows.all_go_on()
        assert w.ready() == pid, "the stack that stayed was restarted"
        w.check_policy()
    links = json.loads(w.run("ip", "-j", "link", "show", "dev", "c1").stdout)
    assert "xdp" not in links[0], f"XDP is left on c1: {links}"
    reserved = w.run("sysctl", "-n", "net.ipv4.ip_local_reserved_ports").stdout.strip()
    assert reserved == w.ports, reserved
    w.apply(w.policy())


@test
def changed_rules_hold_for_new_flows(w):
    with Flows(w) as flows:
        generation = w.ctl_json("status")["policy"]["generation"]
        w.apply(w.policy(rules="""
    - name: v4-stays
      match: {cgroup: /fast, remote: {cidr: [198.18.0.0/16]}}
      action: {stack: kernel}
    - name: shut
      match: {cgroup: /fast, proto: tcp, direction: connect, remote: {ports: [9999]}}
      action: {reject: true}
    - name: fast-out
      match: {cgroup: /fast, proto: tcp, direction: connect}
      action: {stack: fast}"""))
        assert w.ctl_json("status")["policy"]["generation"] > generation
        assert not w.is_steered(w.port(w.server4)) and w.is_steered(w.port(w.server6))
        flows.all_go_on()
        w.apply(w.policy())
        w.check_policy()
        flows.all_go_on()


@test
def an_apply_cuts_no_flow_of_a_stack_that_drains(w):
    pid = w.ready()
    with Flows(w) as flows:
        w.ctl("stacks", "drain", "fast")
        r = w.apply(w.policy())
        assert "stack fast: drains; started again after its last flow" in r.stderr, r.stderr
        assert not w.is_steered(w.port())
        flows.all_go_on()
        assert w.stack()["pid"] == pid
    w.ready(not_pid=pid)
    w.check_policy()


@test
def an_interface_that_comes_back_is_used_again(w):
    """Removed and made again it has another index: the stack finds it by its name."""
    if w.run("ip", "link", "show", "dev", "c1", check=False).returncode:
        w.second_link()
    w.apply(two_stacks(w))
    pid, first = w.ready(), w.ready("second")
    with Flows(w) as flows:
        for _ in range(2):
            w.run("ip", "link", "del", "c1")
            wait_for("the instance of a removed interface is gone", lambda: not alive(first))
            assert w.ctl_json("status")["health"] == "degraded"
            assert w.call(connect_errno, "198.18.1.2", ECHO, cgroup="/second") != 0
            w.second_link()
            first = w.ready("second", not_pid=first)
            for addr in ("198.18.1.2", "fd00:198:19::2"):
                assert 12000 <= w.port(addr, "/second") <= 12999, addr
            flows.all_go_on()
    assert w.ready() == pid, "the stack on the other interface was restarted"
    w.apply(w.policy())


@test
def what_steered_traffic_goes_around_is_told_by_apply(w):
    w.run("nft", "-f", "-", input="table inet t { chain out { "
          "type filter hook output priority 0; tcp dport 9 counter drop; }; }")
    try:
        said = w.apply(w.policy()).stderr
    finally:
        w.run("nft", "flush", "ruleset")
    assert "W150" in said and "nftables inet t/out" in said, said
    assert "W150" not in w.apply(w.policy()).stderr
    w.check_policy()


LATER = """
    - name: later
      match: {cgroup: /later/on, proto: tcp, direction: connect}
      action: {stack: fast}"""


@test
def cgroups_that_appear_later_are_attached(w):
    said = w.apply(w.policy(rules=LATER)).stderr
    assert "W107" in said and "/later/on" in said, said
    port = w.port(cgroup="/later/on")  # makes it, and connects at once
    print(f"# the first connect, at once: {'steered' if w.is_steered(port) else 'kernel'}")
    wait_for("the new cgroup is attached", lambda: w.is_steered(w.port(cgroup="/later/on")))
    for _ in range(2):
        os.rmdir(w.cgroup("/later/on"))
        os.rmdir(w.cgroup("/later"))
        wait_for("the cgroup made again is attached",
                 lambda: w.is_steered(w.port(cgroup="/later/on")))
    w.apply(w.policy())
    wait_for("its flows follow the policy without it",
             lambda: not w.is_steered(w.port(cgroup="/later/on")))


def hooks(w, cgroup):
    """What is pinned for it."""
    start = f"cgroup-{os.stat(w.cgroup(cgroup)).st_ino}-"
    return {n[len(start):] for n in os.listdir(f"{w.bpffs}/links") if n.startswith(start)}


DECIDING = {"sock_create", "connect4", "connect6"}
WITHOUT_FAST = """
    - name: other
      match: {cgroup: /kernel, proto: tcp, direction: connect}
      action: {stack: kernel}"""


@test
def flows_outlive_the_attachment_of_their_cgroup(w):
    """Flows() compares the names in the end."""
    whole = hooks(w, "/fast")
    assert DECIDING < whole, whole

    def is_retired():
        return hooks(w, "/fast") == whole - DECIDING

    with Flows(w, ("/fast",)) as flows:
        w.apply(w.policy(rules=WITHOUT_FAST))
        for _ in range(2):
            assert is_retired(), hooks(w, "/fast")
            for addr in (w.server4, w.server6):
                assert not w.is_steered(w.port(addr)), "a retired cgroup was steered"
            time.sleep(2.5)  # a daemon that repairs what it misses would have by now
            assert is_retired(), hooks(w, "/fast")
            flows.all_go_on()
            w.stop(signal.SIGKILL)
            w.restart()
        w.apply(w.policy())
        assert hooks(w, "/fast") == whole
        w.check_policy()
        w.apply(w.policy(rules=WITHOUT_FAST))
        mine = [f for f in w.flows() if f["verdict"] == "userspace" and f["state"] == "established"]
        assert len(mine) == len(flows.children), mine
    wait_for("all is detached after the last flow", lambda: not hooks(w, "/fast"))
    assert not [f for f in w.flows() if f["state"] == "established"], w.flows()
    assert "/fast" not in [c["path"] for c in w.ctl_json("status")["cgroups"]]
    w.apply(w.policy())
    w.check_policy()


@test
def a_detached_cgroup_keeps_its_flows_true(w):
    w.apply(w.policy(rules="""
    - name: all
      match: {proto: tcp, direction: connect, remote: {ports: [%d]}}
      action: {stack: fast}""" % ECHO))
    w.cgroup("/second/below")
    w.ctl("attach", "--cgroup", "/second")
    with Flows(w, ("/second/below",)) as flows:
        assert w.is_steered(w.port(cgroup="/second/below"))
        w.ctl("detach", "--cgroup", "/second")
        assert w.ctl("detach", "--cgroup", "/second", check=False).returncode == 1
        time.sleep(2.5)
        assert not hooks(w, "/second") & DECIDING and hooks(w, "/second")
        assert not w.is_steered(w.port(cgroup="/second/below"))
        flows.all_go_on()
    wait_for("all is detached after the last flow", lambda: not hooks(w, "/second"))
    w.apply(w.policy())


@test
def sighup_reads_the_policy_again(w):
    path = f"{w.dir}/main.yaml"

    def write(text):
        with open(path + ".new", "w") as f:
            f.write(text)
        os.rename(path + ".new", path)

    def rule():
        return w.ctl_json("explain", "tcp", "connect", w.server4, ECHO, "--cgroup",
                          w.cgroup("/fast"))["rule"]["name"]
    write(w.policy())
    w.stop()
    w.restart("--policy", path)
    w.ready()
    write(w.policy().replace("fast-out", "fast-again"))
    w.daemon.send_signal(signal.SIGHUP)
    wait_for("the new policy", lambda: rule() == "fast-again")
    w.check_policy()
    generation = w.ctl_json("status")["policy"]["generation"]
    write(w.policy().replace("stack: fast", "stack: fsat"))
    w.daemon.send_signal(signal.SIGHUP)
    wait_for("the bad policy is in the log", lambda: "main.yaml:8:" in w.log() or
             "E012" in w.log())
    assert w.ctl_json("status")["policy"]["generation"] == generation and rule() == "fast-again"
    w.check_policy()
    w.stop()
    w.restart()
    w.apply(w.policy())


@test
def sighup_reads_what_was_applied_from_wherever_that_was(w):
    """Named by the folder of whoever applied it; dmmd works in another. Standard input is no file."""
    os.makedirs(f"{w.dir}/elsewhere", exist_ok=True)
    path = f"{w.dir}/elsewhere/relative.yaml"
    with open(path, "w") as f:
        f.write(w.policy())
    w.ctl("apply", "relative.yaml", cwd=f"{w.dir}/elsewhere")
    with open(path, "w") as f:
        f.write(w.policy(rules=OTHER_RULES))
    w.daemon.send_signal(signal.SIGHUP)
    wait_for("the changed file is live", lambda: rule_of_fast(w) == "other")
    assert w.ctl_json("status")["policy"]["file"] == path
    w.ctl("apply", "-", input=w.policy())
    w.daemon.send_signal(signal.SIGHUP)
    wait_for("that there is no file", lambda: "there is no file to read again" in w.log())
    w.check_policy()


# --- more than one dmmd, and none ---

@test
def readiness_is_told_to_the_service_manager(w):
    path = f"{w.dir}/notify"
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind(path)
    s.settimeout(20)
    w.stop()
    w.restart(env=dict(os.environ, NOTIFY_SOCKET=path))
    said = b""
    while b"READY=1" not in said.split(b"\n"):
        said += s.recv(4096) + b"\n"
    w.stop()
    s.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            said += s.recv(4096) + b"\n"
    assert b"STOPPING=1" in said.split(b"\n"), said
    s.close()
    os.unlink(path)
    w.restart()
    w.ready()


def without_ipv6(function):
    """From here on socket(AF_INET6) fails as on a kernel with ipv6.disable=1. For children only."""
    code = b"".join(struct.pack("HBBI", *i) for i in (
        (0x20, 0, 0, 0), (0x15, 0, 3, SOCKET_SYSCALL),  # its number
        (0x20, 0, 0, 16), (0x15, 0, 1, socket.AF_INET6),  # its first argument
        (0x06, 0, 0, 0x00050000 | errno.EAFNOSUPPORT), (0x06, 0, 0, 0x7fff0000)))
    text = ctypes.create_string_buffer(code, len(code))
    prog = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(text))
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, prog) == 0
    try:
        socket.socket(socket.AF_INET6)
    except OSError as e:
        assert e.errno == errno.EAFNOSUPPORT
        os.execv(function[0], function)


@test
def kernel_without_ipv6_serves_ipv4(w):
    w.apply(w.policy())
    w.stop()
    w.ctl("teardown")
    log = open(f"{w.dir}/dmmd.log", "ab")
    own = [f"--{k}={v}" for k, v in (("run-dir", f"{w.dir}/run"), ("state-dir", f"{w.dir}/state"),
                                     ("bpffs", w.bpffs), ("cgroup-root", w.cgroup_root))]
    child = w.start(lambda: (os.dup2(log.fileno(), 2),
                             without_ipv6([os.path.join(OUT, "dmmd"), *own])))
    try:
        wait_for("dmmd answers", lambda: w.ctl("status", check=False).returncode == 0)
        w.apply(w.policy())
        w.ready()
        for _ in range(3):
            assert w.is_steered(w.port())
        assert not w.is_steered(w.port(w.server6))
    finally:
        child.kill()
    w.ctl("teardown")
    w.restart()
    w.ready()
    w.check_policy()


def start_second(w, **dirs):
    """A second dmmd with some directories of the first; (exit status, what it said)."""
    args = {"run-dir": f"{w.dir}/run2", "state-dir": f"{w.dir}/state2", "bpffs": w.bpffs + "-2",
            "cgroup-root": w.cgroup_root, **dirs}
    r = w.run(os.path.join(OUT, "dmmd"), *(x for k, v in args.items() for x in (f"--{k}", v)),
              check=False, timeout=30)
    return r.returncode, r.stdout + r.stderr


@test
def second_dmmd_on_the_same_directories_is_refused(w):
    same = {"run-dir": f"{w.dir}/run", "state-dir": f"{w.dir}/state", "bpffs": w.bpffs}
    with Flows(w) as flows:
        for dirs in (same, *({k: v} for k, v in same.items())):
            code, said = start_second(w, **dirs)
            assert code == 1 and "another dmmd" in said, (dirs, code, said)
            assert any(path in said for path in dirs.values()), said
        flows.all_go_on()
        w.check_policy()
    assert not os.path.exists(w.bpffs + "-2") or not os.listdir(w.bpffs + "-2/links")
    sh("rm", "-rf", w.bpffs + "-2")


@test
def two_dmmds_run_side_by_side(w):
    other = World()
    other.serve_echo(ECHO)
    other.up()
    for world in (w, other):
        world.check_policy()
    other.ctl("teardown")
    assert not other.is_steered(other.port())
    other.close()
    w.check_policy()


@test
def crash_loop_is_given_up_in_plain_sight(w):
    """A plug-in that aborts in create(): apply says so by name and leaves the old policy; where it
    begins to crash later, the instance is tried more and more seldom, then given up, and new flows
    follow the rule."""
    os.makedirs(f"{w.dir}/stacks", exist_ok=True)
    plugins.build(f"{w.dir}/stacks/crash.so", create="abort();")
    sh("cp", f"{OUT}/stacks/{w.plugin}.so", f"{w.dir}/stacks/{w.plugin}.so")
    sh("cp", f"{OUT}/stacks/{w.plugin}.so", f"{w.dir}/stacks/later.so")
    w.stop()
    w.restart("--stacks-dir", f"{w.dir}/stacks")
    w.ready()
    generation = w.ctl_json("status")["policy"]["generation"]
    r = w.apply(w.policy(plugin="crash"), check=False)
    said = r.stderr + r.stdout
    assert r.returncode == 1, (r.returncode, said)
    assert "stack 'fast' (plug-in 'crash') did not start: killed by SIGABRT" in said, said
    assert "before stays; reset meanwhile: the flows of stack fast#0" in said, said
    assert w.ctl_json("status")["policy"]["generation"] == generation
    w.ready()
    w.check_policy()

    w.apply(w.policy(plugin="later"))
    pid = w.ready()
    os.rename(f"{w.dir}/stacks/crash.so", f"{w.dir}/stacks/later.so")
    os.kill(pid, signal.SIGKILL)
    wait_for("the stack is given up", lambda: w.stack()["state"] == "failed", seconds=60)
    stack = w.stack()
    assert "SIGABRT" in stack["last_death"] and stack["restarts"] >= 5, stack
    status = w.ctl_json("status")
    assert status["health"] == "degraded" and any("fast" in p for p in status["problems"]), status
    assert not w.is_steered(w.port())
    log = w.log()
    assert log.count("SIGABRT") >= 5 and "given up" in log, log[-2000:]
    gaps = [float(gap) for gap in re.findall(r"SIGABRT.*next try in ([\d.]+) s", log)]
    assert len(gaps) >= 5 and all(b == min(2 * a, 30) for a, b in zip(gaps, gaps[1:])), gaps
    r = w.ctl("stacks", "restart", "fast", check=False)
    assert r.returncode == 1, (r.returncode, r.stdout)
    assert "stack 'fast' (plug-in 'later') did not start: killed by SIGABRT" in r.stderr, r.stderr
    sh("cp", f"{OUT}/stacks/{w.plugin}.so", f"{w.dir}/stacks/later.so")
    w.ctl("stacks", "restart", "fast")
    w.ready()
    w.check_policy()
    w.apply(w.policy())
    w.stop()
    w.restart()
    w.ready()


def ids_of_pins(w):
    """(kind, id) of everything that is pinned."""
    found = set()
    for folder, kind in (("maps", "map"), ("progs", "prog"), ("links", "link")):
        for name in os.listdir(f"{w.bpffs}/{folder}"):
            out = json.loads(sh("bpftool", "-j", kind, "show", "pinned",
                                f"{w.bpffs}/{folder}/{name}").stdout)
            found.add((kind, (out[0] if isinstance(out, list) else out)["id"]))
    return found


def still_there(ids):
    left = []
    for kind in ("map", "prog", "link"):
        have = {item["id"] for item in bpf_objects(kind)}
        left += [(kind, i) for k, i in ids if k == kind and i in have]
    return left


def reconnecting(addr, stop, lost):
    """An application that connects again whenever its connection breaks."""
    breaks = n = 0
    while not os.path.exists(stop):
        try:
            s = connected(addr, ECHO)
            while not os.path.exists(stop):
                s.sendall(b"x")
                assert s.recv(1) == b"x"
                n += 1
                time.sleep(0.002)
            port = s.getsockname()[1]
        except (OSError, AssertionError):
            breaks += 1
            with open(lost, "a") as f:
                f.write("lost\n")
    return breaks, n, port


@test
def teardown_without_a_daemon_leaves_nothing(w):
    pid = w.ready()
    stop = f"{w.dir}/stop-app"
    apps = [w.start(reconnecting, addr, stop, f"{w.dir}/lost{i}", cgroup="/fast")
            for i, addr in enumerate((w.server4, w.server6))]
    with Flows(w, ("/kernel",)) as flows:
        w.stop()
        ids = ids_of_pins(w)
        assert len([i for i in ids if i[0] == "link"]) >= 8, ids
        w.ctl("teardown")
        flows.all_go_on()
        for i in range(len(apps)):
            wait_for("the steered app saw its flow end",
                     lambda n=i: os.path.exists(f"{w.dir}/lost{n}"))
        assert not w.is_steered(w.port()) and not w.is_steered(w.port(w.server6))
    open(stop, "w").close()
    for app in apps:
        breaks, _, port = app.result()
        assert breaks >= 1 and not w.is_steered(port), (breaks, port)
    wait_for("the instance is gone", lambda: not alive(pid))
    wait_for("pinned objects are gone", lambda: not still_there(ids))
    assert not os.path.exists(w.bpffs) or not os.listdir(w.bpffs), os.listdir(w.bpffs)
    assert "clsact" not in w.run("tc", "qdisc", "show", "dev", "lo").stdout
    assert not w.run("tc", "filter", "show", "dev", "lo", "egress", check=False).stdout
    for dev in ("c0", "c1"):
        link = json.loads(w.run("ip", "-j", "link", "show", "dev", dev).stdout)
        assert "xdp" not in link[0], link
    assert not w.run("sysctl", "-n", "net.ipv4.ip_local_reserved_ports").stdout.strip()
    assert not w.run("ss", "-tlnHp").stdout, "somebody still listens"
    assert w.ctl("teardown", check=False).returncode == 0, "once more is not an error"
    w.restart()
    w.apply(w.policy())
    w.ready()
    w.check_policy()


@test
def teardown_beside_a_daemon_stops_it(w):
    pid = w.ready()
    w.ctl("teardown")
    wait_for("nothing is steered", lambda: not w.is_steered(w.port()))
    wait_for("the instance is gone", lambda: not alive(pid))
    time.sleep(2.5)  # a daemon that repairs what it misses would have by now
    assert not w.is_steered(w.port()), "steering came back"
    assert not os.path.exists(w.bpffs) or not os.listdir(w.bpffs), os.listdir(w.bpffs)


@test
def a_start_after_a_teardown_is_a_clean_one(w):
    told = len(w.log())
    w.dmmd()
    w.ready()
    w.check_policy()
    for word in ("died", "does not answer", "adopted"):
        assert word not in w.log()[told:], w.log()[told:]


if __name__ == "__main__":
    main(DmmdWorld)
