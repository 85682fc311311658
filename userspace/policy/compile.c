/* SPDX-License-Identifier: Apache-2.0 */
/* Policy -> tables. For each class the rules it meets are turned into prefixes once sorted, so that a
 * prefix comes right before all that lies in it; one walk down carries the run of ports that the
 * covering prefixes make and writes it out where nothing more specific follows. */
#include "policy/compile.h"

#include <errno.h>

#include "base/util.h"
#include "policy/callers.h"
#include "policy/groups.h"
#include "policy/locals.h"
#include "policy/policy_internal.h"
#include "policy/tables_internal.h"

#define DEFAULT_BUDGET (256u << 20)
#define MAX_BLAMED     3

/* All prefixes of one family in order, and by rule which of them are its own. */
struct ranked {
	struct dmm_prefixes prefixes;
	uint32_t *ranks;  /* of rule i: from starts[i] to starts[i + 1] */
	uint32_t *starts; /* n_rules + 1 */
};

/* A list of rules that has been built already. */
struct built {
	uint64_t hash;
	size_t start; /* in lists */
	uint32_t n;
	uint32_t refs[DMM_NUM_FAMILIES];
};

/* What a rule adds to the tables where nothing of it is shared, so far. */
struct cost {
	uint64_t bytes;
	uint32_t lists;
};

struct compiler {
	const struct dmm_policy *policy;
	struct dmm_groups groups;
	struct dmm_locals locals;
	struct dmm_gen_meta callers; /* of META that part */
	uint32_t kind;		     /* of callers, the one being built */
	uint32_t local_root[DMM_NUM_FAMILIES];
	struct ranked family[DMM_NUM_FAMILIES];
	const struct ranked *now; /* the family being built */
	uint32_t *order;	  /* ranks of the prefixes being built */
	size_t order_size;
	uint32_t *same; /* rules of one prefix */
	size_t same_size;
	struct dmm_runs runs;
	struct dmm_nodes nodes;
	uint32_t *list; /* the rules being built, and all lists built */
	uint32_t *lists;
	size_t n_lists, lists_size;
	struct built *built;
	size_t n_built, built_size;
	struct dmm_index index;
	uint32_t *roots;
	size_t n_roots;
	struct cost *cost; /* of each rule */
	size_t budget;
	int error; /* the first one; builders return at once then */
};

static void compiler_free(struct compiler *c)
{
	size_t f;

	dmm_groups_free(&c->groups);
	dmm_locals_free(&c->locals);
	for (f = 0; f < DMM_NUM_FAMILIES; f++) {
		free(c->family[f].prefixes.items);
		free(c->family[f].ranks);
		free(c->family[f].starts);
	}
	free(c->order);
	free(c->same);
	dmm_runs_free(&c->runs);
	dmm_nodes_free(&c->nodes);
	free(c->list);
	free(c->lists);
	free(c->built);
	free(c->index.slots);
	free(c->roots);
	free(c->cost);
}

static int by_prefix(const void *a, const void *b)
{
	const struct dmm_prefix *x = a, *y = b;
	int r = memcmp(x->addr, y->addr, sizeof(x->addr));

	if (r)
		return r;
	if (x->len != y->len)
		return x->len < y->len ? -1 : 1;
	return x->rule < y->rule ? -1 : x->rule > y->rule;
}

static int rank_prefixes(struct compiler *c, enum dmm_family family)
{
	struct ranked *ranked = &c->family[family];
	struct dmm_prefixes *prefixes = &ranked->prefixes;
	size_t i, n = c->policy->n_rules;
	int r;

	ranked->starts = calloc(n + 2, sizeof(*ranked->starts));
	if (!ranked->starts)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		r = dmm_prefixes_add(prefixes, &c->policy->rules[i], i, family);
		ranked->starts[i + 1] = prefixes->n;
		c->cost[i].bytes += (prefixes->n - ranked->starts[i]) * sizeof(struct dmm_run);
		if (r < 0)
			return r;
	}
	ranked->ranks = calloc(prefixes->n + 1, sizeof(*ranked->ranks));
	if (!ranked->ranks)
		return -ENOMEM;
	if (prefixes->n)
		qsort(prefixes->items, prefixes->n, sizeof(*prefixes->items), by_prefix);
	for (i = 0; i < prefixes->n; i++)
		ranked->ranks[ranked->starts[prefixes->items[i].rule]++] = i;
	memmove(ranked->starts + 1, ranked->starts, n * sizeof(*ranked->starts));
	ranked->starts[0] = 0;
	return 0;
}

