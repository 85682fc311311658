#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""dmmctl against a running dmmd, against one that is gone, and against pinned maps alone."""

import glob
import json
import os
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import OUT, World, main, sh, test, wait_for

PORT = 8080


class CtlWorld(World):
    def __init__(self):
        super().__init__()
        self.serve(lambda c: c.recv(65536) and c.sendall(b"x" * 1000), PORT)
        self.up()
        self.ctl("attach", "--cgroup", "/kernel")  # the policy does not name it

    def explain(self, remote, *args, **kw):
        return self.ctl_json("--cgroup-root", self.cgroup_root, "explain", "tcp", "connect", remote,
                             *args, **kw)

    def ask(self, cgroup, addr=None):
        return self.call(fetch, addr or self.server4, cgroup=cgroup)

    def stop_dmmd(self, sig=signal.SIGTERM):
        self.daemon.send_signal(sig)
        self.daemon.wait(20)


def fetch(addr):
    """Returns pid and local port."""
    with socket.create_connection((addr, PORT), 20) as s:
        s.sendall(b"y" * 500)
        while s.recv(65536):
            pass
        return os.getpid(), s.getsockname()[1]


def fetch_as(addr, uid):
    os.setuid(uid)
    return fetch(addr)


def hold(addr, seconds=60):
    with socket.create_connection((addr, PORT), 20):
        time.sleep(seconds)


def keys(obj):
    return set(obj)


# --- what scripts rely on: fields may be added, never go ---

@test
def json_has_its_fields(w):
    w.ask("/fast")
    status = w.ctl_json("status")
    assert keys(status) >= {"apiVersion", "kind", "version", "pid", "uptime_ms", "health", "problems",
                            "policy", "stacks", "cgroups", "flows", "interfaces"}
    assert status["policy"]["generation"] == 1 and status["health"] == "ok", status
    wanted = {
        "flows list": ("FlowList", {"cookie", "proto", "family", "state", "local", "remote", "stack",
                                    "rule", "reason", "generation", "pid", "comm", "uid", "age_ms",
                                    "closed_ms", "bytes_sent", "bytes_received", "cgroup_id"}),
        "stacks list": ("StackList", {"name", "instance", "state", "plugin", "interface", "asked",
                                      "got", "pid", "flows", "restarts", "memory_bytes"}),
        "get rules": ("RuleList", {"name", "builtin", "action", "hits"}),
    }
    for command, (kind, fields) in wanted.items():
        doc = w.ctl_json(*command.split())
        assert (doc["apiVersion"], doc["kind"]) == ("dmm/v1alpha1", kind), doc
        assert keys(doc["items"][-1]) >= fields, (command, doc["items"][-1])
    stats = w.ctl_json("stats")
    assert keys(stats["reasons"][0]) == {"reason", "text", "count"}
    assert keys(stats["stacks"][0]) >= {"name", "instance", "xdp_packets", "connects", "flows_opened"}
    assert w.ctl_json("get", "policy")["text"].startswith("apiVersion")
    assert w.ctl_json("version")["dmmd"] == w.ctl_json("version")["dmmctl"]


@test
def tables_for_people(w):
    pid, _ = w.ask("/fast")
    assert w.ctl().stdout.startswith("dmmd 0.") and "policy test gen 1" in w.ctl().stdout
    head, *rows = w.ctl("flows", "list").stdout.splitlines()
    assert head.split() == ["PROTO", "STATE", "LOCAL", "REMOTE", "STACK", "RULE", "PID/COMM", "SENT",
                            "RECEIVED", "AGE", "REASON"]
    assert any("fast-out" in r and f" {pid}/" in r for r in rows), rows
    assert "fast#0" in w.ctl("stacks").stdout and "->" in w.ctl("stacks").stdout
    stats = w.ctl("stats").stdout
    counts = [int(line.split()[0]) for line in stats.split("\n\n")[0].splitlines()[1:]]
    assert counts == sorted(counts, reverse=True) and 0 not in counts, stats
    described = w.ctl("stats", "--describe").stdout
    assert "SO_BINDTODEVICE ties the socket to a device" in described
    counters = described.partition("fast#0\n")[2].splitlines()
    assert len(counters) > 15 and all(len(line.split()) > 3 for line in counters), described
    assert len(w.ctl("-o", "jsonl", "get", "rules").stdout.splitlines()) == 8  # 6 built-in


