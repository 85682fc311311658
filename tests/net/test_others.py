#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Somebody else's programs where ours run: filters on lo, XDP, cgroup hooks. What takes ours away or
takes their place is put right, or told once where that cannot be; what runs beside ours is shown, told
once, and has its turn."""

import contextlib
import errno
import json
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import Skip, World, bpf_objects, connect_errno, main, sh, test, wait_for
from flows import Flows
from others import Others

ECHO = 8631
HANDLE = "0x646d6d"  # of our filter
LO = ("dev", "lo", "egress")


class OthersWorld(World):
    def __init__(self):
        super().__init__()
        self.serve_echo(ECHO)
        self.others = Others(self)
        self.up()
        self.ready()

    def close(self):
        if os.getpid() == self.owner and hasattr(self, "others"):
            self.others.close()
        super().close()

    def repairs(self):
        return self.log().count("had to be put right")

    @contextlib.contextmanager
    def repaired(self):
        """What is done in the block is put right."""
        before = self.repairs()
        yield
        wait_for("it is put right", lambda: self.repairs() > before)

    def beside(self, name):
        """The (where, order) of their program as status lists it."""
        return [(b["where"], b["order"]) for b in self.ctl_json("status")["beside"]
                if name in b["name"]]

    @contextlib.contextmanager
    def listed(self, name, *wanted):
        """In the block status lists it so, for people too; the log says once that it came and once that
        it went."""
        before = len(self.log())
        with contextlib.ExitStack() as attached:
            yield attached
            assert sorted(self.beside(name)) == sorted(wanted), self.ctl_json("status")["beside"]
            for where, order in wanted:
                assert f"{order} ours at {where}: " in self.ctl("status").stdout
        assert not self.beside(name)
        told = [line for line in self.log()[before:].splitlines() if name in line]
        assert len(told) == 2 * len(wanted), told
        for where, order in wanted:
            mine = [line for line in told if f"{where}: " in line]
            assert f"runs {order} ours" in mine[0] and "is gone" in mine[1], told

    def tc(self, *args, **kw):
        return self.run("tc", "filter", *args, **kw)

    def problems(self):
        return " ".join(self.ctl_json("status")["problems"])


# --- lo ---

@test
def a_filter_that_somebody_removed_is_put_back(w):
    with Flows(w) as flows:
        with w.repaired():
            w.tc("del", *LO)
        with w.repaired():
            w.run("tc", "qdisc", "del", "dev", "lo", "clsact")
        flows.all_go_on()
    w.check_policy()


@test
def a_filter_that_somebody_replaced_is_put_back(w):
    with Flows(w) as flows:
        with w.repaired():
            w.tc("replace", *LO, "pref", 1, "handle", HANDLE, "bpf", "da", "pinned",
                 w.others.path("theirs_ok"))
        flows.all_go_on()
    w.check_policy()
    assert not w.beside("theirs")


@test
def a_filter_behind_ours_has_its_turn(w):
    with w.listed("theirs_ok", ("lo egress", "after")) as attached:
        w.tc("add", *LO, "pref", 77, "bpf", "da", "pinned", w.others.path("theirs_ok"))
        attached.callback(w.tc, "del", *LO, "pref", 77)
        before = w.others.seen()
        w.check_policy()
        assert w.others.seen() > before, "ours kept everything from it"
        assert w.ctl_json("status")["health"] == "ok"


@test
def a_filter_before_ours_that_hands_on_harms_nothing(w):
    """tc has the newest first within one preference."""
    with w.listed("theirs_next", ("lo egress", "before")) as attached:
        w.tc("add", *LO, "pref", 1, "handle", 5, "bpf", "da", "pinned", w.others.path("theirs_next"))
        attached.callback(w.tc, "del", *LO, "pref", 1, "handle", 5, "bpf")
        before = w.others.seen()
        w.check_policy()
        assert w.others.seen() > before
        assert w.ctl_json("status")["health"] == "ok"


@contextlib.contextmanager
def tcx(w, name):
    try:
        with w.others.tcx(name):
            yield
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        raise Skip("the kernel has no tcx") from e


@test
def a_tcx_program_before_ours_that_hands_on_harms_nothing(w):
    with w.listed("theirs_next", ("lo egress", "before")) as attached:
        attached.enter_context(tcx(w, "theirs_next"))
        w.check_policy()
        assert w.ctl_json("status")["health"] == "ok"


def passes_us_by(w):
    """Steered connects go past the filter: nothing good comes of it, and all say why."""
    for addr in (w.server4, w.server6):
        before = w.reasons()["syn-not-held"]
        err = w.call(connect_errno, addr, ECHO, cgroup="/fast")
        assert err in (errno.ECONNRESET, errno.EPIPE), errno.errorcode.get(err, err)
        assert w.reasons()["syn-not-held"] == before + 1
        assert w.ctl_json("status")["health"] == "degraded"
        assert w.call(connect_errno, addr, ECHO, cgroup="/kernel") == 0

    def is_named():
        """dmmd looks around every few seconds, and forgets what was seconds ago."""
        w.call(connect_errno, w.server4, ECHO, cgroup="/fast")
        return "filter on lo: " in w.problems() and "before ours" in w.problems()
    wait_for("the filter before ours is named", is_named)
    assert w.log().count("go past our filter") == 1, "not told once"


def all_is_well(w):
    wait_for("the status is well again", lambda: w.ctl_json("status")["health"] == "ok")
    w.check_policy()


@test
def a_filter_before_ours_that_ends_the_matter_is_told(w):
    with Flows(w) as flows:
        with w.listed("theirs_ok", ("lo egress", "before")) as attached:
            w.tc("add", *LO, "pref", 1, "handle", 5, "bpf", "da", "pinned",
                 w.others.path("theirs_ok"))
            attached.callback(w.tc, "del", *LO, "pref", 1, "handle", 5, "bpf")
            passes_us_by(w)
            flows.all_go_on()
    w.check_policy()


@test
def a_tcx_program_before_ours_that_ends_the_matter_is_told(w):
    with w.listed("theirs_ok", ("lo egress", "before")) as attached:
        attached.enter_context(tcx(w, "theirs_ok"))
        passes_us_by(w)
    all_is_well(w)


@test
def a_preference_of_another_kind_of_filter_is_left_to_it(_):
    """tc allows one kind and one protocol for each; ours takes the next one."""
    w = World()
    try:
        w.serve_echo(ECHO)
        w.run("tc", "qdisc", "add", "dev", "lo", "clsact")
        w.run("tc", "filter", "add", *LO, "pref", 1, "protocol", "ip", "u32", "match", "ip",
              "dst", "203.0.113.9", "classid", "1:1")
        w.up()
        w.ready()
        w.check_policy()
        theirs, = [b for b in w.ctl_json("status")["beside"] if b["where"] == "lo egress"]
        assert (theirs["kind"], theirs["order"]) == ("u32", "before"), theirs
        w.ctl("teardown")
        left = w.run("tc", "filter", "show", *LO).stdout
        assert "u32" in left and "dmm_lo" not in left, left
    finally:
        w.close()


# --- the flow door ---

def links_of(w, program):
    """Ids of the links that hold the pinned program somewhere."""
    pin = f"{w.bpffs}/progs/dmm_{program}"
    wanted = json.loads(sh("bpftool", "-j", "prog", "show", "pinned", pin).stdout)["id"]
    return [link["id"] for link in bpf_objects("link") if link.get("prog_id") == wanted]


@test
def a_flow_door_that_somebody_detached_is_put_back(w):
    """Without it the kernel answers for the stack, with resets: new flows are what can be had."""
    with Flows(w, ("/kernel",)) as flows:
        with w.repaired():
            for link in links_of(w, "xdp"):
                sh("bpftool", "link", "detach", "id", link)
        flows.all_go_on()
        w.check_policy()


@test
def a_flow_door_that_somebody_replaced_is_put_back(w):
    with Flows(w, ("/kernel",)) as flows:
        with w.repaired():
            for link in links_of(w, "xdp"):
                w.others.into_link(link, "theirs_xdp")
        assert links_of(w, "xdp")
        flows.all_go_on()
        w.check_policy()


@test
def a_flow_door_cannot_be_taken_by_attaching(w):
    pid = w.ready()
    with Flows(w) as flows:
        for how in ("xdp", "xdpdrv", "xdpgeneric"):
            r = w.run("ip", "-force", "link", "set", "dev", "c0", how, "pinned",
                      w.others.path("theirs_xdp"), check=False)
            assert r.returncode, f"{how}: it was replaced"
        flows.all_go_on()
    assert w.ready() == pid
    w.check_policy()


def take_hook(w):
    """While dmmd, which would put its own program back, looks away."""
    os.kill(w.daemon.pid, signal.SIGSTOP)
    for link in links_of(w, "xdp"):
        sh("bpftool", "link", "detach", "id", link)
    w.run("ip", "link", "set", "dev", "c0", "xdpdrv", "pinned", w.others.path("theirs_xdp"))
    os.kill(w.daemon.pid, signal.SIGCONT)


@test
def a_flow_door_that_is_taken_turns_new_flows_away_until_it_is_free(w):
    """Nothing that the peers send reaches the stack: connects follow the rule, and it is told once."""
    pid, before, restarts = w.ready(), len(w.log()), w.stack()["restarts"]
    with Flows(w, ("/kernel",)) as flows:
        take_hook(w)
        try:
            wait_for("the instance is ended", lambda: w.stack()["pid"] != pid)
            wait_for("it is told", lambda: "theirs_xdp" in w.problems())
            assert w.ctl_json("status")["health"] == "degraded"
            for addr in (w.server4, w.server6):
                assert not w.is_steered(w.port(addr)), "steered to a stack that hears nothing"
            time.sleep(3.5)  # it looks around every second
            flows.all_go_on()
            for addr in (w.server4, w.server6):
                assert not w.is_steered(w.port(addr))
            said = w.log()[before:]
            assert said.count("cannot all be kept") == 1, said
            assert said.count("was taken away") <= 2, said  # and with the end of the instance
            assert f"id {w.others.id('theirs_xdp')}" in said, said
        finally:
            w.run("ip", "link", "set", "dev", "c0", "xdpdrv", "off")
        w.ready(not_pid=pid)
        flows.all_go_on()
    assert w.stack()["restarts"] == restarts + 1, "looking for the hook counted as restarts"
    assert w.ctl_json("status")["health"] == "ok", w.problems()
    w.check_policy()


# --- cgroups ---

HOOKS = {"connect4": "theirs_con4", "sockops": "theirs_ops", "sock_create": "theirs_sock",
         "bind4": "theirs_bind4"}


@test
def hooks_that_somebody_detached_are_put_back(w):
    with Flows(w) as flows:
        for program in ("connect6", *HOOKS):
            with w.repaired():
                for link in links_of(w, program):
                    sh("bpftool", "link", "detach", "id", link)
            assert links_of(w, program)
        flows.all_go_on()
    w.check_policy()


@test
def hooks_that_somebody_replaced_are_put_back(w):
    with Flows(w) as flows:
        for program, theirs in HOOKS.items():
            with w.repaired():
                for link in links_of(w, program):
                    w.others.into_link(link, theirs)
            assert links_of(w, program)
        flows.all_go_on()
    w.check_policy()


def attach(w, attached, cgroup, hook, name):
    args = (w.cgroup(cgroup), hook, "pinned", w.others.path(name))
    sh("bpftool", "cgroup", "attach", *args, "multi")
    attached.callback(sh, "bpftool", "cgroup", "detach", *args)


@test
def programs_at_the_same_hooks_are_shown_and_harm_nothing(w):
    with Flows(w) as flows:
        for cgroup, order in (("/fast", "after"), ("/", "after")):
            with w.listed("theirs", ("connect4", order), ("sockops", order)) as attached:
                attach(w, attached, cgroup, "connect4", "theirs_con4")
                attach(w, attached, cgroup, "sock_ops", "theirs_ops")
                before = w.others.seen()
                w.check_policy()
                assert w.others.seen() > before
                assert w.ctl_json("status")["health"] == "ok"
        flows.all_go_on()


if __name__ == "__main__":
    main(OthersWorld)
