#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Each fuzzer over its corpus and then for a while on inputs of its own, as TAP.
    SEED=n
    LONG=1  ten minutes each instead of a number of runs

To let one grow its corpus:
    .output/tests/fuzz/fuzz_relay NEW_FOLDER tests/fuzz/corpus/relay
    .output/tests/fuzz/fuzz_relay -merge=1 tests/fuzz/corpus/relay NEW_FOLDER"""

import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
OUT = os.path.join(ROOT, os.environ.get("O") or ".output")
LONG = bool(os.environ.get("LONG"))
SECONDS = 600

# name: runs, longest input, more inputs to start from
FUZZERS = {
    "policy": (20000, 4096, ["policy/examples", "policy/wrong"]),
    "control": (60000, 2048, []),
    "packet": (1000000, 2048, []),
    "relay": (60000, 512, []),
    "net": (20000, 2048, []),
    "options": (100000, 64, []),
    "fragments": (8000, 1024, []),
    "icmp": (20000, 1024, []),
}


def fuzz(name, folder):
    """The last lines of its log where it found something, and what it did."""
    runs, longest, more = FUZZERS[name]
    corpus = [os.path.join(HERE, "corpus", name), *(os.path.join(ROOT, m) for m in more)]
    log = subprocess.run(
        [os.path.join(OUT, f"tests/fuzz/fuzz_{name}"), f"-seed={os.environ.get('SEED') or 1}",
         f"-max_total_time={SECONDS}" if LONG else f"-runs={runs}", f"-max_len={longest}",
         "-print_final_stats=1", "-timeout=60", "-rss_limit_mb=4096",
         f"-artifact_prefix={folder}/", folder, *corpus],
        capture_output=True, text=True, errors="replace")
    covered = re.findall(r"cov: (\d+)", log.stderr)
    done = re.search(r"number_of_executed_units: (\d+)", log.stderr)
    said = f"{done[1] if done else '?'} runs, {covered[-1] if covered else '?'} edges covered"
    if log.returncode == 0 and done and int(done[1]) >= len(os.listdir(corpus[0])):
        return None, said
    return log.stderr.splitlines()[-40:] + [f"{name}: exit {log.returncode}"], said


def main():
    failed = 0
    print(f"1..{len(FUZZERS)}")
    for number, name in enumerate(FUZZERS, 1):
        with tempfile.TemporaryDirectory(prefix=f"dmm-fuzz-{name}-") as folder:
            wrong, said = fuzz(name, folder)
        failed += bool(wrong)
        print(f"{'not ok' if wrong else 'ok'} {number} - {name} takes whatever comes", flush=True)
        print(f"# {said}")
        for line in wrong or ():
            print(f"# {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
