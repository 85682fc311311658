/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs. Each answers once. */
#define _GNU_SOURCE
#include "dmmd/verbs.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/log.h"
#include "base/util.h"
#include "ctl/json.h"
#include "dmmd/apply.h"
#include "dmmd/dmmd.h"
#include "dmmd/inst.h"
#include "dmmd/report.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_DENIED = 4 };

static void answer(struct dmmd_call *call, struct json_object *result)
{
	dmmd_answer(call->d, call->client, result);
}

static void refuse(struct dmmd_call *call, int err, int exit_code, const char *hint,
		   const char *format, ...) __attribute__((format(printf, 5, 6)));

static void refuse(struct dmmd_call *call, int err, int exit_code, const char *hint,
		   const char *format, ...)
{
	struct json_object *error;
	va_list ap;

	va_start(ap, format);
	error = dmm_json_verror(err, exit_code, hint, NULL, format, ap);
	va_end(ap);
	dmmd_refuse(call->d, call->client, error);
}

static void refuse_steer(struct dmmd_call *call, int err)
{
	char text[512], *hint;

	snprintf(text, sizeof(text), "%s", dmm_steer_reason());
	hint = strchr(text, '\n');
	if (hint)
		*hint++ = '\0';
	refuse(call, err, EXIT_FAILED, hint, "%s", text);
}

/* --- what is --- */

static void verb_version(struct dmmd_call *call)
{
	answer(call, dmmd_report_version());
}

static void verb_status(struct dmmd_call *call)
{
	answer(call, dmmd_report_status(call->d));
}

static void verb_stacks_list(struct dmmd_call *call)
{
	answer(call, dmmd_report_stacks(call->d));
}

static void verb_flows_list(struct dmmd_call *call)
{
	uint64_t limit = 10000;

	dmm_json_u64(call->args, "limit", 100000, &limit);
	answer(call, dmmd_report_flows(call->d, limit));
}

static void verb_stats(struct dmmd_call *call)
{
	answer(call, dmmd_report_stats(call->d));
}

static void verb_get_policy(struct dmmd_call *call)
{
	struct dmmd_state *state = &call->d->state;
	dmm_autofree char *text = NULL;
	struct json_object *doc;
	int r;

	if (!state->policy_file) {
		refuse(call, -ENOENT, EXIT_FAILED, "dmmctl apply FILE",
		       "no policy has been applied yet");
		return;
	}
	r = dmmd_state_load_policy(call->d->options.state_dir, &text, NULL);
	if (r < 0) {
		refuse(call, r, EXIT_FAILED, NULL, "%s/policy.yaml", call->d->options.state_dir);
		return;
	}
	doc = dmm_json_document("PolicySource");
	dmm_json_set_text(doc, "policy", call->d->live.name);
	dmm_json_set_u64(doc, "generation", state->generation);
	dmm_json_set_time(doc, "applied_at", state->applied_at);
	dmm_json_set_text(doc, "file", state->policy_file);
	dmm_json_set_text(doc, "text", text);
	answer(call, doc);
}

/* --- policy --- */

/* What an answer that comes later needs. */
struct later {
	struct dmmd *d;
	uint64_t client;
};

static struct later *later_new(struct dmmd_call *call)
{
	struct later *later = malloc(sizeof(*later));

	if (later)
		*later = (struct later){ call->d, call->client };
	else
		refuse(call, -ENOMEM, EXIT_FAILED, NULL, "out of memory");
	return later;
}

static void later_done(void *ctx, struct json_object *result, struct json_object *error)
{
	struct later *later = ctx;

	if (result)
		dmmd_answer(later->d, later->client, result);
	else
		dmmd_refuse(later->d, later->client, error);
	free(later);
}

static bool get_policy_text(struct dmmd_call *call, struct dmmd_policy_text *ret)
{
	struct json_object *policy;
	const char *file = dmm_json_text(call->args, "file");

	if (!json_object_object_get_ex(call->args, "policy", &policy) ||
	    !json_object_is_type(policy, json_type_string)) {
		refuse(call, -EINVAL, EXIT_USAGE, NULL, "no policy in the request");
		return false;
	}
	*ret = (struct dmmd_policy_text){
		.file = file ? file : "policy",
		.path = dmm_json_text(call->args, "path"),
		.text = json_object_get_string(policy),
		.len = json_object_get_string_len(policy),
		.strict = dmm_json_bool(call->args, "strict"),
	};
	return true;
}

static void verb_check(struct dmmd_call *call)
{
	struct dmmd_policy_text policy;
	struct later *later;

	if (get_policy_text(call, &policy) && (later = later_new(call)))
		dmmd_check(call->d, &policy, "PolicyCheck", later_done, later);
}

