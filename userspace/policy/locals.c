/* SPDX-License-Identifier: Apache-2.0 */
/* The prefixes that the rules' `local` name. Which rules hold an address is told by the longest of them
 * that covers it, so each makes a class of addresses. */
#include "policy/locals.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/cidrset.h"
#include "policy/tables_internal.h"

/* The longest first: as rules, that match makes the longest win. */
static int by_length(const void *a, const void *b)
{
	const struct dmm_cidr *x = a, *y = b;

	if (x->len != y->len)
		return x->len > y->len ? -1 : 1;
	return memcmp(x->addr, y->addr, sizeof(x->addr));
}

int dmm_locals_make(const struct dmm_policy *policy, struct dmm_locals *ret)
{
	struct dmm_cidr *items = NULL;
	size_t room = 0, n = 0, distinct = 0;

	for (size_t i = 0; i < policy->n_rules; i++) {
		const struct dmm_policy_rule *rule = &policy->rules[i];

		if (!rule->n_local)
			continue;
		if (dmm_grow(&items, &room, n, rule->n_local, sizeof(*items)) < 0) {
			free(items);
			return -ENOMEM;
		}
		memcpy(items + n, rule->local, rule->n_local * sizeof(*items));
		n += rule->n_local;
	}
	if (n)
		qsort(items, n, sizeof(*items), by_length);
	for (size_t i = 0; i < n; i++)
		if (distinct == 0 || by_length(&items[distinct - 1], &items[i]))
			items[distinct++] = items[i];
	*ret = (struct dmm_locals){ items, distinct };
	return 0;
}

void dmm_locals_free(struct dmm_locals *locals)
{
	free(locals->items);
	*locals = (struct dmm_locals){ 0 };
}

bool dmm_rule_is_local(const struct dmm_policy_rule *rule, const struct dmm_cidr *cidr)
{
	for (size_t i = 0; i < rule->n_local; i++)
		if (dmm_cidr_is_v4(&rule->local[i]) == dmm_cidr_is_v4(cidr) &&
		    dmm_cidr_covers(&rule->local[i], cidr))
			return true;
	return !rule->n_local;
}
