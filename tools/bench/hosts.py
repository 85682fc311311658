# SPDX-License-Identifier: Apache-2.0
"""The hosts of the bench: the net tests' world with two more links, and one measurement on them.

  c0 - s0  the stack's interface: checksum and segmentation offloads off, XDP by dmmd
  c1 - s1  plain veth, all offloads on
  c2 - s2  plain veth, offloads off as on c0
  c3 - s3  as c2, with an XDP program on c3 that does nothing
  c4 - s4  as c2, for a stack that runs alone, as a client on c4 or as a server on s4
  lo       of the client host, where DMM has its filter, and of the server host, where it has none
"""

import collections
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(HERE, "../../tests/lib"))
from dmmtest import OUT, World, sh, wait_for  # noqa: E402

ALL_OFF = [w for f in ("tx", "rx", "sg", "tso", "gso", "gro") for w in (f, "off")]
CRR_SLOTS = 8
PORT, ALONE_PORT = 7001, 20001  # the first of a server; of a stack's as in alone_stack.h
ECHO, SWALLOW, SEND = 0, 8, 9  # ports from that on, as in services.h

# link: the number of a veth, or the host whose lo is meant. cgroup: "plain" is outside of DMM, "kernel" is
# attached and gets the kernel verdict. poll: of the instance that it is steered through; or "alone", "serves":
# the stack is in the client's or the server's own process. spin: that process, otherwise the kernel's server,
# spins. base: the row that a row is compared with. listens: the server is steered, on the host that otherwise
# is the client's, with its core. plugin: of the stack.
Row = collections.namedtuple("Row", "link cgroup poll spin family base what listens plugin",
                             defaults=[False, None])
STEERED = ("adaptive", "busy")
BASELINE, BASELINE6 = "kernel_alloff", "kernel_alloff6"
PLUGINS = {"lwip": "lwIP", "native": "the native stack"}


def stack_rows(plugin, name):
    """The rows of a plug-in over IPv4, and over IPv6."""
    def row(link, cgroup, poll, what, spin=False, base=BASELINE, listens=False):
        return Row(link, cgroup, poll, spin, 6 if base == BASELINE6 else 4, base, what, listens, plugin)
    v6 = {"base": BASELINE6}
    return {
        f"{plugin}_adaptive": row(0, "fast", "adaptive", f"the client is steered through {name} (poll: "
                                  "adaptive) to the kernel server"),
        f"{plugin}_busy": row(0, "fast", "busy",
                              "the same, poll: busy: it spins on a CPU that somebody else needs"),
        f"{plugin}_alone": row(4, "plain", "alone", f"{name} on AF_XDP in the client's own loop, without "
                               "doors and relay"),
        f"{plugin}_alone_spin": row(4, "plain", "alone", "the same, it spins instead of sleeping", True),
        f"{plugin}_serve": row(4, "plain", "serves", f"{name} on AF_XDP in the server's own loop, the "
                               "client in the kernel"),
        f"{plugin}_serve_spin": row(4, "plain", "serves", "the same, it spins instead of sleeping", True),
        f"{plugin}_listen": row(0, "fast", "adaptive", "the server is steered: the kernel client comes to "
                                f"it through {name}", listens=True),
        f"{plugin}_listen_busy": row(0, "fast", "busy", "the same, poll: busy", listens=True),
    }, {
        f"{plugin}_adaptive6": row(0, "fast", "adaptive", f"steered through {name} over IPv6", **v6),
        f"{plugin}_busy6": row(0, "fast", "busy", "the same, poll: busy", **v6),
        f"{plugin}_listen6": row(0, "fast", "adaptive", "the server is steered, over IPv6", listens=True,
                                 **v6),
        f"{plugin}_alone6": row(4, "plain", "alone", f"{name} in the client's own loop over IPv6", **v6),
        f"{plugin}_serve6": row(4, "plain", "serves", f"{name} in the server's own loop over IPv6", **v6),
    }


