/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The relay leg of steered sockets, who listens, and the list of flows that ended (flows.bpf.c has the
 * open ones).
 *
 *   sockops  CONNECT_CB registers the relay leg (its addresses are known, no SYN has left yet); at the
 *            end the flow is listed; closing while the SYN is held is told to the instance.
 *            LISTEN_CB enters the port in the flow door, before listen() returns; a socket that is
 *            accepted learns who its client is
 *   tc lo    holds the relay SYN: copies it to the instance's ring and takes it off the wire, so
 *            that connect() ends as the wire does. The instance injects it when the wire
 *            connection stands, or injects a refusal */
#include "lib/flow.bpf.h"

#include <linux/tcp.h>

#include "lib/accept.bpf.h"
#include "lib/relay.bpf.h"
#include "lib/sockaddr.bpf.h"

#define TC_ACT_UNSPEC (-1) /* the filters behind this one, if any, have their turn */
#define TC_ACT_SHOT   2
#define TC_ACT_STOLEN 4
#define ETH_HLEN      14
#define ETH_P_IP      0x0800
#define ETH_P_IPV6    0x86dd
#define IPPROTO_TCP   6
#define NEXT_HOP      0
#define NEXT_ROUTING  43
#define NEXT_DEST     60

/* --- flows --- */

static __always_inline void tuple_of(const struct dmm_sock *st, struct tcp_sock *tcp,
				     struct dmm_tuple *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	sock_local_addr(tcp, key->app);
	relay_addr(key->relay, dmm_addr_family(st->remote));
	key->app_port = sock_local_port(tcp);
	key->relay_port = st->relay_port;
}

static __always_inline void enter_tuple(const struct dmm_sock *st, struct tcp_sock *tcp)
{
	struct dmm_tuple key;

	tuple_of(st, tcp, &key);
	enter_peer(&key, st);
}

static __always_inline void on_connect(struct bpf_sock_ops *ops, struct dmm_sock *st,
				       struct tcp_sock *tcp)
{
	if (st->verdict == DMM_VERDICT_NONE)
		return;
	st->stage = DMM_SOCK_STARTED;
	if (st->verdict == DMM_VERDICT_USERSPACE)
		enter_tuple(st, tcp);
	ask_for_states(ops);
}

/* The application gave up while its SYN was held: the instance must drop the wire side. */
static __always_inline void tell_closed(const struct dmm_sock *st, const struct dmm_tuple *leg,
					__u64 cookie)
{
	__u32 id = st->instance;
	struct dmm_event *ev;
	void *ring;

	ring = bpf_map_lookup_elem(&dmm_rings, &id);
	if (!ring)
		return;
	ev = bpf_ringbuf_reserve(ring, sizeof(*ev), 0);
	if (!ev) {
		count(DMM_REASON_SYN_RING_FULL);
		return;
	}
	__builtin_memset(ev, 0, sizeof(*ev));
	ev->kind = DMM_EVENT_CLOSED;
	ev->family = dmm_addr_family(st->remote);
	ev->cookie = cookie;
	__builtin_memcpy(ev->app, leg->app, 16);
	__builtin_memcpy(ev->relay, leg->relay, 16);
	ev->app_port = leg->app_port;
	ev->relay_port = leg->relay_port;
	__builtin_memcpy(ev->local, st->local, 16);
	__builtin_memcpy(ev->remote, st->remote, 16);
	ev->local_port = st->local_port;
	ev->remote_port = st->remote_port;
	bpf_ringbuf_submit(ev, 0);
}

static __always_inline enum dmm_flow_state end_state(__u32 old)
{
	if (old == TCP_SYN_SENT)
		return DMM_FLOW_FAILED;
	return old == TCP_ESTABLISHED || old == TCP_CLOSE_WAIT ? DMM_FLOW_RESET : DMM_FLOW_CLOSED;
}

/* Readers trust an entry whose number is what its place says: it goes first and comes last, each time
 * as an atomic operation, which also orders what is between. */
static __always_inline void list_end(const struct dmm_sock *st, struct tcp_sock *tcp, __u64 cookie,
				     enum dmm_flow_state state)
{
	__u32 zero = 0, at;
	struct dmm_closed *entry;
	__u64 *count, number;

	count = bpf_map_lookup_elem(&dmm_n_closed, &zero);
	if (!count)
		return;
	number = __sync_fetch_and_add(count, 1) + 1;
	at = (number - 1) % DMM_MAX_CLOSED;
	entry = bpf_map_lookup_elem(&dmm_closed, &at);
	if (!entry)
		return;
	__sync_lock_test_and_set(&entry->number, 0);
	fill_flow(&entry->flow, st, tcp, cookie);
	entry->flow.state = state;
	entry->flow.closed_ns = coarse_ns();
	__sync_lock_test_and_set(&entry->number, number);
}

static __always_inline void on_close(struct bpf_sock_ops *ops, struct bpf_sock *sk,
				     struct dmm_sock *st, struct tcp_sock *tcp, __u32 old)
{
	__u64 cookie = bpf_get_socket_cookie(ops);
	struct dmm_tuple key;

