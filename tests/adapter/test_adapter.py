#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The engine through its adapter, as a conformance suite would have it: this script is the peer and
the clock. Prints TAP."""

import errno
import ipaddress
import os
import re
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
ADAPTER = os.path.join(ROOT, os.environ.get("O") or ".output", "tests/adapter/adapter")

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MS = 1000000
SEC = 1000 * MS
ISN = 5000  # the peer's


def checksum(data):
    total = sum(struct.unpack("!%dH" % ((len(data) + 1) // 2), data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


class Segment:
    """A TCP segment, to or from the engine."""

    def __init__(self, flags, seq, ack=0, data=b"", window=65535, options=b""):
        self.flags, self.seq, self.ack, self.data = flags, seq, ack, data
        self.window, self.options = window, options

    def packet(self, src, dst, sport, dport):
        tcp = struct.pack("!HHIIBBHHH", sport, dport, self.seq & 0xffffffff, self.ack & 0xffffffff,
                          (20 + len(self.options)) // 4 << 4, self.flags, self.window, 0, 0)
        tcp += self.options + self.data
        pseudo = src.packed + dst.packed + struct.pack("!II", len(tcp), 6)
        tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
        if src.version == 6:
            return struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + src.packed + dst.packed + tcp
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0)
        ip += src.packed + dst.packed
        return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + tcp

    @classmethod
    def parse(cls, packet):
        at = 40 if packet[0] >> 4 == 6 else 20
        addrs = packet[8:40] if at == 40 else packet[12:20]
        tcp = packet[at:]
        if checksum(addrs + struct.pack("!II", len(tcp), 6) + tcp):
            raise AssertionError("a wrong checksum: " + packet.hex())
        _, _, seq, ack, header, flags, window, _, _ = struct.unpack("!HHIIBBHHH", tcp[:20])
        header = (header >> 4) * 4
        return cls(flags, seq, ack, tcp[header:], window, tcp[20:header])

    def __repr__(self):
        names = "".join(c for bit, c in ((SYN, "S"), (FIN, "F"), (RST, "R"), (PSH, "P"), (ACK, "."))
                        if self.flags & bit)
        return "%s %d+%d ack %d" % (names, self.seq, len(self.data), self.ack)


class Engine:
    """An adapter that runs. What it said of the last command: result, events, sent [(ns, Segment)],
    data."""

    def __init__(self, ours, theirs, port, peer_port):
        self.ours, self.theirs = ipaddress.ip_address(ours), ipaddress.ip_address(theirs)
        self.port, self.peer_port = port, peer_port
        self.now = 0
        self.proc = subprocess.Popen([ADAPTER, ours], stdin=subprocess.PIPE, text=True,
                                     stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proc.stdin.close()
        if self.proc.wait(10):
            raise AssertionError("the adapter exits with %d" % self.proc.returncode)

    def do(self, *words):
        self.events, self.sent, self.data = [], [], b""
        self.proc.stdin.write(" ".join(map(str, words)) + "\n")
        self.proc.stdin.flush()
        for line in self.proc.stdout:
            what, _, rest = line.strip().partition(" ")
            if what == "done":
                self.result = int(rest)
                return self.result
            if what == "time":
                self.now = int(rest)
            elif what == "packet":
                if len(self.sent) > 10000:
                    self.proc.kill()
                    raise AssertionError("it sends for ever")
                self.sent.append((self.now, Segment.parse(bytes.fromhex(rest))))
            elif what == "data":
                self.data += bytes.fromhex(rest)
            elif what == "event":
                self.events.append(rest)
            else:
                raise AssertionError("the adapter says " + line)
        raise AssertionError("the adapter ended")

    def give(self, segment):
        """Gives it a segment of the peer."""
        self.do("packet", segment.packet(self.theirs, self.ours, self.peer_port, self.port).hex())

    def one(self):
        """The one segment that it sent."""
        if len(self.sent) != 1:
            raise AssertionError("it sent %r" % self.sent)
        return self.sent[0][1]


def equal(got, want):
    if got != want:
        raise AssertionError("%r, not %r" % (got, want))


def accepts_echoes_and_closes():
    """a passive open, bytes both ways, a close by the peer"""
    for ours, theirs in ("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2"):
        with Engine(ours, theirs, 80, 1234) as e:
            equal(e.do("listen", 80), 0)
            e.give(Segment(SYN, ISN))
            syn = e.one()
            equal((syn.flags, syn.ack), (SYN | ACK, ISN + 1))
            e.give(Segment(ACK, ISN + 1, syn.seq + 1))
            equal((e.events, e.sent), (["0 accepted 1"], []))
            e.give(Segment(ACK | PSH, ISN + 1, syn.seq + 1, b"hello"))
            equal(e.events, ["1 readable"])
            e.do("recv", 1)
            equal(e.data, b"hello")
            equal(e.do("send", 1, b"world".hex()), 5)
            data = e.one()
            equal((data.seq, data.ack, data.data), (syn.seq + 1, ISN + 6, b"world"))
            e.give(Segment(ACK | FIN, ISN + 6, syn.seq + 6))
            equal(e.events, ["1 eof"])
            equal(e.one().ack, ISN + 7)
            e.do("close", 1)
            fin = e.one()
            equal((fin.flags & FIN, fin.seq), (FIN, syn.seq + 6))
            e.give(Segment(ACK, ISN + 7, syn.seq + 7))
            equal(e.events, ["1 closed"])


def connects_and_closes_first():
    """an active open, a close of ours, TIME-WAIT that answers and ends"""
    with Engine("10.0.0.1", "10.0.0.2", 40000, 80) as e:
        equal(e.do("connect", 40000, "10.0.0.2", 80), 0)
        syn = e.one()
        equal(syn.flags, SYN)
        e.give(Segment(SYN | ACK, ISN, syn.seq + 1))
        equal((e.events, e.one().ack), (["0 connected"], ISN + 1))
        e.do("close", 0)
        equal(e.one().flags & FIN, FIN)
        e.give(Segment(ACK, ISN + 1, syn.seq + 2))
        equal(e.sent, [])
        e.give(Segment(ACK | FIN, ISN + 1, syn.seq + 2))
        equal((e.one().ack, e.events), (ISN + 2, ["0 closed"]))
        e.give(Segment(ACK | FIN, ISN + 1, syn.seq + 2))  # our ACK was lost
        equal(e.one().ack, ISN + 2)
        e.do("advance", 300 * SEC)
        e.give(Segment(ACK | FIN, ISN + 1, syn.seq + 2))
        equal(e.one().flags, RST)


def waits_by_the_clock_of_the_suite():
    """a SYN is sent again after 1, 3, 7 ... seconds, and given up after three minutes"""
    with Engine("10.0.0.1", "10.0.0.2", 40000, 80) as e:
        e.do("connect", 40000, "10.0.0.2", 80)
        first = e.one()
        e.do("advance", 400 * SEC)
        equal({(s.flags, s.seq) for _, s in e.sent}, {(SYN, first.seq)})
        at = [ns / SEC for ns, _ in e.sent]
        for got, want in zip(at, (1, 3, 7, 15, 31, 63, 127), strict=True):
            if not want <= got < want + 0.01:
                raise AssertionError("SYNs at %r" % at)
        equal(e.events, ["0 error %d" % errno.ETIMEDOUT])
        equal(e.now, 400 * SEC)


def two_of_them_over_a_lossy_wire():
    """two engines with this script as the wire: each fifth packet is lost, and 200000 bytes arrive"""
    with Engine("10.0.0.1", "10.0.0.2", 40000, 80) as a, \
            Engine("10.0.0.2", "10.0.0.1", 80, 40000) as b:
        want, got, sent, lost, n = bytes(range(251)) * 800, b"", 0, 0, 0
        way = []  # (to, segment)

        def say(engine, *words):
            engine.do(*words)
            way.extend((b if engine is a else a, s) for _, s in engine.sent)

        say(b, "listen", 80)
        say(a, "connect", 40000, "10.0.0.2", 80)
        while len(got) < len(want):
            while way:
                to, segment = way.pop(0)
                n += 1
                if n % 5 == 0:
                    lost += 1
                    continue
                say(to, "packet", segment.packet(to.theirs, to.ours, to.peer_port, to.port).hex())
                if to is b and any("readable" in x for x in b.events):
                    say(b, "recv", 1)
                    got += b.data
            if sent < len(want):
                say(a, "send", 0, want[sent:sent + 20000].hex())
                sent += max(a.result, 0)
            if not way:
                say(a, "advance", 10 * MS)
                say(b, "advance", 10 * MS)
            if a.now > 600 * SEC:
                raise AssertionError("%d of %d bytes after 600 s" % (len(got), len(want)))
        equal(got, want)
        if not lost:
            raise AssertionError("nothing was lost")


def refuses_what_makes_no_sense():
    """commands that cannot be done say why"""
    with Engine("10.0.0.1", "10.0.0.2", 80, 1234) as e:
        equal(e.do("send", 7, "00"), -errno.EBADF)
        equal(e.do("listen", 80), 0)
        equal(e.do("listen", 80), -errno.EADDRINUSE)
        equal(e.do("juggle", 0), -errno.ENOSYS)
        equal(e.do("connect", 40000, "10.0.0", 80), -errno.EINVAL)
        equal(e.do("packet", "zz"), 0)
        equal(e.do(), -errno.ENOSYS)
        equal((e.do("close", 0), e.events), (0, ["0 closed"]))
        equal(e.do("listen", 80), 0)


def is_made_of_the_header_alone():
    """it has at most 200 lines and includes nothing of ours but <dmm/net.h>"""
    with open(os.path.join(HERE, "adapter.c")) as f:
        text = f.read()
    equal(re.findall(r'#include (".*"|<.*/.*>)', text), ["<arpa/inet.h>", "<dmm/net.h>"])
    if text.count("\n") > 200:
        raise AssertionError("%d lines" % text.count("\n"))


TESTS = [accepts_echoes_and_closes, connects_and_closes_first, waits_by_the_clock_of_the_suite,
         two_of_them_over_a_lossy_wire, refuses_what_makes_no_sense, is_made_of_the_header_alone]


def main():
    failed = 0
    print("1..%d" % len(TESTS))
    for number, test in enumerate(TESTS, 1):
        try:
            test()
            wrong = None
        except AssertionError as e:
            wrong = str(e)
        failed += wrong is not None
        print("%s %d - %s" % ("not ok" if wrong else "ok", number, test.__doc__), flush=True)
        if wrong:
            print("# " + wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
