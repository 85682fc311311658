/* SPDX-License-Identifier: Apache-2.0 */
/* Which users and processes the rules of a policy tell apart: kinds of callers, as dmm_caller_kind() of
 * dmm/abi/match.h numbers them. */
#pragma once

#include <dmm/abi/tables.h>

#include "policy/policy.h"

/* Fills in n_uids, uid, n_comms and comm of @meta. -E2BIG: there are too many, @found says where. */
int dmm_callers_make(const struct dmm_policy *policy, struct dmm_gen_meta *meta,
		     struct dmm_findings *found);
/* How many kinds there are. */
uint32_t dmm_callers_count(const struct dmm_gen_meta *meta);
/* Does the rule hold for callers of @kind? */
bool dmm_rule_is_for(const struct dmm_policy_rule *rule, const struct dmm_gen_meta *meta,
		     uint32_t kind);
