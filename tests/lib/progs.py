# SPDX-License-Identifier: Apache-2.0
"""Loaded BPF programs, and how often they run."""

import subprocess

from dmmtest import OUT, Skip, bpf_objects

NO_KERNEL = 2  # exit status of tests/vm/trace.c


def ids(name):
    """Of the programs whose name (as far as the kernel keeps it) this is."""
    return [p["id"] for p in bpf_objects("prog")
            if p.get("name") == name[:15]]


def traced(prog_id, function, work):
    """(entries, ends, nanoseconds) of the program while @work ran, by fentry and fexit."""
    p = subprocess.Popen([f"{OUT}/tests/vm/trace", f"{OUT}/tests/vm/trace.bpf.o", str(prog_id), function],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         text=True)
    if p.stdout.readline() != "ready\n":
        said = p.communicate()[1]
        if p.returncode == NO_KERNEL:
            raise Skip("the kernel has no fentry on BPF programs")
        raise AssertionError(f"exit {p.returncode}: {said}")
    try:
        work()
    finally:
        said = p.communicate()[0]
    return tuple(map(int, said.split()))
