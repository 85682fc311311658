/* SPDX-License-Identifier: Apache-2.0 */
/* Policy stacks against running instances. */
#include "dmmd/plan.h"

#include <errno.h>

#include "base/util.h"
#include "dmmd/dmmd.h"
#include "dmmd/hostcheck.h"
#include "dmmd/inst.h"
#include "dmmd/ports.h"

static enum dmmd_step_kind kind_of(const struct dmmd_inst *inst, const struct dmmd_spec *wanted,
				   bool restore)
{
	bool same = inst && dmmd_spec_same(&inst->spec, wanted);
	bool stays = restore && same && inst->held; /* as an operator left it */

	if (!inst)
		return DMMD_STEP_START;
	if (!inst->pid && inst->life == DMMD_STOPPED)
		return stays ? DMMD_STEP_KEEP : DMMD_STEP_START;
	if (inst->life == DMMD_DRAINING && same)
		return stays ? DMMD_STEP_KEEP : DMMD_STEP_AGAIN;
	if (inst->life == DMMD_DRAINING || inst->life == DMMD_ENDING || !same)
		return DMMD_STEP_CHANGE;
	if (inst->life == DMMD_DEAD || inst->life == DMMD_FAILED)
		return DMMD_STEP_KICK;
	return DMMD_STEP_KEEP;
}

static int free_slot(struct dmmd *d, const bool *used, uint32_t *ret)
{
	for (uint32_t i = 0; i < DMM_MAX_INSTANCES; i++)
		if (!d->inst[i] && !used[i]) {
			*ret = i;
			return 0;
		}
	return -ENOSPC;
}

static void add_instance(struct dmmd *d, const struct dmm_policy *policy,
			 const struct dmm_policy_stack *stack, uint32_t index, bool restore,
			 struct dmmd_plan *plan)
{
	struct dmmd_step *step = &plan->steps[plan->n++];
	struct dmmd_inst *inst = dmmd_inst_find_nth(d, stack->name, index);

	*step = (struct dmmd_step){ .inst = inst, .place = stack->place };
	dmmd_spec_from_policy(policy, stack, index, &step->spec);
	step->kind = kind_of(inst, &step->spec, restore);
	if (!inst)
		return;
	step->slot = inst->slot;
	step->old = inst->spec;
	if (step->spec.ports_chosen && inst->spec.ports_chosen)
		step->spec.ports = inst->spec.ports;
}

/* By another stack: one of the same goes on beside what ends. */
static bool interface_wanted(const struct dmmd_plan *plan, const struct dmmd_spec *spec)
{
	for (unsigned int i = 0; i < plan->n; i++)
		if (plan->steps[i].kind != DMMD_STEP_DRAIN &&
		    plan->steps[i].kind != DMMD_STEP_REPLACE &&
		    dmm_streq(plan->steps[i].spec.interface, spec->interface) &&
		    !dmm_streq(plan->steps[i].spec.name, spec->name))
			return true;
	return false;
}

static void add_removed(struct dmmd *d, struct dmmd_plan *plan)
{
	for (uint32_t i = 0; i < DMM_MAX_INSTANCES; i++) {
		struct dmmd_inst *inst = d->inst[i];

		if (!inst || dmmd_plan_find(plan, inst->spec.name, inst->spec.index))
			continue;
		plan->steps[plan->n++] = (struct dmmd_step){
			.kind = interface_wanted(plan, &inst->spec) ? DMMD_STEP_REPLACE
								    : DMMD_STEP_DRAIN,
			.spec = inst->spec,
			.old = inst->spec,
			.slot = i,
			.inst = inst,
		};
	}
}

static int assign_slots(struct dmmd *d, struct dmmd_plan *plan, struct dmm_findings *found)
{
	bool used[DMM_MAX_INSTANCES] = { false };

	for (unsigned int i = 0; i < plan->n; i++) {
		struct dmmd_step *step = &plan->steps[i];

		if (step->inst)
			continue;
		if (free_slot(d, used, &step->slot) < 0)
			return dmm_findings_add(found, DMM_SEVERITY_ERROR,
						DMMD_CODE_TOO_MANY_STACKS, step->place,
						"stacks that drain count until they have ended",
						"no free slot for stack '%s'", step->spec.name);
		used[step->slot] = true;
	}
	return 0;
}

