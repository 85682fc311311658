/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The one decision: what a connect of a class to a destination gets. Runs in the connect hooks and in
 * dmmctl explain, on the same maps.
 *
 * Order: built-ins (loopback, own addresses, multicast), then the policy's first match, then a route
 * by the stack's interface: dmm_decide(). What the relay cannot carry is asked of the socket itself,
 * by the hooks. Last dmm_check_available(), a ready instance with a fresh heartbeat: so that
 * onUnavailable is only about what a stack would have carried. Before the include define, for an environment type DMM_ENV:
 *   DMM_ENV_LOCAL(env, addr)	 -> const struct dmm_local *, NULL
 *   DMM_ENV_ROUTE(env, key)	 -> const struct dmm_route *, NULL
 *   DMM_ENV_INSTANCE(env, id)	 -> const struct dmm_instance *, NULL
 *   DMM_ENV_BEAT(env, id)	 -> __u64 ns, 0 when there is none
 *   DMM_ENV_NOW(env)		 -> __u64 ns, coarse monotonic
 *   DMM_ENV_TABLES(env)	 -> for the matcher (see match.h)
 *   DMM_ENV_STALE_NS(env)	 -> __u64
 *   DMM_ENV_SPREAD(env)	 -> __u32, for each flow another: which of a stack's instances it gets */
#pragma once

#include <dmm/abi/maps.h>
#include <dmm/abi/match.h>

#ifndef __bpf__
#include <stdbool.h>
#endif

struct dmm_choice {
	enum dmm_verdict verdict;
	enum dmm_reason reason;
	__u32 rule;			/* DMM_NO_RULE where a built-in decided before the match */
	const struct dmm_rule *matched; /* NULL with it */
	enum dmm_action action;		/* of that rule */
	enum dmm_unavailable on_unavailable;
	__u32 instance;
	__u8 source[16]; /* wire source address, with DMM_VERDICT_USERSPACE */
};

/* Does the live generation, whose META is @meta, know @class_id? Walking a task's cgroups upwards,
 * the first known class is its class; none: class 0. (A generation that does not know a nested
 * cgroup yet, or no longer, must see the class of the one above it.) */
static __always_inline bool dmm_class_known(DMM_ENV env, const struct dmm_gen_meta *meta,
					    __u32 class_id)
{
	__u32 root = DMM_ROOT_INDEX(class_id, 0, 0, 0);
	const struct dmm_roots_block *roots;

	if (class_id >= (meta->n_cgroups ? meta->n_cgroups : meta->n_classes))
		return false;
	roots = DMM_MATCH_BLOCK(DMM_ENV_TABLES(env), DMM_TABLE_ROOTS, root / DMM_ROOTS_BLOCK);
	return roots && roots->ref[dmm_in_block(root, DMM_ROOTS_BLOCK)] != DMM_REF_NONE;
}

static __always_inline enum dmm_family dmm_addr_family(const __u8 *addr)
{
	const __u32 *w = (const __u32 *)addr;

	/* ::ffff:0:0/96, in either byte order of the machine: the bytes are 00 00 ff ff. */
	return !w[0] && !w[1] && addr[8] == 0 && addr[9] == 0 && addr[10] == 0xff &&
			       addr[11] == 0xff
		       ? DMM_FAMILY_V4
		       : DMM_FAMILY_V6;
}

static __always_inline enum dmm_reason dmm_builtin_address(const __u8 *addr, enum dmm_family family)
{
	const __u32 *w = (const __u32 *)addr;

	if (family == DMM_FAMILY_V4) {
		if (addr[12] == 127 || !w[3]) /* connect() to 0.0.0.0 means this host */
			return DMM_REASON_LOOPBACK;
		if (addr[12] >= 224)
			return DMM_REASON_MULTICAST;
		return DMM_REASON_NONE;
	}
	if (!w[0] && !w[1] && !w[2] && !addr[12] && !addr[13] && !addr[14] && addr[15] <= 1)
		return DMM_REASON_LOOPBACK;
	if (addr[0] == 0xff)
		return DMM_REASON_MULTICAST;
	if (addr[0] == 0xfe && (addr[1] & 0xc0) == 0x80)
		return DMM_REASON_SCOPED;
	return DMM_REASON_NONE;
}

static __always_inline void dmm_to_kernel(struct dmm_choice *c, enum dmm_reason reason)
{
	c->verdict = DMM_VERDICT_KERNEL;
	c->reason = reason;
}

static __always_inline enum dmm_reason dmm_instance_state(DMM_ENV env, __u32 id)
{
	const struct dmm_instance *inst = DMM_ENV_INSTANCE(env, id);
	__u64 beat, now;

	if (!inst || inst->state != DMM_INST_READY)
		return DMM_REASON_INST_NOT_READY;
	beat = DMM_ENV_BEAT(env, id);
	now = DMM_ENV_NOW(env);
	if (!beat || (now > beat && now - beat > DMM_ENV_STALE_NS(env)))
		return DMM_REASON_INST_STALE;
	return DMM_REASON_NONE;
}

/* One of the rule's instances: by the spread, and the next one that can be had. */
static __always_inline __u32 dmm_choose_instance(DMM_ENV env, const struct dmm_rule *rule)
{
	__u32 n = rule->n_others, at, id = rule->instance, i;

	if (n == 0 || n > DMM_MAX_OTHERS)
		return id;
	at = DMM_ENV_SPREAD(env) % (n + 1);
	for (i = 0; i <= DMM_MAX_OTHERS; i++) {
		id = at ? rule->others[(at - 1) & 7] : rule->instance;
		if (i == n || dmm_instance_state(env, id) == DMM_REASON_NONE)
			break;
		at = at == n ? 0 : at + 1;
	}
	return id;
}

