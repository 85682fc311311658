/* SPDX-License-Identifier: Apache-2.0 */
/* check, apply, get policy and get rules. */
#include "dmmctl.h"

#include <errno.h>

#include "base/clock.h"
#include "base/file.h"
#include "ctl/report.h"
#include "policy/codes.h"
#include "policy/compile.h"
#include "steer/view.h"

/* --- check --- */

/* What only a host would know, made up: every cgroup a class, every stack an instance. */
static int any_class(void *ctx, const char *cgroup)
{
	unsigned int *classes = ctx;

	(void)cgroup;
	return *classes + 1 < DMM_MAX_CLASSES ? (int)++*classes : -ENOSPC;
}

static int any_instance(void *ctx, const char *stack, uint32_t ret[static DMM_MAX_INSTANCES_OF])
{
	(void)ctx, (void)stack;
	ret[0] = 0;
	return 1;
}

/* Parses and compiles. What is found is told in @found; other failures here. */
static int judge(const struct ctl *ctl, const char *path, struct dmm_policy **ret,
		 struct dmm_findings *found)
{
	unsigned int classes = 0;
	const struct dmm_compile_env env = { .ctx = &classes,
					     .class_of = any_class,
					     .instances_of = any_instance,
					     .generation = 1 };
	struct dmm_tables tables = { 0 };
	int r = dmm_policy_load(path, ret, found);

	if (r == 0) {
		r = dmm_policy_compile(*ret, &env, &tables, found);
		dmm_tables_free(&tables);
	}
	if (found->errors)
		return CTL_BAD_POLICY;
	return r == 0 ? CTL_OK : fail(ctl, exit_of(r), r, NULL, "policy %s", path);
}

static struct json_object *check_json(const char *path, const struct dmm_policy *policy,
				      const struct dmm_findings *found)
{
	struct json_object *item = json_object_new_object();

	dmm_json_set_text(item, "file", path);
	dmm_json_set_text(item, "policy", policy ? policy->name : NULL);
	dmm_json_set_u64(item, "rules", policy ? policy->n_rules : 0);
	dmm_json_set_u64(item, "stacks", policy ? policy->n_stacks : 0);
	dmm_json_set_u64(item, "errors", found->errors);
	dmm_json_set_u64(item, "warnings", found->warnings);
	json_object_object_add(item, "findings", dmm_report_findings(found));
	return item;
}

static const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

static void print_check(const struct ctl *ctl, struct json_object *item)
{
	uint64_t errors = get_u64(item, "errors"), warnings = get_u64(item, "warnings");
	uint64_t rules = get_u64(item, "rules"), stacks = get_u64(item, "stacks");

	printf("%s: ", get_text(item, "file"));
	if (errors)
		printf("%s, %lu error%s", paint(ctl, COLOR_BAD, "REJECTED"), errors,
		       plural(errors));
	else
		printf("%s, %lu rule%s, %lu stack%s", paint(ctl, COLOR_GOOD, "OK"), rules,
		       plural(rules), stacks, plural(stacks));
	if (warnings)
		printf("; %lu warning%s", warnings, plural(warnings));
	putchar('\n');
}

/* @path: for messages, as the caller wrote it, and in full, since dmmd works elsewhere. */
static struct json_object *policy_args(const char *path, const char *text, size_t len)
{
	struct json_object *args = json_object_new_object();
	dmm_autofree char *full = dmm_streq(path, "-") ? NULL : realpath(path, NULL);

	dmm_json_set_text(args, "file", dmm_streq(path, "-") ? "<stdin>" : path);
	if (full)
		dmm_json_set_text(args, "path", full);
	json_object_object_add(args, "policy", json_object_new_string_len(text, len));
	return args;
}

static void print_messages(const struct ctl *ctl, struct json_object *result)
{
	struct json_object *messages = get_member(result, "messages");

	if (!is_json(ctl))
		fputs(get_text(result, "findings"), stderr);
	for (size_t i = 0; messages && i < json_object_array_length(messages); i++)
		note(ctl, "%s", json_object_get_string(json_object_array_get_idx(messages, i)));
}

/* What dmmd found, in the place of what was there. */
static void take_findings(struct json_object *item, struct json_object *from)
{
	struct json_object *found = dmm_json_array(from, "found");
	uint64_t errors = 0;

	if (!found)
		return;
	for (size_t i = 0; i < json_object_array_length(found); i++)
		errors += dmm_streq(get_text(json_object_array_get_idx(found, i), "severity"),
				    "error");
	dmm_json_set_u64(item, "errors", errors);
	dmm_json_set_u64(item, "warnings", json_object_array_length(found) - errors);
	json_object_object_add(item, "findings", json_object_get(found));
}

