/* SPDX-License-Identifier: Apache-2.0 */
/* Local addresses as the rules of a policy tell them apart. */
#pragma once

#include "policy/policy.h"

/* Distinct, the longest first. */
struct dmm_locals {
	struct dmm_cidr *items;
	size_t n;
};

/* -ENOMEM. */
int dmm_locals_make(const struct dmm_policy *policy, struct dmm_locals *ret);
void dmm_locals_free(struct dmm_locals *locals);

/* Whether @rule holds on the addresses of @cidr, one of the policy's locals. */
bool dmm_rule_is_local(const struct dmm_policy_rule *rule, const struct dmm_cidr *cidr);
