/* SPDX-License-Identifier: Apache-2.0 */
/* The apply job. */
#include "dmmd/apply.h"

#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/util.h"
#include "ctl/json.h"
#include "ctl/report.h"
#include "dmmd/dmmd.h"
#include "dmmd/hostcheck.h"
#include "dmmd/inst.h"
#include "dmmd/plan.h"
#include "dmmd/sockets.h"

#define EXIT_FAILED	1
#define EXIT_BAD_POLICY 5
#define MAX_WAITING	16

struct dmmd_job {
	struct dmmd *d;
	struct dmmd_job *next; /* that waits behind this one */
	bool restore, strict;
	struct dmm_policy *policy;
	struct dmm_findings found;
	struct dmm_tables tables;
	struct dmmd_classes classes; /* the registry as it will be */
	struct dmmd_plan plan;
	char *file, *path, *text;
	size_t len;
	uint32_t generation;
	uint64_t applied_at; /* realtime */
	uint64_t begun_at;   /* monotonic */
	unsigned int waiting;
	int err; /* of the first start that failed */
	dmmd_done_fn done;
	void *ctx;
};

static void job_free(struct dmmd_job *job)
{
	dmm_policy_free(job->policy);
	dmm_findings_free(&job->found);
	dmm_tables_free(&job->tables);
	dmmd_classes_free(&job->classes);
	free(job->file);
	free(job->path);
	free(job->text);
	free(job);
}

static int job_new(struct dmmd *d, const struct dmmd_policy_text *policy, dmmd_done_fn done,
		   void *ctx, struct dmmd_job **ret)
{
	struct dmmd_job *job = calloc(1, sizeof(*job));

	if (!job)
		return -ENOMEM;
	job->d = d;
	job->done = done;
	job->ctx = ctx;
	job->strict = policy->strict;
	dmmd_classes_init(&job->classes);
	job->file = strdup(policy->file);
	job->path = strdup(policy->path ? policy->path : policy->file);
	job->text = malloc(policy->len + 1);
	job->len = policy->len;
	if (!job->file || !job->path || !job->text) {
		job_free(job);
		return -ENOMEM;
	}
	memcpy(job->text, policy->text, policy->len);
	job->text[policy->len] = '\0';
	*ret = job;
	return 0;
}

/* --- answers --- */

/* The caller's; NULL where nothing was found. */
static char *findings_text(const struct dmm_findings *found)
{
	char *text = NULL;
	size_t len;
	FILE *out = found->n ? open_memstream(&text, &len) : NULL;

	if (!out)
		return NULL;
	dmm_findings_print(found, out);
	fclose(out);
	return text;
}

static void fail(struct dmmd_job *job, int err, int exit_code, const char *hint, const char *format,
		 ...) __attribute__((format(printf, 5, 6)));

static void fail(struct dmmd_job *job, int err, int exit_code, const char *hint, const char *format,
		 ...)
{
	dmm_autofree char *findings = findings_text(&job->found);
	struct json_object *error;
	va_list ap;

	va_start(ap, format);
	error = dmm_json_verror(err, exit_code, hint, findings, format, ap);
	va_end(ap);
	if (error && job->found.n)
		json_object_object_add(error, "found", dmm_report_findings(&job->found));
	job->done(job->ctx, NULL, error);
	job_free(job);
}

/* @reason as dmm_steer_reason() gives it: sentence, newline, hint. */
static void fail_reason(struct dmmd_job *job, int err, char *reason)
{
	char *hint = strchr(reason, '\n');

	if (hint)
		*hint++ = '\0';
	fail(job, err, EXIT_FAILED, hint, "%s", reason);
}

/* @done: it says what was done, else what would be. */
static struct json_object *report(const struct dmmd_job *job, const char *kind, bool done)
{
	dmm_autofree char *findings = findings_text(&job->found);
	struct json_object *doc = dmm_json_document(kind);
	struct json_object *messages = json_object_new_array();

	dmm_json_set_text(doc, "policy", job->policy->name);
	dmm_json_set_text(doc, "file", job->file);
	dmm_json_set_u64(doc, "rules", job->policy->n_rules);
	dmm_json_set_u64(doc, "stacks", job->policy->n_stacks);
	dmm_json_set_u64(doc, "errors", job->found.errors);
	dmm_json_set_u64(doc, "warnings", job->found.warnings);
	if (findings)
		dmm_json_set_text(doc, "findings", findings);
	json_object_object_add(doc, "found", dmm_report_findings(&job->found));
	for (unsigned int i = 0; i < job->plan.n; i++) {
		char text[256];

		dmmd_step_describe(&job->plan.steps[i], done, text, sizeof(text));
		if (text[0])
			json_object_array_add(messages, json_object_new_string(text));
	}
	json_object_object_add(doc, "messages", messages);
	dmm_json_set_bool(doc, "dry_run", !done);
	return doc;
}

