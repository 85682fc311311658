#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The demo's two hosts: made by `dmmctl demo up`, removed by `dmmctl demo down`.

Client host and server host are network namespaces joined by a veth pair. On the client: dmmd with
directories and a cgroup root of its own, and the policy demo.yaml. On the server: nginx, in the
kernel. Nothing outside them is touched. All names follow from the id, so that `down` finds
everything again, also after a crash half-way through `up`.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
CLIENT4, SERVER4 = "198.18.0.1", "198.18.0.2"
CLIENT6, SERVER6 = "fd00:198:18::1", "fd00:198:18::2"
FILE_SIZE = 64 << 20
STOPS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

NGINX = """\
pid {dir}/nginx.pid;
error_log {dir}/error.log;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{
        listen {v4}:80;
        listen [{v6}]:80;
        root {dir}/www;
    }}
}}
"""

WRAPPER = """\
#!/bin/sh
# dmmctl, as it is to be called for this demo
exec "{dmmctl}" --run-dir "{dir}/run" --state-dir "{dir}/state" --bpffs "{dir}/bpf/dmm" \\
\t--cgroup-root "{cgroups}" --netns "{client}" "$@"
"""


class Failed(Exception):
    """What the user is told; further lines are a hint."""


def sh(*args, check=True):
    p = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    if check and p.returncode:
        raise Failed(f"{' '.join(map(str, args))}: exit {p.returncode}\n{p.stderr.strip()}")
    return p


def wait_for(what, ready, seconds=60):
    """The one loop that waits: until ready() is true, or Failed."""
    end = time.monotonic() + seconds
    while True:
        value = ready()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def cgroup2_mount():
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ")
        if right.split()[0] == "cgroup2":
            return pathlib.Path(left.split()[4])
    raise Failed("no cgroup2 file system\nmount -t cgroup2 none /sys/fs/cgroup")


def is_mounted(path):
    return any(line.split()[4] == str(path)
               for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines())


