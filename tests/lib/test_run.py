#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The test runner's own test: each way a test can go wrong must be counted as a failure."""

import os
import subprocess
import sys
import tempfile
import time

RUN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run")

# name, body of a shell script, environment, its last line, texts that must be in the output
CASES = [
    ("passing", "echo 1..2; echo 'ok 1 - a'; echo 'ok 2 - b'", {}, "2 passed, 0 failed", []),
    ("plan_last", "echo 'ok 1 - a'; echo 1..1", {}, "1 passed, 0 failed", []),
    ("two_groups", "echo 1..1; echo 'ok 1 - a'; echo 1..1; echo 'ok 1 - b'", {},
     "2 passed, 0 failed", []),
    ("failing", "echo 1..2; echo 'ok 1 - a'; echo 'not ok 2 - b'; echo '# why'; exit 1", {},
     "1 passed, 1 failed", ["not ok 2 - b", "# why"]),
    ("failing_but_exit_0", "echo 1..1; echo 'not ok 1 - b'", {}, "0 passed, 1 failed", []),
    ("todo_is_no_pass", "echo 1..1; echo 'not ok 1 - b # TODO later'", {},
     "0 passed, 1 failed", []),
    ("crashing", "echo 1..1; echo 'ok 1 - a'; kill -SEGV $$", {}, "1 passed, 1 failed",
     ["killed by SIGSEGV"]),
    ("non_zero_exit", "echo 1..1; echo 'ok 1 - a'; exit 3", {}, "1 passed, 1 failed",
     ["exit status 3"]),
    ("hanging", "echo 1..1; echo 'ok 1 - a'; sleep 60", {"DMM_TEST_TIMEOUT": "0.5"},
     "1 passed, 1 failed", ["still running"]),
    ("hanging_with_closed_output", "exec >&- 2>&-; sleep 60", {"DMM_TEST_TIMEOUT": "0.5"},
     "0 passed, 1 failed", ["still running"]),
    ("plan_short", "echo 1..3; echo 'ok 1 - a'; echo 'ok 2 - b'", {}, "2 passed, 1 failed",
     ["2 results for a plan of 3"]),
    ("plan_exceeded", "echo 1..1; echo 'ok 1 - a'; echo 'ok 2 - b'", {}, "2 passed, 1 failed", []),
    ("no_plan", "echo 'ok 1 - a'", {}, "1 passed, 1 failed", ["no plan"]),
    ("empty", "exit 0", {}, "0 passed, 1 failed", ["no plan"]),
    ("zero_tests", "echo 1..0", {}, "0 passed, 1 failed", ["no tests"]),
    ("bail_out", "echo 1..1; echo 'ok 1 - a'; echo 'Bail out! no tap device'", {},
     "1 passed, 1 failed", ["no tap device"]),
    ("stderr_is_not_tap", "echo 1..1; echo 'ok 1 - a' >&2", {}, "0 passed, 1 failed", []),
    ("skips", "echo 1..3; echo 'ok 1 - a'; echo 'ok 2 - b # SKIP no netem'; "
     "echo 'ok 3 - c # skip no netem'", {}, "1 passed, 0 failed", ["# skipped 2: no netem"]),
    ("only_skips_is_no_success", "echo '1..0 # SKIP no kernel'", {}, "0 passed, 0 failed",
     ["# skipped 1: no kernel"]),
    ("cmocka_skip", "echo 1..3; echo 'ok 1 - a'; echo '# skip: no bpf()'; "
     "echo 'not ok 2 # SKIP b'; echo 'not ok 3 # SKIP c'", {}, "1 passed, 0 failed",
     ["# skipped 1: no bpf()", "# skipped 1: no reason given"]),
    ("cmocka_group_setup", "echo 1..2; echo 'not ok 0 - g [  FAILED  ] GROUP SETUP'; exit 1", {},
     "0 passed, 1 failed", []),
    ("last_line_without_newline", "echo 1..1; printf 'ok 1 - a'", {}, "1 passed, 0 failed", []),
    ("daemon_left_behind", "echo 1..1; setsid sleep 60 & sleep 0.1; echo 'ok 1 - a'", {},
     "1 passed, 0 failed", ["left running, killed: sleep"]),
    ("the_plug_in", "echo 1..2; echo '# over a'; echo 'ok 1 - x'; echo '# over b'; echo 'ok 2 - x'", {},
     "2 passed, 0 failed", ["the_plug_in over a, b: 2 passed"]),
    ("t_picks_tests", "test $T = steer; echo 1..2; echo 'ok 1 - steer_v4'; echo 'ok 2 - other'",
     {"T": "steer"}, "1 passed, 0 failed", []),
    ("t_picks_files", "test -z \"$T\" || exit 9; echo 1..1; echo 'ok 1 - other'",
     {"T": "picks_files"}, "1 passed, 0 failed", []),
    ("t_picks_python_tests", "echo 1..1; echo 'ok 1 - it is killed again' # it_is_killed_again",
     {"T": "is_killed"}, "1 passed, 0 failed", []),
    ("t_picks_nothing", "echo 1..1; echo 'ok 1 - other'", {"T": "nonexistent"},
     "0 passed, 0 failed", ["named like 'nonexistent'"]),
]


