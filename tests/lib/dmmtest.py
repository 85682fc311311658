# SPDX-License-Identifier: Apache-2.0
"""A world for net tests: two hosts (network namespaces) joined by veth, dmmd on the client host,
real programs on both. Everything made here has a unique name and is removed when the test ends,
also when it fails or is killed.

A test file:

    from dmmtest import World, test, main

    @test
    def refused_port_is_refused(w):
        ...

    main(World)         # TAP on stdout; one World for the file
"""

import atexit
import contextlib
import ctypes
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OUT = os.environ.get("O", os.path.join(ROOT, ".output"))
if not os.path.isabs(OUT):
    OUT = os.path.join(ROOT, OUT)
LONG = bool(os.environ.get("LONG"))

# What the stack of the usual policy runs, by test file: in `make test` those whose subject is what a stack
# does itself, bytes, connections, clients, run over `native`, those about the steering around it over `lwip`;
# with LONG=1 all of these over both. Files that are not here use no such policy, or run over lwip alone.
PLUGINS = {
    "native": """apps bytes changes connect fdio_cases instances kill many netem path queues serve serve_apps
                 serve_life stack_socket swap""".split(),
    "lwip": """callers control dmmctl dmmd hang memory others reasons sandbox serve_flood upgrade""".split(),
}


def plugins_here():
    """Those that this program's tests run over; DMM_PLUGIN=name picks another one."""
    if os.environ.get("DMM_PLUGIN"):
        return [os.environ["DMM_PLUGIN"]]
    name = os.path.basename(sys.argv[0]).removeprefix("test_").removesuffix(".py")
    daily = [plugin for plugin, names in PLUGINS.items() if name in names]
    return list(PLUGINS) if LONG and daily else daily or ["lwip"]


# how much slower this machine is than one that waits and limits in seconds are made for
SLOW = float(os.environ.get("DMM_TEST_SLOW") or 1)
CLONE_NEWNET = 0x40000000


# dmmctl waits 30 s
PATIENCE = ("--timeout", round(30 * SLOW)) if SLOW > 1 else ()


def amount(usual, long=None):
    """How much of something a test does: more with LONG=1, less on an emulated CPU."""
    n = long if LONG and long else usual
    return n if SLOW == 1 else max(n // 5, 2)


libc = ctypes.CDLL(None, use_errno=True)


class Skip(Exception):
    """What the kernel or machine lacks."""


def cgroup2_mount():
    with open("/proc/self/mountinfo") as f:
        for line in f:
            left, right = line.split(" - ")
            if right.split()[0] == "cgroup2":
                return left.split()[4]
    raise Skip("no cgroup2 mount")


def wait_for(what, predicate, seconds=20, every=0.02):
    """Waits generously; a hang is a failure that names what never came."""
    end = time.monotonic() + seconds * SLOW
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"never: {what}")
        time.sleep(every)


def sh(*args, check=True, timeout=None, **kw):
    r = subprocess.run([str(a) for a in args], text=True, capture_output=True,
                       timeout=timeout and timeout * SLOW, **kw)
    if check and r.returncode:
        raise AssertionError(f"{' '.join(map(str, args))}: exit {r.returncode}\n{r.stdout}{r.stderr}")
    return r


def bpf_objects(kind):
    """All "prog"s, "map"s or "link"s of the machine. Those of others come and go, and bpftool gives up at
    one that goes while it lists them."""
    def listed():
        r = sh("bpftool", "-j", kind, "show", check=False)
        return r.returncode == 0 and (json.loads(r.stdout),)
    return wait_for(f"a list of every {kind}", listed)[0]