@test
def a_policy_round_trips(w):
    text = w.ctl("get", "policy").stdout
    assert text == w.policy()
    assert w.ctl("check", "-", input=text).returncode == 0


@test
def check_asks_the_daemon_about_the_host(w):
    path = os.path.join(w.dir, "elsewhere.yaml")
    with open(path, "w") as f:
        f.write(w.policy().replace("c0", "nosuch0"))
    p = w.ctl("check", path, check=False)
    assert p.returncode == 5 and "nosuch0" in p.stderr, p
    assert w.ctl("check", "--offline", path).returncode == 0


@test
def a_bad_policy_changes_nothing(w):
    before = w.ctl_json("status")["policy"]
    p = w.apply(w.policy().replace("stack: fast, on", "stack: fsat, on"), check=False)
    assert p.returncode == 5 and "did you mean 'fast'" in p.stderr, p
    assert w.ctl_json("status")["policy"] == before


# --- flows ---

@test
def flow_filters(w):
    fast, port = w.ask("/fast")
    kernel, _ = w.ask("/kernel")

    def pids(*words):
        return {f["pid"] for f in w.ctl_json("flows", "list", *words)["items"]}

    assert fast in pids() and kernel in pids()
    assert fast in pids("stack", "fast") and kernel not in pids("stack", "fast")
    assert kernel in pids("stack", "kernel", "dport", str(PORT))
    assert pids("sport", str(port), "rule", "fast-out") == {fast}
    assert fast in wait_for("the flow to close", lambda: pids("state", "closed", "pid", str(fast)))
    assert pids("dport", "1") == set()
    flow, = w.ctl_json("flows", "list", "pid", str(fast))["items"]
    assert 500 <= flow["bytes_sent"] <= 502 and 1000 <= flow["bytes_received"] <= 1002, flow
    for wrong in (["stack"], ["colour", "red"], ["state", "bogus"], ["reason", "bogus"],
                  ["dport", "99999"], ["sport", "x"], ["pid", ""]):
        assert w.ctl("flows", "list", *wrong, check=False).returncode == 2


@test
def flows_say_whose_they_are(w):
    for cgroup in ("/fast", "/kernel"):
        pid, _ = w.call(fetch_as, w.server4, 12345, cgroup=cgroup)
        flow, = w.ctl_json("flows", "list", "pid", str(pid))["items"]
        with open(f"/proc/{os.getpid()}/comm") as f:
            assert (flow["uid"], flow["comm"]) == (12345, f.read().strip()), flow


def half_way(addr, said, go):
    """Sends 5000 bytes, gets 1000, and keeps the connection."""
    with socket.create_connection((addr, PORT), 20) as s:
        s.sendall(b"y" * 5000)
        got = 0
        while got < 1000:
            got += len(s.recv(65536))
        said.send(b"S")
        go.recv(1)


@test
def open_flows_tell_what_they_have_carried(w):
    for cgroup in ("/fast", "/kernel"):
        tells, said = socket.socketpair()
        go, waits = socket.socketpair()
        tells.settimeout(20)
        child = w.start(half_way, w.server4, said, waits, cgroup=cgroup)
        assert tells.recv(1) == b"S"
        flow, = w.ctl_json("flows", "list", "pid", str(child.pid))["items"]
        assert flow["closed_ms"] is None and \
            (flow["bytes_sent"], flow["bytes_received"]) == (5000, 1000), flow
        go.send(b"G")
        child.result()


