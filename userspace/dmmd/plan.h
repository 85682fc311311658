/* SPDX-License-Identifier: Apache-2.0 */
/* What applying a policy means for the stacks: which go on, start, change or end. Decided before
 * anything is touched. */
#pragma once

#include "dmmd/spec.h"
#include "policy/policy.h"

struct dmmd;
struct dmmd_inst;

enum dmmd_step_kind {
	DMMD_STEP_KEEP,	   /* goes on as it is */
	DMMD_STEP_KICK,	   /* the same stack, waiting to be restarted: starts now, not waited for */
	DMMD_STEP_AGAIN,   /* drains: starts again after its last flow */
	DMMD_STEP_START,   /* new, or stopped */
	DMMD_STEP_CHANGE,  /* restarted: its flows are reset */
	DMMD_STEP_DRAIN,   /* not in the policy: ends after its last flow */
	DMMD_STEP_REPLACE, /* not in the policy, and another takes its interface: ends at once */
};

struct dmmd_step {
	enum dmmd_step_kind kind;
	struct dmmd_spec spec; /* as it is to run */
	struct dmmd_spec old;  /* CHANGE: as it runs now */
	uint32_t slot;
	struct dmmd_inst *inst; /* NULL: none in that slot yet */
	struct dmm_place place;
};

struct dmmd_plan {
	struct dmmd_step steps[2 * DMM_MAX_INSTANCES];
	unsigned int n;
};

/* Adds to @found what stands in the way. @restore: at start of dmmd, what an operator has stopped by
 * hand stays stopped. */
int dmmd_plan_make(struct dmmd *d, const struct dmm_policy *policy, bool restore,
		   struct dmmd_plan *ret, struct dmm_findings *found);

/* One sentence for the operator; "" where nothing happens. */
void dmmd_step_describe(const struct dmmd_step *step, bool done, char *ret, size_t size);

const struct dmmd_step *dmmd_plan_find(const struct dmmd_plan *plan, const char *stack,
				       uint32_t index);
