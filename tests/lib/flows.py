# SPDX-License-Identifier: Apache-2.0
"""Flows with sequence numbers, to see whether something cuts one of them, or a byte of it."""

import contextlib
import os
import socket
import struct
import time

from dmmtest import connected, wait_for


def numbered(addr, port, progress, stop, pause):
    """Sends numbers and wants each back in turn until the stop file is there; writes how far it is.
    Gives the count, and the longest wait for an answer."""
    s = connected(addr, port)
    s.settimeout(120)  # longer than whoever is between is made to stand still
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
        time.sleep(pause)
    assert (s.getsockname(), s.getpeername()) == (name, peer)
    s.shutdown(socket.SHUT_WR)
    assert s.recv(1) == b""
    return n, longest


class Flows:
    """Numbered flows, @each of each IP version (or to each of @addrs) in each cgroup, while the with
    block runs. The world serves its echo on every address. @name tells several apart."""

    def __init__(self, w, cgroups=("/fast", "/kernel"), addrs=None, each=2, name="flows"):
        self.stop = os.path.join(w.dir, f"stop-{name}")
        self.children = []
        for i, (cgroup, addr) in enumerate((c, a) for c in cgroups
                                           for a in (addrs or (w.server4, w.server6)) * each):
            path = os.path.join(w.dir, f"progress-{name}-{i}")
            self.children.append((w.start(numbered, addr, w.echo_port, path, self.stop,
                                          each * 0.001, cgroup=cgroup), path))

    def counts(self):
        def count(path):
            with contextlib.suppress(OSError), open(path, "rb") as f:
                return int.from_bytes(f.read(8), "big")
            return 0
        return [count(path) for _, path in self.children]

    def tell(self):
        """After the block: what they did."""
        print(f"# {sum(n for n, _ in self.results)} answers in {len(self.results)} flows, "
              f"longest wait {max(t for _, t in self.results):.3f} s")

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
