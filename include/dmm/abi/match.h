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

/* Which rule decides a flow of @class_id to @remote (16 bytes, IPv4 mapped) port @port (host byte
 * order)? A rule index, or DMM_NO_RULE where the tables are inconsistent (counted by callers). */
static __always_inline __u32 dmm_match(DMM_MATCH_TABLES tables, __u32 class_id,
				       enum dmm_direction dir, enum dmm_proto proto,
				       enum dmm_family family, const __u8 *remote, __u32 port)
{
	__u32 root = DMM_ROOT_INDEX(class_id, dir, proto, family);
	const struct dmm_roots_block *roots;
	const struct dmm_run *run;
	__u32 ref, lo, hi, i;

	roots = DMM_MATCH_BLOCK(tables, DMM_TABLE_ROOTS, root / DMM_ROOTS_BLOCK);
	if (!roots)
		return DMM_NO_RULE;
	ref = roots->ref[dmm_in_block(root, DMM_ROOTS_BLOCK)];

	for (i = family == DMM_FAMILY_V4 ? 12 : 0; i < 16; i++) {
		const struct dmm_node *node;

		if (ref & DMM_REF_LEAF)
			break;
		node = DMM_MATCH_BLOCK(tables, DMM_TABLE_NODES, ref);
		if (!node)
			return DMM_NO_RULE;
		ref = node->child[remote[i & 15]];
	}
	if (!(ref & DMM_REF_LEAF) || ref == DMM_REF_NONE)
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
