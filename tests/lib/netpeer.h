/* SPDX-License-Identifier: Apache-2.0 */
/* One native engine, and a test as its peer, segment by segment. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <dmm/net.h>

#include "segment.h"

#define NETPEER_MS    1000000ull
#define NETPEER_SEC   (1000 * NETPEER_MS)
#define NETPEER_ISN   5000u
#define NETPEER_OUT   256
#define NETPEER_ADDRS 1000

struct netpeer {
	struct dmm_net *net;
	void *memory;
	uint64_t now;
	struct dmm_endpoint ours, theirs; /* ours: the engine's */
	struct segment out[NETPEER_OUT];
	unsigned int n_out;
	uint32_t events;
	int err;
	struct dmm_net_conn *conn;
	uint32_t iss;	   /* the engine's */
	uint32_t seq, ack; /* the peer's next */
	struct segment syn_ack;
};

struct dmm_endpoint netpeer_endpoint(bool v4, uint8_t last, uint16_t port);
void netpeer_open_with(struct netpeer *r, bool v4, const char secret[32]);
void netpeer_open(struct netpeer *r, bool v4);
void netpeer_settle(struct netpeer *r);
void netpeer_close(struct netpeer *r);
void netpeer_pass(struct netpeer *r, uint64_t ns);
/* What came since the last time it was asked; NULL: nothing. */
const struct segment *netpeer_last(struct netpeer *r);
struct segment netpeer_segment_of(struct netpeer *r, uint8_t flags, const void *data, uint32_t len);
void netpeer_put(struct netpeer *r, const struct segment *s);
void netpeer_sends(struct netpeer *r, uint8_t flags, const void *data, uint32_t len);
/* A connection from the peer, whose SYN has these options. */
void netpeer_accept_with(struct netpeer *r, const uint8_t *options, uint32_t len);
void netpeer_establish(struct netpeer *r, const uint8_t *options, uint32_t len);
struct dmm_net_stats netpeer_stats_of(struct netpeer *r);
