/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The socket door: cgroup hooks that decide once per connect() and keep addresses truthful.
 *
 *   sock_create   the socket's class, from the cgroups of its creator
 *   connect4/6    verdict; for a stack: true addresses remembered, destination := relay listener
 *   getpeername,  what the application meant, not the relay
 *   getsockname
 *   bind4/6       (at the cgroup root) guard the ports that instances own; a server's class
 *   ingress       (where a rule turns clients away) those that come by the kernel get no answer
 *   server4/6     (on sockets of instances) connect to nobody but servers
 *
 * A socket's state lives in sk_storage (struct dmm_sock), so it dies with the socket. */
#include "lib/tables.bpf.h"

#include <linux/if_ether.h>

#include "lib/accept.bpf.h"
#include "lib/kernel.bpf.h"
#include "lib/relay.bpf.h"
#include "lib/sockaddr.bpf.h"

#define SOCK_STREAM  1
#define EADDRINUSE   98
#define MAX_LEVELS   32
#define RANDOM_STEPS 16
#define ALLOW	     1
#define DENY	     0

/* Two hooks that run within this time with the same address in them may be of one call; where the
 * first stamp is the coarse clock's, one of its ticks is added. */
const volatile __u64 same_call_ns = 50000;
#define COARSE_TICK_NS 10000000 /* with HZ=100; none is slower */

/* --- class --- */

/* The class of the current task under the generation in @slot: that of the deepest of its cgroups
 * that the generation knows. */
static __always_inline __u32 current_class(const struct decide_env *env,
					   const struct dmm_gen_meta *meta, __u32 max_level)
{
	for (int i = 0; i < MAX_LEVELS; i++) {
		__u32 *class_id;
		__u64 id;

		if (i > max_level)
			break;
		id = bpf_get_current_ancestor_cgroup_id(max_level - i);
		if (!id)
			continue;
		class_id = bpf_map_lookup_elem(&dmm_cgroups, &id);
		if (class_id && dmm_class_known(env, meta, *class_id))
			return *class_id;
	}
	return 0;
}

/* By whoever calls now; remember_caller() has noted who that is. */
static __always_inline void classify(struct dmm_sock *st, const struct decide_env *env,
				     const struct dmm_config *conf)
{
	const struct dmm_gen_meta *meta = live_meta(env);
	struct caller_name name;

	st->class_id = meta ? current_class(env, meta, conf->max_level) : 0;
	if (meta && (meta->n_uids || meta->n_comms)) {
		__builtin_memcpy(&name, st->comm, sizeof(name));
		st->class_id = caller_class(meta, st->class_id, st->uid, &name);
	}
	st->class_generation = env->generation;
	st->cgroup = bpf_get_current_cgroup_id();
}

static __always_inline void remember_caller(struct dmm_sock *st)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	struct task_struct *leader = task->group_leader;

	/* plain loads: a helper costs more than all of them */
	st->pid = task->tgid;
	st->uid = task->cred->uid.val;
	((__u64 *)st->comm)[0] = ((const __u64 *)leader->comm)[0];
	((__u64 *)st->comm)[1] = ((const __u64 *)leader->comm)[1];
}

SEC("cgroup/sock_create")
int dmm_sock_create(struct bpf_sock *ctx)
{
	const struct dmm_config *conf;
	struct decide_env env = {};
	struct dmm_sock *st;

	if (ctx->type != SOCK_STREAM || (ctx->family != AF_INET && ctx->family != AF_INET6))
		return ALLOW;
	conf = config();
	if (!live_generation(&env) || !conf)
		return ALLOW;
	st = bpf_sk_storage_get(&dmm_sock, ctx, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!st)
		return ALLOW;
	remember_caller(st); /* of a server nothing later tells who it is */
	classify(st, &env, conf);
	return ALLOW;
}

/* --- connect --- */

