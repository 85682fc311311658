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

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import SLOW, amount, main, sh, test, wait_for
from serving import (OTHER, PORT, ServeWorld, Talk, connect, error_of, listen_at, plain, serve,
                     written)

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


def passed_on(give, cgroup):
    """The listener comes by a message from somebody else; whoever gets it serves, in its own cgroup."""
    _, (fd,), _, _ = socket.recv_fds(give, 1, 1)
    with socket.socket(fileno=fd) as s:
        give.send(b"R")
        serve(s)


def make_and_give(addr, port, give):
    with listen_at(addr, port) as s:
        socket.send_fds(give, [b"L"], [s.fileno()])


@test
def listeners_that_are_passed_on_are_their_makers(w):
    """Systemd makes a listener, or a parent, and another process accepts: the cgroup that made it counts,
    wherever the other one is. Clients and servers are told the truth in any case."""
    for maker, server, by_stack in (("/fast", "/nobody", True), ("/fast", "/fast", True),
                                    ("/nobody", "/fast", False)):
        give, take = socket.socketpair()
        child = w.start(passed_on, take, server, cgroup=server)
        w.call(make_and_give, "::", PORT, give, cgroup=maker)
        assert give.recv(1) == b"R"
        for addr in (w.client4, w.client6):
            if by_stack:
                assert w.by_stack(addr), (maker, server, addr)
            else:
                me, told = w.ask(addr)
                assert [plain(a) for a in told] == [me, me, (addr, PORT)], (me, told)
        child.kill()


@test
def socket_activation(w):
    """The listener is made first, the server is started by its first client."""
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib/activated.py")
    p = w.spawn("systemd-socket-activate", "-l", f"[::]:{PORT}", sys.executable, program,
                cgroup="/fast")
    wait_for("it listens", lambda: f":{PORT} " in w.run("ss", "-Htln").stdout)
    for addr in (w.client4, w.client6, w.client4):
        assert w.by_stack(addr), addr
    p.kill()
    p.wait()


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
    with w.listening(cgroup="/earlier"):  # a rule attaches, too
        said = w.apply(w.policy(rules=f"""
    - name: web
      match: {{cgroup: /earlier, proto: tcp, direction: listen}}
      action: {{stack: fast}}"""))
        words = "cgroup /earlier: 1 listener stays in the kernel: restart the server to move it"
        assert words in said.stderr + said.stdout and words in w.log(), said
    w.serve_by("fast")


def listen_when_told(line):
    """The socket is made at once, everything else later."""
    with socket.socket() as s:
        line.send(b"M")
        line.recv(1)
        s.bind(("0.0.0.0", PORT))
        s.listen(16)
        line.send(b"L")
        serve(s)


@test
def a_socket_that_is_older_than_the_policy(w):
    """It listens under a newer one: in a cgroup that no rule named before."""
    line, other = socket.socketpair()
    line.settimeout(20)
    w.cgroup("/late")
    w.ctl("attach", "--cgroup", "/late")
    w.serve_by("kernel")
    child = w.start(listen_when_told, other, cgroup="/late")
    assert line.recv(1) == b"M"
    w.apply(w.policy(rules="""
    - name: late
      match: {cgroup: /late, proto: tcp, direction: listen}
      action: {stack: fast}"""))
    w.ready()
    line.send(b"G")
    assert line.recv(1) == b"L"
    assert w.by_stack(w.client4)
    child.kill()
    w.serve_by("fast")
    w.ctl("detach", "--cgroup", "/late")


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


@test
def firewall_rules_that_clients_go_around_are_named(w):
    w.run("nft", "-f", "-", input=f"""table inet shield {{
        chain in {{
            type filter hook input priority 0
            iifname "lo" accept
            tcp dport {PORT} drop
        }}
    }}""")
    try:
        said = w.serve_by("fast").stderr
        assert "W1" in said and "goes around nftables inet shield/in (filter): 2 rules" in said, said
        with w.listening():
            assert w.by_stack(w.client4)  # so it is said for a reason
    finally:
        w.run("nft", "delete", "table", "inet", "shield")
        w.serve_by("fast")


