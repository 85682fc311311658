/* SPDX-License-Identifier: Apache-2.0 */
/* Everything an instance may not open itself, on its way to it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <dmm/abi/handover.h>

/* Of a relay's socket on loopback, each way; the kernel doubles it for its own overhead. With the stack's
 * buffers a flow stays below 1 MiB. */
#define DMMD_RELAY_BUFFER (128 * 1024)

struct dmmd_inst;

struct dmmd_parcel {
	int fds[DMM_NUM_HANDOVER_FDS];
	int xsks[DMM_MAX_QUEUES];
	struct dmm_handover_xsk descs[DMM_MAX_QUEUES];
	struct dmm_handover handover;
	uint16_t relay_port[DMM_NUM_FAMILIES]; /* network order */
};

void dmmd_parcel_init(struct dmmd_parcel *parcel);
/* Opens what depends neither on the interface's queues nor on the slot. @text says what failed. */
int dmmd_parcel_fill(struct dmmd_parcel *parcel, struct dmmd_inst *inst, char *text, size_t size);
/* Queues the whole handover on @fd, which has the room; does not wait. */
int dmmd_parcel_send(struct dmmd_parcel *parcel, int fd);
void dmmd_parcel_close(struct dmmd_parcel *parcel);

/* One message with @n descriptors, at most DMM_MAX_SOCKETS; does not wait. */
int dmmd_send_message(int fd, enum dmm_msg_kind kind, const void *body, size_t len, const int *fds,
		      unsigned int n);
