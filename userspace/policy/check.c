/* SPDX-License-Identifier: Apache-2.0 */
/* What no single field tells: names that clash or lead nowhere, ports and interfaces claimed twice,
 * rules that cannot work. */
#include "policy/cidrset.h"
#include "policy/locals.h"
#include "policy/policy_internal.h"

#include <errno.h>

#include "base/util.h"
#include "policy/callers.h"

#define KERNEL	      "kernel"
#define MAX_EXPLAINED 100 /* dead rules whose cover is looked for: each looks at all before it */

struct named {
	const char *name;
	struct dmm_place place;
};

static int by_name(const void *a, const void *b)
{
	const struct named *x = a, *y = b;
	int r = strcmp(x->name, y->name);

	if (r)
		return r;
	if (x->place.line != y->place.line)
		return x->place.line < y->place.line ? -1 : 1;
	return x->place.column < y->place.column ? -1 : x->place.column > y->place.column;
}

/* @n things of @size bytes that start with their name, a char[], and have a place further on. */
static int check_names(const char *what, const void *things, size_t n, size_t size,
		       size_t place_offset, struct dmm_findings *found)
{
	dmm_autofree struct named *names = calloc(n + 1, sizeof(*names));
	size_t i, first = 0;

	if (!names)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		names[i].name = (const char *)things + i * size;
		memcpy(&names[i].place, names[i].name + place_offset, sizeof(names[i].place));
	}
	if (n)
		qsort(names, n, sizeof(*names), by_name);
	for (i = 1; i < n; i++) {
		if (!dmm_streq(names[i].name, names[first].name))
			first = i;
		else if (names[i].name[0])
			dmm_find(found, DMM_CODE_DUPLICATE_NAME, names[i].place, NULL,
				 "%s '%s' is already defined at %u:%u", what, names[i].name,
				 names[first].place.line, names[first].place.column);
	}
	return 0;
}

static const struct dmm_policy_interface *find_interface(const struct dmm_policy *policy,
							 const char *name)
{
	size_t i;

	for (i = 0; i < policy->n_interfaces; i++) {
		if (dmm_streq(policy->interfaces[i].name, name))
			return &policy->interfaces[i];
	}
	return NULL;
}

static void check_stack_interface(const struct dmm_policy *policy,
				  const struct dmm_policy_stack *stack, struct dmm_findings *found)
{
	struct dmm_suggestion like = { .wanted = stack->interface };
	const struct dmm_policy_stack *other;
	char nearest[80];
	size_t i;

	if (!stack->interface[0])
		return;
	if (!find_interface(policy, stack->interface)) {
		for (i = 0; i < policy->n_interfaces; i++)
			dmm_suggest(&like, policy->interfaces[i].name);
		dmm_find(found, DMM_CODE_UNKNOWN_INTERFACE, stack->interface_place,
			 "list it in spec.interfaces", "unknown interface '%s'%s", stack->interface,
			 dmm_suggest_text(&like, nearest, sizeof(nearest)));
	}
	for (other = policy->stacks; other < stack; other++) {
		if (!dmm_streq(other->interface, stack->interface))
			continue;
		dmm_find(
			found, DMM_CODE_INTERFACE_TAKEN, stack->interface_place,
			"an instance binds all queues of its interface, so give each stack its own",
			"interface '%s' already belongs to stack '%s' (%u:%u)", stack->interface,
			other->name, other->interface_place.line, other->interface_place.column);
		return;
	}
}

static void check_stack_ports(const struct dmm_policy *policy, const struct dmm_policy_stack *stack,
			      struct dmm_findings *found)
{
	const struct dmm_port_range *ports = &stack->local_ports, *theirs;
	const struct dmm_policy_stack *other;

