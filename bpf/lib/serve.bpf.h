/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ports that servers of attached cgroups listen on, seen from the flow door. The instances know their
 * flows (struct dmm_wire); who listens, and which flows are the kernel's own, the kernel is asked. So
 * nothing hangs on being told when a server goes: without a listener the kernel refuses, and flows of the
 * instances go on. */
#pragma once

#include <dmm/abi/wire.h>

#include "lib/tables.bpf.h"

#include "lib/kernel.bpf.h"
#include "lib/parse.bpf.h"

#define MAX_SERVED 8 /* instances that have flows of one port: bytes of dmm_port.served, id + 1 */

/* 1: @flow is one of instance @id. Global, so that the verifier sees its loop once. */
__noinline int has_wire(__u32 id, const struct dmm_wire *flow)
{
	const struct dmm_inst_shared *page = shared(id);
	const struct dmm_wire *w;
	__u32 at;

	if (!page || !flow)
		return 0;
	at = dmm_wire_hash(page->seed, flow->remote, flow->remote_port, flow->local_port);
	at = page->head[dmm_in_block(at, DMM_WIRE_HEADS)];
	for (int i = 0; i < DMM_WIRE_CHAIN; i++) {
		if (!at)
			return 0;
		w = &page->wire[dmm_in_block(at - 1, DMM_MAX_PORTS)];
		if (w->remote_port == flow->remote_port && w->local_port == flow->local_port &&
		    addr_equal(w->remote, flow->remote) && addr_equal(w->local, flow->local))
			return 1;
		at = w->next;
	}
	return 0;
}

/* The flow's instance, DMM_MAX_INSTANCES: it is none's. */
static __always_inline __u32 find_wire(const struct dmm_port *port, const struct dmm_wire *flow)
{
	__u64 served = *(volatile __u64 *)&port->served;

	for (int i = 0; i < MAX_SERVED && served; i++) {
		__u32 id = (served & 0xff) - 1;

		if (has_wire(id, flow))
			return id;
		served >>= 8;
	}
	return DMM_MAX_INSTANCES;
}

/* So that the rest of a flow that begins is looked for there. False: too many instances have had flows of
 * that port. */
static __always_inline bool note_served(struct dmm_port *port, __u32 id)
{
	__u64 served = *(volatile __u64 *)&port->served, seen;

	for (int i = 0; i < MAX_SERVED; i++) {
		__u32 place = 8 * i;

		if ((served >> place & 0xff) == id + 1)
			return true;
		if (served >> place & 0xff)
			continue;
		seen = __sync_val_compare_and_swap(&port->served, served,
						   served | (__u64)(id + 1) << place);
		if (seen == served || (seen >> place & 0xff) == id + 1)
			return true;
		served = seen; /* another CPU was faster: the next place */
	}
	return false;
}

