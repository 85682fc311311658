#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Real servers, unmodified, in a steered cgroup, and real clients on the wire: byte-exact, and by the
stack."""

import asyncio
import glob
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import World, amount, long_test, main, sh, test, wait_for

HTTP, REDIS, IPERF, PY, SSH, SQL = range(8501, 8507)
BIG, SMALL = 32 << 20, 100
NGINX = """
user root;
worker_processes 4;
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
  access_log {dir}/access.log;
  client_body_temp_path {dir}/t0; proxy_temp_path {dir}/t1; fastcgi_temp_path {dir}/t2;
  uwsgi_temp_path {dir}/t3; scgi_temp_path {dir}/t4;
  server {{
    listen {port} {options}; listen [::]:{port} {options};
    root {dir}/www;
  }}
}}
"""


class AppsWorld(World):
    def __init__(self):
        super().__init__()
        self.dmmd()
        self.use("fast")
        os.mkdir(f"{self.dir}/www")
        for name, size in (("big", BIG), ("small", SMALL)):
            with open(f"{self.dir}/www/{name}", "wb") as f:
                f.write(random.Random(size).randbytes(size))

    def use(self, stack):
        more = ", onUnavailable: reject" if stack != "kernel" else ""
        self.apply(self.policy(rules=f"""
    - name: servers
      match: {{cgroup: /fast, proto: tcp, direction: listen, local: {{ports: {HTTP}-{SQL}}}}}
      action: {{stack: {stack}{more}}}"""))
        self.ready()

    def nginx(self, options=""):
        with open(f"{self.dir}/nginx.conf", "w") as f:
            f.write(NGINX.format(dir=self.dir, port=HTTP, options=options))
        # by its path, which it is upgraded from
        self.run("/usr/sbin/nginx", "-e", f"{self.dir}/nginx-error.log", "-c",
                 f"{self.dir}/nginx.conf", cgroup="/fast")
        self.listens(HTTP)

    def nginx_pid(self):
        with open(f"{self.dir}/nginx.pid") as f:
            return int(f.read())

    def end_nginx(self):
        os.kill(self.nginx_pid(), signal.SIGTERM)
        wait_for("nginx ends", lambda: not os.path.exists(f"{self.dir}/nginx.pid"))

    def listens(self, port):
        wait_for(f"port {port}", lambda: self.run("ss", "-tlnH", f"sport = :{port}").stdout)

    def wrk(self, seconds, *args):
        """Answers of each kind that came."""
        said = self.run("wrk", "-t2", "-c64", f"-d{seconds}s", *args,
                        f"http://{self.client4}:{HTTP}/small", host="server").stdout
        print("#", " ".join(said.split()))
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
        return int(re.search(r"(\d+) requests in", said)[1]), \
            "Non-2xx" not in said and (tuple(map(int, errors.groups())) if errors else (0, 0, 0, 0))

    def all_by_stack(self):
        now = self.ctl_json("status")["policy"]["generation"]
        flows = [f for f in self.flows() if f["direction"] == "listen" and f["generation"] == now]
        assert flows and not (left := [f for f in flows if f["verdict"] != "userspace"]), left[:2]


def sha(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


@test
def nginx_serves_large_files_and_small(w):
    w.nginx()
    for host in (w.client4, f"[{w.client6}]"):
        w.run("curl", "-sSf", "-o", f"{w.dir}/got", f"http://{host}:{HTTP}/big", host="server")
        assert sha(f"{w.dir}/got") == sha(f"{w.dir}/www/big")
    done, errors = w.wrk(3)
    assert done > 100 and errors == (0, 0, 0, 0), (done, errors)
    with open(f"{w.dir}/access.log") as f:
        assert {line.split()[0] for line in f} == {w.server4, w.server6}
    w.all_by_stack()
    w.end_nginx()


def under_load(w, options, change):
    """wrk with a connection for each request while change(w) happens now and then: the errors."""
    w.nginx(options)
    load = w.start(w.wrk, 4, "-H", "Connection: close")
    for _ in range(5):
        time.sleep(0.6)
        change(w)
    done, errors = load.result()
    w.end_nginx()
    assert done > 100, done
    return errors


def reload(w):
    os.kill(w.nginx_pid(), signal.SIGHUP)


def upgrade(w):
    """A new master with new workers takes the listeners over (nginx.org, "Upgrading Executable on the
    Fly")."""
    old, pid_file = w.nginx_pid(), f"{w.dir}/nginx.pid"
    os.kill(old, signal.SIGUSR2)
    wait_for("a new master", lambda: os.path.exists(f"{pid_file}.oldbin") and os.path.exists(pid_file))
    os.kill(old, signal.SIGQUIT)
    wait_for("the old one is gone", lambda: not os.path.exists(f"{pid_file}.oldbin"))


@test
def nginx_reloads_and_is_upgraded_under_load(w):
    """What the kernel does not fail, a stack does not: workers that share a listener lose nobody. Each
    with a listener of its own, they do, in the kernel too: what waits in a backlog goes with it."""
    for stack in ("kernel", "fast"):
        w.use(stack)
        for options, change in (("", reload), ("", upgrade), ("reuseport", reload)):
            errors = under_load(w, options, change)
            print(f"# {stack} {options} {change.__name__}: {errors}")
            assert options or errors == (0, 0, 0, 0), (stack, change.__name__, errors)
        if stack != "kernel":
            w.all_by_stack()


@test
def redis_answers(w):
    p = w.spawn("redis-server", "--port", REDIS, "--bind", w.client4, w.client6, "--save", "",
                "--dir", w.dir, "--protected-mode", "no", cgroup="/fast")  # it sees that they are from outside
    w.listens(REDIS)
    for host in (w.client4, w.client6):
        said = w.run("redis-benchmark", "-h", host, "-p", REDIS, "-n", amount(5000, 20000), "-c", "50", "-t",
                     "set,get,incr", "--csv", host="server").stdout
        print("#", " ".join(said.split()))
        assert said.count('"') > 30
        said = w.run("redis-cli", "-h", host, "-p", REDIS, "get", "counter:__rand_int__", host="server").stdout
        assert int(said) % amount(5000, 20000) == 0, said
    w.all_by_stack()
    p.terminate()
    p.wait(20)


@test
def iperf3_moves_bytes_both_ways(w):
    p = w.spawn("iperf3", "-s", "-p", IPERF, cgroup="/fast")
    w.listens(IPERF)
    for way in ((), ("-R",)):
        said = json.loads(w.run("iperf3", "-c", w.client4, "-p", IPERF, "-n", "32M", "-P", "2", *way,
                                "-J", host="server", check=False).stdout)
        end = said["end"]
        assert "sum_received" in end, said.get("error", said)
        print(f"# {' '.join(way)} {end['sum_received']['bits_per_second'] / 1e9:.2f} Gb/s")
        assert end["sum_sent"]["bytes"] >= 32 << 20, end
    w.all_by_stack()
    p.terminate()
    p.wait(20)


async def asyncio_echo(port, ready):
    async def serve(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
    server = await asyncio.start_server(serve, ["0.0.0.0", "::"], port, backlog=1024)
    ready.send(b"R")
    await server.serve_forever()


async def asyncio_clients(addrs, port, n, size):
    async def one(i):
        reader, writer = await asyncio.open_connection(addrs[i % len(addrs)], port)
        payload = random.Random(i).randbytes(size)
        writer.write(payload)
        writer.write_eof()
        same = await reader.read() == payload
        writer.close()
        return same
    return sum(await asyncio.gather(*map(one, range(n))))


@test
def asyncio_serves_many_at_once(w):
    ready, other = socket.socketpair()
    server = w.start(lambda: asyncio.run(asyncio_echo(PY, other)), cgroup="/fast")
    other.close()
    assert ready.recv(1) == b"R", server.result()
    n = amount(300)
    assert w.call(lambda: asyncio.run(asyncio_clients((w.client4, w.client6), PY, n, 100_000)),
                  host="server", timeout=120) == n
    w.all_by_stack()
    server.kill()


@test
def openssh_copies_files(w):
    """An interactive protocol that changes its mind about Nagle and its process in mid-connection."""
    os.makedirs("/run/sshd", exist_ok=True)  # where its processes without privileges live
    for name in ("host", "user"):
        w.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{w.dir}/{name}")
    os.rename(f"{w.dir}/user.pub", f"{w.dir}/authorized")
    p = w.spawn("/usr/sbin/sshd", "-D", "-f", "/dev/null", "-p", SSH, "-h", f"{w.dir}/host", "-o",
                f"AuthorizedKeysFile={w.dir}/authorized", "-o", "StrictModes=no", "-o", "UsePAM=no",
                "-o", "PidFile=none", "-o", "PermitRootLogin=yes", "-o", "Subsystem=sftp internal-sftp",
                cgroup="/fast")
    w.listens(SSH)
    options = ("-q", "-i", f"{w.dir}/user", "-o", "StrictHostKeyChecking=no", "-o",
               f"UserKnownHostsFile={w.dir}/known", "-o", "BatchMode=yes")
    for addr in (w.client4, w.client6):
        said = w.run("ssh", *options, "-p", SSH, f"root@{addr}", "echo $SSH_CONNECTION", host="server").stdout
        source = w.server6 if ":" in addr else w.server4
        client, _, server, port = said.split()
        assert (client, server, int(port)) == (source, addr, SSH), said
        scp = ("scp", "-P", SSH, *options)
        there = f"root@[{addr}]" if ":" in addr else f"root@{addr}"
        w.run(*scp, f"{w.dir}/www/big", f"{there}:{w.dir}/there", host="server")
        w.run(*scp, f"{there}:{w.dir}/there", f"{w.dir}/back", host="server")
        assert sha(f"{w.dir}/there") == sha(f"{w.dir}/back") == sha(f"{w.dir}/www/big")
    w.all_by_stack()
    p.terminate()
    p.wait(20)


@long_test
def postgresql_counts_right(w):
    """pgbench: transactions of many clients leave the same sum everywhere."""
    bins = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
    data = f"{w.dir}/sql"
    os.mkdir(data)
    shutil.chown(data, "postgres")
    user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--")
    w.run(*user, f"{bins}/initdb", "-D", data, "-A", "trust", "--no-sync")
    with open(f"{data}/pg_hba.conf", "w") as f:
        f.write("host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n")
    p = w.spawn(*user, f"{bins}/postgres", "-D", data, "-p", SQL, "-k", "", "-h", "*", "-c", "fsync=off",
                cgroup="/fast")
    w.listens(SQL)
    for addr in (w.client4, w.client6):
        there = ("-h", addr, "-p", SQL, "-U", "postgres")
        bench = lambda *args: w.run(f"{bins}/pgbench", *there, *args, "postgres", host="server").stdout
        bench("-i", "-q", "-s", "4")
        said = bench("-c", "16", "-j", "2", "-t", "300")
        assert "number of transactions actually processed: 4800/4800" in said, said
        assert "number of failed transactions: 0" in said, said
        print("#", said.splitlines()[-1])
        sums = w.run(f"{bins}/psql", *there, "-Atc", "select (select sum(abalance) from pgbench_accounts)"
                     " = (select sum(tbalance) from pgbench_tellers), (select count(*) from "
                     "pgbench_history)", "postgres", host="server").stdout
        assert sums.strip() == "t|4800", sums
    w.all_by_stack()
    p.terminate()
    p.wait(60)


if __name__ == "__main__":
    sys.exit(main(AppsWorld))
