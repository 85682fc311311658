#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tests that never fail prove nothing: each patch tests/planted/net-* plants a bug in a copy of the
tree, and the test that is there to find it must. A build or start that fails finds nothing."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import OUT, ROOT, main, test

TREE = ("bpf", "include", "userspace", "tools", "tests", "policy", "Makefile")
BUILT = ".output"  # in the copy


class Copy:
    """A copy of the tree with its products, so that only what a patch touches is built again."""

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix=f"dmm-planted-{os.getpid()}-")
        os.chmod(self.dir, 0o755)  # instances are not root
        for name in TREE:
            source = os.path.join(ROOT, name)
            if os.path.isdir(source):
                shutil.copytree(source, os.path.join(self.dir, name), symlinks=True,
                                ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, self.dir)
        shutil.copytree(OUT, os.path.join(self.dir, BUILT), symlinks=True)
        self._move_dependencies()
        return self

    def _move_dependencies(self):
        """Dependency files name the products by their old folder."""
        for folder, _, names in os.walk(os.path.join(self.dir, BUILT)):
            for name in names:
                if name.endswith(".d"):
                    path = os.path.join(folder, name)
                    with open(path) as f:
                        text = f.read()
                    with open(path, "w") as f:
                        f.write(text.replace(os.environ.get("O", BUILT) + "/", BUILT + "/"))

    def run(self, *args, **kw):
        env = {k: v for k, v in os.environ.items() if k not in ("O", "T", "LONG", "SWAPS", "MAKEFLAGS")}
        return subprocess.run(args, cwd=self.dir, text=True, capture_output=True,
                              env={**env, **kw})

    def plant(self, patch):
        with open(os.path.join(ROOT, "tests/planted", patch)) as f:
            r = subprocess.run(["patch", "-p1", "--batch", "--fuzz=0"], cwd=self.dir, stdin=f,
                               capture_output=True, text=True)
        assert r.returncode == 0, f"{patch} does not apply: {r.stdout}{r.stderr}"
        programs = [f"{BUILT}/{p}" for p in ("dmmd", "dmm-stack", "dmmctl", "stacks/lwip.so")]
        r = self.run("make", "-s", f"O={BUILT}", *programs)
        assert r.returncode == 0, f"{patch} does not build: {r.stdout}{r.stderr}"

    def __exit__(self, *_):
        shutil.rmtree(self.dir, ignore_errors=True)


def finds(patch, file, word, symptom, n=1, **env):
    """The @n tests of @file with @word in their name fail on the planted bug, and say @symptom."""
    with Copy() as copy:
        copy.plant(patch)
        r = copy.run("/usr/bin/python3", f"tests/net/{file}", O=os.path.join(copy.dir, BUILT),
                     T=word, **env)
    failed = re.findall(r"^not ok \d+ - .*" + word.replace("_", " "), r.stdout, re.M)
    assert len(failed) == n, f"{file} does not find {patch}:\n{r.stdout}{r.stderr}"
    assert len(re.findall(symptom, r.stdout)) >= n, \
        f"{file} fails for another reason:\n{r.stdout}{r.stderr}"


@test
def a_clean_end_of_a_killed_instance_is_found(w):
    finds("net-kill-clean-end.patch", "test_kill.py", "killed_instance_is_never_a_clean_end",
          r"AssertionError: .*(accepted|mid_slow_response|after_fin): eof", n=2)


@test
def a_policy_that_is_deleted_first_is_found(w):
    finds("net-swap-emptied-slot.patch", "test_swap.py", "no_connect_sees_half_a_policy",
          r"met no policy|no rule decided|against their generation", SWAPS="500")


if __name__ == "__main__":
    main(lambda: None)  # needs no world of its own
