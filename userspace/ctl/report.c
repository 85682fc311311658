/* SPDX-License-Identifier: Apache-2.0 */
/* Findings, flows and counters as JSON. */
#include "ctl/report.h"

#include <errno.h>

#include <arpa/inet.h>

#include "base/clock.h"
#include "base/util.h"
#include "ctl/json.h"

/* --- findings --- */

static struct json_object *finding_json(const struct dmm_finding *finding)
{
	struct json_object *item = json_object_new_object();
	bool error = finding->severity == DMM_SEVERITY_ERROR;

	dmm_json_set_text(item, "severity", error ? "error" : "warning");
	dmm_json_set_textf(item, "code", "%c%03u", error ? 'E' : 'W', finding->code);
	dmm_json_set_u64(item, "line", finding->place.line);
	dmm_json_set_u64(item, "column", finding->place.column);
	dmm_json_set_text(item, "text", finding->text);
	if (finding->hint)
		dmm_json_set_text(item, "hint", finding->hint);
	return item;
}

struct json_object *dmm_report_findings(const struct dmm_findings *found)
{
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < found->n; i++)
		json_object_array_add(list, finding_json(&found->items[i]));
	return list;
}

/* --- flows --- */

static const char *const state_words[] = { "connecting", "established", "closing",
					   "closed",	 "failed",	"reset" };

static const char *state_word(enum dmm_flow_state state)
{
	return state < DMM_ARRAY_SIZE(state_words) ? state_words[state] : "?";
}

int dmm_report_flow_state(const char *word)
{
	for (unsigned int i = 0; i < DMM_ARRAY_SIZE(state_words); i++)
		if (dmm_streq(state_words[i], word))
			return i;
	return -EINVAL;
}

const char *dmm_report_verdict(enum dmm_verdict verdict)
{
	static const char *const words[] = { "none", "kernel", "userspace", "reject" };

	return verdict < DMM_ARRAY_SIZE(words) ? words[verdict] : "?";
}

void dmm_report_endpoint(const uint8_t addr[16], uint16_t port, char *buf, size_t size)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	bool v4 = memcmp(addr, mapped, sizeof(mapped)) == 0;
	char text[INET6_ADDRSTRLEN];

	inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? addr + 12 : addr, text, sizeof(text));
	snprintf(buf, size, v4 ? "%s:%u" : "[%s]:%u", text, ntohs(port));
}

