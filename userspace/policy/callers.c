/* SPDX-License-Identifier: Apache-2.0 */
/* Kinds of callers. */
#include "policy/callers.h"

#include <errno.h>

#include "base/util.h"
#include "policy/policy_internal.h"

/* Users from @uid on differ from those before. False: no room. */
static bool add_border(struct dmm_gen_meta *meta, uint32_t uid)
{
	unsigned int at = 0;

	while (at < meta->n_uids && meta->uid[at] < uid)
		at++;
	if (uid == 0 || (at < meta->n_uids && meta->uid[at] == uid))
		return true;
	if (meta->n_uids == DMM_MAX_UIDS)
		return false;
	memmove(&meta->uid[at + 1], &meta->uid[at], (meta->n_uids - at) * sizeof(meta->uid[0]));
	meta->uid[at] = uid;
	meta->n_uids++;
	return true;
}

static bool add_comm(struct dmm_gen_meta *meta, const char comm[16])
{
	for (unsigned int i = 0; i < meta->n_comms; i++)
		if (memcmp(meta->comm[i], comm, 16) == 0)
			return true;
	if (meta->n_comms == DMM_MAX_COMMS)
		return false;
	memcpy(meta->comm[meta->n_comms++], comm, 16);
	return true;
}

static bool add_rule(struct dmm_gen_meta *meta, const struct dmm_policy_rule *rule)
{
	bool room = true;
	size_t i;

	for (i = 0; i < rule->n_uids; i++)
		room = room && add_border(meta, rule->uids[i].first) &&
		       add_border(meta, rule->uids[i].last + 1);
	for (i = 0; i < rule->n_comms; i++)
		room = room && add_comm(meta, rule->comms[i]);
	return room;
}

int dmm_callers_make(const struct dmm_policy *policy, struct dmm_gen_meta *meta,
		     struct dmm_findings *found)
{
	for (size_t i = 0; i < policy->n_rules; i++) {
		if (add_rule(meta, &policy->rules[i]))
			continue;
		if (found)
			dmm_find(found, DMM_CODE_CALLERS, policy->rules[i].place,
				 "name cgroups instead",
				 "with rule '%s' there are too many users or processes to tell "
				 "apart: at most %u borders between users, %u names",
				 policy->rules[i].name, DMM_MAX_UIDS, DMM_MAX_COMMS);
		return -E2BIG;
	}
	return 0;
}

uint32_t dmm_callers_count(const struct dmm_gen_meta *meta)
{
	return (meta->n_uids + 1u) * (meta->n_comms + 1u);
}

bool dmm_rule_has_comm(const struct dmm_policy_rule *rule, const char comm[16])
{
	for (size_t i = 0; i < rule->n_comms; i++)
		if (memcmp(rule->comms[i], comm, 16) == 0)
			return true;
	return false;
}

static bool has_uid(const struct dmm_policy_rule *rule, uint32_t uid)
{
	for (size_t i = 0; i < rule->n_uids; i++)
		if (uid >= rule->uids[i].first && uid <= rule->uids[i].last)
			return true;
	return false;
}

bool dmm_rule_is_for(const struct dmm_policy_rule *rule, const struct dmm_gen_meta *meta,
		     uint32_t kind)
{
	uint32_t users = kind / (meta->n_comms + 1u), name = kind % (meta->n_comms + 1u);

	/* the first of a range stands for all of it */
	if (rule->n_uids && !has_uid(rule, users ? meta->uid[users - 1] : 0))
		return false;
	return !rule->n_comms || (name && dmm_rule_has_comm(rule, meta->comm[name - 1]));
}
