/* SPDX-License-Identifier: Apache-2.0 */
/* What of root's power dmmd keeps: one list, with reasons. */
#pragma once

#include "dmmd/dmmd.h"

struct dmmd_cap {
	const char *name; /* CAP_... */
	int number;
	const char *why;
};

/* Ends with a name of NULL. */
extern const struct dmmd_cap dmmd_caps[];

/* A stage: gives up all others for good, for what it starts too. Logs why it failed. */
int dmmd_caps_init(struct dmmd *d);
