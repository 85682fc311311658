#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""dmmd may come and go: killed, restarted and stopped over its pins while flows run, it cuts none of
them, and connects follow the policy all the while. It supervises its instances, keeps nothing of
what it handed over, applies changes while others run, and its control socket survives bad company."""

import contextlib
import errno
import json
import os
import re
import signal
import socket
import stat
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import LONG, OUT, ROOT, World, main, sh, test, wait_for

ECHO = 8601
NOBODY = 65534
READERS = 60  # the group `games`: any that exists will do
STALL = 2.0


class DmmdWorld(World):
    def __init__(self):
        super().__init__()
        self.serve(echo, ECHO)
        self.dmmd("--group", "games")
        self.apply(self.policy())

    def restart(self, *args):
        self.dmmd("--group", "games", *args)

    def stop(self, sig=signal.SIGTERM):
        self.daemon.send_signal(sig)
        return self.daemon.wait(20)

    def pid_in_maps(self):
        """The instance's pid without asking a daemon."""
        out = json.loads(sh("bpftool", "-j", "map", "lookup", "pinned",
                            f"{self.bpffs}/maps/dmm_instances", "key", "0", "0", "0", "0").stdout)
        return out["formatted"]["value"]["pid"]

    def port(self, addr=None, cgroup="/fast"):
        """The local port that a connect gets now."""
        return self.call(local_port, addr or self.server4, cgroup=cgroup)

    def check_policy(self):
        """Connects go where the usual policy says, over both IP versions."""
        for addr in (self.server4, self.server6):
            assert self.is_steered(self.port(addr)), f"{addr}: not steered"
            assert not self.is_steered(self.port(addr, "/kernel")), f"{addr}: steered"


def echo(c):
    while data := c.recv(65536):
        c.sendall(data)


def connected(addr, port=ECHO):
    s = socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET)
    s.settimeout(30)
    s.connect((addr, port))
    return s


def local_port(addr):
    with connected(addr) as s:
        port = s.getsockname()[1]
        s.sendall(b"ping")
        assert s.recv(10) == b"ping"
        return port


def connect_errno(addr):
    try:
        local_port(addr)
        return 0
    except OSError as e:
        return e.errno


# --- flows with sequence numbers ---

def numbered(addr, progress, stop):
    """Sends numbers and wants each back in turn until the stop file is there; writes how far it is.
    Gives the count, and the longest wait for an answer."""
    s = connected(addr)
    name, peer = s.getsockname(), s.getpeername()
    out = os.open(progress, os.O_WRONLY | os.O_CREAT)
    n, longest = 0, 0.0
    while not os.path.exists(stop):
        n += 1
        asked = time.monotonic()
        s.sendall(struct.pack("!Q", n))
        back = b""
        while len(back) < 8:
            piece = s.recv(8 - len(back))
            assert piece, f"cut after {n}"
            back += piece
        assert struct.unpack("!Q", back)[0] == n
        longest = max(longest, time.monotonic() - asked)
        os.pwrite(out, struct.pack("!Q", n), 0)
        time.sleep(0.002)
    assert (s.getsockname(), s.getpeername()) == (name, peer)
    s.shutdown(socket.SHUT_WR)
    assert s.recv(1) == b""
    return n, longest


class Flows:
    """Numbered flows, two of each IP version in each cgroup, while the with block runs."""

    def __init__(self, w, cgroups=("/fast", "/kernel")):
        self.stop = os.path.join(w.dir, "stop-flows")
        self.children = []
        for i, (cgroup, addr) in enumerate((c, a) for c in cgroups
                                           for a in (w.server4, w.server6) * 2):
            path = os.path.join(w.dir, f"progress-{i}")
            self.children.append((w.start(numbered, addr, path, self.stop, cgroup=cgroup), path))

    def counts(self):
        def count(path):
            with contextlib.suppress(OSError), open(path, "rb") as f:
                return int.from_bytes(f.read(8), "big")
            return 0
        return [count(path) for _, path in self.children]

    def all_go_on(self):
        """Every flow answers something that was asked for from now on."""
        start = self.counts()
        wait_for("every flow goes on", lambda: all(
            now > then + 1 for now, then in zip(self.counts(), start)))

    def __enter__(self):
        self.all_go_on()
        return self

    def __exit__(self, kind, *_):
        open(self.stop, "w").close()
        try:
            if kind:
                for child, _ in self.children:
                    child.kill()
            else:
                self.results = [child.result() for child, _ in self.children]
        finally:
            os.unlink(self.stop)
            for _, path in self.children:
                os.unlink(path)


@test
def killed_and_restarted_it_cuts_no_flow(w):
    before = w.stack()
    with Flows(w) as flows:
        for _ in range(100 if LONG else 10):
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
    numbers = [n for n, _ in flows.results]
    print(f"# {sum(numbers)} answers in {len(numbers)} flows, "
          f"longest wait {max(t for _, t in flows.results):.3f} s")


