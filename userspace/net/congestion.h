/* SPDX-License-Identifier: Apache-2.0 */
/* Congestion control: what one algorithm is. It owns @cwnd and @ssthresh (bytes) of a connection
 * while nothing is lost; while something is, recovery.c spreads the reduction (RFC 6937). A new
 * one is one file and one line in congestion.c. */
#pragma once

#include "net/net_internal.h"

enum net_congested { NET_CONGESTED_LOST, NET_CONGESTED_TIMEOUT, NET_CONGESTED_MARKED };

struct net_congestion_ops {
	const char *name;
	void (*begin)(struct dmm_net_conn *c); /* cc_state is zero */
	/* Bytes arrived, nothing is being recovered, and cwnd is what holds sending back. */
	void (*on_ack)(struct dmm_net_conn *c, const struct net_acked *a);
	/* Something was lost, all may be, or something was marked on its way (RFC 3168): what
	 * ssthresh is to be. */
	uint32_t (*on_congested)(struct dmm_net_conn *c, enum net_congested why);
	/* It was not lost after all. */
	void (*on_undo)(struct dmm_net_conn *c);
};

extern const struct net_congestion_ops net_cubic, net_newreno;

const struct net_congestion_ops *net_congestion_of(enum dmm_net_congestion which);
/* The handshake is done. @lost: a SYN had to be sent again. */
void net_congestion_begin(struct dmm_net_conn *c, bool lost);
/* RFC 5681 4.1: after a time without sending nothing is known of the path any more. */
void net_congestion_idle(struct dmm_net_conn *c);
uint32_t net_initial_window(const struct dmm_net_conn *c);
/* Slow start by the bytes of @a (RFC 5681 3.1, byte counting of RFC 3465 with the limit @segments);
 * returns what is left of them above ssthresh. */
uint32_t net_slow_start(struct dmm_net_conn *c, const struct net_acked *a, uint32_t segments);