def status_of(pid):
    """/proc/PID/status as a dict of texts."""
    with open(f"/proc/{pid}/status") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def alive(pid):
    """Or still dying: all that it held is closed when it no longer is."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class World:
    """client (where dmmd runs): 198.18.0.1, fd00:198:18::1 on c0.  server: .2, ::2 on s0."""

    client4, server4 = "198.18.0.1", "198.18.0.2"
    client6, server6 = "fd00:198:18::1", "fd00:198:18::2"
    ports = "20000-31999"
    queues = 1
    plugin = plugins_here()[0]  # of the usual policy's stack
    # an emulated CPU stands still for longer than an instance that hangs may
    patience = ("--stale-after", "3") if SLOW > 1 else ()
    _count = 0

    def __init__(self):
        World._count += 1
        self.id = f"{os.getpid()}-{World._count}"
        self.dir = tempfile.mkdtemp(prefix=f"dmm-test-{self.id}-")
        os.chmod(self.dir, 0o755)
        self.bpffs = f"/sys/fs/bpf/dmm-test-{self.id}"
        self.cgroup_root = f"{cgroup2_mount()}/dmm-test-{self.id}"
        self.ns = {h: f"dmm-{self.id}-{h}" for h in ("client", "server")}
        self.procs = []
        self.daemon = None
        self.owner = os.getpid()
        atexit.register(self.close)
        self._make_hosts()
        os.mkdir(self.cgroup_root)
        for name in ("kernel", "fast"):
            self.cgroup(name)

    # --- hosts ---

    def _make_hosts(self):
        c, s = self.ns["client"], self.ns["server"]
        sh("ip", "netns", "add", c)
        sh("ip", "netns", "add", s)
        self._join_hosts(c, s)
        for ns, dev, a4, a6 in ((c, "c0", self.client4, self.client6),
                                (s, "s0", self.server4, self.server6)):
            sh("ip", "-n", ns, "addr", "add", f"{a4}/24", "dev", dev)
            sh("ip", "-n", ns, "addr", "add", f"{a6}/64", "dev", dev, "nodad")
            sh("ip", "-n", ns, "link", "set", "lo", "up")
            sh("ip", "-n", ns, "link", "set", dev, "up")
            # Frames between kernels carry partial checksums; an AF_XDP stack needs real ones.
            self.run("ethtool", "-K", dev, "tx", "off", host=ns)

    def _join_hosts(self, c, s):
        queues = ("numrxqueues", self.queues, "numtxqueues", self.queues)
        sh("ip", "link", "add", "c0", "netns", c, *queues, "type", "veth",
           "peer", "name", "s0", "netns", s, *queues)

    def nsenter(self, host):
        return ["nsenter", f"--net=/run/netns/{self.ns.get(host, host)}", "--"]

    def run(self, *args, host="client", cgroup=None, check=True, **kw):
        """Runs a program to its end on a host, optionally in a cgroup."""
        return sh(*self.nsenter(host), *args, check=check,
                  preexec_fn=(lambda: self.join(cgroup)) if cgroup else None, **kw)

    def spawn(self, *args, host="client", cgroup=None, **kw):
        """Starts a program; it is killed when the world ends."""
        kw.setdefault("stdout", subprocess.DEVNULL)
        kw.setdefault("stderr", subprocess.DEVNULL)
        kw.setdefault("stdin", subprocess.DEVNULL)
        p = subprocess.Popen([*self.nsenter(host), *map(str, args)],
                             preexec_fn=(lambda: self.join(cgroup)) if cgroup else None, **kw)
        self.procs.append(p)
        return p

    # --- cgroups ---

    def cgroup(self, name):
        path = os.path.join(self.cgroup_root, name.lstrip("/"))
        os.makedirs(path, exist_ok=True)
        return path

    def join(self, name):
        with open(os.path.join(self.cgroup(name), "cgroup.procs"), "w") as f:
            f.write("0")

    # --- python on a host ---

    def enter(self, host, cgroup=None):
        """Moves this process; for children only."""
        fd = os.open(f"/run/netns/{self.ns.get(host, host)}", os.O_RDONLY)
        if libc.setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(fd)
        if cgroup:
            self.join(cgroup)

    def start(self, fn, *args, host="client", cgroup=None):
        """Runs fn(*args) in a child on a host; .result() gives its value or raises its error."""
        return Child(self, fn, args, host, cgroup)

    def call(self, fn, *args, host="client", cgroup=None, timeout=60):
        return self.start(fn, *args, host=host, cgroup=cgroup).result(timeout)

    def serve(self, fn, port, host="server", cgroup=None):
        """Forks a server on a host: fn(connected socket) in a process for each connection; both
        IP versions. Returns once it listens."""
        ready, other = socket.socketpair()
        child = self.start(_server, fn, port, other, host=host, cgroup=cgroup)
        other.close()
        ready.settimeout(20 * SLOW)
        assert ready.recv(1) == b"R", "server did not start"
        return child

    # --- dmm ---

    def program(self, name):
        """The command that runs dmmd or dmmctl."""
        return [os.path.join(OUT, name)]

    def dmmd(self, *args, env=None, wait=True):
        log = open(os.path.join(self.dir, "dmmd.log"), "ab")
        self.daemon = self.spawn(
            *self.program("dmmd"), "--run-dir", f"{self.dir}/run", "--state-dir",
            f"{self.dir}/state", "--bpffs", self.bpffs, "--cgroup-root", self.cgroup_root,
            *self.patience, *args, stderr=log, stdout=log, env=env)
        if wait:
            wait_for("dmmd answers", self._daemon_up)
        return self.daemon

    def restart(self, *args, **kw):
        """Starts dmmd again, and waits until it has gone through the stored policy."""
        self.dmmd(*args, **kw)
        wait_for("the stored policy is live", lambda: self.ctl_json("status")["policy"])

    def stop(self, sig=signal.SIGTERM):
        self.daemon.send_signal(sig)
        return self.daemon.wait(20)

    def _daemon_up(self):
        if self.daemon.poll() is not None:
            raise AssertionError(f"dmmd exited {self.daemon.returncode}:\n{self.log()}")
        return self.ctl("status", check=False).returncode == 0

    def log(self):
        with open(os.path.join(self.dir, "dmmd.log"), errors="replace") as f:
            return f.read()

    def ctl(self, *args, check=True, host="client", **kw):
        return self.run(*self.program("dmmctl"), "--run-dir", f"{self.dir}/run", "--state-dir",
                        f"{self.dir}/state", "--bpffs", self.bpffs, "--cgroup-root",
                        self.cgroup_root, *PATIENCE, *args, host=host, check=check, **kw)

    def ctl_json(self, *args, **kw):
        return json.loads(self.ctl("-o", "json", *args, **kw).stdout)

    def policy(self, rules=None, unavailable="kernel", stack="", plugin=None):
        """The usual policy: /fast through stack `fast`, all else in the kernel."""
        if rules is None:
            rules = f"""
    - name: fast-out
      match: {{cgroup: /fast, proto: tcp, direction: connect}}
      action: {{stack: fast, onUnavailable: {unavailable}}}"""
        return f"""apiVersion: dmm/v1alpha1
