#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input changes nothing: each case is tried against a dmmd that steers; it must fail with its
documented exit code and words that name the thing and the way out, and pins, generation, links,
interfaces, instances and the flow that runs all the while must be the same afterwards."""

import concurrent.futures
import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import plugins
from dmmtest import OUT, ROOT, World, amount, main, sh, test, wait_for

PORT = 8701
NOBODY = 65534
DMMD, DMMCTL = os.path.join(OUT, "dmmd"), os.path.join(OUT, "dmmctl")


class BadWorld(World):
    def __init__(self):
        super().__init__()
        self.second_link()
        self.serve_echo(PORT)
        os.makedirs(f"{self.dir}/stacks")
        sh("cp", f"{OUT}/stacks/lwip.so", f"{self.dir}/stacks/lwip.so")
        self.start_dmmd()
        self.apply(self.policy())

    def start_dmmd(self, policy=False):
        """@policy: a stored one is there, wait until it is live."""
        self.dmmd("--stacks-dir", f"{self.dir}/stacks")
        if policy:
            wait_for("the stored policy is live", lambda: self.ctl_json("status")["policy"])

    def second(self, stack, mode=""):
        """The usual policy with a second stack, whose place is line 8 of the file."""
        return f"""apiVersion: dmm/v1alpha1
kind: Policy
metadata: {{name: bad}}
spec:
  interfaces: [{{name: c0}}, {{name: c1{mode}}}, {{name: c9}}, {{name: lo}}]
  stacks:
    - {{name: fast, plugin: lwip, interface: c0, localPorts: {self.ports}}}
    - {{name: second, {stack}}}
  rules:
    - name: fast-out
      match: {{cgroup: /fast, proto: tcp, direction: connect}}
      action: {{stack: fast, onUnavailable: kernel}}
    - name: second-out
      match: {{cgroup: /second, proto: tcp, direction: connect}}
      action: {{stack: second}}
  default: {{stack: kernel}}
"""

    def state(self):
        """All that an apply could have touched."""
        pins = {}
        for folder in ("maps", "progs", "links"):
            for name in sorted(os.listdir(f"{self.bpffs}/{folder}")):
                pins[f"{folder}/{name}"] = os.stat(f"{self.bpffs}/{folder}/{name}").st_ino
        links = {i["ifname"]: (i.get("xdp"), i["mtu"], i["flags"]) for i in json.loads(
            self.run("ip", "-j", "link", "show").stdout)}
        status = self.ctl_json("status")
        with open(f"{self.dir}/state/policy.yaml") as f:
            policy = f.read()
        live = self.ctl_json("explain", "tcp", "connect", self.server4, PORT, "--cgroup",
                             self.cgroup("/fast"))  # from the maps
        return {
            "pins": pins,
            "live": (live["generation"], live["rule"], live["verdict"]),
            "links": links,
            "lo filter": self.run("tc", "filter", "show", "dev", "lo", "egress").stdout,
            "reserved ports": self.run("sysctl", "-n", "net.ipv4.ip_local_reserved_ports").stdout,
            "policy": status["policy"],
            "stored policy": policy,
            "cgroups": status["cgroups"],
            "stacks": [(s["name"], s["pid"], s["incarnation"], s["state"], s["restarts"])
                       for s in status["stacks"]],
            "processes": sorted(pid for pid in os.listdir("/proc") if pid.isdigit() and
                                is_child(pid, self.daemon.pid)),
        }

    @contextlib.contextmanager
    def unchanged(self):
        before = self.state()
        yield
        after = self.state()
        for key, was in before.items():
            assert after[key] == was, f"{key} changed:\nbefore {was}\nafter  {after[key]}"
        assert self.is_steered(self.port()), "steering does not work any more"

    def refused(self, text, *words, code=5):
        """apply() of this text fails with that exit code and says all the words; what it said."""
        with self.unchanged():
            r = self.apply(text, check=False)
        return says(r, code, words)


def says(r, code, words):
    said = r.stderr
    assert r.returncode == code, f"exit {r.returncode}, not {code}:\n{r.stdout}{said}"
    for word in words:
        assert word in said, f"not said: {word!r}\n{said}"
    return said


def is_child(pid, parent):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as f:
        return int(f.read().rpartition(")")[2].split()[1]) == parent
    return False


# --- the policy ---

@test
def all_errors_are_told_with_their_places(w):
    said = w.refused("""apiVersion: dmm/v1alpha1
