/* SPDX-License-Identifier: Apache-2.0 */
/* Reports: status, stacks and counters. Flows are in report_flows.c, what is wrong in
 * report_problems.c. */
#include "dmmd/report.h"

#include <dmm/stack.h>

#include "base/clock.h"
#include "base/util.h"
#include "ctl/json.h"
#include "ctl/report.h"
#include "dmmd/dmmd.h"
#include "dmmd/inst.h"

static uint64_t age_ms(uint64_t since_ns)
{
	uint64_t now = dmm_now_ns();

	return now > since_ns ? (now - since_ns) / DMM_NS_PER_MS : 0;
}

struct json_object *dmmd_report_version(void)
{
	struct json_object *doc = dmm_json_document("VersionInfo");

	dmm_json_set_text(doc, "version", DMM_VERSION);
	dmm_json_set_u64(doc, "pid", getpid());
	dmm_json_set_u64(doc, "abi_layout", DMM_ABI_LAYOUT);
	dmm_json_set_u64(doc, "stack_abi", DMM_STACK_ABI);
	return doc;
}

static void add_interface(struct json_object *obj, const struct dmmd_inst *inst)
{
	const struct dmmd_spec *spec = &inst->spec;

	dmm_json_set_text(obj, "interface", spec->interface);
	dmm_json_set_u64(obj, "queues", inst->iface.queues);
	dmm_json_set_textf(obj, "asked", "%s,%s", dmmd_mode_word(spec->mode),
			   spec->zerocopy == DMM_ZC_AUTO      ? "auto"
			   : spec->zerocopy == DMM_ZC_REQUIRE ? "zerocopy"
							      : "copy");
	if (inst->pid)
		dmm_json_set_textf(obj, "got", "%s,%s", inst->got.native ? "native" : "generic",
				   inst->zerocopy ? "zerocopy" : "copy");
	else
		dmm_json_set_text(obj, "got", NULL);
}

static struct json_object *add_stack(struct json_object *obj, struct dmmd_inst *inst)
{
	const struct dmmd_spec *spec = &inst->spec;
	struct dmm_inst_shared shared;
	uint64_t now = dmm_now_ns();

	dmmd_inst_shared(inst, &shared);
	dmm_json_set_text(obj, "name", spec->name);
	dmm_json_set_text(obj, "instance", inst->label);
	dmm_json_set_u64(obj, "slot", inst->slot);
	dmm_json_set_text(obj, "state", dmmd_life_word(inst->life));
	dmm_json_set_text(obj, "plugin", spec->plugin);
	dmm_json_set_text(obj, "backend", spec->backend);
	dmm_json_set_text(obj, "poll", dmmd_poll_word(spec->poll));
	dmm_json_set_u64(obj, "memory_mib", spec->memory_mib);
	add_interface(obj, inst);
	dmm_json_set_u64(obj, "port_first", spec->ports.first);
	dmm_json_set_u64(obj, "port_last", spec->ports.last);
	dmm_json_set_u64(obj, "pid", inst->pid);
	dmm_json_set_u64(obj, "incarnation", inst->incarnation);
	dmm_json_set_u64(obj, "restarts", inst->restarts);
	dmm_json_set_u64(obj, "ready_for_ms",
			 inst->life == DMMD_READY ? age_ms(inst->ready_at) : 0);
	dmm_json_set_text(obj, "last_death", inst->last_death[0] ? inst->last_death : NULL);
	dmm_json_set_u64(obj, "retry_in_ms",
			 inst->life == DMMD_DEAD && inst->retry_at > now
				 ? (inst->retry_at - now) / DMM_NS_PER_MS
				 : 0);
	dmm_json_set_u64(obj, "beat_age_ms", inst->pid ? age_ms(shared.beat_ns) : 0);
	dmm_report_counters(obj, &shared);
	dmm_report_doors(obj, inst->d->view, inst->slot);
	return obj;
}

struct json_object *dmmd_report_stack(struct dmmd_inst *inst)
{
	return add_stack(dmm_json_document("Stack"), inst);
}

static struct json_object *stack_items(struct dmmd *d)
{
	struct json_object *items = json_object_new_array();

	for (unsigned int i = 0; i < DMM_MAX_INSTANCES; i++)
		if (d->inst[i])
			json_object_array_add(items,
					      add_stack(json_object_new_object(), d->inst[i]));
	return items;
}

struct json_object *dmmd_report_stacks(struct dmmd *d)
{
	struct json_object *doc = dmm_json_document("StackList");

	json_object_object_add(doc, "items", stack_items(d));
	return doc;
}

static struct json_object *interface_items(struct dmmd *d)
{
	struct json_object *items = json_object_new_array();

	for (unsigned int i = 0; i < DMM_MAX_INSTANCES; i++) {
		struct dmmd_inst *inst = d->inst[i];
		struct json_object *item;

		if (!inst || !inst->attached)
			continue;
		item = json_object_new_object();
		dmm_json_set_text(item, "name", inst->spec.interface);
		dmm_json_set_u64(item, "ifindex", inst->iface.ifindex);
		dmm_json_set_text(item, "asked", dmmd_mode_word(inst->spec.mode));
		dmm_json_set_text(item, "got", inst->got.native ? "native" : "generic");
		json_object_array_add(items, item);
	}
	return items;
}

