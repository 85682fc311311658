/* SPDX-License-Identifier: Apache-2.0 */
/* flows list: every classified connection, from the pinned maps or, for those who may not read them,
 * from dmmd; both give the same objects. */
#include "dmmctl.h"

#include "base/clock.h"
#include "ctl/report.h"

struct filter {
	const char *word;
	const char *key;
	enum {
		BY_TEXT,
		BY_STATE,
		BY_REASON,
		BY_NUMBER,
		BY_PORT /* the key's text ends in it */
	} by;
	const char *value; /* NULL: not asked for */
};

static bool is_reason(const char *word)
{
	for (int reason = 0; reason < DMM_NUM_REASONS; reason++)
		if (dmm_streq(dmm_reason_word(reason), word))
			return true;
	return false;
}

static bool is_number(const char *text, unsigned long max)
{
	return text[0] && !text[strspn(text, "0123456789")] && strtoul(text, NULL, 10) <= max;
}

/* A value that no flow can have is a slip, else nothing would be listed without a word: what it should
 * be, or NULL. */
static const char *impossible(const struct filter *filter)
{
	const char *value = filter->value;

	switch (filter->by) {
	case BY_STATE:
		return dmm_report_flow_state(value) >= 0
			       ? NULL
			       : "is none of connecting, established, closing, closed, failed, reset";
	case BY_REASON:
		return is_reason(value) ? NULL : "is no reason (`dmmctl stats --all` has them)";
	case BY_NUMBER:
		return is_number(value, UINT32_MAX) ? NULL : "is not a number";
	case BY_PORT:
		return is_number(value, 65535) ? NULL : "is not a port";
	default:
		return NULL;
	}
}

static int parse_filters(const struct ctl *ctl, struct filter *filters, unsigned int n)
{
	char text[192];

	for (int i = 0; i < ctl->argc; i += 2) {
		struct filter *found = NULL;
		const char *why;

		for (unsigned int f = 0; f < n; f++)
			if (dmm_streq(filters[f].word, ctl->argv[i]))
				found = &filters[f];
		if (!found || i + 1 == ctl->argc) {
			snprintf(text, sizeof(text),
				 found ? "filter %.40s needs a value" : "unknown filter %.40s",
				 ctl->argv[i]);
			return usage(ctl, text);
		}
		found->value = ctl->argv[i + 1];
		why = impossible(found);
		if (why) {
			snprintf(text, sizeof(text), "%s: '%.40s' %s", found->word, found->value,
				 why);
			return usage(ctl, text);
		}
	}
	return CTL_OK;
}

static bool passes(struct json_object *flow, const struct filter *filters, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		const char *text = get_text(flow, filters[i].key);

		if (filters[i].by == BY_PORT && strrchr(text, ':'))
			text = strrchr(text, ':') + 1;
		if (filters[i].value && !dmm_streq(text, filters[i].value))
			return false;
	}
	return true;
}

static struct json_object *filtered(struct json_object *flows, const struct filter *filters,
				    unsigned int n)
{
	struct json_object *out = json_object_new_array();

	for (size_t i = 0; i < json_object_array_length(flows); i++) {
		struct json_object *flow = json_object_array_get_idx(flows, i);

		if (passes(flow, filters, n))
			json_object_array_add(out, json_object_get(flow));
	}
	json_object_put(flows);
	return out;
}

/* --- from the maps --- */
struct reader {
	struct dmm_view *view;
	struct json_object *flows;
	uint64_t now;
};

static int add_flow(void *ctx, const struct dmm_flow *flow)
{
	struct reader *reader = ctx;

	json_object_array_add(reader->flows, dmm_report_flow(reader->view, reader->now, flow));
	return 0;
}

static int read_flows(const struct ctl *ctl, struct json_object **ret)
{
	struct reader reader = { .now = dmm_now_ns() };
	int err, r = open_view(ctl, &reader.view);

	if (r != CTL_OK)
		return r;
	reader.flows = json_object_new_array();
	err = dmm_view_flows(reader.view, add_flow, &reader);
	dmm_view_close(reader.view);
	if (err < 0) {
		json_object_put(reader.flows);
		return fail(ctl, exit_of(err), err, NULL, "reading the flows");
	}
	*ret = reader.flows;
	return CTL_OK;
}

static int ask_flows(const struct ctl *ctl, struct json_object **ret)
{
	struct json_object *result = NULL;
	int r = ask_daemon(ctl, "flows list", NULL, &result);

	if (r == CTL_OK)
		*ret = json_object_get(get_member(result, "items"));
	json_object_put(result);
	return r;
}

static int by_age(const void *a, const void *b)
{
	uint64_t x = get_u64(*(struct json_object *const *)a, "age_ms");
	uint64_t y = get_u64(*(struct json_object *const *)b, "age_ms");

	return x < y ? -1 : x > y;
}

/* For people: the process in one column. */
static void add_process(struct json_object *flows)
{
	char text[64];

	for (size_t i = 0; i < json_object_array_length(flows); i++) {
		struct json_object *flow = json_object_array_get_idx(flows, i);

		snprintf(text, sizeof(text), "%s/%s", get_text(flow, "pid"),
			 get_text(flow, "comm"));
		dmm_json_set_text(flow, "process", text);
	}
}

int cmd_flows_list(struct ctl *ctl)
{
	static const struct column columns[] = {
		{ "PROTO", "proto", CELL_TEXT },
		{ "STATE", "state", CELL_TEXT },
		{ "LOCAL", "local", CELL_TEXT },
		{ "REMOTE", "remote", CELL_TEXT },
		{ "STACK", "stack", CELL_TEXT },
		{ "RULE", "rule", CELL_TEXT },
		{ "PID/COMM", "process", CELL_TEXT },
		{ "SENT", "bytes_sent", CELL_BYTES },
		{ "RECEIVED", "bytes_received", CELL_BYTES },
		{ "AGE", "age_ms", CELL_AGE },
		{ "REASON", "reason", CELL_TEXT },
	};
	struct filter filters[] = {
		{ "stack", "stack", BY_TEXT, NULL },  { "rule", "rule", BY_TEXT, NULL },
		{ "state", "state", BY_STATE, NULL }, { "reason", "reason", BY_REASON, NULL },
		{ "pid", "pid", BY_NUMBER, NULL },    { "comm", "comm", BY_TEXT, NULL },
		{ "dport", "remote", BY_PORT, NULL }, { "sport", "local", BY_PORT, NULL },
	};
	struct json_object *flows = NULL;
	int r = parse_filters(ctl, filters, DMM_ARRAY_SIZE(filters));

	if (r == CTL_OK)
		r = geteuid() == 0 ? read_flows(ctl, &flows) : ask_flows(ctl, &flows);
	if (r != CTL_OK)
		return r;
	flows = filtered(flows, filters, DMM_ARRAY_SIZE(filters));
	json_object_array_sort(flows, by_age);
	if (!is_json(ctl))
		add_process(flows);
	return print_list(ctl, "FlowList", flows, columns, DMM_ARRAY_SIZE(columns));
}
