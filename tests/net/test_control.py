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

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import OUT, World, main, test, wait_for

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


if __name__ == "__main__":
    main(ControlWorld)