STACK_ROWS = [stack_rows(*plugin) for plugin in PLUGINS.items()]
ROWS = {
    "kernel_on": Row(1, "plain", None, False, 4, BASELINE,
                     "the kernel on a plain veth, all offloads on, no XDP"),
    "kernel_onspin": Row(1, "plain", None, True, 4, BASELINE,
                         "the same, the server spins in epoll_wait(0) instead of sleeping"),
    BASELINE: Row(2, "plain", None, False, 4, BASELINE,
                  "the kernel without checksum, scatter-gather and segmentation offloads, as AF_XDP "
                  "has none: the baseline"),
    "kernel_xdp": Row(3, "plain", None, False, 4, BASELINE,
                      "the same with an XDP program that does nothing"),
    "kernel_beside": Row(0, "kernel", None, False, 4, BASELINE,
                         "kernel verdict by DMM on the stack's own interface, also without "
                         "offloads: what its XDP and hooks cost the others"),
    **{name: row for v4, _ in STACK_ROWS for name, row in v4.items()},
    "kernel_on6": Row(1, "plain", None, False, 6, BASELINE6,
                      "over IPv6: the kernel on a plain veth, all offloads on, no XDP"),
    BASELINE6: Row(2, "plain", None, False, 6, BASELINE6, "the baseline over IPv6"),
    **{name: row for _, v6 in STACK_ROWS for name, row in v6.items()},
    "lo": Row("server", "plain", None, False, 4, "lo", "loopback on a host without DMM"),
    "lo_beside": Row("client", "plain", None, False, 4, "lo",
                     "loopback of an application outside of DMM, on a host with it"),
}


def stack_pairs(plugin, name):
    return ((f"{plugin}_adaptive", f"{plugin}_alone", f"{name} behind the relay / alone"),
            (f"{plugin}_busy", f"{plugin}_alone_spin", f"{name} behind the relay / alone, both spin"),
            (f"{plugin}_listen", f"{plugin}_serve", f"{name} behind the relay / alone, as the server"),
            (f"{plugin}_listen_busy", f"{plugin}_serve_spin", "the same, both spin"),
            (f"{plugin}_serve_spin", "kernel_onspin",
             f"{name} as the server, alone / the kernel, both spin"))


# Row, what it is compared with, and why.
PAIRS = (("kernel_beside", "kernel_xdp", "kernel flows on a stack's interface / an empty XDP program"),
         ("lo_beside", "lo", "loopback beside DMM / without DMM"),
         *(pair for plugin in PLUGINS.items() for pair in stack_pairs(*plugin)),
         *((f"native_{row}", f"lwip_{row}", f"the native stack / lwIP, {what}") for row, what in (
             ("adaptive", "behind the relay"), ("listen", "behind the relay, as the server"),
             ("alone", "alone"), ("serve", "alone, as the server"))))

Point = collections.namedtuple("Point", "mode connections port")
POINTS = {
    "rr1": Point("rr", 1, ECHO),
    "rr32": Point("rr", 32, ECHO),
    "rr256": Point("rr", 256, ECHO),
    "send": Point("send", 1, SWALLOW),
    "recv": Point("recv", 1, SEND),
    "crr": Point("crr", CRR_SLOTS, ECHO),
}


@contextlib.contextmanager
def nobody(_server, _pid):
    """Watches a measurement by doing nothing."""
    yield


# cgroups by how many rules their connects meet before the default takes them
NOWHERE = "203.0.113.1"  # of TEST-NET-3
RULES = {"rules10": 10, "rules10000": 10000}
# cgroups that get no stack, and what a table calls them
HOOKED = {"empty": "empty hook", "kernel": "kernel verdict by DMM",
          **{name: f"the same, {n} rules" for name, n in RULES.items()}}
XDP_TURN = 3  # the median of so many test runs is one figure


def rules(cgroups):
    """/fast through the stack; in the @cgroups, some of RULES, many rules that all miss."""
    # a steered connection that could not be served must fail, not count for the stack
    text = ["""
    - name: fast-out
      match: {cgroup: /fast, proto: tcp, direction: any}
      action: {stack: fast, onUnavailable: reject}"""]
    for cgroup in cgroups:
        text += [f"""
    - {{name: {cgroup}-{i}, match: {{cgroup: /{cgroup}, remote: {{cidr: 10.{i >> 8}.{i & 255}.0/24,
       ports: {i % 60000 + 1}}}}}, action: {{stack: kernel}}}}""" for i in range(RULES[cgroup])]
    return "".join(text)


