#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What `make bench` makes of its figures: medians, ratios to the baseline of the same round, holes."""

import contextlib
import io
import os
import re
import sys
import xml.etree.ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools/bench"))
sys.dont_write_bytecode = True
import goodput  # noqa: E402
import picture  # noqa: E402
import report  # noqa: E402
from hosts import ALONE_PORT, BASELINE, ECHO, PAIRS, POINTS, ROWS, SEND, SWALLOW  # noqa: E402

tests = []


def test(fn):
    tests.append(fn)
    return fn


def rounds(*pairs):
    """Rounds with a connection rate of the baseline and of the row, None: not measured."""
    return [{name: {"crr": {"per_second": v}} if v is not None else {}
             for name, v in ((BASELINE, base), ("row", row))} for base, row in pairs]


def summary(*pairs, row="row"):
    return report.summarize(rounds(*pairs), row, "crr")


@test
def an_odd_number_of_rounds():
    got = summary((10, 20), (20, 10), (10, 30))
    assert got["figure"] == {"median": 20, "low": 10, "high": 30, "rounds": [20, 10, 30]}, got
    # of the rounds' own ratios: not 20 / 10, the ratio of the medians
    assert got["ratio"] == {"median": 2, "low": 0.5, "high": 3, "rounds": [2, 0.5, 3]}, got


@test
def an_even_number_of_rounds():
    got = summary((10, 20), (10, 40))
    assert got["figure"]["median"] == 30 and got["ratio"]["median"] == 3, got


@test
def the_baseline_is_one():
    assert summary((10, 1), (30, 1), row=BASELINE)["ratio"]["rounds"] == [1, 1]


@test
def what_is_missing_is_left_out():
    got = summary((10, None), (None, 20), (10, 30))
    assert got["figure"]["rounds"] == [20, 30] and got["ratio"]["rounds"] == [3], got
    assert summary((10, None)) == {"figure": None, "ratio": None}
    assert summary((0, 5))["ratio"] is None


@test
def the_interval_is_that_of_order_statistics():
    """Known values: of 9 the 2nd and the 8th hold the median with 96.1 %, of 15 the 4th and the 12th
    with 96.5 %, of 6 the whole with 96.9 %; of 5 even the whole has only 93.8 %."""
    for n, low in ((3, 1), (5, 1), (6, 1), (8, 1), (9, 2), (12, 3), (15, 4), (20, 6)):
        assert report.interval(list(range(n, 0, -1))) == (low, n + 1 - low), n


@test
def pairs_are_of_the_same_round():
    crr = [{row: {"crr": {"per_second": v}} for row, v in (("lo", a), ("lo_beside", b))}
           for a, b in ((10, 10), (20, 19), (40, 36))]
    line, = report.pairs(crr, ["crr"])
    assert (line["row"], line["of"]) == ("lo_beside", "lo")
    assert line["columns"]["crr"]["rounds"] == [1, 0.95, 0.9], line


@test
def xdp_figures_are_by_how_many_rules():
    def cases(floor, ns):
        return [{"case": "return XDP_PASS", "ns": floor, "over": 0.0},
                {"case": "redirect", "ns": ns, "over": ns - floor}]

    lines = report.xdp([{10: cases(20, 30), 10000: cases(20, 31)},
                        {10000: cases(21, 33), 10: cases(22, 33)},
                        {10: cases(20, 40), 10000: cases(24, 30)}])
    assert [line["case"] for line in lines] == ["return XDP_PASS", "redirect"], lines
    assert list(lines[1]["rules"]) == [10, 10000], lines
    assert lines[1]["rules"][10]["ns"]["rounds"] == [30, 33, 40], lines
    assert lines[1]["rules"][10000]["over"]["rounds"] == [11, 12, 6], lines
    # of the same round: 31 - 30, 33 - 33, 30 - 40
    assert lines[1]["more_rules"] == {"median": 0, "low": -10, "high": 1, "rounds": [1, 0, -10]}, lines
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        report.print_xdp(lines)
    line = next(row for row in said.getvalue().splitlines() if row.startswith("redirect"))
    assert re.split(" {2,}", line)[1:] == ["33.0 [30.0-40.0]", "+11.0 [+10.0 to +20.0]", "31.0 [30.0-33.0]",
                                    "+11.0 [+6.0 to +12.0]", "+0.0 [-10.0 to +1.0]"], line


