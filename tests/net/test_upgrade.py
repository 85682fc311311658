#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""dmmd is killed and another build of it started over its pins, again and again, under a hundred flows
of both stacks: none is cut, and connects follow the policy, while none runs too."""

import json
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from copytree import BUILT, Copy
from dmmtest import OUT, World, amount, bpf_objects, main, sh, test, wait_for
from flows import Flows

ECHO = 8601
UPGRADES = amount(5, 100)
EACH = 25  # flows of each IP version on each stack: a hundred

# What the other build has changed, so that its programs are others.
CHANGES = (("bpf/sock.bpf.c", "#define RANDOM_STEPS 16", "#define RANDOM_STEPS 17"),
           ("bpf/lib/parse.bpf.h", "#define MAX_EXT_HEADERS 6", "#define MAX_EXT_HEADERS 5"))


class UpgradeWorld(World):
    build = OUT

    def __init__(self):
        super().__init__()
        self.serve_echo(ECHO)
        self.up()

    def program(self, name):
        return [os.path.join(self.build if name == "dmmd" else OUT, name)]

    def tags(self):
        """Of the programs that the links run, whatever is pinned beside them."""
        links = bpf_objects("link")
        progs = {p["id"]: p["tag"] for p in bpf_objects("prog")}
        return {name: progs[link["prog_id"]] for name in os.listdir(f"{self.bpffs}/links")
                for link in links if link["id"] == self.link_id(name)}

    def link_id(self, name):
        return json.loads(sh("bpftool", "-j", "link", "show", "pinned",
                             f"{self.bpffs}/links/{name}").stdout)["id"]


def tag_of(tags, word):
    tag, = {t for name, t in tags.items() if word in name}
    return tag


@test
def upgraded_under_flows_it_cuts_none(w):
    with Copy() as other:
        for name, old, new in CHANGES:
            path = os.path.join(other.dir, name)
            with open(path) as f:
                text = f.read()
            assert text.count(old) == 1, f"{name} has no {old!r}"
            with open(path, "w") as f:
                f.write(text.replace(old, new))
        other.build()
        before = w.stack()
        with Flows(w, each=EACH) as flows:
            for i in range(UPGRADES):
                tags = w.tags()
                w.daemon.kill()
                w.daemon.wait()
                flows.all_go_on()
                w.check_policy()
                w.build = os.path.join(other.dir, BUILT) if i % 2 == 0 else OUT
                w.dmmd()
                wait_for("the stored policy is live", lambda: w.ctl_json("status")["policy"])
                now, new = w.stack(), w.tags()
                assert (now["pid"], now["incarnation"]) == (before["pid"], before["incarnation"]), \
                    "the instance was not adopted"
                for word in ("connect4", "xdp"):
                    assert tag_of(new, word) != tag_of(tags, word), f"{word} is that of the old build"
                flows.all_go_on()
                w.check_policy()
        flows.tell()
        assert len(flows.results) == 4 * EACH
        # the new dmmd supervises the instance that it did not fork
        os.kill(before["pid"], signal.SIGKILL)
        w.ready(not_pid=before["pid"])
        w.check_policy()


if __name__ == "__main__":
    main(UpgradeWorld)
