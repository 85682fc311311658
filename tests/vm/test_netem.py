#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Steered flows over a bad link, both ways at once: netem delays, loses, reorders, repeats and damages
packets in both directions. Every byte arrives, and no other one."""

import hashlib
import os
import random
import socket
import struct
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import Skip, World, connected, main, sh, test, wait_for

PORT = 8701
BYTES = 1 << 20
FLOWS = 3  # at once, of each IP version


def pattern(seed):
    return random.Random(seed).randbytes(BYTES)


def both_ways(s, mine, other):
    """Sends the bytes of @mine while those of @other come in; what is wrong, or None."""
    failed = []

    def send():
        try:
            s.sendall(pattern(mine))
            s.shutdown(socket.SHUT_WR)
        except OSError as e:
            failed.append(f"sending: {e}")
    sender = threading.Thread(target=send)
    sender.start()
    got, want = bytearray(), pattern(other)
    while piece := s.recv(65536):
        got += piece
    sender.join()
    if bytes(got) != want:
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), BYTES))
        failed.append(f"{len(got)} of {BYTES} bytes, {hashlib.sha256(got).hexdigest()}, the first "
                      f"wrong one at {at}")
    return "; ".join(failed)


def server(s):
    """Its verdict comes by a connection of its own, which the client may ask for."""
    head = s.recv(12, socket.MSG_WAITALL)
    kind, seed = struct.unpack("!4sQ", head)
    path = f"/tmp/dmm-netem-{os.getppid()}-{seed}"
    if kind == b"DATA":
        s.settimeout(600)
        said = both_ways(s, seed + 1, seed)
        with open(path + ".new", "w") as f:
            f.write(said or "right")
        os.rename(path + ".new", path)
        return
    wait_for("the server's verdict", lambda: os.path.exists(path), seconds=60)
    with open(path) as f:
        s.sendall(f.read().encode())
    os.unlink(path)


def transfer(addr, seed):
    with connected(addr, PORT) as s:
        port = s.getsockname()[1]
        s.settimeout(600)
        s.sendall(struct.pack("!4sQ", b"DATA", seed))
        said = both_ways(s, seed, seed + 1)
    with connected(addr, PORT) as s:
        s.sendall(struct.pack("!4sQ", b"SAID", seed))
        theirs = s.recv(4096, socket.MSG_WAITALL).decode()
    return port, said or "right", theirs


class NetemWorld(World):
    """What comes to c0 is impaired where s0 sends it. What c0 sends leaves an AF_XDP socket and so
    passes no qdisc there: it is impaired where it comes in, on its way through an ifb."""

    def __init__(self):
        super().__init__()
        for module in ("sch_netem", "ifb", "act_mirred", "cls_matchall", "sch_ingress"):
            sh("modprobe", module, check=False)
        tc = ["tc", "-n", self.ns["server"]]
        if sh(*tc, "qdisc", "add", "dev", "s0", "root", "netem", "delay", "1ms", check=False).returncode:
            raise Skip("the kernel has no netem")
        if sh("ip", "-n", self.ns["server"], "link", "add", "in0", "type", "ifb", check=False).returncode:
            raise Skip("the kernel has no ifb")
        sh("ip", "-n", self.ns["server"], "link", "set", "in0", "up")
        sh(*tc, "qdisc", "add", "dev", "s0", "ingress")
        sh(*tc, "filter", "add", "dev", "s0", "ingress", "matchall", "action", "mirred", "egress",
           "redirect", "dev", "in0")
        sh(*tc, "qdisc", "add", "dev", "in0", "root", "netem", "delay", "1ms")
        self.up()
        self.serve(server, PORT)

    def impair(self, *how):
        for dev in ("s0", "in0"):
            sh("tc", "-n", self.ns["server"], "qdisc", "change", "dev", dev, "root", "netem",
               "limit", 10000, *how)

    def counted(self):
        """Packets that went through each netem, and those it lost."""
        out = sh("tc", "-s", "-n", self.ns["server"], "qdisc", "show").stdout
        return {dev: out.split(f"dev {dev} root")[1].split("backlog")[0].split("Sent")[1].strip()
                for dev in ("s0", "in0")}


def transfers(w, *how):
    w.impair(*how)
    seeds = [random.randrange(1 << 62) for _ in range(2 * FLOWS)]
    children = [w.start(transfer, addr, seed, cgroup="/fast")
                for addr, seed in zip((w.server4, w.server6) * FLOWS, seeds)]
    for child in children:
        port, mine, theirs = child.result(300)
        assert w.is_steered(port), f"not steered: {port}"
        assert (mine, theirs) == ("right", "right"), f"client: {mine}; server: {theirs}"
    print(f"# {' '.join(map(str, how))}: {w.counted()}")


@test
def all_arrives_with_a_delay_of_20_ms(w):
    transfers(w, "delay", "20ms", "5ms")


@test
def all_arrives_though_3_percent_are_lost(w):
    transfers(w, "delay", "2ms", "loss", "3%")


@test
def all_arrives_out_of_order(w):
    transfers(w, "delay", "10ms", "reorder", "25%", "50%")


@test
def all_arrives_once_though_packets_come_twice(w):
    transfers(w, "delay", "2ms", "duplicate", "10%")


@test
def damaged_packets_leave_no_wrong_byte(w):
    transfers(w, "delay", "2ms", "corrupt", "3%")


@test
def all_arrives_with_all_of_it_at_once(w):
    transfers(w, "delay", "20ms", "5ms", "loss", "1%", "reorder", "10%", "50%", "duplicate", "2%",
              "corrupt", "1%")


if __name__ == "__main__":
    main(NetemWorld)