@test
def killed_in_an_apply_it_leaves_one_whole_policy(w):
    """Either the old or the new one is live, by name, and the next dmmd goes on with it."""
    for i in range(5):
        w.apply(w.policy())
        with open(f"{w.dir}/other.yaml", "w") as f:
            f.write(w.policy(rules="""
    - name: other
      match: {cgroup: /fast, proto: tcp, direction: connect}
      action: {stack: fast}"""))
        apply = w.spawn(os.path.join(OUT, "dmmctl"), "--run-dir", f"{w.dir}/run", "apply",
                        f"{w.dir}/other.yaml")
        time.sleep(0.004 * i)
        w.stop(signal.SIGKILL)
        apply.wait(20)

        def rule():
            return w.ctl_json("explain", "tcp", "connect", w.server4, ECHO, "--cgroup",
                              w.cgroup("/fast"))["rule"]["name"]
        live = rule()
        assert live in ("fast-out", "other"), live
        w.check_policy()
        w.restart()
        w.ready()
        assert rule() == live
        w.check_policy()
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


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


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


@test
def hung_instance_turns_new_flows_away_and_goes_on_after(w):
    pid = w.ready()
    with Flows(w) as flows:
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(1.5)  # older than any heartbeat may be
            start = time.monotonic()
            ports = [w.port(addr) for addr in (w.server4, w.server6)]
            took = time.monotonic() - start
        finally:
            os.kill(pid, signal.SIGCONT)
        resumed = time.monotonic()
        flows.all_go_on()
        resumed = time.monotonic() - resumed
        wait_for("new flows are steered again", lambda: w.is_steered(w.port()))
    assert not any(map(w.is_steered, ports)), "a hung instance was used"
    print(f"# while it hung: 2 connects by the kernel in {took:.3f} s; "
          f"all flows went on {resumed:.3f} s after")
    assert resumed < STALL, f"stalled for {resumed:.1f} s after the instance went on"
    assert w.ready() == pid
    w.check_policy()


