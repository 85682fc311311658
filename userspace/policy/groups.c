/* SPDX-License-Identifier: Apache-2.0 */
/* Sorts rules by cgroup and merges the lists of a cgroup and those above it. */
#include "policy/groups.h"

#include <errno.h>

#include "base/util.h"
#include "policy/tables_internal.h"

struct keyed {
	const char *cgroup;
	uint32_t rule;
};

static int compare_cgroups(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "");
}

static int by_cgroup(const void *a, const void *b)
{
	const struct keyed *x = a, *y = b;
	int r = compare_cgroups(x->cgroup, y->cgroup);

	if (r)
		return r;
	return x->rule < y->rule ? -1 : x->rule > y->rule;
}

static bool takes_all(const struct dmm_policy_rule *rule)
{
	return !rule->n_remote && !rule->n_except && !rule->n_ports && !rule->n_local &&
	       !rule->n_uids && !rule->n_comms;
}

static void find_catch_all(const struct dmm_policy *policy, struct dmm_group *group)
{
	size_t dir, proto, i;

	for (dir = 0; dir < DMM_NUM_DIRS; dir++) {
		for (proto = 0; proto < DMM_NUM_PROTOS; proto++) {
			group->catch_all[dir][proto] = policy->n_rules;
			for (i = 0; i < group->n; i++) {
				const struct dmm_policy_rule *rule =
					&policy->rules[group->rules[i]];

				if (takes_all(rule) && rule->dir[dir] && rule->proto[proto]) {
					group->catch_all[dir][proto] = group->rules[i];
					break;
				}
			}
		}
	}
}

int dmm_groups_make(const struct dmm_policy *policy, struct dmm_groups *ret)
{
	size_t n = policy->n_rules, i;
	dmm_autofree struct keyed *keyed = calloc(n + 1, sizeof(*keyed));
	dmm_autofree struct dmm_group *items = calloc(n + 1, sizeof(*items));
	dmm_autofree uint32_t *rules = calloc(n + 1, sizeof(*rules));
	struct dmm_group *group;

	if (!keyed || !items || !rules)
		return -ENOMEM;
	for (i = 0; i < n; i++)
		keyed[i] = (struct keyed){ policy->rules[i].cgroup, i };
	if (n)
		qsort(keyed, n, sizeof(*keyed), by_cgroup);
	group = items;
	group->rules = rules;
	for (i = 0; i < n; i++) {
		if (compare_cgroups(keyed[i].cgroup, group->cgroup)) {
			find_catch_all(policy, group);
			*++group =
				(struct dmm_group){ .cgroup = keyed[i].cgroup, .rules = rules + i };
		}
		rules[i] = keyed[i].rule;
		group->n++;
	}
	find_catch_all(policy, group);
	ret->n = group - items + 1;
	ret->items = DMM_TAKE_PTR(items);
	ret->rules = DMM_TAKE_PTR(rules);
	return 0;
}

void dmm_groups_free(struct dmm_groups *groups)
{
	free(groups->items);
	free(groups->rules);
	*groups = (struct dmm_groups){ 0 };
}

/* A path of @len characters among the groups, NULL: it is none of the policy's. */
static const struct dmm_group *find_group(const struct dmm_groups *groups, const char *path,
					  size_t len)
{
	size_t lo = 0, hi = groups->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		const char *cgroup = groups->items[mid].cgroup ? groups->items[mid].cgroup : "";
		int r = strncmp(cgroup, path, len);

		if (r == 0 && !cgroup[len])
			return &groups->items[mid];
		if (r < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/* The groups of none, of @cgroup and of those above it; returns their number. Each level
 * is at least two characters, so @ret never overflows. */
#define MAX_LEVELS 520

static size_t ancestry(const struct dmm_groups *groups, const char *cgroup,
		       const struct dmm_group *ret[MAX_LEVELS])
{
	size_t n = 0, i;

	ret[n++] = &groups->items[0];
	for (i = 1; cgroup && cgroup[i - 1] && n < MAX_LEVELS; i++) {
		if (cgroup[i] != '/' && cgroup[i])
			continue;
		ret[n] = find_group(groups, cgroup, i);
		n += ret[n] != NULL;
	}
	return n;
}

size_t dmm_groups_list(const struct dmm_policy *policy, const struct dmm_groups *groups,
		       size_t group, enum dmm_direction dir, enum dmm_proto proto, uint32_t *ret)
{
	const struct dmm_group *above[MAX_LEVELS];
	size_t levels = ancestry(groups, groups->items[group].cgroup, above), n = 0, g, i;
	uint32_t limit = policy->n_rules;

	for (g = 0; g < levels; g++)
		limit = DMM_MIN(limit, above[g]->catch_all[dir][proto]);
	for (g = 0; g < levels; g++) {
		for (i = 0; i < above[g]->n && above[g]->rules[i] < limit; i++) {
			const struct dmm_policy_rule *rule = &policy->rules[above[g]->rules[i]];

			if (rule->dir[dir] && rule->proto[proto])
				ret[n++] = above[g]->rules[i];
		}
	}
	dmm_sort_numbers(ret, n);
	ret[n++] = limit;
	return n;
}
