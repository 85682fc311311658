/* SPDX-License-Identifier: Apache-2.0 */
/* When to start an instance again: 0.1 s doubling to 30 s, forgotten once it was ready for a second;
 * after DMMD_FAST_DEATHS in a row it is given up. */
#pragma once

#include <stdint.h>

#define DMMD_BACKOFF_FIRST_MS 100
#define DMMD_BACKOFF_LAST_MS  30000
#define DMMD_BACKOFF_GOOD_MS  1000
#define DMMD_FAST_DEATHS      8

struct dmmd_backoff {
	uint32_t deaths; /* fast ones in a row */
};

/* It died after being ready for @ready_ms (0: never was). In how many ms to start it again; -1: not
 * any more. */
int dmmd_backoff_died(struct dmmd_backoff *backoff, uint64_t ready_ms);
