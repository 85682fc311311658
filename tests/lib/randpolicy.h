/* SPDX-License-Identifier: Apache-2.0 */
/* Random policies, flows near their edges, and first match the plain way: what the compiled tables
 * are compared with, in memory and inside the kernel. */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "policy/compile.h"

/* A small generator, so that a seed gives the same everywhere. */
struct rnd {
	uint64_t state;
};

/* SEED= from the environment, else a fixed one; said in a TAP comment, for whoever has to repeat it. */
uint64_t rnd_seed(void);
struct rnd rnd_start(uint64_t seed);
uint32_t rnd_below(struct rnd *rnd, uint32_t limit);

/* Up to @max_rules rules with nested and neighbouring prefixes of both families, exceptions,
 * overlapping port ranges and nested cgroups. Never fails; dmm_policy_free() frees it. Actions name
 * the stacks "one" and "two" (random_env knows them as instances 1 and 2) or the kernel, or reject. */
struct dmm_policy *random_policy(struct rnd *rnd, unsigned int max_rules);

/* Compiles with class ids that have gaps. Valid as long as @policy is. */
struct dmm_compile_env random_env(const struct dmm_policy *policy);

struct random_flow {
	uint32_t class_id; /* 0, or of a cgroup of the policy */
	enum dmm_direction dir;
	enum dmm_proto proto;
	uint8_t remote[16], local[16]; /* of one family; local: of listen */
	uint16_t port;
};

/* Mostly at or next to an edge of some rule. */
struct random_flow random_flow(struct rnd *rnd, const struct dmm_policy *policy);

/* The index of the first rule that matches, n_rules for the default. */
uint32_t naive_match(const struct dmm_policy *policy, const struct random_flow *flow);

/* What the tables in memory say. */
uint32_t random_flow_match(const struct dmm_tables *tables, const struct random_flow *flow);

/* For messages about a mismatch. */
void print_policy(const struct dmm_policy *policy, FILE *out);
void print_flow(const struct random_flow *flow, FILE *out);