	if (st->stage != DMM_SOCK_STARTED)
		return;
	st->stage = DMM_SOCK_ENDED;
	list_end(st, tcp, cookie, end_state(old));
	if (st->verdict != DMM_VERDICT_USERSPACE)
		return;
	if (st->direction == DMM_DIR_LISTEN)
		leg_of(sk, st, &key);
	else
		tuple_of(st, tcp, &key);
	bpf_map_delete_elem(&dmm_tuples, &key);
	if (old == TCP_SYN_SENT)
		tell_closed(st, &key, cookie);
}

/* The filter on lo takes the claim of every SYN that it sees: one that still has it went past it, as far as
 * the relay's listener. The instance knows nothing of it and resets it. */
static __always_inline void on_established(const struct dmm_sock *st)
{
	if (st->verdict == DMM_VERDICT_USERSPACE && st->stage == DMM_SOCK_STARTED && st->claim)
		count(DMM_REASON_SYN_NOT_HELD);
}

SEC("sockops")
int dmm_sockops(struct bpf_sock_ops *ops)
{
	__u32 op = CTX_READ(ops->op), old = CTX_READ(ops->args[0]), new = CTX_READ(ops->args[1]);
	struct bpf_sock *sk = ops->sk;
	struct tcp_sock *tcp;
	struct dmm_sock *st;

	if (op == BPF_SOCK_OPS_STATE_CB ? new != TCP_CLOSE &&new != TCP_ESTABLISHED
					: op != BPF_SOCK_OPS_TCP_CONNECT_CB &&
						  op != BPF_SOCK_OPS_TCP_LISTEN_CB &&op !=
							  BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	if (!sk)
		return 1;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 1;
	if (op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
		on_accepted(ops, sk, tcp);
		return 1;
	}
	st = bpf_sk_storage_get(&dmm_sock, sk, NULL, 0);
	if (!st)
		return 1;
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		on_connect(ops, st, tcp);
	else if (op == BPF_SOCK_OPS_TCP_LISTEN_CB)
		on_listen(ops, sk, st, tcp);
	else if (st->stage == DMM_SOCK_LISTENING)
		on_unlisten(st, tcp);
	else if (new == TCP_ESTABLISHED)
		on_established(st);
	else
		on_close(ops, sk, st, tcp, old);
	return 1;
}

/* --- the SYN hold --- */

#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct segment {
	enum dmm_family family;
	__be16 source, dest;
	__u8 flags;
};

/* The kinds of extension header that a socket's options make, and how many at most. */
#define MAX_EXT_HEADERS 4

static __always_inline bool is_ext(__u8 next)
{
	return next == NEXT_HOP || next == NEXT_ROUTING || next == NEXT_DEST;
}

/* Rare: only options set while the SYN is held put headers before a steered socket's TCP. */
static __always_inline bool is_tcp_behind_ext(struct __sk_buff *skb, __u8 next, struct segment *ret)
{
	__u32 offset = ETH_HLEN + 40;
	struct tcphdr tcp;
	__u8 ext[2];

	for (int i = 0; i < MAX_EXT_HEADERS && is_ext(next); i++) {
		if (bpf_skb_load_bytes(skb, offset, ext, sizeof(ext)))
			return false;
		next = ext[0];
		offset += (ext[1] + 1) * 8;
	}
	if (next != IPPROTO_TCP || bpf_skb_load_bytes(skb, offset, &tcp, sizeof(tcp)))
		return false;
	ret->family = DMM_FAMILY_V6;
	ret->source = tcp.source;
	ret->dest = tcp.dest;
	ret->flags = ((__u8 *)&tcp)[13];
	return true;
}

/* A TCP segment on lo? What is neither SYN nor RST passes at this price. */
static __always_inline bool is_tcp(struct __sk_buff *skb, struct segment *ret)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u8 *ip = data + ETH_HLEN, *tcp;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (data + ETH_HLEN + 40 > end || ip[9] != IPPROTO_TCP)
			return false;
		/* Options shift the header; a steered socket may have set some. */
		tcp = ip + (ip[0] & 0xf) * 4;
		ret->family = DMM_FAMILY_V4;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (data + ETH_HLEN + 60 > end)
			return false;
		if (is_ext(ip[6]))
			return is_tcp_behind_ext(skb, ip[6], ret);
		if (ip[6] != IPPROTO_TCP)
			return false;
		tcp = ip + 40;
		ret->family = DMM_FAMILY_V6;
	} else {
		return false;
	}
	if ((void *)tcp + 20 > end)
		return false;
	ret->source = *(__be16 *)tcp;
	ret->dest = *(__be16 *)(tcp + 2);
	ret->flags = tcp[13];
	return true;
}

static __always_inline void addrs_of(struct __sk_buff *skb, enum dmm_family family, __u8 *source,
				     __u8 *dest)
{
	__u32 v4[2] = {};

	if (family == DMM_FAMILY_V6) {
		bpf_skb_load_bytes(skb, ETH_HLEN + 8, source, 16);
		bpf_skb_load_bytes(skb, ETH_HLEN + 24, dest, 16);
		return;
	}
	bpf_skb_load_bytes(skb, ETH_HLEN + 12, v4, 8);
	addr_from_v4(source, v4[0]);
	addr_from_v4(dest, v4[1]);
}