static const char *by_word(uint32_t by)
{
	if (by & (DMMD_BY_POLICY | DMMD_BY_NEXT))
		return "policy";
	if (by & (DMMD_BY_HAND | DMMD_BY_RUN))
		return by & DMMD_BY_HAND ? "hand" : "run";
	return "flows";
}

static struct json_object *cgroup_items(struct dmmd *d)
{
	struct json_object *items = json_object_new_array();

	for (size_t i = 0; i < d->cgroups.n; i++) {
		const struct dmmd_cgroup *cgroup = &d->cgroups.items[i];
		struct json_object *item = json_object_new_object();

		dmm_json_set_text(item, "path", cgroup->path);
		dmm_json_set_text(item, "by", by_word(cgroup->by));
		dmm_json_set_bool(item, "attached", dmmd_cgroup_is_attached(cgroup));
		dmm_json_set_u64(item, "cgroup_id", cgroup->id);
		dmm_json_set_u64(item, "class_id", cgroup->class_id);
		if (cgroup->problem[0])
			dmm_json_set_text(item, "problem", cgroup->problem);
		json_object_array_add(items, item);
	}
	return items;
}

static struct json_object *policy_item(struct dmmd *d)
{
	struct json_object *item;

	if (!d->live.name[0])
		return NULL;
	item = json_object_new_object();
	dmm_json_set_text(item, "name", d->live.name);
	dmm_json_set_u64(item, "generation", d->state.generation);
	dmm_json_set_time(item, "applied_at", d->state.applied_at);
	dmm_json_set_text(item, "file", d->state.policy_file);
	dmm_json_set_u64(item, "rules", d->live.rules);
	dmm_json_set_u64(item, "stacks", d->live.stacks);
	return item;
}

struct flow_counts {
	uint64_t kernel, userspace, closed;
};

static int count_flow(void *ctx, const struct dmm_flow *flow)
{
	struct flow_counts *counts = ctx;

	if (flow->state >= DMM_FLOW_CLOSED)
		counts->closed++;
	else if (flow->verdict == DMM_VERDICT_USERSPACE)
		counts->userspace++;
	else
		counts->kernel++;
	return 0;
}

static struct json_object *flow_counts(struct dmmd *d)
{
	struct json_object *item = json_object_new_object();
	struct flow_counts counts = { 0 };

	dmm_view_flows(d->view, count_flow, &counts);
	dmm_json_set_u64(item, "kernel", counts.kernel);
	dmm_json_set_u64(item, "userspace", counts.userspace);
	dmm_json_set_u64(item, "closed", counts.closed);
	return item;
}

static struct json_object *beside_items(struct dmmd *d)
{
	struct json_object *items = json_object_new_array();

	for (unsigned int i = 0; i < d->repair.n_beside; i++) {
		const struct dmm_beside *beside = &d->repair.beside[i];
		struct json_object *item = json_object_new_object();

		dmm_json_set_text(item, "where", beside->where);
		dmm_json_set_text(item, "kind", beside->kind);
		dmm_json_set_text(item, "name", beside->name);
		dmm_json_set_u64(item, "prog_id", beside->prog_id);
		dmm_json_set_text(item, "order", beside->first ? "before" : "after");
		if (beside->cgroup_id)
			dmm_json_set_u64(item, "cgroup_id", beside->cgroup_id);
		json_object_array_add(items, item);
	}
	return items;
}

struct json_object *dmmd_report_status(struct dmmd *d)
{
	struct json_object *doc = dmm_json_document("StatusReport");
	struct json_object *wrong;

	dmmd_look_beside(d);
	wrong = dmmd_report_problems(d);

	dmm_json_set_text(doc, "version", DMM_VERSION);
	dmm_json_set_u64(doc, "pid", getpid());
	dmm_json_set_time(doc, "started_at", d->started_at);
	dmm_json_set_u64(doc, "uptime_ms", age_ms(d->started_mono));
	dmm_json_set_text(doc, "netns", d->options.netns);
	dmm_json_set_text(doc, "cgroup_root", d->options.cgroup_root);
	dmm_json_set_text(doc, "run_cgroup", d->options.run_cgroup);
	dmm_json_set_text(doc, "bpffs", d->options.bpffs);
	dmm_json_set_text(doc, "health", json_object_array_length(wrong) ? "degraded" : "ok");
	json_object_object_add(doc, "problems", wrong);
	json_object_object_add(doc, "policy", policy_item(d));
	json_object_object_add(doc, "stacks", stack_items(d));
	json_object_object_add(doc, "interfaces", interface_items(d));
	json_object_object_add(doc, "cgroups", cgroup_items(d));
	json_object_object_add(doc, "beside", beside_items(d));
	json_object_object_add(doc, "flows", flow_counts(d));
	return doc;
}

struct json_object *dmmd_report_stats(struct dmmd *d)
{
	struct json_object *doc = dmm_json_document("StatsReport");

	json_object_object_add(doc, "reasons", dmm_report_reasons(d->view));
	json_object_object_add(doc, "stacks", stack_items(d));
	return doc;
}
