/* SPDX-License-Identifier: Apache-2.0 */
/* What the simulator's files share: netsim.c has time, users and what must always hold,
 * netsim_link.c the packets on their way. */
#pragma once

#include "netsim.h"

#define NETSIM_MAX_FLYING   8192
#define NETSIM_MAX_ACCEPTED 64
#define NETSIM_MAX_JUMBO    9216

struct packet {
	struct packet *next; /* of those that are free */
	uint32_t len;
	uint8_t data[NETSIM_MAX_JUMBO];
};

struct flying {
	uint64_t at; /* the heap is by these two */
	uint32_t order;
	uint32_t to;
	struct packet *packet;
};

struct side {
	struct dmm_net *net;
	struct dmm_net_config config;
	void *memory;
	size_t memory_len;
	struct dmm_net_conn *listener;
	struct netsim_conn accept;
	struct netsim_conn *accepted[NETSIM_MAX_ACCEPTED];
	unsigned int n_accepted;
	uint64_t free_at; /* the link's */
	uint64_t probes;  /* so far */
	bool touched;	  /* something was done to it in this step */
};

struct netsim {
	struct netsim_params params;
	struct side side[2];
	uint32_t n_flying, order;
	uint32_t fragment_id;
	struct packet *free;
	uint64_t now, begin, random;
	struct netsim_conn *conns[2 * NETSIM_MAX_ACCEPTED];
	unsigned int n_conns;
	struct netsim_seen seen;
	netsim_tap tap;
	void *tap_arg;
	unsigned int violations;
	bool traces;
	struct flying heap[NETSIM_MAX_FLYING]; /* the last, and never cleared */
};

uint64_t netsim_random(struct netsim *sim);
bool netsim_chance(struct netsim *sim, uint32_t per_mille);

/* netsim_link.c */

struct packet *netsim_packet(struct netsim *sim);
void netsim_packet_free(struct netsim *sim, struct packet *packet);
/* @packet leaves @from, and is the link's from now on. */
void netsim_transmit(struct netsim *sim, unsigned int from, struct packet *packet);
/* The first that arrives. */
struct flying netsim_land(struct netsim *sim);
/* Instead of all that is in @packet behind its IP header: a segment without data. */
void netsim_make_bare(struct packet *packet, uint8_t flags, uint32_t seq);

static inline uint32_t netsim_ip_header(const struct packet *packet)
{
	return packet->data[0] >> 4 == 4 ? 20 : 40;
}
