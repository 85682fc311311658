#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What `make install` puts there works by itself: every program here runs in a mount namespace in
which the source tree and its products are empty folders. Also with a plug-in built out of tree."""

import json
import os
import pwd
import shlex
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import OUT, ROOT, World, connected, echo, main, sh, status_of, test

ECHO = 8701
ID = f"i{os.getpid() % 100000}"
USER = "games"  # every Debian has it; any that is not root will do

HIDE = f"""mount --make-rprivate /
for dir in {shlex.quote(ROOT)} {shlex.quote(OUT)}; do
	[ ! -d "$dir" ] || mount -t tmpfs none "$dir" || exit 126
done
exec "$@"
"""


class InstalledWorld(World):
    def __init__(self):
        super().__init__()
        self.prefix = f"{self.dir}/usr"
        self.make("install", "-C", ROOT, f"PREFIX={self.prefix}")
        self.serve(echo, ECHO)

    def make(self, *args):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        return sh("make", "-s", *args, env=env)

    def program(self, name):
        folder = "sbin" if name == "dmmd" else "bin"
        return ["unshare", "-m", "sh", "-c", HIDE, "sh", f"{self.prefix}/{folder}/{name}"]

    def files(self):
        return sorted(os.path.join(d, n) for d, _, names in os.walk(self.prefix) for n in names)


@test
def the_source_tree_is_hidden(w):
    """Else the rest shows nothing."""
    look = w.program("dmmctl")[:-1] + ["ls", "-A", ROOT, OUT]
    assert "Makefile" not in sh(*look, check=False).stdout
    assert sh(*w.program("dmmctl"), "version").stdout.startswith("dmmctl")


def talk(addr, data):
    with connected(addr, ECHO) as s:
        peer, port = s.getpeername()[:2], s.getsockname()[1]
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        got = b""
        while piece := s.recv(1 << 16):
            got += piece
        return got, peer, port


@test
def an_installed_dmm_steers(w):
    w.dmmd("--user", USER)
    w.apply(w.policy(unavailable="reject"))
    data = os.urandom(50000)
    for addr in (w.server4, w.server6):
        got, peer, port = w.call(talk, addr, data, cgroup="/fast")
        assert got == data and peer == (addr, ECHO) and w.is_steered(port), (peer, port)
    assert [f["stack"] for f in w.flows()] == ["fast", "fast"], w.flows()
    said = w.ctl("explain", "tcp", "connect", w.server4, ECHO, "--cgroup", w.cgroup("/fast"))
    assert "fast-out" in said.stdout, said.stdout
    uid = int(sh("id", "-u", USER).stdout)
    status = status_of(w.instance_pid())
    assert status["Uid"].split() == [str(uid)] * 4, status["Uid"]
    assert os.readlink(f"/proc/{w.instance_pid()}/exe") == f"{w.prefix}/libexec/dmm/dmm-stack"


@test
def a_plugin_built_out_of_tree_serves(w):
    """The echo stack has no wire: what an application sends comes back, wherever it is sent."""
    source = os.path.join(ROOT, "tests/plugins/echo")
    with open(f"{source}/echo.c") as f:
        assert len(f.readlines()) <= 150, "it is meant to be read in one go"
    build = f"{w.dir}/echo"
    sh("cp", "-r", source, build)
    w.make("-C", build, f"PREFIX={w.prefix}", "CFLAGS=-O2 -Werror", "echo.so")
    sh("install", "-m", "755", f"{build}/echo.so", f"{w.prefix}/lib/dmm/stacks/echo.so")
    w.apply(w.policy(unavailable="reject", plugin="echo"))
    assert w.instance()["plugin"].startswith("echo"), w.instance()
    data = os.urandom(300000)
    for addr in ("198.18.0.99", "fd00:198:18::99"):  # nobody has these
        got, peer, port = w.call(talk, addr, data, cgroup="/fast")
        assert got == data and peer == (addr, ECHO) and w.is_steered(port), (len(got), peer, port)
    os.unlink(f"{w.prefix}/lib/dmm/stacks/echo.so")


@test
def the_installed_demo_comes_up(w):
    """Up, asked and down in one mount namespace: that of its hosts' names."""
    dmmctl = f"{w.prefix}/bin/dmmctl"
    script = f"{dmmctl} demo up --id {ID} >&2 && {dmmctl} -j demo status --id {ID}; r=$?; " \
             f"{dmmctl} demo down --id {ID} >&2; exit $r"
    said = json.loads(sh(*w.program("dmmctl")[:-1], "sh", "-c", script, timeout=120).stdout)
    assert said["up"] and said["dmmctl"], said
    assert not os.path.exists(f"/run/dmm-demo-{ID}")


@test
def a_build_by_sudo_is_the_callers(w):
    """`sudo make` builds as who called it; what an earlier build as root left becomes theirs."""
    tree, user = f"{w.dir}/tree", pwd.getpwnam(USER)
    os.makedirs(f"{tree}/.output/old")
    os.chown(tree, user.pw_uid, user.pw_gid)
    build = [os.path.join(ROOT, "tools/build/as-user"), ".output", "sh", "-c",
             "id -un; echo $HOME; touch .output/old/new"]
    said = sh(*build, cwd=tree, env={**os.environ, "SUDO_USER": USER}).stdout.split()
    assert said == [USER, user.pw_dir], said
    for name in (".output", ".output/old", ".output/old/new"):
        assert os.stat(f"{tree}/{name}").st_uid == user.pw_uid, name
    os.chown(tree, 0, 0)  # a tree that they cannot write: it just builds
    assert sh(*build, cwd=tree, env={**os.environ, "SUDO_USER": USER}).stdout.split()[0] == "root"
    assert sh(*build, cwd=tree).stdout.split()[0] == "root"


@test
def uninstall_leaves_nothing(w):
    assert w.files()
    w.make("uninstall", "-C", ROOT, f"PREFIX={w.prefix}")
    assert w.files() == [], w.files()
    w.make("install", "-C", ROOT, f"PREFIX={w.prefix}")  # for the end of this world


if __name__ == "__main__":
    main(InstalledWorld)
