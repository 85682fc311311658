# SPDX-License-Identifier: Apache-2.0
"""Goodput over a bad link, by the kernel at both ends and by a stack at one: the net tests' world with
badlink.c between its hosts. The link is the bottleneck, and what it does to the n-th frame is the same for
both; neither has offloads, and the kernels' congestion control is cubic. Every byte is checked.

A cell is an MTU and what the link does. In each of its rounds the kernel and the stack send up (client to
server) and down in turn."""

import collections
import contextlib
import hashlib
import itertools
import json
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../tests/lib"))
from dmmtest import OUT, World, connected, sh  # noqa: E402

PORT = 8901
RATE, DELAY, QUEUE = 300, 500, 3000  # Mbit/s; us: of one way, and at most waiting for the link
PIECE, BLOCK = 1 << 16, 1 << 20
HEAD_FORMAT = "!4sQQd"  # way, and the arguments of send()
ALL_OFF = [w for f in ("tx", "rx", "sg", "tso", "gso", "gro") for w in (f, "off")]

# Of a million frames. A damaged frame is a lost one to TCP: few, so that `lost` remains what counts.
Cell = collections.namedtuple("Cell", "mtu lost late repeated damaged", defaults=[0] * 4)
MTUS = (1500, 576)
NOT_POSSIBLE = 9000  # a frame is at most 4 KiB
LOST, LATE, REPEATED, DAMAGED = (0, 1000, 10000, 50000), 20000, 10000, 1000
CELLS = [Cell(mtu, *how) for mtu, *how in itertools.product(MTUS, LOST, (0, LATE), (0, REPEATED),
                                                            (0, DAMAGED))]
FEW = [Cell(1500), Cell(1500, 10000, LATE, REPEATED, DAMAGED), Cell(1500, 50000),
       Cell(576, 10000, LATE, REPEATED, DAMAGED)]
WAYS = ("up", "down")
CGROUPS = {"kernel": "/kernel", "stack": "/fast"}


def expected(cell):
    """The goodput that a stack should reach, to the kernel's."""
    return 0.8 if cell.lost <= 1000 else 0.7


# --- both ends ---

def send(s, seed, size, seconds):
    """At most @size bytes, for so many seconds, then the digest of what it was."""
    block, h = random.Random(seed).randbytes(BLOCK), hashlib.sha256()
    end, sent = time.monotonic() + seconds, 0
    while sent < size and time.monotonic() < end:
        start = sent // PIECE * 7919 % (BLOCK - PIECE)
        piece = block[start:start + min(PIECE, size - sent)]
        s.sendall(piece)
        h.update(piece)
        sent += len(piece)
    s.sendall(h.digest())
    s.shutdown(socket.SHUT_WR)


def receive(s):
    """How many bytes came before their digest, None if it is that of others."""
    got = bytearray()
    while piece := s.recv(1 << 18):
        got += piece
    size = len(got) - hashlib.sha256().digest_size
    right = size > 0 and hashlib.sha256(got[:size]).digest() == got[size:]
    return size if right else None


def use_cubic(s):
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")


def serve(s):
    """Does what the head of the connection asks for."""
    use_cubic(s)
    s.settimeout(600)
    way, *what = struct.unpack(HEAD_FORMAT, s.recv(struct.calcsize(HEAD_FORMAT), socket.MSG_WAITALL))
    if way.strip(b"\0") == b"down":
        send(s, *what)
    else:
        s.sendall(struct.pack("!q", receive(s) or 0))


def transfer(addr, way, *what):
    """Bits per second of what send() is to do @way, and the local port; wrong bytes are an error."""
    with connected(addr, PORT) as s:
        use_cubic(s)
        s.settimeout(600)
        began = time.monotonic()
        s.sendall(struct.pack(HEAD_FORMAT, way.encode(), *what))
        if way == "up":
            send(s, *what)
            size, = struct.unpack("!q", s.recv(8, socket.MSG_WAITALL))
        else:
            size = receive(s)
        assert size, f"{way}: other bytes than were sent"
        return size * 8 / (time.monotonic() - began), s.getsockname()[1]


# --- the hosts and the link between them ---

