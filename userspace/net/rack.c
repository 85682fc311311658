// SPDX-License-Identifier: Apache-2.0
/* RACK and TLP (RFC 8985): a segment is lost when one that was sent later has arrived, and a little
 * time for reordering has passed; and the last segments, behind which none is sent, are probed. */
#include "base/util.h"
#include "net/congestion.h"
#include "net/net_internal.h"
#include "net/seq.h"

#define DUP_THRESH   3
#define REO_ROUNDS   16
#define MAX_REO_MULT 16
/* The peer's, at worst (WCDelAckT). 8985 says 200 ms; no RTO of ours is shorter, so that one
 * segment would never be probed. Nearly all peers delay by 40 ms. */
#define DELAYED_ACK    (100 * NET_MS)
#define PROBE_SLACK    (2 * NET_MS)
#define RACK_RTT_FLOOR 1

static bool sent_after(uint64_t t1, uint32_t end1, uint64_t t2, uint32_t end2)
{
	return t1 > t2 || (t1 == t2 && seq_gt(end1, end2));
}

/* 6.2 steps 2 and 3. */
void net_rack_delivered(struct dmm_net_conn *c, const struct net_sent *sent,
			const struct net_segment *s)
{
	const uint64_t rtt = DMM_MAX(c->net->now - sent->sent_at, (uint64_t)RACK_RTT_FLOOR);

	if (sent->times > 1) {
		/* may be the first copy that arrived: then the ACK came too soon for the last. Behind a
		 * gap, what is echoed is of what came before it (RFC 7323 4.3), and tells nothing */
		if (c->ts_ok && s->opt.has_ts && seq_leq(sent->end, s->ack)) {
			const uint32_t sent_ts = net_ts_now(c) - (uint32_t)(rtt / NET_MS);

			if (seq_lt(s->opt.ts_ecr, sent_ts))
				return;
		}
		if (rtt < c->min_rtt)
			return;
	} else if (seq_lt(sent->end, c->rack_fack) && c->rack_sent_at) {
		c->reordering = true;
	}
	if (!c->rack_sent_at || seq_gt(sent->end, c->rack_fack))
		c->rack_fack = sent->end;
	if (!c->rack_sent_at ||
	    sent_after(sent->sent_at, sent->end, c->rack_sent_at, c->rack_end)) {
		c->rack_sent_at = sent->sent_at;
		c->rack_end = sent->end;
		c->rack_rtt = rtt;
	}
}

/* 6.2 step 4: wider by a quarter of the round trip for each round in which a retransmission was
 * in vain. */
void net_rack_dsack(struct dmm_net_conn *c)
{
	if (seq_lt(c->snd_una, c->dsack_round))
		return;
	c->dsack_round = c->snd_nxt;
	c->reo_persist = REO_ROUNDS;
	if (c->reo_mult < MAX_REO_MULT)
		c->reo_mult++;
}

static uint64_t reorder_window(const struct dmm_net_conn *c)
{
	if (!c->reordering && (c->recovery != NET_OPEN || c->n_sacked >= DUP_THRESH))
		return 0;
	return DMM_MIN(c->reo_mult * c->min_rtt / 4, c->srtt);
}

/* 6.2 step 5. */
void net_rack_detect(struct dmm_net_conn *c)
{
	const uint64_t window = c->rack_rtt + reorder_window(c);
	struct net_sent *sent;

	c->reo_wait = 0;
	if (!c->rack_sent_at)
		return;
	while ((sent = TAILQ_FIRST(&c->sent_by_time)) &&
	       sent_after(c->rack_sent_at, c->rack_end, sent->sent_at, sent->end)) {
		const uint64_t until = sent->sent_at + window;

		if (until > c->net->now) { /* those behind it were sent later still */
			c->reo_wait = until - c->net->now;
			return;
		}
		net_mark_lost(c, sent);
		c->net->stats.rack_marked++;
	}
}

/* 7.2. True: the timer is set to probe. */
bool net_tlp_arm(struct dmm_net_conn *c)
{
	uint64_t wait;

	if (!c->sack_ok || c->recovery != NET_OPEN || c->tlp_out || c->n_sacked || !c->srtt ||
	    c->backoff || c->state < NET_ESTABLISHED)
		return false;
	wait = 2 * c->srtt + PROBE_SLACK;
	if (c->snd_nxt - c->snd_una <= c->mss)
		wait += DELAYED_ACK;
	if (wait >= c->rto)
		return false;
	c->rtx = NET_RTX_TLP;
	net_due_set(c, NET_DUE_RTX, c->net->now + wait);
	return true;
}

/* 7.3: new data if there is some, else the last segment again. output.c does it. */
void net_tlp_send(struct dmm_net_conn *c)
{
	c->net->stats.tlp++;
	c->tlp_out = true;
	c->tlp_retrans = false;
	c->probe = true;
	net_want_output(c);
}

/* 7.4.2: did the probe repair a loss? Then the network has to be given the rest it asked for. */
void net_tlp_ack(struct dmm_net_conn *c, const struct net_segment *s, const struct net_acked *a)
{
	if (!c->tlp_out || c->probe || seq_lt(s->ack, c->tlp_end))
		return;
	if (!c->tlp_retrans || a->dsack) {
		c->tlp_out = false;
	} else if (seq_gt(s->ack, c->tlp_end)) {
		c->tlp_out = false;
		c->ssthresh = c->cc->on_congested(c, NET_CONGESTED_LOST);
		c->cwnd = DMM_MIN(c->cwnd, c->ssthresh);
		c->undo_bytes = 0;
	} else if (!a->bytes && !s->len) {
		c->tlp_out = false;
	}
}
