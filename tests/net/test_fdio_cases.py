#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""FD.io DMM's CI cases, with our own programs (tools/apps), over the kernel and over each userspace
stack, in both directions: the client steered, the server steered."""

import contextlib
import filecmp
import itertools
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import OUT, SLOW, World, amount, connected, main, test, wait_for

PORT = 9101
STACKS = [name.removesuffix(".so") for name in sorted(os.listdir(f"{OUT}/stacks"))]
FILE_SIZE = 5_000_001
ECHO = ("vs_common", "vs_select", "vs_epoll")
SERVERS = (*ECHO, "vs_fork")


class Cases(World):
    def __init__(self):
        super().__init__()
        self.dmmd()
        for side in ("client", "server"):
            os.mkdir(f"{self.dir}/{side}")

    def use(self, stack):
        """/fast has its connects and its clients by @stack."""
        more = "" if stack == "kernel" else ", onUnavailable: reject"
        self.apply(self.policy(plugin=stack if stack != "kernel" else STACKS[0], rules=f"""
    - name: all
      match: {{cgroup: /fast, proto: tcp, direction: any}}
      action: {{stack: {'kernel' if stack == 'kernel' else 'fast'}{more}}}"""))
        self.ready()

    def app(self, name, *args, steered, **kw):
        """A program on the steered host, in its cgroup, or on the other one."""
        host, cgroup = ("client", "/fast") if steered else ("server", None)
        return self.spawn(f"{OUT}/apps/{name}", *args, host=host, cgroup=cgroup,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)

    def case(self, server, client, server_steered):
        """Runs both to their ends; returns what the client said."""
        s = self.app(*server, steered=server_steered)
        listening(self, "client" if server_steered else "server", PORT)
        c = self.app(*client, steered=not server_steered)
        try:
            out, err = c.communicate(timeout=120 * SLOW)
            assert c.returncode == 0, (client, c.returncode, out, err)
            served, err = s.communicate(timeout=30 * SLOW)
            assert s.returncode == 0 and not err, (server, s.returncode, served, err)
        finally:
            s.kill()  # the port is the next one's
        return out

    def directions(self):
        """For each stack: the server's address, the client's, and who is steered."""
        for stack in ["kernel", *STACKS]:
            self.use(stack)
            for served, addr, own in ((False, self.server4, self.client4),
                                      (False, self.server6, self.client6),
                                      (True, self.client4, self.server4),
                                      (True, self.client6, self.server6)):
                yield stack, addr, own, served
                flow = self.flows()[0]  # the latest
                assert flow["verdict"] == ("kernel" if stack == "kernel" else "userspace"), flow
                assert flow["direction"] == ("listen" if served else "connect"), flow


def listening(w, host, port):
    wait_for(f"port {port} listens", lambda: f":{port} " in w.run("ss", "-Htln", host=host).stdout)


def echoed(w, servers, count, length, fds=1):
    for stack, addr, own, served in w.directions():
        for server in servers:
            said = w.case((server, "-s", addr, "-r", PORT, "-l", length, "-n", fds, "-i", 0, "-w", 60),
                          ("vc_common", "-d", addr, "-p", PORT, "-s", own, "-l", length, "-t", count,
                           "-f", fds, "-i", 0, "-w", 60), served)
            assert said.startswith(f"send {count * fds} messages of {length} bytes on {fds} "), said
            print(f"# {stack} {addr} {server}: {said.strip()}")


@test
def c1_c2_messages_come_back(w):
    """C1 sends 50000 on the kernel, C2 50 on lwIP; here each stack has the same work."""
    echoed(w, ["vs_epoll"], amount(1000, 50000), 200)


@test
def all_servers_and_many_connections(w):
    echoed(w, ECHO, amount(20), 3001, fds=30)


@test
def messages_larger_than_any_buffer(w):
    echoed(w, ECHO, 2, 4_000_003)


@test
def all_14_flags_to_both_as_fdio_runs_them(w):
    bases = itertools.count(61000, 10)  # what has ended keeps its port for a while; nobody gets these by chance
    for stack, addr, own, served in w.directions():
        # a steered client that is bound to a port is the kernel's (reason: bound-port)
        base = next(bases) if served or stack == "kernel" else 0

        def flags(d, s):
            return ("-p", PORT, "-d", d, "-a", base, "-s", s, "-l", 200, "-t", 50, "-i", 1, "-f", 2,
                    "-r", PORT, "-n", 2, "-w", 60, "-u", 25, "-e", 10, "-x", 1)
        said = w.case(("vs_epoll", *flags(own, addr)), ("vc_common", *flags(addr, own)), served)
        lines = said.splitlines()
        assert len(lines) == 5 and lines[-1].startswith("send 100 "), (stack, addr, said)
        for i, line in enumerate(lines[:-1], 1):
            assert re.fullmatch(rf"{i * 25} messages, pps \d+, interval \d+ ns", line), said
        port = int(w.flows()[0]["remote" if served else "local"].rsplit(":", 1)[1])
        assert not base or port in (base, base + 1), w.flows()[0]


@test
def c3_c4_a_process_for_each_connection(w):
    for stack, addr, own, served in w.directions():
        n = amount(1000, 50000)
        said = w.case(("vs_fork", "-s", addr, "-a", PORT, "-t", n, "-n", 1),  # -a: FD.io's
                      ("vc_fork", "-d", addr, "-p", PORT, "-s", own, "-t", n), served)
        assert said == "Result = Success\n", (stack, addr, said)


@test
def c5_c6_files_arrive_as_they_are(w):
    with open(f"{w.dir}/server/file.bin", "wb") as f:
        f.write(random.Random(5).randbytes(FILE_SIZE))
    for stack, addr, own, served in w.directions():
        s = w.app("vs_file", "tcp", addr, PORT, steered=served, cwd=f"{w.dir}/server")
        listening(w, "client" if served else "server", PORT)
        c = w.app("vc_file", "tcp", addr, PORT, "file.bin", own, steered=not served,
                  cwd=f"{w.dir}/client")
        out, err = c.communicate(timeout=60 * SLOW)
        assert c.returncode == 0 and out == f"{FILE_SIZE} bytes received\n", (stack, addr, out, err)
        got = f"{w.dir}/client/receive_file.txt"
        assert filecmp.cmp(got, f"{w.dir}/server/file.bin", shallow=False), (stack, addr)
        os.remove(got)
        no_such_file(w, addr, own, served)
        s.kill()
        s.wait()


def no_such_file(w, addr, own, served):
    for name in ("nobody", "../dmmd.log"):
        c = w.app("vc_file", "tcp", addr, PORT, name, own, steered=not served, cwd=f"{w.dir}/client")
        out, err = c.communicate(timeout=60 * SLOW)
        assert c.returncode == 1 and "No such file" in err, (name, out, err)
    assert os.listdir(f"{w.dir}/client") == []


@test
def what_goes_wrong_is_said(w):
    w.use("kernel")
    for args, code, words in (
            (("vc_common",), 2, "usage"), (("vc_common", "-d", "nowhere"), 2, "-d nowhere: not an"),
            (("vc_common", "-d", w.server4, "-u", "x"), 2, "-u x: not a number"),
            (("vs_epoll", "-r", "70000"), 2, "-r 70000: not a number from 1 to 65535"),
            (("vs_select", "-l", "0"), 2, "-l 0: not a number"),
            (("vc_common", "-d", w.server4, "-p", "1"), 1, "connect: Connection refused"),
            (("vc_common", "-d", w.server4, "-a", "65535", "-f", "2"), 2, "over 65535"),
            (("vs_epoll", "-w", "4000000"), 2, "-w 4000000: not a number from 0 to 1000000"),
            (("vs_file", "udp", w.client4, "1"), 2, "usage"),
            (("vs_file", "tcp", w.client4, "0"), 2, "0: not a number from 1 to 65535"),
            (("vc_file", "tcp", w.server4, "1", "name", "nowhere"), 2, "usage"),
            (("vc_file", "tcp", w.server4, "1", "name", w.client4), 1, "connect: Connection refused"),
            (("vc_fork", "-d", w.server4, "-p", "1"), 1, "connect: Connection refused"),
            (("vs_common", "-s", "192.0.2.1"), 1, "bind: Cannot assign")):
        p = w.app(*args, steered=True)
        out, err = p.communicate(timeout=20)
        assert p.returncode == code and words in err, (args, p.returncode, out, err)
    for name in (*SERVERS, "vc_common", "vc_fork", "vs_file", "vc_file"):
        p = w.app(name, "--help", steered=True)
        out, err = p.communicate(timeout=20)
        assert p.returncode == 0 and not err, (name, p.returncode, err)
        assert ("tcp ADDRESS" if "file" in name else "-w SECONDS") in out, (name, out)


@test
def a_server_that_dies_or_lies_fails_the_client(w):
    """What the cases rest upon: the programs notice."""
    w.use("kernel")
    for reply, words in ((b"", "receive: Broken pipe"), (b"x" * 256, "other bytes came back")):
        server = w.serve(lambda c, reply=reply: (c.recv(256), c.sendall(reply)), PORT)
        c = w.app("vc_common", "-d", w.server4, "-p", PORT, "-t", 1, steered=True)
        out, err = c.communicate(timeout=30)
        assert c.returncode == 1 and words in err, (out, err)
        server.kill()
    server = w.serve(lambda c: c.sendall(c.recv(50).swapcase()), PORT)
    c = w.app("vc_fork", "-d", w.server4, "-p", PORT, "-t", 1, steered=True)
    out, err = c.communicate(timeout=30)
    assert c.returncode == 1 and out == "Result = Fail\n" and "Bad message" in err, (out, err)
    server.kill()
    server = w.serve(lambda c: (c.recv(100), c.sendall(struct.pack(">Q", 10) + b"short")), PORT)
    c = w.app("vc_file", "tcp", w.server4, PORT, "name", w.client4, steered=True,
              cwd=f"{w.dir}/client")
    out, err = c.communicate(timeout=30)
    assert c.returncode == 1 and "receive: Broken pipe" in err, (out, err)
    server.kill()
    os.remove(f"{w.dir}/client/receive_file.txt")


@test
def a_client_that_stops_half_way_fails_the_server(w):
    w.use("kernel")
    for name in SERVERS:
        with server(w, name, "-n", 1, "-l", 100) as s:
            w.call(lambda: connected(w.client4, PORT).sendall(b"half"), host="server")
            ends(s, 1, "Broken pipe")


@test
def patience_ends_for_who_is_silent_only(w):
    w.use("kernel")
    for name in SERVERS:
        with server(w, name, "-n", 2, "-w", 1) as s:
            silent = w.start(lambda: connected(w.client4, PORT).recv(1), host="server")
            client = "vc_fork" if name == "vs_fork" else "vc_common"
            for_long = ("-t", 40, "-e", 1, "-i", 50000)  # the pair with processes does not sleep
            ends(w.app(client, "-d", w.client4, "-p", PORT, *for_long, steered=False), 0, "")
            ends(s, 1, "a connection: Connection timed out")
            assert silent.result() == b""
    silent = w.serve(lambda c: time.sleep(60), PORT)
    for name in ("vc_common", "vc_fork"):
        ends(w.app(name, "-d", w.server4, "-p", PORT, "-w", 1, steered=True), 1, "timed out")
    silent.kill()


@test
def who_is_stopped_and_continued_goes_on(w):
    """Calls with a time limit end with EINTR then."""
    w.use("kernel")
    for name in SERVERS:
        with server(w, name, "-n", 1, "-w", 60, "-l", 50) as s:
            client = w.start(late, w.client4, name, host="server")
            wait_for("a client", lambda: f":{PORT} " in w.run("ss", "-Htn").stdout)
            interrupt(s)
            assert client.result() == 50
            ends(s, 0, "")
    for name in ("vc_common", "vc_fork"):
        stingy = w.start(takes_no_second_client_at_first, w.server4, host="server")
        listening(w, "server", PORT)
        c = w.app(name, "-d", w.server4, "-p", PORT, "-w", 60, "-t", 2, steered=True,
                  start_new_session=True)
        interrupt(c)  # in connect()
        wait_for("the connection", lambda: f":{PORT}" in w.run(
            "ss", "-Htn", "state", "established").stdout)
        interrupt(c)  # in read()
        ends(c, 0, "")
        stingy.result()
    size = 8_000_003
    slow = w.serve(lambda c: (time.sleep(1.2), c.sendall(c.recv(size, socket.MSG_WAITALL))), PORT)
    c = w.app("vc_common", "-d", w.server4, "-p", PORT, "-w", 60, "-t", 1, "-l", size, steered=True,
              start_new_session=True)
    interrupt(c)  # in write(), half-way
    ends(c, 0, "")
    slow.kill()


def late(addr, server_name):
    c = connected(addr, PORT)
    time.sleep(1.2)
    c.sendall(b"x" * 50)
    n = len(c.recv(50, socket.MSG_WAITALL))
    if server_name == "vs_fork":
        c.sendall(b"#exit".ljust(50, b"\0"))
    return n


def takes_no_second_client_at_first(addr):
    s = socket.create_server((addr, PORT), backlog=0)
    first = connected(addr, PORT)
    time.sleep(0.8)  # the second one's SYN is lost: it comes again after a second
    s.accept()[0].close()
    c = s.accept()[0]
    first.close()
    time.sleep(1.5)
    while (data := c.recv(65536)) and b"#exit" not in data:
        c.sendall(data)


@test
def the_file_server_outlives_its_clients(w):
    w.use("kernel")
    folder = f"{w.dir}/server"
    os.mkfifo(f"{folder}/fifo")
    with open(f"{folder}/large", "wb") as f:
        f.truncate(50_000_000)
    s = w.app("vs_file", "tcp", w.client4, PORT, 4, steered=True, cwd=folder)
    listening(w, "client", PORT)
    idle = w.start(lambda: connected(w.client4, PORT).recv(1), host="server")
    w.call(breaks_off, w.client4, host="server")
    for name, code, words in (("fifo", 1, "No such file"), ("large", 0, "")):
        ends(w.app("vc_file", "tcp", w.client4, PORT, name, w.server4, f"{w.dir}/client/got",
                   steered=False), code, words)
    assert os.path.getsize(f"{w.dir}/client/got") == 50_000_000
    ends(w.app("vc_file", "tcp", w.client4, PORT, "large", w.server4, steered=False), 1, "refused")
    idle.kill()
    said = ends(s, 1, "a connection: ")
    assert said.count("a connection: ") == 2, said  # one of them is idle's


def breaks_off(addr):
    c = connected(addr, PORT)
    c.sendall(b"large\n")
    c.recv(8, socket.MSG_WAITALL)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close()


@contextlib.contextmanager
def server(w, name, *args):
    s = w.app(name, "-s", w.client4, "-r", PORT, "-i", 0, *args, steered=True, start_new_session=True)
    listening(w, "client", PORT)
    try:
        yield s
    finally:
        if s.poll() is None:
            os.killpg(s.pid, signal.SIGKILL)
            s.wait()


def ends(p, code, words):
    out, err = p.communicate(timeout=30 * SLOW)
    assert p.returncode == code and words in err and bool(words) == bool(err), \
        (p.args, p.returncode, out, err)
    return err


def interrupt(p):
    """The processes of @p, three times."""
    for sig in (signal.SIGSTOP, signal.SIGCONT) * 3:
        time.sleep(0.1)
        os.killpg(p.pid, sig)


if __name__ == "__main__":
    sys.exit(main(Cases))
