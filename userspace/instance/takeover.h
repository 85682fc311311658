/* SPDX-License-Identifier: Apache-2.0 */
/* Receives what dmmd hands over at the start, and checks it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <dmm/abi/handover.h>

struct takeover {
	struct dmm_handover params;
	int fds[DMM_NUM_HANDOVER_FDS]; /* by enum dmm_handover_fd; -1: none, or taken */
	uint32_t n_queues;
	struct dmm_handover_xsk xsks[DMM_MAX_QUEUES];
	int xsk_fds[DMM_MAX_QUEUES];
};

/* Reads messages from @fd up to DMM_MSG_START. Negative errno, and what is wrong in @reterr_text. */
int takeover_receive(int fd, struct takeover *ret, char *reterr_text, size_t text_len);
/* Closes what nobody has taken. */
void takeover_close(struct takeover *takeover);