/* What dmmd adds: interfaces, cgroups, memory. It judges the text again, so what it finds replaces
 * ours; where it does not answer ours stands. */
static int ask_check(const struct ctl *ctl, const char *path, const struct dmm_findings *found,
		     struct json_object *item)
{
	struct json_object *result = NULL, *refusal = NULL;
	int r = ask_daemon_if_there(ctl, "check",
				    policy_args(path, found->source, found->source_len), &result,
				    &refusal);

	if (r == CTL_UNREACHABLE) {
		if (!is_json(ctl))
			dmm_findings_print(found, stderr);
		note(ctl, "dmmd is not running: the host itself was not asked");
		return CTL_OK;
	}
	if (r != CTL_OK) {
		take_findings(item, refusal);
		json_object_put(refusal);
		return r;
	}
	print_messages(ctl, result);
	take_findings(item, result);
	json_object_object_add(item, "messages", json_object_get(get_member(result, "messages")));
	json_object_put(result);
	return CTL_OK;
}

static int check_one(const struct ctl *ctl, const char *path, struct json_object *items)
{
	struct dmm_policy *policy = NULL;
	struct dmm_findings found = { 0 };
	struct json_object *item;
	bool ask = !ctl->opt[OPT_OFFLINE];
	int r = judge(ctl, path, &policy, &found);

	if (r == CTL_OK || r == CTL_BAD_POLICY) {
		item = check_json(path, policy, &found);
		if (!is_json(ctl) && (r != CTL_OK || !ask))
			dmm_findings_print(&found, stderr);
		if (r == CTL_OK && ask)
			r = ask_check(ctl, path, &found, item);
		if (r == CTL_OK && ctl->opt[OPT_STRICT] && get_u64(item, "warnings"))
			r = CTL_BAD_POLICY;
		if (!is_json(ctl) && (r == CTL_OK || found.errors || ctl->opt[OPT_STRICT]))
			print_check(ctl, item);
		json_object_array_add(items, item);
	}
	dmm_policy_free(policy);
	dmm_findings_free(&found);
	return r;
}

int cmd_check(struct ctl *ctl)
{
	struct json_object *items = json_object_new_array();
	int worst = CTL_OK;

	if (ctl->argc == 0) {
		json_object_put(items);
		return usage(ctl, "check which file?");
	}
	for (int i = 0; i < ctl->argc; i++) {
		int r = check_one(ctl, ctl->argv[i], items);

		worst = DMM_MAX(worst, r);
	}
	print_document(ctl, list_document("PolicyCheckList", items));
	return worst;
}

/* --- apply --- */

/* What is no text cannot be sent to dmmd, which judges all the rest. */
static int check_text(const struct ctl *ctl, const char *path, const char *text, size_t len)
{
	struct dmm_findings found = { 0 };
	struct dmm_policy *policy = NULL;
	bool is_text = true;

	if (dmm_policy_parse(text, len, path, &policy, &found) < 0)
		for (size_t i = 0; i < found.n; i++)
			is_text &= found.items[i].code != DMM_CODE_ENCODING;
	dmm_policy_free(policy);
	if (!is_text)
		dmm_findings_print(&found, stderr);
	dmm_findings_free(&found);
	return is_text ? CTL_OK
		       : fail(ctl, CTL_BAD_POLICY, -EINVAL, NULL, "%s: nothing was changed", path);
}

int cmd_apply(struct ctl *ctl)
{
	dmm_autofree char *text = NULL;
	struct json_object *result = NULL, *args;
	const char *path;
	size_t len;
	int r;

	if (ctl->argc != 1)
		return usage(ctl, "apply takes one file");
	path = ctl->argv[0];
	r = dmm_file_read(dmm_streq(path, "-") ? "/dev/stdin" : path, DMM_MAX_POLICY_SIZE, &text,
			  &len);
	if (r < 0)
		return fail(ctl, exit_of(r), r, NULL, "policy %s", path);
	r = check_text(ctl, path, text, len);
	if (r != CTL_OK)
		return r;
	args = policy_args(path, text, len);
	dmm_json_set_bool(args, "strict", ctl->opt[OPT_STRICT]);
	r = ask_daemon(ctl, "apply", args, &result);
	if (r != CTL_OK)
		return r;
	print_messages(ctl, result);
	if (!is_json(ctl))
		printf("policy/%s generation %s (before: %s) applied in %.1f ms\n",
		       get_text(result, "policy"), get_text(result, "generation"),
		       get_text(result, "previous_generation"),
		       json_object_get_double(get_member(result, "took_ms")));
	take_findings(result, result);
	json_object_object_del(result, "found");
	print_document(ctl, result);
	return CTL_OK;
}

