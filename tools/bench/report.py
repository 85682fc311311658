# SPDX-License-Identifier: Apache-2.0
"""Figures of the rounds -> medians, ratios to the baseline round by round, tables, JSON."""

import os
import platform
import re
import statistics

from hosts import BASELINE, ROWS

# column: point, key of the client's result, head, whether more is better
COLUMNS = {
    "p50": ("rr1", "p50_us", "RTT 64 B p50 us", False),
    "p99": ("rr1", "p99_us", "p99 us", False),
    "rr1": ("rr1", "per_second", "req/s, 1 conn", True),
    "rr32": ("rr32", "per_second", "req/s, 32 conns", True),
    "send": ("send", "gbps", "client->server Gb/s", True),
    "recv": ("recv", "gbps", "server->client Gb/s", True),
    "crr": ("crr", "per_second", "conn/s, 8 slots", True),
}

# The ratios to the same baseline of lwIP on AF_XDP inside its program's own process, without relay,
# on a machine of 2 cores: what the stack itself can do.
PEERS = {
    "lwip_adaptive": {"p50": 1.03, "p99": 0.82, "rr1": 0.98, "rr32": 1.16, "send": 0.54,
                      "recv": 1.02, "crr": 1.78},
    "lwip_busy": {"p50": 0.30, "p99": 0.40, "rr1": 2.96, "rr32": 1.24, "send": 0.62, "recv": 1.32,
                  "crr": 1.87},
}
FAR = 2


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
        "family": hosts.o.family,
        "seconds": hosts.o.seconds,
        "rounds": hosts.o.rounds,
        "mode_of_c0": hosts.instance()["got"],
    }


def print_machine(m):
    c = m["cores"]
    print(f"Linux {m['kernel']}, {m['cpus']} x {m['cpu']}, load {m['load_average']:.1f} at the start")
    print(f"IPv{m['family']}, MTU 1500, congestion control {m['congestion_control']}; AF_XDP on veth: "
          f"{m['mode_of_c0']}")
    print(f"client on CPU {c['client']}, server on CPU {c['server']}, the instance with the "
          f"{m['instance_runs_with']}; {m['rounds']} rounds of {m['seconds']:g} s per point\n")


def print_noise(m):
    """A bench itself makes a load of about 2; what is there before it is somebody else's."""
    if m["load_average"] > 0.5:
        print(f"\nother work was running (load {m['load_average']:.1f} before, "
              f"{m['load_average_after']:.1f} after): look at the spreads, and see --nice")


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values),
            "rounds": values} if values else None


def summarize(rounds, row, column):
    """rounds: a list of {row: {point: result}}. The figure's spread, and that of its ratio to the
    baseline of the same round; None where there is nothing."""
    point, key, _, _ = COLUMNS[column]
    figure = [r[row][point][key] for r in rounds if point in r.get(row, {})]
    ratio = [r[row][point][key] / r[BASELINE][point][key] for r in rounds
             if point in r.get(row, {}) and r.get(BASELINE, {}).get(point, {}).get(key)]
    return {"figure": spread(figure), "ratio": spread(ratio)}


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
        text += f" x{ratio['median']:.2f} [{ratio['min']:.2f}-{ratio['max']:.2f}]"
    return text


def print_table(head, rows):
    rows = [head, *rows]
    widths = [max(len(r[i]) for r in rows) for i in range(len(head))]
    for r in rows:
        print("  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip(), flush=True)


def print_rows(summaries, columns):
    print_table(["row", *(COLUMNS[c][2] for c in columns)],
                [[name, *(cell(s[c]) for c in columns)] for name, s in summaries.items()])
    print(f"\nmedian of the rounds; xN: median of the rounds' ratios to {BASELINE} [least-most]")
    for name in summaries:
        print(f"  {name:14}  {ROWS[name].what}")


def print_far(summaries):
    """Where a stack is far from what it can do, how to see why."""
    for row, columns in PEERS.items():
        for column, peer in columns.items():
            ratio = summaries.get(row, {}).get(column, {}).get("ratio")
            if not ratio:
                continue
            point, _, head, more = COLUMNS[column]
            got = ratio["median"]
            if (peer / got if more else got / peer) > FAR:
                print(f"  {row}, {head}: x{got:.2f}; lwIP without relay in its program's process "
                      f"reaches about x{peer:.2f}. Where the time goes: "
                      f"tools/bench/run --profile {row},{point}")


def print_connect(lines):
    print("\nconnect(), non-blocking TCP, ns")
    print_table(["cgroup", "call", "over no hook", "until connected"],
                [[c["cgroup"], f"{c['call']:.0f} [{c['call_min']:.0f}-{c['call_max']:.0f}]",
                  f"{c['over']:+.0f} [{c['over_min']:+.0f} to {c['over_max']:+.0f}]",
                  f"{c['up']:.0f}"] for c in lines])
    print("call: connect() itself; on veth a SYN brings about the whole handshake within it. A "
          "steered SYN is\n  held on lo for the instance instead. Medians of batches in turns.")


def print_xdp(lines):
    print("\nXDP program of the flow door, ns per packet by test run (hot caches)")
    print_table(["packet", "ns", "over return XDP_PASS"],
                [[x["case"], f"{x['ns']:.1f} [{x['ns_min']:.1f}-{x['ns_max']:.1f}]",
                  f"{x['over']:+.1f} [{x['over_min']:+.1f} to {x['over_max']:+.1f}]"]
                 for x in lines])
