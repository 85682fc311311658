# SPDX-License-Identifier: Apache-2.0
"""Programs of somebody else, for tests of what becomes of ours beside them."""

import contextlib
import ctypes
import json
import os
import platform
import shutil
import struct

from dmmtest import libc, sh

BPF = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), -1)
OBJ_GET, PROG_ATTACH, PROG_DETACH, LINK_UPDATE = 7, 8, 9, 29
TCX_EGRESS = 47

# Each counts its runs in @seen.
SOURCE = """
#include <linux/bpf.h>
#define SEC(name) __attribute__((section(name), used))
static void *(*lookup)(void *map, const void *key) = (void *)1;
struct {
  int (*type)[BPF_MAP_TYPE_ARRAY];
  int (*max_entries)[1];
  __u32 *key;
  __u64 *value;
} seen SEC(".maps");
static int count(int verdict)
{
  __u32 zero = 0;
  __u64 *n = lookup(&seen, &zero);
  if (n)
    __sync_fetch_and_add(n, 1);
  return verdict;
}
SEC("tc") int theirs_ok(struct __sk_buff *skb) { return count(0); }
SEC("tc") int theirs_next(struct __sk_buff *skb) { return count(-1); }
SEC("xdp") int theirs_xdp(struct xdp_md *ctx) { return count(XDP_PASS); }
SEC("cgroup/connect4") int theirs_con4(struct bpf_sock_addr *ctx) { return count(1); }
SEC("cgroup/bind4") int theirs_bind4(struct bpf_sock_addr *ctx) { return count(1); }
SEC("sockops") int theirs_ops(struct bpf_sock_ops *ctx) { return count(1); }
SEC("cgroup/sock_create") int theirs_sock(struct bpf_sock *ctx) { return count(1); }
char free_text[] SEC("license") = "GPL";
"""


def bpf(cmd, attr):
    buf = ctypes.create_string_buffer(attr + b"\0" * (128 - len(attr)), 128)
    r = libc.syscall(BPF, cmd, buf, 128)
    if r < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return r


def open_pin(path):
    name = ctypes.create_string_buffer(path.encode())
    return bpf(OBJ_GET, struct.pack("QII", ctypes.addressof(name), 0, 0))


class Others:
    """Their programs, loaded and pinned; path(name) says where."""

    def __init__(self, w):
        self.w, self.dir = w, f"{w.bpffs}-others"
        src, obj = f"{w.dir}/others.bpf.c", f"{w.dir}/others.o"
        with open(src, "w") as f:
            f.write(SOURCE)
        sh("clang", "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-c", src, "-o", obj,
           "-I/usr/include/" + sh("gcc", "-print-multiarch").stdout.strip())
        os.mkdir(self.dir)
        sh("bpftool", "prog", "loadall", obj, self.dir, "pinmaps", self.dir)

    def path(self, name):
        return f"{self.dir}/{name}"

    def id(self, name):
        return json.loads(sh("bpftool", "-j", "prog", "show", "pinned", self.path(name)).stdout)["id"]

    def seen(self):
        out = json.loads(sh("bpftool", "-j", "map", "dump", "pinned", self.path("seen")).stdout)
        return out[0]["formatted"]["value"]

    @contextlib.contextmanager
    def tcx(self, name):
        """Attached to lo's way out, with no link."""
        def change(cmd):
            fd = open_pin(self.path(name))
            try:
                bpf(cmd, struct.pack("IIII", index, fd, TCX_EGRESS, 0))
            finally:
                os.close(fd)
        index = 1  # lo
        self.w.call(change, PROG_ATTACH)
        try:
            yield
        finally:
            self.w.call(change, PROG_DETACH)

    def into_link(self, link_id, name):
        """Makes a link of ours run their program."""
        fd, link = open_pin(self.path(name)), bpf(30, struct.pack("I", link_id))
        try:
            bpf(LINK_UPDATE, struct.pack("IIII", link, fd, 0, 0))
        finally:
            os.close(fd)
            os.close(link)

    def close(self):
        shutil.rmtree(self.dir, ignore_errors=True)