/* The rule wants an instance that cannot be had. */
static __always_inline void dmm_unavailable(struct dmm_choice *c, enum dmm_reason reason)
{
	c->verdict = c->on_unavailable == DMM_UNAVAILABLE_REJECT ? DMM_VERDICT_REJECT
								 : DMM_VERDICT_KERNEL;
	c->reason = reason;
}

/* A stack carries only what its own interface leads to: the route to @remote if it goes by that one. NULL:
 * @c is the kernel's, whether or not the instance is up. */
static __always_inline const struct dmm_route *dmm_own_route(DMM_ENV env, const __u8 *remote,
							     struct dmm_choice *c)
{
	const struct dmm_instance *inst = DMM_ENV_INSTANCE(env, c->instance);
	const struct dmm_route *route;
	struct dmm_route_key key;

	key.prefixlen = 128;
	__builtin_memcpy(key.addr, remote, 16);
	route = DMM_ENV_ROUTE(env, &key);
	if (!route || !route->ifindex) {
		dmm_to_kernel(c, DMM_REASON_NO_ROUTE);
		return NULL;
	}
	if (inst && inst->ifindex && route->ifindex != inst->ifindex) {
		dmm_to_kernel(c, DMM_REASON_ROUTE);
		return NULL;
	}
	return route;
}

static __always_inline void dmm_decide_route(DMM_ENV env, const __u8 *remote, struct dmm_choice *c)
{
	const struct dmm_route *route = dmm_own_route(env, remote, c);

	if (!route)
		return;
	if (!route->has_source) {
		dmm_to_kernel(c, DMM_REASON_ROUTE);
		return;
	}
	__builtin_memcpy(c->source, route->source, 16);
	c->verdict = DMM_VERDICT_USERSPACE;
	c->reason = DMM_REASON_RULE;
}

/* The last question after DMM_VERDICT_USERSPACE: is there an instance? onUnavailable where not. */
static __always_inline void dmm_check_available(DMM_ENV env, struct dmm_choice *c)
{
	enum dmm_reason state = dmm_instance_state(env, c->instance);

	if (state != DMM_REASON_NONE)
		dmm_unavailable(c, state);
}

/* @port in host byte order. Fills all of @c. */
static __always_inline void dmm_decide(DMM_ENV env, __u32 class_id, enum dmm_direction dir,
				       enum dmm_proto proto, const __u8 *remote, __u32 port,
				       struct dmm_choice *c)
{
	enum dmm_family family = dmm_addr_family(remote);
	const struct dmm_rules_block *block;
	enum dmm_reason builtin;
	const struct dmm_rule *rule;

	__builtin_memset(c, 0, sizeof(*c));
	c->rule = DMM_NO_RULE;

	builtin = dmm_builtin_address(remote, family);
	if (builtin != DMM_REASON_NONE) {
		dmm_to_kernel(c, builtin);
		return;
	}
	if (DMM_ENV_LOCAL(env, remote)) {
		dmm_to_kernel(c, DMM_REASON_OWN_ADDRESS);
		return;
	}

	c->rule = dmm_match(DMM_ENV_TABLES(env), class_id, dir, proto, family, remote, port);
	block = DMM_MATCH_BLOCK(DMM_ENV_TABLES(env), DMM_TABLE_RULES, c->rule / DMM_RULES_BLOCK);
	if (c->rule == DMM_NO_RULE || !block) {
		dmm_to_kernel(c, DMM_REASON_NO_POLICY);
		return;
	}
	rule = &block->rule[dmm_in_block(c->rule, DMM_RULES_BLOCK)];
	c->matched = rule;
	c->action = rule->action;
	c->on_unavailable = rule->on_unavailable;
	c->instance = dmm_choose_instance(env, rule);

	if (c->action == DMM_ACTION_STACK) {
		dmm_decide_route(env, remote, c);
		return;
	}
	c->verdict = c->action == DMM_ACTION_REJECT ? DMM_VERDICT_REJECT : DMM_VERDICT_KERNEL;
	c->reason = DMM_REASON_RULE;
}

/* What a client gets that comes to a server of @class_id: @local and @port (host byte order) are the
 * server's, @remote is the client's. Fills all of @c; the source address is @local. */
static __always_inline void dmm_decide_client(DMM_ENV env, __u32 class_id, enum dmm_proto proto,
					      const __u8 *local, __u32 port, const __u8 *remote,
					      struct dmm_choice *c)
{
	const struct dmm_rules_block *block;
	const struct dmm_rule *rule;

	__builtin_memset(c, 0, sizeof(*c));
	c->rule = dmm_match_client(DMM_ENV_TABLES(env), class_id, proto, dmm_addr_family(remote),
				   local, port, remote);
	block = DMM_MATCH_BLOCK(DMM_ENV_TABLES(env), DMM_TABLE_RULES, c->rule / DMM_RULES_BLOCK);
	if (c->rule == DMM_NO_RULE || !block) {
		dmm_to_kernel(c, DMM_REASON_NO_POLICY);
		return;
	}
	rule = &block->rule[dmm_in_block(c->rule, DMM_RULES_BLOCK)];
	c->matched = rule;
	c->action = rule->action;
	c->on_unavailable = rule->on_unavailable;
	c->instance = dmm_choose_instance(env, rule);
	c->reason = DMM_REASON_RULE;
	__builtin_memcpy(c->source, local, 16);
	if (c->action != DMM_ACTION_STACK)
		c->verdict = c->action == DMM_ACTION_REJECT ? DMM_VERDICT_REJECT
							    : DMM_VERDICT_KERNEL;
	else if (dmm_own_route(env, remote, c)) /* its answers leave by its own interface */
		c->verdict = DMM_VERDICT_USERSPACE;
}
