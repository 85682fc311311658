/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Servers of attached cgroups: their listeners, and the sockets that they accept. */
#pragma once

#include "lib/tables.bpf.h"

#include "lib/kernel.bpf.h"

static __always_inline void ask_for_states(struct bpf_sock_ops *ops)
{
	/* other programs may have asked for theirs */
	bpf_sock_ops_cb_flags_set(ops, CTX_READ(ops->bpf_sock_ops_cb_flags) |
					       BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* The true addresses behind a leg on loopback. */
static __always_inline void enter_peer(const struct dmm_tuple *leg, const struct dmm_sock *st)
{
	struct dmm_peer peer;

	__builtin_memset(&peer, 0, sizeof(peer));
	__builtin_memcpy(peer.local, st->local, 16);
	__builtin_memcpy(peer.remote, st->remote, 16);
	peer.local_port = st->local_port;
	peer.remote_port = st->remote_port;
	peer.cgroup = st->cgroup;
	/* full of what the next sweep takes: names of MPTCP sockets are wrong till then */
	if (bpf_map_update_elem(&dmm_tuples, leg, &peer,
				BPF_ANY)) /* before 6.4 an int: never below 0 */
		count(DMM_REASON_NO_MEMORY);
}

/* --- listeners --- */

static __always_inline void remember_server(struct dmm_listener *listener, struct dmm_sock *st)
{
	listener->cgroup = st->cgroup;
	listener->pid = st->pid;
	listener->uid = st->uid;
	__builtin_memcpy(listener->comm, st->comm, sizeof(st->comm));
}

static __always_inline bool enter_listener(const struct dmm_listener_key *key, struct dmm_sock *st)
{
	struct dmm_listener fresh = { .n = 1 }, *old;

	for (int tries = 0; tries < 2; tries++) { /* two may begin at the same moment */
		old = bpf_map_lookup_elem(&dmm_listeners, key);
		if (old) {
			__sync_fetch_and_add(&old->n, 1);
			remember_server(old, st);
			return true;
		}
		remember_server(&fresh, st);
		if (!bpf_map_update_elem(&dmm_listeners, key, &fresh, BPF_NOEXIST))
			return true;
	}
	return false;
}

/* dmmd knows better where it has said something. */
static __always_inline void note_class(const struct dmm_sock *st)
{
	struct dmm_server_key key = { .cgroup = st->cgroup };
	const struct dmm_gen_meta *meta;
	struct decide_env env = {};
	__u32 class_id = st->class_id;

	if (!live_generation(&env))
		return;
	meta = live_meta(&env);
	if (meta && meta->n_cgroups)
		class_id %= meta->n_cgroups; /* the cgroup's own */
	key.slot = env.slot;
	bpf_map_update_elem(&dmm_serv_class, &key, &class_id, BPF_NOEXIST);
}

/* A listener whose clients a stack could not lead to it, or not truly. */
static __always_inline bool stays(struct bpf_sock_ops *ops, struct bpf_sock *sk,
				  struct tcp_sock *tcp)
{
	const struct dmm_config *conf = config();

	return !conf || bpf_get_netns_cookie(ops) != conf->netns_cookie || sk->bound_dev_if ||
	       sock_is_transparent(tcp) || sock_has_md5(tcp);
}

static __always_inline void on_listen(struct bpf_sock_ops *ops, struct bpf_sock *sk,
				      struct dmm_sock *st, struct tcp_sock *tcp)
{
	struct dmm_listener_key key = { .port = sock_local_port(tcp) };
	__u32 number = DMM_PROTO_TCP << 16 | bpf_ntohs(key.port);
	struct dmm_port *port = bpf_map_lookup_elem(&dmm_ports, &number);

	if (st->stage == DMM_SOCK_LISTENING || !port || stays(ops, sk, tcp))
		return; /* the first: nested hooks */
	sock_local_addr(tcp, key.addr);
	if (!enter_listener(&key, st)) {
		count(DMM_REASON_NO_MEMORY);
		return;
	}
	st->stage = DMM_SOCK_LISTENING;
	__builtin_memcpy(st->local, key.addr, 16);
	st->local_port = key.port;
	note_class(st);
	__sync_val_compare_and_swap(&port->state, DMM_PORT_KERNEL, DMM_PORT_SERVED);
	ask_for_states(ops);
}

/* The entry stays, for the next one: nobody asks for it while nobody listens. */
static __always_inline void on_unlisten(struct dmm_sock *st, struct tcp_sock *tcp)
{
	struct dmm_listener_key key = { .port = st->local_port };
	struct dmm_listener *listener;

	__builtin_memcpy(key.addr, st->local, 16);
	st->stage = DMM_SOCK_ENDED;
	listener = bpf_map_lookup_elem(&dmm_listeners, &key);
	if (listener)
		__sync_fetch_and_sub(&listener->n, 1);
}

/* --- accepted sockets --- */

/* The listener bound to just that, NULL: there is none now. */
static __always_inline struct dmm_listener *find_listener(const struct dmm_listener_key *key)
{
	struct dmm_listener *found = bpf_map_lookup_elem(&dmm_listeners, key);

	return found && found->n ? found : NULL;
}

/* The listener that a socket with these addresses came from, by the kernel's preference. */
static __always_inline struct dmm_listener *listener_of(const __u8 *local, __be16 port)
{
	struct dmm_listener_key key = { .port = port };
	struct dmm_listener *found;

	__builtin_memcpy(key.addr, local, 16);
	found = find_listener(&key);
	if (!found && dmm_addr_family(local) == DMM_FAMILY_V4) {
		addr_from_v4(key.addr, 0);
		found = find_listener(&key);
	}
	if (!found) {
		__builtin_memset(key.addr, 0, 16);
		found = find_listener(&key);
	}
	return found;
}

/* An instance talks to a server from an address of the host and a port that only instances have. The flow
 * of the wire that it is for, or NULL. */
static __always_inline const struct dmm_wire *wire_behind(const struct dmm_sock *st, __u32 *ret_id)
{
	__u32 number = DMM_PROTO_TCP << 16 | bpf_ntohs(st->remote_port), i;
	const struct dmm_inst_shared *page;
	const struct dmm_instance *inst;
	const struct dmm_port *port;

	if (!local(st->remote))
		return NULL;
	port = bpf_map_lookup_elem(&dmm_ports, &number);
	if (!port || port->state != DMM_PORT_RANGE)
		return NULL;
	inst = instance(port->instance);
	page = shared(port->instance);
	if (!inst || !page)
		return NULL;
	*ret_id = port->instance;
	i = bpf_ntohs(st->remote_port) - inst->port_first;
	return &page->wire[dmm_in_block(i, DMM_MAX_PORTS)];
}

static __always_inline void far_addr(struct bpf_sock *sk, __u8 *addr)
{
	__u32 *w = (__u32 *)addr;

	if (sk->family == AF_INET) {
		addr_from_v4(addr, sk->dst_ip4);
		return;
	}
	w[0] = sk->dst_ip6[0];
	w[1] = sk->dst_ip6[1];
	w[2] = sk->dst_ip6[2];
	w[3] = sk->dst_ip6[3];
}

/* The loopback connection of an accepted socket with an instance. */
static __always_inline void leg_of(struct bpf_sock *sk, const struct dmm_sock *st,
				   struct dmm_tuple *leg)
{
	__builtin_memset(leg, 0, sizeof(*leg));
	__builtin_memcpy(leg->app, st->local, 16);
	far_addr(sk, leg->relay);
	leg->app_port = st->local_port;
	leg->relay_port = CTX_READ(sk->dst_port);
}

/* Which rule is behind it, asked once more: the flow door has nothing to tell this by. */
static __always_inline void explain_client(struct dmm_sock *st, bool by_stack)
{
	struct decide_env env = {};
	struct dmm_choice c = {};
	const struct dmm_rule *rule;

	if (!live_generation(&env))
		return;
	st->class_id = server_class(&env, st->cgroup, st->uid, st->comm);
	dmm_decide_client(&env, st->class_id, DMM_PROTO_TCP, st->local, bpf_ntohs(st->local_port),
			  st->remote, &c);
	st->generation = env.generation;
	st->verdict = by_stack ? DMM_VERDICT_USERSPACE : DMM_VERDICT_KERNEL;
	st->reason = c.reason;
	if (!by_stack && c.verdict != DMM_VERDICT_KERNEL)
		st->reason = DMM_REASON_NOT_BY_STACK;
	st->rule = c.rule;
	count(st->reason);
	rule = c.matched;
	if (!rule)
		return;
	__builtin_memcpy(st->rule_name, rule->name, sizeof(st->rule_name));
	count_hit(&c, st->decided_ns);
}

static __always_inline void on_accepted(struct bpf_sock_ops *ops, struct bpf_sock *sk,
					struct tcp_sock *tcp)
{
	const struct dmm_listener *listener;
	const struct dmm_wire *wire;
	struct dmm_tuple leg;
	struct dmm_sock *st;
	__be16 port = sock_local_port(tcp);
	__u8 local[16];

	sock_local_addr(tcp, local);
	listener = listener_of(local, port);
	if (!listener)
		return; /* older than the attach */
	st = bpf_sk_storage_get(&dmm_sock, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!st) {
		count(DMM_REASON_NO_MEMORY);
		return;
	}
	if (st->verdict != DMM_VERDICT_NONE)
		return; /* nested hooks */
	st->direction = DMM_DIR_LISTEN;
	st->stage = DMM_SOCK_STARTED;
	st->cgroup = listener->cgroup;
	st->pid = listener->pid;
	st->uid = listener->uid;
	__builtin_memcpy(st->comm, listener->comm, sizeof(st->comm));
	__builtin_memcpy(st->local, local, 16);
	st->local_port = port;
	st->decided_ns = coarse_ns();
	far_addr(sk, st->remote);
	st->remote_port = CTX_READ(sk->dst_port);
	wire = wire_behind(st, &st->instance); /* it was written before the connect() */
	if (wire) {
		leg_of(sk, st, &leg);
		st->relay_port = st->remote_port; /* as the getpeername hook expects it */
		__builtin_memcpy(st->remote, wire->remote, 16);
		st->remote_port = wire->remote_port;
		enter_peer(&leg, st);
	}
	explain_client(st, wire != NULL);
	ask_for_states(ops);
}
