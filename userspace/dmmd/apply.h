/* SPDX-License-Identifier: Apache-2.0 */
/* Applying a policy: all of it or nothing.
 *
 *   read -> checked on this host -> compiled -> instances started, each READY (the loop runs on
 *   meanwhile) -> cgroups classed and attached -> generation installed (one write) -> what is not
 *   needed any more drained
 *
 * A failure at any point undoes what came before it; the live generation has not been touched. One
 * apply at a time, the next ones wait. */
#pragma once

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>

struct dmmd;

struct dmmd_policy_text {
	const char *file; /* for messages */
	const char *path; /* in full, for explain and SIGHUP; NULL: as @file */
	const char *text;
	size_t len;
	bool strict; /* warnings are errors */
};

/* Exactly one of the two is given, and is the callee's to release. */
typedef void (*dmmd_done_fn)(void *ctx, struct json_object *result, struct json_object *error);

/* Calls @done once, now or later. @restore: dmmd starts and brings back what was. */
void dmmd_apply(struct dmmd *d, const struct dmmd_policy_text *policy, bool restore,
		dmmd_done_fn done, void *ctx);
/* The same up to where something would be touched. */
void dmmd_check(struct dmmd *d, const struct dmmd_policy_text *policy, const char *kind,
		dmmd_done_fn done, void *ctx);
/* dmmd ends: the applies under way and waiting fail. What has been started stays as it is. */
void dmmd_apply_abandon(struct dmmd *d);