kind: Policy
metadata: {{name: test}}
spec:
  interfaces: [{{name: c0}}]
  stacks: [{{name: fast, plugin: {plugin or self.plugin}, backend: xsk, interface: c0, localPorts: {self.ports}{stack}}}]
  rules:{rules}
  default: {{stack: kernel}}
"""

    def apply(self, text, check=True):
        path = os.path.join(self.dir, "policy.yaml")
        with open(path, "w") as f:
            f.write(text)
        return self.ctl("apply", path, check=check)

    def up(self, *args, **kw):
        """dmmd with the usual policy: what most tests start from."""
        self.dmmd(*args)
        self.apply(self.policy(**kw))

    def flows(self):
        return self.ctl_json("flows", "list")["items"]

    def instance(self, name="fast#0"):
        for inst in self.ctl_json("stacks", "list")["items"]:
            if inst["instance"] == name:
                return inst
        raise AssertionError(f"no instance {name}")

    def instance_pid(self, name="fast#0"):
        return self.instance(name)["pid"]

    def stack(self, name="fast"):
        for stack in self.ctl_json("stacks", "list")["items"]:
            if name in (stack["name"], stack.get("instance")):
                return stack
        raise AssertionError(f"no stack {name}")

    def ready(self, name="fast", not_pid=None):
        """Waits until the stack's instance is ready (again); its pid."""
        def pid():
            stack = self.stack(name)
            return stack["state"] == "ready" and stack["pid"] != not_pid and stack["pid"]
        return wait_for(f"instance of {name} is ready", pid, seconds=60)

    def reasons(self):
        """How often each reason decided."""
        return {r["reason"]: r["count"] for r in self.ctl_json("stats", "--all")["reasons"]}

    def second_link(self):
        """Another veth: c1 198.18.1.1, fd00:198:19::1 and s1 .2, ::2."""
        c, s = self.ns["client"], self.ns["server"]
        sh("ip", "link", "add", "c1", "netns", c, "type", "veth", "peer", "name", "s1", "netns", s)
        for ns, dev, last in ((c, "c1", 1), (s, "s1", 2)):
            sh("ip", "-n", ns, "addr", "add", f"198.18.1.{last}/24", "dev", dev)
            sh("ip", "-n", ns, "addr", "add", f"fd00:198:19::{last}/64", "dev", dev, "nodad")
            sh("ip", "-n", ns, "link", "set", dev, "up")
            self.run("ethtool", "-K", dev, "tx", "off", host=ns)

    def serve_echo(self, port):
        """Makes port() and check_policy() possible."""
        self.echo_port = port
        self.serve(echo, port)

    def port(self, addr=None, cgroup="/fast"):
        """The local port that a connect to the echo server gets now; bytes come back, too."""
        return self.call(local_port, addr or self.server4, self.echo_port, cgroup=cgroup)

    def check_policy(self):
        """Connects go where the usual policy says, over both IP versions."""
        for addr in (self.server4, self.server6):
            assert self.is_steered(self.port(addr)), f"{addr}: not steered"
            assert not self.is_steered(self.port(addr, "/kernel")), f"{addr}: steered"

    def is_steered(self, port):
        """Did the wire connection come from the instance's port range?"""
        first, last = map(int, self.ports.split("-"))
        return first <= port <= last

    def all_was_steered(self):
        """No connect of the usual policy's cgroup was left to the kernel so far."""
        stack, = self.ctl_json("stats")["stacks"]
        assert stack["connects"] > 0 and stack["turned_away"] == 0, stack
        left = {r: n for r, n in self.reasons().items() if n and (
            r.startswith(("instance-", "builtin-", "bound-")) and r != "instance-dead"
            or r in ("no-route", "no-wire-port", "other-netns", "no-memory"))}
        assert not left, left

    # --- end ---

    def close(self):
        if os.getpid() != self.owner or not self.dir:
            return
        keep = bool(os.environ.get("DMM_TEST_KEEP"))
        if keep:
            print(f"# kept: {self.dir} {self.ns} {self.bpffs} {self.cgroup_root}")
            return
        if self.daemon and self.daemon.poll() is None:
            self.daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.daemon.wait(10 * SLOW)
        with contextlib.suppress(Exception):
            self.ctl("teardown", check=False, timeout=30)
        for p in self.procs:
            if p.poll() is None:
                p.kill()
        for p in self.procs:
            p.wait()
        self._kill_cgroup()
        for ns in self.ns.values():
            for pid in sh("ip", "netns", "pids", ns, check=False).stdout.split():
                with contextlib.suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)
            sh("ip", "netns", "del", ns, check=False)
        shutil.rmtree(self.bpffs, ignore_errors=True)
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir = None

    def _kill_cgroup(self):
        for path, _, _ in os.walk(self.cgroup_root, topdown=False):
            with contextlib.suppress(OSError), open(f"{path}/cgroup.procs") as f:
                for pid in f:
                    os.kill(int(pid), signal.SIGKILL)
            wait_until = time.monotonic() + 5
            while time.monotonic() < wait_until:
                try:
                    os.rmdir(path)
                    break
                except OSError:
                    time.sleep(0.02)


