#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The control socket in bad company: who may what, requests that make no sense, lines without end,
and clients that are slow, idle or deaf hold up nobody, change nothing and cost bounded memory."""

import contextlib
import errno
import json
import os
import select
import socket
import stat
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import OUT, World, long_test, main, test, wait_for

ECHO = 8801
NOBODY = 65534
READERS = 60  # the group `games`: any that exists will do


class ControlWorld(World):
    def __init__(self):
        super().__init__()
        self.serve_echo(ECHO)
        self.socket = f"{self.dir}/run/dmmd.sock"
        self.dmmd("--group", "games")
        self.apply(self.policy())


def talk(path, data, uid=0, groups=()):
    """Sends bytes, reads one line or the end; as somebody else where @uid is given."""
    if uid:
        os.setgroups(groups)
        os.setgid(uid)
        os.setuid(uid)
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(path)
    with contextlib.suppress(BrokenPipeError):
        s.sendall(data)
    line = b""
    with contextlib.suppress(ConnectionResetError):
        while not line.endswith(b"\n") and (piece := s.recv(1 << 16)):
            line += piece
    return line.partition(b"\n")[0]


@test
def others_may_read_by_group_and_change_nothing(w):
    mode = os.stat(w.socket)
    assert stat.S_IMODE(mode.st_mode) == 0o660 and mode.st_gid == READERS, oct(mode.st_mode)

    def request(verb, **args):
        line = json.dumps({"verb": verb, "args": args}).encode() + b"\n"
        return json.loads(w.call(talk, w.socket, line, NOBODY, (READERS,)))
    for verb in ("status", "version", "stacks list", "flows list", "stats"):
        assert request(verb)["ok"], verb
    generation = w.ctl_json("status")["policy"]["generation"]
    for verb, args in (("apply", {"file": "x", "policy": w.policy()}),
                       ("attach", {"cgroup": "/kernel"}), ("detach", {"cgroup": "/fast"}),
                       ("stacks restart", {"name": "fast"}), ("stacks drain", {"name": "fast"})):
        answer = request(verb, **args)
        assert not answer["ok"] and answer["error"]["errno"] == "EPERM", (verb, answer)
        assert answer["error"]["exit"] == 4, answer
    assert w.ctl_json("status")["policy"]["generation"] == generation
    w.check_policy()
    try:
        w.call(talk, w.socket, b'{"verb": "status"}\n', NOBODY)
        raise AssertionError("somebody outside the group was let in")
    except OSError as e:
        assert e.errno == errno.EACCES, e


BAD_LINES = (
    b"garbage\n", b"\n", b"[]\n", b"null\n", b"42\n", b'"status"\n', b"{\n", b"}\n", b"{}\n",
    b'{"verb": 1}\n', b'{"verb": null}\n', b'{"verb": "nonesuch"}\n', b'{"verb": "status"\n',
    b'{"verb": "status", "verb": "apply"}x\n', b'\x00\x01\xff\xfe\n', b'{"verb": "\xff\xfe"}\n',
    b'{"verb": "apply"}\n', b'{"verb": "apply", "args": {"policy": 5}}\n',
    b'{"verb": "apply", "args": []}\n', b'{"verb": "attach", "args": {"cgroup": {}}}\n',
    b'{"verb": "attach", "args": {"pid": -1}}\n', b'{"verb": "attach", "args": {"pid": 1e99}}\n',
    b'{"verb": "stacks restart", "args": {"name": "' + b"x" * 5000 + b'"}}\n',
    b'{"verb": "attach", "args": {"cgroup": "' + b"../" * 300 + b'"}}\n',
    b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"\n", b"[" * 50000 + b"\n")


@test
def bad_requests_are_answered_and_forgotten(w):
    for line in BAD_LINES:
        answer = w.call(talk, w.socket, line)
        answer = json.loads(answer)
        assert answer["ok"] is False and answer["error"]["text"], (line[:60], answer)
    assert json.loads(w.call(talk, w.socket, b'garbage\n{"verb": "ping"}\n'))["ok"] is False
    w.check_policy()


def memory(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * 4096


@test
def lines_too_long_are_refused(w):
    before = memory(w.daemon.pid)
    line = w.call(talk, w.socket, b"x" * (1 << 20), NOBODY, (READERS,))
    assert not line or json.loads(line)["ok"] is False, line
    line = w.call(talk, w.socket, b" " * (81 << 20), timeout=120)
    assert not line or json.loads(line)["ok"] is False, line[:100]
    wait_for("its memory is given back", lambda: memory(w.daemon.pid) < before + (16 << 20))
    w.check_policy()


def become_reader(uid):
    if uid:
        os.setgroups((READERS,))
        os.setgid(uid)
        os.setuid(uid)


def stubborn(path, ready, uid, kinds):
    """64 clients of these kinds in turn: idle, within a line, or asking and never reading."""
    become_reader(uid)
    clients = []
    for i in range(64):
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        s.setblocking(False)
        kind = kinds[i % len(kinds)]
        if kind == "half":
            s.send(b'{"verb": "sta')
        elif kind == "deaf":
            while select.select([], [s], [], 0.05)[1]:  # until dmmd takes no more of it
                with contextlib.suppress(BlockingIOError):
                    s.send(b'{"verb": "status"}\n' * 1000)
        clients.append(s)
    ready.send(b"R")
    ready.recv(1)  # enough
    return len(clients)


@test
def slow_and_idle_clients_hold_up_nobody(w):
    before = memory(w.daemon.pid)
    for uid in (0, NOBODY):
        for kinds in (("idle",), ("idle", "half", "deaf"), ("deaf",)):
            ready, other = socket.socketpair()
            ready.settimeout(30)
            child = w.start(stubborn, w.socket, other, uid, kinds)
            assert ready.recv(1) == b"R"
            for _ in range(10):
                w.ctl("status")
            w.apply(w.policy())
            w.check_policy()
            assert memory(w.daemon.pid) < before + (32 << 20)
            ready.send(b"E")
            child.result()
    w.ctl("status")


def fds_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


MAX_CLIENTS = 64  # that dmmd keeps


def say_nothing(path, ready, uid, n):
    """@n clients at once, who wait to be told to stop; how many had been sent away by then, and whether
    one that is still there is answered."""
    become_reader(uid)
    clients = []
    for _ in range(n):
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        clients.append(s)
    ready.send(b"R")
    ready.recv(1)
    poll = select.poll()
    for s in clients:
        poll.register(s, select.POLLIN)
    gone = {fd for fd, _ in poll.poll(0)}
    left = [s for s in clients if s.fileno() not in gone]
    if left:
        left[-1].sendall(b'{"verb": "ping"}\n')
        assert b'"ok":true' in left[-1].recv(4096)
    return len(gone), len(left)


@test
def a_thousand_clients_that_say_nothing(w):
    """The oldest make room, root's last; descriptors are bounded, and free again after."""
    before = fds_of(w.daemon.pid)
    for uid in (0, NOBODY):
        ready, other = socket.socketpair()
        ready.settimeout(60)
        child = w.start(say_nothing, w.socket, other, uid, 1000)
        assert ready.recv(1) == b"R"
        for _ in range(10):
            w.ctl("status")
        w.apply(w.policy())
        w.check_policy()
        assert fds_of(w.daemon.pid) <= before + MAX_CLIENTS
        ready.send(b"E")
        gone, left = child.result()
        assert gone + left == 1000 and 0 < left <= MAX_CLIENTS, (gone, left)
        wait_for("their descriptors are free again", lambda: fds_of(w.daemon.pid) <= before)