/* What a relay cannot carry: a reason, or NONE. @source becomes the wire's. */
static __always_inline enum dmm_reason carries(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
					       const struct dmm_config *conf, bool v6,
					       const struct dmm_instance *inst, __u8 *source)
{
	const struct dmm_local *own;
	struct tcp_sock *tcp;
	__u8 bound[16];
	__u32 *w = (__u32 *)bound;

	if (((struct task_struct *)bpf_get_current_task_btf())->flags & PF_KTHREAD)
		return DMM_REASON_KERNEL_THREAD;
	if (bpf_get_netns_cookie(ctx) != conf->netns_cookie)
		return DMM_REASON_OTHER_NETNS;
	if (sk->bound_dev_if)
		return DMM_REASON_BOUND_DEVICE;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (tcp && sock_is_transparent(tcp))
		return DMM_REASON_TRANSPARENT;
	if (tcp && sock_has_md5(tcp))
		return DMM_REASON_TCP_MD5;
	if (tcp && sock_has_ip_options(tcp))
		return DMM_REASON_IP_OPTIONS;
	if (sk->src_port)
		return DMM_REASON_BOUND_PORT;

	if (v6) {
		w[0] = sk->src_ip6[0];
		w[1] = sk->src_ip6[1];
		w[2] = sk->src_ip6[2];
		w[3] = sk->src_ip6[3];
		/* A v6 socket bound to nothing or to ::ffff:0.0.0.0 */
		if (!w[0] && !w[1] && !w[3])
			return DMM_REASON_NONE;
	} else {
		addr_from_v4(bound, sk->src_ip4);
		if (!w[3])
			return DMM_REASON_NONE;
	}
	own = local(bound);
	if (!own || own->ifindex != inst->ifindex || !(own->flags & DMM_LOCAL_UNICAST))
		return DMM_REASON_BOUND_ADDRESS;
	if (dmm_addr_family(bound) != dmm_addr_family(source))
		return DMM_REASON_BOUND_ADDRESS;
	__builtin_memcpy(source, bound, 16);
	return DMM_REASON_NONE;
}

/* Gives back the port of an earlier connect() on this socket that never became a SYN. */
static __always_inline void release_claim(struct dmm_sock *st)
{
	struct dmm_inst_shared *page;
	struct dmm_instance *inst;
	__u32 i;

	if (!st->claim)
		return;
	inst = instance(st->instance);
	page = shared(st->instance);
	if (!inst || !page || inst->incarnation != st->incarnation)
		return;
	i = bpf_ntohs(st->local_port) - inst->port_first;
	if (i < DMM_MAX_PORTS)
		__sync_val_compare_and_swap(&page->port[i], st->claim, DMM_PORT_FREE);
	st->claim = 0;
}

struct port_search {
	struct dmm_inst_shared *page;
	__u32 at, n; /* where it has come to, and how many ports the instance has */
	__u32 stamp, found;
};

/* Claims the next port, if it is free; 1 ends bpf_loop(). The rotor moves by a random step (RFC 6056,
 * algorithm 5): hard to guess, and long before a port comes again. Where a few of these meet none that
 * is free, all are tried. */
static long try_port(__u32 turn, struct port_search *s)
{
	__u32 step = turn < RANDOM_STEPS ? (bpf_get_prandom_u32() & 7) + 1 : 0, i;

	s->at = step ? __sync_fetch_and_add(&s->page->next_port, step) + step : s->at + 1;
	i = s->at % s->n;
	if (i >= DMM_MAX_PORTS)
		return 1;
	if (s->page->port[i] != DMM_PORT_FREE ||
	    __sync_val_compare_and_swap(&s->page->port[i], DMM_PORT_FREE, s->stamp) !=
		    DMM_PORT_FREE)
		return 0;
	s->found = i + 1;
	return 1;
}

/* Claims a free wire port of the instance; 0 when there is none. */
static __always_inline __u16 claim_port(const struct dmm_instance *inst, __u32 id, __u32 *ret_claim)
{
	struct port_search s = {
		.page = shared(id),
		.n = inst->port_last - inst->port_first + 1,
		.stamp = (__u32)(coarse_ns() >> 20) | 2,
	};

	if (!s.page)
		return 0;
	bpf_loop(RANDOM_STEPS + s.n, try_port, &s, 0);
	if (!s.found)
		return 0;
	*ret_claim = s.stamp;
	return inst->port_first + s.found - 1;
}

/* Leads the socket to the instance that @c names, or finds a reason against it. */
static __always_inline void steer(struct bpf_sock_addr *ctx, struct bpf_sock *sk, bool v6,
				  const struct decide_env *env, const struct dmm_config *conf,
				  struct dmm_sock *st, struct dmm_choice *c)
{
	enum dmm_family family = dmm_addr_family(st->remote);
	struct dmm_instance *inst = instance(c->instance);
	enum dmm_reason reason;
	__u8 relay[16];
	__u16 port;

