/* SPDX-License-Identifier: Apache-2.0 */
/* explain: what the doors would do with a connect, or with a client of a server, decided by their own
 * source on their own maps; no dmmd needed. The steps are told in the order of <dmm/abi/decide.h>. */
#include "dmmctl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>

#include "ctl/report.h"

struct question {
	struct caller caller;
	enum dmm_direction direction;
	uint8_t remote[16], local[16]; /* local: of listen */
	uint16_t port;		       /* the server's */
	char endpoint[80];	       /* its address */
	char client[80];	       /* of listen */
};

struct answer {
	struct dmm_config config;
	struct dmm_gen_meta meta;
	struct dmm_decision decision;
	struct dmm_instance instance; /* of the matched rule, where has_instance */
	bool has_instance;
	bool other_netns;
	bool not_attached; /* no hook runs there: the policy is not asked */
	bool assumed; /* nobody said who calls: what the policy says to one in no cgroup of its */
	bool names_known; /* this is the served namespace: its ifindexes have their names here */
};

#define NOT_ATTACHED "not-attached"

/* What may decide before the rules, and after a rule that names a stack. */
static const enum dmm_reason before[] = { DMM_REASON_LOOPBACK, DMM_REASON_MULTICAST,
					  DMM_REASON_SCOPED, DMM_REASON_OWN_ADDRESS };
static const enum dmm_reason after[] = { DMM_REASON_NO_ROUTE, DMM_REASON_ROUTE,
					 DMM_REASON_OTHER_NETNS, DMM_REASON_INST_NOT_READY,
					 DMM_REASON_INST_STALE };
static const enum dmm_reason after_listen[] = { DMM_REASON_NO_ROUTE, DMM_REASON_ROUTE,
						DMM_REASON_INST_NOT_READY, DMM_REASON_INST_STALE };

static const char *state_word(enum dmm_inst_state state)
{
	static const char *const words[] = { "free", "starting", "ready", "draining",
					     "not running" };

	return state < DMM_ARRAY_SIZE(words) ? words[state] : "?";
}

static const char *action_word(const struct answer *answer)
{
	switch (answer->decision.matched.action) {
	case DMM_ACTION_KERNEL:
		return "kernel";
	case DMM_ACTION_REJECT:
		return "reject";
	default:
		return answer->has_instance ? answer->instance.stack : "a stack that is gone";
	}
}

static bool matched_a_rule(const struct answer *answer)
{
	return answer->decision.rule <= answer->meta.n_rules; /* the last is the default */
}

static bool wants_stack(const struct answer *answer)
{
	return matched_a_rule(answer) && answer->decision.matched.action == DMM_ACTION_STACK;
}

/* --- asking --- */
static int parse_client(struct ctl *ctl, struct question *ret)
{
	int n = ctl->argc - 4; /* words of the server's address */

	if (n < 1 || !dmm_streq(ctl->argv[ctl->argc - 2], "from") ||
	    !parse_address(ctl->argv[ctl->argc - 1], ret->remote) ||
	    !parse_endpoint(ctl->argv + 2, n, ret->local, &ret->port))
		return usage(ctl, "a client looks like `tcp listen 10.1.2.3:443 from 192.0.2.7`");
	if (dmm_addr_is_v4(ret->local) != dmm_addr_is_v4(ret->remote))
		return usage(ctl, "server and client have addresses of one IP version");
	ret->direction = DMM_DIR_LISTEN;
	dmm_report_endpoint(ret->local, htons(ret->port), ret->endpoint, sizeof(ret->endpoint));
	snprintf(ret->client, sizeof(ret->client), "%s", ctl->argv[ctl->argc - 1]);
	return find_caller(ctl, &ret->caller);
}

static int parse_question(struct ctl *ctl, struct question *ret)
{
	if (ctl->argc >= 3 && dmm_streq(ctl->argv[0], "tcp") && dmm_streq(ctl->argv[1], "listen"))
		return parse_client(ctl, ret);
	if (ctl->argc < 3 || !dmm_streq(ctl->argv[0], "tcp") || !dmm_streq(ctl->argv[1], "connect"))
		return usage(ctl, "explain what? `tcp connect` and an address, or `tcp listen`");
	if (!parse_endpoint(ctl->argv + 2, ctl->argc - 2, ret->remote, &ret->port))
		return usage(ctl, "an address looks like 10.1.2.3:443 or [fd00::1]:443");
	dmm_report_endpoint(ret->remote, htons(ret->port), ret->endpoint, sizeof(ret->endpoint));
	return find_caller(ctl, &ret->caller);
}

