// SPDX-License-Identifier: Apache-2.0
/* Bytes that arrive, in order or not, and the FIN behind them (RFC 9293 3.10.7.4, seventh and
 * eighth check); what of it is to be acknowledged at once (RFC 5681 4.2); how far the window
 * reaches. */
#include "base/util.h"
#include "net/net_internal.h"
#include "net/seq.h"

#define DELAY	     (40 * NET_MS) /* MUST-40: below 0.5 s */
#define FEW_RANGES   4
#define ACK_SEGMENTS 2 /* SHLD-18: at least every second full one */

void net_held_clear(struct dmm_net_conn *c)
{
	net_ranges_clear(&c->held, &c->net->ranges);
}

/* Less than the buffer where all connections together are short of memory, and where the peer's
 * window field cannot say as much. */
uint32_t net_receive_edge(const struct dmm_net_conn *c)
{
	const struct net_pool *chunks = &c->net->chunks;
	const uint64_t left = (uint64_t)net_pool_left(chunks) * NET_CHUNK / 4;
	const uint64_t room = DMM_MIN(c->rcv_buffer, left);
	const uint32_t most = 0xffffu << c->rcv_scale;
	const uint32_t edge = c->rcv_read + (uint32_t)DMM_MIN(room, (uint64_t)most);

	return seq_max(edge, c->rcv_adv); /* SHLD-14: it is never taken back */
}

/* Cuts off what we have and what is beyond the window. False: nothing is left. */
static bool fit(struct dmm_net_conn *c, struct net_segment *s)
{
	if (seq_lt(s->seq, c->rcv_nxt)) {
		const uint32_t n = c->rcv_nxt - s->seq;

		c->quick_acks = NET_QUICK_ACKS;
		if (c->sack_ok && s->len) { /* RFC 2883 4: so it was sent twice */
			c->dsack_start = s->seq;
			c->dsack_end = seq_min(c->rcv_nxt, s->seq + s->len);
			c->ack_now = true;
		}
		if (n > s->len)
			return false;
		s->data += n;
		s->len -= n;
		s->seq = c->rcv_nxt;
	}
	if (seq_gt(s->seq + s->len, c->rcv_adv)) {
		s->len = seq_lt(s->seq, c->rcv_adv) ? c->rcv_adv - s->seq : 0;
		s->flags &= (uint8_t)~NET_FIN;
		c->ack_now = true;
	}
	return s->len || (s->flags & NET_FIN);
}

/* What is out of order may come to nothing: it gets no part of the last eighth of the chunks, and few
 * ranges where half of them are taken. Adds @s to the ranges. */
static bool make_part(struct dmm_net_conn *c, const struct net_segment *s, struct net_range *ret)
{
	struct net_pool *ranges = &c->net->ranges, *chunks = &c->net->chunks;
	const bool many = net_pool_left(ranges) > ranges->count / 2;

	if (net_pool_left(chunks) >= chunks->count / 8 + s->len / NET_CHUNK + 2 &&
	    net_ranges_add(&c->held, ranges, s->seq, s->seq + s->len,
			   many ? NET_MAX_RANGES : FEW_RANGES, ret))
		return true;
	c->net->stats.no_memory++;
	return false;
}

static bool store(struct dmm_net_conn *c, const struct net_segment *s)
{
	struct net_pool *chunks = &c->net->chunks;

	if (net_stream_put(&c->rx, chunks, s->seq, s->data, s->len))
		return true;
	c->net->stats.no_memory++;
	return false;
}

static void remember_part(struct dmm_net_conn *c, uint32_t at)
{
	c->recent[2] = c->recent[1];
	c->recent[1] = c->recent[0];
	c->recent[0] = at;
}

static bool is_held(const struct dmm_net_conn *c, uint32_t start, uint32_t end)
{
	const struct net_range *r;

	for (r = c->held; r; r = r->next)
		if (seq_leq(r->start, start) && seq_leq(end, r->end))
			return true;
	return false;
}

