#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""FD.io DMM's CI cases, with our own programs (tools/apps), over the kernel and over each userspace
stack, in both directions: the client steered, the server steered."""

import filecmp
import os
import random
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import OUT, SLOW, World, amount, main, test, wait_for

PORT = 9101
STACKS = [name.removesuffix(".so") for name in sorted(os.listdir(f"{OUT}/stacks"))]
FILE_SIZE = 5_000_001


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
        out, err = c.communicate(timeout=120 * SLOW)
        assert c.returncode == 0, (client, c.returncode, out, err)
        served, err = s.communicate(timeout=30 * SLOW)
        assert s.returncode == 0 and not err, (server, s.returncode, served, err)
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
    echoed(w, ["vs_epoll"], amount(5000, 50000), 200)


@test
def all_servers_and_many_connections(w):
    echoed(w, ["vs_common", "vs_select", "vs_epoll"], amount(20), 3001, fds=30)


@test
def c3_c4_a_process_for_each_connection(w):
    for stack, addr, own, served in w.directions():
        n = amount(5000, 50000)
        said = w.case(("vs_fork", "-s", addr, "-r", PORT, "-n", 1),
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
            (("vs_file", "udp", w.client4, "1"), 2, "usage"),
            (("vs_common", "-s", "192.0.2.1"), 1, "bind: Cannot assign")):
        p = w.app(*args, steered=True)
        out, err = p.communicate(timeout=20)
        assert p.returncode == code and words in err, (args, p.returncode, out, err)
    for name in ("vc_common", "vs_epoll", "vc_fork"):
        p = w.app(name, "--help", steered=True)
        assert "-w SECONDS" in p.communicate(timeout=20)[0] and p.returncode == 0


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
    s = w.app("vs_epoll", "-r", PORT, "-n", 1, "-l", 100, steered=True)
    listening(w, "client", PORT)
    w.call(lambda a: __import__("socket").create_connection((a, PORT)).sendall(b"half"), w.client4,
           host="server")
    out, err = s.communicate(timeout=30)
    assert s.returncode == 1 and "Broken pipe" in err, (out, err)


if __name__ == "__main__":
    sys.exit(main(Cases))
