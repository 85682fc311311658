#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Planted bugs: a test that never fails proves nothing, so each patch must make it fail.

  tests/lib/planted.py TEST.c -- SOURCE... -- PATCH...

For each PATCH (unified diff, -p1 against the tree) copies what the test needs, applies it, builds
TEST.c with the C files of SOURCE... (files or folders) and runs it. The test must pass without a
patch and fail with each: by a "not ok" line or a signal, not by a build error. Prints TAP. CC, CFLAGS
and LIBS come from the environment (LIBS: pkg-config modules).
"""

import concurrent.futures
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
COPIED = ("include", "userspace", "tests/lib", "tests/unit", "tests/sim",
          "tests/script")
TIMEOUT = 120


def sources_of(names):
    files = []
    for name in names:
        path = os.path.join(ROOT, name)
        found = sorted(glob.glob(os.path.join(path, "*.c"))) if os.path.isdir(path) else [path]
        files += [os.path.relpath(f, ROOT) for f in found]
    return files


def libraries():
    modules = (os.environ.get("LIBS") or "cmocka yaml-0.1").split()
    out = subprocess.run(["pkg-config", "--cflags", "--libs", *modules], check=True,
                         capture_output=True, text=True)
    return out.stdout.split()


class Bench:
    """C files that are compiled once, and once more where a patch changes them."""

    def __init__(self, sources, libs=()):
        self.sources, self.libs = sources, list(libs)
        self.objects = tempfile.TemporaryDirectory(prefix="dmm-planted-")
        self.built = {}

    def object_of(self, source):
        return os.path.join(self.objects.name, source.replace("/", "_") + ".o")

    def compile(self, tree, source, to):
        """What the compiler says, None where all is well."""
        p = subprocess.run([os.environ.get("CC") or "gcc", "-std=gnu11",
                            *shlex.split(os.environ.get("CFLAGS") or "-O1"), "-Iinclude",
                            "-Iuserspace", "-Itests/lib", *[f for f in self.libs if f[:2] == "-I"],
                            "-c", source, "-o", to], cwd=tree, capture_output=True, text=True)
        return p.stderr if p.returncode else None

    def prepare(self, *tests):
        """Compiles all as it is. What went wrong, or None."""
        todo = [s for s in {*self.sources, *tests} if s not in self.built]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            said = pool.map(lambda s: self.compile(ROOT, s, self.object_of(s)), todo)
            self.built.update(zip(todo, said))
        return next((text for text in self.built.values() if text), None)

    def link(self, tree, test, changed):
        """(program, what went wrong) of @test, of which @changed sources are not as they were."""
        objects = []
        for source in [test, *self.sources]:
            objects.append(self.object_of(source))
            if source in changed:
                objects[-1] = os.path.join(tree, source + ".o")
                wrong = None if os.path.exists(objects[-1]) else \
                    self.compile(tree, source, objects[-1])
                if wrong:
                    return None, wrong
        program = os.path.join(tree, os.path.basename(test) + ".program")
        p = subprocess.run([os.environ.get("CC") or "gcc", *objects, *self.libs, "-o", program],
                           capture_output=True, text=True)
        return program, p.stderr if p.returncode else None

    def attempt(self, test, patch, args=()):
        """(test passed?, what went wrong before it could run, its output)"""
        with tempfile.TemporaryDirectory(prefix="dmm-planted-") as tree:
            for folder in COPIED:
                shutil.copytree(os.path.join(ROOT, folder), os.path.join(tree, folder))
            wrong = apply(patch, tree) if patch else None
            if wrong:
                return None, "does not apply", wrong
            wrong = self.prepare(test)
            program = None
            if not wrong:
                program, wrong = self.link(tree, test, self.changed_by(patch, test))
            if wrong:
                return None, "does not build", wrong
            return run([program, *args])

    def changed_by(self, patch, test):
        """Which sources a patch changes; a header may be in all."""
        if not patch:
            return set()
        with open(patch) as f:
            named = set(re.findall(r"^\+\+\+ b/(\S+)", f.read(), re.M))
        everything = {test, *self.sources}
        return everything if any(n.endswith(".h") for n in named) else named & everything


def apply(patch, tree):
    """What patch says, None where all is well."""
    with open(patch) as f:
        p = subprocess.run(["patch", "-p1", "--batch", "--fuzz=0"], cwd=tree, stdin=f,
                           capture_output=True, text=True)
    return p.stdout + p.stderr if p.returncode else None


def run(argv):
    env = {**os.environ, "CMOCKA_MESSAGE_OUTPUT": "TAP"}
    env.pop("LONG", None)
    try:
        p = subprocess.run(argv, cwd=ROOT, env=env, timeout=TIMEOUT, capture_output=True, text=True,
                           errors="replace")
    except subprocess.TimeoutExpired:
        return None, "still runs after %d s" % TIMEOUT, ""
    output = p.stdout + p.stderr
    if p.returncode == 0:
        return True, None, output
    if p.returncode > 0 and "\nnot ok" not in "\n" + p.stdout:
        return None, "exits with %d before any result" % p.returncode, output
    return False, None, output


def main(args):
    try:
        first = args.index("--")
        second = args.index("--", first + 1)
    except ValueError:
        sys.exit(__doc__)
    test, = args[:first]
    sources, patches = sources_of(args[first + 1:second]), args[second + 1:]
    bench = Bench(sources, libraries())
    bench.prepare(test)
    failed = 0
    print("1..%d" % (len(patches) + 1), flush=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda p: bench.attempt(test, p), [None, *patches])
        for number, (patch, result) in enumerate(zip([None, *patches], results), 1):
            passed, fault, output = result
            what = "%s is caught" % os.path.basename(patch) if patch else "passes without a patch"
            ok = fault is None and passed == (patch is None)
            failed += not ok
            print("%s %d - %s: %s" % ("ok" if ok else "not ok", number, os.path.basename(test),
                                      what), flush=True)
            if not ok:
                for line in ([fault] if fault else []) + output.splitlines()[-20:]:
                    print("#   " + line)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