static void set_endpoint(struct json_object *obj, const char *key, const uint8_t addr[16],
			 uint16_t port)
{
	char text[INET6_ADDRSTRLEN + 10];

	dmm_report_endpoint(addr, port, text, sizeof(text));
	dmm_json_set_text(obj, key, text);
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

static void set_stack(struct json_object *obj, struct dmm_view *view, const struct dmm_flow *flow)
{
	struct dmm_instance inst;

	if (flow->verdict == DMM_VERDICT_USERSPACE &&
	    dmm_view_instance(view, flow->instance, &inst) == 0)
		set_name(obj, "stack", inst.stack, sizeof(inst.stack));
	else
		dmm_json_set_text(obj, "stack",
				  flow->verdict == DMM_VERDICT_KERNEL ? "kernel" : NULL);
}

static uint64_t since_ms(uint64_t now, uint64_t then)
{
	return now > then ? (now - then) / DMM_NS_PER_MS : 0;
}

struct json_object *dmm_report_flow(struct dmm_view *view, uint64_t now,
				    const struct dmm_flow *flow)
{
	struct json_object *obj = json_object_new_object();

	dmm_json_set_u64(obj, "cookie", flow->cookie);
	dmm_json_set_text(obj, "state", state_word(flow->state));
	dmm_json_set_text(obj, "direction",
			  flow->direction == DMM_DIR_LISTEN ? "listen" : "connect");
	dmm_json_set_text(obj, "verdict", dmm_report_verdict(flow->verdict));
	dmm_json_set_text(obj, "reason", dmm_reason_word(flow->reason));
	dmm_json_set_text(obj, "family", flow->family == DMM_FAMILY_V4 ? "ipv4" : "ipv6");
	dmm_json_set_text(obj, "proto", flow->proto == DMM_PROTO_TCP ? "tcp" : "udp");
	set_stack(obj, view, flow);
	set_name(obj, "rule", flow->rule, sizeof(flow->rule));
	dmm_json_set_u64(obj, "generation", flow->generation);
	set_endpoint(obj, "local", flow->local, flow->local_port);
	set_endpoint(obj, "remote", flow->remote, flow->remote_port);
	dmm_json_set_u64(obj, "pid", flow->pid);
	set_name(obj, "comm", flow->comm, sizeof(flow->comm));
	dmm_json_set_u64(obj, "uid", flow->uid);
	dmm_json_set_u64(obj, "cgroup_id", flow->cgroup);
	dmm_json_set_u64(obj, "age_ms", since_ms(now, flow->opened_ns));
	if (flow->closed_ns)
		dmm_json_set_u64(obj, "closed_ms", since_ms(now, flow->closed_ns));
	else
		dmm_json_set_text(obj, "closed_ms", NULL);
	dmm_json_set_u64(obj, "bytes_sent", flow->bytes_sent);
	dmm_json_set_u64(obj, "bytes_received", flow->bytes_received);
	return obj;
}

/* --- counters --- */

struct json_object *dmm_report_reasons(struct dmm_view *view)
{
	struct json_object *list = json_object_new_array();

	for (int i = DMM_REASON_NONE + 1; i < DMM_NUM_REASONS; i++) {
		struct json_object *item = json_object_new_object();
		uint64_t count = 0;

		dmm_view_counter(view, i, &count);
		dmm_json_set_text(item, "reason", dmm_reason_word(i));
		dmm_json_set_text(item, "text", dmm_reason_text(i));
		dmm_json_set_u64(item, "count", count);
		json_object_array_add(list, item);
	}
	return list;
}

void dmm_report_counters(struct json_object *obj, const struct dmm_inst_shared *shared)
{
	const struct {
		const char *key;
		uint64_t value;
	} counters[] = {
		{ "flows", shared->flows },
		{ "flows_opened", shared->flows_opened },
		{ "flows_refused", shared->flows_refused },
		{ "flows_timed_out", shared->flows_timed_out },
		{ "flows_reset", shared->flows_reset },
		{ "clients_dropped", shared->clients_dropped },
		{ "cookies_sent", shared->cookies_sent },
		{ "cookies_taken", shared->cookies_taken },
		{ "memory_bytes", shared->memory_bytes },
		{ "rx_packets", shared->rx_packets },
		{ "rx_bytes", shared->rx_bytes },
		{ "rx_dropped", shared->rx_dropped },
		{ "tx_packets", shared->tx_packets },
		{ "tx_bytes", shared->tx_bytes },
		{ "tx_no_frame", shared->tx_no_frame },
		{ "no_neighbour", shared->no_neighbour },
		{ "strangers", shared->strangers },
	};

	for (unsigned int i = 0; i < DMM_ARRAY_SIZE(counters); i++)
		dmm_json_set_u64(obj, counters[i].key, counters[i].value);
}

const char *dmm_report_describe(const char *counter)
{
	static const char *const texts[][2] = {
		{ "xdp_packets", "packets that the flow door led to the instance" },
		{ "xdp_bytes", "their bytes, Ethernet headers included" },
		{ "connects", "connect() calls that the hooks gave to the instance" },
		{ "turned_away",
		  "connect() calls of its rules that went to onUnavailable or stayed" },
		{ "flows", "open now" },
		{ "flows_opened", "connects that succeeded" },
		{ "flows_refused", "connects that ended refused or unreachable" },
		{ "flows_timed_out", "connects that nobody answered" },
		{ "flows_reset", "established flows that ended by a reset" },
		{ "clients_dropped",
		  "SYNs of clients that there was no room for: they come again" },
		{ "cookies_sent",
		  "SYNs of clients answered by a SYN cookie: too many were half open" },
		{ "cookies_taken", "clients that came back with one" },
		{ "memory_bytes", "memory that the plug-in holds for flows now" },
		{ "rx_packets", "packets from the wire" },
		{ "rx_bytes", "their bytes" },
		{ "rx_dropped",
		  "packets that were not for it, or malformed, or for which it was too slow" },
		{ "tx_packets", "packets to the wire" },
		{ "tx_bytes", "their bytes" },
		{ "tx_no_frame", "packets that found no free frame: TCP sends them again" },
		{ "no_neighbour", "packets whose next hop did not answer ARP or ND" },
		{ "strangers",
		  "connections to the relay's port that no hook had registered: reset" },
	};

	for (unsigned int i = 0; i < DMM_ARRAY_SIZE(texts); i++)
		if (dmm_streq(texts[i][0], counter))
			return texts[i][1];
	return "";
}

void dmm_report_doors(struct json_object *obj, struct dmm_view *view, uint32_t id)
{
	struct dmm_inst_stats stats;

	if (dmm_view_inst_stats(view, id, &stats) < 0)
		return;
	dmm_json_set_u64(obj, "xdp_packets", stats.packets);
	dmm_json_set_u64(obj, "xdp_bytes", stats.bytes);
	dmm_json_set_u64(obj, "connects", stats.connects);
	dmm_json_set_u64(obj, "turned_away", stats.rejects);
}