	if (!ports->first)
		return;
	if (ports->first <= DMM_EPHEMERAL_MAX && ports->last >= DMM_EPHEMERAL_MIN)
		dmm_find(
			found, DMM_CODE_PORTS_EPHEMERAL, stack->ports_place,
			"the usual range for stacks is 20000-31999",
			"localPorts %u-%u reach into %u-%u, where the kernel picks and masquerades "
			"its own",
			ports->first, ports->last, DMM_EPHEMERAL_MIN, DMM_EPHEMERAL_MAX);
	if ((ports->last - ports->first + 1u) / stack->instances > DMM_MAX_PORTS)
		dmm_find(found, DMM_CODE_PORTS_TOO_MANY, stack->ports_place, NULL,
			 "localPorts %u-%u are %u ports, an instance can own %u", ports->first,
			 ports->last, ports->last - ports->first + 1, DMM_MAX_PORTS);
	if (ports->last - ports->first + 1u < stack->instances)
		dmm_find(found, DMM_CODE_NUMBER, stack->instances_place, NULL,
			 "%u instances share the %u ports of localPorts %u-%u", stack->instances,
			 ports->last - ports->first + 1, ports->first, ports->last);
	for (other = policy->stacks; other < stack; other++) {
		theirs = &other->local_ports;
		if (!theirs->first || theirs->last < ports->first || theirs->first > ports->last)
			continue;
		dmm_find(found, DMM_CODE_PORTS_OVERLAP, stack->ports_place, NULL,
			 "localPorts %u-%u overlap %u-%u of stack '%s' (%u:%u)", ports->first,
			 ports->last, theirs->first, theirs->last, other->name,
			 other->ports_place.line, other->ports_place.column);
	}
}

static void check_stacks(struct dmm_policy *policy, struct dmm_findings *found)
{
	size_t i;

	for (i = 0; i < policy->n_stacks; i++) {
		struct dmm_policy_stack *stack = &policy->stacks[i];

		if (dmm_streq(stack->name, KERNEL))
			dmm_find(found, DMM_CODE_RESERVED_NAME, stack->place, NULL,
				 "'" KERNEL "' is the built-in stack and cannot be redefined");
		if (stack->instances == 0)
			stack->instances = 1;
		if (!stack->backend[0])
			snprintf(stack->backend, sizeof(stack->backend), "xsk");
		check_stack_interface(policy, stack, found);
		check_stack_ports(policy, stack, found);
	}
}

/* Settles the action of @rule; marks its stack in @used. */
static void check_action(const struct dmm_policy *policy, struct dmm_policy_rule *rule, bool *used,
			 struct dmm_findings *found)
{
	struct dmm_suggestion like = { .wanted = rule->stack };
	char nearest[80];
	size_t i;

	if (!rule->stack[0] || rule->action == DMM_ACTION_REJECT)
		return;
	if (dmm_streq(rule->stack, KERNEL)) {
		rule->action = DMM_ACTION_KERNEL;
		return;
	}
	rule->action = DMM_ACTION_STACK;
	for (i = 0; i < policy->n_stacks; i++) {
		if (dmm_streq(policy->stacks[i].name, rule->stack)) {
			used[i] = true;
			return;
		}
		dmm_suggest(&like, policy->stacks[i].name);
	}
	dmm_suggest(&like, KERNEL);
	dmm_find(found, DMM_CODE_UNKNOWN_STACK, rule->stack_place, NULL, "unknown stack '%s'%s",
		 rule->stack, dmm_suggest_text(&like, nearest, sizeof(nearest)));
}

static bool is_of(const struct dmm_cidr *cidr, enum dmm_family family)
{
	return dmm_cidr_is_v4(cidr) == (family == DMM_FAMILY_V4);
}

/* Whether some exception takes nothing away. Lists may be long: neither here nor below is each item of
 * one compared with each of another. */
static bool has_idle_exception(const struct dmm_policy_rule *rule)
{
	bool idle = false;

	for (size_t f = 0; rule->n_remote && f < DMM_NUM_FAMILIES && !idle; f++) {
		struct dmm_cidr_set remote;

		/* without memory it is not said, which changes nothing */
		if (dmm_cidr_set_make(rule->remote, rule->n_remote, f, &remote) < 0)
			return false;
		for (size_t e = 0; e < rule->n_except && !idle; e++)
			idle = is_of(&rule->except[e], f) &&
			       !dmm_cidr_set_touches(&remote, &rule->except[e]);
		dmm_cidr_set_free(&remote);
	}
	return idle;
}

