#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Real programs, unmodified, in a steered cgroup: byte-exact both ways over both IP versions. Each
test also shows that a stack carried it, by the ports that the server saw on the wire or by the
flow entries: the same transfer through the kernel is a failure."""

import asyncio
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import random
import socket
import socketserver
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from dmmtest import OUT, World, main, test, wait_for

HTTP, REFUSED, REDIS, IPERF, PY_HTTP, ECHO, PROXY = range(8401, 8408)
IPERF_BYTES, IPERF_BLOCK = 48 << 20, 65521  # a block that no segment size divides
BIG, SMALL = 32 << 20, 1 << 20
PARALLEL = 20
STATIC_CLIENT = os.path.join(OUT, "tests/net/static_client")

NGINX = """
daemon off;
user root;
worker_processes 2;
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log;
events {{ worker_connections 512; }}
http {{
  log_format wire '$remote_addr $remote_port $connection $request_method $uri $status';
  access_log {dir}/access.log wire;
  client_max_body_size 0;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/t1; fastcgi_temp_path {dir}/t2; uwsgi_temp_path {dir}/t3;
  scgi_temp_path {dir}/t4;
  gzip_types *; gzip_min_length 1; gzip_comp_level 1;
  keepalive_timeout 60;
  server {{
    listen {port}; listen [::]:{port};
    root {dir}/www;
    location /up/ {{ alias {dir}/up/; dav_methods PUT DELETE; create_full_put_path on; }}
    location /zip/ {{ alias {dir}/www/; gzip on; }}
  }}
}}
"""


class AppsWorld(World):
    def __init__(self):
        super().__init__()
        self.up()
        for sub in ("www", "up", "get"):
            os.mkdir(f"{self.dir}/{sub}")
        r = random.Random(8)
        for name, size in [("big", BIG)] + [(f"small{i}", SMALL) for i in range(PARALLEL)]:
            with open(f"{self.dir}/www/{name}", "wb") as f:
                f.write(r.randbytes(size))
        with open(f"{self.dir}/nginx.conf", "w") as f:
            f.write(NGINX.format(dir=self.dir, port=HTTP))
        self.nginx = self.spawn("nginx", "-e", f"{self.dir}/nginx-error.log", "-c",
                                f"{self.dir}/nginx.conf", host="server")
        self.serve(tell_peer, ECHO)
        self.listens(HTTP)

    def listens(self, port, host="server"):
        wait_for(f"port {port} on {host}", lambda: self.run(
            "ss", "-tlnH", f"sport = :{port}", host=host).stdout)

    def hosts(self):
        """Both addresses of the server as URLs want them."""
        return (self.server4, f"[{self.server6}]")

    def curl(self, *args, check=True, **kw):
        return self.run("curl", "-sS", "--max-time", "60", *args, cgroup="/fast", check=check,
                        **kw)

    @contextlib.contextmanager
    def requests(self, n):
        """The @n requests that nginx logs meanwhile, as dicts; all must have been steered."""
        path = f"{self.dir}/access.log"
        start = os.path.getsize(path)
        seen = []
        yield seen

        def logged():
            with open(path) as f:
                f.seek(start)
                lines = f.read().splitlines()
            return lines if len(lines) >= n else None
        lines = wait_for(f"{n} requests in nginx's log", logged)
        assert len(lines) == n, lines
        for line in lines:
            addr, port, conn, method, uri, status = line.split()
            assert self.is_steered(int(port)), f"went through the kernel: {line}"
            seen.append({"addr": addr, "port": int(port), "conn": conn, "method": method,
                         "uri": uri, "status": int(status)})

    @contextlib.contextmanager
    def steered_flows(self, comm, port, at_least):
        """Whatever @comm connects to @port meanwhile must go through the stack."""
        old = {f["cookie"] for f in self.flows()}
        found = []
        yield found
        found += [f for f in self.flows() if f["cookie"] not in old and f["comm"] == comm and
                  f["remote"].endswith(f":{port}")]
        assert len(found) >= at_least, f"{len(found)} flows of {comm}, expected {at_least}"
        for f in found:
            local = int(f["local"].rpartition(":")[2])
            assert f["verdict"] == "userspace" and f["stack"] == "fast", f
            assert f["rule"] == "fast-out" and self.is_steered(local), f


def sha(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while data := f.read(1 << 20):
            h.update(data)
    return h.hexdigest()


def tell_peer(c):
    """Says who it sees, then echoes until EOF."""
    host, port = c.getpeername()[:2]
    c.sendall(f"{host} {port}\n".encode())
    while data := c.recv(65536):
        c.sendall(data)


def read_exactly(s, n):
    data = bytearray()
    while len(data) < n:
        piece = s.recv(min(65536, n - len(data)))
        assert piece, f"end after {len(data)} of {n} bytes"
        data += piece
    return bytes(data)


def family_of(addr):
    return socket.AF_INET6 if ":" in addr else socket.AF_INET


def told_port(s):
    """The port that a tell_peer server sees."""
    line = b""
    while not line.endswith(b"\n"):
        line += read_exactly(s, 1)
    return int(line.split()[1])


# --- curl and nginx ---

@test
def curl_downloads_a_large_file(w):
    for host in w.hosts():
        got = f"{w.dir}/get/big"
        with w.requests(1):
            out = w.curl("-o", got, "-w", "%{local_port} %{remote_port}",
                         f"http://{host}:{HTTP}/big").stdout.split()
        assert w.is_steered(int(out[0])) and int(out[1]) == HTTP, out
        assert os.path.getsize(got) == BIG and sha(got) == sha(f"{w.dir}/www/big")


@test
def curl_uploads_what_arrives(w):
    """With a length known beforehand, and chunked from standard input."""
    for i, host in enumerate(w.hosts()):
        with w.requests(2) as seen:
            w.curl("-f", "-T", f"{w.dir}/www/big", f"http://{host}:{HTTP}/up/put{i}")
            with open(f"{w.dir}/www/small{i}", "rb") as f:
                w.curl("-f", "-T", "-", f"http://{host}:{HTTP}/up/chunked{i}", stdin=f)
        assert [r["status"] for r in seen] == [201, 201], seen
        assert sha(f"{w.dir}/up/put{i}") == sha(f"{w.dir}/www/big")
        assert sha(f"{w.dir}/up/chunked{i}") == sha(f"{w.dir}/www/small{i}")


@test
def curl_reads_chunked_answers(w):
    for host in w.hosts():
        got, head = f"{w.dir}/get/zip", f"{w.dir}/get/head"
        with w.requests(1):
            w.curl("--compressed", "-D", head, "-o", got, f"http://{host}:{HTTP}/zip/small3")
        with open(head) as f:
            assert "Transfer-Encoding: chunked" in f.read(), "the answer was not chunked"
        assert sha(got) == sha(f"{w.dir}/www/small3")


@test
def curl_runs_many_transfers_at_once(w):
    for host in w.hosts():
        args = []
        for i in range(PARALLEL):
            args += ["-o", f"{w.dir}/get/small{i}", f"http://{host}:{HTTP}/small{i}"]
        with w.requests(PARALLEL) as seen:
            w.curl("-Z", "--parallel-immediate", "--parallel-max", str(PARALLEL), *args)
        assert len({r["conn"] for r in seen}) > 1, "one connection is not many at once"
        for i in range(PARALLEL):
            assert sha(f"{w.dir}/get/small{i}") == sha(f"{w.dir}/www/small{i}"), i


@test
def curl_keeps_a_connection_alive(w):
    for host in w.hosts():
        args = []
        for i in range(5):
            args += ["-o", f"{w.dir}/get/small{i}", f"http://{host}:{HTTP}/small{i}"]
        with w.requests(5) as seen:
            w.curl(*args)
        assert len({r["conn"] for r in seen}) == 1, seen
        for i in range(5):
            assert sha(f"{w.dir}/get/small{i}") == sha(f"{w.dir}/www/small{i}"), i


@test
def curl_gets_ranges_and_resumes(w):
    with open(f"{w.dir}/www/big", "rb") as f:
        whole = f.read()
    for host in w.hosts():
        got = f"{w.dir}/get/range"
        with w.requests(1) as seen:
            w.curl("-r", "123456-7654321", "-o", got, f"http://{host}:{HTTP}/big")
        assert seen[0]["status"] == 206
        with open(got, "rb") as f:
            assert f.read() == whole[123456:7654322]
        with open(got, "wb") as f:
            f.write(whole[:BIG // 2 + 1])
        with w.requests(1):
            w.curl("-C", "-", "-o", got, f"http://{host}:{HTTP}/big")
        assert sha(got) == sha(f"{w.dir}/www/big")


@test
def curl_is_refused_as_by_the_kernel(w):
    for host in w.hosts():
        before = w.stack()["flows_refused"]
        r = w.curl(f"http://{host}:{REFUSED}/", check=False)
        assert r.returncode == 7, (r.returncode, r.stderr)
        assert w.stack()["flows_refused"] == before + 1, "it was not the stack that was refused"


@test
def nginx_reaches_its_upstream_through_the_stack(w):
    """A server that is itself a client: its listening side is the kernel's, its upstream side is
    steered; reloading it cuts nothing."""
    conf = f"{w.dir}/proxy.conf"
    with open(conf, "w") as f:
        f.write(f"""