class Child:
    """A python function in a process of its own on some host."""

    def __init__(self, world, fn, args, host, cgroup):
        self.read, write = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            os.close(write)
            self.name = fn.__name__
            return
        os.close(self.read)
        try:
            atexit.unregister(world.close)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            libc.prctl(1, signal.SIGKILL)
            world.enter(host, cgroup)
            value = (True, fn(*args))
        except BaseException as e:
            value = (False, (type(e).__name__, getattr(e, "errno", None), str(e),
                             traceback.format_exc()))
        with contextlib.suppress(Exception), os.fdopen(write, "wb") as f:
            pickle.dump(value, f)
        os._exit(0)

    def result(self, timeout=60):
        data = bytearray()
        timeout *= SLOW
        os.set_blocking(self.read, False)
        end = time.monotonic() + timeout
        import select
        while True:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.read], [], [], left)[0]:
                self.kill()
                raise AssertionError(f"{self.name}: no result within {timeout} s")
            chunk = os.read(self.read, 1 << 20)
            if not chunk:
                break
            data += chunk
        os.close(self.read)
        os.waitpid(self.pid, 0)
        if not data:
            raise AssertionError(f"{self.name}: died")
        ok, value = pickle.loads(data)
        if ok:
            return value
        kind, errno, text, trace = value
        if errno is not None:
            raise OSError(errno, f"{text}\n{trace}")
        raise AssertionError(f"{kind}: {text}\n{trace}")

    def kill(self, sig=signal.SIGKILL):
        with contextlib.suppress(OSError):
            os.kill(self.pid, sig)
            os.waitpid(self.pid, 0)


