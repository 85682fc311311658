/* SPDX-License-Identifier: Apache-2.0 */
/* Steering, the read side: what the pinned maps say, with or without a running dmmd. dmmctl's
 * explain, flows, stats and status read through it. Needs root (pins are 0600). Negative errno. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmm/abi/maps.h>
#include <dmm/abi/tables.h>

struct dmm_view;

int dmm_view_open(const char *bpffs, struct dmm_view **ret);
void dmm_view_close(struct dmm_view *view);

int dmm_view_config(struct dmm_view *view, struct dmm_config *ret);
/* The live generation's META; generation 0: no policy. */
int dmm_view_meta(struct dmm_view *view, struct dmm_gen_meta *ret);
int dmm_view_rule(struct dmm_view *view, uint32_t index, struct dmm_rule *ret);
int dmm_view_instance(struct dmm_view *view, uint32_t id, struct dmm_instance *ret);
/* A snapshot of the instance's shared page; -ENOENT: none. @ports false: leaves .port alone. */
int dmm_view_shared(struct dmm_view *view, uint32_t id, struct dmm_inst_shared *ret, bool ports);
int dmm_view_inst_stats(struct dmm_view *view, uint32_t id, struct dmm_inst_stats *ret);
/* Summed over CPUs. */
int dmm_view_counter(struct dmm_view *view, enum dmm_reason reason, uint64_t *ret);
/* Class of the sockets that user @uid's process @comm makes in a cgroup, given the ids of its ancestors,
 * deepest first (itself included). */
int dmm_view_class(struct dmm_view *view, const uint64_t *ids, unsigned int n, uint32_t uid,
		   const char *comm, uint32_t *ret);

/* What the hooks would do with a connect, step by step, by the same matcher on the same maps. */
struct dmm_decision {
	enum dmm_verdict verdict;
	enum dmm_reason reason; /* built-in or fallback that decided; RULE where the rule did */
	uint32_t rule;		/* DMM_NO_RULE before the match */
	struct dmm_rule matched;
	uint32_t generation, class_id;
	uint32_t instance;
	bool has_route;
	struct dmm_route route;
	uint64_t beat_age_ns;
};
int dmm_view_decide(struct dmm_view *view, uint32_t class_id, enum dmm_proto proto,
		    const uint8_t remote[16], uint16_t port, struct dmm_decision *ret);
/* Of a client from @remote that comes to a server at @local. */
int dmm_view_decide_client(struct dmm_view *view, uint32_t class_id, const uint8_t local[16],
			   uint16_t port, const uint8_t remote[16], struct dmm_decision *ret);

/* Calls @fn for every flow until it returns non-zero, which it returns: the open ones in all network
 * namespaces, then those that ended within DMM_CLOSED_SHOWN_NS, the latest first. */
#define DMM_CLOSED_SHOWN_NS 60000000000ull
typedef int dmm_flow_fn(void *ctx, const struct dmm_flow *flow);
int dmm_view_flows(struct dmm_view *view, dmm_flow_fn *fn, void *ctx);
/* The same for what is known of every steered connection by its relay leg: exact, however busy. */
int dmm_view_steered(struct dmm_view *view, int (*fn)(void *ctx, const struct dmm_peer *peer),
		     void *ctx);

const char *dmm_reason_word(enum dmm_reason reason);
const char *dmm_reason_text(enum dmm_reason reason);
