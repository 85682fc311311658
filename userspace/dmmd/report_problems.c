/* SPDX-License-Identifier: Apache-2.0 */
/* What is wrong now, in words: status is "ok" where this list is empty. */
#include <stdarg.h>

#include "base/clock.h"
#include "base/util.h"
#include "dmmd/dmmd.h"
#include "dmmd/inst.h"
#include "dmmd/report.h"

__attribute__((format(printf, 2, 3))) static void add(struct json_object *list, const char *format,
						      ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	text[strcspn(text, "\n")] = '\0'; /* a hint after it is for the log */
	json_object_array_add(list, json_object_new_string(text));
}

/* --- stacks --- */

/* How long it has said nothing for, where that is too long: 0. */
static uint64_t silent_ms(struct dmmd_inst *inst)
{
	uint64_t now = dmm_now_ns(), age;
	struct dmm_inst_shared shared;

	dmmd_inst_shared(inst, &shared);
	age = now > shared.beat_ns ? (now - shared.beat_ns) / DMM_NS_PER_MS : 0;
	return age > inst->d->options.stale_after_ms ? age : 0;
}

static bool takes_flows(struct dmmd_inst *inst)
{
	return inst->life == DMMD_READY && !silent_ms(inst);
}

static bool has_another(struct dmmd *d, const struct dmmd_inst *inst)
{
	for (unsigned int i = 0; i < DMM_MAX_INSTANCES; i++)
		if (d->inst[i] && dmm_streq(d->inst[i]->spec.name, inst->spec.name) &&
		    takes_flows(d->inst[i]))
			return true;
	return false;
}

static void add_instance(struct json_object *list, struct dmmd_inst *inst)
{
	uint64_t silent = inst->life == DMMD_READY ? silent_ms(inst) : 0;

	if (silent)
		add(list,
		    "stack %s: no heartbeat for %llu.%llu s: onUnavailable decides about its new flows",
		    inst->label, (unsigned long long)(silent / 1000),
		    (unsigned long long)(silent / 100 % 10));
	else if (inst->life == DMMD_DEAD)
		add(list, "stack %s: %s", inst->label,
		    inst->last_death[0] ? inst->last_death : "not running");
	else if (inst->life == DMMD_FAILED)
		add(list, "stack %s: given up: %.*s; `dmmctl stacks restart %s` tries again",
		    inst->label, (int)strcspn(inst->last_death, "\n"), inst->last_death,
		    inst->spec.name);
	else if (inst->life != DMMD_READY && !inst->removed && !has_another(inst->d, inst))
		add(list, "stack %s: %s: onUnavailable decides about its new flows", inst->label,
		    dmmd_life_word(inst->life));
}

static void add_stacks(struct json_object *list, struct dmmd *d)
{
	for (unsigned int i = 0; i < DMM_MAX_INSTANCES; i++)
		if (d->inst[i])
			add_instance(list, d->inst[i]);
}

/* --- interfaces --- */

static bool is_told(const struct dmmd *d, unsigned int n, const char *interface)
{
	for (unsigned int i = 0; i < n; i++)
		if (d->inst[i] && dmm_streq(d->inst[i]->spec.interface, interface))
			return true;
	return false;
}

/* One that is missing is its instances' last death. */
static void add_interfaces(struct json_object *list, struct dmmd *d)
{
	struct dmmd_iface iface;
	bool any = false;

	for (unsigned int i = 0; i < DMM_MAX_INSTANCES; i++) {
		const struct dmmd_inst *inst = d->inst[i];

		if (!inst)
			continue;
		any = true;
		if (!is_told(d, i, inst->spec.interface) &&
		    dmmd_iface_query(inst->spec.interface, &iface) == 0 && !iface.up)
			add(list, "interface %s of stack %s: down", inst->spec.interface,
			    inst->spec.name);
	}
	if (any && dmmd_iface_query("lo", &iface) == 0 && !iface.up)
		add(list, "interface lo: down: applications and instances meet there, so steered "
			  "connections fail");
}

struct json_object *dmmd_report_problems(struct dmmd *d)
{
	struct json_object *list = json_object_new_array();
	char missed[256];

	add_stacks(list, d);
	add_interfaces(list, d);
	for (size_t i = 0; i < d->cgroups.n; i++)
		if (d->cgroups.items[i].problem[0])
			add(list, "cgroup %s: %s", d->cgroups.items[i].path,
			    d->cgroups.items[i].problem);
	if (d->policy_problem[0])
		add(list, "policy %s", d->policy_problem);
	if (d->mirror_problem[0])
		add(list, "addresses and routes: %s", d->mirror_problem);
	if (d->repair.problem[0])
		add(list, "attachments that cannot be kept: %s", d->repair.problem);
	dmmd_missed_syns(d, missed, sizeof(missed));
	if (missed[0])
		add(list, "filter on lo: %s", missed);
	return list;
}
