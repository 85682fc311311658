/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the read side share. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "steer/steer_internal.h"
#include "steer/view.h"

/* The matcher keeps at most two blocks at a time. */
#define DMM_VIEW_BLOCKS 4

/* One generation's tables: they stay as they are while the descriptors are open, whatever is
 * installed meanwhile. */
struct dmm_view_generation {
	uint32_t id[DMM_NUM_TABLES]; /* of the inner maps */
	int fd[DMM_NUM_TABLES];
};

struct dmm_view {
	char bpffs[512];
	int map[DMM_NUM_MAPS];
	struct dmm_config config;
	struct dmm_view_generation live;
	unsigned int cpus;
	const uint64_t *n_closed; /* mapped when flows are asked for */
	const struct dmm_closed *closed;
	/* scratch of a decision */
	char block[DMM_VIEW_BLOCKS][DMM_BLOCK] __attribute__((aligned(8)));
	unsigned int next_block;
	struct dmm_local local;
	struct dmm_route route;
	bool has_route;
	struct dmm_instance instance;
};

/* --- view_flows.c --- */
void dmm_view_unmap_closed(struct dmm_view *view);