@test
def flows_through_the_daemon_are_the_same(w):
    """Others than root are answered by dmmd: the same objects."""
    w.ask("/fast")
    held = w.start(hold, w.server4, cgroup="/fast")
    wait_for("a flow is open", lambda: any(f["state"] == "established" for f in w.flows()))
    os.chmod(w.dir + "/run", 0o755)
    os.chmod(w.dir + "/run/dmmd.sock", 0o666)
    mine = w.ctl_json("flows", "list")["items"]
    p = w.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
              os.path.join(OUT, "dmmctl"), "--run-dir", f"{w.dir}/run", "-j", "flows", "list")
    theirs = json.loads(p.stdout)["items"]
    assert keys(mine[0]) == keys(theirs[0]), keys(mine[0]) ^ keys(theirs[0])

    def fixed(items):
        return {(f["cookie"], f["local"], f["remote"], f["stack"], f["rule"], f["comm"],
                 f["bytes_sent"], f["bytes_received"]) for f in items}
    assert fixed(mine) == fixed(theirs)
    held.kill()
    p = w.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
              os.path.join(OUT, "dmmctl"), "--run-dir", f"{w.dir}/run", "stacks", "restart", "fast",
              check=False)
    assert p.returncode == 4 and "hint: " in p.stderr, p


# --- explain ---

@test
def explain_says_when_no_hook_runs(w):
    w.cgroup("/apart")
    said = w.ctl("explain", "tcp", "connect", f"{w.server4}:80", "--cgroup", "/apart").stdout
    assert "NOT ATTACHED" in said and "KERNEL" in said and "attach" in said, said
    told = w.ctl_json("explain", "tcp", "connect", f"{w.server4}:80", "--cgroup", "/fast")
    assert told["caller"]["attached"] and told["reason"] != "not-attached", told


@test
def explain_names_rule_and_place(w):
    e = w.explain(f"{w.server4}:{PORT}", "--cgroup", "/fast")
    assert (e["verdict"], e["reason"], e["if_down"]) == ("userspace", "rule", "kernel"), e
    assert (e["rule"]["name"], e["rule"]["line"]) == ("fast-out", 8), e["rule"]
    assert e["instance"]["state"] == "ready" and e["instance"]["heartbeat_ms"] < 5000, e
    assert e["instance"]["route_interface"] == "c0"
    assert [c["decided"] for c in e["checks"]] == [False] * len(e["checks"]) and len(e["checks"]) >= 8
    e = w.explain(f"[{w.server6}]:{PORT}", "--cgroup", w.cgroup_root + "/fast")
    assert (e["verdict"], e["rule"]["name"]) == ("userspace", "fast-out")
    e = w.explain(f"{w.server4}:{PORT}", "--cgroup", "/kernel")
    assert (e["verdict"], e["rule"]["name"]) == ("kernel", "default"), e


@test
def explain_tells_which_built_in_decided(w):
    for remote, reason in (("127.0.0.1:80", "builtin-loopback"), ("[::1]:80", "builtin-loopback"),
                           (f"{w.client4}:80", "builtin-own"), ("224.0.0.1:80", "multicast"),
                           ("[fe80::1]:80", "scoped-link-local"), ("203.0.113.1:80", "no-route")):
        e = w.explain(remote, "--cgroup", "/fast")
        assert (e["verdict"], e["reason"]) == ("kernel", reason), (remote, e)
        assert e["checks"][-1]["name"] == reason and e["checks"][-1]["decided"], e
    text = w.ctl("--cgroup-root", w.cgroup_root, "explain", "tcp", "connect", "127.0.0.1:80").stdout
    assert "KERNEL     (builtin-loopback: " in text, text


@test
def explain_agrees_with_what_connect_gets(w):
    """Both doors' answer, for processes in different cgroups."""
    for cgroup in ("/fast", "/kernel", "/fast/below"):
        pid, port = w.ask(cgroup)
        e = w.explain(f"{w.server4}:{PORT}", "--cgroup", cgroup)
        assert w.is_steered(port) == (e["verdict"] == "userspace"), (cgroup, port, e)


