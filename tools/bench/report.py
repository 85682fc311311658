# SPDX-License-Identifier: Apache-2.0
"""Figures of the rounds -> medians, ratios to the baseline round by round, tables, JSON."""

import math
import os
import platform
import re
import statistics

import goodput
from hosts import BASELINE, PAIRS, ROWS

# column: point, key of the client's result, head, whether more is better
COLUMNS = {
    "p50": ("rr1", "p50_us", "RTT 64 B p50 us", False),
    "p99": ("rr1", "p99_us", "p99 us", False),
    "rr1": ("rr1", "per_second", "req/s, 1 conn", True),
    "rr32": ("rr32", "per_second", "req/s, 32 conns", True),
    "rr256": ("rr256", "per_second", "req/s, 256 conns", True),
    "cpu": ("rr32", "cpu_us", "CPU us/req, 32", False),
    "send": ("send", "gbps", "client->server Gb/s", True),
    "recv": ("recv", "gbps", "server->client Gb/s", True),
    "crr": ("crr", "per_second", "conn/s, 8 slots", True),
}


def machine(hosts):
    with open("/proc/cpuinfo") as f:
        model = re.search(r"model name\s*: (.*)", f.read())
    return {
        "kernel": platform.release(),
        "cpu": model[1] if model else platform.machine(),
        "cpus": os.cpu_count(),
        "cores": hosts.o.cores,
        "instance_runs_with": hosts.o.instance,
        "congestion_control": hosts.congestion_control(),
        "load_average": os.getloadavg()[0],
        "seconds": hosts.o.seconds,
        "rounds": hosts.o.rounds,
        "mode_of_c0": hosts.instance()["got"],
    }


def print_machine(m):
    c = m["cores"]
    print(f"Linux {m['kernel']}, {m['cpus']} x {m['cpu']}, load {m['load_average']:.1f} at the start")
    print(f"MTU 1500, congestion control {m['congestion_control']}; AF_XDP on veth: "
          f"{m['mode_of_c0']}")
    print(f"client on CPU {c['client']}, server on CPU {c['server']}, the instance with the "
          f"{m['instance_runs_with']}; {m['rounds']} rounds of {m['seconds']:g} s per point\n")


def print_noise(m):
    """A bench itself makes a load of about 2; what is there before it is somebody else's."""
    if m["load_average"] > 0.5:
        print(f"\nother work was running (load {m['load_average']:.1f} before, "
              f"{m['load_average_after']:.1f} after): look at the spreads, and see --nice")


def interval(values):
    """The least and the greatest of the @values between which the median lies with 95 %, by order
    statistics (no law of the figures is assumed); of fewer than 6 it is their whole spread."""
    n, below, k = len(values), 0.0, 0
    while True:
        below += math.comb(n, k) / 2 ** n  # so much falls below the k-th value
        if 1 - 2 * below < 0.95:
            break
        k += 1
    k = max(k, 1)
    ordered = sorted(values)
    return ordered[k - 1], ordered[n - k]


def spread(values):
    if not values:
        return None
    low, high = interval(values)
    return {"median": statistics.median(values), "low": low, "high": high, "rounds": values}


def ratios(rounds, row, base, column):
    """The figure of one row by that of another, round by round."""
    point, key, _, _ = COLUMNS[column]
    return spread([r[row][point][key] / r[base][point][key] for r in rounds
                   if r.get(row, {}).get(point, {}).get(key) is not None
                   and r.get(base, {}).get(point, {}).get(key)])


def summarize(rounds, row, column):
    """rounds: a list of {row: {point: result}}. The figure's spread, and that of its ratio to the row
    that it is compared with, of the same round; None where there is nothing."""
    point, key, _, _ = COLUMNS[column]
    figure = [r[row][point][key] for r in rounds if key in r.get(row, {}).get(point, {})]
    base = ROWS[row].base if row in ROWS else BASELINE
    return {"figure": spread(figure), "ratio": ratios(rounds, row, base, column)}


def pairs(rounds, columns):
    """Rows by others than their baseline."""
    return [{"row": row, "of": base, "what": what,
             "columns": {c: ratios(rounds, row, base, c) for c in columns}}
            for row, base, what in PAIRS if any(row in r and base in r for r in rounds)]


def number(v):
    if v >= 10000:
        return f"{v / 1000:.1f}k"
    return f"{v:.0f}" if v >= 1000 else f"{v:.1f}" if v >= 10 else f"{v:.2f}"


def cell(summary):
    figure, ratio = summary["figure"], summary["ratio"]
    if not figure:
        return "-"
    text = number(figure["median"])
    if ratio:
        text += f" {times(ratio)}"
    return text


def times(ratio):
    return f"x{ratio['median']:.2f} [{ratio['low']:.2f}-{ratio['high']:.2f}]" if ratio else "-"