def ask_all_at_once(path, go, n):
    """@n clients one after another, each with a question of its own; how many were answered rightly."""
    wait_for("the word to begin", lambda: os.path.exists(go))
    right = 0
    for i in range(n):
        answer = json.loads(talk(path, json.dumps({"verb": f"nonsense{i}"}).encode() + b"\n"))
        right += f"nonsense{i}'" in answer["error"]["text"]
    return right


@test
def a_thousand_questions_by_forty_clients_at_a_time_are_answered(w):
    go = f"{w.dir}/go"
    children = [w.start(ask_all_at_once, w.socket, go, 25) for _ in range(40)]
    open(go, "w").close()
    w.check_policy()
    assert sum(child.result(120) for child in children) == 1000
    os.unlink(go)


LIST = b'{"verb": "flows list"}\n'
FLOWS = 3000


def make_flows(addr, n):
    """Where nobody listens: they are listed all the same."""
    for _ in range(n):
        with socket.socket() as s:
            assert s.connect_ex((addr, 1)) == errno.ECONNREFUSED


def make_a_long_list(w, n=FLOWS):
    """For a minute."""
    w.ctl("attach", "--cgroup", "/kernel")
    w.call(make_flows, w.server4, n, cgroup="/kernel", timeout=120)
    w.ctl("detach", "--cgroup", "/kernel")


