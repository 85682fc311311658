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

/* Which kind of caller is a process of user @uid and name @comm (16 bytes, 8-aligned)? Of ranges of users
 * and of names those that rules tell apart; 0 where they do not. */
static __always_inline __u32 dmm_caller_kind(const struct dmm_gen_meta *meta, __u32 uid,
					     const char *comm)
{
	const __u64 *name = (const __u64 *)comm, *other;
	__u32 users = 0, names = 0, i;

	for (i = 0; i < DMM_MAX_UIDS && i < meta->n_uids; i++)
		if (uid >= meta->uid[i])
			users = i + 1;
	for (i = 0; i < DMM_MAX_COMMS && i < meta->n_comms; i++) {
		other = (const __u64 *)meta->comm[i];
		if (name[0] == other[0] && name[1] == other[1])
			names = i + 1;
	}
	return users * (meta->n_comms + 1u) + names;
}

/* The class of such a process in a cgroup of class @class_id. */
static __always_inline __u32 dmm_caller_class(const struct dmm_gen_meta *meta, __u32 class_id,
					      __u32 uid, const char *comm)
{
	if (!meta->n_uids && !meta->n_comms)
		return class_id;
	return dmm_caller_kind(meta, uid, comm) * meta->n_cgroups + class_id;
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
 * order)? A rule index, or DMM_NO_RULE where the tables are inconsistent (counted by callers). @class_id is
 * one that dmm_class_known() knows, or made of one by dmm_caller_class(). Direction LISTEN: from @remote, to a server on @port at an address that no rule's `local` names. */
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
	__u32 n_local, first_local;

	if (!meta || class_id >= meta->n_classes)
		return DMM_NO_RULE;
	/* all that is wanted of it: the walk may take its place */
	n_local = meta->n_local;
	first_local = DMM_LOCAL_ROOT_INDEX(meta, class_id, 0, proto, family);
	if (n_local) {
		at = dmm_match_walk(tables, meta->local_root[family & 1], family, local) &
		     DMM_REF_VALUE;
		if (at < n_local)
			index = first_local + at * DMM_NUM_PROTOS * DMM_NUM_FAMILIES;
	}
	ref = dmm_match_root(tables, index);
	return dmm_match_port(tables, dmm_match_walk(tables, ref, family, remote), port);
}
