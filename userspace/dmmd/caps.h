/* SPDX-License-Identifier: Apache-2.0 */
/* What of root's power dmmd keeps: the list, with reasons, is in caps.c. */
#pragma once

#include "dmmd/dmmd.h"

/* A stage: gives up all others for good, for what it starts too. Logs why it failed. */
int dmmd_caps_init(struct dmmd *d);
