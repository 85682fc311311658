/* SPDX-License-Identifier: Apache-2.0 */
/* Asking the kernel by netlink and reading all that it answers. */
#pragma once

#include <libmnl/libmnl.h>

/* A bound socket of this family, in the current network namespace. */
int dmm_netlink_open(int bus, struct mnl_socket **ret);
/* Sends @request, a dump or a single question, and hands every message of the answer to @cb. A single
 * question's @cb ends it with MNL_CB_STOP. -EINTR: what was dumped changed meanwhile; -ENOMEM: @cb
 * returned MNL_CB_ERROR and had no errno of its own; else what the kernel says. */
int dmm_netlink_ask(struct mnl_socket *nl, struct nlmsghdr *request, mnl_cb_t cb, void *ctx);
/* The same with every TCP socket of @family that is in one of @states (a bit for each TCP_*); @ext: what
 * to tell of it besides (a bit for each INET_DIAG_*). */
int dmm_netlink_tcp_sockets(struct mnl_socket *nl, int family, uint32_t states, uint8_t ext,
			    mnl_cb_t cb, void *ctx);
