#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Rules that tell users and processes apart, in both directions."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import libc, main, sh, test
from serving import PORT, ServeWorld, listen_at, serve

ECHO = 8711
PR_SET_NAME = 15


class CallersWorld(ServeWorld):
    def __init__(self):
        super().__init__()
        self.serve_echo(ECHO)

    def use(self, *rules, check=True):
        """Rules as (name, what they match beside cgroup and proto, stack)."""
        return self.apply(self.policy(rules="".join(f"""
    - name: {name}
      match: {{cgroup: /fast, proto: tcp{match and ", "}{match}}}
      action: {{stack: {stack}}}""" for name, match, stack in rules)), check=check)

    def rule_of(self, uid=0, comm="me"):
        """Which rule decides a connect of that user's process, and whether explain says so, too."""
        self.call(connect_as, self.server4, ECHO, uid, comm, cgroup="/fast")
        flow = self.flows()[0]
        assert flow["direction"] == "connect" and (flow["uid"], flow["comm"]) == (uid, comm), flow
        said = self.ctl_json("explain", "tcp", "connect", f"{self.server4}:{ECHO}", "--cgroup", "/fast",
                             "--uid", uid, "--comm", comm)
        assert said["rule"]["name"] == flow["rule"], (said, flow)
        return flow["rule"]

    def rule_of_server(self, uid=0, comm="me"):
        child = self.start(serve_as, PORT, uid, comm, cgroup="/fast")
        try:
            self.listens(PORT)
            me, _ = self.ask(self.client4)
        finally:
            child.kill()
        flow = next(f for f in self.flows() if f["direction"] == "listen")
        assert flow["remote"] == f"{me[0]}:{me[1]}", (flow, me)
        said = self.ctl_json("explain", "tcp", "listen", f"{self.client4}:{PORT}", "from", self.server4,
                             "--cgroup", "/fast", "--uid", uid, "--comm", comm)
        assert said["rule"]["name"] == flow["rule"], (said, flow)
        assert flow["verdict"] == ("userspace" if flow["rule"].startswith("fast") else "kernel"), flow
        return flow["rule"]

    def listens(self, port):
        from dmmtest import wait_for
        wait_for(f"port {port}", lambda: f":{port} " in self.run("ss", "-Htln").stdout)


def become(uid, comm):
    libc.prctl(PR_SET_NAME, comm.encode())
    os.setuid(uid)


def connect_as(addr, port, uid, comm):
    from dmmtest import connected
    become(uid, comm)
    with connected(addr, port) as s:
        s.sendall(b"ping")
        assert s.recv(4) == b"ping"


def serve_as(port, uid, comm):
    become(uid, comm)
    with listen_at("0.0.0.0", port) as s:
        serve(s)


@test
def users_are_told_apart(w):
    w.use(("fast-one", "uid: 1000", "fast"), ("kernel-range", "uid: [2000-2999, 33]", "kernel"),
          ("fast-name", "uid: [games, 3000]", "fast"), ("kernel-rest", "", "kernel"))
    games = int(sh("id", "-u", "games").stdout)
    wanted = {0: "kernel-rest", 999: "kernel-rest", 1000: "fast-one", 1001: "kernel-rest",
              1999: "kernel-rest", 2000: "kernel-range", 2999: "kernel-range", 3000: "fast-name",
              3001: "kernel-rest", 33: "kernel-range", games: "fast-name", 4294967294: "kernel-rest"}
    assert {uid: w.rule_of(uid) for uid in wanted} == wanted


@test
def processes_are_told_apart(w):
    said = w.use(("fast-curl", "comm: curl", "fast"),
                 ("kernel-list", 'comm: [wget, "a b", exactly15chars.]', "kernel"),
                 ("fast-rest", "", "fast"))
    assert "W110" not in said.stderr, said.stderr
    wanted = {"curl": "fast-curl", "curlx": "fast-rest", "cur": "fast-rest", "wget": "kernel-list",
              "a b": "kernel-list", "exactly15chars.": "kernel-list", "me": "fast-rest"}
    assert {comm: w.rule_of(0, comm) for comm in wanted} == wanted


@test
def both_at_once_and_first_match(w):
    w.use(("fast-both", "uid: 1000, comm: curl", "fast"), ("kernel-uid", "uid: 1000", "kernel"),
          ("fast-comm", "comm: curl", "fast"), ("kernel-rest", "", "kernel"))
    assert [w.rule_of(1000, "curl"), w.rule_of(1000, "wget"), w.rule_of(0, "curl"), w.rule_of(0, "wget")] \
        == ["fast-both", "kernel-uid", "fast-comm", "kernel-rest"]


@test
def servers_are_told_apart(w):
    w.use(("fast-both", "direction: listen, uid: 1000, comm: httpd", "fast"),
          ("kernel-uid", "direction: listen, uid: 1000", "kernel"),
          ("fast-local", f"direction: listen, comm: httpd, local: {{cidr: {w.client4}/32}}", "fast"),
          ("kernel-rest", "direction: listen", "kernel"))
    assert [w.rule_of_server(1000, "httpd"), w.rule_of_server(1000, "x"), w.rule_of_server(0, "httpd"),
            w.rule_of_server(0, "x")] == ["fast-both", "kernel-uid", "fast-local", "kernel-rest"]


@test
def an_apply_holds_for_those_that_listen_already(w):
    child = w.start(serve_as, PORT, 1000, "httpd", cgroup="/fast")
    w.listens(PORT)
    for uid, stack in ((1000, "userspace"), (1001, "kernel"), (1000, "userspace")):
        w.use(("fast-uid", f"direction: listen, uid: {uid}", "fast"),
              ("kernel-rest", "direction: listen", "kernel"))
        w.ask(w.client4)
        flow = next(f for f in w.flows() if f["direction"] == "listen")
        assert flow["verdict"] == stack, (uid, flow)
    child.kill()


@test
def wrong_ones_are_refused(w):
    for match, code in (("uid: nobody-there", "E038"), ("uid: 5-4", "E038"), ("uid: -1", "E038"),
                        ("uid: 4294967295", "E038"), ("uid: []", "E019"),
                        ("comm: this-name-is-too-long", "E039"), ('comm: ""', "E039")):
        said = w.use(("r", match, "fast"), check=False)
        assert said.returncode == 5 and code in said.stderr, (match, said.stderr)
    said = w.apply(w.policy(rules="""
    - name: alone
      match: {comm: curl, proto: tcp}
      action: {stack: fast}"""))
    assert "W110" in said.stderr and "any can take it" in said.stderr, said.stderr
    many = [(f"r{i}", f"uid: {2 * i + 1}", "fast") for i in range(17)]
    said = w.use(*many, check=False)
    assert said.returncode == 5 and "E041" in said.stderr, said.stderr
    said = w.use(("low", "uid: 1000-1999", "fast"), ("dead", "uid: 1200", "kernel"))
    assert "W101" in said.stderr and "'low'" in said.stderr, said.stderr


if __name__ == "__main__":
    sys.exit(main(CallersWorld))