/* What a rule says of an end that its direction does not tell. */
static void check_direction(struct dmm_policy_rule *rule, struct dmm_findings *found)
{
	bool both = rule->dir[DMM_DIR_CONNECT] && rule->dir[DMM_DIR_LISTEN];
	const struct dmm_place *local = rule->local_place.line ? &rule->local_place
							       : &rule->local_ports_place;

	if (rule->dir[DMM_DIR_CONNECT] && local->line)
		dmm_find(found, DMM_CODE_DIRECTION, *local,
			 both ? "write one rule for connect and one for listen"
			      : "write direction: listen, or match on remote",
			 "local is where a server listens: rule '%s' is %s", rule->name,
			 both ? "for connect, too" : "for direction connect");
	if (rule->dir[DMM_DIR_LISTEN] && rule->ports_place.line)
		dmm_find(found, DMM_CODE_DIRECTION, rule->ports_place,
			 both ? "write one rule for connect and one for listen"
			      : "match on local: {ports: ...}, where the server listens",
			 "remote ports of clients are any: rule '%s' is %s", rule->name,
			 both ? "for listen, too" : "for direction listen");
	if (!rule->local_ports_place.line || rule->dir[DMM_DIR_CONNECT])
		return;
	free(rule->ports);
	rule->ports = DMM_TAKE_PTR(rule->local_ports);
	rule->n_ports = rule->n_local_ports;
	rule->n_local_ports = 0;
}

static void check_rule(const struct dmm_policy_rule *rule, struct dmm_findings *found)
{
	if (rule->n_comms && !rule->cgroup && !rule->n_uids)
		dmm_find(found, DMM_CODE_COMM_ALONE, rule->comm_place, "add cgroup or uid",
			 "rule '%s' goes by the name of the process alone: any can take it",
			 rule->name);
	if (dmm_streq(rule->name, "default"))
		dmm_find(found, DMM_CODE_RESERVED_NAME, rule->place, NULL,
			 "'default' is the name of spec.default");
	if (rule->action == DMM_ACTION_STACK && !rule->proto[DMM_PROTO_TCP])
		dmm_find(found, DMM_CODE_UDP_STACK, rule->proto_place,
			 "stacks carry only TCP so far: use stack: kernel",
			 "rule '%s' sends only UDP to stack '%s'", rule->name, rule->stack);
	if (rule->action == DMM_ACTION_REJECT && rule->proto[DMM_PROTO_UDP])
		dmm_find(found, DMM_CODE_UDP_REJECT,
			 rule->proto_place.line ? rule->proto_place : rule->place,
			 "write proto: tcp",
			 "rule '%s' rejects TCP only: UDP is left alone in this version",
			 rule->name);
	if (has_idle_exception(rule))
		dmm_find(found, DMM_CODE_NO_EFFECT, rule->except_place, NULL,
			 "an exception of rule '%s' lies outside its cidr list", rule->name);
}

static void check_unavailable(const struct dmm_policy_rule *rule, struct dmm_findings *found)
{
	if (rule->unavailable_place.line && rule->action != DMM_ACTION_STACK)
		dmm_find(found, DMM_CODE_NO_EFFECT, rule->unavailable_place, NULL,
			 "onUnavailable has no effect here: %s is always available",
			 rule->action == DMM_ACTION_REJECT ? "reject" : KERNEL);
}

static void check_unused(const struct dmm_policy *policy, const bool *used,
			 struct dmm_findings *found)
{
	size_t i, s;