kind: Policy
metadata: {name: bad}
spec:
  interfaces: [{name: c0}]
  stacks: [{name: fast, plugin: lwip, interface: c0}]
  rules:
    - name: one
      match: {protocol: tcp}
      action: {stack: fsat}
    - name: one
      match: {remote: {cidr: [10.0.0.0/33], ports: [9010-9000]}}
      action: {stack: fast, stack: kernel}
  default: {stack: kernel}
""", "policy.yaml:9:15: error[E002]", "proto", "policy.yaml:10:23: error[E012]", "'fast'",
                     "policy.yaml:11:", "error[E011]", "policy.yaml:12:", "error[E020]",
                     "error[E021]", "policy.yaml:13:", "error[E003]", "^~~")
    assert said.count("error[") == 6, said


@test
def json_has_every_finding_of_the_host_with_its_place(w):
    w.apply(w.policy())
    path = f"{w.dir}/host.yaml"
    with open(path, "w") as f:
        f.write(with_plugin(w, "nonesuch"))
    r = w.ctl("-j", "check", path, check=False)
    item, = json.loads(r.stdout)["items"]
    codes = [(f["code"], f["severity"], f["line"]) for f in item["findings"]]
    assert r.returncode == 5 and item["errors"] >= 1, (r.returncode, item)
    assert ("E054", "error", 8) in codes, codes
    r = w.ctl("-j", "apply", path, check=False)
    assert r.returncode == 5, r.returncode
    assert [f for f in json.loads(r.stderr)["error"]["findings"] if f["code"] == "E054"], r.stderr
    r = w.ctl("-j", "apply", f"{w.dir}/policy.yaml")
    assert isinstance(json.loads(r.stdout)["findings"], list), r.stdout


@test
def files_that_are_no_policy(w):
    for text in ("", "\n", "# nothing\n", "[]", "hello", "a: [b\n", "{}", "\x00\x01\x02",
                 "kind: Policy\n", "apiVersion: dmm/v2\nkind: Policy\n", "- " * 200, "[" * 1000,
                 "a: &x 1\nb: *x\n", "--- {}\n--- {}\n", "!!python/object:os.system ls\n"):
        with open(f"{w.dir}/policy.yaml", "w") as f:
            f.write(text)
        with w.unchanged():
            r = w.ctl("apply", f"{w.dir}/policy.yaml", check=False)
        said = says(r, 5, ())
        assert re.search(r"policy\.yaml:(\d+:\d+: )?", said) and "error[E" in said, (text, said)


@test
def files_that_cannot_be_read(w):
    with w.unchanged():
        says(w.ctl("apply", f"{w.dir}/nonesuch.yaml", check=False), 1, ("nonesuch.yaml", "ENOENT"))
        says(w.ctl("apply", w.dir, check=False), 1, (w.dir, "EISDIR"))
        says(w.ctl("apply", check=False), 2, ())


@test
def check_changes_nothing_either(w):
    path = f"{w.dir}/good.yaml"
    for text, code in ((w.policy(unavailable="reject"), 0), (w.policy(unavailable="never"), 5)):
        with open(path, "w") as f:
            f.write(text)
        with w.unchanged():
            says(w.ctl("check", path, check=False), code, ())


# --- what the host has not ---

@test
def interface_that_is_missing(w):
    said = w.refused(w.second("plugin: lwip, interface: c9, localPorts: 12000-12999"), "c9",
                     "ip link")
    assert re.search(r"policy\.yaml:5:\d+: error\[E\d+\]: no interface c9", said), said


@test
def loopback_interface(w):
    w.refused(w.second("plugin: lwip, interface: lo, localPorts: 12000-12999"), "policy.yaml:5:",
              "lo is a loopback interface")


@test
def interface_without_ethernet(w):
    w.run("ip", "tuntap", "add", "c9", "mode", "tun")
    try:
        w.refused(w.second("plugin: lwip, interface: c9, localPorts: 12000-12999"),
                  "policy.yaml:5:", "c9", "Ethernet")
    finally:
        w.run("ip", "link", "del", "c9")


XDP = """
#include <linux/bpf.h>
__attribute__((section("xdp"), used)) int dmm_test_holder(struct xdp_md *ctx) { return XDP_PASS; }
char free_text[] __attribute__((section("license"), used)) = "GPL";
"""


@test
def xdp_hook_that_somebody_holds(w):
    src, obj = f"{w.dir}/holder.bpf.c", f"{w.dir}/holder.o"
    with open(src, "w") as f:
        f.write(XDP)
    sh("clang", "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-c", src, "-o", obj,
       "-I/usr/include/" + sh("gcc", "-print-multiarch").stdout.strip())
    pin = f"{w.bpffs}-holder"
    sh("bpftool", "prog", "load", obj, pin, "type", "xdp")
    try:
        number = json.loads(sh("bpftool", "-j", "prog", "show", "pinned", pin).stdout)["id"]
        for how in ("xdpdrv", "xdpgeneric"):
            w.run("ip", "link", "set", "dev", "c1", how, "pinned", pin)
            for mode in ("", ", mode: native", ", mode: generic"):
                w.refused(w.second("plugin: lwip, interface: c1, localPorts: 12000-12999", mode),
                          "c1", "dmm_test_holder", f"id {number}", code=1)
            w.run("ip", "link", "set", "dev", "c1", how, "off")
    finally:
        os.unlink(pin)


@test
def mtu_too_large_for_native_xdp(w):
    """On a veth it is the peer's MTU that native XDP cannot take."""
    stack = "plugin: lwip, interface: c1, localPorts: 12000-12999"
    w.run("ip", "link", "set", "dev", "s1", "mtu", "9000", host="server")
    try:
        w.refused(w.second(stack, ", mode: native"), "c1", "MTU", code=1)
        w.run("ip", "link", "set", "dev", "c1", "mtu", "9000")
        w.refused(w.second(stack), "c1", "MTU 9000", "mtu 1500")
        w.run("ip", "link", "set", "dev", "c1", "mtu", "1500")
        w.apply(w.second(stack))  # auto: falls back, and says so
        w.ready("second")
        row = w.stack("second")
        assert row["got"].startswith("generic") and row["asked"].startswith("auto"), row
        assert "generic" in w.log() and "MTU" in w.log(), w.log()[-1000:]
    finally:
        w.apply(w.policy())
        w.run("ip", "link", "set", "dev", "c1", "mtu", "1500")
        w.run("ip", "link", "set", "dev", "s1", "mtu", "1500", host="server")
        wait_for("the second stack is gone", lambda: len(
            w.ctl_json("stacks", "list")["items"]) == 1)