	if (!inst) {
		dmm_unavailable(c, DMM_REASON_INST_NOT_READY);
		return;
	}
	reason = carries(ctx, sk, conf, v6, inst, c->source);
	if (reason != DMM_REASON_NONE) {
		dmm_to_kernel(c, reason);
		return;
	}
	dmm_check_available(env, c);
	if (c->verdict != DMM_VERDICT_USERSPACE)
		return;
	if (relay_lookup(ctx, family, inst->relay_port[family & 1], c->instance,
			 inst->incarnation) != RELAY_LIVE) {
		dmm_unavailable(c, DMM_REASON_INST_NO_RELAY);
		return;
	}
	port = claim_port(inst, c->instance, &st->claim);
	if (!port) {
		dmm_unavailable(c, DMM_REASON_NO_PORT);
		return;
	}
	st->incarnation = inst->incarnation;
	st->local_port = bpf_htons(port);
	st->relay_port = inst->relay_port[family & 1];
	__builtin_memcpy(st->local, c->source, 16);
	relay_addr(relay, family);
	ctx_set_addr(ctx, v6, relay, st->relay_port);
}

static __always_inline void count_instance(__u32 id, enum dmm_verdict verdict)
{
	struct dmm_inst_stats *stats = bpf_map_lookup_elem(&dmm_inst_stats, &id);

	if (!stats)
		return;
	if (verdict == DMM_VERDICT_USERSPACE)
		stats->connects++;
	else
		stats->rejects++;
}

/* Two nested hooks run for one call; the outer must not decide, nor count, once more. It meets the
 * address that the inner one wrote. After a verdict of the kernel the SYN comes next (CONNECT_CB); where
 * none does, nothing tells the calls apart but time. A second call that soon to the same place would
 * get the same answer. */
static __always_inline bool decided_already(const struct dmm_sock *st, const __u8 *remote,
					    __be16 port, __u32 generation)
{
	__u8 relay[16];

	if (st->verdict == DMM_VERDICT_USERSPACE) {
		relay_addr(relay, dmm_addr_family(st->remote));
		return st->claim && port == st->relay_port && addr_equal(remote, relay);
	}
	if (st->verdict == DMM_VERDICT_NONE || st->generation != generation ||
	    port != st->remote_port || !addr_equal(remote, st->remote))
		return false;
	if (st->verdict == DMM_VERDICT_REJECT)
		return bpf_ktime_get_ns() - st->decided_ns < same_call_ns;
	return st->stage == DMM_SOCK_DECIDED && (__s64)(bpf_ktime_get_ns() - st->decided_ns) <
							(__s64)(same_call_ns + COARSE_TICK_NS);
}

static __always_inline void settle(struct dmm_sock *st, const struct dmm_choice *c,
				   __u32 generation, __u64 now)
{
	const struct dmm_rule *rule = c->matched;

	st->verdict = c->verdict;
	st->reason = c->reason;
	st->rule = c->rule;
	st->instance = c->instance;
	st->generation = generation;
	st->decided_ns = c->verdict == DMM_VERDICT_REJECT ? bpf_ktime_get_ns() : now;
	count(c->reason);
	if (!rule) {
		st->rule_name[0] = '\0';
		return;
	}
	__builtin_memcpy(st->rule_name, rule->name, sizeof(st->rule_name));
	count_hit(c, now);
	if (c->action == DMM_ACTION_STACK)
		count_instance(c->instance, c->verdict);
}

static __always_inline int connect(struct bpf_sock_addr *ctx, bool v6)
{
	struct bpf_sock *sk = ctx->sk;
	const struct dmm_config *conf;
	struct decide_env env = {};
	struct dmm_choice choice;
	struct dmm_sock *st;
	__u8 remote[16];
	__be16 port;

	if (CTX_READ(ctx->type) != SOCK_STREAM || !sk) {
		count(DMM_REASON_NOT_STREAM);
		return ALLOW;
	}
	ctx_get_addr(ctx, v6, remote);
	port = CTX_READ(ctx->user_port);

	conf = config();
	if (!live_generation(&env) || !conf) {
		count(DMM_REASON_NO_POLICY);
		return ALLOW;
	}
	env.stale_ns = conf->stale_ms * 1000000ULL;
	env.spread = bpf_get_prandom_u32();
	env.now = coarse_ns();

	st = bpf_sk_storage_get(&dmm_sock, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!st) {
		count(DMM_REASON_NO_MEMORY);
		return ALLOW;
	}
	if (decided_already(st, remote, port, env.generation)) {
		count(DMM_REASON_REWRITTEN);
		return st->verdict == DMM_VERDICT_REJECT ? DENY : ALLOW;
	}
	release_claim(st);
	st->stage = DMM_SOCK_DECIDED;
	remember_caller(st);
	if (st->class_generation != env.generation)
		classify(st, &env, conf);
	st->direction = DMM_DIR_CONNECT;
	__builtin_memcpy(st->remote, remote, 16);
	st->remote_port = port;

	dmm_decide(&env, st->class_id, DMM_DIR_CONNECT, DMM_PROTO_TCP, remote, bpf_ntohs(port),
		   &choice);
	if (choice.verdict == DMM_VERDICT_USERSPACE)
		steer(ctx, sk, v6, &env, conf, st, &choice);
	settle(st, &choice, env.generation, env.now);
	if (choice.verdict != DMM_VERDICT_REJECT)
		return ALLOW;
	return DENY; /* EPERM: the policy said no, not the network */
}