@test
def explain_a_process(w):
    p = w.spawn("sleep", "100", cgroup="/fast")
    wait_for("it runs", lambda: w.cgroup_root.split("/")[-1] in open(f"/proc/{p.pid}/cgroup").read())
    wait_for("exec", lambda: open(f"/proc/{p.pid}/comm").read() == "sleep\n")
    e = w.explain(f"{w.server4}:{PORT}", "--pid", p.pid)
    assert e["caller"]["comm"] == "sleep" and e["verdict"] == "userspace", e
    # the same cgroup, another network namespace
    q = w.spawn("sleep", "100", host="server", cgroup="/fast")
    wait_for("exec", lambda: open(f"/proc/{q.pid}/comm").read() == "sleep\n")
    e = w.explain(f"{w.server4}:{PORT}", "--pid", q.pid)
    assert (e["verdict"], e["reason"]) == ("kernel", "other-netns"), e
    p.kill()
    q.kill()
    assert w.ctl("explain", "tcp", "connect", "1.2.3.4:5", "--pid", "4194304", check=False).returncode == 1


@test
def explain_shows_an_edited_map_entry(w):
    """Somebody makes the server one of our own addresses with bpftool."""
    key = [0] * 10 + [255, 255] + list(socket.inet_aton(w.server4))
    where = ["map", "update", "pinned", f"{w.bpffs}/maps/dmm_local", "key", *map(str, key)]
    value = struct.pack("<II", 1, 1)
    try:
        sh("bpftool", *where, "value", *map(str, value))
        e = w.explain(f"{w.server4}:{PORT}", "--cgroup", "/fast")
        assert (e["verdict"], e["reason"]) == ("kernel", "builtin-own"), e
    finally:
        sh("bpftool", "map", "delete", "pinned", f"{w.bpffs}/maps/dmm_local", "key", *map(str, key))
    assert w.explain(f"{w.server4}:{PORT}", "--cgroup", "/fast")["verdict"] == "userspace"


@test
def rules_count_their_hits(w):
    def hits():
        return {r["name"]: r["hits"] for r in w.ctl_json("get", "rules")["items"]}
    before = hits()
    w.ask("/fast")
    w.ask("/kernel")
    after = hits()
    assert after["fast-out"] == before["fast-out"] + 1, (before, after)
    assert w.ctl_json("get", "rules")["items"][0]["builtin"]


# --- attach, run ---

@test
def attach_and_detach_by_hand(w):
    w.cgroup("/hand")
    held = w.start(hold, w.server4, cgroup="/hand")
    wait_for("it holds a socket", lambda: "ESTAB" in w.run("ss", "-Htn", "dport", f"= :{PORT}").stdout)
    out = w.ctl("attach", "--cgroup", "/hand").stdout
    assert "attached to /hand" in out and "1 existing socket stays" in out, out
    assert "already attached" in w.ctl("attach", "--cgroup", w.cgroup_root + "/hand",
                                       "--cgroup-root", w.cgroup_root).stdout
    pid, _ = w.ask("/hand")
    assert w.ctl_json("flows", "list", "pid", str(pid))["items"][0]["rule"] == "default"
    assert "detached from /hand" in w.ctl("detach", "--pid", held.pid).stdout
    pid, _ = w.ask("/hand")
    assert w.ctl_json("flows", "list", "pid", str(pid))["items"] == []
    assert "stays attached: the policy names it" in w.ctl("detach", "--cgroup", "/fast").stdout
    assert w.ctl("attach", "--cgroup", "/nosuch", check=False).returncode == 1
    held.kill()


