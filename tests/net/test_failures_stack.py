#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The k-th allocation of an instance or of its plug-in fails, while it starts or while it carries: no crash,
no wrong byte, no stall; a start that cannot be is said, a flow that cannot be is refused or reset. Some
of the k of the start and some of the many of its work; with LONG=1 all and more.
    SEED=n  which ones"""

import errno
import hashlib
import os
import random
import re
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import OUT, amount, connected, echo, main, test, wait_for
from manager import ManagedWorld

STARTS = 20  # about so many are the start's
SOME_STARTS, SOME_LATER = amount(8, STARTS), amount(16, 500)
# lwIP needs its timers, and asserts them
ASSERTED = "its last words: in create of plug-in 'lwip'"
SHIM = os.path.join(OUT, "tests/net/failat.so")
ECHO = 8751
SIZE = 100_000
HONEST = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)


class StackFailureWorld(ManagedWorld):
    def __init__(self):
        super().__init__()
        self.serve(echo, ECHO)
        self.count = f"{self.dir}/count"
        self.start_dmmd()

    def life(self, at):
        """One instance from start to stop with a failure on its way: "start" (it did not come up), else
        how many flows got through, of how many."""
        with open(self.count, "wb") as f:
            os.fchmod(f.fileno(), 0o666)
        self.manage(LD_PRELOAD=SHIM, FAIL_KIND="malloc", FAIL_AT=at, FAIL_COUNT=self.count, FAIL_ALSO="lwip")
        try:
            r = self.apply(self.policy(), check=False)
            if r.returncode:
                # of one that goes before it can say anything the journal has the words
                assert r.returncode == 1 and any(
                    words in r.stderr for words in ("memory", ASSERTED, "no instance stayed")), r.stderr
                return "assertion" if ASSERTED in r.stderr else "start"
            ends = self.call(carry, (self.server4, self.server6), cgroup="/fast", timeout=120)
            wait_for("its flows are gone", lambda: self.instance()["flows"] == 0)
            return ends
        finally:
            self.apply(self.policy(rules=" []").replace("[{name: fast, plugin", "[]  # [{"))
            wait_for("it is gone", lambda: not self.instances_left())
            self.unmanage()


def carry(addrs):
    """Echoes of known bytes, some at a time; each whole, or honestly refused or reset: how often which."""
    ends = {"whole": 0}
    for i in range(3):
        socks = []
        for addr in addrs * 2:
            try:
                socks.append(connected(addr, ECHO))
            except OSError as e:
                assert e.errno in HONEST, e
                ends["refused"] = ends.get("refused", 0) + 1
        for n, s in enumerate(socks):
            how = echoed(s, bytes([i, n]) * (SIZE // 2))
            ends[how] = ends.get(how, 0) + 1
    return ends


def echoed(s, data):
    try:
        with s:
            s.sendall(data)
            back = hashlib.sha256()
            left = len(data)
            while left:
                piece = s.recv(left)
                assert piece, "a clean end in the middle"
                back.update(piece)
                left -= len(piece)
    except OSError as e:
        assert e.errno in HONEST, e
        return "reset"
    assert back.digest() == hashlib.sha256(data).digest(), "other bytes came back"
    return "whole"


@test
def allocations_that_fail(w):
    whole = w.life(0)
    assert whole == {"whole": 12}, whole
    with open(w.count, "rb") as f:
        n = int.from_bytes(f.read(8), "little")
    assert n > STARTS + SOME_LATER, f"only {n}: is the shim in it?"
    rng = random.Random(int(os.environ.get("SEED", 0)) or 1)
    ks = sorted(rng.sample(range(1, STARTS + 1), SOME_STARTS) + rng.sample(range(STARTS + 1, n + 1), SOME_LATER))
    starts, ends = {}, {}
    for k in ks:
        try:
            came = w.life(k)
        except AssertionError as e:
            raise AssertionError(f"failure of {k}: {e}") from e
        if isinstance(came, str):
            starts[came] = starts.get(came, 0) + 1
            continue
        assert came["whole"] > 0, f"the failure of {k} was more than one flow's: {came}"
        for how, count in came.items():
            ends[how] = ends.get(how, 0) + count
    print(f"# {len(ks)} of {n} allocations failed: not started {starts}, {ends}")
    with open(f"{w.dir}/manager.log") as f:
        said = f.read()
    codes = list(map(int, re.findall(r"died with code (\d+)", said)))
    aborted = codes.count(signal.SIGABRT)
    assert set(codes) <= {0, 1, signal.SIGABRT}, f"ended with {set(codes)}"
    assert aborted == starts.get("assertion", 0) == said.count("Assertion"), f"{aborted} aborted of {starts}"


main(StackFailureWorld)