/* --- ports --- */

static bool has_ports(const struct dmmd_step *step)
{
	return step->spec.ports.last != 0;
}

static bool new_ports(const struct dmmd_step *step)
{
	return !step->inst || step->spec.ports.first != step->old.ports.first ||
	       step->spec.ports.last != step->old.ports.last;
}

/* What others hold: bound by kernel sockets or reserved by anyone but our own instances. */
static int others_ports(struct dmmd *d, struct dmmd_ports *ret)
{
	int r;

	memset(ret, 0, sizeof(*ret));
	r = dmmd_ports_reserved(ret);
	if (r == 0)
		r = dmmd_ports_bound(ret);
	/* what is bound there our own instances talk to servers with: others are kept from it */
	for (uint32_t i = 0; i < DMM_MAX_INSTANCES && r == 0; i++)
		if (d->inst[i])
			dmmd_ports_remove(ret, d->inst[i]->spec.ports.first,
					  d->inst[i]->spec.ports.last);
	return r;
}

/* The stack that has one of these ports now; NULL: none of ours. */
static const struct dmmd_inst *owner_of(const struct dmmd *d, unsigned int first, unsigned int last)
{
	for (uint32_t i = 0; i < DMM_MAX_INSTANCES; i++)
		if (d->inst[i] && d->inst[i]->spec.ports.first <= last &&
		    d->inst[i]->spec.ports.last >= first)
			return d->inst[i];
	return NULL;
}

static void check_explicit(const struct dmmd *d, const struct dmmd_step *step,
			   const struct dmmd_ports *taken, struct dmm_findings *found)
{
	uint16_t port = dmmd_ports_taken(taken, step->spec.ports.first, step->spec.ports.last);
	const struct dmmd_inst *owner = port ? owner_of(d, port, port) : NULL;

	if (owner)
		dmm_findings_add(
			found, DMM_SEVERITY_ERROR, DMMD_CODE_PORTS_USED, step->place,
			"choose others, or apply once without that stack: it keeps them to "
			"its last flow",
			"stack '%s': port %u of localPorts %u-%u is stack '%s''s", step->spec.name,
			port, step->spec.ports.first, step->spec.ports.last, owner->spec.name);
	else if (port)
		dmm_findings_add(found, DMM_SEVERITY_ERROR, DMMD_CODE_PORTS_USED, step->place,
				 "`ss -tan` and net.ipv4.ip_local_reserved_ports say by whom",
				 "stack '%s': port %u of localPorts %u-%u is in use or reserved",
				 step->spec.name, port, step->spec.ports.first,
				 step->spec.ports.last);
}

static int choose_ports(const struct dmmd *d, struct dmmd_plan *plan,
			const struct dmmd_ports *taken, struct dmm_findings *found)
{
	const struct dmmd_inst *owner = owner_of(d, DMMD_PORTS_FIRST, DMMD_PORTS_LAST);
	struct dmm_port_range ranges[DMM_MAX_INSTANCES];
	struct dmmd_step *wanting[DMM_MAX_INSTANCES];
	unsigned int n = 0;

	for (unsigned int i = 0; i < plan->n && n < DMM_MAX_INSTANCES; i++)
		if (!has_ports(&plan->steps[i]))
			wanting[n++] = &plan->steps[i];
	if (dmmd_ports_choose(taken, n, ranges) < 0)
		return dmm_findings_add(found, DMM_SEVERITY_ERROR, DMMD_CODE_NO_PORTS,
					wanting[0]->place,
					"give the stacks localPorts, e.g. localPorts: 10000-15999",
					"stack '%s': no free port range within %u-%u%s%s%s",
					wanting[0]->spec.name, DMMD_PORTS_FIRST, DMMD_PORTS_LAST,
					owner ? ": stack '" : "", owner ? owner->spec.name : "",
					owner ? "' has them" : "");
	for (unsigned int i = 0; i < n; i++)
		wanting[i]->spec.ports = ranges[i];
	return 0;
}

