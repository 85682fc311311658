/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A flow as it is told: made of its socket and of what the door keeps there. */
#pragma once

#include "lib/tables.bpf.h"

#include "lib/kernel.bpf.h"
#include "lib/sockaddr.bpf.h"

/* Fills all of @flow but state and closed_ns. */
static __always_inline void fill_flow(struct dmm_flow *flow, const struct dmm_sock *st,
				      struct tcp_sock *tcp, __u64 cookie)
{
	__be16 port = sock_local_port(tcp);

	__builtin_memset(flow, 0, sizeof(*flow));
	flow->cookie = cookie;
	flow->verdict = st->verdict;
	flow->reason = st->reason;
	flow->family = dmm_addr_family(st->remote);
	flow->proto = DMM_PROTO_TCP;
	flow->direction = st->direction;
	flow->generation = st->generation;
	flow->instance = st->instance;
	flow->pid = st->pid;
	flow->uid = st->uid;
	__builtin_memcpy(flow->remote, st->remote, 16);
	flow->remote_port = st->remote_port;
	if (st->verdict == DMM_VERDICT_USERSPACE) {
		__builtin_memcpy(flow->local, st->local, 16);
		flow->local_port = st->local_port;
		flow->app_port = port;
		flow->relay_port = st->relay_port;
	} else {
		sock_local_addr(tcp, flow->local);
		flow->local_port = port;
	}
	flow->cgroup = st->cgroup;
	flow->opened_ns = st->decided_ns;
	flow->bytes_sent = sock_bytes_sent(tcp);
	flow->bytes_received = sock_bytes_received(tcp);
	__builtin_memcpy(flow->comm, st->comm, sizeof(flow->comm));
	__builtin_memcpy(flow->rule, st->rule_name, sizeof(flow->rule));
}
