# SPDX-License-Identifier: Apache-2.0
"""How `make demo` and `make demo-proxy` tell their stories: titles, tables, and a stage that is always
cleaned up. A step that does not come out as told ends a demo with an error. KEEP=1 leaves it up."""

import os
import pathlib
import sys

import demo as hosts
from demo import Failed

OUT = pathlib.Path(hosts.HERE.parent.parent, os.environ.get("O", ".output"))
KEEP = os.environ.get("KEEP", "") not in ("", "0")
DEMO_ID = os.environ.get("DMM_DEMO_ID", "")


def title(text):
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def table(head, rows):
    rows = [head, *[[str(c) for c in r] for r in rows]]
    widths = [max(len(r[i]) for r in rows) for i in range(len(head))]
    for r in rows:
        print("  " + "  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip(), flush=True)


def expect(what, got, wanted):
    if got != wanted:
        raise Failed(f"{what}: {got}, not {wanted}")
    return got


def play(demo, tell, what, to_try):
    """Puts the demo up, tells its story, removes it. @to_try: what KEEP=1 prints in the end."""
    demo.down_command = f"sudo make {what}-down" + (f" DMM_DEMO_ID={DEMO_ID}" if DEMO_ID else "")
    demo.check_programs()
    title("The hosts, on this machine")
    demo.up(lambda text: print("  " + text, flush=True))  # undoes itself where it fails
    try:
        tell(demo)
    except Failed:
        demo.keep_log()
        raise
    except SystemExit:
        if KEEP:
            print(f"\ninterrupted; left up: {demo.down_command} removes it")
        raise
    finally:
        if not KEEP:
            demo.remove()
            print("\nall removed")
    if KEEP:
        print(f"\nleft up, as KEEP=1 asks; {demo.down_command} removes it\n" + to_try(demo))


def main(demo_class, tell, what, to_try):
    hosts.clean_up_when_stopped()
    try:
        play(demo_class(DEMO_ID, OUT / "dmmctl"), tell, what, to_try)
    except Failed as e:
        what, _, hint = str(e).partition("\n")
        sys.exit(f"demo: {what}" + (f"\nhint: {hint}" if hint else ""))


def main_down(demo_class):
    found = demo_class(DEMO_ID, OUT / "dmmctl").remove()
    print("removed" if found else "there was nothing to remove")
