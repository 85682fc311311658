/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The environment of the one decision (dmm/abi/decide.h) in BPF: maps. */
#pragma once

#include "lib/maps.bpf.h"

/* The tables of one generation: its slot, read once per program run, so that no run sees two. */
typedef __u32 dmm_slot;

static __always_inline void *table_block(dmm_slot slot, enum dmm_table table, __u32 index)
{
	__u32 key = slot * DMM_NUM_TABLES + table;
	void *inner = bpf_map_lookup_elem(&dmm_tables, &key);

	return inner ? bpf_map_lookup_elem(inner, &index) : NULL;
}

struct decide_env {
	dmm_slot slot;
	__u32 generation;
	__u64 stale_ns;
	__u64 now; /* coarse */
	__u32 spread;
};

#define DMM_MATCH_TABLES		    dmm_slot
#define DMM_MATCH_BLOCK(slot, table, index) table_block(slot, table, index)
#define DMM_ENV				    const struct decide_env *
#define DMM_ENV_TABLES(env)		    ((env)->slot)
#define DMM_ENV_LOCAL(env, addr)	    local(addr)
#define DMM_ENV_ROUTE(env, key)		    bpf_map_lookup_elem(&dmm_routes, key)
#define DMM_ENV_INSTANCE(env, id)	    instance(id)
#define DMM_ENV_BEAT(env, id)		    beat_of(id)
#define DMM_ENV_NOW(env)		    ((env)->now)
#define DMM_ENV_STALE_NS(env)		    ((env)->stale_ns)
#define DMM_ENV_SPREAD(env)		    ((env)->spread)
#include <dmm/abi/decide.h>

/* Which generation decides, with one read; false: there is no policy. */
static __always_inline bool live_generation(struct decide_env *env)
{
	union {
		__u64 word;
		struct dmm_live live;
	} u;
	__u32 zero = 0;
	struct dmm_live *live = bpf_map_lookup_elem(&dmm_live, &zero);

	if (!live)
		return false;
	u.word = *(volatile __u64 *)live;
	env->slot = u.live.slot;
	env->generation = u.live.generation;
	return u.live.generation != 0;
}

static __always_inline const struct dmm_gen_meta *live_meta(const struct decide_env *env)
{
	return table_block(env->slot, DMM_TABLE_META, 0);
}

static __always_inline void count_hit(const struct dmm_choice *c, __u64 now)
{
	struct dmm_rule *rule = (struct dmm_rule *)c->matched;

	if (!rule)
		return;
	__sync_fetch_and_add(&rule->hits, 1);
	rule->last_hit_ns = now;
}

struct caller_name {
	__u64 word[2]; /* comm */
};

/* Global, so that the verifier sees its loops once. */
__noinline __u32 caller_class(const struct dmm_gen_meta *meta, __u32 class_id, __u32 uid,
			      const struct caller_name *name)
{
	if (!meta || !name)
		return class_id;
	return dmm_caller_class(meta, class_id, uid, (const char *)name->word);
}

/* Of a server in @cgroup that @uid and @comm made. */
static __always_inline __u32 server_class(const struct decide_env *env, __u64 cgroup, __u32 uid,
					  const char *comm)
{
	struct caller_name name;
	struct dmm_server_key key = { .cgroup = cgroup, .slot = env->slot };
	const __u32 *class_id = bpf_map_lookup_elem(&dmm_serv_class, &key);
	const struct dmm_gen_meta *meta = live_meta(env);

	__builtin_memcpy(&name, comm, sizeof(name));
	return caller_class(meta, class_id ? *class_id : 0, uid, &name);
}