static uint32_t fail(struct compiler *c, int error)
{
	if (!c->error)
		c->error = error;
	return DMM_REF_NONE;
}

static void check_budget(struct compiler *c)
{
	size_t bytes = c->nodes.n * sizeof(struct dmm_node) +
		       DMM_MAX(c->runs.n_table, c->runs.n_items) * sizeof(struct dmm_run) +
		       c->n_roots * sizeof(*c->roots);

	if (bytes > c->budget)
		fail(c, -E2BIG);
}

static const struct dmm_prefix *prefix_at(const struct compiler *c, size_t i)
{
	return &c->now->prefixes.items[c->order[i]];
}

static void set_leaf(struct compiler *c, struct dmm_node *node, unsigned int from, unsigned int to,
		     uint32_t run)
{
	int64_t ref;

	if (from >= to)
		return;
	ref = dmm_runs_leaf(&c->runs, run);
	if (ref < 0) {
		fail(c, ref);
		return;
	}
	for (; from < to; from++)
		node->child[from] = ref;
}

/* @run with the rules of the prefixes lo..hi-1, which are all the same. */
static uint32_t overlay(struct compiler *c, size_t lo, size_t hi, uint32_t run)
{
	int64_t id;
	size_t i;

	if (dmm_grow(&c->same, &c->same_size, 0, hi - lo, sizeof(*c->same)) < 0)
		return fail(c, -ENOMEM);
	for (i = lo; i < hi; i++)
		c->same[i - lo] = prefix_at(c, i)->rule;
	id = dmm_runs_overlay(&c->runs, run, c->same, hi - lo);
	check_budget(c);
	return id < 0 ? fail(c, id) : id;
}