def busy_seconds():
    """Of all CPUs, since boot; interrupts included."""
    with open("/proc/stat") as f:
        user, nice, system, _, _, irq, softirq, *_ = map(int, f.readline().split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def instructions(*command):
    """Of a whole run, by callgrind: the same each time."""
    said = sh("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command).stderr
    return int(re.search(r"Collected : (\d+)", said)[1])


def named_lines(out, names):
    """Lines of JSON, one for each cgroup of @names, under the names that the tables have for them."""
    return [{**json.loads(line), "cgroup": name} for line, name in zip(out.splitlines(), names.values())]


class Failed(Exception):
    """A measurement that says nothing; the others go on."""


class Hosts(World):
    def __init__(self, options):
        super().__init__()
        self.o = options
        self.applied = None
        self.pinned = None
        for host in ("client", "server"):
            if options.cc:
                self.run("sysctl", "-qw", f"net.ipv4.tcp_congestion_control={options.cc}",
                         host=host)
        self.run("ethtool", "-K", "c0", *ALL_OFF)
        self.run("ethtool", "-K", "s0", *ALL_OFF, host="server")
        self.add_link(1, [])
        self.add_link(2, ALL_OFF)
        self.add_link(3, ALL_OFF)
        self.add_link(4, ALL_OFF)
        self.run("ip", "link", "set", "c3", "xdp", "obj", os.path.join(OUT, "bench/floor.bpf.o"),
                 "sec", "xdp")
        for name in ("plain", "empty", *RULES):
            self.cgroup(name)
        self.dmmd()
        self.use_stack()
        self.ctl("attach", "--cgroup", "/kernel")

    def add_link(self, i, offloads):
        c, s = f"c{i}", f"s{i}"
        sh("ip", "link", "add", c, "netns", self.ns["client"], "type", "veth", "peer", "name", s,
           "netns", self.ns["server"])
        for host, dev, last in (("client", c, 1), ("server", s, 2)):
            ns = self.ns[host]
            sh("ip", "-n", ns, "addr", "add", f"198.18.{i}.{last}/24", "dev", dev)
            sh("ip", "-n", ns, "addr", "add", f"fd00:198:{18 + i}::{last}/64", "dev", dev, "nodad")
            sh("ip", "-n", ns, "link", "set", dev, "up")
            if offloads:
                self.run("ethtool", "-K", dev, *offloads, host=host)

    def server(self, link, family=4, last=2):
        if isinstance(link, str):
            return "127.0.0.1"
        return f"fd00:198:{18 + link}::{last}" if family == 6 else f"198.18.{link}.{last}"

    def sides(self, row):
        """Of the client and of the server: whose core, host, and last part of its address."""
        sides = (("client", "client", 1), ("server", "server", 2))
        if isinstance(row.link, str):
            sides = (("client", row.link, 1), ("server", row.link, 1))
        return sides[::-1] if row.listens else sides

    def ctl(self, *args, **kw):
        # a spinning instance and its neighbours may keep dmmd from the CPU
        return super().ctl("--timeout", "60", *args, **kw)

    # --- the instance ---

    def use_stack(self, poll="adaptive", plugin=None, cgroups=tuple(RULES)):
        """Makes sure that the instance is of the @plugin (None: of any), polls like that and runs on its
        core, and which rules there are."""
        plugin = plugin or (self.applied[1] if self.applied else next(iter(PLUGINS)))
        if (poll, plugin, cgroups) != self.applied:
            self.apply(self.policy(rules=rules(cgroups), stack=f", poll: {poll}", plugin=plugin))
            self.applied = poll, plugin, cgroups
        pid = self.ready()
        if pid != self.pinned:
            os.sched_setaffinity(pid, {self.o.cores[self.o.instance]})
            os.setpriority(os.PRIO_PROCESS, pid, self.o.nice)
            self.pinned = pid
        return pid

    # --- one measurement ---

    def on_core(self, who, program, *args):
        return ["nice", "-n", str(self.o.nice), "taskset", "-c", str(self.o.cores[who]),
                os.path.join(OUT, "bench", program), *map(str, args)]

    @contextlib.contextmanager
    def serving(self, row=ROWS[BASELINE]):
        """The server that @row's client talks to."""
        program, spin = ("serve", PORT), row.spin and row.poll != "alone"
        if row.poll == "serves":
            program = ("alone_serve", f"{OUT}/stacks/{row.plugin}.so", f"s{row.link}",
                       self.server(row.link, row.family), ALONE_PORT)
        who, host, _ = self.sides(row)[1]
        p = self.spawn(*self.on_core(who, program[0], *(["-s"] if spin else []), *program[1:]),
                       host=host, cgroup=row.cgroup if row.listens else None, stdout=subprocess.PIPE)
        try:
            if p.stdout.readline() != b"ready\n":
                raise Failed("the server did not start")
            yield p
        finally:
            p.kill()
            p.wait()
            p.stdout.close()
            self.procs.remove(p)

    def measure(self, row_name, point_name, during=None):
        """One client for the fixed time: its result. @during(server, instance's pid) goes along."""
        row, point = ROWS[row_name], POINTS[point_name]
        steered = row.poll in STEERED
        pid = self.use_stack(row.poll, row.plugin) if steered else self.use_stack()
        counter = "flows_opened" if row.listens else "connects"
        before = self.instance()[counter] if steered else 0
        with self.serving(row) as server, (during or nobody)(server, pid):
            before_cpu, begin = busy_seconds(), time.monotonic()
            got = self.load_patiently(row, point)
            cpus = (busy_seconds() - before_cpu) / (time.monotonic() - begin)
        if got.get("per_second"):
            got["cpu_us"] = cpus / got["per_second"] * 1e6
        if steered:
            self.check_steered(pid, self.instance()[counter] - before, got, point)
        return got

    def load(self, row, point):
        client, stack, port = "load", (), PORT
        if row.poll == "alone":
            client = "alone"
            stack = (*(["-s"] if row.spin else ()), f"{OUT}/stacks/{row.plugin}.so", f"c{row.link}")
        elif row.poll == "serves":
            port = ALONE_PORT
        (who, host, _), (_, _, last) = self.sides(row)
        try:
            done = self.run(*self.on_core(who, client, "-c", point.connections, "-t",
                                          self.o.seconds, "-w", self.o.warm_up, *stack, point.mode,
                                          self.server(row.link, row.family, last), port + point.port),
                            host=host, cgroup=None if row.listens else row.cgroup, check=False,
                            timeout=self.o.seconds + self.o.warm_up + 30)
        except subprocess.TimeoutExpired:
            raise Failed("the client hung") from None
        if done.returncode:
            raise Failed(f"client ended with {done.returncode}: {done.stderr.strip()}")
        got = json.loads(done.stdout)
        if "error" in got:
            raise Failed(f"{got['error']}, {got['failed']} failed")
        return got

    def load_patiently(self, row, point):
        """Once more where other work has taken the whole of a short time."""
        try:
            return self.load(row, point)
        except Failed as e:
            if "nothing came through" not in str(e):
                raise
        return self.load(row, point)

    def check_steered(self, pid, connects, got, point):
        """No figure of the kernel's may stand in a stack's row."""
        if self.instance_pid() != pid:
            raise Failed("the instance died")
        least = got["per_second"] * self.o.seconds if point.mode == "crr" else point.connections
        if connects < least:
            raise Failed(f"only {connects} connections were steered")

    # --- costs ---

    def connect_cost(self):
        """connect() without and with hooks: lines of connect_cost."""
        names = {"plain": "no hook", **HOOKED, "fast": "steered"}
        self.use_stack()
        before = self.instance()["connects"]
        with self.serving():
            out = self.run(*self.on_core(
                "client", "connect_cost", "-n", self.o.connects, "-r", self.o.connect_rounds, "-e",
                self.cgroup("empty"), self.server(0), PORT, *map(self.cgroup, names))).stdout
        steered = self.instance()["connects"] - before
        if steered != self.o.connects * self.o.connect_rounds:
            raise Failed(f"{steered} connects were steered, not one cgroup's")
        return named_lines(out, names)

    def hook_cost(self):
        """The connect hook by itself: lines of hook_cost."""
        self.run("ip", "route", "replace", "unreachable", NOWHERE)
        out = self.run(*self.on_core("client", "hook_cost", "-r", self.o.connect_rounds, NOWHERE,
                                     *map(self.cgroup, HOOKED))).stdout
        return named_lines(out, HOOKED)

    def xdp_cost(self):
        """The flow door per packet: rounds of {how many rules: lines of xdp_cost}, by turns either first."""
        rounds = []
        for number in range(self.o.xdp_rounds):
            lines = {}
            for cgroup in list(RULES)[::-1 if number % 2 else 1]:
                self.use_stack(cgroups=(cgroup,))
                out = self.run(*self.on_core(
                    "client", "xdp_cost", "-n", self.o.packets, "-r", XDP_TURN,
                    f"{self.bpffs}/progs/dmm_xdp", "c0", self.ports.split("-")[0], self.client4,
                    self.server4, self.client6, self.server6)).stdout
                lines[RULES[cgroup]] = [json.loads(line) for line in reversed(out.splitlines())]
            rounds.append(lines)
        return rounds

    def matcher_cost(self):
        """Look-ups by the matcher as userspace code: ns, and instructions where there is valgrind."""
        program, lines = os.path.join(OUT, "bench/matcher"), []
        for n in RULES.values():
            line = json.loads(sh(*self.on_core("client", "matcher", n, self.o.lookups)).stdout)
            if shutil.which("valgrind") and not self.o.quick:
                few = 20000
                line["instructions"] = (instructions(program, n, few) -
                                        instructions(program, n, 0)) / few
            lines.append(line)
        return lines

    def engine_cost(self):
        """The native engine by itself, in memory: rounds of its line."""
        return [json.loads(sh(*self.on_core("client", "engine", self.o.segments)).stdout)
                for _ in range(self.o.rounds)]

    def congestion_control(self):
        return self.run("sysctl", "-n", "net.ipv4.tcp_congestion_control").stdout.strip()
