/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of address prefixes that are asked many times: sorted and disjoint, so that each question is one
 * binary search. */
#pragma once

#include "policy/policy.h"

/* Of one family; prefixes that lie within others are left out. */
struct dmm_cidr_set {
	struct dmm_cidr *items;
	size_t n;
};

/* 0 or -ENOMEM; dmm_cidr_set_free() it in both cases. */
int dmm_cidr_set_make(const struct dmm_cidr *list, size_t n, enum dmm_family family,
		      struct dmm_cidr_set *ret);
void dmm_cidr_set_free(struct dmm_cidr_set *set);

/* The first from @lo on that does not start before @addr. */
size_t dmm_cidr_set_first_from(const struct dmm_cidr_set *set, size_t lo, const uint8_t addr[16]);
/* Whether one of them covers @cidr, of the same family; or else lies within it. */
bool dmm_cidr_set_covers(const struct dmm_cidr_set *set, const struct dmm_cidr *cidr);
bool dmm_cidr_set_touches(const struct dmm_cidr_set *set, const struct dmm_cidr *cidr);

/* Whether @b lies within @a; of one family. */
bool dmm_cidr_covers(const struct dmm_cidr *a, const struct dmm_cidr *b);
/* The first @len bits. */
bool dmm_bits_equal(const uint8_t *a, const uint8_t *b, unsigned int len);