/* The end of the prefixes from @lo on that lie within @outer; within @hi. */
static size_t end_of(const struct compiler *c, size_t lo, size_t hi, const struct dmm_prefix *outer)
{
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (dmm_prefix_covers(outer, prefix_at(c, mid)))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static uint32_t build_node(struct compiler *c, size_t lo, size_t hi, unsigned int byte,
			   uint32_t run);

/* Fills children @child .. @end - 1 of the node of address byte @byte: the prefixes lo..hi-1 all lie
 * there, and @run holds where none of them does. */
static void fill(struct compiler *c, struct dmm_node *node, size_t lo, size_t hi, unsigned int byte,
		 unsigned int child, unsigned int end, uint32_t run)
{
	while (lo < hi && !c->error) {
		const struct dmm_prefix *prefix = prefix_at(c, lo);
		unsigned int at = prefix->addr[byte], next;
		struct dmm_prefix outer = *prefix;
		size_t same = lo, inside;

		set_leaf(c, node, child, at, run);
		if (prefix->len > 8 * byte + 8) {
			outer.len = 8 * byte + 8;
			inside = end_of(c, lo, hi, &outer);
			node->child[at] = build_node(c, lo, inside, byte + 1, run);
			next = at + 1;
		} else {
			while (same < hi && prefix_at(c, same)->len == prefix->len &&
			       dmm_prefix_covers(prefix, prefix_at(c, same)))
				same++;
			inside = end_of(c, same, hi, prefix);
			next = at + (1u << (8 * byte + 8 - prefix->len));
			fill(c, node, same, inside, byte, at, next, overlay(c, lo, same, run));
		}
		lo = inside;
		child = next;
	}
	if (!c->error)
		set_leaf(c, node, child, end, run);
}

static uint32_t build_node(struct compiler *c, size_t lo, size_t hi, unsigned int byte,
			   uint32_t run)
{
	struct dmm_node node;
	int64_t ref;

	fill(c, &node, lo, hi, byte, 0, DMM_ARRAY_SIZE(node.child), run);
	if (c->error)
		return DMM_REF_NONE;
	ref = dmm_nodes_add(&c->nodes, &node);
	check_budget(c);
	return ref < 0 ? fail(c, ref) : ref;
}

static void account(struct compiler *c, size_t n, size_t n_prefixes)
{
	size_t i, k;

	for (i = 0; i + 1 < n; i++) {
		const struct dmm_policy_rule *rule = &c->policy->rules[c->list[i]];
		const uint32_t *start = &c->now->starts[c->list[i]];
		struct cost *cost = &c->cost[c->list[i]];
		size_t spread = rule->n_remote ? start[1] - start[0] : n_prefixes;

		cost->lists += c->now == &c->family[DMM_FAMILY_V4];
		cost->bytes += spread * rule->n_ports * sizeof(struct dmm_run);
		for (k = start[0]; k < start[1]; k++)
			cost->bytes += c->now->prefixes.items[c->now->ranks[k]].len / 8 *
				       sizeof(struct dmm_node);
	}
}

/* Gathers the prefixes of the list's rules into c->order. Their number, negative errno. */
static int64_t gather(struct compiler *c, size_t n)
{
	size_t i, count = 0;

	for (i = 0; i + 1 < n; i++) {
		const uint32_t *start = &c->now->starts[c->list[i]];
		size_t own = start[1] - start[0];

		if (!own)
			continue;
		if (dmm_grow(&c->order, &c->order_size, count, own, sizeof(*c->order)) < 0)
			return -ENOMEM;
		memcpy(c->order + count, c->now->ranks + start[0], own * sizeof(*c->order));
		count += own;
	}
	dmm_sort_numbers(c->order, count);
	return count;
}

/* The root for c->list (@n rules, of which the last takes all) and one family. */
static uint32_t build_root(struct compiler *c, size_t n, enum dmm_family family)
{
	int64_t count, run, ref;

	c->now = &c->family[family];
	count = gather(c, n);
	if (count < 0)
		return fail(c, count);
	account(c, n, count);
	run = dmm_runs_single(&c->runs, c->list[n - 1]);
	if (run < 0)
		return fail(c, run);
	if (count)
		return build_node(c, 0, count, family == DMM_FAMILY_V4 ? 12 : 0, run);
	ref = dmm_runs_leaf(&c->runs, run);
	return ref < 0 ? fail(c, ref) : ref;
}

static uint64_t hash_of_built(const void *ctx, uint32_t i)
{
	const struct compiler *c = ctx;

	return c->built[i].hash;
}

/* The roots for c->list; equal lists are built once. */
static const struct built *build_list(struct compiler *c, size_t n)
{
	uint64_t hash = dmm_hash(c->list, n * sizeof(*c->list));
	struct built *built;
	size_t slot;

	if (dmm_index_reserve(&c->index, hash_of_built, c) < 0 ||
	    dmm_grow(&c->built, &c->built_size, c->n_built, 1, sizeof(*c->built)) < 0 ||
	    dmm_grow(&c->lists, &c->lists_size, c->n_lists, n, sizeof(*c->lists)) < 0) {
		fail(c, -ENOMEM);
		return NULL;
	}
	for (slot = dmm_index_first(&c->index, hash); c->index.slots[slot];
	     slot = dmm_index_next(&c->index, slot)) {
		built = &c->built[c->index.slots[slot] - 1];
		if (built->hash == hash && built->n == n &&
		    memcmp(c->lists + built->start, c->list, n * sizeof(*c->list)) == 0)
			return built;
	}
	built = &c->built[c->n_built++];
	*built = (struct built){ .hash = hash, .start = c->n_lists, .n = n };
	memcpy(c->lists + c->n_lists, c->list, n * sizeof(*c->list));
	c->n_lists += n;
	c->index.slots[slot] = c->n_built;
	c->index.used++;
	built->refs[DMM_FAMILY_V4] = build_root(c, n, DMM_FAMILY_V4);
	if (!c->error)
		built->refs[DMM_FAMILY_V6] = build_root(c, n, DMM_FAMILY_V6);
	return c->error ? NULL : built;
}

/* Of the @n rules in c->list those that hold on @local (NULL: on an address that no rule names); the last
 * holds everywhere. */
static size_t keep_local(struct compiler *c, size_t n, const struct dmm_cidr *local)
{
	size_t kept = 0, i;

	for (i = 0; i + 1 < n; i++) {
		const struct dmm_policy_rule *rule = &c->policy->rules[c->list[i]];

		if (local ? dmm_rule_is_local(rule, local) : !rule->n_local)
			c->list[kept++] = c->list[i];
	}
	c->list[kept++] = c->list[i];
	return kept;
}

/* Of the @n rules in c->list those that hold for the kind of callers being built. */
static size_t keep_callers(struct compiler *c, size_t n)
{
	size_t kept = 0, i;

	for (i = 0; i + 1 < n; i++)
		if (dmm_rule_is_for(&c->policy->rules[c->list[i]], &c->callers, c->kind))
			c->list[kept++] = c->list[i];
	c->list[kept++] = c->list[i];
	return kept;
}

/* The roots of one class for one direction and protocol; with @local on its addresses. */
static int build_roots(struct compiler *c, size_t group, enum dmm_direction dir,
		       enum dmm_proto proto, const struct dmm_cidr *local, uint32_t *roots)
{
	size_t n = dmm_groups_list(c->policy, &c->groups, group, dir, proto, c->list);
	const struct built *built;

	if (dir == DMM_DIR_LISTEN)
		n = keep_local(c, n, local);
	if (dmm_callers_count(&c->callers) > 1)
		n = keep_callers(c, n);
	built = build_list(c, n);
	if (built)
		memcpy(roots, built->refs, sizeof(built->refs));
	return c->error;
}

static int build_class(struct compiler *c, size_t group, uint32_t class_id,
		       const struct dmm_gen_meta *meta)
{
	unsigned int dir, proto, local;
	int r = 0;

	for (dir = 0; dir < DMM_NUM_DIRS; dir++)
		for (proto = 0; proto < DMM_NUM_PROTOS && r == 0; proto++)
			r = build_roots(c, group, dir, proto, NULL,
					&c->roots[DMM_ROOT_INDEX(class_id, dir, proto, 0)]);
	for (local = 0; local < meta->n_local; local++)
		for (proto = 0; proto < DMM_NUM_PROTOS && r == 0; proto++)
			r = build_roots(
				c, group, DMM_DIR_LISTEN, proto, &c->locals.items[local],
				&c->roots[DMM_LOCAL_ROOT_INDEX(meta, class_id, local, proto, 0)]);
	return r;
}

static int compiler_init(struct compiler *c, const struct dmm_policy *policy)
{
	size_t f, n = policy->n_rules;
	int r;

	c->policy = c->runs.policy = policy;
	c->list = calloc(n + 1, sizeof(*c->list));
	c->cost = calloc(n + 1, sizeof(*c->cost));
	if (!c->list || !c->cost)
		return -ENOMEM;
	r = dmm_groups_make(policy, &c->groups);
	r = r ? r : dmm_locals_make(policy, &c->locals);
	for (f = 0; f < DMM_NUM_FAMILIES && r == 0; f++)
		r = rank_prefixes(c, f);
	return r;
}

/* The roots by which an address's local class is found: the prefixes as rules, in another compiler that
 * shares the nodes. */
static int build_locals(struct compiler *c)
{
	dmm_autofree struct dmm_policy_rule *rules = calloc(c->locals.n + 1, sizeof(*rules));
	struct dmm_policy policy = { .rules = rules, .n_rules = c->locals.n };
	struct compiler of_locals = { .budget = c->budget, .nodes = c->nodes };
	const struct built *built;
	int r = rules ? 0 : -ENOMEM;

	for (size_t i = 0; i < c->locals.n && r == 0; i++) {
		rules[i].remote = &c->locals.items[i];
		rules[i].n_remote = 1;
	}
	r = r ? r : compiler_init(&of_locals, &policy);
	for (size_t i = 0; i <= c->locals.n && r == 0; i++)
		of_locals.list[i] = i;
	built = r == 0 ? build_list(&of_locals, c->locals.n + 1) : NULL;
	if (built)
		memcpy(c->local_root, built->refs, sizeof(c->local_root));
	c->nodes = of_locals.nodes;
	of_locals.nodes = (struct dmm_nodes){ 0 };
	r = r ? r : of_locals.error;
	compiler_free(&of_locals);
	return r;
}

static int make_roots(struct compiler *c, uint32_t n_classes)
{
	size_t i;

	c->n_roots = (size_t)n_classes * DMM_ROOTS_PER_CLASS +
		     n_classes * c->locals.n * DMM_NUM_PROTOS * DMM_NUM_FAMILIES;
	for (i = 0; i < c->policy->n_rules; i++)
		c->cost[i].bytes += c->policy->rules[i].n_local * n_classes * DMM_NUM_PROTOS *
				    DMM_NUM_FAMILIES * sizeof(*c->roots);
	check_budget(c);
	if (c->error)
		return c->error;
	c->roots = calloc(c->n_roots, sizeof(*c->roots));
	if (!c->roots)
		return -ENOMEM;
	for (i = 0; i < c->n_roots; i++)
		c->roots[i] = DMM_REF_NONE;
	return 0;
}

/* Builds all classes; @class_ids has one for each group. */
static int build_classes(struct compiler *c, const uint32_t *class_ids)
{
	struct dmm_gen_meta meta = { .n_local = c->locals.n };
	uint32_t highest = 0;
	size_t g;
	int r;

	for (g = 0; g < c->groups.n; g++)
		highest = DMM_MAX(highest, class_ids[g]);
	c->callers.n_cgroups = highest + 1;
	meta.n_classes = c->callers.n_cgroups * dmm_callers_count(&c->callers);
	r = make_roots(c, meta.n_classes);
	for (; c->kind < dmm_callers_count(&c->callers) && r == 0; c->kind++)
		for (g = 0; g < c->groups.n && r == 0; g++)
			r = build_class(c, g, c->kind * c->callers.n_cgroups + class_ids[g], &meta);
	return r ? r : build_locals(c);
}

static int ask_classes(const struct compiler *c, const struct dmm_compile_env *env, uint32_t *ret,
		       struct dmm_findings *found)
{
	size_t g;

	ret[0] = 0;
	for (g = 1; g < c->groups.n; g++) {
		const struct dmm_group *group = &c->groups.items[g];
		int id = env->class_of(env->ctx, group->cgroup);

		if (id == -ENOSPC)
			dmm_find(found, DMM_CODE_TABLES,
				 c->policy->rules[group->rules[0]].cgroup_place,
				 "name a cgroup above several of them",
				 "no room for the class of cgroup %s: there are %u at most",
				 group->cgroup, DMM_MAX_CLASSES - 1);
		if (id < 0)
			return id;
		ret[g] = id;
	}
	return 0;
}

/* A table of at least @n items of @size, @per to a block, with @items copied in; at least a block. */
static int make_table(struct dmm_tables *tables, enum dmm_table table, const void *items, size_t n,
		      size_t size, size_t per)
{
	size_t blocks = DMM_MAX((n + per - 1) / per, (size_t)1);

	tables->blocks[table] = calloc(blocks, DMM_BLOCK);
	if (!tables->blocks[table])
		return -ENOMEM;
	if (n && items)
		memcpy(tables->blocks[table], items, n * size);
	tables->n_blocks[table] = blocks;
	return 0;
}

static int set_rule(const struct dmm_policy_rule *rule, const struct dmm_compile_env *env,
		    struct dmm_rule *ret)
{
	uint32_t instances[DMM_MAX_INSTANCES_OF] = { 0 };
	int n = 1;

	if (rule->action == DMM_ACTION_STACK)
		n = env->instances_of(env->ctx, rule->stack, instances);
	if (n < 0)
		return n;
	*ret = (struct dmm_rule){ .action = rule->action,
				  .on_unavailable = rule->on_unavailable,
				  .instance = instances[0],
				  .n_others = n - 1,
				  .line = rule->place.line,
				  .column = rule->place.column };
	for (int i = 1; i < n; i++)
		ret->others[i - 1] = instances[i];
	snprintf(ret->name, sizeof(ret->name), "%s", rule->name);
	return 0;
}

static int set_rules(const struct dmm_policy *policy, const struct dmm_compile_env *env,
		     struct dmm_rule *rules)
{
	size_t i;
	int r = 0;

	for (i = 0; i < policy->n_rules && r == 0; i++)
		r = set_rule(&policy->rules[i], env, &rules[i]);
	return r < 0 ? r : set_rule(&policy->fallback, env, &rules[policy->n_rules]);
}

static void set_meta(const struct compiler *c, const struct dmm_compile_env *env,
		     struct dmm_gen_meta *meta)
{
	*meta = c->callers;
	meta->generation = env->generation;
	meta->n_rules = c->policy->n_rules;
	meta->n_classes = c->n_roots /
			  (DMM_ROOTS_PER_CLASS + c->locals.n * DMM_NUM_PROTOS * DMM_NUM_FAMILIES);
	meta->n_local = c->locals.n;
	memcpy(meta->local_root, c->local_root, sizeof(meta->local_root));
	meta->n_nodes = c->nodes.n;
	meta->n_runs = c->runs.n_table;
	meta->n_roots = c->n_roots;
	meta->applied_at = env->applied_at;
	snprintf(meta->policy, sizeof(meta->policy), "%s", c->policy->name);
	snprintf(meta->source, sizeof(meta->source), "%s",
		 c->policy->source ? c->policy->source : "");
}

static int make_tables(const struct compiler *c, const struct dmm_compile_env *env,
		       struct dmm_tables *ret)
{
	struct dmm_tables tables = { 0 };
	int r;

	r = make_table(&tables, DMM_TABLE_ROOTS, c->roots, c->n_roots, sizeof(*c->roots),
		       DMM_ROOTS_BLOCK);
	if (r == 0)
		r = make_table(&tables, DMM_TABLE_NODES, c->nodes.items, c->nodes.n, DMM_BLOCK, 1);
	if (r == 0)
		r = make_table(&tables, DMM_TABLE_RUNS, c->runs.table, c->runs.n_table,
			       sizeof(struct dmm_run), DMM_RUNS_BLOCK);
	if (r == 0)
		r = make_table(&tables, DMM_TABLE_RULES, NULL, c->policy->n_rules + 1,
			       sizeof(struct dmm_rule), DMM_RULES_BLOCK);
	if (r == 0)
		r = make_table(&tables, DMM_TABLE_META, NULL, 1, DMM_BLOCK, 1);
	if (r == 0)
		r = set_rules(c->policy, env, tables.blocks[DMM_TABLE_RULES]);
	if (r < 0) {
		dmm_tables_free(&tables);
		return r;
	}
	set_meta(c, env, tables.blocks[DMM_TABLE_META]);
	*ret = tables;
	return 0;
}

/* Names the rules that cost most, the worst first. */
static void blame(struct compiler *c, struct dmm_findings *found)
{
	const struct dmm_policy_rule *rule;
	size_t i, k, worst;

	for (k = 0; k < DMM_MIN(c->policy->n_rules, (size_t)MAX_BLAMED); k++) {
		for (i = worst = 0; i < c->policy->n_rules; i++) {
			if (c->cost[i].bytes > c->cost[worst].bytes)
				worst = i;
		}
		if (!c->cost[worst].bytes)
			return;
		rule = &c->policy->rules[worst];
		dmm_find(
			found, DMM_CODE_TABLES, rule->place,
			"fewer or shorter prefixes, fewer port ranges, or fewer cgroups with rules of "
			"their own before this one",
			"the tables would be larger than %zu MiB; rule '%s' is among those that cost most "
			"(cidr %zu, except %zu, ports %zu; in the tables of at least %u cgroups)",
			c->budget >> 20, rule->name, rule->n_remote, rule->n_except, rule->n_ports,
			DMM_MAX(c->cost[worst].lists, 1u));
		c->cost[worst].bytes = 0;
	}
}

int dmm_policy_compile(const struct dmm_policy *policy, const struct dmm_compile_env *env,
		       struct dmm_tables *ret, struct dmm_findings *found)
{
	struct compiler c = { .budget = env->max_bytes ? env->max_bytes : DEFAULT_BUDGET };
	dmm_autofree uint32_t *class_ids = NULL;
	int r;

	r = dmm_callers_make(policy, &c.callers, NULL); /* checked before */
	if (r < 0)
		return r;
	r = compiler_init(&c, policy);
	class_ids = calloc(c.groups.n + 1, sizeof(*class_ids));
	if (r == 0)
		r = class_ids ? ask_classes(&c, env, class_ids, found) : -ENOMEM;
	if (r == 0)
		r = build_classes(&c, class_ids);
	if (r == 0)
		r = make_tables(&c, env, ret);
	if (r == -E2BIG)
		blame(&c, found);
	compiler_free(&c);
	return r;
}

int dmm_policy_live_rules(const struct dmm_policy *policy, bool *live)
{
	struct compiler c = { .budget = DEFAULT_BUDGET };
	dmm_autofree uint32_t *class_ids = NULL;
	size_t i;
	int r;

	r = dmm_callers_make(policy, &c.callers, NULL);
	if (r < 0)
		return r;
	r = compiler_init(&c, policy);
	class_ids = calloc(c.groups.n + 1, sizeof(*class_ids));
	if (!class_ids && r == 0)
		r = -ENOMEM;
	for (i = 0; i < c.groups.n && r == 0; i++)
		class_ids[i] = i;
	if (r == 0)
		r = build_classes(&c, class_ids);
	/* a run is written out only for a leaf, and a leaf only for addresses that reach it */
	for (i = 0; i < c.runs.n_ids && r == 0; i++) {
		const struct dmm_run_id *id = &c.runs.ids[i];
		size_t k;

		for (k = 0; id->leaf && k < id->n; k++)
			live[c.runs.items[id->start + k].rule] = true;
	}
	compiler_free(&c);
	return r;
}
