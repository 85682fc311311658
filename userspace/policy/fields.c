/* SPDX-License-Identifier: Apache-2.0 */
/* The policy language as one table: the parser, its suggestions and the JSON Schema read it. */
#include "policy/policy_internal.h"

#include "base/util.h"

#define WORDS(...)                                                                                 \
	(const char *const[])                                                                      \
	{                                                                                          \
		__VA_ARGS__, NULL                                                                  \
	}
#define LATER(n, d)                                                                                \
	{                                                                                          \
		.name = (n), .type = DMM_FIELD_LATER, .doc = (d)                                   \
	}
#define FIELDS(array) .fields = (array), .n_fields = DMM_ARRAY_SIZE(array)

#define IN(type, member) offsetof(struct dmm_policy##type, member)

static const struct dmm_field metadata_fields[] = {
	{ .name = "name",
	  .type = DMM_FIELD_NAME,
	  .need = DMM_REQUIRED,
	  .doc = "Name of the policy, shown wherever its rules are.",
	  .offset = IN(, name) },
	{ .name = "labels",
	  .type = DMM_FIELD_LABELS,
	  .max = 64,
	  .doc = "Words of your own about the policy; DMM does nothing with them." },
};

static const struct dmm_field interface_fields[] = {
	{ .name = "name",
	  .type = DMM_FIELD_IFNAME,
	  .need = DMM_REQUIRED,
	  .doc = "Name of the network interface.",
	  .offset = IN(_interface, name),
	  .place_offset = IN(_interface, place) },
	{ .name = "mode",
	  .type = DMM_FIELD_WORD,
	  .words = WORDS("auto", "native", "generic"),
	  .fallback = "auto",
	  .doc = "How XDP is attached; auto tries native, then generic.",
	  .offset = IN(_interface, mode) },
	{ .name = "zerocopy",
	  .type = DMM_FIELD_WORD,
	  .words = WORDS("auto", "require", "off"),
	  .fallback = "auto",
	  .doc = "Whether the driver must receive straight into the stack's memory.",
	  .offset = IN(_interface, zerocopy) },
	LATER("queues", "Which receive queues the stack takes."),
};

static const struct dmm_field stack_fields[] = {
	{ .name = "name",
	  .type = DMM_FIELD_NAME,
	  .need = DMM_REQUIRED,
	  .doc = "Name of the stack, for rules to name; `kernel` is built in.",
	  .offset = IN(_stack, name),
	  .place_offset = IN(_stack, place) },
	{ .name = "plugin",
	  .type = DMM_FIELD_NAME,
	  .need = DMM_REQUIRED,
	  .doc = "Plug-in that implements the stack, such as lwip.",
	  .offset = IN(_stack, plugin),
	  .place_offset = IN(_stack, plugin_place) },
	{ .name = "backend",
	  .type = DMM_FIELD_BACKEND,
	  .words = WORDS("xsk"),
	  .later = WORDS("dpdk"),
	  .fallback = "xsk",
	  .doc = "What carries its packets: xsk is AF_XDP.",
	  .offset = IN(_stack, backend) },
	{ .name = "interface",
	  .type = DMM_FIELD_IFNAME,
	  .need = DMM_REQUIRED,
	  .doc = "One of spec.interfaces; no two stacks share one.",
	  .offset = IN(_stack, interface),
	  .place_offset = IN(_stack, interface_place) },
	{ .name = "localPorts",
	  .type = DMM_FIELD_RANGE,
	  .min = 1024,
	  .max = 65535,
	  .doc = "Local ports that its outgoing connections use, outside 32768-60999; by default a "
		 "free part of 20000-31999.",
	  .offset = IN(_stack, local_ports),
	  .place_offset = IN(_stack, ports_place) },
	{ .name = "poll",
	  .type = DMM_FIELD_WORD,
	  .words = WORDS("adaptive", "busy"),
	  .later = WORDS("interrupt"),
	  .fallback = "adaptive",
	  .doc = "adaptive sleeps when there is nothing to do, busy burns a core for latency.",
	  .offset = IN(_stack, poll) },
	{ .name = "memory",
	  .type = DMM_FIELD_MEMORY,
	  .min = 64,
	  .max = 64 * 1024,
	  .fallback = "1GiB",
	  .doc = "Private memory that an instance may have, packet frames not counted; beyond it "
		 "allocations fail, and flows with them.",
	  .offset = IN(_stack, memory_mib) },
	{ .name = "instances",
	  .type = DMM_FIELD_NUMBER,
	  .min = 1,
	  .max = DMM_MAX_INSTANCES_OF,
	  .fallback = "1",
	  .doc = "How many processes run the stack; each new flow gets one of them.",
	  .offset = IN(_stack, instances),
	  .place_offset = IN(_stack, instances_place) },
	LATER("cpus", "Which CPUs they run on."),
	LATER("restart", "Whether a dead one is started again."),
	LATER("profile", "Tuning of the stack."),
};