/* --- up to the first touch --- */

static int class_of(void *ctx, const char *cgroup)
{
	struct dmmd_job *job = ctx;

	return dmmd_classes_get(&job->classes, cgroup, job->generation);
}

static int instances_of(void *ctx, const char *stack, uint32_t ret[static DMM_MAX_INSTANCES_OF])
{
	struct dmmd_job *job = ctx;
	const struct dmmd_step *step;
	int n = 0;

	while (n < DMM_MAX_INSTANCES_OF && (step = dmmd_plan_find(&job->plan, stack, n)) &&
	       step->kind != DMMD_STEP_DRAIN)
		ret[n++] = step->slot;
	return n ? n : -ENOENT;
}

/* The rules' places are looked up from anywhere. */
static int name_source(struct dmmd_job *job)
{
	char *path = strdup(job->path);

	if (!path)
		return -ENOMEM;
	free(job->policy->source);
	job->policy->source = path;
	return 0;
}

/* 0, or the job has answered and is gone. */
static int prepare(struct dmmd_job *job)
{
	struct dmmd *d = job->d;
	struct dmm_compile_env env = {
		.ctx = job,
		.class_of = class_of,
		.instances_of = instances_of,
		.generation = d->state.generation + 1,
		.applied_at = dmm_clock_ns(CLOCK_REALTIME),
	};
	int r = dmmd_classes_clone(&d->state.classes, &job->classes);

	job->generation = env.generation;
	job->applied_at = env.applied_at;
	job->begun_at = dmm_now_ns();
	if (r == 0)
		r = dmm_policy_parse(job->text, job->len, job->file, &job->policy, &job->found);
	if (r == 0)
		r = name_source(job);
	if (r == 0)
		r = dmmd_hostcheck(d, job->policy, &job->found);
	if (r == 0)
		r = dmmd_plan_make(d, job->policy, job->restore, &job->plan, &job->found);
	if (r == 0 && !job->found.errors)
		r = dmm_policy_compile(job->policy, &env, &job->tables, &job->found);
	if (job->found.errors) {
		fail(job, -EINVAL, EXIT_BAD_POLICY, NULL, "%s: %u error%s; nothing was changed",
		     job->file, job->found.errors, job->found.errors == 1 ? "" : "s");
		return -EINVAL;
	}
	if (r == 0 && job->strict && job->found.warnings) {
		fail(job, -EINVAL, EXIT_BAD_POLICY, NULL,
		     "%s: %u warning%s, which are errors here; nothing was changed", job->file,
		     job->found.warnings, job->found.warnings == 1 ? "" : "s");
		return -EINVAL;
	}
	if (r < 0)
		fail(job, r, EXIT_FAILED, NULL, "%s: %s; nothing was changed", job->file,
		     strerror(-r));
	return r;
}

void dmmd_check(struct dmmd *d, const struct dmmd_policy_text *policy, const char *kind,
		dmmd_done_fn done, void *ctx)
{
	struct dmmd_job *job;
	struct json_object *doc;

	if (job_new(d, policy, done, ctx, &job) < 0) {
		done(ctx, NULL, dmm_json_error(-ENOMEM, EXIT_FAILED, NULL, NULL, "out of memory"));
		return;
	}
	if (prepare(job) < 0)
		return;
	doc = report(job, kind, false);
	done(ctx, doc, NULL);
	job_free(job);
}

/* --- the end of it --- */

static void job_over(struct dmmd_job *job)
{
	job->d->job = NULL;
	job->d->n_pending_ports = 0;
	dmmd_insts_reserve(job->d);
}

static void undo_step(struct dmmd_job *job, const struct dmmd_step *step)
{
	static const char why[] = "the apply failed";
	struct dmmd_inst *inst = job->d->inst[step->slot];

	if (!inst)
		return;
	switch (step->kind) {
	case DMMD_STEP_START:
		dmmd_inst_end(inst, step->inst ? DMMD_AFTER_STAY : DMMD_AFTER_FREE, why);
		break;
	case DMMD_STEP_CHANGE:
	case DMMD_STEP_REPLACE:
		dmmd_inst_start(inst, &step->old, why, NULL, NULL);
		break;
	default:
		break;
	}
}

