/* SPDX-License-Identifier: Apache-2.0 */
/* The policy language: YAML text -> struct dmm_policy, with every error and warning found in one
 * run. Pure: touches nothing but memory. What the fields mean is in policy/README.md. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <dmm/abi/handover.h>
#include <dmm/abi/types.h>

/* Where something stands in the source: 1-based; 0 where it stands nowhere. */
struct dmm_place {
	uint32_t line, column, length;
};

enum dmm_severity { DMM_SEVERITY_ERROR, DMM_SEVERITY_WARNING };

struct dmm_finding {
	enum dmm_severity severity;
	unsigned int code; /* 12 prints as E012, 101 as W101 */
	struct dmm_place place;
	char *text;
	char *hint; /* NULL: none */
};

struct dmm_findings {
	struct dmm_finding *items;
	size_t n;
	unsigned int errors, warnings;
	char *file;   /* as named to dmm_policy_load() */
	char *source; /* text, for the caret lines */
	size_t source_len;
};

/* Of either severity; what is beyond is counted, not kept. */
#define DMM_MAX_FINDINGS    1000
#define DMM_MAX_POLICY_SIZE (64u << 20)

struct dmm_cidr {
	uint8_t addr[16]; /* IPv4 mapped */
	uint8_t len;	  /* 0..128; IPv4 prefixes are 96 + their length */
};

struct dmm_port_range {
	uint16_t first, last;
};

struct dmm_policy_interface {
	char name[16];
	enum { DMM_XDP_AUTO, DMM_XDP_NATIVE, DMM_XDP_GENERIC } mode;
	enum { DMM_ZC_AUTO, DMM_ZC_REQUIRE, DMM_ZC_OFF } zerocopy;
	struct dmm_place place;
};

#define DMM_MAX_INSTANCES_OF 8 /* one stack: DMM_MAX_OTHERS, and the first */

struct dmm_policy_stack {
	char name[DMM_NAME_LEN];
	char plugin[DMM_NAME_LEN];  /* lwip, ... */
	char backend[DMM_NAME_LEN]; /* xsk */
	char interface[16];
	struct dmm_port_range local_ports; /* host byte order; 0-0: dmmd picks from its default */
	enum dmm_poll poll;
	uint32_t memory_mib; /* private memory of an instance; 0: dmmd's default */
	uint32_t instances;
	struct dmm_place place; /* of its name */
	struct dmm_place plugin_place, interface_place, ports_place, instances_place;
};

struct dmm_uid_range {
	uint32_t first, last;
};

struct dmm_policy_rule {
	char name[DMM_NAME_LEN];
	char *cgroup; /* absolute below the cgroup root, no trailing slash; NULL: any */
	struct dmm_uid_range *uids; /* n_uids 0: any */
	size_t n_uids;
	char (*comms)[16]; /* zeros behind the name; n_comms 0: any */
	size_t n_comms;
	bool proto[DMM_NUM_PROTOS];
	bool dir[DMM_NUM_DIRS];
	struct dmm_cidr *remote; /* n_remote 0: any address of either family */
	size_t n_remote;
	struct dmm_cidr *except;
	size_t n_except;
	struct dmm_port_range
		*ports;		/* the server's: remote ones of connect, local ones of listen; */
	size_t n_ports;		/* 0: any */
	struct dmm_cidr *local; /* of listen: n_local 0: any */
	size_t n_local;
	struct dmm_port_range *local_ports; /* as written; moved to @ports once checked */
	size_t n_local_ports;
	enum dmm_action action;
	char stack[DMM_NAME_LEN]; /* for DMM_ACTION_STACK */
	enum dmm_unavailable on_unavailable;
	struct dmm_place place, cgroup_place, stack_place;
	/* line 0: not given */
	struct dmm_place proto_place, dir_place, except_place, ports_place, unavailable_place;
	struct dmm_place local_place, local_ports_place, comm_place;
};

struct dmm_policy {
	char name[DMM_NAME_LEN];
	struct dmm_policy_interface *interfaces;
	size_t n_interfaces;
	struct dmm_policy_stack *stacks; /* without the built-in `kernel` */
	size_t n_stacks;
	struct dmm_policy_rule *rules;
	size_t n_rules;
	struct dmm_policy_rule fallback; /* spec.default; its name is "default" */
	char *source;			 /* file name, for explain */
};

/* IPv4 and IPv6 are apart: an IPv6 prefix holds no mapped address, unless it is IPv4 itself. */
bool dmm_addr_is_v4(const uint8_t addr[16]);
bool dmm_cidr_is_v4(const struct dmm_cidr *cidr);
/* @sub is @cgroup or below it; NULL as @cgroup holds all. Both normalised as in a rule. */
bool dmm_cgroup_covers(const char *cgroup, const char *sub);

/* Both set *found anew; free it in any case.
 * Parses @text (need not end in NUL). 0: *ret is the policy, warnings may be in @found. -EINVAL: the
 * policy has errors, all of them in @found, *ret untouched. -ENOMEM. @file is only named. */
int dmm_policy_parse(const char *text, size_t len, const char *file, struct dmm_policy **ret,
		     struct dmm_findings *found);
/* Reads a file ("-": standard input) of at most 64 MiB, then the same. Other errno: could not be
 * read, nothing in @found. */
int dmm_policy_load(const char *path, struct dmm_policy **ret, struct dmm_findings *found);
void dmm_policy_free(struct dmm_policy *policy);

void dmm_findings_free(struct dmm_findings *found);
/* Adds one; used by dmmd for what only the host knows (no such interface, ...). */
int dmm_findings_add(struct dmm_findings *found, enum dmm_severity severity, unsigned int code,
		     struct dmm_place place, const char *hint, const char *format, ...)
	__attribute__((format(printf, 6, 7)));
/* By place; what stands nowhere first. Done already by parse and load. */
void dmm_findings_sort(struct dmm_findings *found);
/* GCC style, in order of place: file:line:col: error[E012]: text / source line / carets / hint. */
void dmm_findings_print(const struct dmm_findings *found, FILE *out);

/* The JSON Schema (draft-07) of the language, from the table that the parser uses. */
void dmm_policy_schema(FILE *out);