daemon off; user root; worker_processes 2; pid {w.dir}/proxy.pid;
error_log {w.dir}/proxy-error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 0; client_body_temp_path {w.dir}/p0;
  proxy_temp_path {w.dir}/p1; fastcgi_temp_path {w.dir}/p2; uwsgi_temp_path {w.dir}/p3;
  scgi_temp_path {w.dir}/p4;
  server {{
    listen 127.0.0.1:{PROXY};
    location /v4/ {{ proxy_pass http://{w.server4}:{HTTP}/; }}
    location /v6/ {{ proxy_pass http://[{w.server6}]:{HTTP}/; }}
  }}
}}""")
    proxy = w.spawn("nginx", "-e", f"{w.dir}/proxy-error.log", "-c", conf, cgroup="/fast")
    w.listens(PROXY, host="client")
    for path in ("v4", "v6"):
        with w.requests(2):
            w.curl("-o", f"{w.dir}/get/via", f"http://127.0.0.1:{PROXY}/{path}/big")
            w.curl("-f", "-T", f"{w.dir}/www/small1",
                   f"http://127.0.0.1:{PROXY}/{path}/up/via-{path}")
        assert sha(f"{w.dir}/get/via") == sha(f"{w.dir}/www/big")
        assert sha(f"{w.dir}/up/via-{path}") == sha(f"{w.dir}/www/small1")
    with w.requests(1):
        slow = w.spawn("curl", "-sS", "--limit-rate", "16M", "-o", f"{w.dir}/get/slow",
                       f"http://127.0.0.1:{PROXY}/v4/big", cgroup="/kernel")
        wait_for("the slow transfer runs", lambda: os.path.exists(f"{w.dir}/get/slow"))
        w.run("nginx", "-c", conf, "-s", "reload")
        assert slow.wait(60) == 0
    assert sha(f"{w.dir}/get/slow") == sha(f"{w.dir}/www/big")
    proxy.terminate()
    proxy.wait(20)


# --- redis ---

@test
def redis_keeps_what_it_is_given(w):
    server = w.spawn("redis-server", "--port", REDIS, "--bind", "*", "-::*", "--save", "",
                     "--protected-mode", "no", "--dir", w.dir, host="server")
    w.listens(REDIS)
    for addr in (w.server4, w.server6):
        def cli(*args, **kw):
            return w.run("redis-cli", "-h", addr, "-p", REDIS, *args, cgroup="/fast", **kw).stdout
        mine = [f for f in cli("client", "list").split() if f.startswith("addr=")]
        assert len(mine) == 1 and w.is_steered(int(mine[0].rpartition(":")[2])), mine
        value = random.Random(addr).randbytes(1 << 20).hex()
        assert cli("-x", "set", "large", input=value).strip() == "OK"
        assert cli("get", "large").strip() == value
        commands = "".join(f"SET key:{i} {addr}-{i}\r\n" for i in range(10000))
        assert "errors: 0, replies: 10000" in cli("--pipe", input=commands)
        asked = "".join(f"GET key:{i}\n" for i in range(10000))
        assert cli(input=asked).split() == [f"{addr}-{i}" for i in range(10000)]
    server.terminate()
    server.wait(20)


@test
def redis_benchmark_counts_add_up(w):
    server = w.spawn("redis-server", "--port", REDIS, "--bind", "*", "-::*", "--save", "",
                     "--protected-mode", "no", "--dir", w.dir, host="server")
    w.listens(REDIS)
    for i, addr in enumerate((w.server4, w.server6), 1):
        with w.steered_flows("redis-benchmark", REDIS, 40):
            w.run("redis-benchmark", "-h", addr, "-p", REDIS, "-n", "10000", "-c", "40", "-P", "8",
                  "-q", "-t", "incr,lpush", cgroup="/fast")
        # redis-benchmark may send a few more than it was asked for
        assert int(w.run("redis-cli", "-p", REDIS, "llen", "mylist", host="server").stdout) >= \
            10000 * i
        assert int(w.run("redis-cli", "-p", REDIS, "get", "counter:__rand_int__",
                         host="server").stdout.strip()) >= 10000 * i
    server.terminate()
    server.wait(20)


# --- iperf3 ---

def iperf3(w, addr, sink, *args, streams=1):
    """One run; the receiver writes what arrives to a file. The bytes it says have arrived."""
    there, here = (), ("-F", sink)
    if "-R" not in args:
        there, here = here, there
    server = w.spawn("iperf3", "-s", "-1", "-p", IPERF, *there, host="server")
    w.listens(IPERF)
    with w.steered_flows("iperf3", IPERF, streams + 1):
        out = json.loads(w.run("iperf3", "-c", addr, "-p", IPERF, "-n", IPERF_BYTES, "--json",
                               "-l", IPERF_BLOCK, "--repeating-payload", *here, *args,
                               cgroup="/fast").stdout)
    server.wait(20)
    assert "error" not in out, out
    for stream in out["start"]["connected"]:
        assert w.is_steered(stream["local_port"]), stream
    sent, received = out["end"]["sum_sent"], out["end"]["sum_received"]
    print(f"# {addr} {' '.join(args) or 'to server'}: {received['bytes'] >> 20} MiB, "
          f"{received['bits_per_second'] / 1e9:.2f} Gb/s, retransmits {sent.get('retransmits')}")
    assert sent["bytes"] >= IPERF_BYTES, out["end"]
    return received["bytes"]


def assert_pattern(data, what):
    """0 to 9 over and over; where a write was cut short, iperf3 begins its block again."""
    left = data.replace(b"0123456789", b"")
    for i in range(len(left)):
        assert left[i] == ord("0") or i and left[i] == left[i - 1] + 1, \
            f"{what}: {left[max(0, i - 20):i + 20]!r} is left of the pattern"


@test
def iperf3_moves_bytes_both_ways(w):
    sink = f"{w.dir}/iperf3.out"
    for addr in (w.server4, w.server6):
        for direction in ((), ("-R",)):
            said = iperf3(w, addr, sink, *direction)
            with open(sink, "rb") as f:
                got = f.read()
            os.unlink(sink)
            # the receiver stops reading, or counting, when the sender says that it is done
            assert len(got) >= said > IPERF_BYTES // 2, f"{len(got)} bytes came, {said} were told"
            assert_pattern(got, f"{addr} {direction}")
        assert iperf3(w, addr, "/dev/null", "-P", "4", streams=4) > IPERF_BYTES // 2


# --- python ---

class EchoHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("X-Wire-Port", str(self.client_address[1]))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class HttpServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 128


def http_client(addr, port):
    """The ports the server saw; bodies of all kinds over one connection."""
    conn = http.client.HTTPConnection(addr, port, timeout=60)
    r = random.Random(5)
    ports = set()
    for size in (0, 1, 1459, 1 << 16, 3 << 20):
        body = r.randbytes(size)
        conn.request("POST", "/", body)
        answer = conn.getresponse()
        assert answer.read() == body, size
        ports.add(int(answer.getheader("X-Wire-Port")))
        pieces = [body[i:i + 5000] for i in range(0, size, 5000)]
        conn.request("POST", "/", iter(pieces), encode_chunked=True,
                     headers={"Transfer-Encoding": "chunked"})
        answer = conn.getresponse()
        assert answer.read() == body, f"chunked {size}"
    assert ports == {conn.sock.getsockname()[1]}, (ports, conn.sock.getsockname())
    return ports


@test
def python_http_client(w):
    def serve():
        HttpServer(("::", PY_HTTP), EchoHandler).serve_forever()
    w.start(serve, host="server")
    w.listens(PY_HTTP)
    for addr in (w.server4, w.server6):
        for port in w.call(http_client, addr, PY_HTTP, cgroup="/fast"):
            assert w.is_steered(port), port


async def echo_stream(addr, seed):
    r = random.Random(seed)
    data = r.randbytes(r.randrange(1, 1 << 17))
    reader, writer = await asyncio.open_connection(addr, ECHO, limit=1 << 20)
    port = int((await reader.readline()).split()[1])
    assert writer.get_extra_info("sockname")[1] == port
    writer.write(data)
    writer.write_eof()
    back = await reader.read()
    while not reader.at_eof():
        back += await reader.read()
    writer.close()
    assert back == data, f"stream {seed}: {len(back)} of {len(data)} bytes"
    return port


def asyncio_client(addrs, n):
    async def run():
        return await asyncio.gather(*(echo_stream(addrs[i % len(addrs)], i) for i in range(n)))
    return asyncio.run(run())


@test
def asyncio_streams_many_at_once(w):
    ports = w.call(asyncio_client, (w.server4, w.server6), 200, cgroup="/fast", timeout=120)
    assert len(ports) == 200 and all(map(w.is_steered, ports))


def threads_share_one_socket(addr):
    """One thread writes while another reads, as many programs do."""
    s = socket.socket(family_of(addr))
    s.settimeout(60)
    s.connect((addr, ECHO))
    port = told_port(s)
    data = random.Random(3).randbytes(8 << 20)

    def write():
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
    writer = threading.Thread(target=write)
    writer.start()
    back = read_exactly(s, len(data))
    writer.join()
    assert back == data and s.recv(1) == b""
    return port


@test
def one_socket_in_two_threads(w):
    for addr in (w.server4, w.server6):
        assert w.is_steered(w.call(threads_share_one_socket, addr, cgroup="/fast"))


# --- processes ---

@test
def static_multithreaded_binary(w):
    with open(STATIC_CLIENT, "rb") as f:
        assert b"/ld-linux" not in f.read(), "it is not static"
    for addr in (w.server4, w.server6):
        out = w.run(STATIC_CLIENT, addr, ECHO, 2 << 20, 16, cgroup="/fast").stdout.split()
        assert len(out) == 16 and all(w.is_steered(int(p)) for p in out), out


def forked(addr):
    """Parent and child write in turn to a connection that the parent opened; the child's exit ends
    nothing; then a program that was exec()ed reads from it."""
    s = socket.socket(family_of(addr))
    s.settimeout(60)
    s.connect((addr, ECHO))
    port = told_port(s)
    data = random.Random(4).randbytes(1 << 20)
    s.sendall(data[:1000])
    pid = os.fork()
    if pid == 0:
        ok = s.getpeername()[:2] == (addr, ECHO) and s.getsockname()[1] == port
        threading.Thread(target=s.sendall, args=(data[1000:],)).start()
        ok = ok and read_exactly(s, 500000) == data[:500000]
        for t in threading.enumerate():
            if t is not threading.current_thread():
                t.join()
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"
    s.settimeout(None)  # a socket with a timeout does not block, in the program below neither
    rest = subprocess.run(["head", "-c", str(len(data) - 500000)], stdin=s, capture_output=True,
                          timeout=60)
    assert rest.stdout == data[500000:]
    s.sendall(b"still here")
    assert read_exactly(s, 10) == b"still here"
    return port


@test
def forked_children_inherit_the_connection(w):
    for addr in (w.server4, w.server6):
        assert w.is_steered(w.call(forked, addr, cgroup="/fast"))


def pass_on(addr, channel):
    s = socket.socket(family_of(addr))
    s.settimeout(60)
    s.connect((addr, ECHO))
    socket.send_fds(channel, [b"x"], [s.fileno()])


def take_over(addr, channel):
    _, fds, _, _ = socket.recv_fds(channel, 1, 1)
    s = socket.socket(fileno=fds[0])
    s.settimeout(60)
    port = told_port(s)
    assert s.getpeername()[:2] == (addr, ECHO) and s.getsockname()[1] == port
    data = random.Random(6).randbytes(1 << 18)
    threading.Thread(target=s.sendall, args=(data,)).start()
    assert read_exactly(s, len(data)) == data
    return port


@test
def a_passed_connection_goes_on_elsewhere(w):
    """By SCM_RIGHTS to a process outside the cgroup."""
    for addr in (w.server4, w.server6):
        a, b = socket.socketpair()
        taker = w.start(take_over, addr, b)
        w.call(pass_on, addr, a, cgroup="/fast")
        a.close()
        b.close()
        assert w.is_steered(taker.result())


if __name__ == "__main__":
    main(AppsWorld)
