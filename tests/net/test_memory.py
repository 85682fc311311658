#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Memory runs out: the kernel ends an instance, or dmmd, in a memory cgroup (v1) with room for little
more than they have. Flows of a dead instance are reset and it comes back; a dead dmmd cuts nothing."""

import contextlib
import errno
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import Skip, World, connected, main, test, wait_for
from flows import Flows

ECHO, FLOOD = 8661, 8662
MEMORY = "/sys/fs/cgroup/memory"
READERS = 120  # stopped ones: each makes the instance hold some 100 KiB
INSTANCE_ROOM, DMMD_ROOM = 4 << 20, 24 << 20
RULES = 60000


class MemoryWorld(World):
    def __init__(self):
        super().__init__()
        self.serve_echo(ECHO)
        self.serve(flood, FLOOD)
        self.up(unavailable="reject")
        self.ready()

    @contextlib.contextmanager
    def room(self, pid, more):
        """Process @pid may take @more bytes from now on; what it has is not counted."""
        if not os.path.exists(f"{MEMORY}/memory.limit_in_bytes"):
            raise Skip("no memory cgroup (v1) is mounted")
        path = f"{MEMORY}/dmm-test-{self.id}"
        os.mkdir(path)
        try:
            for name, value in (("memory.limit_in_bytes", more), ("cgroup.procs", pid)):
                with open(f"{path}/{name}", "w") as f:
                    f.write(str(value))
            yield
        finally:
            wait_for("the memory cgroup is empty", lambda: not open(f"{path}/cgroup.procs").read(),
                     seconds=30)
            os.rmdir(path)


def flood(c):
    with contextlib.suppress(OSError):
        while True:
            c.sendall(bytes(1 << 16))


def read_late(addr, go):
    """Reads nothing until it is told to, then a lot: how that ends."""
    with connected(addr, FLOOD) as s:
        while not os.path.exists(go):
            time.sleep(0.05)
        s.settimeout(60)
        left = 16 << 20
        try:
            while left > 0 and (piece := s.recv(1 << 20)):
                left -= len(piece)
            return "eof" if left > 0 else "goes on"
        except OSError as e:
            return errno.errorcode.get(e.errno, str(e))


@test
def an_instance_without_memory_is_a_reset_and_comes_back(w):
    pid, go = w.ready(), f"{w.dir}/go"
    with Flows(w, cgroups=("/kernel",)) as others, w.room(pid, INSTANCE_ROOM):
        readers = [w.start(read_late, w.server4, go, cgroup="/fast")
                   for _ in range(READERS)]
        wait_for("it is ended", lambda: not os.path.exists(f"/proc/{pid}/fd/0"), seconds=60)
        new = w.ready(not_pid=pid)
        open(go, "w").close()
        ends = {}
        for reader in readers:
            try:
                how = reader.result(60)
            except (PermissionError, ConnectionError):
                how = "turned away"  # connecting, while there was none
            ends[how] = ends.get(how, 0) + 1
        others.all_go_on()
    print(f"# {ends} of {READERS}")
    # some came to the new one
    assert set(ends) <= {"ECONNRESET", "turned away", "goes on"}, ends
    assert ends["ECONNRESET"] > 20, ends
    assert "killed by SIGKILL" in w.instance()["last_death"], w.instance()["last_death"]
    assert w.ready() == new
    w.check_policy()


@test
def a_dmmd_without_memory_cuts_nothing(w):
    """Ended in the middle of an apply: the policy before stays, whole, with its flows."""
    rules = "".join(f"""
    - {{name: r{i}, match: {{cgroup: /c{i % 50}, remote: {{cidr: '10.{i >> 8 & 255}.{i & 255}.0/24'}}}},
       action: {{stack: fast}}}}""" for i in range(RULES))
    instance = w.ready()
    with Flows(w) as flows:
        with w.room(w.daemon.pid, DMMD_ROOM):
            r = w.apply(w.policy(rules=rules), check=False)
            wait_for("it is ended", lambda: w.daemon.poll() is not None, seconds=60)
        assert r.returncode == 3, f"exit {r.returncode}: {r.stderr}"
        flows.all_go_on()
        w.check_policy()
        w.dmmd()
        assert w.ready() == instance, "the instance was not adopted"
        wait_for("the stored policy is live", lambda: w.ctl_json("status")["policy"])
        assert w.ctl_json("status")["policy"]["rules"] == 1
        w.check_policy()
        flows.all_go_on()


if __name__ == "__main__":
    main(MemoryWorld)
