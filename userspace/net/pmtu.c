// SPDX-License-Identifier: Apache-2.0
/* Errors that the network reports about our packets, and the MTU of the path: told by it (RFC 1191,
 * 8201), or found out where it is silent (RFC 4821). An error counts only if it is about something
 * that is on its way (RFC 5927 4), and no soft one ends a connection (MUST-56). */
#include "base/util.h"
#include "net/net_internal.h"
#include "net/seq.h"

#define BLACK_HOLE_AFTER 2 /* RTOs in a row of a full segment; then each RTO */
/* RFC 1191 6.3: what the path was found to be is tried anew after 10 minutes; a guess sooner. */
#define AGE	    (600 * NET_SEC)
#define GUESS_AGE   NET_SEC
#define MAX_DOUBLED 9

void net_pmtu_lower(struct dmm_net_conn *c, uint32_t mtu)
{
	const uint32_t now = c->path_mtu ? c->path_mtu : c->net->mtu, mss = c->mss;
	struct net_sent *sent;

	if (mtu >= now)
		return;
	c->path_mtu = (uint16_t)mtu;
	c->mtu_try_at = c->net->now + AGE;
	c->mtu_try_end = c->snd_una; /* what was sent before says nothing */
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

/* Larger than what is sent now, and perhaps small enough. */
static uint32_t mtu_to_try(const struct dmm_net_conn *c)
{
	return c->mtu_before ? DMM_MIN((uint32_t)c->mtu_before, c->net->mtu) : c->net->mtu;
}

static uint64_t next_try(const struct dmm_net_conn *c)
{
	return c->net->now + (c->mtu_before ? DMM_MIN(GUESS_AGE << c->mtu_tries, AGE) : AGE);
}

static void raise_mtu(struct dmm_net_conn *c)
{
	const uint32_t mtu = mtu_to_try(c);

	c->path_mtu = mtu < c->net->mtu ? (uint16_t)mtu : 0;
	c->mtu_before = 0;
	c->mtu_tries = 0;
	c->mtu_try_at = c->net->now + AGE;
	net_set_mss(c);
	c->cwnd = DMM_MAX(c->cwnd, c->mss); /* their least is of the new size */
	c->ssthresh = DMM_MAX(c->ssthresh, 2 * c->mss);
	c->undo_ssthresh = DMM_MAX(c->undo_ssthresh, 2 * c->mss);
}

uint32_t net_pmtu_try(struct dmm_net_conn *c, uint32_t most)
{
	const uint32_t mtu = mtu_to_try(c), pipe = net_pipe(c);
	uint32_t len;

	if (!c->path_mtu || c->net->now < c->mtu_try_at || c->path_mtu >= mtu ||
	    c->recovery != NET_OPEN || c->tlp_out)
		return c->mss;
	len = DMM_MIN(c->mss + mtu - c->path_mtu, c->peer_mss - (c->ts_ok ? 12u : 0u));
	if (len > most || pipe + len > c->cwnd)
		return c->mss;
	c->mtu_try_at = next_try(c);
	c->mtu_tries += c->mtu_tries <= MAX_DOUBLED;
	c->mtu_try_end = c->snd_nxt + len;
	return len;
}

void net_pmtu_arrived(struct dmm_net_conn *c, const struct net_sent *sent)
{
	if (c->path_mtu && sent->times == 1 && sent->end - sent->fin == c->mtu_try_end &&
	    sent->end - sent->seq - sent->fin > c->mss)
		raise_mtu(c);
}

void net_black_hole(struct dmm_net_conn *c)
{
	const struct net_sent *first = TAILQ_FIRST(&c->sent);
	const uint32_t least = c->v4 ? NET_MIN_MTU : NET_MIN_MTU6;
	const uint32_t headers =
		(c->v4 ? NET_HEADER4 : NET_HEADER6) + NET_TCP_HEADER + (c->ts_ok ? 12 : 0);
	const uint32_t mtu = c->mss + headers; /* what is made use of */
	bool fits;

	if (!first || c->state < NET_ESTABLISHED)
		return;
	/* what would fit anywhere was not lost for its size; nor was what was larger, then */
	fits = first->end - first->seq + headers <= least;
	if ((fits && !c->mtu_before) || ++c->big_lost < BLACK_HOLE_AFTER)
		return;
	if (fits) {
		c->big_lost = 0;
		raise_mtu(c);
		return;
	}
	if (mtu <= least)
		return;
	c->net->stats.black_holes++;
	if (!c->mtu_before)
		c->mtu_before = (uint16_t)(c->path_mtu ? c->path_mtu : c->net->mtu);
	net_pmtu_lower(c, mtu > 1500 ? 1500 : mtu > NET_MIN_MTU6 ? NET_MIN_MTU6 : NET_MIN_MTU);
	c->mtu_try_at = next_try(c);
}
