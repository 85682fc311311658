/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the parts of the policy language: the table of fields, and the steps of parsing. */
#pragma once

#include "base/suggest.h"
#include "policy/codes.h"
#include "policy/policy.h"

#include <dmm/abi/tables.h>

/* Adds a finding; its severity is the number's. */
#define dmm_find(found, code, place, hint, ...)                                                    \
	dmm_findings_add(found, (code) < 100 ? DMM_SEVERITY_ERROR : DMM_SEVERITY_WARNING, code,    \
			 place, hint, __VA_ARGS__)

enum dmm_field_type {
	DMM_FIELD_OBJECT,  /* a mapping, told by @object; lands in the struct at @offset */
	DMM_FIELD_OBJECTS, /* a list of them: pointer at @offset, count at @count_offset */
	DMM_FIELD_NAME,	   /* a DNS-1123 label: char[DMM_NAME_LEN] */
	DMM_FIELD_IFNAME,  /* char[16] */
	DMM_FIELD_WORD,	   /* one of @words: its index, as an enum */
	DMM_FIELD_CONST,   /* one of @words, kept nowhere; @code says what is wrong else */
	DMM_FIELD_BACKEND, /* one of @words: char[DMM_NAME_LEN] */
	DMM_FIELD_PROTO,   /* one of @words: bool[DMM_NUM_PROTOS] of a rule */
	DMM_FIELD_DIR,	   /* one of @words: bool[DMM_NUM_DIRS] of a rule */
	DMM_FIELD_REJECT,  /* `true`: the rule's action */
	DMM_FIELD_CGROUP,  /* char * */
	DMM_FIELD_RANGE,   /* one port range: struct dmm_port_range */
	DMM_FIELD_MEMORY,  /* an amount of memory: uint32_t, in MiB */
	DMM_FIELD_NUMBER,  /* uint32_t */
	DMM_FIELD_CIDRS,   /* a list, or a single one: pointer and count */
	DMM_FIELD_PORTS,   /* a list, or a single one: pointer and count */
	DMM_FIELD_UIDS,	   /* a list, or a single one: pointer and count */
	DMM_FIELD_COMMS,   /* a list, or a single one: pointer and count */
	DMM_FIELD_LABELS,  /* a mapping of strings, checked and kept nowhere */
	DMM_FIELD_LATER,   /* of the language, but not of this version */
};

struct dmm_field {
	const char *name;
	enum dmm_field_type type;
	enum { DMM_OPTIONAL, DMM_REQUIRED, DMM_ONE_OF } need; /* exactly one of the ONE_OF fields */
	const char *doc;
	const char *const *words; /* NULL-terminated */
	const char *const *later; /* words of the language that this version refuses */
	const char *list_later;	  /* what a list would mean here, once it is carried out */
	const char *fallback;	  /* what holds when it is left out, for the schema */
	enum dmm_policy_code code;
	uint32_t min, max; /* items of a list, or bounds of a port or an amount */
	size_t offset, count_offset;
	size_t place_offset; /* of a struct dmm_place; 0: none is kept */
	const struct dmm_object *object;
};

struct dmm_object {
	const char *name; /* as in "unknown field 'x' in NAME" */
	const char *doc;
	const struct dmm_field *fields;
	size_t n_fields;
	size_t size; /* of the struct of one item, for lists */
};

#define DMM_MAX_FIELDS 16 /* of one object */

extern const struct dmm_object dmm_policy_object;

/* Patterns that hold for a scalar, for the schema (which cannot say all that the parser checks). */
#define DMM_NAME_PATTERN  "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
#define DMM_LABEL_MAX	  63
#define DMM_CGROUP_MAX	  1024
#define DMM_MAX_DEPTH	  16
#define DMM_EPHEMERAL_MIN 32768
#define DMM_EPHEMERAL_MAX 60999

/* A scalar as it stands in the source. */
struct dmm_scalar {
	const char *text; /* ends in NUL and holds none */
	size_t len;
	struct dmm_place place;
	const char *field; /* its key */
};

/* values.c: each checks one scalar, adds what is wrong to @found and returns whether it was set. */
bool dmm_value_name(const struct dmm_scalar *s, char ret[DMM_NAME_LEN], struct dmm_findings *found);
bool dmm_value_ifname(const struct dmm_scalar *s, char ret[16], struct dmm_findings *found);
bool dmm_value_range(const struct dmm_scalar *s, uint32_t min, uint32_t max,
		     struct dmm_port_range *ret, struct dmm_findings *found);
/* In MiB. */
bool dmm_value_number(const struct dmm_scalar *s, uint32_t min, uint32_t max, uint32_t *ret,
		      struct dmm_findings *found);
bool dmm_value_memory(const struct dmm_scalar *s, uint32_t min, uint32_t max, uint32_t *ret,
		      struct dmm_findings *found);
/* A number, a range, or the name of a user of this machine. */
bool dmm_value_uids(const struct dmm_scalar *s, struct dmm_uid_range *ret,
		    struct dmm_findings *found);
bool dmm_value_comm(const struct dmm_scalar *s, char ret[16], struct dmm_findings *found);
bool dmm_value_cidr(const struct dmm_scalar *s, struct dmm_cidr *ret, struct dmm_findings *found);
/* *ret is NULL for "/": any. -ENOMEM; 0 also where the path is bad. */
int dmm_value_cgroup(const struct dmm_scalar *s, char **ret, struct dmm_findings *found);

/* text.c: refuses what is no UTF-8 text that libyaml takes; -EINVAL with the finding added. */
int dmm_text_check(const char *text, size_t len, struct dmm_findings *found);

/* check.c: what fields alone cannot tell; adds to @found and settles each rule's action. */
int dmm_policy_check(struct dmm_policy *policy, struct dmm_findings *found);

/* callers.c */
bool dmm_rule_has_comm(const struct dmm_policy_rule *rule, const char comm[16]);

/* compile.c: for each rule (and the default, the last), whether some connect can reach it. -E2BIG
 * when the tables are too large to tell. */
int dmm_policy_live_rules(const struct dmm_policy *policy, bool *live);

/* prefixes.c: whether @rule matches any address at all. */
bool dmm_rule_matches_any(const struct dmm_policy_rule *rule);