static void roll_back(struct dmmd_job *job)
{
	/* those that make room first */
	for (unsigned int i = 0; i < job->plan.n; i++)
		if (job->plan.steps[i].kind == DMMD_STEP_START)
			undo_step(job, &job->plan.steps[i]);
	for (unsigned int i = 0; i < job->plan.n; i++)
		if (job->plan.steps[i].kind != DMMD_STEP_START)
			undo_step(job, &job->plan.steps[i]);
	dmmd_cgroups_cancel(job->d);
	job_over(job);
}

/* What it has cost though nothing was applied; "": nothing. */
static void describe_cost(const struct dmmd_job *job, char *ret, size_t size)
{
	const char *before = "; reset meanwhile: the flows of stack ";
	size_t len = 0;

	ret[0] = '\0';
	for (unsigned int i = 0; i < job->plan.n && len < size; i++) {
		const struct dmmd_step *step = &job->plan.steps[i];

		if (step->kind != DMMD_STEP_CHANGE && step->kind != DMMD_STEP_REPLACE)
			continue;
		len += snprintf(ret + len, size - len, "%s%s#%u", before, step->spec.name,
				step->spec.index);
		before = ", ";
	}
}

static bool turns_clients_away(const struct dmm_policy *policy)
{
	for (size_t i = 0; i < policy->n_rules; i++)
		if (policy->rules[i].dir[DMM_DIR_LISTEN] &&
		    policy->rules[i].action == DMM_ACTION_REJECT)
			return true;
	return policy->fallback.action == DMM_ACTION_REJECT;
}

static int class_of_servers(void *ctx, uint64_t cgroup_id)
{
	return dmmd_cgroups_next_class(ctx, cgroup_id);
}

static int install(struct dmmd_job *job, char *reterr_reason, size_t size)
{
	const char *dir = job->d->options.state_dir;
	int r = dmmd_state_stage_policy(dir, job->generation, job->text, job->len);

	if (r < 0) {
		snprintf(reterr_reason, size, "storing it in %s: %s", dir, strerror(-r));
		return r;
	}
	r = dmmd_cgroups_prepare(job->d, job->policy, &job->classes, job->generation);
	if (r == 0 && turns_clients_away(job->policy))
		r = dmm_steer_turn_away(job->d->steer, true);
	if (r == 0)
		r = dmm_steer_server_classes(job->d->steer, false, class_of_servers, job->d);
	if (r == 0)
		r = dmm_steer_install(job->d->steer, &job->tables);
	if (r == 0 && dmm_steer_server_classes(job->d->steer, true, class_of_servers, job->d) < 0)
		dmm_warning("%s", dmm_steer_reason());
	if (r < 0) {
		snprintf(reterr_reason, size, "%s", dmm_steer_reason());
		dmmd_state_drop_policy(dir, job->generation);
		if (!job->d->live.turns_away)
			dmm_steer_turn_away(job->d->steer, false);
	}
	return r;
}

/* The generation is live: from here on nothing fails any more. */
static void remember(struct dmmd_job *job)
{
	struct dmmd *d = job->d;
	int r;

	d->state.generation = job->generation;
	d->state.applied_at = job->applied_at;
	free(d->state.policy_file);
	d->state.policy_file = DMM_TAKE_PTR(job->path);
	dmmd_classes_free(&d->state.classes);
	d->state.classes = job->classes;
	dmmd_classes_init(&job->classes);
	memcpy(d->live.name, job->policy->name, sizeof(d->live.name));
	d->live.rules = job->policy->n_rules;
	d->live.stacks = job->policy->n_stacks;
	d->live.turns_away = turns_clients_away(job->policy);
	if (!d->fell_back || d->notified)
		d->policy_problem[0] = '\0';
	r = dmmd_state_keep_policy(d->options.state_dir, job->generation);
	if (r < 0)
		dmm_err(r, "%s/policy.yaml", d->options.state_dir);
	dmmd_save(d);
}

static bool serves(const struct dmm_policy *policy, const char *stack)
{
	for (size_t i = 0; i < policy->n_rules; i++) {
		const struct dmm_policy_rule *rule = &policy->rules[i];

		if (rule->dir[DMM_DIR_LISTEN] && rule->action == DMM_ACTION_STACK &&
		    dmm_streq(rule->stack, stack))
			return true;
	}
	return policy->fallback.action == DMM_ACTION_STACK &&
	       dmm_streq(policy->fallback.stack, stack);
}

