/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* All maps: shared by every object through pins of the same name (values in dmm/abi/maps.h). */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include <dmm/abi/maps.h>
#include <dmm/abi/tables.h>

#define DMM_MAX_TUPLES                                                                             \
	65536 /* each steered connection has a port of its own: there cannot be more */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dmm_config);
} dmm_config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dmm_live);
} dmm_live SEC(".maps");

/* The values of maps that dmmd makes at run time: named here so that each object's BTF has them. */
struct dmm_map_values {
	struct dmm_roots_block roots;
	struct dmm_node nodes;
	struct dmm_runs_block runs;
	struct dmm_rules_block rules;
	struct dmm_gen_meta meta;
	struct dmm_inst_shared shared;
	struct dmm_event event;
};
const struct dmm_map_values *dmm_map_values;

/* The template of all tables; the real ones are made by dmmd, each with its own BTF type. That the
 * template has one, too, kernel 6.1 insists on, whichever it is. */
struct dmm_table_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dmm_node);
};

/* [slot * DMM_NUM_TABLES + table] */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, DMM_GEN_SLOTS *DMM_NUM_TABLES);
	__type(key, __u32);
	__array(values, struct dmm_table_map);
} dmm_tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DMM_MAX_INSTANCES);
	__type(key, __u32);
	__type(value, struct dmm_instance);
} dmm_instances SEC(".maps");

struct dmm_shared_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dmm_inst_shared);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, DMM_MAX_INSTANCES);
	__type(key, __u32);
	__array(values, struct dmm_shared_map);
} dmm_shared SEC(".maps");

struct dmm_ring_map {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, DMM_MAX_INSTANCES);
	__type(key, __u32);
	__array(values, struct dmm_ring_map);
} dmm_rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, DMM_MAX_INSTANCES *DMM_MAX_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} dmm_xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * DMM_MAX_INSTANCES);
	__type(key, __u32);
	__type(value, struct dmm_hop);
} dmm_hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DMM_NUM_PROTOS * 65536);
	__type(key, __u32);
	__type(value, struct dmm_port);
} dmm_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DMM_MAX_LISTENERS);
	__type(key, struct dmm_listener_key);
	__type(value, struct dmm_listener);
} dmm_listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DMM_MAX_LISTENERS);
	__type(key, struct dmm_server_key);
	__type(value, __u32);
} dmm_serv_class SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct dmm_addr);
	__type(value, struct dmm_local);
} dmm_local SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dmm_local_bits);
} dmm_local_bits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct dmm_route_key);
	__type(value, struct dmm_route);
} dmm_routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u32);
} dmm_cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct dmm_sock);
} dmm_sock SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct dmm_relay_mark);
} dmm_relay_mark SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, DMM_MAX_CLOSED);
	__type(key, __u32);
	__type(value, struct dmm_closed);
} dmm_closed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} dmm_n_closed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DMM_MAX_TUPLES);
	__type(key, struct dmm_tuple);
	__type(value, struct dmm_peer);
} dmm_tuples SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DMM_MAX_INSTANCES);
	__type(key, __u32);
	__type(value, struct dmm_inst_stats);
} dmm_inst_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DMM_MAX_REASONS);
	__type(key, __u32);
	__type(value, __u64);
} dmm_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dmm_clock);
} dmm_clock SEC(".maps");

/* CLOCK_MONOTONIC_COARSE, which stands still between ticks: so the kernel is asked once a tick. */
static __always_inline __u64 coarse_ns(void)
{
	__u64 jiffies = bpf_jiffies64(), ns;
	struct dmm_clock *clock;
	__u32 zero = 0;

	clock = bpf_map_lookup_elem(&dmm_clock, &zero);
	if (clock && clock->jiffies == jiffies)
		return clock->ns;
	ns = bpf_ktime_get_coarse_ns();
	if (clock) {
		clock->ns = ns;
		clock->jiffies = jiffies;
	}
	return ns;
}

static __always_inline void count(enum dmm_reason reason)
{
	__u32 key = reason;
	__u64 *n = bpf_map_lookup_elem(&dmm_counters, &key);

	if (n)
		*n += 1;
}

static __always_inline const struct dmm_config *config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&dmm_config, &zero);
}

/* What the namespace knows @addr as, NULL: it is not its own. */
static __always_inline const struct dmm_local *local(const __u8 *addr)
{
	struct dmm_local_bits *bits;
	__u32 zero = 0, n = DMM_LOCAL_BIT(addr);

	bits = bpf_map_lookup_elem(&dmm_local_bits, &zero);
	if (!bits || !(bits->word[n / 64 % 4] >> (n % 64) & 1))
		return NULL;
	return bpf_map_lookup_elem(&dmm_local, addr);
}

static __always_inline struct dmm_instance *instance(__u32 id)
{
	return bpf_map_lookup_elem(&dmm_instances, &id);
}

static __always_inline struct dmm_inst_shared *shared(__u32 id)
{
	void *inner = bpf_map_lookup_elem(&dmm_shared, &id);
	__u32 zero = 0;

	return inner ? bpf_map_lookup_elem(inner, &zero) : NULL;
}

static __always_inline __u64 beat_of(__u32 id)
{
	struct dmm_inst_shared *page = shared(id);

	return page ? *(volatile __u64 *)&page->beat_ns : 0;
}