SEC("cgroup/connect4")
int dmm_connect4(struct bpf_sock_addr *ctx)
{
	return connect(ctx, false);
}

SEC("cgroup/connect6")
int dmm_connect6(struct bpf_sock_addr *ctx)
{
	return connect(ctx, true);
}

/* --- truth --- */

/* The true addresses of a relay leg whose socket has no state: MPTCP shows the hooks its outer
 * socket, while connect saw the subflow. */
static __always_inline struct dmm_peer *find_peer(struct bpf_sock *sk, bool v6)
{
	struct dmm_tuple key = {};
	__u32 *app = (__u32 *)key.app, *relay = (__u32 *)key.relay;

	if (v6) {
		app[0] = sk->src_ip6[0];
		app[1] = sk->src_ip6[1];
		app[2] = sk->src_ip6[2];
		app[3] = sk->src_ip6[3];
		relay[0] = sk->dst_ip6[0];
		relay[1] = sk->dst_ip6[1];
		relay[2] = sk->dst_ip6[2];
		relay[3] = sk->dst_ip6[3];
	} else {
		addr_from_v4(key.app, sk->src_ip4);
		addr_from_v4(key.relay, sk->dst_ip4);
	}
	key.app_port = bpf_htons(sk->src_port);
	key.relay_port = sk->dst_port;
	return bpf_map_lookup_elem(&dmm_tuples, &key);
}

static __always_inline int get_name(struct bpf_sock_addr *ctx, bool v6, bool peer)
{
	struct bpf_sock *sk = ctx->sk;
	struct dmm_peer *found;
	struct dmm_sock *st;

	if (!sk || CTX_READ(ctx->type) != SOCK_STREAM || !CTX_READ(ctx->user_port))
		return ALLOW; /* not TCP, or unbound: nothing of ours to show */
	st = bpf_sk_storage_get(&dmm_sock, sk, NULL, 0);
	if (st && st->verdict == DMM_VERDICT_USERSPACE) {
		if (sk->dst_port != st->relay_port)
			return ALLOW; /* not connected yet, or disconnected since */
		if (peer)
			ctx_set_addr(ctx, v6, st->remote, st->remote_port);
		else
			ctx_set_addr(ctx, v6, st->local, st->local_port);
		return ALLOW;
	}
	if (st && st->verdict != DMM_VERDICT_NONE)
		return ALLOW;
	found = find_peer(sk, v6);
	if (!found)
		return ALLOW;
	if (peer)
		ctx_set_addr(ctx, v6, found->remote, found->remote_port);
	else
		ctx_set_addr(ctx, v6, found->local, found->local_port);
	return ALLOW;
}

SEC("cgroup/getpeername4")
int dmm_getpeer4(struct bpf_sock_addr *ctx)
{
	return get_name(ctx, false, true);
}

SEC("cgroup/getpeername6")
int dmm_getpeer6(struct bpf_sock_addr *ctx)
{
	return get_name(ctx, true, true);
}

SEC("cgroup/getsockname4")
int dmm_getsock4(struct bpf_sock_addr *ctx)
{
	return get_name(ctx, false, false);
}

SEC("cgroup/getsockname6")
int dmm_getsock6(struct bpf_sock_addr *ctx)
{
	return get_name(ctx, true, false);
}

/* --- bind --- */

/* A server that was not listening yet when a newer policy came would keep the class of the older one. */
static __always_inline void classify_again(struct bpf_sock *sk, const struct dmm_config *conf)
{
	struct dmm_sock *st = bpf_sk_storage_get(&dmm_sock, sk, NULL, 0);
	struct decide_env env = {};

	if (!st || !live_generation(&env) || st->class_generation == env.generation)
		return;
	remember_caller(st);
	classify(st, &env, conf);
}