static void verb_apply(struct dmmd_call *call)
{
	struct dmmd_policy_text policy;
	struct later *later;

	if (!get_policy_text(call, &policy) || !(later = later_new(call)))
		return;
	if (dmm_json_bool(call->args, "dry_run"))
		dmmd_check(call->d, &policy, "PolicyApplied", later_done, later);
	else
		dmmd_apply(call->d, &policy, false, later_done, later);
}

/* --- cgroups --- */

/* The cgroup of the request: "cgroup", or that of "pid". */
static bool get_cgroup(struct dmmd_call *call, char ret[static PATH_MAX])
{
	const char *path = dmm_json_text(call->args, "cgroup");
	uint64_t pid;
	int r;

	if (path) {
		r = dmmd_cgroup_normalise(path, ret);
		if (r < 0)
			refuse(call, r, EXIT_USAGE, "paths start with / at the cgroup root",
			       "'%s' is no cgroup path", path);
		return r == 0;
	}
	if (!dmm_json_u64(call->args, "pid", INT_MAX, &pid) || pid == 0) {
		refuse(call, -EINVAL, EXIT_USAGE, NULL, "which cgroup, or which pid?");
		return false;
	}
	r = dmmd_cgroup_of(call->d, pid, ret);
	if (r == -EXDEV)
		refuse(call, r, EXIT_FAILED, NULL, "process %d is in no cgroup below %s", (int)pid,
		       call->d->options.cgroup_root);
	else if (r < 0)
		refuse(call, r, EXIT_FAILED, NULL, "process %d", (int)pid);
	return r == 0;
}

static bool cgroup_exists(struct dmmd_call *call, const char *path)
{
	char full[PATH_MAX];
	struct stat st;

	if (dmmd_cgroup_full(call->d, path, full) == 0 && stat(full, &st) == 0)
		return true;
	refuse(call, -ENOENT, EXIT_FAILED, "mkdir it, or `dmmctl run --cgroup`",
	       "no cgroup %s below %s", path, call->d->options.cgroup_root);
	return false;
}

static void verb_attach(struct dmmd_call *call)
{
	struct dmmd_cgroup *cgroup;
	char path[PATH_MAX];
	struct json_object *doc;
	struct dmmd_late late = { 0 };
	bool already, made = dmm_json_bool(call->args, "made");
	int r;

	if (!get_cgroup(call, path) || !cgroup_exists(call, path))
		return;
	cgroup = dmmd_cgroups_find(call->d, path);
	already = dmmd_cgroup_is_attached(cgroup);
	r = dmmd_cgroups_want(call->d, path, made ? DMMD_BY_RUN : DMMD_BY_HAND, 0);
	if (r < 0) {
		refuse_steer(call, r);
		return;
	}
	dmmd_save(call->d);
	if (!already && !made)
		r = dmmd_cgroup_count_sockets(call->d, path, &late);
	if (r < 0)
		dmm_err(r, "sockets of cgroup %s", path);
	cgroup = dmmd_cgroups_find(call->d, path);
	cgroup->fresh = false;
	doc = dmm_json_document("CgroupAttached");
	dmm_json_set_text(doc, "cgroup", path);
	dmm_json_set_u64(doc, "cgroup_id", cgroup->id);
	dmm_json_set_bool(doc, "already", already);
	if (r == 0) {
		dmm_json_set_u64(doc, "existing_sockets", late.connected);
		dmm_json_set_u64(doc, "existing_listeners", late.listening);
	}
	answer(call, doc);
}

static void verb_detach(struct dmmd_call *call)
{
	struct dmmd_cgroup *cgroup;
	char path[PATH_MAX];
	struct json_object *doc;
	bool named;

	if (!get_cgroup(call, path))
		return;
	cgroup = dmmd_cgroups_find(call->d, path);
	if (!cgroup || cgroup->by == DMMD_BY_FLOWS) {
		refuse(call, -ENOENT, EXIT_FAILED, NULL, "cgroup %s is not attached", path);
		return;
	}
	named = cgroup->by & DMMD_BY_POLICY;
	dmmd_cgroups_unwant(call->d, path, DMMD_BY_HAND);
	dmmd_save(call->d);
	doc = dmm_json_document("CgroupDetached");
	dmm_json_set_text(doc, "cgroup", path);
	dmm_json_set_bool(doc, "still_named", named);
	answer(call, doc);
}

/* --- stacks --- */

static struct dmmd_inst *get_stack(struct dmmd_call *call)
{
	const char *name = dmm_json_text(call->args, "name");
	struct dmmd_inst *inst = name ? dmmd_inst_find(call->d, name) : NULL;

