/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Liveness and identity of an instance's relay listener, seen from BPF. */
#pragma once

#include "lib/maps.bpf.h"

enum relay_state {
	RELAY_GONE,    /* nobody listens */
	RELAY_FOREIGN, /* somebody else does */
	RELAY_LIVE,
};

/* Who listens on @port of the loopback address? LIVE only if dmmd itself marked that listener as
 * @incarnation of instance @id. */
static __always_inline enum relay_state relay_lookup(void *ctx, enum dmm_family family, __be16 port,
						     __u32 id, __u32 incarnation)
{
	enum relay_state state = RELAY_FOREIGN;
	struct bpf_sock_tuple tuple = {};
	struct dmm_relay_mark *mark;
	struct bpf_sock *sk;

	if (family == DMM_FAMILY_V4) {
		tuple.ipv4.saddr = tuple.ipv4.daddr = bpf_htonl(0x7f000001);
		tuple.ipv4.dport = port;
		sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		tuple.ipv6.saddr[3] = tuple.ipv6.daddr[3] = bpf_htonl(1);
		tuple.ipv6.dport = port;
		sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return RELAY_GONE;
	mark = bpf_sk_storage_get(&dmm_relay_mark, sk, NULL, 0);
	if (mark && mark->instance == id && mark->incarnation == incarnation)
		state = RELAY_LIVE;
	bpf_sk_release(sk);
	return state;
}
