/* SPDX-License-Identifier: Apache-2.0 */
/* What the pinned maps say, as the objects of the control protocol: dmmd's answers and what dmmctl
 * reads itself are the same. */
#pragma once

#include <json-c/json.h>

#include "policy/policy.h"
#include "steer/view.h"

/* [{severity, code, line, column, text, hint}] */
struct json_object *dmm_report_findings(const struct dmm_findings *found);

/* "10.1.2.3:443", "[fd00::1]:443"; @port in network order. */
void dmm_report_endpoint(const uint8_t addr[16], uint16_t port, char *buf, size_t size);
const char *dmm_report_verdict(enum dmm_verdict verdict); /* the word for it */
/* A Flow; @now: CLOCK_MONOTONIC. */
struct json_object *dmm_report_flow(struct dmm_view *view, uint64_t now,
				    const struct dmm_flow *flow);
/* The enum dmm_flow_state that prints as @word; -EINVAL: none. */
int dmm_report_flow_state(const char *word);
/* [{reason, text, count}], all of them but NONE. */
struct json_object *dmm_report_reasons(struct dmm_view *view);
/* Adds to a stack's object: the instance's own counters; what the doors count for slot @id. */
void dmm_report_counters(struct json_object *obj, const struct dmm_inst_shared *shared);
void dmm_report_doors(struct json_object *obj, struct dmm_view *view, uint32_t id);
/* What such a counter counts, "" for a name that is none. */
const char *dmm_report_describe(const char *counter);
