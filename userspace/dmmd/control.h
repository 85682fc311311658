/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket: clients, lines in, lines out, with limits so that no client can hold up the loop
 * or the others. What the verbs do is in verbs.c. */
#pragma once

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct dmmd;

/* One request. Its verb answers exactly once, now or later; the client may be gone by then. */
struct dmmd_call {
	struct dmmd *d;
	uint64_t client;
	uid_t uid;
	pid_t pid;
	struct json_object *args; /* borrowed, until the verb returns */
};

int dmmd_control_init(struct dmmd *d);
void dmmd_control_exit(struct dmmd *d);
/* Drops clients that began a line or do not take their answer, and stay so. */
void dmmd_control_tick(struct dmmd *d);

/* Both take the object over. */
void dmmd_answer(struct dmmd *d, uint64_t client, struct json_object *result);
void dmmd_refuse(struct dmmd *d, uint64_t client, struct json_object *error);
