#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Instances that a service manager starts (dmmd --stack-socket): systemd's own socket activation, each
instance as nobody and in an empty network namespace of its own. The units under a real systemd are in
tests/vm/test_unit.py; how exposed they leave what they run is seen here."""

import contextlib
import errno
import os
import re
import resource
import shutil
import signal
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import plugins
from dmmtest import ROOT, main, sh, status_of, test, wait_for
from flows import Flows
from manager import NOBODY, ManagedWorld

ECHO = 8741
CAP_SYS_CHROOT = 18


class SocketWorld(ManagedWorld):
    def __init__(self):
        super().__init__()
        self.serve_echo(ECHO)
        self.manage()
        self.start_dmmd()
        self.apply(self.policy())

    @contextlib.contextmanager
    def nobody_starts(self, listener):
        """Connections are taken and closed again."""
        def take():
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()
        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()

    def parent_of(self, pid):
        return int(status_of(pid)["PPid"])


@test
def what_it_starts_serves(w):
    pid = w.ready()
    assert w.parent_of(pid) == w.manager.pid
    w.check_policy()
    with Flows(w) as flows:
        flows.all_go_on()
    flows.tell()
    w.all_was_steered()


@test
def it_opens_nothing_itself(w):
    pid = w.ready()
    status = status_of(pid)
    assert set(status["Uid"].split()) == {str(NOBODY)}, status["Uid"]
    for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        # what it may inherit is no use to one that may not execute
        assert int(status[name], 16) & ~(1 << CAP_SYS_CHROOT if name == "CapInh" else 0) == 0, name
    assert os.readlink(f"/proc/{pid}/root").endswith(" (deleted)")
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink(f"/proc/{w.daemon.pid}/ns/net")
    with open(f"/proc/{pid}/net/dev") as f:
        assert [line.split(":")[0].strip() for line in f if ":" in line] == ["lo"]


@test
def dmmd_needs_fewer_capabilities(w):
    with open(os.path.join(ROOT, "userspace/dmmd/caps.c")) as f:
        listed = re.findall(r"^\t(CAP_\w+),", f.read().split("for_forks[]")[0], re.M)
    with open(os.path.join(ROOT, "userspace/dmmd/dmmd.service")) as f:
        in_unit = re.search(r"^CapabilityBoundingSet=(.*)", f.read(), re.M)[1].split()
    assert sorted(in_unit) == sorted(listed) and len(listed) == 7, (in_unit, listed)
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY:
        listed.append("CAP_IPC_LOCK")
    out = sh("gcc", "-E", "-P", "-", input="#include <linux/capability.h>\n" + "\n".join(listed))
    want = sum(1 << int(n) for n in out.stdout.split()[-len(listed):])
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status_of(w.daemon.pid)[name], 16) == want & int(status_of("self")["CapPrm"], 16)


@test
def killed_it_is_replaced(w):
    for _ in range(3):
        pid = w.ready()
        os.kill(pid, signal.SIGKILL)
        assert w.parent_of(w.ready(not_pid=pid)) == w.manager.pid
        w.check_policy()
    assert "not our child: journalctl -u 'dmm-stack*'" in w.log(), w.log()


@test
def its_own_last_message_is_told(w):
    plugins.build(f"{w.dir}/stacks/lazy.so", create="return -EMULTIHOP;", headers=["errno.h"])
    r = w.apply(w.policy(plugin="lazy"), check=False)
    assert r.returncode == 1 and os.strerror(errno.EMULTIHOP) in r.stderr, r.stderr
    w.apply(w.policy())
    w.check_policy()


@test
def the_next_dmmd_takes_it_over(w):
    pid = w.ready()
    with Flows(w) as flows:
        for sig in (signal.SIGTERM, signal.SIGKILL):
            os.kill(w.daemon.pid, sig)
            w.daemon.wait()
            flows.all_go_on()
            w.check_policy()
            w.start_dmmd()
            assert w.ready() == pid
            flows.all_go_on()
    flows.tell()
    os.kill(pid, signal.SIGKILL)
    w.ready(not_pid=pid)
    w.check_policy()


def restart_fails(w, *words):
    r = w.ctl("stacks", "restart", "fast", check=False)
    assert r.returncode == 1, r
    for word in (w.socket_path, *words):
        assert word in r.stderr, f"no {word!r} in {r.stderr}"
    assert not w.is_steered(w.port(w.server4))  # onUnavailable: kernel


@test
def without_a_manager_it_is_said(w):
    w.unmanage()
    restart_fails(w, "No such file or directory")
    other = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    other.bind(w.socket_path)
    restart_fails(w, "Connection refused")
    other.listen()
    with w.nobody_starts(other):
        restart_fails(w, "no instance stayed", "journalctl")
    other.close()
    os.unlink(w.socket_path)
    w.manage()
    w.ctl("stacks", "restart", "fast")
    w.check_policy()


@test
def restarted_in_the_middle_nothing_is_left(w):
    """Each restart ends what is on its way: no two instances of one stack are left."""
    children = [w.start(restart, w) for _ in range(6)]
    for child in children:
        child.result(60)
    w.ctl("stacks", "restart", "fast")
    pid = w.ready()
    w.check_policy()
    wait_for("one is left", lambda: w.instances_left() == [pid])


def restart(w):
    return w.ctl("stacks", "restart", "fast", check=False).returncode


@test
def the_units_leave_little_exposed(w):
    if not shutil.which("systemd-analyze"):
        raise AssertionError("no systemd-analyze")
    for unit, most in (("userspace/dmmd/dmmd.service", 3.0), ("userspace/instance/dmm-stack@.service", 1.0)):
        p = sh("systemd-analyze", "security", "--offline=yes", "--no-pager", os.path.join(ROOT, unit))
        score = float(re.search(r"exposure level for \S+ ([\d.]+)", p.stdout)[1])
        print(f"# {unit}: {score}")
        assert 0 < score <= most, p.stdout


main(SocketWorld)
