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
	__u64 stale_ns;
	__u64 now; /* coarse */
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
#include <dmm/abi/decide.h>

static __always_inline dmm_slot live_slot(void)
{
	__u32 zero = 0, *live = bpf_map_lookup_elem(&dmm_live, &zero);

	return live ? *live : 0;
}

static __always_inline const struct dmm_gen_meta *live_meta(dmm_slot slot)
{
	const struct dmm_gen_meta *meta = table_block(slot, DMM_TABLE_META, 0);

	return meta && meta->generation ? meta : NULL;
}