def connected(addr, port):
    s = socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET)
    s.settimeout(30 * SLOW)
    s.connect((addr, port))
    return s


def local_port(addr, port):
    with connected(addr, port) as s:
        s.sendall(b"ping")
        assert s.recv(10) == b"ping"
        return s.getsockname()[1]


def connect_errno(addr, port):
    try:
        local_port(addr, port)
        return 0
    except OSError as e:
        return e.errno


def echo(c):
    while data := c.recv(65536):
        c.sendall(data)


def _server(fn, port, ready):
    """One process per connection, both IP versions on one socket."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    s = socket.socket(socket.AF_INET6)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("::", port))
    s.listen(1024)
    ready.send(b"R")
    while True:
        c, _ = s.accept()
        if os.fork() == 0:
            s.close()
            libc.prctl(1, signal.SIGKILL)
            try:
                fn(c)
            finally:
                os._exit(0)
        c.close()


# --- TAP ---

_tests = []


def test(fn):
    _tests.append(fn)
    return fn


def long_test(fn):
    if LONG:
        _tests.append(fn)
    return fn


def run_tests(world_class, tests, first):
    """Runs them in one world, the first as number @first; returns how many failed. Told to stop, it does."""
    failed, w = 0, None
    try:
        for i, t in enumerate(tests, first):
            name = t.__name__.replace("_", " ")
            try:
                w = w or world_class()
                t(w)
                print(f"ok {i} - {name}", flush=True)
            except Skip as e:
                print(f"ok {i} - {name} # SKIP {e}", flush=True)
            except BaseException as e:
                failed += 1
                tell_failure(i, name, w)
                if isinstance(e, (KeyboardInterrupt, SystemExit)):
                    raise
    finally:
        if w:
            w.close()
    return failed


def tell_failure(i, name, w):
    print(f"not ok {i} - {name}", flush=True)
    for line in traceback.format_exc().splitlines():
        print(f"# {line}")
    if w:
        with contextlib.suppress(OSError):
            for line in w.log().splitlines()[-30:]:
                print(f"# dmmd: {line}")


def main(world_class=World):
    picked = os.environ.get("T")
    tests = [t for t in _tests if picked and picked in t.__name__] or _tests
    plugins = plugins_here()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(f"1..{len(tests) * len(plugins)}", flush=True)
    if os.geteuid():
        raise SystemExit("net tests need root")
    failed = 0
    for n, World.plugin in enumerate(plugins):
        if isinstance(world_class, type) and issubclass(world_class, World):
            print(f"# over {World.plugin}", flush=True)
        failed += run_tests(world_class, tests, 1 + n * len(tests))
    sys.exit(1 if failed else 0)