def read_slowly(path, began):
    """A long answer, in pieces of 8 KiB and less; how many flows it has."""
    s = socket.socket(socket.AF_UNIX)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(path)
    s.settimeout(60)
    s.sendall(LIST)
    line = s.recv(1)
    open(began, "w").close()
    while not line.endswith(b"\n"):
        piece = s.recv(8192)
        assert piece, f"cut after {len(line)}"
        line += piece
        time.sleep(0.002)
    return len(json.loads(line)["result"]["items"]), len(line)


def never_read(path, ready, n):
    """Until told to: how much each gets then."""
    clients = []
    for _ in range(n):
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        s.sendall(LIST)
        clients.append(s)
    for s in clients:  # the first bytes are there, or were
        assert select.select([s], [], [], 60)[0]
    ready.send(b"R")
    ready.recv(1)
    return [rest_of(s) for s in clients]


def rest_of(s):
    """Bytes up to the end of the line; 0: it was cut."""
    n = 0
    with contextlib.suppress(OSError):
        while piece := s.recv(1 << 16):
            n += len(piece)
            if piece.endswith(b"\n"):
                return n
    return 0


@test
def a_long_answer_that_is_read_slowly_arrives_whole(w):
    began = f"{w.dir}/began"
    make_a_long_list(w)
    child = w.start(read_slowly, w.socket, began)
    wait_for("it reads", lambda: os.path.exists(began))
    for _ in range(10):
        w.ctl("status")
    w.apply(w.policy())
    w.check_policy()
    flows, size = child.result(120)
    print(f"# {flows} flows in {size >> 10} KiB")
    assert flows >= FLOWS


@test
def long_answers_that_nobody_reads_hold_up_nobody(w):
    """Sixty of them, of more than a MiB each: dmmd keeps 64 MiB of them at most, and gives that back.
    Making one takes some memory, too."""
    make_a_long_list(w, 2 * FLOWS)
    before = memory(w.daemon.pid)
    w.call(talk, w.socket, LIST)
    making = memory(w.daemon.pid) - before
    ready, other = socket.socketpair()
    ready.settimeout(60)
    child = w.start(never_read, w.socket, other, 60)
    assert ready.recv(1) == b"R"
    for _ in range(10):
        w.ctl("status")
    w.apply(w.policy())
    w.check_policy()
    most = memory(w.daemon.pid)
    ready.send(b"E")
    read = child.result()
    print(f"# {before >> 20} MiB before, {making >> 20} more to make one, {most >> 20} with them")
    assert sum(n > 0 for n in read) < 60, "all were kept"
    assert most < before + making + (80 << 20)
    wait_for("its memory is given back",
             lambda: memory(w.daemon.pid) < before + making + (16 << 20))


STUCK = 30  # seconds without a byte, within a request or an answer


@long_test
def who_is_stuck_for_long_is_sent_away(w):
    """And who only waits is not."""
    clients = []
    for data in (b'{"verb": "sta', LIST * 20, b""):
        s = socket.socket(socket.AF_UNIX)
        s.connect(w.socket)
        s.sendall(data)
        clients.append(s)
    half, deaf, idle = clients
    half.settimeout(3 * STUCK)
    assert half.recv(1) == b"", "half a request was answered"
    poll = select.poll()
    poll.register(deaf, select.POLLHUP)
    assert poll.poll(3000 * STUCK), "who does not read is still there"
    idle.settimeout(60)
    idle.sendall(b'{"verb": "ping"}\n')
    assert b'"ok":true' in idle.recv(4096)


if __name__ == "__main__":
    main(ControlWorld)
