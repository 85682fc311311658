// SPDX-License-Identifier: Apache-2.0
/* Errors that the network reports about our packets, and the MTU of the path: told by it (RFC 1191,
 * 8201), or found out where it is silent (RFC 4821). An error counts only if it is about something
 * that is on its way (RFC 5927 4), and no soft one ends a connection (MUST-56). */
#include "base/util.h"
#include "net/net_internal.h"
#include "net/seq.h"

#define BLACK_HOLE_AFTER 2 /* RTOs in a row of a full segment */

void net_pmtu_lower(struct dmm_net_conn *c, uint32_t mtu)
{
	const uint32_t now = c->path_mtu ? c->path_mtu : c->net->mtu, mss = c->mss;
	struct net_sent *sent;

	if (mtu >= now)
		return;
	c->path_mtu = (uint16_t)mtu;
	net_set_mss(c);
	c->net->stats.pmtu_lowered++;
	if (c->mss >= mss || c->state < NET_ESTABLISHED)
		return;
	/* RFC 1191 6.4: what is too long is gone, but not for congestion: undone like a wrong
	 * RTO */
	for (sent = TAILQ_FIRST(&c->sent); sent; sent = TAILQ_NEXT(sent, by_seq))
		if (sent->end - sent->seq > c->mss && !sent->sacked)
			net_mark_lost(c, sent);
	c->cwnd = DMM_MAX(c->cwnd, 2 * c->mss);
	net_want_output(c);
}

void net_icmp_error(struct dmm_net *net, const struct dmm_icmp *error)
{
	struct dmm_net_conn *c = net_find(net, &error->local, &error->remote);
	const uint32_t mtu = net_icmp_mtu(error);

	net->stats.icmp_in++;
	if (!c || c->state < NET_SYN_SENT || seq_lt(error->seq, c->snd_una) ||
	    seq_geq(error->seq, c->snd_nxt))
		return;
	if (mtu)
		net_pmtu_lower(c, mtu);
	else if (error->hard && c->state == NET_SYN_SENT) /* RFC 5927 5: later ones are soft too */
		net_conn_end(c, error->err);
}

void net_black_hole(struct dmm_net_conn *c)
{
	const struct net_sent *first = TAILQ_FIRST(&c->sent);
	const uint32_t mtu = c->path_mtu ? c->path_mtu : c->net->mtu;
	const uint32_t least = c->v4 ? NET_MIN_MTU : NET_MIN_MTU6;
	const uint32_t headers =
		(c->v4 ? NET_HEADER4 : NET_HEADER6) + NET_TCP_HEADER + (c->ts_ok ? 12 : 0);

	/* what would fit anywhere was not lost for its size */
	if (!first || first->end - first->seq + headers <= least || c->state < NET_ESTABLISHED)
		return;
	if (++c->big_lost < BLACK_HOLE_AFTER)
		return;
	c->big_lost = 0;
	if (mtu <= least)
		return;
	c->net->stats.black_holes++;
	c->backoff = 0; /* these never went: nothing is known of what will */
	net_pmtu_lower(c, mtu > 1500 ? 1500 : mtu > NET_MIN_MTU6 ? NET_MIN_MTU6 : NET_MIN_MTU);
}