@test
def interface_with_too_many_queues(w):
    w.run("ip", "link", "add", "c65", "numrxqueues", 65, "numtxqueues", 65, "type", "veth", "peer",
          "name", "s65")
    for dev in ("c65", "s65"):
        w.run("ip", "link", "set", dev, "up")
    try:
        text = w.second("plugin: lwip, interface: c65, localPorts: 12000-12999")
        w.refused(text.replace("{name: c9}", "{name: c65}"), "second", "c65 has 65 queues",
                  "ethtool -L c65 combined 64", code=1)
    finally:
        w.run("ip", "link", "del", "c65")


@test
def no_free_port_range(w):
    """Ports that others reserved or bound are not taken from them."""
    reserved = w.run("sysctl", "-n", "net.ipv4.ip_local_reserved_ports").stdout.strip()
    w.run("sysctl", "-qw", f"net.ipv4.ip_local_reserved_ports={reserved},12500")
    try:
        w.refused(w.second("plugin: lwip, interface: c1, localPorts: 12000-12999"),
                  "policy.yaml:8:", "port 12500", "12000-12999", "ss -tan")
        w.refused(w.second("plugin: lwip, interface: c1"), "policy.yaml:8:", "20000-31999",
                  "localPorts", "stack 'fast' has them")
        renamed = w.policy().replace("name: fast,", "name: quick,").replace("stack: fast",
                                                                            "stack: quick")
        w.refused(renamed, "port 20000", "is stack 'fast''s", "apply once without that stack")
    finally:
        w.run("sysctl", "-qw", f"net.ipv4.ip_local_reserved_ports={reserved}")
    with open(f"{w.dir}/bound", "w"):
        child = w.start(hold_port, 12345, f"{w.dir}/bound")
        wait_for("the port is bound", lambda: not os.path.exists(f"{w.dir}/bound"))
        try:
            w.refused(w.second("plugin: lwip, interface: c1, localPorts: 12000-12999"),
                      "port 12345")
        finally:
            child.kill()