static __always_inline int guard(struct bpf_sock_addr *ctx)
{
	__u32 key = bpf_ntohs((__be16)CTX_READ(ctx->user_port));
	const struct dmm_config *conf = config();
	struct dmm_port *port;

	if (conf && ctx->sk && CTX_READ(ctx->type) == SOCK_STREAM)
		classify_again(ctx->sk, conf);
	if (!key || !conf || bpf_get_netns_cookie(ctx) != conf->netns_cookie)
		return ALLOW;
	if (CTX_READ(ctx->type) == SOCK_STREAM)
		key |= DMM_PROTO_TCP << 16;
	else
		key |= DMM_PROTO_UDP << 16;
	port = bpf_map_lookup_elem(&dmm_ports, &key);
	if (!port || port->state != DMM_PORT_RANGE)
		return ALLOW;
	if (ctx->sk && bpf_sk_storage_get(&dmm_relay_mark, ctx->sk, NULL, 0))
		return ALLOW; /* dmmd makes it for the instance */
	count(DMM_REASON_PORT_OWNED);
	bpf_set_retval(-EADDRINUSE);
	return DENY;
}

SEC("cgroup/bind4")
int dmm_bind4(struct bpf_sock_addr *ctx)
{
	return guard(ctx);
}

SEC("cgroup/bind6")
int dmm_bind6(struct bpf_sock_addr *ctx)
{
	return guard(ctx);
}

/* --- clients that come by the kernel --- */

static __always_inline void client_addrs(struct __sk_buff *skb, __u8 *remote, __u8 *own)
{
	__u32 v4[2] = {};

	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		bpf_skb_load_bytes(skb, 8, remote, 16);
		bpf_skb_load_bytes(skb, 24, own, 16);
		return;
	}
	bpf_skb_load_bytes(skb, 12, v4, 8);
	addr_from_v4(remote, v4[0]);
	addr_from_v4(own, v4[1]);
}

static __always_inline bool is_turned_away(struct __sk_buff *skb, const struct dmm_sock *st)
{
	struct decide_env env = {};
	struct dmm_choice choice;
	__u8 remote[16], own[16];

	client_addrs(skb, remote, own);
	/* the host's own clients are the kernel's in any case, as its own servers are; so are instances */
	if (dmm_builtin_address(remote, dmm_addr_family(remote)) != DMM_REASON_NONE ||
	    local(remote) || !live_generation(&env))
		return false;
	dmm_decide_client(&env, server_class(&env, st->cgroup, st->uid, st->comm), DMM_PROTO_TCP,
			  own, bpf_ntohs(st->local_port), remote, &choice);
	if (choice.verdict != DMM_VERDICT_REJECT)
		return false;
	count(DMM_REASON_XDP_LISTEN_REJECT);
	count_hit(&choice, coarse_ns());
	return true;
}

/* Of a connection that stands each packet is its own socket's: what a listener gets is of one that
 * begins. */
SEC("cgroup_skb/ingress")
int dmm_ingress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	const struct dmm_sock *st;

	if (!sk)
		return ALLOW;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->state != TCP_LISTEN)
		return ALLOW;
	st = bpf_sk_storage_get(&dmm_sock, sk, NULL, 0);
	if (!st || st->stage != DMM_SOCK_LISTENING)
		return ALLOW;
	return is_turned_away(skb, st) ? DENY : ALLOW;
}

/* --- what instances may connect to --- */

/* Sockets that dmmd makes for instances, to talk to servers with, are bound to these hooks. */
static __always_inline int only_servers(struct bpf_sock_addr *ctx, bool v6)
{
	const struct dmm_listener *listener;
	const struct dmm_local *own;
	__u8 addr[16];
	__be16 port;

	ctx_get_addr(ctx, v6, addr);
	port = CTX_READ(ctx->user_port);
	/* from the wire nobody comes to loopback */
	if (dmm_builtin_address(addr, dmm_addr_family(addr)) != DMM_REASON_NONE)
		return DENY;
	own = local(addr);
	listener = listener_of(addr, port);
	return own && own->flags & DMM_LOCAL_UNICAST && listener && listener->n ? ALLOW : DENY;
}

SEC("cgroup/connect4")
int dmm_server4(struct bpf_sock_addr *ctx)
{
	return only_servers(ctx, false);
}

SEC("cgroup/connect6")
int dmm_server6(struct bpf_sock_addr *ctx)
{
	return only_servers(ctx, true);
}

char _license[] SEC("license") = "Dual BSD/GPL";