@test
def clients_whose_answers_leave_by_another_interface_are_the_kernels(w):
    w.second_link()
    sh("ip", "-n", w.ns["server"], "rule", "add", "from", "198.18.1.2", "to", w.client4, "lookup", "main")
    with w.listening("0.0.0.0"):
        assert not w.by_stack(w.client4, source="198.18.1.2")
        assert w.by_stack(w.client4)
    assert explained(w, f"{w.client4}:{PORT}", "198.18.1.2") == ("kernel", "web")
    assert explained(w, f"{w.client4}:{PORT}", w.client4) == ("kernel", "web")
    assert explained(w, f"{w.client4}:{PORT}", w.server4) == ("userspace", "web")


def gets_an_answer(addr, source=None, seconds=0.7):
    with socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET) as s:
        s.settimeout(seconds * SLOW)
        if source:
            s.bind((source, 0))
        try:
            s.connect((addr, PORT))
            return True
        except TimeoutError:
            return False


@test
def clients_that_a_rule_turns_away(w):
    """They get no answer, by whichever interface they come; flows that stand go on, and others are let in."""
    def turn_away(stacks):
        policy = w.policy(rules=f"""
    - name: friends
      match: {{cgroup: /fast, proto: tcp, direction: listen, remote: {{cidr: {w.far4}/32}}}}
      action: {{stack: {"fast" if stacks else "kernel"}}}
    - name: strangers
      match: {{cgroup: /fast, proto: tcp, direction: listen, local: {{ports: {PORT}}}}}
      action: {{reject: true}}""")
        w.apply(policy if stacks else "\n".join(
            line for line in policy.split("\n") if not line.startswith(("  interfaces", "  stacks"))))

    def hits():
        return next(r["hits"] for r in w.ctl_json("get", "rules")["items"]
                    if r["name"] == "strangers")

    def is_let_in(addr, source=None, host="server"):
        return w.call(gets_an_answer, addr, source, host=host)
    by_stack, by_other = (w.client4, w.client6), ("198.18.1.1", "fd00:198:19::1")
    with w.listening(), w.listening(port=OTHER):
        talks = [Talk(w, addr) for addr in by_stack + by_other]
        for stacks in (True, False):
            turn_away(stacks)
            for addr in by_stack + by_other:
                before = hits()
                assert not is_let_in(addr), (addr, stacks)
                assert hits() > before, (addr, stacks)
                assert w.ask(addr, OTHER), addr
            assert is_let_in(w.client4, source=w.far4)
            assert is_let_in(w.client4, host="client") and is_let_in("::1", host="client")
            assert explained(w, f"{w.client4}:{PORT}", w.server4) == ("reject", "strangers")
            for t in talks:
                t.goes_on()
        for t in talks:
            t.ends_well()
        w.serve_by("fast")
        for addr in by_stack + by_other:
            assert is_let_in(addr), addr
        assert not [p for p in os.listdir(f"{w.bpffs}/links") if "ingress" in p]


@test
def a_detached_cgroup_has_its_clients_by_the_kernel(w):
    """Also one whose server goes on, and another cgroup's server that takes its port afterwards."""
    w.apply(w.policy(rules=f"""
    - name: everybody
      match: {{proto: tcp, direction: listen, local: {{ports: {PORT}}}}}
      action: {{stack: fast}}"""))
    w.cgroup("gone")
    w.ctl("attach", "--cgroup", "/gone")
    with w.listening(cgroup="/gone"):
        assert w.by_stack(w.client4)
        talk = Talk(w, w.client4)  # a flow that keeps the hooks there
        w.ctl("detach", "--cgroup", "/gone")
        me, told = w.ask(w.client4)
        assert [plain(a) for a in told] == [me, me, (w.client4, PORT)], (me, told)
        talk.goes_on()
    with w.listening(cgroup="/elsewhere"):
        me, told = w.ask(w.client4)
        assert [plain(a) for a in told] == [me, me, (w.client4, PORT)], (me, told)
        talk.goes_on()
        talk.ends_well()
    w.serve_by("fast")


@test
def a_small_range_of_ports_serves_both_ip_versions(w):
    all_ports, w.ports = w.ports, "20000-20099"
    try:
        w.serve_by("fast")
        with w.listening():
            for _ in range(30):
                for addr in (w.client4, w.client6):
                    assert w.by_stack(addr)
    finally:
        w.ports = all_ports
        w.serve_by("fast")


# --- the end of it ---

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