def hold_port(port, path):
    s = socket.socket()
    s.bind(("127.0.0.1", port))
    s.listen()
    os.unlink(path)
    signal.pause()


@test
def cgroups_that_are_missing_are_a_warning(w):
    r = w.apply(w.policy(rules="""
    - name: missing
      match: {cgroup: /not/there, proto: tcp, direction: connect}
      action: {stack: fast}
    - name: fast-out
      match: {cgroup: /fast, proto: tcp, direction: connect}
      action: {stack: fast}"""))
    says(r, 0, ("policy.yaml:9:23: warning[W107]", "/not/there"))
    assert w.is_steered(w.port())
    with w.unchanged():
        r = w.ctl("apply", "--strict", f"{w.dir}/policy.yaml", check=False)
        says(r, 5, ("warning[W107]", "1 warning, which are errors here; nothing was changed"))
    w.apply(w.policy())
    w.ctl("apply", "--strict", f"{w.dir}/policy.yaml")
    for path in ("/fast/../kernel", "relative", "/../.."):
        w.refused(w.policy(rules=f"""
    - name: odd
      match: {{cgroup: {path}, proto: tcp, direction: connect}}
      action: {{stack: fast}}"""), "policy.yaml:9:", "E018")
    with w.unchanged():
        for path, code in (("/not/there", 1), ("/fast/../../..", 2), ("/proc", 1)):
            says(w.ctl("attach", "--cgroup", path, check=False), code, (path,))


# --- plug-ins ---

def with_plugin(w, name):
    return w.second(f"plugin: {name}, interface: c1, localPorts: 12000-12999")


@test
def what_is_no_text_is_told_as_such(w):
    for name in ("encoding", "encoding-utf16", "encoding-nul"):
        p = w.ctl("apply", f"{ROOT}/policy/wrong/{name}.yaml", check=False, errors="replace")
        assert p.returncode == 5 and "E035" in p.stderr and "nothing was changed" in p.stderr, (name, p)


@test
def plugins_that_cannot_be(w):
    w.refused(with_plugin(w, "nonesuch"), "policy.yaml:8:", "nonesuch.so", "second")
    with open(f"{w.dir}/stacks/text.so", "w") as f:
        f.write("not a shared object\n")
    plugins.build(f"{w.dir}/stacks/old.so", abi="DMM_STACK_ABI + 7")
    plugins.build(f"{w.dir}/stacks/less.so", peek="NULL")
    plugins.build(f"{w.dir}/stacks/nameless.so", symbol="another_symbol")
    for name, words in (("text", ("text.so",)), ("old", ("old.so", "ABI 10")),
                        ("less", ("less.so", "recv_peek")),
                        ("nameless", ("nameless.so", "dmm_stack_plugin"))):
        w.refused(with_plugin(w, name), f"stack 'second' (plug-in '{name}') did not start: ",
                  *words, code=1)


CREATE = "; its last words: in create of plug-in"
LOAD = "; its last words: loading plug-in"


