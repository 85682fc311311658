#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""dmmd.service under a real systemd: DMM is installed on the guest, and its daemon started, stopped and
replaced by systemctl, while an application in a slice of systemd's goes through a stack."""

import json
import os
import pwd
import re
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import ROOT, SLOW, Skip, World, local_port, main, sh, test, wait_for
from flows import Flows

ECHO = 8731
UNIT = "dmmd.service"
SLICE = "dmmtest.slice"


def systemctl(*args, check=True):
    return sh("systemctl", *args, check=check, timeout=60 * SLOW)


class UnitWorld(World):
    """The client is the guest itself: the unit serves the network namespace that systemd has."""

    def __init__(self):
        if not os.environ.get("DMM_GUEST"):
            raise Skip("it would install DMM on this machine: only in the guest")
        if not os.path.isdir("/run/systemd/system"):
            raise Skip("systemd does not run here")
        super().__init__()
        sh("make", "-s", "install", cwd=ROOT, env={k: v for k, v in os.environ.items() if k != "T"},
           timeout=60 * SLOW)
        try:
            pwd.getpwnam("dmm")
        except KeyError:
            sh("useradd", "--system", "dmm")
        systemctl("daemon-reload")
        self.serve_echo(ECHO)

    def _make_hosts(self):
        super()._make_hosts()
        sh("ip", "-n", self.ns["client"], "link", "set", "c0", "netns", str(os.getpid()))
        sh("ip", "addr", "add", f"{self.client4}/24", "dev", "c0")
        sh("ip", "addr", "add", f"{self.client6}/64", "dev", "c0", "nodad")
        sh("ip", "link", "set", "c0", "up")
        sh("ethtool", "-K", "c0", "tx", "off")

    def nsenter(self, host):
        return [] if host == "client" else super().nsenter(host)

    def enter(self, host, cgroup=None):
        if host != "client":
            return super().enter(host, cgroup)
        if cgroup:
            self.join(cgroup)

    def ctl(self, *args, check=True, host="client", **kw):
        return sh("dmmctl", *args, check=check, **kw)

    def log(self):
        return sh("journalctl", "--no-pager", "-u", UNIT, "-u", "dmm-stack*", "-n", "40",
                  check=False).stdout

    def cgroup(self, name):
        """The policy's cgroup roots are the whole machine's here."""
        path = os.path.join("/sys/fs/cgroup", name.lstrip("/"))
        os.makedirs(path, exist_ok=True)
        return path

    def usual_policy(self):
        return self.policy(rules=f"""
    - name: slice-out
      match: {{cgroup: /{SLICE}, proto: tcp, direction: connect}}
      action: {{stack: fast, onUnavailable: kernel}}
    - name: fast-out
      match: {{cgroup: /fast, proto: tcp, direction: connect}}
      action: {{stack: fast, onUnavailable: kernel}}""")

    def property(self, name):
        return systemctl("show", "-P", name, UNIT).stdout.strip()

    def main_pid(self):
        return int(self.property("MainPID"))

    def is_active(self):
        return systemctl("is-active", UNIT, check=False).stdout.strip() == "active"

    def port_in_slice(self, addr):
        """The local port of a connect made by a service of systemd's in the slice."""
        out = sh("systemd-run", "-q", "--wait", "--pipe", "--collect", f"--slice={SLICE}",
                 "/usr/bin/python3", "-c", "import sys; sys.path.insert(0, sys.argv[1]); import dmmtest; "
                 "print(dmmtest.local_port(sys.argv[2], int(sys.argv[3])))",
                 os.path.join(ROOT, "tests/lib"), addr, ECHO, timeout=60 * SLOW)
        return int(out.stdout)

    def check_policy(self):
        for addr in (self.server4, self.server6):
            assert self.is_steered(self.port_in_slice(addr)), f"{addr}: not steered"
            assert not self.is_steered(self.call(local_port, addr, ECHO)), f"{addr}: steered"

    def close(self):
        if os.getpid() == self.owner and getattr(self, "dir", None):
            systemctl("stop", UNIT, "dmm-stack.socket", check=False)
            sh("dmmctl", "teardown", check=False)
            sh("ip", "link", "del", "c0", check=False)
        super().close()


@test
def the_unit_has_no_mistakes(w):
    out = sh("systemd-analyze", "verify", "--man=no", UNIT)
    assert "dmm" not in out.stdout + out.stderr, out.stdout + out.stderr


@test
def it_starts_and_says_when_it_is_ready(w):
    systemctl("start", UNIT)
    assert w.is_active(), w.log()
    assert os.readlink(f"/proc/{w.main_pid()}/exe") == "/usr/local/sbin/dmmd"
    w.ctl("status")  # at once: Type=notify


@test
def a_service_in_a_slice_goes_through_the_stack(w):
    w.apply(w.usual_policy())
    w.ready()
    w.check_policy()
    w.all_was_steered()


def unit_of(pid):
    with open(f"/proc/{pid}/cgroup") as f:
        return f.read().strip().rsplit("/", 1)[1]