class Demo:
    NAME, POLICY, CGROUPS = "dmm-demo", "demo.yaml", ("kernel", "fast")

    def __init__(self, demo_id, dmmctl):
        if demo_id and not re.fullmatch("[a-z0-9-]{1,16}", demo_id):
            raise Failed(f"'{demo_id}' is no id: up to 16 of a-z, 0-9 and -")
        name = self.NAME + (f"-{demo_id}" if demo_id else "")
        self.id = demo_id
        self.dmmctl = pathlib.Path(dmmctl).resolve()
        self.dir = pathlib.Path("/run") / name
        self.client, self.server = f"{name}-client", f"{name}-server"
        self.cgroups = cgroup2_mount() / name
        self.bpf = self.dir / "bpf"
        self.ctl_path = self.dir / "dmmctl"
        self.down_command = f"sudo {self.dmmctl} demo down" + (f" --id {demo_id}" if demo_id else "")

    # --- using it ---

    def ctl(self, *args, check=True):
        return sh(self.ctl_path, *args, check=check)

    def ctl_json(self, *args):
        return json.loads(self.ctl("-j", *args).stdout)

    def stack(self):
        """The one instance, as `stacks list` has it."""
        return self.ctl_json("stacks", "list")["items"][0]

    def in_cgroup(self, cgroup, *args):
        """The command line that runs args on the client host in that cgroup."""
        return [str(a) for a in (self.ctl_path, "run", "--cgroup", cgroup, "--", *args)]

    def wait_ready(self):
        def ready():
            stacks = self.ctl_json("stacks", "list")["items"]
            return stacks if all(s["state"] == "ready" for s in stacks) else None
        return wait_for("the stacks are ready", ready)

    # --- up ---

    def up(self, say):
        self.check_programs()
        os.umask(0o022)  # nginx' workers and the instance are not root
        try:
            self.dir.mkdir()  # of two that begin at once, one makes it
        except FileExistsError:
            raise Failed(f"the demo is up, or a part of it ({self.dir})\n"
                         f"{self.down_command}") from None
        try:
            self.make_hosts()
            say(f"{self.map()}     (nothing else on this machine is touched)")
            self.start_nginx()
            say(f"nginx in the kernel of {self.server}: a page and a {FILE_SIZE >> 20} MiB file")
            self.start_dmmd()
            applied = self.ctl("apply", HERE / self.POLICY).stdout.strip()
            for stack in self.wait_ready():
                say(f"stack {stack['instance']} ready on {stack['interface']}"
                    f" ({stack['asked']} -> {stack['got']})")
            say(f"dmmd started, {applied}")
        except BaseException:
            self.keep_log()
            self.remove()
            raise

    def check_programs(self):
        if os.geteuid() != 0:
            raise Failed("network namespaces and BPF are for root\nuse sudo")
        for program in ("ip", "ethtool", "nginx", "curl"):
            path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
            if not shutil.which(program, path=path):
                raise Failed(f"{program} is not installed\n"
                             "apt-get install nginx curl iproute2 ethtool")

    def make_hosts(self):
        for ns in (self.client, self.server):
            sh("ip", "netns", "add", ns)
        self.join((self.client, "to-server", CLIENT4, CLIENT6),
                  (self.server, "to-client", SERVER4, SERVER6))
        for name in self.CGROUPS:
            (self.cgroups / name).mkdir(parents=True)
        self.bpf.mkdir()
        sh("mount", "-t", "bpf", "-o", "mode=0700", "bpf", self.bpf)

    def map(self):
        return f"netns {self.client} {CLIENT4} -- veth -- netns {self.server} {SERVER4}"

    def join(self, *ends):
        """A wire between two hosts: (netns, interface, IPv4, IPv6) of each."""
        (ns, dev, *_), (peer_ns, peer_dev, *_) = ends
        sh("ip", "link", "add", dev, "netns", ns, "type", "veth",
           "peer", "name", peer_dev, "netns", peer_ns)
        for ns, dev, v4, v6 in ends:
            sh("ip", "-n", ns, "addr", "add", f"{v4}/24", "dev", dev)
            sh("ip", "-n", ns, "addr", "add", f"{v6}/64", "dev", dev, "nodad")
            sh("ip", "-n", ns, "link", "set", "lo", "up")
            sh("ip", "-n", ns, "link", "set", dev, "up")
            # Frames between kernels carry partial checksums; a stack of its own needs real ones.
            sh("nsenter", f"--net=/run/netns/{ns}", "ethtool", "-K", dev, "tx", "off")

    def start_nginx(self):
        www = self.dir / "www"
        www.mkdir()
        (www / "index.html").write_text("hello from the server host\n")
        data = os.urandom(FILE_SIZE)
        (www / "file.bin").write_bytes(data)
        (self.dir / "sha256").write_text(hashlib.sha256(data).hexdigest())
        conf = self.dir / "nginx.conf"
        conf.write_text(NGINX.format(dir=self.dir, v4=SERVER4, v6=SERVER6))
        sh("nsenter", f"--net=/run/netns/{self.server}", "nginx", "-c", conf, "-p", self.dir,
           "-e", self.dir / "error.log")

    def start_dmmd(self):
        beside, installed = self.dmmctl.parent / "dmmd", self.dmmctl.parent.parent / "sbin/dmmd"
        dmmd = beside if beside.exists() else installed
        if not dmmd.exists():
            raise Failed(f"no dmmd, neither {beside} nor {installed}")
        self.ctl_path.write_text(WRAPPER.format(dmmctl=self.dmmctl, dir=self.dir,
                                                cgroups=self.cgroups, client=self.client))
        self.ctl_path.chmod(0o755)
        with open(self.dir / "dmmd.log", "wb") as log:
            daemon = subprocess.Popen(
                [dmmd, "--netns", self.client, "--run-dir", self.dir / "run", "--state-dir",
                 self.dir / "state", "--bpffs", self.bpf / "dmm", "--cgroup-root", self.cgroups],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        (self.dir / "dmmd.pid").write_text(str(daemon.pid))

        def answers():
            if daemon.poll() is not None:
                raise Failed(f"dmmd ended, exit {daemon.returncode}\n{self.log_tail()}")
            return self.ctl("status", check=False).returncode == 0
        wait_for("dmmd answers", answers)

    def log_tail(self):
        with contextlib.suppress(OSError):
            return "\n".join((self.dir / "dmmd.log").read_text(errors="replace").splitlines()[-20:])
        return ""

    def keep_log(self):
        """`up` failed and removes everything: what dmmd said is for the user."""
        if self.log_tail():
            print("dmmd's last words:\n" + self.log_tail(), file=sys.stderr)

    # --- down ---

    def remove(self):
        """down(), to its end: a second Ctrl-C does not leave half of it."""
        for sig in STOPS:
            signal.signal(sig, signal.SIG_IGN)
        return self.down()

    def down(self):
        """Removes what is there; True when there was something."""
        found = self.dir.exists() or self.cgroups.exists() or self.namespaces()
        if self.ctl_path.exists():
            p = self.ctl("teardown", check=False)
            if p.returncode:
                print(p.stderr.strip(), file=sys.stderr)
        self.end_processes()
        self.remove_cgroups()
        for ns in self.namespaces():
            sh("ip", "netns", "del", ns)
        if is_mounted(self.bpf):
            sh("umount", self.bpf)
        shutil.rmtree(self.dir, ignore_errors=True)
        return bool(found)

    def hosts(self):
        return [self.client, self.server]

    def namespaces(self):
        return [ns for ns in self.hosts() if pathlib.Path("/run/netns", ns).exists()]

    def cgroup_folders(self):
        return [pathlib.Path(p) for p, _, _ in os.walk(self.cgroups, topdown=False)]

    def processes(self):
        """All that run on the two hosts or in the demo's cgroups, and its dmmd."""
        pids = set()
        with contextlib.suppress(OSError):
            pid = (self.dir / "dmmd.pid").read_text()
            if str(self.dir).encode() in pathlib.Path("/proc", pid, "cmdline").read_bytes():
                pids.add(pid)
        for ns in self.namespaces():
            pids.update(sh("ip", "netns", "pids", ns, check=False).stdout.split())
        for folder in self.cgroup_folders():
            with contextlib.suppress(OSError):
                pids.update((folder / "cgroup.procs").read_text().split())
        return {int(p) for p in pids} - {os.getpid()}

    def end_processes(self):
        def gone():
            left = self.processes()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left
        wait_for("the demo's processes end", gone)

    def remove_cgroups(self):
        def gone():
            for folder in self.cgroup_folders():
                with contextlib.suppress(OSError):
                    folder.rmdir()
            return not self.cgroups.exists()
        wait_for("the demo's cgroups are empty", gone)

    # --- status ---

    def status(self):
        answer = self.ctl("-j", "status", check=False) if self.ctl_path.exists() else None
        daemon = answer is not None and answer.returncode == 0
        return {"apiVersion": "dmm/v1alpha1", "kind": "DemoStatus", "up": daemon,
                "directory": str(self.dir) if self.dir.exists() else None,
                "netns": self.namespaces(), "cgroup_root": str(self.cgroups),
                "dmmctl": str(self.ctl_path) if daemon else None}


def commands_to_try(demo):
    ctl = demo.ctl_path
    return f"""try:
  sudo {ctl} status
  sudo {ctl} run --cgroup /fast -- curl http://{SERVER4}/
  sudo {ctl} flows list
  sudo {ctl} explain tcp connect {SERVER4}:80 --cgroup /fast
  sudo {ctl} stats --describe
  sudo kill -9 {demo.stack()['pid']}      # the instance; then curl again
  {demo.down_command}"""


def clean_up_when_stopped():
    """Being told to end, or a terminal that goes, takes the way of an exception: through `down`."""
    for sig in STOPS:
        signal.signal(sig, lambda *_: sys.exit(1))


def main():
    parser = argparse.ArgumentParser(prog="dmmctl demo")
    parser.add_argument("verb", choices=("up", "down", "status"))
    parser.add_argument("--id", default="")
    parser.add_argument("--dmmctl", default=HERE.parent / "dmmctl")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args()

    clean_up_when_stopped()
    try:
        demo = Demo(args.id, args.dmmctl)
        if args.verb == "up":
            demo.up(lambda text: args.quiet or args.json or print(text, flush=True))
            if not args.json and not args.quiet:
                print(commands_to_try(demo))
        elif args.verb == "down":
            status = demo.status()
            if os.geteuid() and (status["directory"] or status["netns"]):
                raise Failed("only root can remove it\nsudo dmmctl demo down")
            found = demo.remove()
            if not args.json and not args.quiet:
                print("removed" if found else "there was nothing to remove")
        status = demo.status()
        if args.json:
            print(json.dumps(status))
        elif args.verb == "status":
            print(f"up: {status['directory']}, hosts {' and '.join(status['netns'])}\n"
                  f"use {status['dmmctl']}" if status["up"] else
                  f"partly up: {status['directory']}: dmmctl demo down" if status["directory"] or
                  status["netns"] else "down")
    except Failed as e:
        what, _, hint = str(e).partition("\n")
        print(f"dmmctl demo: {what}" + (f"\nhint: {hint}" if hint else ""), file=sys.stderr)
        return 4 if os.geteuid() else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