@test
def plugins_that_do_not_start(w):
    """However they fail: it is said which, how, and where it was; and an end of 0 is none either."""
    for name, differs, how in (
            ("unwilling", {"create": "return -12;"}, "exited with 1; its last words: plug-in 'bad' "
             "refused to start: Cannot allocate memory"),
            ("positive", {"create": "*r = (void *)ld; return 7;"}, "exited with 1; its last words: "
             "plug-in 'bad' returned 7 and a stack from create"),
            ("empty", {"create": "return 0;"}, "exited with 1; its last words: plug-in 'bad' "
             "returned 0 and no stack from create"),
            ("aborting", {"create": "abort();"}, "killed by SIGABRT" + CREATE),
            ("wild", {"create": "*(volatile int *)8 = 1; return 0;"}, "killed by SIGSEGV" + CREATE),
            ("deep", {"create": "volatile char b[9000]; b[0] = cr(p, h, r); return b[0];"},
             "killed by SIGSEGV" + CREATE),
            ("exiting", {"create": "exit(0);"}, "exited with 0" + CREATE),
            ("aborting-early", {"load": "abort();"}, "killed by SIGABRT" + LOAD)):
        plugins.build(f"{w.dir}/stacks/{name}.so", **differs)
        w.refused(with_plugin(w, name), not_started(name, how), code=1)


def not_started(name, how):
    return f"policy.yaml:8:14: error[E060]: stack 'second' (plug-in '{name}') did not start: {how}"


@test
def plugins_that_hang_hold_nobody_up(w):
    """They are ended after their time; until then dmmd answers and what is steered goes on."""
    for name, place, where in (("hanging", "create", CREATE), ("hanging-early", "load", LOAD)):
        plugins.build(f"{w.dir}/stacks/{name}.so", **{place: "for (;;);"})
        with concurrent.futures.ThreadPoolExecutor() as pool:
            apply = pool.submit(w.refused, with_plugin(w, name), not_started(
                name, "not ready within 10 s: killed by SIGKILL" + where), code=1)
            pid = wait_for("it is starting", lambda: apply.done() or starting(w))
            w.check_policy()
            seen = [starting(w) for _ in range(amount(20))]
            apply.result()
            assert set(seen) == {pid}, (pid, seen)


def starting(w):
    """The pid of the second stack's instance while it is waited for."""
    for stack in w.ctl_json("status")["stacks"]:
        if stack["name"] == "second" and stack["state"] == "starting":
            return stack["pid"]
    return None


# --- dmmd's own arguments ---

def start(w, *args, user=None, drop=None, host="server", before=(), give_up=None):
    """A second dmmd on directories of its own; must end by itself, or within @give_up seconds: None
    where it did not."""
    dirs = {"--run-dir": f"{w.dir}/run2", "--state-dir": f"{w.dir}/state2",
            "--bpffs": w.bpffs + "-2", "--cgroup-root": w.cgroup_root}
    given = dict(zip(args[::2], args[1::2]))
    if user:
        before = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    if drop:
        before = ["setpriv", "--bounding-set", drop]
    try:
        return w.run(*before, DMMD, *(x for kv in {**dirs, **given}.items() for x in kv),
                     check=False, timeout=give_up or 30, host=host)
    except subprocess.TimeoutExpired:
        if not give_up:
            raise
        w.run(DMMCTL, "--bpffs", w.bpffs + "-2", "teardown", host=host)
        return None
    finally:
        assert not os.path.exists(w.bpffs + "-2/links") or \
            not os.listdir(w.bpffs + "-2/links"), "something stayed attached"
        sh("rm", "-rf", f"{w.dir}/run2", f"{w.dir}/state2", w.bpffs + "-2")


@test
def unknown_options(w):
    with w.unchanged():
        for program in (DMMD, DMMCTL):
            for args in (["--nonesuch"], ["-Z"]):
                says(w.run(program, *args, check=False), 2, (args[0],))
        says(w.run(DMMD, "stray", check=False), 2, ("stray",))
        says(w.run(DMMD, "--bpffs", check=False), 2, ("--bpffs",))
        says(w.run(DMMD, "--dead-after", "soon", check=False), 2, ("soon",))
        says(w.ctl("nonesuch", check=False), 2, ("nonesuch",))
        says(w.ctl("stacks", "nonesuch", check=False), 2, ("nonesuch",))
        says(w.ctl("status", "too", "many", check=False), 2, ())
        says(w.ctl("-o", "xml", "status", check=False), 2, ("json",))
        says(w.ctl("stacks", "restart", "nonesuch", check=False), 1, ("nonesuch",))