@test
def its_instances_are_units_of_their_own(w):
    pid = w.ready()
    assert re.fullmatch(r"dmm-stack@.*\.service", unit_of(pid)), unit_of(pid)
    with open(f"/proc/{pid}/status") as f:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in f)
    assert 61184 <= int(status["Uid"].split()[0]) <= 65519, status["Uid"]  # a dynamic user's
    for name in ("CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0, f"{name} {status[name]}"
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink(f"/proc/{w.main_pid()}/ns/net")
    assert os.readlink(f"/proc/{pid}/root").endswith(" (deleted)"), "no empty root"
    ready = re.findall(r"sandbox: .* Landlock (\d+)", w.log())
    assert ready and int(ready[-1]) > 0, "the unit's filter keeps Landlock from the instance"
    assert "Operation not permitted" not in w.log(), w.log()


@test
def without_its_socket_they_go_on(w):
    pid = w.ready()
    with Flows(w, cgroups=("/fast",)) as flows:
        systemctl("stop", "dmm-stack.socket")
        flows.all_go_on()
        assert w.ready() == pid and w.is_active()
        systemctl("start", "dmm-stack.socket")


@test
def run_makes_its_cgroup_and_it_goes(w):
    prog = ("/usr/bin/python3", "-c", "import sys; sys.path.insert(0, sys.argv[1]); import dmmtest; "
            "print(dmmtest.local_port(sys.argv[2], int(sys.argv[3]))); print(open('/proc/self/cgroup').read())",
            os.path.join(ROOT, "tests/lib"), w.server4, str(ECHO))
    port, cgroup = w.ctl("run", *prog).stdout.split()[:2]
    assert re.search(r"::/dmm/dmm-run-\d+$", cgroup) and not w.is_steered(int(port)), (port, cgroup)
    wait_for("its cgroup is gone", lambda: not os.path.exists("/sys/fs/cgroup" + cgroup.split("::")[1]))
    port, cgroup = w.ctl("run", "--cgroup", "/fast", *prog).stdout.split()[:2]
    assert cgroup.endswith("::/fast") and w.is_steered(int(port)), (port, cgroup)


@test
def the_group_dmm_may_read(w):
    reads = sh("setpriv", "--reuid=dmm", "--regid=dmm", "--clear-groups", "dmmctl", "-j", "status").stdout
    assert json.loads(reads)["pid"] == w.main_pid()
    p = sh("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "dmmctl", "status", check=False)
    assert p.returncode == 4, p


@test
def stopped_it_leaves_its_instances_and_the_steering(w):
    pid = w.ready()
    with Flows(w, cgroups=("/fast",)) as flows:
        systemctl("stop", UNIT)
        assert not w.is_active()
        assert os.path.exists(f"/proc/{pid}"), "the instance died with the unit"
        flows.all_go_on()
        w.check_policy()
        systemctl("start", UNIT)
        assert w.ready() == pid, "the instance was not taken over"
        flows.all_go_on()
        w.check_policy()
    flows.tell()


@test
def restarted_it_takes_over(w):
    pid, before = w.ready(), w.main_pid()
    with Flows(w, cgroups=("/fast",)) as flows:
        systemctl("restart", UNIT)
        assert w.main_pid() != before and w.ready() == pid
        flows.all_go_on()
    w.check_policy()


@test
def killed_it_is_restarted_and_takes_over(w):
    pid, before = w.ready(), w.main_pid()
    os.kill(before, signal.SIGKILL)
    wait_for("systemd starts another", lambda: w.main_pid() not in (0, before) and w.is_active())
    assert w.ready() == pid
    w.check_policy()


@test
def an_instance_that_dies_is_replaced_within_the_sandbox(w):
    pid = w.ready()
    os.kill(pid, signal.SIGKILL)
    w.ready(not_pid=pid)
    w.check_policy()


@test
def reloaded_it_stays_and_reads_its_policy(w):
    before = w.main_pid()
    systemctl("reload", UNIT)
    w.ctl("status")
    assert w.main_pid() == before
    w.check_policy()


@test
def little_is_exposed(w):
    for unit, most in ((UNIT, 3.0), (unit_of(w.ready()), 1.0)):
        text = sh("systemd-analyze", "security", "--no-pager", unit).stdout
        score = float(re.search(r"exposure level for \S+ ([\d.]+)", text)[1])
        print(f"# systemd-analyze security {unit}: {score}")
        assert 0 < score <= most, text


@test
def a_teardown_ends_the_unit_and_leaves_nothing(w):
    pid = w.ready()
    w.ctl("teardown")
    wait_for("the unit ends", lambda: not w.is_active())
    assert systemctl("is-failed", UNIT, check=False).stdout.strip() != "failed", w.log()
    wait_for("the instance ends", lambda: not os.path.exists(f"/proc/{pid}"))
    for folder in ("bpf", "cgroup"):
        wait_for(f"its {folder} folder goes", lambda f=folder: not os.path.exists(f"/sys/fs/{f}/dmm"))
    assert "xdp" not in sh("ip", "link", "show", "c0").stdout
    for addr in (w.server4, w.server6):
        assert not w.is_steered(w.port_in_slice(addr))


if __name__ == "__main__":
    main(UnitWorld)
