#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An instance that stands still, by SIGSTOP or in an endless loop of its plug-in: from half a second
on new connects follow the rule, a stall of two seconds cuts nothing and loses no byte, and after
--dead-after its flows are reset and another one takes its place."""

import array
import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import plugins
from dmmtest import (LONG, OUT, SLOW, Skip, World, alive, connect_errno, connected, libc,
                     local_port, main, sh, test, wait_for)
from flows import Flows

ECHO, NUMBERS, COUNT, ENDLESS = range(8621, 8625)
UNAVAILABLE = 0.5  # seconds of a hang after which connects follow the rule
STALL = 2.0
DEAD_AFTER = 2.5 * SLOW
ROUNDS = 50 if LONG else 2
CONNECTS = 10  # in a hang, over each IP version
BUSY = 8


class HangWorld(World):
    patience = ()  # it is about just that

    def __init__(self):
        super().__init__()
        self.serve_echo(ECHO)
        self.serve(numbers, NUMBERS)
        self.serve(count, COUNT)
        os.makedirs(f"{self.dir}/stacks")
        sh("cp", f"{OUT}/stacks/{self.plugin}.so", f"{self.dir}/stacks/{self.plugin}.so")
        plugins.build_hanging(f"{self.dir}/stacks/endless.so", f"{self.dir}/stacks/{self.plugin}.so",
                              ENDLESS)
        self.dmmd("--stacks-dir", f"{self.dir}/stacks")
        self.apply(self.policy())

    @contextlib.contextmanager
    def dead_after(self, seconds, plugin=None):
        """Another --dead-after, and another plug-in."""
        self.stop()
        self.restart("--stacks-dir", f"{self.dir}/stacks", "--dead-after", str(seconds))
        self.apply(self.policy(plugin=plugin))
        self.ready()
        yield
        self.apply(self.policy())
        self.stop()
        self.restart("--stacks-dir", f"{self.dir}/stacks")
        self.ready()

    def silent_for(self):
        """Seconds since the instance's last heartbeat."""
        return self.stack()["beat_age_ms"] / 1000

    def end_of(self, addr):
        """How a connect to the echo server ends, in a process of the cgroup: stack, kernel, or the
        errno's name."""
        try:
            with socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET) as s:
                s.settimeout(5 * SLOW)  # shorter than a hang: one that is held is no answer
                s.connect((addr, ECHO))
                s.sendall(b"ping")
                assert s.recv(4, socket.MSG_WAITALL) == b"ping"
                return "stack" if self.is_steered(s.getsockname()[1]) else "kernel"
        except socket.timeout:
            return "held"
        except OSError as e:
            return errno.errorcode[e.errno]

    def ends_from(self, at, cgroup="/fast"):
        """Of connects over both IP versions, the first at that time; each counted."""
        def connects():
            time.sleep(max(0, at - time.monotonic()))
            return [self.end_of(addr) for _ in range(CONNECTS)
                    for addr in (self.server4, self.server6)]
        ends = self.call(connects, cgroup=cgroup, timeout=300)
        return {end: ends.count(end) for end in ends}


# --- servers: the numbers from 0 on, 8 bytes each, without end; and how far the client's go on rightly ---

BLOCK = 4096


def numbers(c):
    n = 0
    while True:
        c.sendall(array.array("Q", range(n, n + BLOCK)).tobytes())
        n += BLOCK


class Checker:
    """Numbers as they arrive, in any pieces."""

    def __init__(self):
        self.n, self.rest = 0, b""

    def take(self, data):
        data = self.rest + data
        whole = len(data) // 8
        self.rest = data[whole * 8:]
        want = array.array("Q", range(self.n, self.n + whole))
        assert data[:whole * 8] == want.tobytes(), f"wrong bytes within {self.n} and {whole} more"
        self.n += whole


def count(c):
    right = Checker()
    while data := c.recv(1 << 16):
        right.take(data)
    c.sendall(right.n.to_bytes(8, "big"))


def read_numbers(addr, began, stop):
    """Until told to stop, and a MiB more: how many, all of them right."""
    with connected(addr, NUMBERS) as s:
        s.settimeout(60 * SLOW)
        right, end = Checker(), None
        while end is None or right.n < end:
            data = s.recv(1 << 16)
            assert data, f"cut after {right.n}"
            right.take(data)
            began.touch()
            if end is None and os.path.exists(stop):
                end = right.n + (1 << 17)
        return right.n


