#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What the relay carries arrives: byte-exact both ways, half-close and reset both ways, and
backpressure both ways with bounded memory while other flows run on."""

import errno
import hashlib
import os
import random
import re
import select
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import World, amount, main, test, wait_for

ECHO, SUM, HALF, RESET, FLOOD, SINK, WAIT_RESET, ROW = range(8101, 8109)
BULK = 64 << 20
TCPI_SND_WND = 228  # its place in struct tcp_info
LINGER_RESET = struct.pack("ii", 1, 0)
ROW_PORTS = 500  # each has to come again and again


class BytesWorld(World):
    def __init__(self):
        super().__init__()
        os.environ["DMM_END_FILE"] = os.path.join(self.dir, "end")
        for port, fn in ((ECHO, echo), (SUM, checksum), (HALF, answer_after_eof), (RESET, reset),
                         (FLOOD, flood), (SINK, sink), (WAIT_RESET, wait_reset)):
            self.serve(fn, port)
        self.up(unavailable="reject")


def seeded(seed, size):
    """A reproducible stream in 64 KiB pieces."""
    r = random.Random(seed)
    block = r.randbytes(1 << 20)
    for i in range(0, size, 1 << 16):
        at = (i * 7919) % ((1 << 20) - (1 << 16))
        yield block[at:at + min(1 << 16, size - i)]


def connected(addr, port):
    s = socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET)
    s.settimeout(60)
    s.connect((addr, port))
    return s


# --- servers ---

def note_end(text):
    """How a connection ended on the server, for the test to read."""
    with open(os.environ["DMM_END_FILE"] + ".new", "w") as f:
        f.write(text)
    os.rename(f.name, os.environ["DMM_END_FILE"])


def noted_end():
    path = os.environ["DMM_END_FILE"]

    def read():
        return os.path.exists(path) and open(path).read()
    text = wait_for("the server's end", read)
    os.unlink(path)
    return text


def echo(c):
    while data := c.recv(1 << 16):
        c.sendall(data)


def checksum(c):
    """Reads all, then says its SHA-256, then sends its own stream."""
    h = hashlib.sha256()
    while data := c.recv(1 << 16):
        h.update(data)
    c.sendall(h.hexdigest().encode())
    for piece in seeded(2, BULK):
        c.sendall(piece)


def answer_after_eof(c):
    """Sends, half-closes first, and still reads to the end."""
    c.sendall(b"hello")
    c.shutdown(socket.SHUT_WR)
    n = 0
    while data := c.recv(1 << 16):
        n += len(data)
    note_end("all" if n == 1 << 20 else f"{n} bytes")


def reset(c):
    c.recv(1)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    c.close()


def flood(c):
    """Sends for as long as anyone takes it; notes the window that the peer left when it is stuck."""
    piece = bytes(1 << 16)
    c.setblocking(False)
    while True:
        if select.select([], [c], [], 1)[1]:
            c.send(piece)
        else:
            note_end(str(window_of_peer(c)))


def window_of_peer(c):
    info = c.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCPI_SND_WND + 4)
    return struct.unpack_from("I", info, TCPI_SND_WND)[0]


def sink(c):
    """Never reads."""
    time.sleep(600)


def wait_reset(c):
    """Notes how it ended."""
    c.recv(1)
    c.sendall(b"x")
    try:
        end = "eof" if not c.recv(1) else "data"
    except ConnectionResetError:
        end = "reset"
    note_end(end)


# --- the application's side ---

def up_and_down(addr):
    s = connected(addr, SUM)
    want = hashlib.sha256()
    for piece in seeded(1, BULK):
        want.update(piece)
        s.sendall(piece)
    s.shutdown(socket.SHUT_WR)
    said = b""
    while len(said) < 64:
        said += s.recv(64 - len(said))
    assert said.decode() == want.hexdigest(), "what was sent is not what arrived"
    got, expect = hashlib.sha256(), hashlib.sha256()
    n = 0
    while data := s.recv(1 << 16):
        got.update(data)
        n += len(data)
    for piece in seeded(2, BULK):
        expect.update(piece)
    assert n == BULK, f"{n} bytes of {BULK}"
    assert got.digest() == expect.digest(), "what was received is not what was sent"
    return n


@test
def bytes_are_exact_both_ways_ipv4(w):
    start = time.monotonic()
    w.call(up_and_down, w.server4, cgroup="/fast", timeout=180)
    print(f"# {2 * BULK >> 20} MiB in {time.monotonic() - start:.2f} s")


@test
def bytes_are_exact_both_ways_ipv6(w):
    w.call(up_and_down, w.server6, cgroup="/fast", timeout=180)


def ping_pong(addr, sizes):
    s = connected(addr, ECHO)
    r = random.Random(7)
    for size in sizes:
        data = r.randbytes(size)
        s.sendall(data)
        back = b""
        while len(back) < size:
            piece = s.recv(size - len(back))
            assert piece, "early EOF"
            back += piece
        assert back == data
    s.shutdown(socket.SHUT_WR)
    assert s.recv(1) == b""


@test
def small_and_odd_sizes_echo(w):
    sizes = [1, 2, 3, 535, 536, 537, 1439, 1440, 1447, 1448, 1449, 1460, 1461, 2047, 4095, 8191,
             16384, 32767, 65535, 65536, 1]
    w.call(ping_pong, w.server4, sizes, cgroup="/fast")
    w.call(ping_pong, w.server6, sizes, cgroup="/fast")


def half_close_from_peer(addr):
    s = connected(addr, HALF)
    got = b""
    while data := s.recv(100):
        got += data
    assert got == b"hello", got
    s.sendall(bytes(1 << 20))  # the peer sends no more, but still reads
    s.shutdown(socket.SHUT_WR)
    s.close()


@test
def peer_may_half_close_first(w):
    for cgroup in ("/kernel", "/fast"):
        w.call(half_close_from_peer, w.server4, cgroup=cgroup)
        assert noted_end() == "all"


def half_close_to_peer(addr):
    s = connected(addr, SUM)
    s.shutdown(socket.SHUT_WR)
    n = 0
    while data := s.recv(1 << 16):
        n += len(data)
    return n


@test
def application_may_half_close_first(w):
    assert w.call(half_close_to_peer, w.server4, cgroup="/fast", timeout=120) == BULK + 64


def read_reset(addr):
    s = connected(addr, RESET)
    s.sendall(b"x")
    try:
        return s.recv(1) or "eof"
    except OSError as e:
        return e.errno


@test
def reset_from_peer_is_a_reset(w):
    for addr in (w.server4, w.server6):
        got = w.call(read_reset, addr, cgroup="/fast")
        assert got == errno.ECONNRESET, got


def send_reset(addr):
    s = connected(addr, WAIT_RESET)
    s.sendall(b"x")
    s.recv(1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    s.close()


def send_eof(addr):
    s = connected(addr, WAIT_RESET)
    s.sendall(b"x")
    s.recv(1)
    s.close()


@test
def reset_to_peer_is_a_reset_and_eof_an_eof(w):
    for fn, want in ((send_reset, "reset"), (send_eof, "eof")):
        w.call(fn, w.server4, cgroup="/fast")
        got = noted_end()
        assert got == want, f"{fn.__name__}: the server saw {got}"


# --- backpressure ---

def stop_reading(addr, seconds_file):
    """Connects to the flood and reads nothing until told."""
    s = connected(addr, FLOOD)
    while not os.path.exists(seconds_file):
        time.sleep(0.05)
    n = 0
    while n < 32 << 20:
        n += len(s.recv(1 << 20))
    return n


def relay_memory(w):
    """Bytes queued in the instance's relay sockets, as the kernel accounts them."""
    total = 0
    pid = w.instance_pid()
    out = w.run("ss", "-tnmpH", "state", "connected").stdout
    for conn, mem in re.findall(r"^(\S.*)\n\s+skmem:\((.*?)\)", out, re.M):
        if f"pid={pid}," in conn:
            f = dict((m[1], int(m[2])) for m in re.finditer(r"([a-z]+)(\d+)", mem))
            total += f["r"] + f["t"] + f["w"] + f["f"]
    return total


