#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""dmmctl doctor tries the real things, and finds what is planted in a network namespace."""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import OUT, World, cgroup2_mount, main, test


def doctor(w, *args, code=0):
    p = w.ctl("-j", "doctor", *args, check=False)
    assert p.returncode == code, f"exit {p.returncode}\n{p.stdout}{p.stderr}"
    doc = json.loads(p.stdout)
    return doc, {i["check"]: i for i in doc["items"]}


def findings(w):
    doc, _ = doctor(w, "c0")
    return sorted((i["check"], i["detail"]) for i in doc["items"] if i["status"] == "warn")


class Planted:
    """A change to the client host, taken back afterwards."""

    def __init__(self, w, make, undo):
        self.w, self.commands, self.undo = w, make, undo

    def __enter__(self):
        for command in self.commands:
            self.w.run(*command)

    def __exit__(self, *_):
        for command in self.undo:
            self.w.run(*command)


@test
def a_working_host_is_ready(w):
    doc, checks = doctor(w, "c0")
    assert doc["result"] == "ready" and doc["errors"] == 0
    assert checks["connect4 hook fires in a test cgroup"]["status"] == "ok"
    xsk = checks["AF_XDP receives and sends on a veth pair"]
    assert xsk["status"] == "ok" and "copy" in xsk["detail"], xsk
    assert checks["all programs load and attach"]["status"] == "ok"
    assert findings(w) == []


@test
def what_dmmd_could_not_start_with_is_found(w):
    """Few descriptors are enough for the single trials, not for all of DMM's maps and programs."""
    limit = ("prlimit", "--nofile=22")
    p = w.run(*limit, w.ctl_path(), "-j", "doctor", "c0", check=False)
    doc = json.loads(p.stdout)
    assert p.returncode == 1 and doc["result"] == "not-ready", p
    failed, = (i for i in doc["items"] if i["status"] == "error")
    assert failed["check"] == "all programs load and attach", failed
    assert "Too many open files" in failed["detail"] + (failed["hint"] or ""), failed
    p = w.run(*limit, os.path.join(OUT, "dmmd"), "--run-dir", f"{w.dir}/run", "--state-dir",
              f"{w.dir}/state", "--bpffs", w.bpffs, "--cgroup-root", w.cgroup_root, check=False,
              timeout=20)
    assert p.returncode, "dmmd starts nevertheless"


@test
def it_prints_a_result_line(w):
    lines = w.ctl("doctor", "c0").stdout.splitlines()
    assert lines[-1].startswith("result: READY"), lines
    assert any("ns/call" in line for line in lines)


@test
def it_leaves_nothing_behind(w):
    def seen():
        return ([n for n in os.listdir(cgroup2_mount()) if n.startswith("dmm-doctor")],
                w.run("ip", "-br", "link").stdout, w.run("tc", "qdisc").stdout,
                [n for n in os.listdir("/sys/fs/bpf") if "doctor" in n])
    before = seen()
    doctor(w, "c0")
    assert seen() == before


@test
def nftables_that_would_be_bypassed_are_found(w):
    rules = """table inet t {
        chain out { type filter hook output priority 0; policy drop; tcp dport 80 accept; }
        chain empty { type filter hook input priority 0; }
        chain forwarded { type filter hook forward priority 0; policy drop; accept; }
    }
    table netdev n {
        chain ours { type filter hook ingress device c0 priority 0; counter; }
        chain other { type filter hook ingress device lo priority 0; counter; }
    }"""
    w.run("nft", "-f", "-", input=rules)
    try:
        assert findings(w) == [
            ("nftables", "nftables inet t/out (filter): 1 rule, policy drop"),
            ("nftables", "nftables netdev n/ours (filter): 1 rule")], findings(w)
    finally:
        w.run("nft", "flush", "ruleset")


@test
def policy_routing_is_found(w):
    with Planted(w, [("ip", "rule", "add", "from", "10.0.0.1", "table", "100", "priority", "77"),
                     ("ip", "-6", "rule", "add", "from", "fd00::1", "table", "100")],
                 [("ip", "rule", "del", "from", "10.0.0.1"), ("ip", "-6", "rule", "del", "from", "fd00::1")]):
        assert [f[0] for f in findings(w)] == ["policy-routing"] * 2
        assert "1 IPv4 policy routing rule, first at priority 77" in findings(w)[0][1]


@test
def traffic_control_is_found(w):
    with Planted(w, [("tc", "qdisc", "add", "dev", "c0", "root", "tbf", "rate", "1gbit", "burst",
                      "1m", "latency", "10ms")],
                 [("tc", "qdisc", "del", "dev", "c0", "root")]):
        assert findings(w) == [("tc", "tc on c0: qdisc tbf shapes only what the kernel sends")]


@test
def filters_are_found(w):
    with Planted(w, [("tc", "qdisc", "add", "dev", "c0", "clsact"),
                     ("tc", "filter", "add", "dev", "c0", "egress", "bpf", "da", "bytecode",
                      "1,6 0 0 1,")], [("tc", "qdisc", "del", "dev", "c0", "clsact")]):
        assert findings(w) == [("tc", "tc on c0: 0 filters or programs at ingress, 1 at egress")]
    assert findings(w) == []


@test
def ipsec_policies_are_found(w):
    with Planted(w, [("ip", "xfrm", "policy", "add", "src", "10.0.0.0/24", "dst", "10.1.0.0/24",
                      "dir", "out", "tmpl", "proto", "esp", "mode", "tunnel")],
                 [("ip", "xfrm", "policy", "flush")]):
        assert [f[0] for f in findings(w)] == ["ipsec"]


@test
def a_peer_that_leaves_checksums_undone_is_found_with_the_fix(w):
    w.run("ethtool", "-K", "s0", "tx", "on", host="server")
    doc, checks = doctor(w, "c0")
    fix = checks["peer-checksum"]["hint"]
    assert "s0" in checks["peer-checksum"]["detail"] and w.ns["server"] in fix, checks
    subprocess.run(fix, shell=True, check=True, capture_output=True)
    assert findings(w) == []


@test
def an_unknown_interface_is_an_error(w):
    doc, checks = doctor(w, "nosuch0", code=1)
    assert doc["result"] == "not-ready" and checks["nosuch0"]["status"] == "error"


@test
def what_it_may_not_do_is_said(w):
    p = w.run("setpriv", "--reuid=65534", "--clear-groups", w.ctl_path(), "doctor", check=False)
    assert p.returncode == 4 and "hint: " in p.stderr, p
    # root without the capability: each trial says which step failed
    p = w.run("setpriv", "--bounding-set=-bpf,-sys_admin", "--inh-caps=-all", w.ctl_path(), "doctor",
              "c0", check=False)
    assert p.returncode == 1 and "result: NOT READY" in p.stdout, p
    assert "Operation not permitted" in p.stdout, p.stdout


class DoctorWorld(World):
    def ctl_path(self):
        return os.path.join(OUT, "dmmctl")


if __name__ == "__main__":
    main(DoctorWorld)
