/* SPDX-License-Identifier: Apache-2.0 */
/* What others do to what is attached: put right, or told where that cannot be; and who else has programs
 * where ours run. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "steer/steer.h"

struct dmmd;

#define DMMD_MAX_BESIDE 64

struct dmmd_repair {
	char problem[256]; /* what cannot be put right, as last told; "": nothing */

	struct dmm_beside beside[DMMD_MAX_BESIDE]; /* the same program at several cgroups: once */
	unsigned int n_beside;

	bool counting;	    /* @missed was read once */
	uint64_t missed;    /* relay SYNs that went past the filter on lo so far */
	uint64_t missed_at; /* when that number rose last */
};

/* Once a second. */
void dmmd_repair_tick(struct dmmd *d);
/* Looks who runs beside ours, and says who is new and who has gone. */
void dmmd_look_beside(struct dmmd *d);
/* Why connects to stacks may fail although all is attached; "": no sign of it. */
void dmmd_missed_syns(struct dmmd *d, char *ret, size_t size);