static const struct dmm_field remote_fields[] = {
	{ .name = "cidr",
	  .type = DMM_FIELD_CIDRS,
	  .min = 1,
	  .max = 65536,
	  .doc = "Prefixes, any of which holds; without it any address of either family.",
	  .offset = IN(_rule, remote),
	  .count_offset = IN(_rule, n_remote) },
	{ .name = "except",
	  .type = DMM_FIELD_CIDRS,
	  .min = 1,
	  .max = 65536,
	  .doc = "Prefixes that do not match, whatever cidr says.",
	  .offset = IN(_rule, except),
	  .count_offset = IN(_rule, n_except),
	  .place_offset = IN(_rule, except_place) },
	{ .name = "ports",
	  .type = DMM_FIELD_PORTS,
	  .min = 1,
	  .max = 4096,
	  .doc = "Ports and port ranges, any of which holds; without it any port.",
	  .offset = IN(_rule, ports),
	  .count_offset = IN(_rule, n_ports),
	  .place_offset = IN(_rule, ports_place) },
};

static const struct dmm_object remote_object = {
	.name = "remote",
	.doc = "The other end of the connection.",
	FIELDS(remote_fields),
};

static const struct dmm_field local_fields[] = {
	{ .name = "cidr",
	  .type = DMM_FIELD_CIDRS,
	  .min = 1,
	  .max = 1024,
	  .doc = "Prefixes, any of which holds the address that the client used; without it any.",
	  .offset = IN(_rule, local),
	  .count_offset = IN(_rule, n_local),
	  .place_offset = IN(_rule, local_place) },
	{ .name = "ports",
	  .type = DMM_FIELD_PORTS,
	  .min = 1,
	  .max = 4096,
	  .doc = "Ports and port ranges that the server listens on; without it any.",
	  .offset = IN(_rule, local_ports),
	  .count_offset = IN(_rule, n_local_ports),
	  .place_offset = IN(_rule, local_ports_place) },
};

static const struct dmm_object local_object = {
	.name = "local",
	.doc = "This end of the connection, for direction: listen.",
	FIELDS(local_fields),
};

static const struct dmm_field match_fields[] = {
	{ .name = "cgroup",
	  .type = DMM_FIELD_CGROUP,
	  .doc = "Path below the cgroup root, with all cgroups below it.",
	  .offset = IN(_rule, cgroup),
	  .place_offset = IN(_rule, cgroup_place) },
	{ .name = "proto",
	  .type = DMM_FIELD_PROTO,
	  .words = WORDS("tcp", "udp", "any"),
	  .fallback = "any",
	  .doc = "Transport protocol.",
	  .offset = IN(_rule, proto),
	  .place_offset = IN(_rule, proto_place) },
	{ .name = "direction",
	  .type = DMM_FIELD_DIR,
	  .words = WORDS("connect", "listen", "any"),
	  .fallback = "connect",
	  .doc = "connect: connections that the application opens; listen: its clients'.",
	  .offset = IN(_rule, dir),
	  .place_offset = IN(_rule, dir_place) },
	{ .name = "remote",
	  .type = DMM_FIELD_OBJECT,
	  .doc = "Where the connection goes; of direction: listen where it comes from.",
	  .object = &remote_object },
	{ .name = "uid",
	  .type = DMM_FIELD_UIDS,
	  .min = 1,
	  .max = DMM_MAX_UIDS / 2,
	  .doc = "Users, by name or number, and ranges of numbers: whose process made the socket.",
	  .offset = IN(_rule, uids),
	  .count_offset = IN(_rule, n_uids) },
	{ .name = "comm",
	  .type = DMM_FIELD_COMMS,
	  .min = 1,
	  .max = DMM_MAX_COMMS,
	  .doc = "Names of the process that made the socket, as `ps -o comm` has them. A process can call "
		 "itself anything: a convenience, no protection.",
	  .offset = IN(_rule, comms),
	  .count_offset = IN(_rule, n_comms),
	  .place_offset = IN(_rule, comm_place) },
	LATER("netns", "Network namespace."),
	{ .name = "local",
	  .type = DMM_FIELD_OBJECT,
	  .doc = "Where the application listens.",
	  .object = &local_object },
};

static const struct dmm_object match_object = {
	.name = "match",
	.doc = "Every field given must hold; `{}` matches everything.",
	FIELDS(match_fields),
};

