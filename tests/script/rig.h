/* SPDX-License-Identifier: Apache-2.0 */
/* One engine on a virtual clock, and its peers' side of the wire: what has left, what has happened. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <dmm/net.h>

#include "wire.h"

#define RIG_PEERS  16
#define RIG_EVENTS 64
#define RIG_OUT	   256
#define RIG_MTU	   9000

struct rig_event {
	uint32_t events;
	int err;
};

struct rig_peer {
	struct dmm_endpoint end;
	struct dmm_net_conn *conn; /* NULL: none, or its handle is dead */
	uint32_t isn, our_isn;	   /* our_isn: the engine's, once its SYN has left */
	uint32_t our_clock;	   /* of its timestamps, in its first */
	bool clock_known;
	struct rig_event events[RIG_EVENTS]; /* not expected yet, the oldest first */
	unsigned int n_events;
	uint32_t sent, received; /* bytes that passed the socket */
};

struct rig_packet {
	uint64_t at;
	uint32_t len;
	uint8_t bytes[RIG_MTU];
};

struct rig {
	struct dmm_net_config config;
	struct dmm_net *net; /* NULL: not created yet */
	void *memory;
	uint64_t now;
	bool v6;
	bool own_isn; /* the engine chooses its initial numbers */
	struct dmm_endpoint ours;
	uint8_t addrs[2][16]; /* ours.addr and one more */
	struct dmm_net_conn *listener;
	struct rig_peer peers[RIG_PEERS], *peer; /* peer: whom the script speaks of */
	struct rig_packet *out;
	unsigned int out_head, n_out;
	const char *wrong; /* what must never be */
};

void rig_init(struct rig *r);
/* With the config as it is by then. False: it is nonsense. */
bool rig_create(struct rig *r);
void rig_free(struct rig *r);
/* Takes what has happened and what leaves. */
void rig_settle(struct rig *r);
/* Until something leaves, or @until. */
void rig_run(struct rig *r, uint64_t until);
void rig_put(struct rig *r, const void *packet, size_t len);
/* The oldest that has left; NULL: none. */
const struct rig_packet *rig_first(const struct rig *r);
void rig_drop_first(struct rig *r);
const char *rig_state(const struct rig *r);
/* All connections end; false: something was not given back. */
bool rig_end(struct rig *r);