static __always_inline struct bpf_sock *find_sk(struct xdp_md *ctx, enum dmm_family family,
						const struct dmm_wire *flow, __be16 remote_port)
{
	const __u32 *local = (const __u32 *)flow->local, *remote = (const __u32 *)flow->remote;
	struct bpf_sock_tuple tuple = {};

	if (family == DMM_FAMILY_V4) {
		tuple.ipv4.saddr = remote[3];
		tuple.ipv4.daddr = local[3];
		tuple.ipv4.sport = remote_port;
		tuple.ipv4.dport = flow->local_port;
		return bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(tuple.ipv6.saddr, remote, 16);
	__builtin_memcpy(tuple.ipv6.daddr, local, 16);
	tuple.ipv6.sport = remote_port;
	tuple.ipv6.dport = flow->local_port;
	return bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

/* NONE: a listener that has room. */
static __always_inline enum dmm_reason find_listener(struct xdp_md *ctx, enum dmm_family family,
						     bool syn, const struct dmm_wire *flow,
						     struct dmm_listener **ret)
{
	struct dmm_listener_key key = { .port = flow->local_port };
	enum dmm_reason reason = DMM_REASON_NONE;
	struct bpf_sock *sk = find_sk(ctx, family, flow, flow->remote_port);
	struct tcp_sock *tcp;

	if (sk && syn && sk->state == TCP_TIME_WAIT) {
		/* the client uses its port again: no flow of the kernel's any more. From port 0
		 * nobody comes, so only a listener is found */
		bpf_sk_release(sk);
		sk = find_sk(ctx, family, flow, 0);
	}
	if (!sk)
		return DMM_REASON_XDP_NO_LISTENER;
	if (sk->state != TCP_LISTEN) {
		bpf_sk_release(sk);
		return DMM_REASON_XDP_KERNEL_FLOW;
	}
	tcp = bpf_skc_to_tcp_sock(sk);
	if (tcp) {
		sock_local_addr(tcp, key.addr);
		if (syn && sock_backlog_is_full(tcp))
			reason = DMM_REASON_XDP_BACKLOG_FULL;
	}
	bpf_sk_release(sk);
	if (reason != DMM_REASON_NONE)
		return reason;
	*ret = bpf_map_lookup_elem(&dmm_listeners, &key);
	return *ret && (*ret)->n ? DMM_REASON_NONE : DMM_REASON_XDP_NO_LISTENER;
}

/* The same for each packet of a flow, as far as it goes: a client with a SYN cookie finds who gave it. */
static __always_inline __u32 spread_of(const struct dmm_wire *flow)
{
	const __u32 *remote = (const __u32 *)flow->remote;
	__u32 hash = remote[0] ^ remote[1] ^ remote[2] ^ remote[3];

	hash = (hash ^ hash >> 16) * 0x85ebca6bu ^ bpf_ntohs(flow->remote_port);
	hash = (hash ^ hash >> 13) * 0x9e3779b1u;
	return hash >> 16;
}

/* What a client gets that is none's yet: @ret_id, or a reason. */
static __always_inline enum dmm_reason decide_client(struct xdp_md *ctx, const struct packet *p,
						     const struct dmm_wire *flow, __u32 *ret_id)
{
	const struct dmm_config *conf = config();
	struct dmm_listener *listener = NULL;
	struct decide_env env = {};
	struct dmm_choice choice;
	enum dmm_reason reason;

	reason = find_listener(ctx, p->family, p->syn, flow, &listener);
	if (reason != DMM_REASON_NONE)
		return reason;
	if (!listener || !conf || !live_generation(&env))
		return DMM_REASON_NO_POLICY;
	env.stale_ns = conf->stale_ms * 1000000ULL;
	env.now = coarse_ns();
	env.spread = spread_of(flow);
	dmm_decide_client(&env, server_class(&env, listener->cgroup, listener->uid, listener->comm),
			  DMM_PROTO_TCP, flow->local, p->port, flow->remote, &choice);
	if (choice.verdict == DMM_VERDICT_USERSPACE)
		dmm_check_available(&env, &choice);
	*ret_id = choice.instance;
	if (choice.verdict == DMM_VERDICT_USERSPACE)
		return DMM_REASON_NONE;
	if (choice.verdict == DMM_VERDICT_REJECT) {
		count_hit(&choice, env.now);
		return DMM_REASON_XDP_LISTEN_REJECT;
	}
	return choice.reason == DMM_REASON_RULE ? DMM_REASON_XDP_LISTEN_RULE : choice.reason;
}

/* The addresses that the packet is about, from the host's side. */
static __always_inline void wire_of(struct xdp_md *ctx, const struct packet *p,
				    struct dmm_wire *flow)
{
	if (p->is_error) {
		__builtin_memcpy(flow->local, p->quote.source, 16);
		__builtin_memcpy(flow->remote, p->quote.dest, 16);
	} else {
		load_addr(ctx, p, true, flow->local);
		load_addr(ctx, p, false, flow->remote);
	}
	flow->local_port = bpf_htons(p->port);
	flow->remote_port = bpf_htons(p->remote_port);
}

/* NONE and whose: @ret_id; or why it is not an instance's. */
static __always_inline enum dmm_reason find_server(struct xdp_md *ctx, const struct packet *p,
						   struct dmm_port *port, __u32 *ret_id)
{
	struct dmm_wire flow = {};
	enum dmm_reason reason;

	wire_of(ctx, p, &flow);
	*ret_id = find_wire(port, &flow);
	if (*ret_id < DMM_MAX_INSTANCES)
		return DMM_REASON_NONE;
	if (p->is_error || p->first_fragment || p->proto != DMM_PROTO_TCP)
		return DMM_REASON_XDP_KERNEL_FLOW;
	reason = decide_client(ctx, p, &flow, ret_id);
	if (reason == DMM_REASON_NONE && !note_served(port, *ret_id))
		return DMM_REASON_NO_MEMORY;
	return reason;
}
