/* SPDX-License-Identifier: Apache-2.0 */
/* stats: how often each reason decided, and each instance's counters; from the pinned maps or, for
 * those who may not read them, from dmmd. */
#include "dmmctl.h"

#include <errno.h>

#include "ctl/report.h"

static struct json_object *read_stack(struct dmm_view *view, uint32_t id,
				      struct dmm_inst_shared *shared)
{
	struct dmm_instance inst;
	struct json_object *item;

	if (dmm_view_instance(view, id, &inst) < 0 || inst.state == DMM_INST_FREE)
		return NULL;
	item = json_object_new_object();
	dmm_json_set_text(item, "name", inst.stack);
	dmm_json_set_text(item, "instance", inst.name);
	dmm_report_doors(item, view, id);
	if (dmm_view_shared(view, id, shared, false) == 0)
		dmm_report_counters(item, shared);
	return item;
}

static int read_stats(const struct ctl *ctl, struct json_object **ret)
{
	struct json_object *doc = dmm_json_document("StatsReport"), *stacks;
	dmm_autofree struct dmm_inst_shared *shared = malloc(sizeof(*shared));
	struct dmm_view *view = NULL;
	int r = shared ? open_view(ctl, &view) : fail(ctl, CTL_FAILED, -ENOMEM, NULL, "stats");

	if (r != CTL_OK) {
		json_object_put(doc);
		return r;
	}
	stacks = json_object_new_array();
	for (uint32_t id = 0; id < DMM_MAX_INSTANCES; id++) {
		struct json_object *stack = read_stack(view, id, shared);

		if (stack)
			json_object_array_add(stacks, stack);
	}
	json_object_object_add(doc, "reasons", dmm_report_reasons(view));
	json_object_object_add(doc, "stacks", stacks);
	dmm_view_close(view);
	*ret = doc;
	return CTL_OK;
}

static int by_count(const void *a, const void *b)
{
	uint64_t x = get_u64(*(struct json_object *const *)a, "count");
	uint64_t y = get_u64(*(struct json_object *const *)b, "count");

	return x > y ? -1 : x < y;
}

/* @text: what it means, NULL: not asked for. */
static void print_counter(uint64_t count, const char *name, const char *text)
{
	printf("%12lu  %-*s%s\n", count, text ? 22 : 0, name, text ? text : "");
}

static void print_reasons(const struct ctl *ctl, struct json_object *reasons)
{
	json_object_array_sort(reasons, by_count);
	printf("%12s  REASON\n", "COUNT");
	for (size_t i = 0; i < json_object_array_length(reasons); i++) {
		struct json_object *item = json_object_array_get_idx(reasons, i);
		uint64_t count = get_u64(item, "count");

		if (!count && !ctl->opt[OPT_ALL] && !ctl->opt[OPT_DESCRIBE])
			break; /* sorted: only zeros follow */
		print_counter(count, get_text(item, "reason"),
			      ctl->opt[OPT_DESCRIBE] ? get_text(item, "text") : NULL);
	}
}

static void print_stack(const struct ctl *ctl, struct json_object *stack)
{
	printf("\n%s\n", get_text(stack, "instance"));
	json_object_object_foreach(stack, key, value)
	{
		bool describe = ctl->opt[OPT_DESCRIBE];

		if (!json_object_is_type(value, json_type_int) ||
		    (!json_object_get_uint64(value) && !ctl->opt[OPT_ALL] && !describe))
			continue;
		print_counter(json_object_get_uint64(value), key,
			      describe ? dmm_report_describe(key) : NULL);
	}
}

int cmd_stats(struct ctl *ctl)
{
	struct json_object *doc = NULL, *stacks;
	int r = geteuid() == 0 ? read_stats(ctl, &doc) : ask_daemon(ctl, "stats", NULL, &doc);

	if (r != CTL_OK)
		return r;
	if (!is_json(ctl)) {
		print_reasons(ctl, get_member(doc, "reasons"));
		stacks = get_member(doc, "stacks");
		for (size_t i = 0; stacks && i < json_object_array_length(stacks); i++)
			print_stack(ctl, json_object_array_get_idx(stacks, i));
	}
	print_document(ctl, doc);
	return CTL_OK;
}
