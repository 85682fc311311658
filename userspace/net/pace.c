// SPDX-License-Identifier: Apache-2.0
/* Pacing: a window is spread over its round trip, at twice the rate of the window in slow start
 * (where the next one will be twice as large) and a fifth more than it afterwards, so that queues
 * on the way see no bursts. A few segments, or as many as go in a millisecond, may go at once;
 * then paths whose round trip is about that long have no use for it, and it costs them nothing. */
#include "base/util.h"
#include "net/net_internal.h"

#define BURST_SEGMENTS 10
#define BURST_TIME     NET_MS
#define SHORT_RTT      NET_MS
#define TURN_SEGMENTS  2 /* so many go when it goes on, or as many as in */
#define TURN_TIME      (NET_MS / 4)

static bool is_paced(const struct dmm_net_conn *c)
{
	return c->net->paces && c->srtt > SHORT_RTT && c->cwnd;
}

/* That @len bytes take. */
static uint64_t time_of(const struct dmm_net_conn *c, uint32_t len)
{
	const uint64_t window = c->cwnd < c->ssthresh ? 2ull * c->cwnd : c->cwnd * 6ull / 5;

	return len * c->srtt / window;
}

bool net_pace_allows(struct dmm_net_conn *c)
{
	uint64_t each, burst;

	if (!is_paced(c) || c->pace_at <= c->net->now + BURST_TIME)
		return true;
	each = time_of(c, c->mss);
	burst = DMM_MAX(BURST_SEGMENTS * each, BURST_TIME);
	if (c->pace_at <= c->net->now + burst)
		return true;
	net_due_set(c, NET_DUE_PACE, c->pace_at - burst + DMM_MAX(TURN_SEGMENTS * each, TURN_TIME));
	return false;
}

void net_pace_sent(struct dmm_net_conn *c, uint32_t len)
{
	if (is_paced(c))
		c->pace_at = DMM_MAX(c->pace_at, c->net->now) + time_of(c, len);
}
