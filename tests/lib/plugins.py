# SPDX-License-Identifier: Apache-2.0
"""Stack plug-ins that are wrong in one way each, built for a test."""

import os

from dmmtest import ROOT, sh

SOURCE = """
#define _GNU_SOURCE
%(headers)s
#include <stdlib.h>
#include <dmm/stack.h>
static const struct dmm_host *host;
static void __attribute__((constructor)) ld(void) { %(load)s }
static int cr(const struct dmm_stack_params *p, const struct dmm_host *h, struct dmm_stack **r)
{ %(create)s }
static void de(struct dmm_stack *s) {}
static void in(struct dmm_stack *s, const struct dmm_frame *f, unsigned int n) {}
static uint64_t ti(struct dmm_stack *s, uint64_t n) { %(tick)s }
static int co(struct dmm_stack *s, const struct dmm_connect *a, struct dmm_conn **r)
{ %(connect)s }
static ssize_t se(struct dmm_conn *c, const void *b, size_t n) { return 0; }
static size_t sp(struct dmm_conn *c) { return 0; }
static unsigned int pe(struct dmm_conn *c, struct iovec *v, unsigned int n) { return 0; }
static void dn(struct dmm_conn *c, size_t n) {}
static int sh(struct dmm_conn *c) { return 0; }
static void cl(struct dmm_conn *c) {}
static int op(struct dmm_conn *c, enum dmm_stack_option o, int v) { return 0; }
static void us(struct dmm_conn *c, void *u) {}
const struct dmm_stack_ops %(symbol)s = {
  .abi = %(abi)s, .size = sizeof(struct dmm_stack_ops), .name = "bad", .version = "1",
  .create = cr, .destroy = de, .input = in, .tick = ti, .connect = co, .send = se,
  .send_space = sp, .recv_peek = %(peek)s, .recv_done = dn, .unsent = sp, .shutdown = sh,
  .close = cl, .abort = cl, .set_option = op, .set_user = us };
"""


def build(path, headers=(), **differs):
    """Makes the plug-in @path (.so); @differs: create, load, connect, tick (bodies, with these @headers),
    symbol, abi, peek."""
    parts = {"create": "*r = (void *)ld; return 0;", "load": "", "connect": "return -1;",
             "tick": "return UINT64_MAX;", "symbol": "dmm_stack_plugin",
             "abi": "DMM_STACK_ABI", "peek": "pe", **differs,
             "headers": "\n".join(f"#include <{h}>" for h in headers)}
    _compile(path, SOURCE % parts)


def _compile(path, text):
    source = path + ".c"
    with open(source, "w") as f:
        f.write(text)
    sh("gcc", "-w", "-shared", "-fPIC", f"-I{ROOT}/include", "-o", path, source)
    os.unlink(source)


HANGING = """
#include <arpa/inet.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <dmm/stack.h>
struct dmm_stack_ops dmm_stack_plugin;
static int (*connect_of_it)(struct dmm_stack *, const struct dmm_connect *, struct dmm_conn **);
static int co(struct dmm_stack *s, const struct dmm_connect *a, struct dmm_conn **r)
{
  if (a->remote.port == htons(%(port)d))
    for (;;);
  return connect_of_it(s, a, r);
}
static void __attribute__((constructor)) ld(void)
{
  const struct dmm_stack_ops *ops = dlsym(dlopen("%(of)s", RTLD_NOW), DMM_STACK_SYMBOL);
  if (!ops)
    abort();
  dmm_stack_plugin = *ops;
  connect_of_it = ops->connect;
  dmm_stack_plugin.connect = co;
}
"""


def build_hanging(path, of, port):
    """Makes the plug-in @path: as the plug-in file @of, but a connect to @port never returns."""
    _compile(path, HANGING % {"of": of, "port": port})