@test
def hung_instance_is_killed_in_the_end(w):
    w.stop()
    w.restart("--dead-after", "1.5")
    pid = w.ready()
    os.kill(pid, signal.SIGSTOP)
    w.ready(not_pid=pid)
    assert not alive(pid)
    w.check_policy()
    assert "heartbeat" in w.stack()["last_death"], w.stack()
    w.stop()
    w.restart()
    w.ready()


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
    with open(f"/proc/{w.ready()}/status") as f:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
    assert set(status["Uid"].split()) == set(status["Uid"].split()[:1]) != {"0"}, status["Uid"]
    assert set(status["Gid"].split()) != {"0"}, status["Gid"]
    assert status["Groups"].split() in ([], status["Gid"].split()[:1]), status["Groups"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, f"{name} {status[name]}"
    assert status["NoNewPrivs"] == "1", status


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


def squat(ports, ready, stop):
    """Listens where the relay did; how many came, within the block."""
    listeners = []
    for addr, port in ports.items():
        s = socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((addr, port))
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
        wait_for("the instance is gone", lambda: not os.path.exists(f"/proc/{pid}/fd/0"))
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
    - {{name: second, plugin: lwip, interface: c1, localPorts: {first_port}-12999}}""" \
        if second else ""
    return f"""apiVersion: dmm/v1alpha1
kind: Policy
metadata: {{name: two}}
spec:
  interfaces: [{{name: c0}}, {{name: c1}}]
  stacks:
    - {{name: fast, plugin: lwip, interface: c0, localPorts: {w.ports}}}{stack}
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
        assert w.call(connect_errno, w.server4, cgroup="/second") == 0  # route by another interface
        flows.all_go_on()
        w.apply(two_stacks(w, first_port=12500))  # other ports: that instance starts anew
        w.ready("second", not_pid=first)
        assert 12500 <= w.port("198.18.1.2", "/second") <= 12999
        w.apply(two_stacks(w, second=False))
        wait_for("the removed stack is gone", lambda: [
            s["name"] for s in w.ctl_json("stacks", "list")["items"]] == ["fast"])
        assert w.call(connect_errno, "198.18.1.2", cgroup="/second") == 0
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


# --- the control socket ---

def talk(path, data, uid=0, groups=()):
    """Sends bytes, reads one line or the end; as somebody else where @uid is given."""
    if uid:
        os.setgroups(groups)
        os.setgid(uid)
        os.setuid(uid)
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(path)
    with contextlib.suppress(BrokenPipeError):
        s.sendall(data)
    line = b""
    with contextlib.suppress(ConnectionResetError):
        while not line.endswith(b"\n") and (piece := s.recv(1 << 16)):
            line += piece
    return line.partition(b"\n")[0]


def control(w):
    return f"{w.dir}/run/dmmd.sock"


@test
def others_may_read_by_group_and_change_nothing(w):
    mode = os.stat(control(w))
    assert stat.S_IMODE(mode.st_mode) == 0o660 and mode.st_gid == READERS, oct(mode.st_mode)
    def request(verb, **args):
        line = json.dumps({"verb": verb, "args": args}).encode() + b"\n"
        return json.loads(w.call(talk, control(w), line, NOBODY, (READERS,)))
    for verb in ("status", "version", "stacks list", "flows list", "stats"):
        assert request(verb)["ok"], verb
    generation = w.ctl_json("status")["policy"]["generation"]
    for verb, args in (("apply", {"file": "x", "policy": w.policy()}),
                       ("attach", {"cgroup": "/kernel"}), ("detach", {"cgroup": "/fast"}),
                       ("run", {"cgroup": "/fast"}), ("stacks restart", {"name": "fast"}),
                       ("stacks drain", {"name": "fast"})):
        answer = request(verb, **args)
        assert not answer["ok"] and answer["error"]["errno"] == "EPERM", (verb, answer)
        assert answer["error"]["exit"] == 4, answer
    assert w.ctl_json("status")["policy"]["generation"] == generation
    w.check_policy()
    try:
        w.call(talk, control(w), b'{"verb": "status"}\n', NOBODY)
        raise AssertionError("somebody outside the group was let in")
    except OSError as e:
        assert e.errno == errno.EACCES, e


BAD_LINES = (
    b"garbage\n", b"\n", b"[]\n", b"null\n", b"42\n", b'"status"\n', b"{\n", b"}\n", b"{}\n",
    b'{"verb": 1}\n', b'{"verb": null}\n', b'{"verb": "nonesuch"}\n', b'{"verb": "status"\n',
    b'{"verb": "status", "verb": "apply"}x\n', b'\x00\x01\xff\xfe\n', b'{"verb": "\xff\xfe"}\n',
    b'{"verb": "apply"}\n', b'{"verb": "apply", "args": {"policy": 5}}\n',
    b'{"verb": "apply", "args": []}\n', b'{"verb": "attach", "args": {"cgroup": {}}}\n',
    b'{"verb": "attach", "args": {"pid": -1}}\n', b'{"verb": "attach", "args": {"pid": 1e99}}\n',
    b'{"verb": "stacks restart", "args": {"name": "' + b"x" * 5000 + b'"}}\n',
    b'{"verb": "attach", "args": {"cgroup": "' + b"../" * 300 + b'"}}\n',
    b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"\n", b"[" * 50000 + b"\n")


@test
def bad_requests_are_answered_and_forgotten(w):
    for line in BAD_LINES:
        answer = w.call(talk, control(w), line)
        answer = json.loads(answer)
        assert answer["ok"] is False and answer["error"]["text"], (line[:60], answer)
    assert json.loads(w.call(talk, control(w), b'garbage\n{"verb": "ping"}\n'))["ok"] is False
    w.check_policy()


def memory(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * 4096


@test
def lines_too_long_are_refused(w):
    before = memory(w.daemon.pid)
    line = w.call(talk, control(w), b"x" * (1 << 20), NOBODY, (READERS,))
    assert not line or json.loads(line)["ok"] is False, line
    line = w.call(talk, control(w), b" " * (81 << 20), timeout=120)
    assert not line or json.loads(line)["ok"] is False, line[:100]
    wait_for("its memory is given back", lambda: memory(w.daemon.pid) < before + (16 << 20))
    w.check_policy()


def become_reader(uid):
    if uid:
        os.setgroups((READERS,))
        os.setgid(uid)
        os.setuid(uid)


def stubborn(path, ready, uid, kinds):
    """64 clients of these kinds in turn: idle, within a line, or asking and never reading."""
    become_reader(uid)
    clients = []
    for i in range(64):
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        s.setblocking(False)
        kind = kinds[i % len(kinds)]
        if kind == "half":
            s.send(b'{"verb": "sta')
        elif kind == "deaf":
            with contextlib.suppress(BlockingIOError, ConnectionError):
                for _ in range(100000):
                    s.send(b'{"verb": "status"}\n')
        clients.append(s)
    ready.send(b"R")
    ready.recv(1)  # enough
    return len(clients)


@test
def slow_and_idle_clients_hold_up_nobody(w):
    before = memory(w.daemon.pid)
    for uid in (0, NOBODY):
        for kinds in (("idle",), ("idle", "half", "deaf"), ("deaf",)):
            ready, other = socket.socketpair()
            ready.settimeout(30)
            child = w.start(stubborn, control(w), other, uid, kinds)
            assert ready.recv(1) == b"R"
            for _ in range(10):
                w.ctl("status")
            w.apply(w.policy())
            w.check_policy()
            assert memory(w.daemon.pid) < before + (32 << 20)
            ready.send(b"E")
            child.result()
    w.ctl("status")


# --- more than one dmmd, and none ---

@test
def readiness_is_told_to_the_service_manager(w):
    path = f"{w.dir}/notify"
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind(path)
    s.settimeout(20)
    w.stop()
    w.dmmd("--group", "games", env=dict(os.environ, NOTIFY_SOCKET=path))
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
    other.serve(echo, ECHO)
    other.up()
    for world in (w, other):
        world.run("sysctl", "-n", "net.ipv4.ip_local_reserved_ports")
        for addr in (world.server4, world.server6):
            assert world.is_steered(world.call(local_port, addr, cgroup="/fast"))
            assert not world.is_steered(world.call(local_port, addr, cgroup="/kernel"))
    other.ctl("teardown")
    assert not other.is_steered(other.call(local_port, other.server4, cgroup="/fast"))
    other.close()
    w.check_policy()


CRASH = """
#include <stdlib.h>
#include <dmm/stack.h>
static int create(const struct dmm_stack_params *p, const struct dmm_host *h, struct dmm_stack **r)
{ abort(); }
"""


def build_plugin(w, name, head):
    """A plug-in that has every op of lwip's but those that @head redefines: `create`."""
    src, so = f"{w.dir}/{name}.c", f"{w.dir}/stacks/{name}.so"
    os.makedirs(f"{w.dir}/stacks", exist_ok=True)
    with open(src, "w") as f:
        f.write(head + """
static void d(struct dmm_stack *s) {}
static void in(struct dmm_stack *s, const struct dmm_frame *f, unsigned int n) {}
static uint64_t t(struct dmm_stack *s, uint64_t n) { return UINT64_MAX; }
static int co(struct dmm_stack *s, const struct dmm_connect *a, struct dmm_conn **r) { return -1; }
static ssize_t se(struct dmm_conn *c, const void *b, size_t n) { return 0; }
static size_t sp(struct dmm_conn *c) { return 0; }
static unsigned int pe(struct dmm_conn *c, struct iovec *v, unsigned int n) { return 0; }
static void dn(struct dmm_conn *c, size_t n) {}
static int sh(struct dmm_conn *c) { return 0; }
static void cl(struct dmm_conn *c) {}
static int op(struct dmm_conn *c, enum dmm_stack_option o, int v) { return 0; }
static void us(struct dmm_conn *c, void *u) {}
const struct dmm_stack_ops dmm_stack_plugin = {
  .abi = DMM_STACK_ABI, .size = sizeof(struct dmm_stack_ops), .name = "crash", .version = "1",
  .create = create, .destroy = d, .input = in, .tick = t, .connect = co, .send = se,
  .send_space = sp, .recv_peek = pe, .recv_done = dn, .unsent = sp, .shutdown = sh, .close = cl,
  .abort = cl, .set_option = op, .set_user = us };
""")
    sh("gcc", "-shared", "-fPIC", f"-I{ROOT}/include", "-o", so, src)
    return so


@test
def crash_loop_is_given_up_in_plain_sight(w):
    """A plug-in that aborts in create(): apply says so by name and leaves the old policy; where it
    begins to crash later, the instance is tried more and more seldom, then given up, and new flows
    follow the rule."""
    os.makedirs(f"{w.dir}/stacks", exist_ok=True)
    build_plugin(w, "crash", CRASH)
    sh("cp", f"{OUT}/stacks/lwip.so", f"{w.dir}/stacks/lwip.so")
    sh("cp", f"{OUT}/stacks/lwip.so", f"{w.dir}/stacks/later.so")
    w.stop()
    w.restart("--stacks-dir", f"{w.dir}/stacks")
    w.ready()
    generation = w.ctl_json("status")["policy"]["generation"]
    r = w.apply(w.policy(plugin="crash"), check=False)
    said = r.stderr + r.stdout
    assert r.returncode == 1 and "fast" in said and "SIGABRT" in said, (r.returncode, said)
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
    sh("cp", f"{OUT}/stacks/lwip.so", f"{w.dir}/stacks/later.so")
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
        out = json.loads(sh("bpftool", "-j", kind, "show").stdout)
        have = {item["id"] for item in out}
        left += [(kind, i) for k, i in ids if k == kind and i in have]
    return left


def reconnecting(addr, stop, lost):
    """An application that connects again whenever its connection breaks."""
    breaks = n = 0
    while not os.path.exists(stop):
        try:
            s = connected(addr)
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


if __name__ == "__main__":
    main(DmmdWorld)