static void hold(struct dmm_net_conn *c, const struct net_segment *s)
{
	const uint32_t end = s->seq + s->len;
	struct net_range part;

	c->net->stats.out_of_order++;
	c->quick_acks = NET_QUICK_ACKS;
	c->ack_now = true;
	/* RFC 5681 4.2: one each, for peers who count them */
	if (!c->sack_ok && c->dup_acks_owed < UINT8_MAX)
		c->dup_acks_owed++;
	if ((s->flags & NET_FIN) && !c->fin_held) { /* SHLD-31 */
		c->fin_held = true;
		c->fin_at = end;
	}
	if (!s->len)
		return;
	if (is_held(c, s->seq, end)) {
		c->dsack_start = s->seq;
		c->dsack_end = end;
		remember_part(c, s->seq);
		return;
	}
	if (!make_part(c, s, &part))
		return;
	store(c, s); /* there is room */
	remember_part(c, s->seq);
	/* with SACK, as many as it takes to tell of each new part */
	if (c->sack_ok && part.start == s->seq && part.end == end)
		c->dup_acks_owed++;
}

/* What was held and is in order now. True: a gap was filled. */
static bool take_held(struct dmm_net_conn *c)
{
	bool filled = false;

	while (c->held && seq_leq(c->held->start, c->rcv_nxt)) {
		c->rcv_nxt = seq_max(c->rcv_nxt, c->held->end);
		net_ranges_pop(&c->held, &c->net->ranges);
		filled = true;
	}
	return filled;
}

/* What a full segment of the peer's is (SHLD-19): the largest so far, or what came twice in a row, since
 * his path may have become narrower. */
static void measure(struct dmm_net_conn *c, uint32_t len)
{
	if (len >= c->rcv_mss || (len >= NET_DEFAULT_MSS4 && len == c->rcv_len))
		c->rcv_mss = (uint16_t)len;
	c->rcv_len = (uint16_t)len;
}

static void owe_ack(struct dmm_net_conn *c, uint32_t len, bool now)
{
	measure(c, len);
	c->unacked += len;
	if (c->quick_acks) {
		c->quick_acks--;
		now = true;
	}
	if (now || c->unacked >= ACK_SEGMENTS * c->rcv_mss)
		c->ack_now = true;
	else if (!c->due[NET_DUE_ACK])
		net_due_set(c, NET_DUE_ACK, c->net->now + DELAY);
}

/* The peer has closed his side: all before it is there. */
static void take_fin(struct dmm_net_conn *c)
{
	c->rcv_nxt++;
	c->rcv_adv = seq_max(c->rcv_adv, c->rcv_nxt);
	c->eof = true;
	c->ack_now = true;
	if (!c->closing)
		net_note(c, DMM_EV_EOF);
	switch (c->state) {
	case NET_ESTABLISHED:
		c->state = NET_CLOSE_WAIT;
		break;
	case NET_FIN_WAIT1: /* had ours been acknowledged, it would be FIN_WAIT2 */
		c->net->stats.simultaneous_close++;
		c->state = NET_CLOSING;
		break;
	case NET_FIN_WAIT2:
		net_enter_time_wait(c);
		break;
	}
}

void net_receive(struct dmm_net_conn *c, struct net_segment *s)
{
	const uint32_t before = c->rcv_nxt;
	bool filled;

	net_want_output(c);
	if (c->eof || !fit(c, s)) {
		c->ack_now = true;
		return;
	}
	if (c->closing && s->len) { /* RFC 2525 2.17: nobody will ever read it: say so */
		net_reply_abort(c);
		net_conn_end(c, 0);
		return;
	}
	if (s->seq != c->rcv_nxt) {
		hold(c, s);
		return;
	}
	/* out of chunks: what is out of order makes room for what is in order (RFC 2018 8) */
	if (s->len && !store(c, s)) {
		net_held_clear(c);
		net_stream_cut(&c->rx, &c->net->chunks, c->rcv_nxt);
		c->ack_now = true;
		return;
	}
	if (c->ts_ok && s->len)
		c->rcv_rtt_ms = net_ts_now(c) - s->opt.ts_ecr;
	c->rcv_nxt += s->len;
	filled = take_held(c);
	if (c->rcv_nxt != before) {
		net_note(c, DMM_EV_READABLE);
		owe_ack(c, c->rcv_nxt - before, filled || c->held);
	}
	c->fin_held &= seq_leq(c->rcv_nxt, c->fin_at);
	if (((s->flags & NET_FIN) && c->rcv_nxt == s->seq + s->len) ||
	    (c->fin_held && c->rcv_nxt == c->fin_at))
		take_fin(c);
}
