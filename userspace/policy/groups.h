/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of a policy by cgroup: which of them a class of sockets has to look at. */
#pragma once

#include "policy/policy.h"

/* Rules of one cgroup, in order. */
struct dmm_group {
	const char *cgroup; /* NULL: those without one, always group 0 */
	uint32_t *rules;
	size_t n;
	uint32_t catch_all[DMM_NUM_DIRS]
			  [DMM_NUM_PROTOS]; /* first rule that takes all; n_rules: none */
};

/* Ordered by cgroup. */
struct dmm_groups {
	struct dmm_group *items;
	size_t n;
	uint32_t *rules; /* of all groups, one behind the other */
};

int dmm_groups_make(const struct dmm_policy *policy, struct dmm_groups *ret);
void dmm_groups_free(struct dmm_groups *groups);

/* The rules that sockets in @group's cgroup meet, in order, up to the first that takes all (which
 * may be the default). @ret has room for n_rules + 1. */
size_t dmm_groups_list(const struct dmm_policy *policy, const struct dmm_groups *groups,
		       size_t group, enum dmm_direction dir, enum dmm_proto proto, uint32_t *ret);