@test
def rows_columns_and_ports_fit_each_other():
    assert all(row.base in ROWS and ROWS[row.base].family == row.family for row in ROWS.values())
    assert all(a in ROWS and b in ROWS for a, b, _ in PAIRS)
    assert all(column[0] in POINTS for column in report.COLUMNS.values())
    assert {p.connections for p in POINTS.values() if p.mode == "rr"} == {1, 32, 256}

    def defined(name, file):
        with open(os.path.join(ROOT, "tools/bench", file)) as f:
            return int(re.search(rf"#define {name}\s+(\d+)", f.read())[1])

    echo_ports = defined("ECHO_PORTS", "services.h")
    assert (ECHO, SWALLOW, SEND) == (0, echo_ports, echo_ports + 1)
    first, n = (defined(name, "alone_stack.h") for name in ("ALONE_FIRST_PORT", "ALONE_PORTS"))
    assert first <= ALONE_PORT and ALONE_PORT + SEND < first + n
    assert (first, first + n - 1) == tuple(defined(name, "floor.bpf.c")
                                           for name in ("FIRST_PORT", "LAST_PORT"))


@test
def cells_say_figure_ratio_and_spread():
    assert report.cell(summary((10, 20), (20, 10), (10, 30))) == "20.0 x2.00 [0.50-3.00]"
    assert report.cell(summary((10, None))) == "-"
    assert [report.number(v) for v in (0.123, 12.34, 1234.5, 12345)] == \
        ["0.12", "12.3", "1234", "12.3k"]


@test
def the_table_has_a_line_for_each_row():
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        report.print_rows({BASELINE: {"crr": summary((10, 20), row=BASELINE)},
                           "lwip_busy": {"crr": summary((10, None))}}, ["crr"])
    lines = [line.split("  ") for line in said.getvalue().splitlines()[:3]]
    assert [line[0] for line in lines] == ["row", BASELINE, "lwip_busy"], lines
    assert [line[-1] for line in lines] == \
        [report.COLUMNS["crr"][2], "10.0 x1.00 [1.00-1.00]", "-"], lines


@test
def goodput_is_the_ratio_of_medians_beside_what_is_expected():
    def of(cell, stack):
        line = goodput.line_of(cell, "up", {"kernel": [90, 100, 900], "stack": stack}, {})
        return line["ratio"], goodput.columns(line)[-1]
    assert of(goodput.Cell(1500, lost=1000), [10, 80, 81]) == (0.8, ">= 0.8")
    assert of(goodput.Cell(1500, lost=1000), [79, 79, 900]) == (0.79, ">= 0.8 missed")
    assert of(goodput.Cell(1500, lost=10000), [79, 79, 900]) == (0.79, ">= 0.7")
    assert len(set(goodput.CELLS)) == 64 and set(goodput.FEW) <= set(goodput.CELLS)


@test
def the_picture_has_a_line_for_each_ratio():
    drawn = picture.draw({BASELINE: {"crr": summary((10, 20), row=BASELINE)},
                          "lwip_busy": {"crr": report.summarize(
                              [{BASELINE: {"crr": {"per_second": 10}},
                                "lwip_busy": {"crr": {"per_second": v}}} for v in (5, 4, 2000)],
                              "lwip_busy", "crr")},
                          "lwip_alone": {"crr": summary((10, None))}})
    svg = xml.etree.ElementTree.fromstring(drawn)
    words = [t.text for t in svg.iter("{http://www.w3.org/2000/svg}text")]
    dots = list(svg.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(dots) == 1 and "lwip_busy" in words and "x0.50" in words, words
    assert "lwip_alone" not in words and BASELINE not in words, words
    assert 0 < float(dots[0].get("cx")) < picture.x_of(1), "half of the baseline lies left of it"


def main():
    failed = 0
    print(f"1..{len(tests)}")
    for number, fn in enumerate(tests, 1):
        name = fn.__name__.replace("_", " ")
        try:
            fn()
            print(f"ok {number} - {name}")
        except AssertionError as e:
            failed += 1
            print(f"not ok {number} - {name}\n# {e}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
