/* SPDX-License-Identifier: Apache-2.0 */
/* The addresses of a rule as prefixes: its cidr list less its exceptions. */
#include "policy/tables_internal.h"

#include <errno.h>

#include "base/util.h"
#include "policy/cidrset.h"
#include "policy/policy_internal.h"

#define MAX_PREFIXES (8u << 20) /* of all rules: 200 MB while compiling */

static const struct dmm_cidr roots[] = {
	[DMM_FAMILY_V4] = { .addr = { [10] = 0xff, [11] = 0xff }, .len = 96 },
	[DMM_FAMILY_V6] = { .len = 0 },
};

bool dmm_prefix_covers(const struct dmm_prefix *a, const struct dmm_prefix *b)
{
	return a->len <= b->len && dmm_bits_equal(a->addr, b->addr, a->len);
}

static int append(struct dmm_prefixes *prefixes, const struct dmm_cidr *cidr, uint32_t rule)
{
	struct dmm_prefix *item;

	if (prefixes->n >= MAX_PREFIXES)
		return -E2BIG;
	if (dmm_grow(&prefixes->items, &prefixes->size, prefixes->n, 1, sizeof(*item)) < 0)
		return -ENOMEM;
	item = &prefixes->items[prefixes->n++];
	memcpy(item->addr, cidr->addr, sizeof(item->addr));
	item->len = cidr->len;
	item->rule = rule;
	return 0;
}

/* Adds @cidr without the holes, of which those from @lo on do not start before it. */
static int subtract(struct dmm_prefixes *prefixes, const struct dmm_cidr_set *holes, size_t lo,
		    const struct dmm_cidr *cidr, uint32_t rule)
{
	struct dmm_cidr half = *cidr;
	int r;

	if (lo == holes->n || !dmm_cidr_covers(cidr, &holes->items[lo])) {
		if (lo < holes->n && dmm_cidr_covers(&holes->items[lo], cidr))
			return 0;
		return append(prefixes, cidr, rule);
	}
	if (holes->items[lo].len == cidr->len)
		return 0;
	half.len++;
	r = subtract(prefixes, holes, lo, &half, rule);
	if (r < 0)
		return r;
	half.addr[cidr->len / 8] |= 0x80 >> (cidr->len % 8);
	return subtract(prefixes, holes, dmm_cidr_set_first_from(holes, lo, half.addr), &half,
			rule);
}

static int add_cidr(struct dmm_prefixes *prefixes, const struct dmm_cidr_set *holes,
		    const struct dmm_cidr *cidr, uint32_t rule)
{
	size_t lo = dmm_cidr_set_first_from(holes, 0, cidr->addr);

	if (lo && dmm_cidr_covers(&holes->items[lo - 1], cidr))
		return 0;
	return subtract(prefixes, holes, lo, cidr, rule);
}

int dmm_prefixes_add(struct dmm_prefixes *prefixes, const struct dmm_policy_rule *rule,
		     uint32_t index, enum dmm_family family)
{
	bool v4 = family == DMM_FAMILY_V4;
	struct dmm_cidr_set holes;
	size_t i;
	int r = dmm_cidr_set_make(rule->except, rule->n_except, family, &holes);

	if (r < 0)
		return r;
	if (!rule->n_remote)
		r = add_cidr(prefixes, &holes, &roots[family], index);
	for (i = 0; i < rule->n_remote && r == 0; i++) {
		if (dmm_cidr_is_v4(&rule->remote[i]) == v4)
			r = add_cidr(prefixes, &holes, &rule->remote[i], index);
	}
	dmm_cidr_set_free(&holes);
	return r;
}

bool dmm_rule_matches_any(const struct dmm_policy_rule *rule)
{
	struct dmm_prefixes prefixes = { 0 };
	bool any = dmm_prefixes_add(&prefixes, rule, 0, DMM_FAMILY_V4) < 0 ||
		   dmm_prefixes_add(&prefixes, rule, 0, DMM_FAMILY_V6) < 0 || prefixes.n;

	free(prefixes.items);
	return any;
}
