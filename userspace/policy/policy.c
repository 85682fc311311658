/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a policy. */
#include "policy/policy.h"

#include <stdlib.h>

static void free_rule(struct dmm_policy_rule *rule)
{
	free(rule->cgroup);
	free(rule->uids);
	free(rule->comms);
	free(rule->remote);
	free(rule->except);
	free(rule->ports);
	free(rule->local);
	free(rule->local_ports);
}

void dmm_policy_free(struct dmm_policy *policy)
{
	size_t i;

	if (!policy)
		return;
	for (i = 0; i < policy->n_rules; i++)
		free_rule(&policy->rules[i]);
	free_rule(&policy->fallback);
	free(policy->rules);
	free(policy->stacks);
	free(policy->interfaces);
	free(policy->source);
	free(policy);
}