@test
def pins_where_there_is_no_bpffs(w):
    with w.unchanged():
        says(start(w, "--bpffs", f"{w.dir}/pins"), 1, (w.dir, "BPF file system"))
        assert not os.path.exists(f"{w.dir}/pins")
        os.symlink(w.bpffs, f"{w.dir}/link")
        says(start(w, "--bpffs", f"{w.dir}/link"), 1, (f"{w.dir}",))
        os.mkdir(w.bpffs + "-2")
        os.chmod(w.bpffs + "-2", 0o755)
        says(start(w), 1, (w.bpffs + "-2", "0700"))
        os.mkdir(w.bpffs + "-2", 0o700)
        os.chown(w.bpffs + "-2", NOBODY, NOBODY)
        says(start(w), 1, (w.bpffs + "-2", "root"))


@test
def places_that_are_not_there(w):
    with w.unchanged():
        says(start(w, "--cgroup-root", f"{w.cgroup_root}/nonesuch"), 1, ("nonesuch",))
        says(start(w, "--cgroup-root", "/tmp"), 1, ("/tmp", "cgroup2"))
        says(start(w, "--netns", "dmm-nonesuch"), 1, ("dmm-nonesuch",))
        says(start(w, "--run-dir", "/proc/nonesuch"), 1, ("/proc/nonesuch",))
        says(start(w, "--state-dir", "/proc/nonesuch"), 1, ("/proc/nonesuch",))
        says(start(w, "--user", "dmm-nonesuch"), 1,
             ("no user 'dmm-nonesuch' for the instances\n", "hint: useradd --system dmm-nonesuch\n"))
        says(start(w, "--user", "root"), 1,
             ("instances cannot run as 'root'", "hint: useradd --system dmm\n"))


def left_attached(w):
    """What a failed start() left on the server host."""
    ports = w.run("sysctl", "-n", "net.ipv4.ip_local_reserved_ports", host="server").stdout.strip()
    lo = w.run("tc", "qdisc", "show", "dev", "lo", host="server").stdout
    return [x for x in (ports, lo) if x and "noqueue" not in x]


@test
def start_that_fails_on_its_way_leaves_nothing(w):
    """start() itself looks for links."""
    with w.unchanged():
        os.makedirs(f"{w.dir}/state2/state.json")
        says(start(w), 1, ("state.json",))
        assert not left_attached(w), left_attached(w)
        said = ""
        for n in range(16, 200, 3):  # wherever descriptors run out
            r = start(w, before=("prlimit", f"--nofile={n}"), give_up=3)
            if r is None:
                break
            assert r.returncode == 1, r
            assert not left_attached(w), (n, left_attached(w))
            said += r.stderr
        assert r is None, "no number of descriptors is enough"
        for words in ("pinned maps below", "not started (steering)", "not started (events)"):
            assert words in said, (words, said)


@test
def without_privilege(w):
    for path in (DMMD, DMMCTL):
        if not os.stat(path).st_mode & stat.S_IXOTH:
            raise AssertionError(f"{path} is not for everyone")
    with w.unchanged():
        says(start(w, user=NOBODY), 1, ("root",))
        says(start(w, drop="-all"), 1, ("CAP_",))
        as_nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
                     DMMCTL, "--run-dir", f"{w.dir}/run", "--bpffs", w.bpffs)
        for verb in (("apply", f"{w.dir}/policy.yaml"), ("status",), ("teardown",),
                     ("stacks", "restart", "fast")):
            r = w.run(*as_nobody, *verb, check=False)
            assert r.returncode == 4, (verb, r.returncode, r.stderr)
            assert "EACCES" in r.stderr or "EPERM" in r.stderr, r.stderr


@test
def no_daemon_is_a_code_of_its_own(w):
    r = w.run(DMMCTL, "--run-dir", f"{w.dir}/nonesuch", "apply", f"{w.dir}/policy.yaml",
              check=False)
    says(r, 3, ("dmmd",))


@test
def start_with_a_bad_policy(w):
    """--policy at start: it says why and ends, and leaves nothing."""
    bad = f"{w.dir}/bad.yaml"
    with open(bad, "w") as f:
        f.write(w.policy().replace("stack: fast,", "stack: fsat,"))
    with w.unchanged():
        said = says(start(w, "--policy", bad), 5, ("bad.yaml:10:", "error[E012]", "'fast'"))
        assert "nothing was changed" in said, said
        assert "clsact" not in w.run("tc", "qdisc", "show", "dev", "lo", host="server").stdout