class LinkWorld(World):
    """c0 and s0 each end at a host of their own, where badlink joins m0 and m1."""

    def __init__(self, mtu, plugin="native"):
        self.mtu = mtu
        super().__init__()
        self.dmmd()
        self.apply(self.policy(unavailable="reject", plugin=plugin))
        self.ready()
        self.serve(serve, PORT)

    def _join_hosts(self, c, s):
        link = self.ns["link"] = f"dmm-{self.id}-link"
        sh("ip", "netns", "add", link)
        macs = {}
        for ns, dev, end in ((c, "c0", "m0"), (s, "s0", "m1")):
            sh("ip", "link", "add", dev, "netns", ns, "type", "veth", "peer", "name", end, "netns", link)
            self.run("sysctl", "-qw", f"net.ipv6.conf.{end}.disable_ipv6=1", host=link)
            sh("ip", "-n", link, "link", "set", end, "up")
            self.run("ethtool", "-K", dev, *ALL_OFF, host=ns)
            macs[dev] = json.loads(sh("ip", "-j", "-n", ns, "link", "show", dev).stdout)[0]["address"]
        self.ends = ((c, "c0", self.server4, macs["s0"]), (s, "s0", self.client4, macs["c0"]))

    def _make_hosts(self):
        super()._make_hosts()
        for end in ("m0", "m1"):
            sh("ip", "-n", self.ns["link"], "link", "set", end, "mtu", self.mtu)
        for ns, dev, addr, mac in self.ends:
            sh("ip", "-n", ns, "link", "set", dev, "mtu", self.mtu)  # below 1280 IPv6 goes
            # no resolution: it would be lost as well
            sh("ip", "-n", ns, "neigh", "replace", addr, "dev", dev, "lladdr", mac, "nud", "permanent")

    @contextlib.contextmanager
    def link(self, cell, seed):
        """The link is up meanwhile; the counts of its two ways come into what this gives."""
        counts = []
        p = self.spawn(os.path.join(OUT, "bench/badlink"), "-r", RATE, "-d", DELAY, "-q", QUEUE, "-l",
                       cell.lost, "-o", cell.late, "-u", cell.repeated, "-c", cell.damaged, "-s", seed,
                       "m0", "m1", host="link", stdout=subprocess.PIPE)
        try:
            assert p.stdout.readline() == b"ready\n", "badlink did not start"
            yield counts
        finally:
            p.terminate()
            counts += map(json.loads, p.stdout.read().splitlines())
            p.wait()
            p.stdout.close()
            self.procs.remove(p)

    def transfer(self, cell, who, way, seed, size, seconds):
        """(Mbit/s, counts of the link's two ways)"""
        with self.link(cell, seed) as counts:
            speed, port = self.call(transfer, self.server4, way, seed, size, seconds, cgroup=CGROUPS[who],
                                    timeout=600)
        assert self.is_steered(port) == (who == "stack"), f"{who}: port {port}"
        return speed / 1e6, counts


# --- the matrix ---

def measure_cell(world, cell, rounds, *what):
    """{way: {who: [Mbit/s of each round]}}, and the sum of the link's counts."""
    got = {way: {who: [] for who in CGROUPS} for way in WAYS}
    sums = collections.Counter()
    for seed, way, who in itertools.product(range(1, rounds + 1), WAYS, CGROUPS):
        speed, counts = world.transfer(cell, who, way, seed, *what)
        got[way][who].append(speed)
        for c in counts:
            sums.update(c)
    return got, dict(sums)


def measure(cells, rounds, size, seconds, done=lambda line: None):
    """A line of figures for each cell and way, each told to done() as it comes; of so many rounds in which
    each sends @size bytes, or what it can in so many seconds."""
    lines = []
    for mtu, group in itertools.groupby(cells, key=lambda cell: cell.mtu):
        world = LinkWorld(mtu)
        try:
            for cell in group:
                got, counts = measure_cell(world, cell, rounds, size, seconds)
                for way in WAYS:
                    lines.append(line_of(cell, way, got[way], counts))
                    done(lines[-1])
        finally:
            world.close()
    return lines


def line_of(cell, way, speeds, counts):
    medians = {who: statistics.median(values) for who, values in speeds.items()}
    return {**cell._asdict(), "way": way, "mbits": speeds, "median": medians,
            "ratio": medians["stack"] / medians["kernel"], "expected": expected(cell), "link": counts}


HEAD = ["MTU", "lost", "late", "repeated", "damaged", "way", "kernel Mb/s", "native Mb/s", "ratio",
        "expected"]


def columns(line):
    """Of a table under HEAD."""
    parts = [f"{line[part] / 10000:g} %" for part in ("lost", "late", "repeated", "damaged")]
    met = "" if line["ratio"] >= line["expected"] else " missed"
    return [str(line["mtu"]), *parts, line["way"], f"{line['median']['kernel']:.1f}",
            f"{line['median']['stack']:.1f}", f"{line['ratio']:.2f}", f">= {line['expected']}{met}"]