@test
def run_is_the_command(w):
    p = w.ctl("run", "--cgroup", "/fast", "--", "sh", "-c", "cat /proc/self/cgroup; exit 42", check=False)
    assert p.returncode == 42 and p.stderr == "", p
    assert "/fast\n" in p.stdout, p.stdout
    assert w.ctl("run", "--cgroup", "/fast", "/nonexistent", check=False).returncode == 127
    assert w.ctl("run", "--cgroup", "/fast", "/etc/passwd", check=False).returncode == 126
    p = w.ctl("run", "cat", "/proc/self/cgroup")
    assert "dmm-run-" in p.stdout, p.stdout
    p = w.ctl("run", "--cgroup", "/fast/deep/er", "--", "cat", "/proc/self/cgroup")
    assert "/fast/deep/er\n" in p.stdout, p.stdout
    wait_for("it goes with its last process",
             lambda: not os.path.exists(f"{w.cgroup_root}/fast/deep/er"))
    os.rmdir(f"{w.cgroup_root}/fast/deep")  # made on the way, and left to us
    said = w.ctl("run", "--cgroup", "/fast", "--", "true", host="server").stderr
    assert "another network namespace" in said, said


# --- stacks ---

@test
def stacks_restart_and_drain(w):
    old = w.ctl_json("stacks", "list")["items"][0]["pid"]
    assert "fast#0 restarted: ready" in w.ctl("stacks", "restart", "fast").stdout
    new = w.ctl_json("stacks", "list")["items"][0]["pid"]
    assert new != old
    assert "fast#0 drains" in w.ctl("stacks", "drain", "fast#0").stdout
    e = w.explain(f"{w.server4}:{PORT}", "--cgroup", "/fast")
    assert (e["verdict"], e["reason"]) == ("kernel", "instance-not-ready"), e
    assert w.ctl("stacks", "restart", "nosuch", check=False).returncode == 1
    w.ctl("stacks", "restart", "fast")
    assert w.explain(f"{w.server4}:{PORT}", "--cgroup", "/fast")["verdict"] == "userspace"


@test
def what_changes_things_answers_in_json_too(w):
    path = os.path.join(w.dir, "again.yaml")
    with open(path, "w") as f:
        f.write(w.policy())
    os.makedirs(w.cgroup("/by-hand"), exist_ok=True)
    for words, kind, fields in (
            (("check", path), None, {"file", "policy", "rules", "stacks", "errors", "findings"}),
            (("apply", path), "PolicyApplied", {"generation", "previous_generation", "took_ms"}),
            (("attach", "--cgroup", "/by-hand"), "CgroupAttached",
             {"cgroup", "cgroup_id", "already", "existing_sockets", "existing_listeners"}),
            (("detach", "--cgroup", "/by-hand"), "CgroupDetached", {"cgroup", "still_named"}),
            (("stacks", "restart", "fast"), None, {"instance", "state", "pid"}),
            (("explain", "tcp", "connect", f"{w.server4}:80", "--cgroup", w.cgroup("/fast")), None,
             {"verdict", "rule", "reason", "checks"}),
            (("doctor", "c0"), "DoctorReport", {"items", "result", "errors"}),
            (("demo", "status", "--id", "nosuch"), "DemoStatus", {"up"})):
        doc = w.ctl_json(*words)
        assert doc.get("apiVersion") == "dmm/v1alpha1" and doc["kind"] == (kind or doc["kind"]), \
            (words, doc)
        said = keys(doc["items"][0]) if "items" in doc and not fields <= keys(doc) else keys(doc)
        assert said >= fields, (words, doc)


# --- without dmmd; last, because teardown is for good ---

@test
def reading_needs_no_dmmd(w):
    w.stop_dmmd(signal.SIGKILL)
    assert w.ctl("status", check=False).returncode == 3
    assert w.explain(f"{w.server4}:{PORT}", "--cgroup", "/fast")["verdict"] == "userspace"
    pid, port = w.ask("/fast")
    assert w.is_steered(port)
    assert w.ctl_json("flows", "list", "pid", str(pid))["items"][0]["stack"] == "fast"
    assert w.ctl_json("stats")["stacks"][0]["connects"] > 0
    assert w.ctl_json("get", "rules")["items"]