	if (!name)
		refuse(call, -EINVAL, EXIT_USAGE, NULL, "which stack?");
	else if (!inst)
		refuse(call, -ENOENT, EXIT_FAILED, "`dmmctl stacks list` names them",
		       "no stack '%s'", name);
	else if (call->d->job)
		refuse(call, -EBUSY, EXIT_FAILED, "try again when it is done",
		       "an apply is under way");
	else if (inst->removed)
		refuse(call, -EBUSY, EXIT_FAILED, NULL,
		       "stack '%s' is no longer in the policy and ends after its last flow", name);
	else
		return inst;
	return NULL;
}

/* One of the instances that @name means: "fast#1" is one, "fast" all of a stack. */
static struct dmmd_inst *next_meant(struct dmmd *d, const char *name, const struct dmmd_inst *after)
{
	return after && !strchr(name, '#')
		       ? dmmd_inst_find_nth(d, after->spec.name, after->spec.index + 1)
	       : after ? NULL
		       : dmmd_inst_find(d, name);
}

static struct json_object *report_meant(struct dmmd *d, const char *name)
{
	struct dmmd_inst *first = next_meant(d, name, NULL), *inst;
	struct json_object *doc, *items;

	if (!next_meant(d, name, first))
		return dmmd_report_stack(first);
	doc = dmm_json_document("StackList");
	items = json_object_new_array();
	for (inst = first; inst; inst = next_meant(d, name, inst))
		json_object_array_add(items, dmmd_report_stack(inst));
	json_object_object_add(doc, "items", items);
	return doc;
}

/* One after another: the others serve meanwhile. */
struct restart {
	struct later later;
	char name[DMM_INST_NAME_LEN];
};

static void restarted(void *ctx, struct dmmd_inst *inst, int err, const char *text)
{
	struct restart *restart = ctx;
	struct dmmd *d = restart->later.d;
	struct dmmd_inst *next = err ? NULL : next_meant(d, restart->name, inst);

	if (next) {
		dmmd_inst_start(next, &next->spec, "restarted by an operator", restarted, restart);
		return;
	}
	if (err == 0)
		dmmd_answer(d, restart->later.client, report_meant(d, restart->name));
	else
		dmmd_refuse(d, restart->later.client,
			    dmm_json_error(err, EXIT_FAILED, NULL, NULL,
					   "stack '%s' (plug-in '%s') did not start: %s",
					   inst->spec.index ? inst->label : inst->spec.name,
					   inst->spec.plugin, text));
	free(restart);
}

static void verb_stacks_restart(struct dmmd_call *call)
{
	struct dmmd_inst *inst = get_stack(call);
	struct restart *restart = inst ? malloc(sizeof(*restart)) : NULL;

	if (inst && !restart)
		refuse(call, -ENOMEM, EXIT_FAILED, NULL, "out of memory");
	if (!restart)
		return;
	restart->later = (struct later){ call->d, call->client };
	snprintf(restart->name, sizeof(restart->name), "%s", dmm_json_text(call->args, "name"));
	dmmd_inst_start(inst, &inst->spec, "restarted by an operator", restarted, restart);
}

static void verb_stacks_drain(struct dmmd_call *call)
{
	const char *name = dmm_json_text(call->args, "name");
	struct dmmd_inst *inst = get_stack(call);
	bool meant = inst;

	for (; inst; inst = next_meant(call->d, name, inst)) {
		inst->held = true;
		dmmd_inst_drain(inst, false);
	}
	if (!meant)
		return;
	dmmd_save(call->d);
	answer(call, report_meant(call->d, name));
}

/* --- the table --- */

static const struct verb {
	const char *name;
	bool reads; /* group dmm may, too */
	void (*run)(struct dmmd_call *call);
} verbs[] = {
	{ "ping", true, verb_version },
	{ "version", true, verb_version },
	{ "status", true, verb_status },
	{ "check", true, verb_check },
	{ "apply", false, verb_apply },
	{ "get policy", true, verb_get_policy },
	{ "attach", false, verb_attach },
	{ "detach", false, verb_detach },
	{ "stacks list", true, verb_stacks_list },
	{ "stacks restart", false, verb_stacks_restart },
	{ "stacks drain", false, verb_stacks_drain },
	{ "flows list", true, verb_flows_list },
	{ "stats", true, verb_stats },
};

void dmmd_verb_run(struct dmmd_call *call, struct json_object *request)
{
	const char *name = dmm_json_text(request, "verb");
	struct json_object *args = dmm_json_object(request, "args");

	call->args = args ? args : request;
	for (size_t i = 0; name && i < DMM_ARRAY_SIZE(verbs); i++) {
		if (!dmm_streq(verbs[i].name, name))
			continue;
		if (call->uid != 0 && !verbs[i].reads)
			refuse(call, -EPERM, EXIT_DENIED, "sudo", "only root may '%s'", name);
		else
			verbs[i].run(call);
		return;
	}
	refuse(call, -EINVAL, EXIT_USAGE, "see userspace/ctl/README.md", "unknown verb '%s'",
	       name ? name : "");
}