def print_table(head, rows):
    rows = [head, *rows]
    widths = [max(len(r[i]) for r in rows) for i in range(len(head))]
    for r in rows:
        print("  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip(), flush=True)


def print_rows(summaries, columns):
    print_table(["row", *(COLUMNS[c][2] for c in columns)],
                [[name, *(cell(s[c]) for c in columns)] for name, s in summaries.items()])
    print("\nmedian of the rounds; xN: median of the rounds' ratios to the baseline of that row [its 95 % "
          "interval]")
    for name in summaries:
        base = "" if ROWS[name].base == name else f" (to {ROWS[name].base})"
        print(f"  {name:{max(map(len, summaries))}}  {ROWS[name].what}{base}")


def print_pairs(lines, columns):
    if not lines:
        return
    print("\none row's figure by another's, of the same round")
    print_table(["", *(COLUMNS[c][2] for c in columns)],
                [[p["what"], *(times(p["columns"][c]) for c in columns)] for p in lines])


def over_first(lines, key):
    """What each line's figures are over the first's, round by round."""
    return [spread([a - b for a, b in zip(line[key], lines[0][key])]) for line in lines]


def print_connect(lines):
    print("\nconnect(), non-blocking TCP, ns")
    print_table(["cgroup", "call", "over no hook", "until connected"],
                [[line["cgroup"], f"{statistics.median(line['call']):.0f}", signed(over),
                  f"{statistics.median(line['up']):.0f}"]
                 for line, over in zip(lines, over_first(lines, "call"))])
    print("call: connect() itself; on veth a SYN brings about the whole handshake within it. A "
          "steered SYN is\n  held on lo for the instance instead. Medians of batches in turns "
          "[95 % interval].")


def print_hook(lines):
    print("\nthe connect hook by itself (hot caches; to a place without a route, so that connect() ends "
          "behind it), ns")
    print_table(["cgroup", "connect()", "over an empty hook"],
                [[line["cgroup"], f"{statistics.median(line['ns']):.0f}", signed(over)]
                 for line, over in zip(lines, over_first(lines, "ns"))])


def xdp(rounds):
    """Rounds of {how many rules: the cases of xdp_cost} -> per case the spread of its ns and of what they
    are over XDP_PASS, by how many rules; and of the difference that the rules make in a round."""
    lines = []
    for name in [c["case"] for c in next(iter(rounds[0].values()))]:
        of = [{n: next(c for c in cases if c["case"] == name) for n, cases in r.items()}
              for r in rounds]
        few, many = min(of[0]), max(of[0])
        lines.append({"case": name,
                      "rules": {n: {key: spread([r[n][key] for r in of]) for key in ("ns", "over")}
                                for n in sorted(of[0])},
                      "more_rules": spread([r[many]["ns"] - r[few]["ns"] for r in of])})
    return lines


def signed(s):
    return f"{s['median']:+.1f} [{s['low']:+.1f} to {s['high']:+.1f}]"


def print_xdp(lines):
    print("\nXDP program of the flow door, ns per packet by test run (hot caches), with so many rules applied")
    counts = list(lines[0]["rules"])
    head = [f"{what}, {n} rules" for n in counts for what in ("ns", "over XDP_PASS")]
    print_table(["packet", *head, f"{counts[-1]} over {counts[0]} rules"],
                [[x["case"],
                  *(text for of in x["rules"].values()
                    for text in (f"{of['ns']['median']:.1f} [{of['ns']['low']:.1f}-"
                                 f"{of['ns']['high']:.1f}]", signed(of["over"]))),
                  signed(x["more_rules"])] for x in lines])
    print("medians of the rounds [95 % interval]; over: to `return XDP_PASS` in the same round. The "
          "program reads no rules:\n  connect() has applied them.")


def print_matcher(lines):
    print("\nthe matcher by itself, a look-up by address and port")
    print_table(["rules", "ns", "instructions"],
                [[str(m["rules"]), f"{m['ns']:.0f}",
                  f"{m['instructions']:.1f}" if "instructions" in m else "-"]
                 for m in lines])


def print_engine(rounds):
    print("\nthe native engine by itself, ns for each segment of 1448 bytes")
    steps = [k for k in rounds[0] if k != "segments"]
    print_table(steps + ["output + input + ack"],
                [[f"{statistics.median(r[k] for r in rounds):.0f}" for k in steps] +
                 [f"{statistics.median(r['output'] + r['input'] + r['ack'] for r in rounds):.0f}"]])


def print_goodput(lines, rounds, size, seconds):
    print(f"\ngoodput over a link of {goodput.RATE} Mbit/s, {goodput.DELAY} us each way; {size >> 20} MiB, or what "
          f"comes through in {seconds} s; medians of {rounds}; every\nbyte is checked: the native stack behind "
          "the relay, and the kernel with cubic and without offloads, to the kernel")
    print_table(goodput.HEAD, [goodput.columns(line) for line in lines])
