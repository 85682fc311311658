/* SPDX-License-Identifier: Apache-2.0 */
/* flows list: every classified connection, from the pinned maps or, for those who may not read them,
 * from dmmd; both give the same objects. */
#include "dmmctl.h"

#include <arpa/inet.h>
#include <errno.h>

#include "base/clock.h"
#include "steer/view.h"

struct filter {
	const char *word;
	const char *key;
	bool port;	   /* the key's text ends in it */
	const char *value; /* NULL: not asked for */
};

static int parse_filters(const struct ctl *ctl, struct filter *filters, unsigned int n)
{
	char text[128];

	for (int i = 0; i < ctl->argc; i += 2) {
		struct filter *found = NULL;

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
	}
	return CTL_OK;
}

static bool passes(struct json_object *flow, const struct filter *filters, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		const char *text = get_text(flow, filters[i].key);

		if (filters[i].port && strrchr(text, ':'))
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
	const char *stacks[DMM_MAX_INSTANCES]; /* names seen, NULL: not asked yet */
	struct dmm_instance instances[DMM_MAX_INSTANCES];
};

static const char *stack_of(struct reader *reader, const struct dmm_flow *flow)
{
	uint32_t id = flow->instance;

	if (flow->verdict == DMM_VERDICT_KERNEL)
		return "kernel";
	if (flow->verdict != DMM_VERDICT_USERSPACE || id >= DMM_MAX_INSTANCES)
		return NULL;
	if (!reader->stacks[id] &&
	    dmm_view_instance(reader->view, id, &reader->instances[id]) == 0)
		reader->stacks[id] = reader->instances[id].stack;
	return reader->stacks[id];
}

static const char *state_word(enum dmm_flow_state state)
{
	static const char *const words[] = { "connecting", "established", "closing",
					     "closed",	   "failed",	  "reset" };

	return state < DMM_ARRAY_SIZE(words) ? words[state] : "?";
}

static struct json_object *since(const struct reader *reader, uint64_t ns)
{
	return json_object_new_uint64(reader->now > ns ? (reader->now - ns) / DMM_NS_PER_MS : 0);
}

static int add_flow(void *ctx, uint64_t cookie, const struct dmm_flow *flow)
{
	bool over = flow->state >= DMM_FLOW_CLOSED;
	struct json_object *item = json_object_new_object();
	struct reader *reader = ctx;
	char text[96];

	dmm_json_set_u64(item, "cookie", cookie);
	dmm_json_set_text(item, "proto", flow->proto == DMM_PROTO_TCP ? "tcp" : "udp");
	dmm_json_set_text(item, "family", flow->family == DMM_FAMILY_V4 ? "ipv4" : "ipv6");
	dmm_json_set_text(item, "state", state_word(flow->state));
	format_endpoint(flow->local, ntohs(flow->local_port), text, sizeof(text));
	dmm_json_set_text(item, "local", text);
	format_endpoint(flow->remote, ntohs(flow->remote_port), text, sizeof(text));
	dmm_json_set_text(item, "remote", text);
	dmm_json_set_text(item, "stack", stack_of(reader, flow));
	dmm_json_set_text(item, "rule", flow->rule);
	dmm_json_set_text(item, "reason", dmm_reason_word(flow->reason));
	dmm_json_set_u64(item, "generation", flow->generation);
	dmm_json_set_u64(item, "pid", flow->pid);
	dmm_json_set_text(item, "comm", flow->comm);
	dmm_json_set_u64(item, "uid", flow->uid);
	dmm_json_set_u64(item, "cgroup_id", flow->cgroup);
	json_object_object_add(item, "age_ms", since(reader, flow->opened_ns));
	json_object_object_add(item, "closed_ms", over ? since(reader, flow->closed_ns) : NULL);
	/* the kernel keeps count while the socket lives; the map learns of it at the end */
	json_object_object_add(item, "bytes_sent",
			       over ? json_object_new_uint64(flow->bytes_sent) : NULL);
	json_object_object_add(item, "bytes_received",
			       over ? json_object_new_uint64(flow->bytes_received) : NULL);
	json_object_array_add(reader->flows, item);
	return 0;
}

static int read_flows(const struct ctl *ctl, struct json_object **ret)
{
	struct reader *reader = calloc(1, sizeof(*reader));
	int r;

	if (!reader)
		return fail(ctl, CTL_FAILED, -ENOMEM, NULL, "flows");
	reader->flows = json_object_new_array();
	reader->now = dmm_now_ns();
	r = open_view(ctl, &reader->view);
	if (r == CTL_OK) {
		int err = dmm_view_flows(reader->view, add_flow, reader);

		if (err < 0)
			r = fail(ctl, exit_of(err), err, NULL, "reading the flows");
		dmm_view_close(reader->view);
	}
	if (r == CTL_OK)
		*ret = reader->flows;
	else
		json_object_put(reader->flows);
	free(reader);
	return r;
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

		snprintf(text, sizeof(text), "%s/%s", get_text(flow, "pid"), get_text(flow, "comm"));
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
		{ "stack", "stack", false, NULL }, { "rule", "rule", false, NULL },
		{ "state", "state", false, NULL }, { "reason", "reason", false, NULL },
		{ "pid", "pid", false, NULL },	   { "comm", "comm", false, NULL },
		{ "dport", "remote", true, NULL }, { "sport", "local", true, NULL },
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