static void settle_serving(struct dmmd_job *job)
{
	for (unsigned int i = 0; i < DMM_MAX_INSTANCES; i++) {
		struct dmmd_inst *inst = job->d->inst[i];

		if (!inst)
			continue;
		inst->serves = serves(job->policy, inst->spec.name);
		dmmd_sockets_begin(inst);
	}
}

static void settle_draining(struct dmmd_job *job)
{
	for (unsigned int i = 0; i < job->plan.n; i++) {
		const struct dmmd_step *step = &job->plan.steps[i];
		struct dmmd_inst *inst = job->d->inst[step->slot];

		if (step->kind == DMMD_STEP_DRAIN && inst)
			dmmd_inst_drain(inst, true);
		else if (step->kind == DMMD_STEP_REPLACE && inst)
			dmmd_inst_end(inst, DMMD_AFTER_FREE, "removed");
		else if (step->kind == DMMD_STEP_AGAIN && inst)
			dmmd_inst_again(inst);
	}
}

/* Of cgroups that this apply attached: servers that run there already. */
static void tell_late(struct dmmd *d, struct json_object *doc)
{
	struct json_object *messages = dmm_json_array(doc, "messages");

	for (size_t i = 0; i < d->cgroups.n; i++) {
		struct dmmd_cgroup *cgroup = &d->cgroups.items[i];
		struct dmmd_late late = { 0 };
		char text[PATH_MAX + 96];

		if (!cgroup->fresh)
			continue;
		cgroup->fresh = false;
		if (dmmd_cgroup_count_sockets(d, cgroup->path, &late) < 0 || !late.listening)
			continue;
		snprintf(text, sizeof(text),
			 "cgroup %s: %llu listener%s in the kernel: restart the server to move %s",
			 cgroup->path, (unsigned long long)late.listening,
			 late.listening == 1 ? " stays" : "s stay",
			 late.listening == 1 ? "it" : "them");
		dmm_warning("%s", text);
		json_object_array_add(messages, json_object_new_string(text));
	}
}

static void commit(struct dmmd_job *job)
{
	uint32_t before = job->d->state.generation;
	struct json_object *doc = report(job, "PolicyApplied", true);
	uint64_t took = dmm_now_ns() - job->begun_at;

	dmm_info("policy %s: generation %u live after %llu.%llu ms, %zu rules, %zu stacks",
		 job->policy->name, job->generation, (unsigned long long)(took / DMM_NS_PER_MS),
		 (unsigned long long)(took / (DMM_NS_PER_MS / 10) % 10), job->policy->n_rules,
		 job->policy->n_stacks);
	remember(job);
	dmmd_cgroups_commit(job->d);
	if (!job->d->live.turns_away && dmm_steer_turn_away(job->d->steer, false) < 0)
		dmm_warning("%s", dmm_steer_reason());
	tell_late(job->d, doc);
	settle_draining(job);
	settle_serving(job);
	job_over(job);
	dmmd_save(job->d);
	dmm_json_set_u64(doc, "generation", job->generation);
	dmm_json_set_u64(doc, "previous_generation", before);
	json_object_object_add(doc, "took_ms",
			       json_object_new_double((double)took / DMM_NS_PER_MS));
	job->done(job->ctx, doc, NULL);
	job_free(job);
}

static void begin_next(struct dmmd *d);

static void finish(struct dmmd_job *job)
{
	struct dmmd *d = job->d;
	char reason[512], cost[256];
	int r = job->err ? job->err : install(job, reason, sizeof(reason));

	if (r == 0) {
		commit(job);
	} else if (job->err) {
		roll_back(job);
		describe_cost(job, cost, sizeof(cost));
		fail(job, r, EXIT_FAILED, "the instance's log has more",
		     "%s: a stack did not start; the policy before stays%s", job->file, cost);
	} else {
		roll_back(job);
		fail_reason(job, r, reason);
	}
	begin_next(d);
}

/* --- starting instances --- */

static void settled(void *ctx, struct dmmd_inst *inst, int err, const char *text)
{
	struct dmmd_job *job = ctx;
	const struct dmmd_step *step =
		dmmd_plan_find(&job->plan, inst->spec.name, inst->spec.index);
	char reason[640];
	char *hint;

	if (err < 0) {
		snprintf(reason, sizeof(reason), "%s", text);
		hint = strchr(reason, '\n');
		if (hint)
			*hint++ = '\0';
		dmm_findings_add(&job->found, DMM_SEVERITY_ERROR, DMMD_CODE_START_FAILED,
				 step ? step->place : (struct dmm_place){ 0 }, hint,
				 "stack '%s' (plug-in '%s') did not start: %s",
				 inst->spec.index ? inst->label : inst->spec.name,
				 step ? step->spec.plugin : inst->spec.plugin, reason);
		job->err = job->err ? job->err : err;
	}
	if (--job->waiting == 0)
		finish(job);
}

