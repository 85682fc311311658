/* SPDX-License-Identifier: Apache-2.0 */
/* The flow list, for those who may not read the pinned maps themselves. */
#include <arpa/inet.h>

#include "base/clock.h"
#include "base/util.h"
#include "ctl/json.h"
#include "dmmd/dmmd.h"
#include "dmmd/report.h"

struct listing {
	struct dmmd *d;
	struct json_object *items;
	uint64_t limit, total;
	uint64_t now;
};

static const char *state_word(enum dmm_flow_state state)
{
	static const char *const words[] = { "connecting", "established", "closing",
					     "closed",	   "failed",	  "reset" };

	return state < DMM_ARRAY_SIZE(words) ? words[state] : "?";
}

static const char *verdict_word(enum dmm_verdict verdict)
{
	static const char *const words[] = { "none", "kernel", "userspace", "reject" };

	return verdict < DMM_ARRAY_SIZE(words) ? words[verdict] : "?";
}

static void set_endpoint(struct json_object *obj, const char *key, const uint8_t addr[16],
			 uint16_t port)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	char text[INET6_ADDRSTRLEN];

	if (memcmp(addr, mapped, sizeof(mapped)) == 0)
		dmm_json_set_textf(obj, key, "%s:%u",
				   inet_ntop(AF_INET, addr + 12, text, sizeof(text)), ntohs(port));
	else
		dmm_json_set_textf(obj, key, "[%s]:%u",
				   inet_ntop(AF_INET6, addr, text, sizeof(text)), ntohs(port));
}

/* Names of the kernel's need not be UTF-8; JSON must be. */
static void set_name(struct json_object *obj, const char *key, const char *name, size_t size)
{
	char text[DMM_NAME_LEN + 1];
	size_t n = 0;

	for (; n < size && n < sizeof(text) - 1 && name[n]; n++)
		text[n] = (unsigned char)name[n] < 0x20 || (unsigned char)name[n] >= 0x7f ? '?'
											  : name[n];
	text[n] = '\0';
	dmm_json_set_text(obj, key, text);
}

static uint64_t since_ms(uint64_t now, uint64_t then)
{
	return now > then ? (now - then) / DMM_NS_PER_MS : 0;
}

static void set_stack(struct dmmd *d, struct json_object *obj, const struct dmm_flow *flow)
{
	struct dmm_instance inst;

	if (flow->verdict == DMM_VERDICT_USERSPACE &&
	    dmm_view_instance(d->view, flow->instance, &inst) == 0)
		set_name(obj, "stack", inst.stack, sizeof(inst.stack));
	else
		dmm_json_set_text(obj, "stack",
				  flow->verdict == DMM_VERDICT_KERNEL ? "kernel" : NULL);
}

static struct json_object *flow_item(struct listing *list, uint64_t cookie,
				     const struct dmm_flow *flow)
{
	struct json_object *obj = json_object_new_object();

	dmm_json_set_u64(obj, "cookie", cookie);
	dmm_json_set_text(obj, "state", state_word(flow->state));
	dmm_json_set_text(obj, "verdict", verdict_word(flow->verdict));
	dmm_json_set_text(obj, "reason", dmm_reason_word(flow->reason));
	dmm_json_set_text(obj, "family", flow->family == DMM_FAMILY_V4 ? "ipv4" : "ipv6");
	dmm_json_set_text(obj, "proto", flow->proto == DMM_PROTO_TCP ? "tcp" : "udp");
	set_stack(list->d, obj, flow);
	set_name(obj, "rule", flow->rule, sizeof(flow->rule));
	dmm_json_set_u64(obj, "generation", flow->generation);
	set_endpoint(obj, "local", flow->local, flow->local_port);
	set_endpoint(obj, "remote", flow->remote, flow->remote_port);
	dmm_json_set_u64(obj, "pid", flow->pid);
	set_name(obj, "comm", flow->comm, sizeof(flow->comm));
	dmm_json_set_u64(obj, "uid", flow->uid);
	dmm_json_set_u64(obj, "cgroup_id", flow->cgroup);
	dmm_json_set_u64(obj, "age_ms", since_ms(list->now, flow->opened_ns));
	if (flow->closed_ns)
		dmm_json_set_u64(obj, "closed_ms", since_ms(list->now, flow->closed_ns));
	else
		dmm_json_set_text(obj, "closed_ms", NULL);
	dmm_json_set_u64(obj, "bytes_sent", flow->bytes_sent);
	dmm_json_set_u64(obj, "bytes_received", flow->bytes_received);
	return obj;
}

static int add_flow(void *ctx, uint64_t cookie, const struct dmm_flow *flow)
{
	struct listing *list = ctx;

	if (list->total++ < list->limit)
		json_object_array_add(list->items, flow_item(list, cookie, flow));
	return 0;
}

struct json_object *dmmd_report_flows(struct dmmd *d, uint64_t limit)
{
	struct json_object *doc = dmm_json_document("FlowList");
	struct listing list = {
		.d = d, .items = json_object_new_array(), .limit = limit, .now = dmm_now_ns()
	};

	dmm_view_flows(d->view, add_flow, &list);
	json_object_object_add(doc, "items", list.items);
	dmm_json_set_u64(doc, "total", list.total);
	dmm_json_set_bool(doc, "truncated", list.total > limit);
	return doc;
}
