# SPDX-License-Identifier: Apache-2.0
"""Where an instance's time goes during one measurement: perf's samples of the CPU clock (virtual
machines often have no other), by function and by object."""

import contextlib
import os
import re
import shutil
import subprocess

FREQUENCY = 1999
SHOWN = 30


def cpu_seconds(pid):
    """(user, system) so far."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return [int(t) / os.sysconf("SC_CLK_TCK") for t in fields[11:13]]


def report(data, *sort):
    out = subprocess.run(["perf", "report", "-i", data, "--stdio", "--no-children", "-q",
                          "--percent-limit", "0.7", "--sort", ",".join(sort)],
                         capture_output=True, text=True, check=True).stdout
    return [line.rstrip() for line in out.splitlines() if re.match(r"\s+\d", line)][:SHOWN]


def profile(hosts, row, point):
    """Measures once while perf looks at the instance, and prints what it saw."""
    if not shutil.which("perf"):
        raise SystemExit("bench: perf is not installed (Debian: linux-perf)")
    data = os.path.join(hosts.dir, "perf.data")
    used = {}

    @contextlib.contextmanager
    def watching(server, pid):
        who = {"instance": pid, "server": server.pid}
        before = {name: cpu_seconds(p) for name, p in who.items()}
        perf = subprocess.Popen(["perf", "record", "-q", "-e", "cpu-clock", "-F", str(FREQUENCY),
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
    for sort in (("dso",), ("dso", "sym")):
        print(f"\ninstance's samples by {' and '.join(sort)}")
        print("\n".join(report(data, *sort)))
