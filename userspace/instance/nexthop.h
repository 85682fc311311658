/* SPDX-License-Identifier: Apache-2.0 */
/* Which MAC address a packet goes to. The kernel keeps routing and resolving: this asks it once per
 * destination, remembers the answer until the kernel says that something changed, and has the
 * kernel resolve a neighbour by sending it an empty datagram. Never sends ARP or ND itself. */
#pragma once

#include <dmm/pktio.h>

#include "instance/mirror.h"

#define NEXTHOP_CACHE 1024 /* destinations */
#define NEXTHOP_MAX   1024 /* neighbours in use */
#define NEXTHOP_HELD  8	   /* frames waiting for a neighbour, as many as the kernel's queue had */

struct neighbour {
	uint8_t addr[16];
	uint8_t mac[6];
	bool valid; /* mac may be used */
	bool stale; /* and ought to be confirmed */
	uint64_t asked_ns;
	uint64_t waiting_since_ns; /* while frames are held */
	struct dmm_frame held[NEXTHOP_HELD];
	unsigned int n_held;
	uint16_t next; /* of the same hash, index + 1 */
};

struct nexthop_route {
	uint8_t dst[16], src[16];
	uint32_t generation;
	int err;
	struct neighbour *neighbour; /* NULL with err */
};

/* What becomes of the frames held for a neighbour. */
struct nexthop_events {
	void *ctx;
	void (*resolved)(void *ctx, struct neighbour *n); /* send them */
	void (*dropped)(void *ctx, struct neighbour *n);  /* take them back */
	/* It does not answer (after dropped()). Only from mirror_run() and nexthop_tick(). */
	void (*failed)(void *ctx, const struct neighbour *n);
};

struct nexthops {
	struct mirror *mirror;
	struct nexthop_events events;
	int probe4, probe6;
	uint32_t generation; /* of valid routes in the cache */
	uint32_t n_neighbours;
	uint16_t hash[NEXTHOP_MAX]; /* index + 1 */
	struct neighbour neighbours[NEXTHOP_MAX];
	struct nexthop_route cache[NEXTHOP_CACHE];
};

/* @nh is large: not for the stack. Owns the probes (base/hostsock.h); @probe6 may be -1. */
void nexthop_open(struct nexthops *nh, struct mirror *mirror, int probe4, int probe6,
		  const struct nexthop_events *events);
void nexthop_close(struct nexthops *nh);
/* Forgets every neighbour and route; frames still held are given to events.dropped(). */
void nexthop_forget(struct nexthops *nh);

/* The neighbour that packets to @dst go to; NULL and *reterr_err (negative) where there is none.
 * The pointer is good until the next call. Asks the kernel to resolve or confirm it where due. */
struct neighbour *nexthop_find(struct nexthops *nh, const uint8_t dst[16], const uint8_t src[16],
			       uint64_t now, int *reterr_err);
/* Keeps @frame until the neighbour is resolved. True: *ret_dropped was thrown out for it and is the
 * caller's. */
bool nexthop_hold(struct neighbour *n, const struct dmm_frame *frame, uint64_t now,
		  struct dmm_frame *ret_dropped);
/* Gives up on neighbours that the kernel has forgotten about: once a second or so. */
void nexthop_tick(struct nexthops *nh, uint64_t now);

/* For struct mirror_events. */
void nexthop_on_neighbour(struct nexthops *nh, const struct mirror_neighbour *seen);
void nexthop_on_routes(struct nexthops *nh);
void nexthop_on_lost(struct nexthops *nh);