@test
def restart_with_a_policy_that_is_no_good(w):
    """What was live goes on, and status says which it is and why."""
    bad = f"{w.dir}/worse.yaml"
    with open(bad, "w") as f:
        f.write(w.policy().replace("stack: fast,", "stack: fsat,"))
    for path, why in ((f"{w.dir}/missing.yaml", "No such file"), (bad, "1 error")):
        w.stop()
        w.restart("--stacks-dir", f"{w.dir}/stacks", "--policy", path)
        w.ready()
        status = w.ctl_json("status")
        assert status["policy"]["name"] == "test" and status["policy"]["rules"] == 1, status
        assert status["health"] == "degraded", status
        assert [p for p in status["problems"] if path in p and why in p], status["problems"]
        assert w.is_steered(w.port()) and "going on with the policy before" in w.log()
        w.apply(w.policy())
        assert w.ctl_json("status")["health"] == "ok"
    # nor is what was stored of any use: the pins say what is live
    w.stop()
    with open(f"{w.dir}/state/policy.yaml", "w") as f:
        f.write("{ broken")
    w.restart("--stacks-dir", f"{w.dir}/stacks", "--policy", bad)
    policy = w.ctl_json("status")["policy"]
    assert (policy["name"], policy["rules"], policy["stacks"]) == ("test", 1, 1), policy
    assert w.is_steered(w.port())
    w.apply(w.policy())
    w.stop()
    w.start_dmmd(policy=True)


@test
def namespace_that_another_dmmd_serves(w):
    with w.unchanged():
        says(start(w, host="client"), 1, ("another dmmd", "network namespace"))


# --- what an earlier version left ---

@test
def pins_of_another_layout(w):
    """Refused by name, touched by nobody; teardown still removes them."""
    w.daemon.terminate()
    w.daemon.wait(20)
    config = f"{w.bpffs}/maps/dmm_config"
    value = json.loads(sh("bpftool", "-j", "map", "lookup", "pinned", config, "key", "0", "0", "0",
                          "0").stdout)["value"]
    value[0] = "0x63"
    sh("bpftool", "map", "update", "pinned", config, "key", "0", "0", "0", "0", "value", "hex",
       *(v[2:] for v in value))

    def pins():
        return {f"{d}/{n}": os.stat(f"{d}/{n}").st_ino for d, _, names in os.walk(w.bpffs)
                for n in names}
    before = pins()
    r = w.run(DMMD, "--run-dir", f"{w.dir}/run", "--state-dir", f"{w.dir}/state", "--bpffs",
              w.bpffs, "--cgroup-root", w.cgroup_root, check=False, timeout=30)
    says(r, 1, ("layout 99", "teardown"))
    assert pins() == before
    assert w.is_steered(w.port()), "what the old version steers was cut"
    said = w.ctl("teardown").stdout
    assert "stopped 1 instance" in said, said
    assert not os.path.exists(w.bpffs) or not pins()
    assert not w.is_steered(w.port())
    w.start_dmmd(policy=True)
    w.apply(w.policy())
    assert w.is_steered(w.port())


@test
def state_that_is_not_ours(w):
    """A broken state file is set aside; a broken or missing stored policy does not keep dmmd from
    starting, nor change what is steered."""
    for name, text in (("state.json", "{ broken \x00"), ("policy.yaml", "{ broken \x00"),
                       ("policy.yaml", None)):
        w.daemon.terminate()
        w.daemon.wait(20)
        path = f"{w.dir}/state/{name}"
        os.unlink(path)
        if text:
            with open(path, "w") as f:
                f.write(text)
        w.start_dmmd(policy=name == "state.json")
        w.ready()
        assert w.is_steered(w.port()), (name, text)
        assert name in w.log(), name
        w.apply(w.policy())
        w.ready()
        assert w.is_steered(w.port())


if __name__ == "__main__":
    main(BadWorld)
