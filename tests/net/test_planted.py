#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tests that never fail prove nothing: each patch tests/planted/net-* plants a bug in a copy of the
tree, and the test that is there to find it must. A build or start that fails finds nothing."""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from copytree import BUILT, Copy
from dmmtest import long_test, main, test

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


@long_test
def a_policy_that_is_deleted_first_is_found(w):
    finds("net-swap-emptied-slot.patch", "test_swap.py", "no_connect_sees_half_a_policy",
          r"met no policy|no rule decided|against their generation", SWAPS="500")


if __name__ == "__main__":
    main(lambda: None)  # needs no world of its own
