/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The compiled policy: what one generation's tables look like, in maps and in memory.
 *
 * A generation is five arrays of 1 KiB blocks (so that one BPF template fits all and one batched
 * update installs them; each has its own BTF type):
 *
 *   ROOTS  for every (class, direction, proto, family) a ref
 *   NODES  a stride-8 multi-bit trie flattened into one array: ref -> child[address byte] -> ref
 *   RUNS   sorted disjoint port intervals; a leaf ref points at its header
 *   RULES  the rules in policy order, the default last
 *   META   block 0 is struct dmm_gen_meta
 *
 * A ref is a node index or a leaf: DMM_REF_LEAF | DMM_REF_RULE | rule where all ports are alike, else
 * DMM_REF_LEAF | index into RUNS. Every walk ends in a leaf after at most 4 (IPv4) or 16 (IPv6) nodes.
 * In direction LISTEN the walk is by the client's address and the ports are the server's. Which prefixes
 * of rules' `local` hold the server's address is asked first: META.local_root leads by it to a local
 * class, a leaf's rule: n_local is "none of them", and has the roots that DMM_ROOT_INDEX tells, the
 * others those of DMM_LOCAL_ROOT_INDEX, behind them.
 * RUNS[leaf].first is the number n of intervals that follow: RUNS[leaf+1..leaf+n] are ordered by .first
 * (the first is 0), interval i covers ports .first to the next one's .first - 1. All host byte order. */
#pragma once

#include <dmm/abi/types.h>

#define DMM_BLOCK	1024
#define DMM_REF_LEAF	0x80000000u
#define DMM_REF_RULE	0x40000000u
#define DMM_REF_VALUE	0x3fffffffu
#define DMM_REF_NONE	0xffffffffu /* a root of a class this generation does not know */
#define DMM_ROOTS_BLOCK 256	    /* refs in a block */
#define DMM_RUNS_BLOCK	128
#define DMM_RULES_BLOCK 8
#define DMM_MAX_RULES	1000000
#define DMM_MAX_OTHERS	7
#define DMM_MAX_COMMS	16
#define DMM_MAX_UIDS	32
#define DMM_RUN_STEPS	17 /* binary search over at most 65536 intervals */

enum dmm_table {
	DMM_TABLE_ROOTS,
	DMM_TABLE_NODES,
	DMM_TABLE_RUNS,
	DMM_TABLE_RULES,
	DMM_TABLE_META,
	DMM_NUM_TABLES,
};

struct dmm_roots_block {
	__u32 ref[DMM_ROOTS_BLOCK];
};

/* Index of a root. Class 0 is "in none of the policy's cgroups". */
#define DMM_ROOTS_PER_CLASS (DMM_NUM_DIRS * DMM_NUM_PROTOS * DMM_NUM_FAMILIES)
#define DMM_ROOT_INDEX(class_id, dir, proto, family)                                               \
	((class_id)*DMM_ROOTS_PER_CLASS + ((dir)*DMM_NUM_PROTOS + (proto)) * DMM_NUM_FAMILIES +    \
	 (family))

#define DMM_LOCAL_ROOT_INDEX(meta, class_id, local, proto, family)                                 \
	((meta)->n_classes * DMM_ROOTS_PER_CLASS +                                                 \
	 (((class_id) * (meta)->n_local + (local)) * DMM_NUM_PROTOS + (proto)) *                   \
		 DMM_NUM_FAMILIES +                                                                \
	 (family))

struct dmm_node {
	__u32 child[256];
};

struct dmm_run {
	__u32 first;
	__u32 rule;
};

struct dmm_runs_block {
	struct dmm_run run[DMM_RUNS_BLOCK];
};

/* One rule as the doors need it. @hits counts connects decided by it since the generation was
 * applied (written by the hooks, atomically). @instance is meaningful for DMM_ACTION_STACK. */
struct dmm_rule {
	char name[DMM_NAME_LEN];
	enum dmm_action action;
	enum dmm_unavailable on_unavailable;
	__u32 instance;
	__u32 line; /* in its source file, for explain */
	__u32 column;
	__u8 n_others; /* instances of the same stack; a flow gets one of them all */
	__u8 others[DMM_MAX_OTHERS];
	__u8 pad[12];
	__u64 hits;
	__u64 last_hit_ns; /* CLOCK_MONOTONIC, coarse; 0: never */
	__u64 pad2;
};

struct dmm_rules_block {
	struct dmm_rule rule[DMM_RULES_BLOCK];
};

struct dmm_gen_meta {
	__u32 generation; /* 1, 2, ...; 0 means no policy */
	__u32 n_rules;	  /* without the default, which is rule[n_rules] */
	__u32 n_classes; /* valid class ids are below it; those not in use have DMM_REF_NONE roots */
	__u32 n_nodes;
	__u32 n_runs;
	__u32 n_roots;
	__u64 applied_at; /* CLOCK_REALTIME, ns */
	char policy[DMM_NAME_LEN];
	char source[256]; /* file it came from, for explain */
	__u32 n_local;
	__u32 local_root[DMM_NUM_FAMILIES];
	/* Where rules name users or commands, each class of a cgroup comes once for every kind of caller
	 * that they tell apart (dmm_caller_kind()): kind k of class c is class k * n_cgroups + c. */
	__u32 n_cgroups; /* 0: as n_classes (of a dmmd that knew no callers) */
	__u16 n_uids, n_comms;
	__u32 pad;
	char comm[DMM_MAX_COMMS][16]; /* zeros behind the name */
	__u32 uid[DMM_MAX_UIDS]; /* where one range of users ends and another begins, ascending */
	__u8 pad2[DMM_BLOCK - 376 - 16 * DMM_MAX_COMMS - 4 * DMM_MAX_UIDS];
};

_Static_assert(sizeof(struct dmm_roots_block) == DMM_BLOCK, "roots block");
_Static_assert(sizeof(struct dmm_node) == DMM_BLOCK, "node");
_Static_assert(sizeof(struct dmm_runs_block) == DMM_BLOCK, "runs block");
_Static_assert(sizeof(struct dmm_rules_block) == DMM_BLOCK, "rules block");
_Static_assert(sizeof(struct dmm_gen_meta) == DMM_BLOCK, "meta block");
