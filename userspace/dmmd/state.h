/* SPDX-License-Identifier: Apache-2.0 */
/* What outlives dmmd, in two files of the state directory: state.json, rewritten whole and
 * atomically, and policy.yaml, the last policy that was applied.
 *
 * A policy is stored before it goes live, as policy.yaml.GENERATION, and takes the place of the one
 * before when it has. Where dmmd is killed in between, the live generation says which of them counts. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/proc.h"
#include "dmmd/classes.h"
#include "dmmd/spec.h"

struct dmmd_stack_record {
	struct dmmd_spec spec;
	uint32_t slot, incarnation;
	pid_t pid; /* 0: not running */
	uint64_t start_time;
	uint32_t restarts;
	bool draining, removed, stopped, zerocopy;
};

struct dmmd_state {
	char boot_id[DMM_BOOT_ID_LEN]; /* pids of another boot mean nothing */
	uint32_t generation;
	char *policy_file; /* where policy.yaml came from; NULL: no policy yet */
	uint64_t applied_at;
	struct dmmd_classes classes;
	char **attached; /* by hand */
	size_t n_attached;
	char **made; /* by `run`: removed when empty */
	size_t n_made;
	char **retired; /* to be detached after their last flow */
	size_t n_retired;
	struct dmmd_stack_record stacks[DMM_MAX_INSTANCES];
	size_t n_stacks;
};

void dmmd_state_init(struct dmmd_state *state);
void dmmd_state_free(struct dmmd_state *state);

/* -ENOENT: there is none yet. -EBADMSG: not what dmmd wrote; *ret untouched. */
int dmmd_state_load(const char *dir, struct dmmd_state *ret);
int dmmd_state_save(const char *dir, const struct dmmd_state *state);
/* Sets a file that could not be read aside, as state.json.bad. */
int dmmd_state_set_aside(const char *dir);

int dmmd_state_load_policy(const char *dir, char **ret, size_t *ret_len);
int dmmd_state_stage_policy(const char *dir, uint32_t generation, const char *text, size_t len);
/* It went live: it is the policy now. */
int dmmd_state_keep_policy(const char *dir, uint32_t generation);
/* It did not. */
void dmmd_state_drop_policy(const char *dir, uint32_t generation);
/* At start: keeps a staged policy that is live, drops the others. 1: it kept one. */
int dmmd_state_settle_policy(const char *dir, uint32_t live);
