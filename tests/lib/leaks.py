# SPDX-License-Identifier: Apache-2.0
"""What may be left behind: descriptors, sockets, entries of maps."""

import json
import os

from dmmtest import sh


def fds_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def tuples_left(w):
    return json.loads(sh("bpftool", "-j", "map", "dump", "pinned",
                         f"{w.bpffs}/maps/dmm_tuples").stdout)


def table_sizes(w):
    """How many entries each pinned table has, of those that grow and shrink."""
    sizes = {}
    for name in sorted(os.listdir(f"{w.bpffs}/maps")):
        pin = f"{w.bpffs}/maps/{name}"
        kind = json.loads(sh("bpftool", "-j", "map", "show", "pinned", pin).stdout)["type"]
        if "hash" in kind or kind == "lpm_trie":
            sizes[name] = len(json.loads(sh("bpftool", "-j", "map", "dump", "pinned", pin).stdout))
    return sizes


def xdp_sockets(w):
    """Their number in the client's namespace; each holds its UMEM's frames."""
    rows = (line.split() for line in w.run("cat", "/proc/net/protocols").stdout.splitlines())
    return next(int(row[2]) for row in rows if row[0] == "XDP")