/* Do the connect hooks run for sockets of @caller's cgroup: is it, or one above it, attached? */
static bool is_attached(const struct ctl *ctl, const struct caller *caller)
{
	char path[sizeof(ctl->bpffs) + 64];

	for (unsigned int i = 0; i < caller->n_ids; i++) {
		snprintf(path, sizeof(path), "%s/links/cgroup-%llu-connect4", ctl->bpffs,
			 (unsigned long long)caller->ids[i]);
		if (access(path, F_OK) == 0)
			return true;
	}
	return false;
}

/* What the hook asks of the socket, before it asks for the instance. */
static bool asks_netns(const struct dmm_decision *decision)
{
	return decision->verdict == DMM_VERDICT_USERSPACE ||
	       decision->reason == DMM_REASON_INST_NOT_READY ||
	       decision->reason == DMM_REASON_INST_STALE;
}

static int decide(const struct ctl *ctl, struct dmm_view *view, const struct question *question,
		  struct answer *ret)
{
	const struct caller *caller = &question->caller;
	uint32_t class_id;
	int r = dmm_view_config(view, &ret->config);

	if (r == 0)
		r = dmm_view_meta(view, &ret->meta);
	if (r == 0)
		r = dmm_view_class(view, caller->ids, caller->n_ids, caller->uid, caller->comm,
				   &class_id);
	if (r < 0 || ret->meta.generation == 0)
		return r < 0 ? r : -ENODATA;
	if (question->direction == DMM_DIR_LISTEN)
		r = dmm_view_decide_client(view, class_id, question->local, question->port,
					   question->remote, &ret->decision);
	else
		r = dmm_view_decide(view, class_id, DMM_PROTO_TCP, question->remote, question->port,
				    &ret->decision);
	if (r < 0)
		return r;
	ret->has_instance =
		wants_stack(ret) &&
		dmm_view_instance(view, ret->decision.matched.instance, &ret->instance) == 0;
	ret->other_netns = caller->netns && caller->netns != ret->config.netns_cookie;
	if (ret->other_netns && asks_netns(&ret->decision)) {
		ret->decision.verdict = DMM_VERDICT_KERNEL;
		ret->decision.reason = DMM_REASON_OTHER_NETNS;
	}
	ret->names_known = own_netns() == ret->config.netns_cookie;
	/* without a caller the question is what the policy says, not who asks it */
	ret->assumed = !ctl->opt[OPT_CGROUP] && !ctl->opt[OPT_PID];
	ret->not_attached = !ret->assumed && !is_attached(ctl, caller);
	if (ret->not_attached)
		ret->decision.verdict = DMM_VERDICT_KERNEL;
	return 0;
}

/* --- telling --- */
static void add_checks(struct json_object *list, const enum dmm_reason *reasons, unsigned int n,
		       enum dmm_reason decided, bool netns_known)
{
	for (unsigned int i = 0; i < n; i++) {
		struct json_object *check;

		/* where the caller's namespace is not known, nothing is said about it */
		if (reasons[i] == DMM_REASON_OTHER_NETNS && !netns_known)
			continue;
		check = json_object_new_object();

		dmm_json_set_text(check, "name", dmm_reason_word(reasons[i]));
		dmm_json_set_bool(check, "decided", decided == reasons[i]);
		dmm_json_set_text(check, "text", dmm_reason_text(reasons[i]));
		json_object_array_add(list, check);
		if (decided == reasons[i])
			return; /* nothing after it was asked */
	}
}

static struct json_object *rule_json(const struct answer *answer)
{
	const struct dmm_rule *rule = &answer->decision.matched;
	struct json_object *obj = json_object_new_object();

	dmm_json_set_text(obj, "name", rule->name);
	dmm_json_set_u64(obj, "number", answer->decision.rule + 1);
	dmm_json_set_text(obj, "file", answer->meta.source);
	dmm_json_set_u64(obj, "line", rule->line);
	dmm_json_set_u64(obj, "column", rule->column);
	dmm_json_set_text(obj, "action", action_word(answer));
	if (wants_stack(answer))
		dmm_json_set_text(obj, "on_unavailable",
				  rule->on_unavailable == DMM_UNAVAILABLE_REJECT ? "reject"
										 : "kernel");
	return obj;
}

static struct json_object *instance_json(const struct answer *answer)
{
	struct json_object *obj = json_object_new_object();
	const struct dmm_decision *decision = &answer->decision;
	char ifname[IF_NAMESIZE + 16] = "", source[80];

