/* SPDX-License-Identifier: Apache-2.0 */
/* Port intervals: laying rules over each other, and keeping each distinct run once. */
#include "policy/tables_internal.h"

#include <errno.h>

#include "base/util.h"

#define LAST_PORT 65535u

struct segment {
	uint32_t first, last, rule;
};

static uint64_t hash_of_run(const void *ctx, uint32_t i)
{
	const struct dmm_runs *runs = ctx;

	return runs->ids[i].hash;
}

/* Keeps the @n intervals behind the last run as a run, or finds the one that is equal. */
static int64_t intern(struct dmm_runs *runs, uint32_t n)
{
	const struct dmm_run *new = runs->items + runs->n_items;
	uint64_t hash = dmm_hash(new, n * sizeof(*new));
	size_t slot;

	if (dmm_index_reserve(&runs->index, hash_of_run, runs) < 0 ||
	    dmm_grow(&runs->ids, &runs->ids_size, runs->n_ids, 1, sizeof(*runs->ids)) < 0)
		return -ENOMEM;
	for (slot = dmm_index_first(&runs->index, hash); runs->index.slots[slot];
	     slot = dmm_index_next(&runs->index, slot)) {
		const struct dmm_run_id *id = &runs->ids[runs->index.slots[slot] - 1];

		if (id->hash == hash && id->n == n &&
		    memcmp(runs->items + id->start, new, n * sizeof(*new)) == 0)
			return runs->index.slots[slot] - 1;
	}
	runs->ids[runs->n_ids] =
		(struct dmm_run_id){ .hash = hash, .start = runs->n_items, .n = n };
	runs->n_items += n;
	runs->index.slots[slot] = ++runs->n_ids;
	runs->index.used++;
	return runs->n_ids - 1;
}

int64_t dmm_runs_single(struct dmm_runs *runs, uint32_t rule)
{
	if (dmm_grow(&runs->items, &runs->items_size, runs->n_items, 1, sizeof(*runs->items)) < 0)
		return -ENOMEM;
	runs->items[runs->n_items] = (struct dmm_run){ .first = 0, .rule = rule };
	return intern(runs, 1);
}

/* Whether @rule would win a port of first..last from run @id. */
static bool wins(const struct dmm_runs *runs, const struct dmm_run_id *id, uint32_t first,
		 uint32_t last, uint32_t rule)
{
	const struct dmm_run *run = runs->items + id->start;
	uint32_t lo = 0, hi = id->n;

	while (hi - lo > 1) {
		uint32_t mid = (lo + hi) / 2;

		if (run[mid].first <= first)
			lo = mid;
		else
			hi = mid;
	}
	for (; lo < id->n && run[lo].first <= last; lo++) {
		if (run[lo].rule > rule)
			return true;
	}
	return false;
}

static int add_segment(struct dmm_runs *runs, size_t n, uint32_t first, uint32_t last,
		       uint32_t rule)
{
	struct segment *segments;

	if (dmm_grow(&runs->scratch, &runs->scratch_size, n, 1, sizeof(*segments)) < 0)
		return -ENOMEM;
	segments = runs->scratch;
	segments[n] = (struct segment){ first, last, rule };
	return 0;
}

/* Collects the intervals of @rules that win something from @base. Their number, negative errno. */
static int64_t collect(struct dmm_runs *runs, uint32_t base, const uint32_t *rules, size_t n)
{
	const struct dmm_run_id *id = &runs->ids[base];
	size_t i, k, count = 0;

	for (i = 0; i < n; i++) {
		const struct dmm_policy_rule *rule = &runs->policy->rules[rules[i]];
		const struct dmm_port_range all = { 0, LAST_PORT };
		const struct dmm_port_range *ports = rule->n_ports ? rule->ports : &all;

		for (k = 0; k < DMM_MAX(rule->n_ports, (size_t)1); k++) {
			if (!wins(runs, id, ports[k].first, ports[k].last, rules[i]))
				continue;
			if (add_segment(runs, count, ports[k].first, ports[k].last, rules[i]) < 0)
				return -ENOMEM;
			count++;
		}
	}
	return count;
}

static int64_t collect_base(struct dmm_runs *runs, uint32_t base, size_t count)
{
	const struct dmm_run_id *id = &runs->ids[base];
	uint32_t i;

	for (i = 0; i < id->n; i++) {
		const struct dmm_run *run = &runs->items[id->start + i];
		uint32_t last = i + 1 < id->n ? run[1].first - 1 : LAST_PORT;

		if (add_segment(runs, count, run->first, last, run->rule) < 0)
			return -ENOMEM;
		count++;
	}
	return count;
}

