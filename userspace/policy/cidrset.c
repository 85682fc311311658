/* SPDX-License-Identifier: Apache-2.0 */
/* Sorted, disjoint sets of prefixes. */
#include "policy/cidrset.h"

#include <errno.h>

#include "base/util.h"

bool dmm_bits_equal(const uint8_t *a, const uint8_t *b, unsigned int len)
{
	unsigned int bytes = len / 8, rest = len % 8;

	return memcmp(a, b, bytes) == 0 && (!rest || !((a[bytes] ^ b[bytes]) >> (8 - rest)));
}

bool dmm_cidr_covers(const struct dmm_cidr *a, const struct dmm_cidr *b)
{
	return a->len <= b->len && dmm_bits_equal(a->addr, b->addr, a->len);
}

static int by_address(const void *a, const void *b)
{
	const struct dmm_cidr *x = a, *y = b;
	int r = memcmp(x->addr, y->addr, sizeof(x->addr));

	return r ? r : (int)x->len - (int)y->len;
}

int dmm_cidr_set_make(const struct dmm_cidr *list, size_t n, enum dmm_family family,
		      struct dmm_cidr_set *ret)
{
	struct dmm_cidr *items = calloc(n + 1, sizeof(*items));
	size_t i, all = 0, kept = 0;

	*ret = (struct dmm_cidr_set){ 0 };
	if (!items)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		if (dmm_cidr_is_v4(&list[i]) == (family == DMM_FAMILY_V4))
			items[all++] = list[i];
	}
	if (all)
		qsort(items, all, sizeof(*items), by_address);
	for (i = 0; i < all; i++) {
		if (!kept || !dmm_cidr_covers(&items[kept - 1], &items[i]))
			items[kept++] = items[i];
	}
	*ret = (struct dmm_cidr_set){ items, kept };
	return 0;
}

void dmm_cidr_set_free(struct dmm_cidr_set *set)
{
	free(set->items);
	*set = (struct dmm_cidr_set){ 0 };
}

size_t dmm_cidr_set_first_from(const struct dmm_cidr_set *set, size_t lo, const uint8_t addr[16])
{
	size_t hi = set->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (memcmp(set->items[mid].addr, addr, 16) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Only the last that starts before it, or the one that starts with it, can. */
bool dmm_cidr_set_covers(const struct dmm_cidr_set *set, const struct dmm_cidr *cidr)
{
	size_t i = dmm_cidr_set_first_from(set, 0, cidr->addr);

	return (i < set->n && dmm_cidr_covers(&set->items[i], cidr)) ||
	       (i > 0 && dmm_cidr_covers(&set->items[i - 1], cidr));
}

bool dmm_cidr_set_touches(const struct dmm_cidr_set *set, const struct dmm_cidr *cidr)
{
	size_t i = dmm_cidr_set_first_from(set, 0, cidr->addr);

	return (i < set->n && dmm_cidr_covers(cidr, &set->items[i])) ||
	       dmm_cidr_set_covers(set, cidr);
}