int cmd_schema(struct ctl *ctl)
{
	(void)ctl;
	dmm_policy_schema(stdout);
	return CTL_OK;
}

/* --- get --- */

int cmd_get_policy(struct ctl *ctl)
{
	struct json_object *result = NULL;
	int r = ask_daemon(ctl, "get policy", NULL, &result);

	if (r != CTL_OK)
		return r;
	if (ctl->format == FORMAT_JSON || ctl->format == FORMAT_JSONL) {
		print_document(ctl, result);
		return CTL_OK;
	}
	fputs(get_text(result, "text"), stdout); /* as applied: valid input for check */
	json_object_put(result);
	return CTL_OK;
}

/* The built-ins come first, as they do in the hooks. */
static void add_builtins(struct json_object *items, struct dmm_view *view)
{
	static const enum dmm_reason builtins[] = { DMM_REASON_LOOPBACK, DMM_REASON_MULTICAST,
						    DMM_REASON_SCOPED,	 DMM_REASON_OWN_ADDRESS,
						    DMM_REASON_NO_ROUTE, DMM_REASON_ROUTE };

	for (unsigned int i = 0; i < DMM_ARRAY_SIZE(builtins); i++) {
		struct json_object *item = json_object_new_object();
		uint64_t hits = 0;

		dmm_view_counter(view, builtins[i], &hits);
		dmm_json_set_text(item, "name", dmm_reason_word(builtins[i]));
		dmm_json_set_bool(item, "builtin", true);
		dmm_json_set_text(item, "action", "kernel");
		dmm_json_set_u64(item, "hits", hits);
		json_object_array_add(items, item);
	}
}

static const char *rule_action(struct dmm_view *view, const struct dmm_rule *rule,
			       struct dmm_instance *inst)
{
	if (rule->action == DMM_ACTION_KERNEL)
		return "kernel";
	if (rule->action == DMM_ACTION_REJECT)
		return "reject";
	return dmm_view_instance(view, rule->instance, inst) == 0 ? inst->stack : NULL;
}

static int add_rule(struct json_object *items, struct dmm_view *view,
		    const struct dmm_gen_meta *meta, uint32_t index)
{
	struct json_object *item;
	struct dmm_instance inst;
	struct dmm_rule rule;
	uint64_t now = dmm_now_ns();
	int r = dmm_view_rule(view, index, &rule);

	if (r < 0)
		return r;
	item = json_object_new_object();
	dmm_json_set_text(item, "name", rule.name);
	dmm_json_set_bool(item, "builtin", false);
	dmm_json_set_text(item, "action", rule_action(view, &rule, &inst));
	if (rule.action == DMM_ACTION_STACK)
		dmm_json_set_text(item, "on_unavailable",
				  rule.on_unavailable == DMM_UNAVAILABLE_REJECT ? "reject"
										: "kernel");
	dmm_json_set_u64(item, "hits", rule.hits);
	if (rule.last_hit_ns)
		dmm_json_set_u64(item, "last_hit_ms",
				 now > rule.last_hit_ns ? (now - rule.last_hit_ns) / DMM_NS_PER_MS
							: 0);
	dmm_json_set_textf(item, "place", "%s:%u:%u", meta->source, rule.line, rule.column);
	json_object_array_add(items, item);
	return 0;
}

int cmd_get_rules(struct ctl *ctl)
{
	static const struct column columns[] = {
		{ "RULE", "name", CELL_TEXT },
		{ "ACTION", "action", CELL_TEXT },
		{ "IF DOWN", "on_unavailable", CELL_TEXT },
		{ "HITS", "hits", CELL_TEXT },
		{ "LAST", "last_hit_ms", CELL_AGE },
		{ "PLACE", "place", CELL_TEXT },
	};
	struct json_object *items = json_object_new_array();
	struct dmm_view *view = NULL;
	struct dmm_gen_meta meta;
	int err, r = open_view(ctl, &view);

	if (r != CTL_OK) {
		json_object_put(items);
		return r;
	}
	add_builtins(items, view);
	err = dmm_view_meta(view, &meta);
	for (uint32_t i = 0; err == 0 && meta.generation && i <= meta.n_rules; i++)
		err = add_rule(items, view, &meta, i);
	dmm_view_close(view);
	if (err < 0) {
		json_object_put(items);
		return fail(ctl, exit_of(err), err, NULL, "reading the live rules");
	}
	return print_list(ctl, "RuleList", items, columns, DMM_ARRAY_SIZE(columns));
}
