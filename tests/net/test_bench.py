#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`make bench` measures each of its rows in each column, says so in its table, and leaves nothing. No
figure is judged: a fault shows as one that is missing."""

import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import ROOT, main, sh, test

sys.path.insert(0, os.path.join(ROOT, "tools/bench"))
sys.dont_write_bytecode = True
from hosts import PRICES, ROWS  # noqa: E402
from report import COLUMNS  # noqa: E402

ROUNDS = 3  # of --quick


@test
def every_row_has_every_column(_):
    with tempfile.NamedTemporaryFile() as f:
        bench = subprocess.Popen([os.path.join(ROOT, "tools/bench/run"), "--quick", "--json",
                                  f.name], stdout=subprocess.PIPE, text=True)
        said, _ = bench.communicate(timeout=400)
        assert bench.returncode == 0, said
        got = json.load(f)
    print(f"# {got['took_seconds']} s")
    assert got["errors"] == [] and list(got["rows"]) == list(ROWS), got["errors"]
    for row, columns in got["rows"].items():
        assert list(columns) == list(COLUMNS), (row, list(columns))
        for name, summary in columns.items():
            for of in ("figure", "ratio"):
                values = summary[of]["rounds"]
                assert len(values) == ROUNDS and all(v > 0 for v in values), (row, name, summary)
        assert f"\n{row} " in said, f"the table lacks {row}"
    for column in COLUMNS.values():
        assert column[2] in said, f"the table lacks {column[2]}"
    cgroups = [c["cgroup"] for c in got["connect"]]
    assert cgroups == ["no hook", "empty hook", "kernel verdict by DMM", "the same, 10 rules",
                       "the same, 10000 rules", "steered"], cgroups
    assert len(got["prices"]) == len(PRICES), got["prices"]
    assert all(p["columns"][c]["median"] > 0 for p in got["prices"] for c in COLUMNS), got["prices"]
    assert all(c["call"] > 0 and c["up"] > 0 for c in got["connect"]), got["connect"]
    assert len(got["xdp"]) >= 5 and all(x["ns"] > 0 for x in got["xdp"]), got["xdp"]
    assert f"dmm-{bench.pid}-" not in sh("ip", "netns").stdout, "it left network namespaces"


if __name__ == "__main__":
    main(lambda: None)