def run(files, env):
    full = {k: v for k, v in os.environ.items() if k not in ("T", "V", "DMM_TEST_TIMEOUT")}
    p = subprocess.run([RUN, *files], env={**full, **env}, capture_output=True, text=True)
    return p.returncode, p.stdout


def script(folder, name, body):
    path = os.path.join(folder, name)
    with open(path, "w") as f:
        f.write("#!/bin/sh\n%s\n" % body)
    os.chmod(path, 0o755)
    return path


def case_fails(folder, name, body, env, last, texts):
    """What is wrong with the runner in this case, as a list of sentences."""
    start = time.monotonic()
    status, out = run([script(folder, name, body)], env)
    wrong = []
    want = 0 if last.endswith(" 0 failed") and not last.startswith("0 ") else 1
    if out.splitlines()[-1] != last:
        wrong.append("last line '%s', not '%s'" % (out.splitlines()[-1], last))
    if status != want:
        wrong.append("exit status %d, not %d" % (status, want))
    wrong += ["output lacks '%s'" % t for t in texts if t not in out]
    if time.monotonic() - start > 20:
        wrong.append("took too long")
    return wrong


def many_files_fail(folder):
    """A good file does not hide a bad one, nor a missing one."""
    good = script(folder, "good", "echo 1..1; echo 'ok 1 - a'")
    bad = script(folder, "bad", "echo 1..1; echo 'not ok 1 - a'")
    status, out = run([bad, good, os.path.join(folder, "missing")], {})
    last = out.splitlines()[-1]
    return [] if (status, last) == (1, "1 passed, 2 failed") else ["%d: %s" % (status, last)]


def no_files_fail(_folder):
    status, out = run([], {})
    return [] if (status, out) == (1, "0 passed, 0 failed\n") else [out]


def beside_fail(folder):
    """Two lanes run at once, leave each other's processes alone, and are one sum."""
    meet = "touch %s/%%s; n=0; while ! test -e %s/%%s; do n=$((n+1)); test $n -lt 200 || exit 1; sleep 0.05; done; " \
           "echo 1..2; echo ok 1 - a; echo 'ok 2 - b # skip why'" % (folder, folder)
    one, other = script(folder, "one", meet % ("x", "y")), script(folder, "other", meet % ("y", "x"))
    quick = script(folder, "quick", "echo 1..1; echo 'not ok 1 - c'")
    slow = script(folder, "slow", "sleep 1 & wait; echo 1..1; echo 'ok 1 - d'")
    status, out = run([one, quick, quick, "--beside", other, slow], {})
    if (status, out.splitlines()[-2:]) != (1, ["# skipped 2: why", "3 passed, 2 failed"]):
        return [out]
    killed = script(folder, "killed", "kill -9 $(ps -o ppid= -p $$); sleep 5")
    status, out = run([script(folder, "good2", "echo 1..1; echo 'ok 1 - a'"), "--beside", killed], {})
    return [] if status == 1 and out.endswith("\n1 passed, 1 failed\n") else [out]


def user_files_fail(folder):
    """--user drops root; --root is a skip without it."""
    os.chmod(folder, 0o755)
    body = "echo 1..1; test $(id -u) != 0 && echo 'ok 1 - not root'"
    status, out = run(["--user", script(folder, "user", body)], {})
    if (status, out.splitlines()[-1]) != (0, "1 passed, 0 failed"):
        return [out]
    if os.geteuid() == 0:
        return []
    status, out = run(["--root", script(folder, "root", "exit 1")], {})
    return [] if out == "# skipped 1: needs root\n0 passed, 0 failed\n" else [out]


def main():
    tests = [(c[0], lambda d, c=c: case_fails(d, *c)) for c in CASES]
    tests += [("many_files", many_files_fail), ("no_files", no_files_fail), ("beside", beside_fail),
              ("privileges", user_files_fail)]
    failed = 0
    print("1..%d" % len(tests))
    for number, (name, fails) in enumerate(tests, 1):
        with tempfile.TemporaryDirectory() as folder:
            wrong = fails(folder)
        print("%s %d - %s" % ("not ok" if wrong else "ok", number, name), flush=True)
        for text in wrong:
            print("# " + text.replace("\n", "\n# "))
        failed += bool(wrong)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
