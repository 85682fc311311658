/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the parts of the compiler: prefixes, runs and nodes, each kept once. */
#pragma once

#include "policy/policy.h"

#include <dmm/abi/tables.h>

/* An open-addressed hash of indices into an array that the caller keeps. */
struct dmm_index {
	uint32_t *slots; /* index + 1; 0: free */
	size_t size, used;
};

/* The slot of the first candidate for @hash; the caller compares and calls next until a free one.
 * Room is made before, so that adding one cannot fail. */
size_t dmm_index_first(const struct dmm_index *index, uint64_t hash);
size_t dmm_index_next(const struct dmm_index *index, size_t slot);
/* Makes room for one more; @hash_of(ctx, i) is the hash of entry i. -ENOMEM. */
int dmm_index_reserve(struct dmm_index *index, uint64_t (*hash_of)(const void *ctx, uint32_t i),
		      const void *ctx);
uint64_t dmm_hash(const void *data, size_t len);

/* Addresses of one family that a rule matches, exceptions already taken away. */
struct dmm_prefix {
	uint8_t addr[16];
	uint8_t len;
	uint32_t rule;
};

struct dmm_prefixes {
	struct dmm_prefix *items;
	size_t n, size;
};

/* Appends those of @rule; rules without cidr have the family's root. -ENOMEM, -E2BIG. */
int dmm_prefixes_add(struct dmm_prefixes *prefixes, const struct dmm_policy_rule *rule,
		     uint32_t index, enum dmm_family family);
/* Whether @b lies within @a. */
bool dmm_prefix_covers(const struct dmm_prefix *a, const struct dmm_prefix *b);

/* Port intervals -> rule, each distinct run once. Runs have ids; those that a leaf points at also
 * have a place in the RUNS table. */
struct dmm_run_id {
	uint64_t hash;
	size_t start;  /* in items */
	uint32_t n;    /* intervals, at least 1 */
	uint32_t leaf; /* the ref of its leaf; 0: none yet */
};

struct dmm_run_memo {
	uint32_t base, rule, id;
};

struct dmm_runs {
	const struct dmm_policy *policy;
	struct dmm_run *items; /* intervals of all runs */
	size_t n_items, items_size;
	struct dmm_run_id *ids;
	size_t n_ids, ids_size;
	struct dmm_index index;
	struct dmm_run_memo *memos; /* what one rule makes of a run */
	size_t n_memos, memos_size;
	struct dmm_index memo_index;
	struct dmm_run *table; /* RUNS as it will be */
	size_t n_table, table_size;
	void *scratch; /* struct segment array of the sweep */
	size_t scratch_size;
	uint32_t *heap;
	size_t heap_size;
};

/* The run in which @rule has all ports. Negative errno. */
int64_t dmm_runs_single(struct dmm_runs *runs, uint32_t rule);
/* @base with @n rules laid over it: on each port the lowest rule wins. Negative errno. */
int64_t dmm_runs_overlay(struct dmm_runs *runs, uint32_t base, const uint32_t *rules, size_t n);
/* The ref of a leaf with run @id. Negative errno. */
int64_t dmm_runs_leaf(struct dmm_runs *runs, uint32_t id);
void dmm_runs_free(struct dmm_runs *runs);

/* Trie nodes, each distinct one once. */
struct dmm_nodes {
	struct dmm_node *items;
	size_t n, size;
	struct dmm_index index;
};

/* A ref to @node; where all children are one leaf, that leaf. Negative errno. */
int64_t dmm_nodes_add(struct dmm_nodes *nodes, const struct dmm_node *node);
void dmm_nodes_free(struct dmm_nodes *nodes);

/* Makes room for @more items of @size bytes; doubles. -ENOMEM. */
int dmm_grow(void *array, size_t *room, size_t n, size_t more, size_t size);
void dmm_sort_numbers(uint32_t *numbers, size_t n);