static const struct dmm_field action_fields[] = {
	{ .name = "stack",
	  .type = DMM_FIELD_NAME,
	  .need = DMM_ONE_OF,
	  .list_later = "several stacks with weights",
	  .doc = "kernel, or one of spec.stacks.",
	  .offset = IN(_rule, stack),
	  .place_offset = IN(_rule, stack_place) },
	{ .name = "reject",
	  .type = DMM_FIELD_REJECT,
	  .need = DMM_ONE_OF,
	  .doc = "true: connect() of TCP fails with EPERM; of direction: listen clients that come by a "
		 "stack's interface get no answer.",
	  .offset = IN(_rule, action) },
	{ .name = "onUnavailable",
	  .type = DMM_FIELD_WORD,
	  .words = WORDS("kernel", "reject"),
	  .fallback = "kernel",
	  .doc = "What new connections get while the stack has no ready instance.",
	  .offset = IN(_rule, on_unavailable),
	  .place_offset = IN(_rule, unavailable_place) },
	LATER("profile", "Tuning of the connection."),
};

static const struct dmm_object action_object = {
	.name = "action",
	.doc = "Who carries the connection.",
	FIELDS(action_fields),
};

static const struct dmm_object default_object = {
	.name = "default",
	.doc = "The action where no rule matches.",
	FIELDS(action_fields),
};

static const struct dmm_field rule_fields[] = {
	{ .name = "name",
	  .type = DMM_FIELD_NAME,
	  .need = DMM_REQUIRED,
	  .doc = "Name of the rule, unique; shown with every connection it decides.",
	  .offset = IN(_rule, name),
	  .place_offset = IN(_rule, place) },
	{ .name = "match",
	  .type = DMM_FIELD_OBJECT,
	  .need = DMM_REQUIRED,
	  .doc = "What the rule is about; `{}` is everything.",
	  .object = &match_object },
	{ .name = "action",
	  .type = DMM_FIELD_OBJECT,
	  .need = DMM_REQUIRED,
	  .doc = "Who carries the connection.",
	  .object = &action_object },
};

static const struct dmm_object metadata_object = {
	.name = "metadata",
	.doc = "What the policy is called.",
	FIELDS(metadata_fields),
};

static const struct dmm_object interface_object = {
	.name = "interface",
	.doc = "A network interface that a stack uses.",
	FIELDS(interface_fields),
	.size = sizeof(struct dmm_policy_interface),
};

static const struct dmm_object stack_object = {
	.name = "stack",
	.doc = "A userspace network stack.",
	FIELDS(stack_fields),
	.size = sizeof(struct dmm_policy_stack),
};

static const struct dmm_object rule_object = {
	.name = "rule",
	.doc = "One rule; the first that matches decides.",
	FIELDS(rule_fields),
	.size = sizeof(struct dmm_policy_rule),
};

static const struct dmm_field spec_fields[] = {
	{ .name = "interfaces",
	  .type = DMM_FIELD_OBJECTS,
	  .max = DMM_MAX_INSTANCES,
	  .doc = "Interfaces that stacks use.",
	  .object = &interface_object,
	  .offset = IN(, interfaces),
	  .count_offset = IN(, n_interfaces) },
	{ .name = "stacks",
	  .type = DMM_FIELD_OBJECTS,
	  .max = DMM_MAX_INSTANCES,
	  .doc = "Userspace stacks; `kernel` is always there.",
	  .object = &stack_object,
	  .offset = IN(, stacks),
	  .count_offset = IN(, n_stacks) },
	{ .name = "rules",
	  .type = DMM_FIELD_OBJECTS,
	  .max = DMM_MAX_RULES,
	  .doc = "Ordered: the first that matches decides.",
	  .object = &rule_object,
	  .offset = IN(, rules),
	  .count_offset = IN(, n_rules) },
	{ .name = "default",
	  .type = DMM_FIELD_OBJECT,
	  .need = DMM_REQUIRED,
	  .doc = "What happens where no rule matches.",
	  .object = &default_object,
	  .offset = IN(, fallback),
	  .place_offset = IN(, fallback.place) },
	LATER("profiles", "Named tunings."),
};

static const struct dmm_object spec_object = {
	.name = "spec",
	.doc = "The policy itself.",
	FIELDS(spec_fields),
};

static const struct dmm_field policy_fields[] = {
	{ .name = "apiVersion",
	  .type = DMM_FIELD_CONST,
	  .need = DMM_REQUIRED,
	  .words = WORDS("dmm/v1alpha1"),
	  .code = DMM_CODE_API_VERSION,
	  .doc = "Version of the language." },
	{ .name = "kind",
	  .type = DMM_FIELD_CONST,
	  .need = DMM_REQUIRED,
	  .words = WORDS("Policy"),
	  .code = DMM_CODE_KIND,
	  .doc = "What this document is." },
	{ .name = "metadata",
	  .type = DMM_FIELD_OBJECT,
	  .need = DMM_REQUIRED,
	  .doc = "What the policy is called.",
	  .object = &metadata_object },
	{ .name = "spec",
	  .type = DMM_FIELD_OBJECT,
	  .need = DMM_REQUIRED,
	  .doc = "The policy itself.",
	  .object = &spec_object },
};

const struct dmm_object dmm_policy_object = {
	.name = "policy",
	.doc = "Which network stack carries which connection.",
	FIELDS(policy_fields),
};
