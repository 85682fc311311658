# SPDX-License-Identifier: Apache-2.0
"""The ratios of a bench as a picture: for each column a line per row, from the least to the greatest of
its 95 % interval with a dot at the median, on a logarithmic axis around the baseline."""

import math
from xml.sax.saxutils import escape

from hosts import ROWS
from report import COLUMNS

LEFT, RIGHT, WIDTH = 190, 70, 760
LINE, HEAD, GAP, TOP, BOTTOM = 17, 24, 10, 12, 30
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)
GOOD, BAD, EVEN, INK, PALE = "#1a7f37", "#b35900", "#777", "#333", "#ddd"


def x_of(ratio):
    """Ratios beyond the axis are drawn at its end."""
    low, high = math.log(TICKS[0]), math.log(TICKS[-1])
    at = (min(max(math.log(ratio), low), high) - low) / (high - low)
    return LEFT + at * (WIDTH - LEFT - RIGHT)


def text(x, y, words, anchor="start", weight="normal", color=INK):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" ' \
           f'fill="{color}">{escape(words)}</text>'


def line(x1, y1, x2, y2, color, width):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" ' \
           f'stroke-width="{width}"/>'


def bar(y, row, ratio, more):
    color = GOOD if (ratio["median"] > 1) == more else BAD
    if ratio["low"] <= 1 <= ratio["high"]:
        color = EVEN
    return [text(LEFT - 8, y + 4, row, "end"),
            line(x_of(ratio["low"]), y, x_of(ratio["high"]), y, color, 3),
            f'<circle cx="{x_of(ratio["median"]):.1f}" cy="{y:.1f}" r="4" fill="{color}"/>',
            text(WIDTH - RIGHT + 8, y + 4, f"x{ratio['median']:.2f}", color=color)]


def draw(summaries):
    """SVG of what report.summarize() gave for rows and columns."""
    parts, y = [], TOP
    columns = [c for c in COLUMNS if any(c in s for s in summaries.values())]
    for column in columns:
        _, _, head, more = COLUMNS[column]
        y += HEAD
        parts.append(text(LEFT, y - 12, f"{head} ({'more' if more else 'less'} is better)",
                          weight="bold"))
        for row, summary in summaries.items():
            ratio = summary.get(column, {}).get("ratio")
            if ratio and ROWS[row].base != row:
                parts += bar(y, row, ratio, more)
                y += LINE
        y += GAP
    height = y + BOTTOM
    grid = []
    for tick in TICKS:
        grid.append(line(x_of(tick), TOP, x_of(tick), y - GAP, INK if tick == 1 else PALE, 1))
        grid.append(text(x_of(tick), y + 8, f"x{tick:g}", "middle"))
    grid.append(text(LEFT, y + 24, "to the baseline of the row; dot: median, line: 95 % interval"))
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" ' \
           f'font-family="sans-serif" font-size="12">\n' \
           '<!-- SPDX-License-Identifier: Apache-2.0 -->\n' \
           f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(grid + parts) + \
           "\n</svg>\n"
