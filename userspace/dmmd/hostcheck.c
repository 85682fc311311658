/* SPDX-License-Identifier: Apache-2.0 */
/* Host checks of a policy, each at its place in the file. */
#include "dmmd/hostcheck.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/bypass.h"
#include "base/util.h"
#include "dmmd/dmmd.h"
#include "dmmd/iface.h"

#define ERROR(found, code, place, hint, ...)                                                       \
	dmm_findings_add(found, DMM_SEVERITY_ERROR, DMMD_CODE_##code, place, hint, __VA_ARGS__)
#define WARN(found, code, place, hint, ...)                                                        \
	dmm_findings_add(found, DMM_SEVERITY_WARNING, DMMD_CODE_##code, place, hint, __VA_ARGS__)

static struct dmm_place interface_place(const struct dmm_policy *policy, const char *name)
{
	for (size_t i = 0; i < policy->n_interfaces; i++)
		if (dmm_streq(policy->interfaces[i].name, name))
			return policy->interfaces[i].place;
	return (struct dmm_place){ 0 };
}

/* Returns its ifindex where a stack can use it, else 0. */
static uint32_t check_interface(const struct dmm_policy *policy,
				const struct dmm_policy_stack *stack, struct dmm_findings *found)
{
	struct dmm_place place = interface_place(policy, stack->interface);
	struct dmmd_iface iface;

	if (dmmd_iface_query(stack->interface, &iface) < 0) {
		ERROR(found, NO_INTERFACE, place, "`ip link` lists those of this network namespace",
		      "no interface %s", stack->interface);
		return 0;
	}
	if (iface.loopback) {
		ERROR(found, LOOPBACK, place, NULL,
		      "%s is a loopback interface: it belongs to the kernel", stack->interface);
		return 0;
	}
	if (!iface.ethernet) {
		ERROR(found, NOT_ETHERNET, place, NULL, "%s carries no Ethernet frames",
		      stack->interface);
		return 0;
	}
	if (!dmmd_iface_frame_size(iface.mtu))
		ERROR(found, MTU, place, "ip link set IF mtu 1500",
		      "%s: MTU %u is too large for AF_XDP frames", stack->interface, iface.mtu);
	if (!iface.up)
		WARN(found, INTERFACE_DOWN, place, NULL, "%s is down", stack->interface);
	else if (!dmmd_iface_has_route(stack->interface))
		WARN(found, NO_ROUTE, place, NULL,
		     "no route leaves by %s: nothing will go to stack '%s'", stack->interface,
		     stack->name);
	return iface.ifindex;
}

static void check_plugin(struct dmmd *d, const struct dmm_policy_stack *stack,
			 struct dmm_findings *found)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s.so", d->options.stacks_dir, stack->plugin);
	if (access(path, R_OK) < 0)
		ERROR(found, NO_PLUGIN, stack->place, "plug-ins are looked for in --stacks-dir",
		      "stack '%s': no plug-in %s (%s)", stack->name, path, strerror(errno));
}

static void check_cgroups(struct dmmd *d, const struct dmm_policy *policy,
			  struct dmm_findings *found)
{
	for (size_t i = 0; i < policy->n_rules; i++) {
		const struct dmm_policy_rule *rule = &policy->rules[i];
		char full[PATH_MAX];
		struct stat st;

		if (!rule->cgroup || dmmd_cgroup_full(d, rule->cgroup, full) < 0 ||
		    stat(full, &st) == 0)
			continue;
		WARN(found, CGROUP_MISSING, rule->cgroup_place, NULL,
		     "cgroup %s does not exist now; will attach when it appears", rule->cgroup);
	}
}

/* Rules without a cgroup govern the attached ones: where there are none they govern nothing. */
static void check_attached(struct dmmd *d, const struct dmm_policy *policy,
			   struct dmm_findings *found)
{
	const uint32_t kept = DMMD_BY_HAND | DMMD_BY_RUN;

	for (size_t i = 0; i < policy->n_rules; i++)
		if (policy->rules[i].cgroup)
			return;
	for (size_t i = 0; i < d->cgroups.n; i++)
		if (d->cgroups.items[i].by & kept)
			return;
	WARN(found, NONE_ATTACHED,
	     policy->n_rules ? policy->rules[0].place : policy->fallback.place,
	     "dmmctl attach --cgroup PATH, or name cgroups in the rules ('/' is everything)",
	     "no rule names a cgroup and none is attached: the policy governs nothing yet");
}

struct bypass {
	struct dmm_findings *found;
	struct dmm_place place;
};

static void add_bypass(void *ctx, const struct dmm_bypass *seen)
{
	struct bypass *bypass = ctx;

	WARN(bypass->found, BYPASSED, bypass->place, seen->hint[0] ? seen->hint : NULL, "%s%s",
	     seen->kind == DMM_BYPASS_CHECKSUM ? "" : "steered traffic goes around ", seen->text);
}

static bool steers(const struct dmm_policy *policy)
{
	for (size_t i = 0; i < policy->n_rules; i++)
		if (policy->rules[i].action == DMM_ACTION_STACK)
			return true;
	return policy->fallback.action == DMM_ACTION_STACK;
}

static void check_lo(struct dmm_findings *found)
{
	struct dmmd_iface lo;

	if (dmmd_iface_query("lo", &lo) == 0 && lo.up)
		return;
	ERROR(found, LO_DOWN, (struct dmm_place){ 0 }, "ip link set lo up",
	      "lo is down: connections could not be relayed to a stack");
}

int dmmd_hostcheck(struct dmmd *d, const struct dmm_policy *policy, struct dmm_findings *found)
{
	struct bypass bypass = { .found = found };
	uint32_t ifindexes[DMM_MAX_INSTANCES];
	unsigned int n = 0, instances = 0;
	int r;

	for (size_t i = 0; i < policy->n_stacks; i++) {
		instances += policy->stacks[i].instances;
		if (instances > DMM_MAX_INSTANCES)
			return ERROR(found, TOO_MANY_STACKS, policy->stacks[i].place, NULL,
				     "%u instances with this stack's; there are slots for %u",
				     instances, DMM_MAX_INSTANCES);
	}
	for (size_t i = 0; i < policy->n_stacks; i++) {
		uint32_t ifindex = check_interface(policy, &policy->stacks[i], found);

		if (ifindex)
			ifindexes[n++] = ifindex;
		check_plugin(d, &policy->stacks[i], found);
	}
	check_cgroups(d, policy, found);
	check_attached(d, policy, found);
	if (policy->n_stacks)
		check_lo(found);
	if (!n || !steers(policy))
		return 0;
	bypass.place = interface_place(policy, policy->stacks[0].interface);
	r = dmm_bypass_scan(ifindexes, n, add_bypass, &bypass);
	return r < 0 ? r : 0;
}
