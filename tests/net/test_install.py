#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What `make install` puts there works by itself: every program here runs in a mount namespace in
which the source tree and its products are empty folders, and finds by name only what is installed.
Also with a plug-in built out of tree."""

import json
import os
import pwd
import shlex
import shutil
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import OUT, ROOT, World, connected, echo, main, sh, status_of, test

ECHO, HTTP = 8701, 8702
BODY = os.urandom(3 << 20)
ID = f"i{os.getpid() % 100000}"
USER = "games"  # every Debian has it; any that is not root will do

HIDE = f"""mount --make-rprivate /
for dir in {shlex.quote(ROOT)} {shlex.quote(OUT)}; do
	[ ! -d "$dir" ] || mount -t tmpfs none "$dir" || exit 126
done
PATH=$1
shift
exec "$@"
"""


class InstalledWorld(World):
    def __init__(self):
        super().__init__()
        self.prefix = f"{self.dir}/usr"
        self.path = f"{self.prefix}/bin:{self.prefix}/sbin"
        for name in ("bin/other", "lib/dmm/stacks/other.so", "share/dmm/examples/other.yaml"):
            os.makedirs(os.path.dirname(f"{self.prefix}/{name}"), exist_ok=True)
            with open(f"{self.prefix}/{name}", "w") as f:
                f.write("not of DMM\n")
        self.others = self.files()
        self.make("install", "-C", ROOT, f"PREFIX={self.prefix}")
        self.serve(echo, ECHO)
        self.serve(http, HTTP)

    def make(self, *args):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        return sh("make", "-s", *args, env=env)

    def hidden(self, *args, path=None):
        """The command where nothing of the source tree is seen."""
        return ["unshare", "-m", "sh", "-c", HIDE, "sh", path or self.path, *args]

    def program(self, name):
        return self.hidden(name)

    def steers(self, plugin="lwip"):
        if not self.daemon:
            self.dmmd("--user", USER)
        self.apply(self.policy(unavailable="reject", plugin=plugin))

    def close(self):
        if os.getpid() == self.owner and os.path.exists(f"/run/dmm-demo-{ID}"):
            sh(os.path.join(OUT, "dmmctl"), "demo", "down", "--id", ID, check=False, timeout=60)
        super().close()

    def files(self):
        """{path: bytes}"""
        found = {}
        for folder, _, names in os.walk(self.prefix):
            for path in (os.path.join(folder, n) for n in names):
                with open(path, "rb") as f:
                    found[path] = f.read()
        return found


def http(c):
    request = b""
    while b"\r\n\r\n" not in request:
        request += c.recv(4096)
    c.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)


@test
def the_source_tree_is_hidden(w):
    """Else the rest shows nothing."""
    assert "Makefile" in os.listdir(ROOT) and "dmmd" in os.listdir(OUT)
    seen = sh(*w.hidden("/bin/ls", "-A", ROOT, OUT), check=False).stdout
    assert "Makefile" not in seen and "dmmd" not in seen, seen
    assert sh(*w.program("dmmctl"), "version").stdout.startswith("dmmctl")
    assert sh(*w.program("dmmd"), "--version").stdout.startswith("dmmd")


@test
def what_comes_with_it_is_of_this_version(w):
    for what, name in ((("schema",), "share/dmm/policy.schema.json"),
                       (("completion", "bash"), "share/bash-completion/completions/dmmctl")):
        with open(f"{w.prefix}/{name}") as f:
            assert sh(*w.program("dmmctl"), *what).stdout == f.read(), name
    sh("bash", "-c", f". {w.prefix}/share/bash-completion/completions/dmmctl; complete -p dmmctl")
    examples = [f for f in w.files() if "/examples/" in f and f not in w.others]
    assert len(examples) >= 5, examples
    sh(*w.program("dmmctl"), "check", *examples)


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
    w.steers()
    pid = w.daemon.pid
    assert os.readlink(f"/proc/{pid}/exe") == f"{w.prefix}/sbin/dmmd"
    assert os.listdir(f"/proc/{pid}/root{ROOT}") == [], "dmmd sees the source tree"
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
    assert status["Gid"].split() == [sh("id", "-g", USER).stdout.strip()] * 4, status["Gid"]
    assert status["Groups"].split() == [], status["Groups"]
    assert os.readlink(f"/proc/{w.instance_pid()}/exe") == f"{w.prefix}/libexec/dmm/dmm-stack"


@test
def curl_unchanged_is_run_steered(w):
    w.steers()
    for addr in (w.server4, f"[{w.server6}]"):
        said = w.ctl("run", "--cgroup", w.cgroup("/fast"), "--", shutil.which("curl"), "-sS", "-o",
                     f"{w.dir}/got", "-w", "%{local_port}", f"http://{addr}:{HTTP}/").stdout
        with open(f"{w.dir}/got", "rb") as f:
            assert f.read() == BODY
        assert w.is_steered(int(said)), said
        assert f"{addr}:{HTTP}" in w.ctl("flows", "list").stdout, w.ctl("flows", "list").stdout


@test
def a_plugin_built_out_of_tree_serves(w):
    """The echo stack has no wire: what an application sends comes back, wherever it is sent."""
    source = os.path.join(ROOT, "tests/plugins/echo")
    with open(f"{source}/echo.c") as f:
        assert len(f.readlines()) <= 150, "it is meant to be read in one go"
    build = f"{w.dir}/echo"
    os.mkdir(build)
    sh("cp", f"{source}/echo.c", f"{source}/Makefile", build)
    w.make("-C", build, f"PREFIX={w.prefix}", "CFLAGS=-O2 -Werror", "echo.so")
    installed = f"{w.prefix}/lib/dmm/stacks/echo.so"
    sh("install", "-m", "755", f"{build}/echo.so", installed)
    try:
        w.steers(plugin="echo")
        comes_back(w)
    finally:
        os.unlink(installed)


def comes_back(w):
    assert w.instance()["plugin"] == "echo", w.instance()
    assert " echo " in w.ctl("stacks", "list").stdout, w.ctl("stacks", "list").stdout
    data = os.urandom(300000)
    for addr in ("198.18.0.99", "fd00:198:18::99"):  # nobody has these
        got, peer, port = w.call(talk, addr, data, cgroup="/fast")
        assert got == data and peer == (addr, ECHO) and w.is_steered(port), (len(got), peer, port)


@test
def the_installed_demo_comes_up(w):
    """Up, asked and down in one mount namespace: that of its hosts' names."""
    script = f"dmmctl demo up --id {ID} >&2 && dmmctl -j demo status --id {ID}; r=$?; " \
             f"dmmctl demo down --id {ID} >&2; exit $r"
    path = f"{w.path}:/usr/sbin:/usr/bin:/sbin:/bin"
    said = json.loads(sh(*w.hidden("sh", "-c", script, path=path), timeout=120).stdout)
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
def uninstall_leaves_what_was_there(w):
    assert len(w.files()) > len(w.others)
    w.make("uninstall", "-C", ROOT, f"PREFIX={w.prefix}")
    left = w.files()
    w.make("install", "-C", ROOT, f"PREFIX={w.prefix}")  # for the end of this world
    assert left == w.others, sorted(left)


if __name__ == "__main__":
    main(InstalledWorld)