/* Every stack goes on with the ports it has: nobody else's are of interest. */
static bool ports_are_settled(const struct dmmd_plan *plan)
{
	for (unsigned int i = 0; i < plan->n; i++)
		if (!has_ports(&plan->steps[i]) || new_ports(&plan->steps[i]))
			return false;
	return true;
}

static int assign_ports(struct dmmd *d, struct dmmd_plan *plan, struct dmm_findings *found)
{
	struct dmmd_ports taken;
	int r;

	if (ports_are_settled(plan)) /* reading all sockets of a busy host takes long */
		return 0;
	r = others_ports(d, &taken);
	if (r < 0)
		return r;
	/* those that go on or end in their own time keep theirs */
	for (unsigned int i = 0; i < plan->n; i++) {
		const struct dmmd_step *step = &plan->steps[i];

		if (has_ports(step) && step->inst && !new_ports(step))
			dmmd_ports_add(&taken, step->spec.ports.first, step->spec.ports.last);
	}
	for (unsigned int i = 0; i < plan->n; i++) {
		struct dmmd_step *step = &plan->steps[i];

		if (!has_ports(step) || !new_ports(step))
			continue;
		check_explicit(d, step, &taken, found);
		dmmd_ports_add(&taken, step->spec.ports.first, step->spec.ports.last);
	}
	return choose_ports(d, plan, &taken, found);
}

int dmmd_plan_make(struct dmmd *d, const struct dmm_policy *policy, bool restore,
		   struct dmmd_plan *ret, struct dmm_findings *found)
{
	int r;

	ret->n = 0;
	for (size_t i = 0; i < policy->n_stacks; i++)
		for (uint32_t k = 0; k < policy->stacks[i].instances && ret->n < DMM_MAX_INSTANCES;
		     k++)
			add_instance(d, policy, &policy->stacks[i], k, restore, ret);
	add_removed(d, ret);
	r = assign_slots(d, ret, found);
	return r < 0 ? r : assign_ports(d, ret, found);
}

const struct dmmd_step *dmmd_plan_find(const struct dmmd_plan *plan, const char *stack,
				       uint32_t index)
{
	for (unsigned int i = 0; i < plan->n; i++)
		if (plan->steps[i].spec.index == index &&
		    dmm_streq(plan->steps[i].spec.name, stack))
			return &plan->steps[i];
	return NULL;
}

void dmmd_step_describe(const struct dmmd_step *step, bool done, char *ret, size_t size)
{
	const struct dmmd_spec *spec = &step->spec;
	const char *was = done ? "" : "to be ";
	char name[DMM_INST_NAME_LEN];

	/* one with a single instance is that */
	snprintf(name, sizeof(name), spec->index ? "%s#%u" : "%s", spec->name, spec->index);
	ret[0] = '\0';
	switch (step->kind) {
	case DMMD_STEP_KEEP:
		break;
	case DMMD_STEP_KICK:
		snprintf(ret, size, "stack %s: %s", name,
			 done ? "is being started again" : "to be started again");
		break;
	case DMMD_STEP_AGAIN:
		snprintf(ret, size, "stack %s: drains; %sstarted again after its last flow", name,
			 was);
		break;
	case DMMD_STEP_START:
		snprintf(ret, size, "stack %s: %sstarted on %s, local ports %u-%u", name, was,
			 spec->interface, spec->ports.first, spec->ports.last);
		break;
	case DMMD_STEP_CHANGE:
		snprintf(ret, size, "stack %s: changed, %srestarted; its flows %s reset", name, was,
			 done ? "are" : "will be");
		break;
	case DMMD_STEP_DRAIN:
		snprintf(ret, size, "stack %s: %sremoved, %s after its last flow", name, was,
			 done ? "ends" : "will end");
		break;
	case DMMD_STEP_REPLACE:
		snprintf(ret, size, "stack %s: %sremoved, another takes %s; its flows %s reset",
			 spec->name, was, spec->interface, done ? "are" : "will be");
		break;
	}
}
