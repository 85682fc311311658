/* SPDX-License-Identifier: Apache-2.0 */
/* What one instance of a stack of the policy comes down to on this host: everything it is started with. */
#pragma once

#include <stdbool.h>

#include "policy/policy.h"

#define DMMD_MEMORY_MIB 1024 /* where the policy says nothing */

struct dmmd_spec {
	char name[DMM_NAME_LEN]; /* of the stack */
	uint32_t index;		 /* "name#index": of its instances the first is 0 */
	char plugin[DMM_NAME_LEN];
	char backend[DMM_NAME_LEN];
	char interface[16];
	int mode, zerocopy; /* DMM_XDP_*, DMM_ZC_* */
	enum dmm_poll poll;
	uint32_t memory_mib; /* private memory that an instance may have */
	struct dmm_port_range ports;
	bool ports_chosen; /* by dmmd, not by the policy */
};

/* The spec of an instance of @stack; the ports are its part of the policy's, 0-0 where dmmd is to choose. */
void dmmd_spec_from_policy(const struct dmm_policy *policy, const struct dmm_policy_stack *stack,
			   uint32_t index, struct dmmd_spec *ret);

/* Can an instance of @running go on as @wanted? Ports that dmmd chose stay good for 0-0. */
bool dmmd_spec_same(const struct dmmd_spec *running, const struct dmmd_spec *wanted);

/* Words of the policy language. */
const char *dmmd_mode_word(int mode);
const char *dmmd_zerocopy_word(int zerocopy);
const char *dmmd_poll_word(enum dmm_poll poll);
/* -1: no such word. */
int dmmd_mode_of(const char *word);
int dmmd_zerocopy_of(const char *word);
int dmmd_poll_of(const char *word);