def write_numbers(addr, began, stop):
    with connected(addr, COUNT) as s:
        s.settimeout(60 * SLOW)
        n, end = 0, None
        while end is None or n < end:
            s.sendall(array.array("Q", range(n, n + BLOCK)).tobytes())
            n += BLOCK
            began.touch()
            if end is None and os.path.exists(stop):
                end = n + (1 << 17)
        s.shutdown(socket.SHUT_WR)
        back = s.recv(8, socket.MSG_WAITALL)
        assert int.from_bytes(back, "big") == n, (back, n)
        return n


class Flag:
    """A file that says that something is so."""

    def __init__(self, w, name):
        self.path, self.there = os.path.join(w.dir, name), False
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def touch(self):
        if not self.there:
            open(self.path, "w").close()
            self.there = True

    def wait(self):
        wait_for(self.path, lambda: os.path.exists(self.path))


# --- hangs ---

@contextlib.contextmanager
def stopped(w):
    """The instance, by SIGSTOP; gives the time since when."""
    pid = w.ready()
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for("it stands still", lambda: state_of(pid) == "T", every=0.001)
        yield time.monotonic()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def state_of(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(")")[2].split()[0]


@contextlib.contextmanager
def endless(w):
    """The instance, in a loop of its plug-in, which one connect brings about. Nothing ends it but
    dmmd: then that connect is refused."""
    pid, begun = w.ready(), time.monotonic()
    held = w.start(connect_errno, w.server4, ENDLESS, cgroup="/fast")
    # it beats ten times a second
    wait_for("it beats no more", lambda: w.silent_for() > 0.2, every=0.001)
    assert alive(pid) and state_of(pid) == "R", state_of(pid)
    yield max(begun, time.monotonic() - w.silent_for())
    assert held.result(60) == errno.ECONNREFUSED


HANGS = ((stopped, None), (endless, "endless"))


# --- tests ---

@test
def connects_follow_the_rule_from_half_a_second_on(w):
    for unavailable, want in (("kernel", "kernel"), ("reject", "EPERM")):
        w.apply(w.policy(unavailable=unavailable))
        for _ in range(ROUNDS):
            with stopped(w) as since:
                ends = w.ends_from(since + UNAVAILABLE)
                others = w.ends_from(0, cgroup="/kernel")
            assert ends == {want: 2 * CONNECTS}, f"{unavailable}: {ends}"
            assert others == {"kernel": 2 * CONNECTS}, others
            wait_for("new flows are steered again", lambda: w.is_steered(
                w.call(port_or_0, w.server4, cgroup="/fast")))
    w.apply(w.policy())
    w.check_policy()


def port_or_0(addr):
    try:
        return local_port(addr, ECHO)
    except PermissionError:
        return 0


@test
def a_stall_of_two_seconds_cuts_no_flow_and_loses_no_byte(w):
    """Flows that ask and answer, and bulk in both directions."""
    pid, stop = w.ready(), Flag(w, "enough")
    bulk = []
    for i, (fn, addr) in enumerate((f, a) for f in (read_numbers, write_numbers)
                                   for a in (w.server4, w.server6)):
        began = Flag(w, f"began{i}")
        bulk.append(w.start(fn, addr, began, stop.path, cgroup="/fast"))
        began.wait()
    with Flows(w) as flows:
        for _ in range(ROUNDS):
            with stopped(w) as since:
                time.sleep(max(0, since + STALL - time.monotonic()))
            flows.all_go_on()
        stop.touch()
        moved = [child.result(120) for child in bulk]
    flows.tell()
    print(f"# {sum(moved) * 8 >> 20} MiB in {len(moved)} streams, each byte right")
    assert w.ready() == pid, "it was replaced"
    w.check_policy()


def hold(addr, began):
    """Idle after traffic, or writing on: how a flow of each kind ends."""
    idle, busy = connected(addr, ECHO), connected(addr, COUNT)
    idle.sendall(b"ping")
    assert idle.recv(4, socket.MSG_WAITALL) == b"ping"
    busy.settimeout(60 * SLOW)
    busy.sendall(bytes(8))
    began.touch()
    ends = []
    for s, go_on in ((busy, lambda s: s.sendall(bytes(1 << 16)) or True),
                     (idle, lambda s: s.recv(1))):
        s.settimeout(60 * SLOW)
        try:
            while go_on(s):
                pass
            ends.append("eof")
        except OSError as e:
            ends.append(errno.errorcode[e.errno])
    return ends, time.monotonic()


@test
def one_that_is_dead_is_replaced_and_its_flows_are_reset(w):
    for hang, plugin in HANGS:
        with w.dead_after(DEAD_AFTER, plugin):
            pid, children = w.ready(), []
            for i, addr in enumerate((w.server4, w.server6)):
                began = Flag(w, f"held{i}")
                children.append(w.start(hold, addr, began, cgroup="/fast"))
                began.wait()
            with Flows(w, ("/kernel",)) as others:
                with hang(w) as since:
                    ends = w.ends_from(since + UNAVAILABLE)
                    assert alive(pid), "it was ended before new flows were turned away"
                    for child in children:
                        how, at = child.result()
                        assert set(how) <= {"ECONNRESET", "EPIPE"}, how
                        assert at - since > DEAD_AFTER - 1, f"reset after {at - since:.1f} s"
                others.all_go_on()
            assert ends == {"kernel": 2 * CONNECTS}, ends
            w.ready(not_pid=pid)
            assert not alive(pid) and "heartbeat" in w.stack()["last_death"], w.stack()
            w.check_policy()


# --- connects before half a second is over ---

def begin_connect(w, addr, go, late):
    """A connect as soon as told, which is held if that was soon enough. How it ends, and whether bytes
    come back."""
    with socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET) as s:
        s.setblocking(False)
        wait_for("the word to begin", lambda: os.path.exists(go.path), every=0.001)
        s.connect_ex((addr, ECHO))
        if not w.is_steered(s.getsockname()[1]):
            late.touch()
            return "late", b""
        poll = select.poll()
        poll.register(s, select.POLLOUT)
        if not poll.poll(60000 * SLOW):
            return "nothing", b""
        err = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if err:
            return errno.errorcode[err], b""
        s.setblocking(True)
        s.sendall(b"ping")
        return "connected", s.recv(4, socket.MSG_WAITALL)


