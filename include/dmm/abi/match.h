/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The one matcher: compiled into the hooks, into dmmctl explain and into the tests, so that all of
 * them give the same answer. Exact first match at a cost that does not grow with the rule count.
 *
 * The includer says how a block is read, by defining before the include:
 *   DMM_MATCH_BLOCK(tables, table, index)  -> const void * to DMM_BLOCK bytes, or NULL
 * @tables is whatever that macro wants (the generation's slot in BPF, arrays in userspace). */
#pragma once

#include <dmm/abi/tables.h>

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#define DMM_NO_RULE 0xffffffffu

/* @index within a block of @size, a power of two. Opaque to the compiler, which would otherwise spread
 * the mask over the terms of the index: the verifier of kernel 6.1 then sees no bound. */
static __always_inline __u32 dmm_in_block(__u32 index, __u32 size)
{
	__asm__ volatile("" : "+r"(index));
	return index % size;
}

/* The binary search may probe at most 65536 intervals; the mask lets the verifier see the bound. */
static __always_inline const struct dmm_run *dmm_match_run(DMM_MATCH_TABLES tables, __u32 index)
{
	const struct dmm_runs_block *block;

	block = DMM_MATCH_BLOCK(tables, DMM_TABLE_RUNS, index / DMM_RUNS_BLOCK);
	return block ? &block->run[dmm_in_block(index, DMM_RUNS_BLOCK)] : 0;
}

/* The ref at @index in ROOTS. */
static __always_inline __u32 dmm_match_root(DMM_MATCH_TABLES tables, __u32 index)
{
	const struct dmm_roots_block *roots;

	roots = DMM_MATCH_BLOCK(tables, DMM_TABLE_ROOTS, index / DMM_ROOTS_BLOCK);
	return roots ? roots->ref[dmm_in_block(index, DMM_ROOTS_BLOCK)] : DMM_REF_NONE;
}

/* From a root by the bytes of @addr to a leaf, DMM_REF_NONE: there is none. */
static __always_inline __u32 dmm_match_walk(DMM_MATCH_TABLES tables, __u32 ref,
					    enum dmm_family family, const __u8 *addr)
{
	__u32 i;

	for (i = family == DMM_FAMILY_V4 ? 12 : 0; i < 16; i++) {
		const struct dmm_node *node;

		if (ref & DMM_REF_LEAF)
			break;
		node = DMM_MATCH_BLOCK(tables, DMM_TABLE_NODES, ref);
		if (!node)
			return DMM_REF_NONE;
		ref = node->child[addr[i & 15]];
	}
	return ref & DMM_REF_LEAF ? ref : DMM_REF_NONE;
}

/* The rule of @port in the run that the leaf @ref stands for. */
static __always_inline __u32 dmm_match_port(DMM_MATCH_TABLES tables, __u32 ref, __u32 port)
{
	const struct dmm_run *run;
	__u32 lo, hi, i;

	if (ref == DMM_REF_NONE)
		return DMM_NO_RULE;
	if (ref & DMM_REF_RULE)
		return ref & DMM_REF_VALUE;
	ref &= DMM_REF_VALUE;
	run = dmm_match_run(tables, ref);
	if (!run)
		return DMM_NO_RULE;

	/* Invariant: interval lo starts at or below port; interval hi starts above it. */
	lo = 1;
	hi = run->first + 1;
	for (i = 0; i < DMM_RUN_STEPS; i++) {
		__u32 mid;

		if (hi - lo <= 1)
			break;
		mid = (lo + hi) / 2;
		run = dmm_match_run(tables, ref + mid);
		if (!run)
			return DMM_NO_RULE;
		if (run->first <= port)
			lo = mid;
		else
			hi = mid;
	}
	run = dmm_match_run(tables, ref + lo);
	return run ? run->rule : DMM_NO_RULE;
}

/* Which rule decides a flow of @class_id to @remote (16 bytes, IPv4 mapped) port @port (host byte
 * order)? A rule index, or DMM_NO_RULE where the tables are inconsistent (counted by callers). Direction
 * LISTEN: from @remote, to a server on @port at an address that no rule's `local` names. */
static __always_inline __u32 dmm_match(DMM_MATCH_TABLES tables, __u32 class_id,
				       enum dmm_direction dir, enum dmm_proto proto,
				       enum dmm_family family, const __u8 *remote, __u32 port)
{
	__u32 ref = dmm_match_root(tables, DMM_ROOT_INDEX(class_id, dir, proto, family));

	return dmm_match_port(tables, dmm_match_walk(tables, ref, family, remote), port);
}

/* Direction LISTEN: which rule decides a flow from @remote to a server of @class_id that listens on
 * @local, port @port? */
static __always_inline __u32 dmm_match_client(DMM_MATCH_TABLES tables, __u32 class_id,
					      enum dmm_proto proto, enum dmm_family family,
					      const __u8 *local, __u32 port, const __u8 *remote)
{
	const struct dmm_gen_meta *meta = DMM_MATCH_BLOCK(tables, DMM_TABLE_META, 0);
	__u32 index = DMM_ROOT_INDEX(class_id, DMM_DIR_LISTEN, proto, family), ref, at;

	if (!meta || class_id >= meta->n_classes)
		return DMM_NO_RULE;
	if (meta->n_local) {
		at = dmm_match_walk(tables, meta->local_root[family & 1], family, local) &
		     DMM_REF_VALUE;
		if (at < meta->n_local)
			index = DMM_LOCAL_ROOT_INDEX(meta, class_id, at, proto, family);
	}
	ref = dmm_match_root(tables, index);
	return dmm_match_port(tables, dmm_match_walk(tables, ref, family, remote), port);
}