def instance_memory(w):
    with open(f"/proc/{w.instance_pid()}/statm") as f:
        return int(f.read().split()[1]) * 4096


@test
def stopped_reader_meets_a_zero_window_in_bounded_memory(w):
    w.call(ping_pong, w.server4, [1000], cgroup="/fast")  # everything is warm
    before = instance_memory(w)
    go = os.path.join(w.dir, "go")
    stopped = w.start(stop_reading, w.server4, go, cgroup="/fast")
    sent = 0

    def server_is_stuck():
        nonlocal sent
        out = w.run("ss", "-tniH", "state", "established", f"sport = :{FLOOD}",
                    host="server").stdout
        m = re.search(r"bytes_acked:(\d+)", out)
        was, sent = sent, int(m[1]) if m else 0
        return sent and sent == was
    wait_for("the peer stops sending", server_is_stuck, every=1.0)
    window = int(noted_end())
    assert window == 0, f"the peer stopped at a window of {window} bytes"
    memory = instance_memory(w) - before + relay_memory(w)
    print(f"# {sent >> 10} KiB left the peer, {memory >> 10} KiB held by instance and relay")
    assert memory <= 1 << 20, f"{memory} bytes held for one stopped flow"
    w.call(ping_pong, w.server4, [65536] * 20, cgroup="/fast")  # others run on
    open(go, "w").close()
    assert stopped.result(120) >= 32 << 20


