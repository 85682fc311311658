/* SPDX-License-Identifier: Apache-2.0 */
/* status and version. */
#include "dmmctl.h"

#include <bpf/libbpf.h>
#include <sys/utsname.h>

#include <dmm/abi/types.h>
#include <dmm/stack.h>

static size_t count(struct json_object *obj, const char *key)
{
	struct json_object *list = get_member(obj, key);

	return list ? json_object_array_length(list) : 0;
}

static void print_policy(struct json_object *policy, size_t cgroups)
{
	if (!policy) {
		printf("no policy applied");
		return;
	}
	printf("policy %s gen %s (applied %s): rules %s, stacks %s, cgroups %zu",
	       get_text(policy, "name"), get_text(policy, "generation"),
	       get_text(policy, "applied_at"), get_text(policy, "rules"),
	       get_text(policy, "stacks"), cgroups);
}

/* A program or filter of somebody else where one of ours runs. */
static void print_beside(struct json_object *item)
{
	const char *id = get_text(item, "prog_id");

	printf("  %s ours at %s: %s '%s'%s%s\n", get_text(item, "order"), get_text(item, "where"),
	       get_text(item, "kind"), get_text(item, "name"), dmm_streq(id, "0") ? "" : " id ",
	       dmm_streq(id, "0") ? "" : id);
}

static void print_stack(struct json_object *stack)
{
	const char *got = get_text(stack, "got");

	printf("  %-10s %-10s %s on %s", get_text(stack, "instance"), get_text(stack, "state"),
	       get_text(stack, "plugin"), get_text(stack, "interface"));
	if (got[0]) /* it runs */
		printf(" (%s), pid %s, %s flows", got, get_text(stack, "pid"),
		       get_text(stack, "flows"));
	printf(", %s restarts\n", get_text(stack, "restarts"));
}

static void print_status(const struct ctl *ctl, struct json_object *status)
{
	struct json_object *flows = get_member(status, "flows");
	struct json_object *problems = get_member(status, "problems");
	struct json_object *stacks = get_member(status, "stacks");
	bool ok = dmm_streq(get_text(status, "health"), "ok");
	char age[32];

	format_age(get_u64(status, "uptime_ms"), age, sizeof(age));
	printf("dmmd %s pid %s up %s; ", get_text(status, "version"), get_text(status, "pid"), age);
	print_policy(get_member(status, "policy"), count(status, "cgroups"));
	printf("; flows %s userspace / %s kernel; health %s\n", get_text(flows, "userspace"),
	       get_text(flows, "kernel"),
	       paint(ctl, ok ? COLOR_GOOD : COLOR_BAD, ok ? "OK" : "DEGRADED"));
	for (size_t i = 0; stacks && i < json_object_array_length(stacks); i++)
		print_stack(json_object_array_get_idx(stacks, i));
	for (size_t i = 0; problems && i < json_object_array_length(problems); i++)
		printf("  %s %s\n", paint(ctl, COLOR_WARN, "problem:"),
		       json_object_get_string(json_object_array_get_idx(problems, i)));
	for (size_t i = 0; i < count(status, "beside"); i++)
		print_beside(json_object_array_get_idx(get_member(status, "beside"), i));
}

int cmd_status(struct ctl *ctl)
{
	struct json_object *result = NULL;
	int r = ask_daemon(ctl, "status", NULL, &result);

	if (r != CTL_OK)
		return r;
	if (!is_json(ctl))
		print_status(ctl, result);
	print_document(ctl, result);
	return CTL_OK;
}

int cmd_version(struct ctl *ctl)
{
	struct json_object *doc = dmm_json_document("Version"), *daemon = NULL;
	struct utsname uts;
	char libbpf[32];

	uname(&uts);
	snprintf(libbpf, sizeof(libbpf), "%u.%u", libbpf_major_version(), libbpf_minor_version());
	if (ask_daemon_if_there(ctl, "version", NULL, &daemon, NULL) != CTL_OK)
		daemon = NULL;
	dmm_json_set_text(doc, "dmmctl", DMM_VERSION);
	dmm_json_set_text(doc, "dmmd", daemon ? get_text(daemon, "version") : NULL);
	dmm_json_set_u64(doc, "abi_layout", DMM_ABI_LAYOUT);
	dmm_json_set_u64(doc, "stack_abi", DMM_STACK_ABI);
	dmm_json_set_text(doc, "kernel", uts.release);
	dmm_json_set_text(doc, "libbpf", libbpf);
	if (!is_json(ctl))
		printf("dmmctl %s / dmmd %s / map layout %u / stack abi %u / kernel %s / libbpf %s\n",
		       DMM_VERSION, daemon ? get_text(daemon, "version") : "not running",
		       DMM_ABI_LAYOUT, DMM_STACK_ABI, uts.release, libbpf);
	json_object_put(daemon);
	print_document(ctl, doc);
	return CTL_OK;
}
