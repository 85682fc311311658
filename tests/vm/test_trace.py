#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who traces DMM may hang fentry and fexit programs on its programs while traffic runs: they see each
call, and nothing changes for the traffic."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import World, main, sh, test
from progs import traced

ECHO = 8711


class TraceWorld(World):
    def __init__(self):
        super().__init__()
        self.serve_echo(ECHO)
        self.up()

    def program_of(self, word):
        """The id of the program that the link of that name runs."""
        name, *_ = [n for n in sorted(os.listdir(f"{self.bpffs}/links")) if word in n]
        return json.loads(sh("bpftool", "-j", "link", "show", "pinned",
                             f"{self.bpffs}/links/{name}").stdout)["prog_id"]


@test
def the_connect_hooks_are_seen_at_work(w):
    for word, addr in (("connect4", w.server4), ("connect6", w.server6)):
        def connects(to=addr):
            for _ in range(5):
                assert w.is_steered(w.port(to))
        entries, ends, ns = traced(w.program_of(word), f"dmm_{word}", connects)
        print(f"# {word}: {ns / max(ends, 1):.0f} ns a call, emulated or not")
        assert entries == ends == 5 and ns > 0, (word, entries, ends, ns)


@test
def the_flow_door_is_seen_at_work(w):
    entries, ends, ns = traced(w.program_of("xdp"), "dmm_xdp", w.check_policy)
    print(f"# dmm_xdp: {entries} packets, {ns / max(ends, 1):.0f} ns each, emulated or not")
    assert entries == ends > 10 and ns > 0, (entries, ends, ns)


@test
def all_goes_on_when_the_tracer_has_left(w):
    w.check_policy()
    w.all_was_steered()


if __name__ == "__main__":
    main(TraceWorld)