	dmm_json_set_text(obj, "name", answer->instance.name);
	dmm_json_set_text(obj, "state", state_word(answer->instance.state));
	if (decision->beat_age_ns != UINT64_MAX)
		dmm_json_set_u64(obj, "heartbeat_ms", decision->beat_age_ns / 1000000);
	if (decision->has_route && decision->route.ifindex) {
		dmm_report_endpoint(decision->route.source, 0, source, sizeof(source));
		*strrchr(source, ':') = '\0';
		if (!answer->names_known || !if_indextoname(decision->route.ifindex, ifname))
			snprintf(ifname, sizeof(ifname), "ifindex %u", decision->route.ifindex);
		dmm_json_set_u64(obj, "route_ifindex", decision->route.ifindex);
		dmm_json_set_text(obj, "route_interface", ifname);
		dmm_json_set_text(obj, "route_source", decision->route.has_source ? source : NULL);
	}
	return obj;
}

static struct json_object *caller_json(const struct question *question, const struct answer *answer)
{
	const struct caller *caller = &question->caller;
	struct json_object *obj = json_object_new_object();

	if (caller->pid) {
		dmm_json_set_u64(obj, "pid", caller->pid);
		dmm_json_set_text(obj, "comm", caller->comm);
		dmm_json_set_u64(obj, "uid", caller->uid);
	}
	dmm_json_set_text(obj, "cgroup", caller->cgroup);
	dmm_json_set_u64(obj, "class", answer->decision.class_id);
	dmm_json_set_bool(obj, "attached", !answer->not_attached);
	dmm_json_set_bool(obj, "assumed", answer->assumed);
	return obj;
}

static struct json_object *explanation(const struct question *question, const struct answer *answer)
{
	bool netns_known = question->caller.netns != 0;
	bool listens = question->direction == DMM_DIR_LISTEN;
	struct json_object *doc = dmm_json_document("Explanation"),
			   *flow = json_object_new_object();
	const struct dmm_decision *decision = &answer->decision;
	struct json_object *checks = json_object_new_array();

	dmm_json_set_text(flow, "proto", "tcp");
	dmm_json_set_text(flow, "direction", listens ? "listen" : "connect");
	if (listens)
		dmm_json_set_text(flow, "local", question->endpoint);
	dmm_json_set_text(flow, "remote", listens ? question->client : question->endpoint);
	json_object_object_add(doc, "flow", flow);
	json_object_object_add(doc, "caller", caller_json(question, answer));
	dmm_json_set_text(doc, "policy", answer->meta.policy);
	dmm_json_set_u64(doc, "generation", decision->generation);
	if (!listens)
		add_checks(checks, before, DMM_ARRAY_SIZE(before), decision->reason, netns_known);
	if (wants_stack(answer) && listens)
		add_checks(checks, after_listen, DMM_ARRAY_SIZE(after_listen), decision->reason,
			   netns_known);
	else if (wants_stack(answer))
		add_checks(checks, after, DMM_ARRAY_SIZE(after), decision->reason, netns_known);
	json_object_object_add(doc, "checks", checks);
	if (matched_a_rule(answer))
		json_object_object_add(doc, "rule", rule_json(answer));
	if (answer->has_instance)
		json_object_object_add(doc, "instance", instance_json(answer));
	dmm_json_set_text(doc, "verdict", dmm_report_verdict(decision->verdict));
	dmm_json_set_text(doc, "reason",
			  answer->not_attached ? NOT_ATTACHED : dmm_reason_word(decision->reason));
	if (decision->verdict == DMM_VERDICT_USERSPACE)
		dmm_json_set_text(doc, "if_down",
				  get_text(get_member(doc, "rule"), "on_unavailable"));
	return doc;
}

/* First match wins: the rules before it did not match. */
static void print_rules(const struct ctl *ctl, struct dmm_view *view, const struct answer *answer)
{
	uint32_t index = answer->decision.rule, first = 0;
	struct dmm_rule rule;

	if (!ctl->verbose && index > 5) {
		first = index - 4;
		printf("rules 1-%u  no\n", first);
	}
	for (uint32_t i = first; i < index; i++)
		if (dmm_view_rule(view, i, &rule) == 0)
			printf("rule %-3u '%s'  no\n", i + 1, rule.name);
	if (index == answer->meta.n_rules)
		printf("default  %s  %s:%u:%u\n", paint(ctl, COLOR_GOOD, "YES"),
		       answer->meta.source, answer->decision.matched.line,
		       answer->decision.matched.column);
	else
		printf("rule %-3u '%s'  %s  %s:%u:%u\n", index + 1, answer->decision.matched.name,
		       paint(ctl, COLOR_GOOD, "YES"), answer->meta.source,
		       answer->decision.matched.line, answer->decision.matched.column);
}

static void print_checks(const struct ctl *ctl, struct json_object *checks, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++) {
		struct json_object *check = json_object_array_get_idx(checks, i);
		bool decided = get_bool(check, "decided");

		printf("check    %-20s %-4s %s\n", get_text(check, "name"),
		       decided ? paint(ctl, COLOR_WARN, "YES") : "no", get_text(check, "text"));
	}
}

