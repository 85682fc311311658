#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A plug-in that attacks the machine from inside a real instance: refused, told, and no harm to the
stack beside it."""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import plugins
from dmmtest import OUT, World, echo, main, sh, status_of, test, wait_for

# what create() does, and the number of the system call that is told
ATTACKS = {
    "files": ('open("/etc/shadow", O_RDONLY);', "SYS_openat"),
    "socket": ("socket(AF_INET, SOCK_STREAM, 0);", "SYS_socket"),
    "bpf": ("syscall(SYS_bpf, 0, 0, 0);", "SYS_bpf"),
    "ptrace": ("syscall(SYS_ptrace, PTRACE_ATTACH, 1, 0, 0);", "SYS_ptrace"),
    "execve": ('execl("/bin/sh", "sh", (char *)0);', "SYS_execve"),
    "fork": ("fork();", "SYS_clone"),
    "code": ("mmap(0, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);",
             "SYS_mmap"),
}
HEADERS = "fcntl.h stdio.h sys/mman.h sys/ptrace.h sys/socket.h sys/syscall.h unistd.h".split()


class SandboxWorld(World):
    def __init__(self):
        super().__init__()
        self.second_link()
        os.makedirs(f"{self.dir}/stacks")
        sh("cp", f"{OUT}/stacks/{self.plugin}.so", f"{self.dir}/stacks/{self.plugin}.so")
        self.dmmd("--stacks-dir", f"{self.dir}/stacks")
        self.apply(self.policy())

    def with_second(self, plugin):
        second = f"}}, {{name: second, plugin: {plugin}, interface: c1, localPorts: 12000-12999"
        return self.policy(stack=second).replace("[{name: c0}]", "[{name: c0}, {name: c1}]")

    def number(self, name):
        out = sh("gcc", "-E", "-P", "-", input=f"#include <sys/syscall.h>\n{name}\n").stdout
        return out.split()[-1]


@test
def attacks_from_inside_are_refused(w):
    pid = w.ready()
    for name, (attack, call) in ATTACKS.items():
        plugins.build(f"{w.dir}/stacks/{name}.so", create=f"{attack} *r = (void *)ld; return 0;",
                      headers=HEADERS)
        r = w.apply(w.with_second(name), check=False)
        assert r.returncode == 1, f"{name}: exit {r.returncode}\n{r.stdout}{r.stderr}"
        for word in ("'second'", "SIGSYS", f"system call {w.number(call)} is not allowed here"):
            assert word in r.stderr, f"{name}: no {word!r} in:\n{r.stderr}"
    assert w.ready() == pid, "the stack beside it was harmed"


@test
def code_that_a_plugin_runs_when_loaded_has_no_privilege(w):
    caps = "unsigned int h[2] = { 0x20080522, 0 }, d[6] = { 0 }; syscall(SYS_capget, h, d);"
    for name, load, code in (("modest", caps + "if (!geteuid() || d[0] || d[3]) abort();", 0),
                             ("seen", caps + "if (geteuid()) abort();", 1)):
        plugins.build(f"{w.dir}/stacks/{name}.so", load=load, headers=HEADERS)
        r = w.apply(w.with_second(name), check=False)
        assert r.returncode == code, f"{name}: exit {r.returncode}\n{r.stdout}{r.stderr}"
        assert code == 0 or ("SIGABRT" in r.stderr and "loading plug-in" in r.stderr), r.stderr
    w.apply(w.policy())


# Each socket that it was given to talk to servers with, to each address: how many were refused, and how many
# were not. Told once there are some.
MISUSE = """
  static const char *const at[] = { %s };
  static int told;
  int refused = 0, went = 0;
  for (int fd = 3; !told && fd < 600; fd++)
    for (unsigned i = 0; i < sizeof(at) / sizeof(*at); i++) {
      struct sockaddr_in to = { .sin_family = AF_INET };
      int port, type = 0;
      char addr[20];
      socklen_t len = sizeof(type);
      if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &type, &len) || type != IPPROTO_TCP ||
          getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &type, &len) || type)
        continue;
      sscanf(at[i], "%%19[^:]:%%d", addr, &port);
      inet_pton(AF_INET, addr, &to.sin_addr);
      to.sin_port = htons(port);
      if (!connect(fd, (void *)&to, sizeof(to)) || errno == EINPROGRESS)
        went++;
      else if (errno == EPERM)
        refused++;
    }
  if (refused + went > 100) {
    host->log(host->ctx, DMM_LOG_WARNING, "refused %%d, went %%d", refused, went);
    told = 1;
  }
  return n + 50000000;
"""


@test
def its_sockets_reach_servers_and_nobody_else(w):
    """Those of attached cgroups, at addresses that clients can come to."""
    steered, other = 9301, 9302
    w.ctl("attach", "--cgroup", "/kernel")
    w.serve(echo, steered, host="client", cgroup="/kernel")
    w.serve(echo, other, host="client", cgroup="/nobody")
    w.serve(echo, steered)
    for name, targets, reached in (
            ("misuse", (f"{w.client4}:{other}", f"{w.server4}:{steered}", f"127.0.0.1:{steered}",
                        f"127.0.0.1:{other}", f"{w.client4}:9"), False),
            ("use", (f"{w.client4}:{steered}",), True)):
        plugins.build(f"{w.dir}/stacks/{name}.so", create="host = h; *r = (void *)ld; return 0;",
                      tick=MISUSE % ", ".join(f'"{t}"' for t in targets),
                      headers=[*HEADERS, "arpa/inet.h", "errno.h", "netinet/in.h"])
        before = len(w.log())
        w.apply(w.with_second(name).replace("  default:", """    - name: clients
      match: {cgroup: /kernel, proto: tcp, direction: listen}
      action: {stack: second}
  default:"""))
        said = wait_for("it has tried", lambda b=before: re.search(r"refused (\d+), went (\d+)", w.log()[b:]))
        refused, went = map(int, said.groups())
        print(f"# {name}: {said[0]}")
        assert (went > 0) == reached and (refused > 100) != reached, (name, said[0])
    w.apply(w.policy())


def limits_of(pid):
    with open(f"/proc/{pid}/limits") as f:
        return {line[:26].strip(): line[26:].split()[0] for line in f}


@test
def a_serving_instance_is_in_the_sandbox(w):
    pid = w.ready()
    status = status_of(pid)
    assert status["Seccomp"] == "2", status["Seccomp"]
    # a removed folder: not even root can put something there
    assert os.readlink(f"/proc/{pid}/root").endswith(" (deleted)"), os.readlink(f"/proc/{pid}/root")
    try:
        with open(f"/proc/{pid}/root/x", "w"):
            assert False, "its root folder can be filled"
    except FileNotFoundError:
        pass
    limits = limits_of(pid)
    assert limits["Max data size"] == str(1024 << 20), limits
    assert limits["Max core file size"] == "0", limits
    fds = {int(n): os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")}
    print(f"# {fds}")
    files = {n: t for n, t in fds.items() if n > 2 and t.startswith("/") and "memfd" not in t}
    assert not files and fds[0] == "/dev/null" and fds[1] == fds[2], fds
    assert "33 system calls" in w.log() and "empty root" in w.log(), w.log()


@test
def its_memory_is_the_policys(w):
    before = w.ready()
    w.apply(w.policy(stack=", memory: 96MiB"))
    pid = w.ready(not_pid=before)
    assert limits_of(pid)["Max data size"] == str(96 << 20), limits_of(pid)
    w.apply(w.policy(stack=", memory: 96MiB"))
    assert w.ready() == pid, "restarted for nothing"


main(SandboxWorld)