static __always_inline int hold(struct __sk_buff *skb, const struct dmm_sock *st,
				const struct segment *syn)
{
	__u32 id = st->instance, len = skb->len - ETH_HLEN;
	struct dmm_event *ev;
	void *ring;

	ring = bpf_map_lookup_elem(&dmm_rings, &id);
	if (!ring) {
		count(DMM_REASON_INST_NO_RELAY);
		return TC_ACT_SHOT;
	}
	ev = bpf_ringbuf_reserve(ring, sizeof(*ev), 0);
	if (!ev) {
		count(DMM_REASON_SYN_RING_FULL); /* TCP sends it again */
		return TC_ACT_STOLEN;
	}
	__builtin_memset(ev, 0, sizeof(*ev));
	ev->kind = DMM_EVENT_SYN;
	ev->family = syn->family;
	ev->cookie = bpf_get_socket_cookie(skb);
	addrs_of(skb, syn->family, ev->app, ev->relay);
	ev->app_port = syn->source;
	ev->relay_port = syn->dest;
	__builtin_memcpy(ev->local, st->local, 16);
	__builtin_memcpy(ev->remote, st->remote, 16);
	ev->local_port = st->local_port;
	ev->remote_port = st->remote_port;
	if (len > DMM_HELD_SYN_MAX)
		len = DMM_HELD_SYN_MAX; /* only data is cut: it would not be injected anyway */
	barrier_var(len); /* the verifier of 6.1 must see the bounds right before the call */
	if (len < 40 || len > DMM_HELD_SYN_MAX ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, ev->packet, len)) {
		bpf_ringbuf_discard(ev, 0);
		return TC_ACT_SHOT;
	}
	ev->packet_len = len;
	bpf_ringbuf_submit(ev, 0);
	count(DMM_REASON_SYN_HELD);
	return TC_ACT_STOLEN;
}

/* While a handshake's request is being replaced by its socket, kernels (up to 6.18) have a moment in which
 * neither is found: a segment from another CPU then meets the listener, which resets a healthy
 * connection. Here the SYN is let go by the instance and the first bytes come from the application, so
 * that happens. The socket is there by the time of the reset; one that really resets has left its place
 * before. TCP sends the segment again. */
static __always_inline bool is_false_reset(struct __sk_buff *skb, const struct segment *rst)
{
	struct bpf_sock_tuple tuple = {};
	struct dmm_tuple key = {};
	struct bpf_sock *sk;
	__u32 state;

	addrs_of(skb, rst->family, key.relay, key.app);
	key.relay_port = rst->source;
	key.app_port = rst->dest;
	if (!bpf_map_lookup_elem(&dmm_tuples, &key))
		return false;
	if (rst->family == DMM_FAMILY_V4) {
		tuple.ipv4.saddr = ((__u32 *)key.app)[3];
		tuple.ipv4.daddr = ((__u32 *)key.relay)[3];
		tuple.ipv4.sport = key.app_port;
		tuple.ipv4.dport = key.relay_port;
		sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, key.app, 16);
		__builtin_memcpy(tuple.ipv6.daddr, key.relay, 16);
		tuple.ipv6.sport = key.app_port;
		tuple.ipv6.dport = key.relay_port;
		sk = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return false;
	state = sk->state;
	bpf_sk_release(sk);
	return state == TCP_ESTABLISHED;
}

SEC("tc")
int dmm_lo(struct __sk_buff *skb)
{
	struct dmm_sock *st;
	struct bpf_sock *sk;
	struct segment seg;

	if (!is_tcp(skb, &seg))
		return TC_ACT_UNSPEC;
	if (seg.flags & TCP_RST) {
		if (!is_false_reset(skb, &seg))
			return TC_ACT_UNSPEC;
		count(DMM_REASON_FALSE_RESET);
		return TC_ACT_SHOT;
	}
	if ((seg.flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return TC_ACT_UNSPEC;
	/* Who sends it: what the instance injects comes from its raw socket, which has no state here. */
	sk = skb->sk;
	if (!sk)
		return TC_ACT_UNSPEC;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return TC_ACT_UNSPEC;
	st = bpf_sk_storage_get(&dmm_sock, sk, NULL, 0);
	if (!st || st->verdict != DMM_VERDICT_USERSPACE || st->stage != DMM_SOCK_STARTED ||
	    seg.dest != st->relay_port)
		return TC_ACT_UNSPEC;
	st->claim = 0; /* the instance owns the port from here on */

	switch (relay_lookup(skb, seg.family, seg.dest, st->instance, st->incarnation)) {
	case RELAY_LIVE:
		return hold(skb, st, &seg);
	case RELAY_GONE:
		return TC_ACT_UNSPEC; /* the instance died: the kernel refuses at once */
	default:
		count(DMM_REASON_INST_NO_RELAY); /* whoever sits there now must not get it */
		return TC_ACT_SHOT;
	}
}

char _license[] SEC("license") = "Dual BSD/GPL";
