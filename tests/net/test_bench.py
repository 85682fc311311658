#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`make bench` measures each of its rows in each column, says so in its table, and leaves nothing. No
figure is judged: a fault shows as one that is missing."""

import json
import math
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import LONG, OUT, ROOT, SLOW, cgroup2_mount, main, sh, test

sys.path.insert(0, os.path.join(ROOT, "tools/bench"))
sys.dont_write_bytecode = True
from hosts import BASELINE, BASELINE6, PAIRS, ROWS  # noqa: E402
from report import COLUMNS  # noqa: E402

ROUNDS = 2


def bench(*args, rounds=ROUNDS, **env):
    """Its exit status, table and figures; it left nothing."""
    with tempfile.NamedTemporaryFile() as f:
        run = subprocess.Popen([os.path.join(ROOT, "tools/bench/run"), "--quick", "--rounds",
                                str(rounds), "--json", f.name, *args], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, **env})
        try:
            said, _ = run.communicate(timeout=400 * SLOW)
        finally:
            run.terminate()  # it removes its hosts then
            run.wait(60)
        assert f"dmm-{run.pid}-" not in sh("ip", "netns").stdout, "it left network namespaces"
        assert f"dmm-test-{run.pid}-" not in " ".join(
            os.listdir("/sys/fs/bpf") + os.listdir(cgroup2_mount())), "it left pins or cgroups"
        try:
            return run.returncode, said, json.load(f)
        except ValueError:
            raise AssertionError(f"exit {run.returncode}, no figures:\n{said}") from None


def judge(summary, rounds=ROUNDS):
    """Positive figures of all rounds, and their spread."""
    for of in ("figure", "ratio"):
        s = summary[of]
        assert len(s["rounds"]) == rounds, summary
        assert all(math.isfinite(v) and v > 0 for v in s["rounds"]), summary
        # of two rounds the interval is all there is
        assert s["low"] == min(s["rounds"]) <= s["median"] <= s["high"] == max(s["rounds"]), summary


def figures(said, got, rows, columns):
    """All of these, once, in the table too."""
    assert got["errors"] == [] and list(got["rows"]) == list(rows), got["errors"]
    for row in rows:
        assert list(got["rows"][row]) == list(columns), (row, list(got["rows"][row]))
        for summary in got["rows"][row].values():
            judge(summary, 1)
        assert f"\n{row} " in said, f"the table lacks {row}"
    for column in columns:
        assert COLUMNS[column][2] in said, f"the table lacks {COLUMNS[column][2]}"


@test
def every_row_has_a_figure(_):
    """With LONG each in every column."""
    columns = COLUMNS if LONG else ["p50", "rr1"]  # by one measurement
    status, said, got = bench("--only", ",".join([*ROWS, *columns]), rounds=1)
    print(f"# {got['took_seconds']} s")
    assert status == 0, said
    figures(said, got, ROWS, columns)
    assert len(got["pairs"]) == len(PAIRS), got["pairs"]
    assert all(p["columns"][c]["median"] > 0 for p in got["pairs"] for c in columns), got["pairs"]


@test
def every_column_and_cost_has_a_figure(_):
    status, said, got = bench("--only", "native_adaptive,connect,xdp,matcher,engine", rounds=1)
    print(f"# {got['took_seconds']} s")
    assert status == 0, said
    figures(said, got, [BASELINE, "native_adaptive"], COLUMNS)
    cgroups = [c["cgroup"] for c in got["connect"]]
    assert cgroups == ["no hook", "empty hook", "kernel verdict by DMM", "the same, 10 rules",
                       "the same, 10000 rules", "steered"], cgroups
    for c in got["connect"]:
        assert len(c["call"]) == len(c["up"]) > 1 and min(c["call"]) > 0, c
        assert all(call < up for call, up in zip(c["call"], c["up"])), c
    assert [m["rules"] for m in got["matcher"]] == [10, 10000], got["matcher"]
    assert all(m["ns"] > 0 and m["hits"] * 3 // 2 in range(99999, 100002) for m in got["matcher"])
    assert all(r["segments"] >= 100000 and min(r.values()) > 0 for r in got["engine"]), got["engine"]
    assert len(got["xdp"]) >= 5 and all(
        list(x["rules"]) == ["10", "10000"] and min(of["ns"]["low"] for of in x["rules"].values()) > 0
        for x in got["xdp"]), got["xdp"]


@test
def only_what_is_asked_for_is_measured(_):
    status, said, got = bench("--only", "kernel_on,lwip_adaptive6,p50,rr1")
    assert status == 0, said
    assert list(got["rows"]) == ["kernel_on", BASELINE, BASELINE6, "lwip_adaptive6"], got["rows"]
    for columns in got["rows"].values():
        assert list(columns) == ["p50", "rr1"], list(columns)
        for summary in columns.values():
            judge(summary)
    assert got["rows"][BASELINE]["rr1"]["ratio"]["rounds"] == [1] * ROUNDS
    assert "connect" not in got and "xdp" not in got and got["pairs"] == [], got


@test
def what_cannot_be_measured_is_said(_):
    """A client that ends badly: no figure, no round left out in silence, and no success."""
    with tempfile.TemporaryDirectory() as out:
        for folder in ("", "bench"):
            os.makedirs(f"{out}/{folder}", exist_ok=True)
            for name in os.listdir(f"{OUT}/{folder}"):
                if name not in ("bench", "load"):
                    os.symlink(f"{OUT}/{folder}/{name}", f"{out}/{folder}/{name}")
        with open(f"{out}/bench/load", "w") as f:
            f.write("#!/bin/sh\necho no luck >&2\nexit 3\n")
        os.chmod(f.name, 0o755)
        status, said, got = bench("--only", "lwip_adaptive,rr1", O=out)
    assert status == 1, (status, said)
    want = [f"{row}, rr1, round {n}: client ended with 3: no luck"
            for row in (BASELINE, "lwip_adaptive") for n in range(1, ROUNDS + 1)]
    assert sorted(got["errors"]) == want and all(f"NOT MEASURED: {w}\n" in said for w in want), said
    for row in (BASELINE, "lwip_adaptive"):
        assert got["rows"][row]["rr1"] == {"figure": None, "ratio": None}, got["rows"]
        assert [line.split()[1:] for line in said.splitlines() if line.startswith(f"{row} ")
                and line.endswith(" -")] == [["-"]], said


if __name__ == "__main__":
    main(lambda: None)
