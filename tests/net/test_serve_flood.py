#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""SYN floods: clients that are made up cost no memory, and those that are not are served."""

import json
import os
import re
import signal
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import OUT, amount, main, sh, test, wait_for
from serving import OTHER, PORT, ServeWorld, Talk, connect

FLOOD = os.path.join(OUT, "tests/net/syn_flood")
HALF_OPEN = 256  # from there on cookies


class FloodWorld(ServeWorld):
    def __init__(self):
        super().__init__()
        # the made-up clients are beyond a router that knows nothing of them
        sh("ip", "-n", self.ns["client"], "route", "add", "default", "via", self.server4)
        self.mac = json.loads(self.run("ip", "-j", "link", "show", "c0").stdout)[0]["address"]

    def flood(self, count):
        """That many SYNs, 0: until told. They are counted at its end."""
        return self.spawn(FLOOD, "s0", self.mac, self.client4, PORT, count, host="server",
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def many_half_open(self):
        """As many as may be; each keeps a socket, and those have to be got first."""
        def are():
            said, err = self.flood(4 * HALF_OPEN).communicate(timeout=60)
            assert said and not err, err
            return self.stack()["flows"] == HALF_OPEN
        wait_for(f"{HALF_OPEN} are half open", are)


def clients(addrs, port, n):
    """@n clients one after another, by turns to each address: how many were served, byte-exact. They
    speak first: with SYN cookies, one that waits for a greeting is lost with its last ACK, which may find
    a full ring in the flood."""
    served = 0
    for i in range(n):
        try:
            with connect(addrs[i % len(addrs)], port) as c:
                f = c.makefile("rb")
                payload = os.urandom(5000)
                c.sendall(payload)
                c.shutdown(socket.SHUT_WR)
                f.readline()
                served += f.read() == payload
        except OSError as e:
            print(f"# client {i}: {e}")
    return served


def netstat(w, host, counter):
    names, values = [line.split() for line in
                     w.run("cat", "/proc/net/netstat", host=host).stdout.splitlines()
                     if line.startswith("TcpExt:")]
    return int(dict(zip(names, values))[counter])


@test
def clients_come_by_cookies_when_many_are_half_open(w):
    with w.listening():
        w.many_half_open()
        before = w.stack()
        assert before["cookies_sent"] > 0, before
        # before those that are half open time out
        n = amount(40)
        assert w.call(clients, (w.client4, w.client6, w.extra4), PORT, n, host="server", timeout=120) == n
        after = w.stack()
        assert after["cookies_taken"] - before["cookies_taken"] == n, (before, after)
        # the plug-in's own SYN-ACK would be the client's second
        assert netstat(w, "server", "TCPSYNChallenge") == 0
        assert "half open (a SYN flood?): answering with SYN cookies" in w.log()


@test
def a_cookie_is_for_who_got_it(w):
    """Guessed ones are answered as by any stack that knows no such connection: a reset."""
    with w.listening():
        w.many_half_open()
        before = w.stack()
        w.call(guess, w.server4, w.client4, PORT, amount(2000), host="server")
        wait_for("all guesses came", lambda: w.stack()["rx_packets"] >=
                 before["rx_packets"] + amount(2000))
        assert w.stack()["cookies_taken"] == before["cookies_taken"]


def guess(source, dest, port, n):
    """ACKs with made-up numbers, from ports where nobody is."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as s:
        s.bind((source, 0))
        for i in range(n):
            tcp = ((2000 + i % 20000).to_bytes(2, "big") + port.to_bytes(2, "big") + os.urandom(8) +
                   bytes([0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]))
            pseudo = socket.inet_aton(source) + socket.inet_aton(dest) + bytes([0, 6, 0, 20])
            total = sum(int.from_bytes((pseudo + tcp)[i:i + 2], "big") for i in range(0, 32, 2))
            while total >> 16:
                total = (total & 0xffff) + (total >> 16)
            s.sendto(tcp[:16] + (~total & 0xffff).to_bytes(2, "big") + tcp[18:], (dest, 0))


@test
def a_flood_harms_nobody(w):
    def rss(pid):
        with open(f"/proc/{pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1])
    n = amount(50, 500)
    with w.listening(), w.listening(port=OTHER, cgroup="/kernel"):
        pid = w.instance_pid()
        talks = [Talk(w, w.client4), Talk(w, w.client4, port=OTHER)]
        before, kib = w.stack(), rss(pid)
        flood = w.flood(0)
        try:
            wait_for("it has begun", lambda: w.stack()["cookies_sent"] > before["cookies_sent"])
            for port, addrs in ((PORT, (w.client4, w.client6)), (OTHER, (w.client4, w.client6))):
                served = w.call(clients, addrs, port, n, host="server", timeout=600)
                assert served >= 0.99 * n, (port, served, n)
            for t in talks:
                t.goes_on()
        finally:
            flood.send_signal(signal.SIGTERM)
        syns, ms = map(int, flood.communicate(timeout=30)[0].split())
        for t in talks:
            t.ends_well()
        after, grown = w.stack(), rss(pid) - kib
        print(f"# {syns} SYNs in {ms / 1000:.1f} s ({syns / ms:.0f} 000/s), "
              f"{after['cookies_sent'] - before['cookies_sent']} answered, "
              f"the instance grew by {grown} KiB")
        assert w.instance_pid() == pid and grown < 8192, grown
        assert after["memory_bytes"] <= before["memory_bytes"] + (1 << 20), (before, after)


if __name__ == "__main__":
    sys.exit(main(FloodWorld))
