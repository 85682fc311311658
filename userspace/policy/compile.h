/* SPDX-License-Identifier: Apache-2.0 */
/* Policy -> tables (dmm/abi/tables.h). The compiler resolves precedence: for every prefix it merges
 * the rules of all covering prefixes in policy order, so one walk gives exact first-match. */
#pragma once

#include "policy/policy.h"

#include <dmm/abi/tables.h>

struct dmm_tables {
	void *blocks[DMM_NUM_TABLES]; /* n_blocks * DMM_BLOCK bytes each */
	uint32_t n_blocks[DMM_NUM_TABLES];
};

/* What the compiler must know of the host. */
struct dmm_compile_env {
	void *ctx;
	/* The stable class id of a policy cgroup path; > 0 and < DMM_MAX_CLASSES, negative errno. */
	int (*class_of)(void *ctx, const char *cgroup);
	/* The instance ids of a stack: how many, at least one; negative errno. */
	int (*instances_of)(void *ctx, const char *stack,
			    uint32_t ret[static DMM_MAX_INSTANCES_OF]);
	uint32_t generation;
	uint64_t applied_at;
	size_t max_bytes; /* budget of all tables; 0: 256 MiB */
};

#define DMM_MAX_CLASSES 65536

/* 0: *ret owns the tables. -E2BIG: over budget, @found names the rules that cost most. -ENOMEM, or
 * what the env's functions returned. Classes whose rules are equal share their tables. A cgroup's
 * class takes the rules of its own cgroup, of every cgroup above it and of none; class 0 those of
 * none. Roots of class ids below n_classes that the policy does not name are DMM_REF_NONE. Protocol
 * `udp` is compiled like the rest. */
int dmm_policy_compile(const struct dmm_policy *policy, const struct dmm_compile_env *env,
		       struct dmm_tables *ret, struct dmm_findings *found);
void dmm_tables_free(struct dmm_tables *tables);

/* The matcher over tables in memory (tests, dmmctl check). DMM_NO_RULE: a class the tables do not
 * know, or inconsistent tables. Direction LISTEN: see dmm_tables_match_client(). */
uint32_t dmm_tables_match(const struct dmm_tables *tables, uint32_t class_id,
			  enum dmm_direction dir, enum dmm_proto proto, const uint8_t remote[16],
			  uint16_t port);
/* From @remote to a server at @local. */
uint32_t dmm_tables_match_client(const struct dmm_tables *tables, uint32_t class_id,
				 enum dmm_proto proto, const uint8_t local[16], uint16_t port,
				 const uint8_t remote[16]);
const struct dmm_rule *dmm_tables_rule(const struct dmm_tables *tables, uint32_t rule);
