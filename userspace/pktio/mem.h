/* SPDX-License-Identifier: Apache-2.0 */
/* Packet I/O in memory: two ends, what one sends the other receives. For tests: deterministic, no
 * privilege, no clock. The ends may be closed in any order. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <dmm/pktio.h>

struct dmm_mem_args {
	uint32_t frame_size;
	uint32_t frames; /* of each end: half for receiving, half for sending */
	uint32_t mtu;
	/* Optional: true loses this frame on its way from end @from. It may change the bytes. */
	bool (*drop)(void *ctx, unsigned int from, struct dmm_frame *frame);
	void *ctx;
};

int dmm_mem_pair(const struct dmm_mem_args *args, struct dmm_pktio *ret_ends[2]);

/* Frames of this end that are handed out and not yet back. */
uint32_t dmm_mem_out(struct dmm_pktio *io);
