# SPDX-License-Identifier: Apache-2.0
"""Where an instance's time goes during one measurement: perf's samples of the CPU clock (virtual
machines often have no other), by system call with all that it brings about, by object, by function."""

import contextlib
import os
import re
import shutil
import subprocess

PERF = os.environ.get("PERF", "perf")  # optional, so it is in no list of packages
FREQUENCY = 1999
SHOWN = 30


def cpu_seconds(pid):
    """(user, system) so far."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return [int(t) / os.sysconf("SC_CLK_TCK") for t in fields[11:13]]


def report(data, *options):
    out = subprocess.run([PERF, "report", "-i", data, "--stdio", "-q", "-g", "none",
                          "--percent-limit", "0.7", *options],
                         capture_output=True, text=True, check=True).stdout
    return [re.sub(r"\s+", " ", line.strip()) for line in out.splitlines()
            if re.match(r"\s+\d", line)]


def system_calls(data):
    """{name: share}. Either function of a call may be missing where it jumped instead of calling."""
    share = {}
    for line in report(data, "--children", "--sort", "sym"):
        found = re.match(r"([\d.]+)% .* __(?:x64_|arm64_)?sys_(\w+)$", line)
        if found:
            share[found[2]] = max(share.get(found[2], 0), float(found[1]))
    return share


def print_report(data):
    print("\ninstance's samples within system calls, with all that they bring about")
    for name, part in sorted(system_calls(data).items(), key=lambda c: -c[1]):
        print(f"{part:5.2f}% {name}")
    for sort in ("dso", "dso,sym"):
        print(f"\ninstance's samples by {sort}")
        print("\n".join(report(data, "--no-children", "--sort", sort)[:SHOWN]))


def profile(hosts, row, point):
    """Measures once while perf looks at the instance, and prints what it saw."""
    if not shutil.which(PERF):
        raise SystemExit(f"bench: {PERF} is not installed (Debian: linux-perf)")
    data = os.path.join(hosts.dir, "perf.data")
    used = {}

    @contextlib.contextmanager
    def watching(server, pid):
        who = {"instance": pid, "server": server.pid}
        before = {name: cpu_seconds(p) for name, p in who.items()}
        perf = subprocess.Popen([PERF, "record", "-q", "-e", "cpu-clock", "-g", "-F", str(FREQUENCY),
                                 "-p", str(pid), "-o", data], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
        try:
            yield
            for name, p in who.items():
                used[name] = [b - a for a, b in zip(before[name], cpu_seconds(p))]
        finally:
            perf.terminate()
            perf.wait()

    got = hosts.measure(row, point, watching)
    print(f"{row}, {point}: {got}")
    for name, (user, system) in used.items():
        print(f"{name}: {user:.2f} s in user space, {system:.2f} s in the kernel")
    print_report(data)