static void print_caller(struct json_object *caller)
{
	printf("caller   ");
	if (get_member(caller, "pid"))
		printf("pid %s (%s)  uid %s  ", get_text(caller, "pid"), get_text(caller, "comm"),
		       get_text(caller, "uid"));
	printf("cgroup %s  class %s%s\n", get_text(caller, "cgroup"), get_text(caller, "class"),
	       get_bool(caller, "assumed")    ? "  (assumed: --cgroup or --pid says whose)"
	       : get_bool(caller, "attached") ? ""
					      : "  NOT ATTACHED");
}

static void print_instance(struct json_object *instance)
{
	char age[32] = "never";

	if (get_member(instance, "heartbeat_ms"))
		snprintf(age, sizeof(age), "%s ms ago", get_text(instance, "heartbeat_ms"));
	printf("state    %s %s, heartbeat %s", get_text(instance, "name"),
	       get_text(instance, "state"), age);
	if (get_member(instance, "route_interface"))
		printf(", route by %s from %s", get_text(instance, "route_interface"),
		       get_text(instance, "route_source"));
	putchar('\n');
}

static void print_verdict(const struct ctl *ctl, struct json_object *doc,
			  const struct answer *answer)
{
	bool listen = dmm_streq(get_text(get_member(doc, "flow"), "direction"), "listen");

	if (answer->not_attached) {
		printf("verdict  %s     (" NOT_ATTACHED
		       ": no hook runs in that cgroup, whatever the "
		       "policy says)\nhint     dmmctl attach --cgroup PATH\n",
		       paint(ctl, COLOR_GOOD, "KERNEL"));
		return;
	}
	switch (answer->decision.verdict) {
	case DMM_VERDICT_USERSPACE:
		printf("verdict  %s     (if it were down: %s)\n",
		       paint(ctl, COLOR_GOOD, "USERSPACE"), get_text(doc, "if_down"));
		break;
	default:
		printf("verdict  %s",
		       answer->decision.verdict == DMM_VERDICT_REJECT
			       ? paint(ctl, COLOR_BAD,
				       listen ? "REJECT (no answer)" : "REJECT (EPERM)")
			       : paint(ctl, COLOR_GOOD, "KERNEL"));
		if (answer->decision.reason != DMM_REASON_RULE)
			printf("     (%s: %s)", dmm_reason_word(answer->decision.reason),
			       dmm_reason_text(answer->decision.reason));
		putchar('\n');
	}
}

static void print_explanation(const struct ctl *ctl, struct dmm_view *view, struct json_object *doc,
			      const struct answer *answer)
{
	struct json_object *checks = get_member(doc, "checks"), *rule = get_member(doc, "rule"),
			   *flow = get_member(doc, "flow");
	bool listens = dmm_streq(get_text(flow, "direction"), "listen");
	size_t n = json_object_array_length(checks);
	size_t n_before = listens ? 0 : DMM_ARRAY_SIZE(before);

	if (listens)
		printf("flow     tcp to a server at %s, from %s\n", get_text(flow, "local"),
		       get_text(flow, "remote"));
	else
		printf("flow     tcp connect to %s\n", get_text(flow, "remote"));
	print_caller(get_member(doc, "caller"));
	printf("policy   %s generation %s\n", get_text(doc, "policy"), get_text(doc, "generation"));
	print_checks(ctl, checks, 0, DMM_MIN(n, n_before));
	if (rule) {
		print_rules(ctl, view, answer);
		printf("action   %s%s\n", wants_stack(answer) ? "stack " : "",
		       get_text(rule, "action"));
		print_checks(ctl, checks, n_before, n);
	}
	if (answer->has_instance)
		print_instance(get_member(doc, "instance"));
	print_verdict(ctl, doc, answer);
}

int cmd_explain(struct ctl *ctl)
{
	struct question question = { 0 };
	struct answer answer = { 0 };
	struct dmm_view *view = NULL;
	struct json_object *doc;
	int r = parse_question(ctl, &question);

	if (r == CTL_OK)
		r = open_view(ctl, &view);
	if (r != CTL_OK)
		return r;
	r = decide(ctl, view, &question, &answer);
	if (r < 0) {
		dmm_view_close(view);
		return fail(ctl, exit_of(r), r == -ENODATA ? 0 : r,
			    r == -ENODATA ? "dmmctl apply FILE" : NULL,
			    r == -ENODATA ? "no policy has been applied"
					  : "reading the live policy");
	}
	doc = explanation(&question, &answer);
	if (!is_json(ctl))
		print_explanation(ctl, view, doc, &answer);
	print_document(ctl, doc);
	dmm_view_close(view);
	return CTL_OK;
}
