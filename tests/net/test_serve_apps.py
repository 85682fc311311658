#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Real servers, unmodified, in a steered cgroup, and real clients on the wire: byte-exact, and by the
stack."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import World, amount, main, sh, test, wait_for

HTTP, REDIS, IPERF, PY = range(8501, 8505)
BIG, SMALL = 32 << 20, 100
NGINX = """
daemon off;
user root;
worker_processes 4;
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
  access_log {dir}/access.log;
  client_body_temp_path {dir}/t0; proxy_temp_path {dir}/t1; fastcgi_temp_path {dir}/t2;
  uwsgi_temp_path {dir}/t3; scgi_temp_path {dir}/t4;
  keepalive_requests {requests};
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
      match: {{cgroup: /fast, proto: tcp, direction: listen, local: {{ports: {HTTP}-{PY}}}}}
      action: {{stack: {stack}{more}}}"""))
        self.ready()

    def nginx(self, options="", requests=100):
        with open(f"{self.dir}/nginx.conf", "w") as f:
            f.write(NGINX.format(dir=self.dir, port=HTTP, options=options, requests=requests))
        p = self.spawn("nginx", "-e", f"{self.dir}/nginx-error.log", "-c",
                       f"{self.dir}/nginx.conf", cgroup="/fast")
        self.listens(HTTP)
        return p

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
    p = w.nginx()
    for host in (w.client4, f"[{w.client6}]"):
        w.run("curl", "-sSf", "-o", f"{w.dir}/got", f"http://{host}:{HTTP}/big", host="server")
        assert sha(f"{w.dir}/got") == sha(f"{w.dir}/www/big")
    done, errors = w.wrk(3)
    assert done > 100 and errors == (0, 0, 0, 0), (done, errors)
    with open(f"{w.dir}/access.log") as f:
        assert {line.split()[0] for line in f} == {w.server4, w.server6}
    w.all_by_stack()
    p.terminate()
    p.wait(20)


@test
def nginx_reloads_under_load(w):
    for stack in ("kernel", "fast"):
        w.use(stack)
        for options in ("", "reuseport"):
            p = w.nginx(options, requests=20)
            load = w.start(w.wrk, 4)
            for _ in range(5):
                time.sleep(0.6)
                p.send_signal(1)
            done, errors = load.result()
            assert done > 100, done
            print(f"# {stack} {options}: {done} {errors}")
            p.terminate()
            p.wait(20)


@test
def redis_answers(w):
    p = w.spawn("redis-server", "--port", REDIS, "--bind", w.client4, w.client6, "--save", "",
                "--dir", w.dir, "--protected-mode", "no", cgroup="/fast")  # it sees that they are from outside
    w.listens(REDIS)
    for host in (w.client4, w.client6):
        said = w.run("redis-benchmark", "-h", host, "-p", REDIS, "-n", amount(20000), "-c", "50", "-t",
                     "set,get,incr", "--csv", host="server").stdout
        print("#", " ".join(said.split()))
        assert said.count('"') > 30
        said = w.run("redis-cli", "-h", host, "-p", REDIS, "get", "counter:__rand_int__", host="server").stdout
        assert int(said) % amount(20000) == 0, said
    w.all_by_stack()
    p.terminate()
    p.wait(20)


@test
def iperf3_moves_bytes_both_ways(w):
    p = w.spawn("iperf3", "-s", "-p", IPERF, cgroup="/fast")
    w.listens(IPERF)
    for way in ((), ("-R",)):
        said = json.loads(w.run("iperf3", "-c", w.client4, "-p", IPERF, "-n", "32M", "-P", "2", *way,
                                "-J", host="server").stdout)
        end = said["end"]
        print(f"# {' '.join(way)} {end['sum_received']['bits_per_second'] / 1e9:.2f} Gb/s")
        assert end["sum_sent"]["bytes"] >= 32 << 20, end
    w.all_by_stack()
    p.terminate()
    p.wait(20)


if __name__ == "__main__":
    sys.exit(main(AppsWorld))