	for (i = 0; i < policy->n_stacks; i++) {
		if (!used[i] && policy->stacks[i].name[0])
			dmm_find(found, DMM_CODE_UNUSED_STACK, policy->stacks[i].place, NULL,
				 "stack '%s' is used by no rule", policy->stacks[i].name);
	}
	for (i = 0; i < policy->n_interfaces; i++) {
		for (s = 0; s < policy->n_stacks; s++) {
			if (dmm_streq(policy->stacks[s].interface, policy->interfaces[i].name))
				break;
		}
		if (s == policy->n_stacks && policy->interfaces[i].name[0])
			dmm_find(found, DMM_CODE_NO_EFFECT, policy->interfaces[i].place, NULL,
				 "interface '%s' is used by no stack", policy->interfaces[i].name);
	}
}

/* The sets that rule_covers() asks, of one family. */
struct sides {
	struct dmm_cidr_set a_remote, b_remote, b_except;
};

static int make_sides(const struct dmm_policy_rule *a, const struct dmm_policy_rule *b,
		      enum dmm_family family, struct sides *ret)
{
	int r = dmm_cidr_set_make(a->remote, a->n_remote, family, &ret->a_remote);

	if (r == 0)
		r = dmm_cidr_set_make(b->remote, b->n_remote, family, &ret->b_remote);
	if (r == 0)
		r = dmm_cidr_set_make(b->except, b->n_except, family, &ret->b_except);
	return r;
}

static bool family_covers(const struct dmm_policy_rule *a, const struct dmm_policy_rule *b,
			  enum dmm_family family)
{
	struct sides sides = { 0 };
	bool covers = make_sides(a, b, family, &sides) == 0;
	size_t i;

	for (i = 0; i < a->n_except && covers; i++) {
		const struct dmm_cidr *hole = &a->except[i];

		if (is_of(hole, family) && !dmm_cidr_set_covers(&sides.b_except, hole))
			covers = b->n_remote && !dmm_cidr_set_touches(&sides.b_remote, hole);
	}
	for (i = 0; a->n_remote && i < b->n_remote && covers; i++)
		covers = !is_of(&b->remote[i], family) ||
			 dmm_cidr_set_covers(&sides.a_remote, &b->remote[i]);
	dmm_cidr_set_free(&sides.a_remote);
	dmm_cidr_set_free(&sides.b_remote);
	dmm_cidr_set_free(&sides.b_except);
	return covers;
}

static bool addresses_cover(const struct dmm_policy_rule *a, const struct dmm_policy_rule *b)
{
	if (a->n_remote && !b->n_remote)
		return false;
	return family_covers(a, b, DMM_FAMILY_V4) && family_covers(a, b, DMM_FAMILY_V6);
}

static bool ports_cover(const struct dmm_policy_rule *a, const struct dmm_policy_rule *b)
{
	size_t i, k;

	if (!a->n_ports)
		return true;
	for (i = 0; i < b->n_ports; i++) {
		for (k = 0; k < a->n_ports; k++) {
			if (a->ports[k].first <= b->ports[i].first &&
			    a->ports[k].last >= b->ports[i].last)
				break;
		}
		if (k == a->n_ports)
			return false;
	}
	return b->n_ports > 0;
}

static bool locals_cover(const struct dmm_policy_rule *a, const struct dmm_policy_rule *b)
{
	for (size_t i = 0; a->n_local && i < b->n_local; i++)
		if (!dmm_rule_is_local(a, &b->local[i]))
			return false;
	return !a->n_local || b->n_local;
}

static bool uids_cover(const struct dmm_policy_rule *a, const struct dmm_policy_rule *b)
{
	size_t i, k;

	for (i = 0; a->n_uids && i < b->n_uids; i++) {
		for (k = 0; k < a->n_uids; k++)
			if (a->uids[k].first <= b->uids[i].first &&
			    a->uids[k].last >= b->uids[i].last)
				break;
		if (k == a->n_uids)
			return false;
	}
	return !a->n_uids || b->n_uids;
}

static bool comms_cover(const struct dmm_policy_rule *a, const struct dmm_policy_rule *b)
{
	for (size_t i = 0; a->n_comms && i < b->n_comms; i++)
		if (!dmm_rule_has_comm(a, b->comms[i]))
			return false;
	return !a->n_comms || b->n_comms;
}