def instances(w):
    return [p for p in sh("ip", "netns", "pids", w.ns["client"]).stdout.split()
            if open(f"/proc/{p}/comm").read().startswith("dmm-stack")]


def nothing_is_left(w):
    assert glob.glob(w.bpffs + "/*/*") == [], glob.glob(w.bpffs + "/*/*")
    assert "xdp" not in w.run("ip", "-d", "link", "show", "c0").stdout
    assert "bpf" not in w.run("tc", "filter", "show", "dev", "lo", "egress").stdout
    assert "bpf" not in w.run("tc", "filter", "show", "dev", "lo", "ingress").stdout
    assert w.run("cat", "/proc/sys/net/ipv4/ip_local_reserved_ports").stdout.strip() == ""
    wait_for("the instances are gone", lambda: not instances(w))
    for cgroup in (w.cgroup_root, w.cgroup_root + "/fast"):
        assert sh("bpftool", "cgroup", "show", cgroup).stdout.splitlines()[1:] == []


@test
def teardown_without_dmmd(w):
    assert w.daemon.poll() is not None
    p = w.ctl("teardown")
    assert "removed " in p.stdout and "stopped 1 instance\n" in p.stdout, p.stdout
    nothing_is_left(w)
    _, port = w.ask("/fast")
    assert not w.is_steered(port)
    again = w.ctl_json("teardown")
    assert (again["links"], again["maps"], again["instances"]) == (0, 0, 0), again


def teardown_of(w, *places):
    """As somebody who names only one of the places."""
    return w.run(os.path.join(OUT, "dmmctl"), *places, "teardown")


@test
def teardown_of_another_directory_leaves_dmmd_alone(w):
    if w.daemon.poll() is not None:
        w.up()
    pid = w.instance_pid()
    p = teardown_of(w, "--run-dir", f"{w.dir}/run", "--bpffs", w.bpffs + "-other")
    assert "removed 0 links, 0 maps; stopped 0 instances\n" in p.stdout, p
    assert "left alone" in p.stderr and f"{w.dir}/run" in p.stderr, p
    assert w.daemon.poll() is None and w.instance_pid() == pid
    assert w.is_steered(w.ask("/fast")[1])


@test
def teardown_of_another_directory_leaves_the_usual_instances_alone(w):
    """No dmmd is there to tell whose instances the usual run-dir has."""
    if w.daemon.poll() is None:
        w.stop_dmmd(signal.SIGKILL)
    p = w.run("unshare", "--mount", "sh", "-c", "mount -t tmpfs none /run && mkdir /run/dmm && "
              f"mount --bind {w.dir}/run /run/dmm && exec {os.path.join(OUT, 'dmmctl')} "
              f"--run-dir '' teardown --bpffs {w.bpffs}-other")
    assert "stopped 0 instances\n" in p.stdout and "left alone" in p.stderr, p
    assert w.is_steered(w.ask("/fast")[1])


@test
def teardown_finds_the_dmmd_of_a_directory_by_itself(w):
    """The run-dir is not named: dmmd is known by what it holds, its instances by the maps."""
    if w.daemon.poll() is not None:
        w.dmmd()
    p = teardown_of(w, "--bpffs", w.bpffs)
    assert "stopped 1 instance and dmmd\n" in p.stdout, p
    w.daemon.wait(20)
    nothing_is_left(w)


@test
def teardown_stops_a_running_dmmd(w):
    w.up()
    _, port = w.ask("/fast")
    assert w.is_steered(port)
    t = w.ctl_json("teardown")
    assert t["daemon_stopped"] and t["links"] > 5 and t["maps"] > 10 and t["instances"] == 1, t
    w.daemon.wait(20)
    nothing_is_left(w)


@test
def teardown_ends_a_dmmd_that_hangs(w):
    w.up()
    w.daemon.send_signal(signal.SIGSTOP)
    t = w.ctl_json("teardown")
    assert t["daemon_stopped"], t
    w.daemon.wait(20)
    nothing_is_left(w)


if __name__ == "__main__":
    main(CtlWorld)
