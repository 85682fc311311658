// SPDX-License-Identifier: Apache-2.0
/* What all congestion controls share: how they begin, and slow start. */
#include "net/congestion.h"

#include "base/util.h"

const struct net_congestion_ops *net_congestion_of(enum dmm_net_congestion which)
{
	return which == DMM_NET_NEWRENO ? &net_newreno : &net_cubic;
}

/* RFC 6928 2. */
uint32_t net_initial_window(const struct dmm_net_conn *c)
{
	return DMM_MIN(10 * c->mss, DMM_MAX(2 * c->mss, 14600u));
}

void net_congestion_begin(struct dmm_net_conn *c, bool lost)
{
	c->cwnd = lost ? c->mss : net_initial_window(c); /* RFC 5681 3.1 */
	c->ssthresh = UINT32_MAX / 2;
	c->undo_cwnd = net_initial_window(c); /* should it turn out that it was not */
	c->undo_ssthresh = c->ssthresh;
	c->cc->begin(c);
}

void net_congestion_idle(struct dmm_net_conn *c)
{
	c->cwnd = DMM_MIN(c->cwnd, net_initial_window(c));
}

uint32_t net_slow_start(struct dmm_net_conn *c, const struct net_acked *a, uint32_t segments)
{
	const uint32_t grow = DMM_MIN(a->delivered, segments * c->mss);
	const uint32_t room = c->ssthresh - c->cwnd;

	c->cwnd += DMM_MIN(grow, room);
	return grow > room ? a->delivered - room : 0;
}
