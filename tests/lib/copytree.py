# SPDX-License-Identifier: Apache-2.0
"""A copy of the tree that a test may change and build, with its products, so that only what changed is
built again."""

import os
import shutil
import subprocess
import tempfile

from dmmtest import OUT, ROOT

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
        self.build()

    def build(self, *args):
        programs = [f"{BUILT}/{p}" for p in ("dmmd", "dmm-stack", "dmmctl", "stacks/lwip.so",
                                           "stacks/native.so")]
        r = self.run("make", "-s", f"O={BUILT}", *args, *programs)
        assert r.returncode == 0, f"the copy does not build: {r.stdout}{r.stderr}"

    def __exit__(self, *_):
        shutil.rmtree(self.dir, ignore_errors=True)
