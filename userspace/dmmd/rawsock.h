/* SPDX-License-Identifier: Apache-2.0 */
/* The raw sockets that let held SYNs go: loopback is all they reach, whoever holds them. */
#pragma once

#include <dmm/abi/types.h>

struct dmmd;

/* One per IP version; -1 where the kernel has none of that version. */
int dmmd_raw_open(struct dmmd *d, int ret_fds[static DMM_NUM_FAMILIES]);
