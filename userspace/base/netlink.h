/* SPDX-License-Identifier: Apache-2.0 */
/* Asking the kernel by netlink and reading all that it answers. */
#pragma once

#include <stdint.h>

#include <libmnl/libmnl.h>

/* A bound socket of this family, in the current network namespace. */
int dmm_netlink_open(int bus, struct mnl_socket **ret);
/* Sends @request, a dump or a single question, and hands every message of the answer to @cb. A single
 * question's @cb ends it with MNL_CB_STOP. -EINTR: what was dumped changed meanwhile; -ENOMEM: @cb
 * returned MNL_CB_ERROR and had no errno of its own; else what the kernel says. */
int dmm_netlink_ask(struct mnl_socket *nl, struct nlmsghdr *request, mnl_cb_t cb, void *ctx);
/* Hands every TCP socket of the current network namespace, of both IP versions, that is in one of @states
 * (a bit for each TCP_*) to @cb. Errors as above. */
int dmm_netlink_tcp_sockets(uint32_t states, mnl_cb_t cb, void *ctx);
/* An address of a socket's as maps have it: IPv4 as ::ffff:a.b.c.d. */
void dmm_netlink_addr(uint8_t ret[16], int family, const uint32_t addr[4]);