def connects_within(w, hang):
    """Both IP versions, begun right after the hang did; @hang ends when they have been held for a
    while."""
    for _ in range(10):
        go, late = Flag(w, "go"), Flag(w, "late")
        children = [w.start(begin_connect, w, addr, go, late, cgroup="/fast")
                    for addr in (w.server4, w.server6)]
        with hang(w):
            go.touch()
            time.sleep(1)  # new ones are turned away
            assert os.path.exists(late.path) or w.call(w.end_of, w.server4,
                                                       cgroup="/fast") == "kernel"
        ends = [child.result(120) for child in children]
        if not os.path.exists(late.path):
            return ends
        w.ready()
    raise Skip("this machine is too slow to begin a connect within 0.4 s of a hang")


@test
def a_connect_in_the_first_moments_of_a_stall_waits_for_its_end(w):
    pid = w.ready()
    ends = connects_within(w, stopped)
    assert ends == [("connected", b"ping")] * 2, ends
    assert w.ready() == pid


@contextlib.contextmanager
def stopped_for_good(w):
    pid = w.ready()
    with stopped(w) as since:
        yield since
        w.ready(not_pid=pid)


@test
def a_connect_in_the_first_moments_of_a_death_is_refused_in_the_end(w):
    """By the first repetition of its SYN after dmmd has ended the instance."""
    with w.dead_after(DEAD_AFTER):
        ends = connects_within(w, stopped_for_good)
        assert ends == [("ECONNREFUSED", b"")] * 2, ends
        w.check_policy()


# --- what is no hang ---

@test
def a_loaded_machine_is_no_hang(w):
    """Connects one by one, so that the instance sleeps before each, beside @BUSY endless loops. Each in a
    session of its own, as services are: beside loops in the applications' session, kernel 6.18 (autogroup)
    has kept a busy instance from running for seconds."""
    if SLOW > 1:
        raise Skip("an emulated CPU is too slow to tell")
    before = w.reasons()
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"],
                             start_new_session=True, preexec_fn=lambda: libc.prctl(1, signal.SIGKILL))
            for _ in range(BUSY)]
    try:
        ends = [end for _ in range(10 * ROUNDS) for end in w.ends_from(0)]
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert set(ends) == {"stack"}, ends
    after = w.reasons()
    stale = {r: after[r] - before[r] for r in ("instance-stale", "instance-stale-syn")}
    assert not any(stale.values()), stale


if __name__ == "__main__":
    main(HangWorld)