/* @a by itself takes all that @b matches. May miss, never errs. */
static bool rule_covers(const struct dmm_policy_rule *a, const struct dmm_policy_rule *b)
{
	size_t i;

	for (i = 0; i < DMM_NUM_PROTOS; i++) {
		if (b->proto[i] && !a->proto[i])
			return false;
	}
	for (i = 0; i < DMM_NUM_DIRS; i++) {
		if (b->dir[i] && !a->dir[i])
			return false;
	}
	return dmm_cgroup_covers(a->cgroup, b->cgroup) && ports_cover(a, b) && locals_cover(a, b) &&
	       uids_cover(a, b) && comms_cover(a, b) && addresses_cover(a, b);
}

static const struct dmm_policy_rule *find_cover(const struct dmm_policy *policy, size_t rule)
{
	size_t i;

	for (i = 0; i < rule; i++) {
		if (rule_covers(&policy->rules[i], &policy->rules[rule]))
			return &policy->rules[i];
	}
	return NULL;
}

static void say_dead(const struct dmm_policy *policy, size_t i, bool explain,
		     struct dmm_findings *found)
{
	const struct dmm_policy_rule *rule = &policy->rules[i], *cover;

	if (!dmm_rule_matches_any(rule)) {
		dmm_find(found, DMM_CODE_MATCHES_NOTHING, rule->place, NULL,
			 "rule '%s' can never match: it excepts all that cidr allows", rule->name);
		return;
	}
	cover = explain ? find_cover(policy, i) : NULL;
	if (cover)
		dmm_find(found, DMM_CODE_NEVER_MATCHES, rule->place,
			 "move it up, or narrow the other one",
			 "rule '%s' can never match: '%s' (%u:%u) covers it", rule->name,
			 cover->name, cover->place.line, cover->place.column);
	else
		dmm_find(found, DMM_CODE_NEVER_MATCHES, rule->place, "move it up",
			 "rule '%s' can never match: earlier rules together cover it", rule->name);
}

static int check_dead(const struct dmm_policy *policy, struct dmm_findings *found)
{
	dmm_autofree bool *live = calloc(policy->n_rules + 1, sizeof(*live));
	size_t i, dead = 0;
	int r;

	if (!live)
		return -ENOMEM;
	r = dmm_policy_live_rules(policy, live);
	if (r < 0) /* too large to tell is no fault of the policy */
		return r == -E2BIG ? 0 : r;
	for (i = 0; i < policy->n_rules; i++) {
		if (!live[i])
			say_dead(policy, i, ++dead <= MAX_EXPLAINED, found);
	}
	return 0;
}

int dmm_policy_check(struct dmm_policy *policy, struct dmm_findings *found)
{
	dmm_autofree bool *used = calloc(policy->n_stacks + 1, sizeof(*used));
	struct dmm_gen_meta callers = { 0 };
	size_t i;
	int r;

	if (!used)
		return -ENOMEM;
	r = check_names("interface", policy->interfaces, policy->n_interfaces,
			sizeof(*policy->interfaces), offsetof(struct dmm_policy_interface, place),
			found);
	if (r == 0)
		r = check_names("stack", policy->stacks, policy->n_stacks, sizeof(*policy->stacks),
				offsetof(struct dmm_policy_stack, place), found);
	if (r == 0)
		r = check_names("rule", policy->rules, policy->n_rules, sizeof(*policy->rules),
				offsetof(struct dmm_policy_rule, place), found);
	if (r < 0)
		return r;
	check_stacks(policy, found);
	for (i = 0; i < policy->n_rules; i++) {
		check_action(policy, &policy->rules[i], used, found);
		check_unavailable(&policy->rules[i], found);
		check_direction(&policy->rules[i], found);
		check_rule(&policy->rules[i], found);
	}
	check_action(policy, &policy->fallback, used, found);
	check_unavailable(&policy->fallback, found);
	dmm_callers_make(policy, &callers, found);
	if (found->errors) /* what is unused then may be what a mistake hides */
		return 0;
	check_unused(policy, used, found);
	return check_dead(policy, found);
}
