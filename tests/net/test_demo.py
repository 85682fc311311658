#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The demo works, beside another one, and leaves nothing behind, however it ended."""

import glob
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import OUT, ROOT, SLOW, cgroup2_mount, main, sh, test, wait_for

ID = f"t{os.getpid() % 100000}"
NAME = f"dmm-demo-{ID}"


class NoWorld:
    """The demo makes its own hosts; what a failed test left is removed at the end."""

    def log(self):
        try:
            with open(f"/run/{NAME}/dmmd.log") as f:
                return f.read()
        except OSError:
            return ""

    def close(self):
        dmmctl("demo", "down", "--id", ID, check=False)


def dmmctl(*args, **kw):
    return sh(os.path.join(OUT, "dmmctl"), *args, timeout=120, **kw)


def status():
    return json.loads(dmmctl("-j", "demo", "status", "--id", ID).stdout)


def leftovers(name=NAME):
    mounts = [line for line in open("/proc/self/mountinfo") if name in line]
    found = glob.glob(f"/run/{name}*") + glob.glob(f"/run/netns/{name}*") + \
        glob.glob(f"{cgroup2_mount()}/{name}*") + mounts
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as f:
                words = f.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"/run/{name}/" in words:
            found.append(words)
    return found


def ctl(*args, **kw):
    return sh(f"/run/{NAME}/dmmctl", *args, timeout=60, **kw)


@test
def up_status_down(w):
    assert not status()["up"]
    out = dmmctl("demo", "up", "--id", ID).stdout
    assert "stack fast#0 ready" in out and f"/run/{NAME}/dmmctl" in out, out
    s = status()
    assert s["up"] and len(s["netns"]) == 2, s
    assert "up: " in dmmctl("demo", "status", "--id", ID).stdout
    p = dmmctl("demo", "up", "--id", ID, check=False)
    assert p.returncode == 1 and f"dmmctl demo down --id {ID}" in p.stderr, p
    # what the printed commands promise
    assert ctl("run", "--cgroup", "/fast", "--", "curl", "-s", "http://198.18.0.2/").stdout.startswith(
        "hello")
    flow, = json.loads(ctl("-j", "flows", "list", "stack", "fast").stdout)["items"]
    assert flow["comm"] == "curl" and flow["rule"] == "demo-fast", flow
    dmmctl("demo", "down", "--id", ID)
    assert leftovers() == []
    assert "nothing to remove" in dmmctl("demo", "down", "--id", ID).stdout


@test
def down_after_a_crash(w):
    """`up` killed at several moments: down removes what there is."""
    for delay in (0.1, 0.4, 1.0, 2.0):
        up = subprocess.Popen([os.path.join(OUT, "dmmctl"), "-q", "demo", "up", "--id", ID],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        up.send_signal(signal.SIGKILL)
        up.wait()
        dmmctl("demo", "down", "--id", ID)
        wait_for("nothing is left", lambda: not leftovers())


@test
def an_interrupted_up_cleans_up_itself(w):
    up = subprocess.Popen([os.path.join(OUT, "dmmctl"), "-q", "demo", "up", "--id", ID],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for("it has begun", lambda: os.path.exists(f"/run/netns/{NAME}-client") or up.poll())
    up.terminate()
    assert up.wait(60) == 1
    assert leftovers() == []


@test
def a_bad_id_is_refused(w):
    for bad in ("../x", "a/b", "x" * 17, "A"):
        assert dmmctl("demo", "down", "--id", bad, check=False).returncode == 1, bad


def story(program="run", *args, **env):
    return {"args": [os.path.join(ROOT, "tools/demo", program), *args], "text": True,
            "env": {**os.environ, "DMM_DEMO_ID": ID, "KEEP": "", "O": OUT, **env}}


@test
def the_story_comes_out_as_told(w):
    p = subprocess.run(**story(), capture_output=True, timeout=200 * SLOW)
    assert p.returncode == 0, p.stdout + p.stderr
    assert p.stdout.count("right") == 4 and p.stdout.count("ECONNREFUSED") == 2, p.stdout
    assert "exit 56, curl: (56)" in p.stdout and "reset by peer" in p.stdout, p.stdout
    assert "instance-" in p.stdout, p.stdout
    assert leftovers() == []


@test
def a_story_leaves_a_demo_of_others_alone(w):
    dmmctl("demo", "up", "--id", ID)
    before = status()
    pid = ctl("stacks", "list").stdout
    for keep in ("", "1"):
        p = subprocess.run(**story(KEEP=keep), capture_output=True, timeout=60 * SLOW)
        assert p.returncode == 1 and f"make demo-down DMM_DEMO_ID={ID}" in p.stderr, p
        assert "last words" not in p.stderr and "removed" not in p.stdout, p
        assert "Traceback" not in p.stderr, p
    assert status() == before and ctl("stacks", "list").stdout.split()[:3] == pid.split()[:3]
    dmmctl("demo", "down", "--id", ID)
    assert leftovers() == []


@test
def an_interrupted_story_cleans_up_to_the_end(w):
    p = subprocess.Popen(**story(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for("it is up", lambda: os.path.exists(f"/run/{NAME}/dmmd.pid") or p.poll() is not None)
    p.send_signal(signal.SIGINT)
    for _ in range(20):  # as somebody who presses Ctrl-C again and again
        time.sleep(0.05)
        p.send_signal(signal.SIGINT)
    assert p.wait(60 * SLOW) == 1 and "Traceback" not in p.stderr.read()
    assert leftovers() == []


@test
def keep_leaves_it_up(w):
    p = subprocess.run(**story(KEEP="1"), capture_output=True, timeout=200 * SLOW)
    assert p.returncode == 0 and "try:" in p.stdout, p.stdout + p.stderr
    assert status()["up"]
    assert f"make demo-down DMM_DEMO_ID={ID}" in p.stdout, p.stdout
    subprocess.run(**story("down"), check=True, capture_output=True, timeout=60 * SLOW)
    assert leftovers() == []


@test
def a_proxy_between_two_stacks(w):
    name = f"dmm-proxy-demo-{ID}"
    try:
        p = subprocess.run(**story("proxy", KEEP="1"), capture_output=True, timeout=200 * SLOW)
        assert p.returncode == 0 and "try:" in p.stdout, p.stdout + p.stderr
        rows = [line.split() for line in p.stdout.splitlines() if " -> nginx" in line]
        assert [r[4] for r in rows] == ["front", "front", "kernel", "front", "kernel"], p.stdout
        rows = [line.split() for line in p.stdout.splitlines() if "nginx -> " in line]
        assert [r[4] for r in rows] == ["kernel", "kernel", "back", "back", "kernel"], p.stdout
        assert f"make demo-proxy-down DMM_DEMO_ID={ID}" in p.stdout and leftovers(name)
        said = sh(f"/run/{name}/dmmctl", "explain", "tcp", "listen", "198.18.1.1:80", "from",
                  "198.18.1.2", "--cgroup", "/proxy").stdout
        assert "clients" in said, said
    finally:
        subprocess.run(**story("proxy", "down"), check=True, capture_output=True, timeout=60 * SLOW)
    assert leftovers(name) == []


if __name__ == "__main__":
    main(NoWorld)