def send_until_stuck(addr):
    s = connected(addr, SINK)
    s.setblocking(False)
    piece, n, idle = bytes(1 << 16), 0, 0
    while idle < 20:
        try:
            n += s.send(piece)
            idle = 0
        except BlockingIOError:
            idle += 1
            time.sleep(0.1)
    return n


@test
def stopped_peer_stops_the_application(w):
    before = instance_memory(w)
    n = w.call(send_until_stuck, w.server4, cgroup="/fast", timeout=120)
    print(f"# {n >> 10} KiB were taken before the application had to wait")
    assert n < 64 << 20
    grown = instance_memory(w) - before
    assert grown <= 1 << 20, f"the instance grew by {grown} bytes"
    w.call(ping_pong, w.server4, [65536] * 20, cgroup="/fast")


def answer_one_by_one(ready):
    """No process per connection: the test is about the client."""
    listener = socket.create_server(("0.0.0.0", ROW), backlog=128)
    ready.send(b"R")
    while True:
        c, _ = listener.accept()
        c.sendall(c.recv(10))
        c.recv(1)
        c.close()


def in_a_row(addr, n):
    for i in range(n):
        s = connected(addr, ROW)
        s.sendall(b"ping")
        assert s.recv(10) == b"ping", i
        s.close()


@test
def ten_thousand_connections_in_a_row(w):
    n = amount(10000, 100000)
    ready, other = socket.socketpair()
    w.start(answer_one_by_one, other, host="server")
    assert ready.recv(1) == b"R"
    usual = w.policy(unavailable="reject")
    w.apply(usual.replace(w.ports, f"20000-{20000 + ROW_PORTS - 1}"))
    w.ready()
    start, before = time.monotonic(), w.instance()["connects"]
    w.call(in_a_row, w.server4, n, cgroup="/fast", timeout=600)
    print(f"# {n} connections over {ROW_PORTS} ports in {time.monotonic() - start:.2f} s")
    assert w.instance()["connects"] - before == n
    w.apply(usual)


@test
def bytes_are_exact_by_generic_xdp(w):
    w.apply(w.policy(unavailable="reject").replace("{name: c0}", "{name: c0, mode: generic}"))
    w.ready()
    assert "generic" in w.instance()["got"], w.instance()["got"]
    bytes_are_exact_both_ways_ipv4(w)
    bytes_are_exact_both_ways_ipv6(w)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@test
def bytes_are_exact_by_an_instance_that_never_sleeps(w):
    w.apply(w.policy(unavailable="reject", stack=", poll: busy"))
    pid = w.ready()
    assert w.instance()["poll"] == "busy", w.instance()
    bytes_are_exact_both_ways_ipv4(w)
    bytes_are_exact_both_ways_ipv6(w)
    before = cpu_seconds(pid)  # it has nothing to do now; one that sleeps would hardly get there
    wait_for("the idle instance uses its processor", lambda: cpu_seconds(pid) - before > 0.5,
             seconds=30)
    assert w.instance()["pid"] == pid
    w.apply(w.policy(unavailable="reject"))
    assert w.instance()["poll"] == "adaptive", w.instance()


@test
def all_of_it_went_through_the_stack(w):
    w.all_was_steered()


if __name__ == "__main__":
    main(BytesWorld)
