// SPDX-License-Identifier: Apache-2.0
/* Congestion control as in RFC 5681: one segment more per round trip, half after a loss. */
#include "base/util.h"
#include "net/congestion.h"

static void begin(struct dmm_net_conn *c)
{
	(void)c;
}

/* cc_state[0]: bytes acknowledged since cwnd grew last. */
static void on_ack(struct dmm_net_conn *c, const struct net_acked *a)
{
	uint32_t bytes = a->delivered;

	if (c->cwnd < c->ssthresh)
		bytes = net_slow_start(c, a, 2);
	c->cc_state[0] += bytes;
	if (c->cc_state[0] >= c->cwnd) {
		c->cc_state[0] -= c->cwnd;
		c->cwnd += c->mss;
	}
}

/* RFC 5681 equation 4. */
static uint32_t on_congested(struct dmm_net_conn *c, enum net_congested why)
{
	(void)why;
	c->cc_state[0] = 0;
	return DMM_MAX((c->snd_nxt - c->snd_una) / 2, 2 * c->mss);
}

static void on_undo(struct dmm_net_conn *c)
{
	(void)c;
}

const struct net_congestion_ops net_newreno = {
	.name = "newreno",
	.begin = begin,
	.on_ack = on_ack,
	.on_congested = on_congested,
	.on_undo = on_undo,
};
