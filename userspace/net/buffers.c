// SPDX-License-Identifier: Apache-2.0
/* How large the buffers of a connection are, so that many who do little cost little and a few on
 * long fat paths get what they need. What all of them hold together is bounded by the chunks of the
 * engine: who asks for room or tells a window gets no more than a quarter of what is left. */
#include "base/util.h"
#include "net/net_internal.h"

#define BEGIN (64u << 10)

void net_buffers_begin(struct dmm_net_conn *c)
{
	c->rcv_buffer = DMM_MIN(c->net->receive_buffer, BEGIN);
}

/* A window on its way and as much behind it, so that an ACK always finds something to send. */
uint32_t net_send_buffer(const struct dmm_net_conn *c)
{
	const uint64_t want = DMM_MAX(2ull * c->cwnd, (uint64_t)BEGIN);

	return (uint32_t)DMM_MIN(want, c->net->send_buffer);
}

/* The handshake's, where nothing else was sent; with timestamps, what it is now with all queues on
 * the way, so that it is not the window which keeps them short. */
static uint64_t round_trip(const struct dmm_net_conn *c)
{
	const uint64_t rtt = c->srtt ? c->srtt : NET_SEC;

	return c->ts_ok ? DMM_MAX(rtt, c->rcv_rtt_ms * NET_MS) : rtt;
}

/* Twice what is read in a round trip: as much again comes while a loss is repaired. Where this was
 * more than in the last one the next may bring more by the same factor, at most 2 in slow start. */
void net_receive_buffer_read(struct dmm_net_conn *c)
{
	const uint64_t read = c->rcv_read - c->round_from, last = c->last_round;
	uint64_t want = 2 * read;

	if (c->net->now - c->round_at < round_trip(c))
		return;
	if (read > last)
		want = read < 2 * last ? want * read / last : 2 * want;
	c->rcv_buffer = (uint32_t)DMM_MIN(DMM_MAX(want, c->rcv_buffer), c->net->receive_buffer);
	c->round_at = c->net->now;
	c->round_from = c->rcv_read;
	c->last_round = (uint32_t)read;
}
