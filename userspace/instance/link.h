/* SPDX-License-Identifier: Apache-2.0 */
/* The link layer of an instance: Ethernet headers off and on, and what may come in. Sits between
 * the packet I/O and the plug-in. */
#pragma once

#include <dmm/abi/maps.h>
#include <dmm/pktio.h>

#include "instance/icmp.h"
#include "instance/nexthop.h"

#define ETH_HEADER 14u

struct link_events {
	void *ctx;
	/* A TCP SYN without ACK in @frame, @p says where. False: drop it. Optional. */
	bool (*client_syn)(void *ctx, const struct packet *p, const struct dmm_frame *frame);
	/* A TCP segment with ACK and neither SYN nor RST, while link.asks_acks. */
	bool (*client_ack)(void *ctx, const struct packet *p, const struct dmm_frame *frame);
	/* IP packets to us, borrowed. */
	void (*input)(void *ctx, const struct dmm_frame *frames, unsigned int n);
	void (*icmp)(void *ctx, const struct icmp_error *error);
};

struct link {
	struct dmm_pktio *io;
	struct mirror *mirror;
	struct nexthops *nexthops;
	struct dmm_inst_shared *shared; /* counters */
	struct link_events events;
	uint64_t now;			       /* of this turn, set by the owner */
	struct dmm_frame out[DMM_PKTIO_BATCH]; /* to be sent at the end of the turn */
	unsigned int n_out;
	struct dmm_frame spare[DMM_PKTIO_BATCH]; /* allocated ahead */
	unsigned int n_spare;
	bool asks_acks;
	unsigned int full_bursts; /* received in a row */
};

/* Receives one batch and passes it on; returns how many frames there were. */
unsigned int link_receive(struct link *link);

/* More has come than could be done, for so long that receive rings may be about to overflow. */
bool link_is_behind(const struct link *link);

bool link_alloc(struct link *link, struct dmm_frame *frame);
void link_free(struct link *link, const struct dmm_frame *frame);
/* IP packets, ownership goes over. */
void link_output(struct link *link, const struct dmm_frame *frames, unsigned int n);
/* An IP packet back to where @received came from, whatever the way there is said to be: for answers
 * that nothing may be remembered for. Ownership of @answer goes over. */
void link_answer(struct link *link, const struct dmm_frame *received,
		 const struct dmm_frame *answer);
/* Everything output so far is on its way: once per turn. */
void link_flush(struct link *link);
/* Gives every frame back; what was output is flushed. */
void link_close(struct link *link);

/* For struct nexthop_events. */
void link_on_resolved(struct link *link, struct neighbour *n);
void link_on_dropped(struct link *link, struct neighbour *n);
