#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The requirements of RFC 9293 against the tests that show them.

The list (rfc9293.txt) is complete; what must or should be has a test with its tag or a written
exception; no tag names nothing. Then tagged tests prove that they can fail: the code behind ten tags
is broken by tests/planted/rfc9293-*.patch (SEED=n picks the same ones again, LONG=1 takes all), and
of the scripts with that tag one must fail.
"""

import concurrent.futures
import glob
import os
import random
import re
import sys

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
sys.path.insert(0, os.path.join(ROOT, "tests/lib"))

import planted  # noqa: E402

NUMBERS = {"MUST": 69, "SHLD": 31, "MAY": 18, "REC": 1}
AT_A_TIME = 10
LEAST_PATCHES = 25
ID = r"(?:MUST|SHLD|MAY|REC)-\d+"
TAGS = re.compile(r"RFC9293 (%s(?:, %s)*)" % (ID, ID))
LIKE_A_TAG = re.compile(r"rfc ?9293,? +(?:MUST|SHLD|SHOULD|MAY|REC)[- ]\d", re.I)
SCRIPTS = ("tests/script/*.script", "tests/script/*.table")
DRIVERS = ("tests/script/test_script.c", "tests/script/test_state.c")
TESTS = SCRIPTS + ("tests/unit/test_net_*.c", "tests/sim/test_*.c")


def files(patterns):
    return sorted(os.path.relpath(f, ROOT) for p in patterns
                  for f in glob.glob(os.path.join(ROOT, p)))


def text_of(name):
    with open(os.path.join(ROOT, name)) as f:
        return f.read()


def requirements(text):
    """{id: its exception or None}, and what is wrong with the list."""
    found, wrong, last = {}, [], None
    for number, line in enumerate(text.splitlines(), 1):
        if m := re.match(r"(%s) +\S.*\.$" % ID, line):
            last = m[1]
            if last in found:
                wrong.append("line %d: %s is there twice" % (number, last))
            found[last] = None
        elif (m := re.match(r"\texcept: (\S.*)", line)) and last:
            found[last] = m[1]
        elif line and not line.startswith("#"):
            wrong.append("line %d is neither a requirement nor an exception" % number)
    every = {"%s-%d" % (kind, n) for kind, most in NUMBERS.items() for n in range(1, most + 1)}
    wrong += ["%s is missing" % i for i in sorted(every - set(found))]
    wrong += ["%s is none of the RFC's" % i for i in sorted(set(found) - every)]
    return found, wrong


def tags(names):
    """{id: files that carry it}"""
    found = {}
    for name in names:
        for m in TAGS.finditer(text_of(name)):
            for i in m[1].split(", "):
                found.setdefault(i, set()).add(name)
    return found


def odd_tags(names):
    """What looks like a tag and is none."""
    return ["%s: '%s' is no tag" % (name, m[0]) for name in names
            for m in LIKE_A_TAG.finditer(text_of(name)) if not TAGS.match(text_of(name)[m.start():])]


def untested(found, tagged):
    return ["%s has neither a test nor an exception" % i for i, why in found.items()
            if not i.startswith("MAY") and not why and i not in tagged]


def unknown(found, tagged):
    return ["%s: there is no %s" % (name, i) for i, names in tagged.items() for name in names
            if i not in found]


def patches():
    """[(file, tag)], and what is wrong with them."""
    found, wrong = [], []
    tagged = tags(files(SCRIPTS))
    for name in files(["tests/planted/rfc9293-*.patch"]):
        m = TAGS.search(text_of(name))
        if not m or m[1] not in tagged:
            wrong.append("%s names no tag of a script" % name)
        else:
            found.append((name, m[1], sorted(tagged[m[1]])))
    if len(found) < LEAST_PATCHES:
        wrong.append("only %d patches" % len(found))
    return found, wrong


def outcome(bench, patch, scripts):
    """(whether @scripts pass, what they said) with @patch, None: without."""
    said = ""
    for driver, ending in zip(DRIVERS, (".script", ".table")):
        names = [s for s in scripts if s.endswith(ending)]
        if not names:
            continue
        passed, fault, output = bench.attempt(driver, patch and os.path.join(ROOT, patch), names)
        said += "%s\n%s" % (fault or "", output[-900:])
        if fault:
            return None, said
        if not passed:
            return False, said
    return True, said


def wrong_unless(want, result):
    passed, said = result
    return [] if passed is want else ["passes" if passed else "fails"] + said.splitlines()


class Tap:
    def __init__(self, plan):
        self.number = self.failed = 0
        print("1..%d" % plan, flush=True)

    def result(self, what, wrong):
        self.number += 1
        self.failed += bool(wrong)
        print("%s %d - %s" % ("not ok" if wrong else "ok", self.number, what), flush=True)
        for line in wrong:
            print("#   " + line)


def main():
    seed = int(os.environ.get("SEED") or random.randrange(1 << 32))
    names = files(TESTS)
    found, wrong_list = requirements(text_of("tests/rfc/rfc9293.txt"))
    tagged = tags(names)
    every, wrong_patches = patches()
    picked = every if os.environ.get("LONG") else \
        random.Random(seed).sample(every, min(AT_A_TIME, len(every)))
    tap = Tap(5 + len(picked))
    tap.result("the list is complete", wrong_list)
    tap.result("each MUST and SHOULD has a test or an exception", untested(found, tagged))
    tap.result("each tag names a requirement", unknown(found, tagged) + odd_tags(names))
    tap.result("patches have tags of scripts", wrong_patches)
    os.environ.setdefault("CFLAGS", "-O0 -w")
    helpers = [f for f in files(["tests/script/*.c"]) if "/test_" not in f]
    bench = planted.Bench(helpers + files(["userspace/net/*.c"]))
    bench.prepare(*DRIVERS)
    scripts = sorted({s for _, _, scripts in picked for s in scripts})
    tap.result("their scripts pass", wrong_unless(True, outcome(bench, None, scripts)))
    print("# SEED=%d" % seed)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda p: outcome(bench, p[0], p[2]), picked)
        for (name, tag, _), result in zip(picked, results):
            tap.result("%s fails with %s" % (tag, os.path.basename(name)),
                       wrong_unless(False, result))
    return 1 if tap.failed else 0


if __name__ == "__main__":
    sys.exit(main())