/* 0: dmmd_inst_start() may be called. */
static int slot_for(struct dmmd_job *job, const struct dmmd_step *step, struct dmmd_inst **ret)
{
	*ret = step->inst;
	return step->inst ? 0 : dmmd_inst_new(job->d, &step->spec, step->slot, ret);
}

static void run_step(struct dmmd_job *job, const struct dmmd_step *step)
{
	struct dmmd_inst *inst;

	switch (step->kind) {
	case DMMD_STEP_START:
	case DMMD_STEP_CHANGE:
		job->waiting++;
		if (slot_for(job, step, &inst) < 0) {
			job->waiting--;
			job->err = -ENOMEM;
			return;
		}
		dmmd_inst_start(inst, &step->spec, "its stack was changed", settled, job);
		break;
	case DMMD_STEP_KICK:
		dmmd_inst_start(step->inst, &step->spec, "", NULL, NULL);
		break;
	case DMMD_STEP_REPLACE:
		dmmd_inst_end(step->inst, DMMD_AFTER_STAY, "removed");
		break;
	default:
		break;
	}
}

static int reserve_ports(struct dmmd_job *job)
{
	struct dmmd *d = job->d;

	d->n_pending_ports = 0;
	for (unsigned int i = 0; i < job->plan.n && d->n_pending_ports < DMM_MAX_INSTANCES; i++)
		if (job->plan.steps[i].kind == DMMD_STEP_START ||
		    job->plan.steps[i].kind == DMMD_STEP_CHANGE)
			d->pending_ports[d->n_pending_ports++] = job->plan.steps[i].spec.ports;
	return dmmd_insts_reserve(d);
}

static void begin(struct dmmd_job *job)
{
	struct dmmd *d = job->d;
	int r;

	if (prepare(job) < 0)
		return;
	d->job = job;
	r = reserve_ports(job);
	if (r < 0) {
		char reason[512];

		snprintf(reason, sizeof(reason), "%s", dmm_steer_reason());
		job_over(job);
		fail_reason(job, r, reason);
		return;
	}
	job->waiting = 1; /* ours, so that nothing finishes before all have begun */
	for (unsigned int i = 0; i < job->plan.n; i++)
		run_step(job, &job->plan.steps[i]);
	if (--job->waiting == 0)
		finish(job);
}

static void begin_next(struct dmmd *d)
{
	while (!d->job && d->queue) {
		struct dmmd_job *job = d->queue;

		d->queue = job->next;
		begin(job);
	}
}

/* 0: it waits. */
static int enqueue(struct dmmd_job *job)
{
	struct dmmd_job **last = &job->d->queue;
	unsigned int n = 0;

	for (; *last; last = &(*last)->next)
		if (++n == MAX_WAITING)
			return -EBUSY;
	*last = job;
	return 0;
}

void dmmd_apply(struct dmmd *d, const struct dmmd_policy_text *policy, bool restore,
		dmmd_done_fn done, void *ctx)
{
	struct dmmd_job *job;

	if (job_new(d, policy, done, ctx, &job) < 0) {
		done(ctx, NULL, dmm_json_error(-ENOMEM, EXIT_FAILED, NULL, NULL, "out of memory"));
		return;
	}
	job->restore = restore;
	if (enqueue(job) < 0)
		fail(job, -EBUSY, EXIT_FAILED, "try again when they are done",
		     "%u applies are waiting already", MAX_WAITING);
	else
		begin_next(d);
}

static void abandon(struct dmmd_job *job)
{
	fail(job, -ECANCELED, EXIT_FAILED, NULL, "%s: dmmd is ending", job->file);
}

void dmmd_apply_abandon(struct dmmd *d)
{
	for (unsigned int i = 0; i < DMM_MAX_INSTANCES; i++)
		if (d->inst[i] && d->job && d->inst[i]->settled_ctx == d->job)
			d->inst[i]->settled = NULL;
	if (d->job)
		abandon(d->job);
	d->job = NULL;
	while (d->queue) {
		struct dmmd_job *job = d->queue;

		d->queue = job->next;
		abandon(job);
	}
}
