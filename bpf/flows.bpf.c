/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The list of open flows: an iterator over the sockets that carry a verdict. It costs connections
 * nothing; who reads its pin pays. */
#include "lib/flow.bpf.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct sock *sk;
	void *value;
};

#pragma clang attribute pop

static enum dmm_flow_state state_of(unsigned char state)
{
	if (state == TCP_ESTABLISHED)
		return DMM_FLOW_ESTABLISHED;
	return state == TCP_SYN_SENT || state == TCP_SYN_RECV ? DMM_FLOW_CONNECTING
							      : DMM_FLOW_CLOSING;
}

SEC("iter/bpf_sk_storage_map")
int dmm_flows(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	const struct dmm_sock *st = ctx->value;
	struct sock *sk = ctx->sk;
	struct tcp_sock *tcp;
	struct dmm_flow flow;
	unsigned char state;

	if (!sk || !st || st->verdict == DMM_VERDICT_NONE)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 0;
	state = sk->__sk_common.skc_state;
	if (state == TCP_CLOSE || state == TCP_LISTEN)
		return 0;
	fill_flow(&flow, st, tcp, bpf_get_socket_cookie(sk));
	flow.state = state_of(state);
	bpf_seq_write(ctx->meta->seq, &flow, sizeof(flow));
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