static int by_first(const void *a, const void *b)
{
	const struct segment *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* A heap of segments with the lowest rule on top. */
struct heap {
	const struct segment *segments;
	uint32_t *items;
	size_t n;
};

static bool above(const struct heap *h, size_t a, size_t b)
{
	return h->segments[h->items[a]].rule < h->segments[h->items[b]].rule;
}

static void swap(struct heap *h, size_t a, size_t b)
{
	uint32_t item = h->items[a];

	h->items[a] = h->items[b];
	h->items[b] = item;
}

static void heap_push(struct heap *h, uint32_t segment)
{
	size_t i = h->n++;

	h->items[i] = segment;
	for (; i && above(h, i, (i - 1) / 2); i = (i - 1) / 2)
		swap(h, i, (i - 1) / 2);
}

static void heap_pop(struct heap *h)
{
	size_t i = 0, child;

	h->items[0] = h->items[--h->n];
	while ((child = 2 * i + 1) < h->n) {
		if (child + 1 < h->n && above(h, child + 1, child))
			child++;
		if (!above(h, child, i))
			break;
		swap(h, i, child);
		i = child;
	}
}

/* Sweeps over the ports; the segments, sorted, cover them all. Writes behind the last run. */
static uint32_t sweep(struct dmm_runs *runs, size_t count)
{
	const struct segment *s = runs->scratch;
	struct heap heap = { .segments = s, .items = runs->heap };
	struct dmm_run *out = runs->items + runs->n_items;
	uint32_t port = 0, n = 0;
	size_t next = 0;

	while (port <= LAST_PORT) {
		const struct segment *top;

		while (next < count && s[next].first <= port)
			heap_push(&heap, next++);
		while (s[heap.items[0]].last < port)
			heap_pop(&heap);
		top = &s[heap.items[0]];
		if (!n || out[n - 1].rule != top->rule)
			out[n++] = (struct dmm_run){ .first = port, .rule = top->rule };
		port = top->last + 1;
		if (next < count && s[next].first < port)
			port = s[next].first;
	}
	return n;
}

static int64_t lay_over(struct dmm_runs *runs, uint32_t base, const uint32_t *rules, size_t n)
{
	int64_t count = collect(runs, base, rules, n);

	if (count <= 0)
		return count < 0 ? count : base;
	count = collect_base(runs, base, count);
	if (count < 0)
		return count;
	/* each segment starts and ends at most one interval */
	if (dmm_grow(&runs->items, &runs->items_size, runs->n_items, 2 * count,
		     sizeof(*runs->items)) < 0 ||
	    dmm_grow(&runs->heap, &runs->heap_size, 0, count, sizeof(*runs->heap)) < 0)
		return -ENOMEM;
	qsort(runs->scratch, count, sizeof(struct segment), by_first);
	return intern(runs, sweep(runs, count));
}

static uint64_t memo_hash(uint32_t base, uint32_t rule)
{
	uint64_t key = (uint64_t)base << 32 | rule;

	return dmm_hash(&key, sizeof(key));
}

static uint64_t hash_of_memo(const void *ctx, uint32_t i)
{
	const struct dmm_runs *runs = ctx;

	return memo_hash(runs->memos[i].base, runs->memos[i].rule);
}

int64_t dmm_runs_overlay(struct dmm_runs *runs, uint32_t base, const uint32_t *rules, size_t n)
{
	size_t slot;
	int64_t id;

	if (n != 1)
		return lay_over(runs, base, rules, n);
	if (dmm_index_reserve(&runs->memo_index, hash_of_memo, runs) < 0 ||
	    dmm_grow(&runs->memos, &runs->memos_size, runs->n_memos, 1, sizeof(*runs->memos)) < 0)
		return -ENOMEM;
	for (slot = dmm_index_first(&runs->memo_index, memo_hash(base, *rules));
	     runs->memo_index.slots[slot]; slot = dmm_index_next(&runs->memo_index, slot)) {
		const struct dmm_run_memo *memo = &runs->memos[runs->memo_index.slots[slot] - 1];

		if (memo->base == base && memo->rule == *rules)
			return memo->id;
	}
	id = lay_over(runs, base, rules, n);
	if (id < 0)
		return id;
	runs->memos[runs->n_memos] = (struct dmm_run_memo){ base, *rules, id };
	runs->memo_index.slots[slot] = ++runs->n_memos;
	runs->memo_index.used++;
	return id;
}

/* Writes the run into RUNS. */
static int write_out(struct dmm_runs *runs, const struct dmm_run_id *run)
{
	struct dmm_run *out;

	if (runs->n_table + run->n + 1 >= DMM_REF_VALUE)
		return -E2BIG;
	if (dmm_grow(&runs->table, &runs->table_size, runs->n_table, run->n + 1, sizeof(*out)) < 0)
		return -ENOMEM;
	out = runs->table + runs->n_table;
	out[0] = (struct dmm_run){ .first = run->n };
	memcpy(out + 1, runs->items + run->start, run->n * sizeof(*out));
	runs->n_table += run->n + 1;
	return 0;
}

int64_t dmm_runs_leaf(struct dmm_runs *runs, uint32_t id)
{
	struct dmm_run_id *run = &runs->ids[id];
	uint32_t at = runs->n_table;
	int r;

	if (!run->leaf && run->n > 1) {
		r = write_out(runs, run);
		if (r < 0)
			return r;
		run->leaf = DMM_REF_LEAF | at;
	} else if (!run->leaf) {
		run->leaf = DMM_REF_LEAF | DMM_REF_RULE | runs->items[run->start].rule;
	}
	return run->leaf;
}

void dmm_runs_free(struct dmm_runs *runs)
{
	free(runs->items);
	free(runs->ids);
	free(runs->index.slots);
	free(runs->memos);
	free(runs->memo_index.slots);
	free(runs->table);
	free(runs->scratch);
	free(runs->heap);
	*runs = (struct dmm_runs){ 0 };
}
