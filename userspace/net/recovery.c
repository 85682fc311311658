// SPDX-License-Identifier: Apache-2.0
/* What is on its way: the scoreboard of RFC 2018 and 6675, what is held lost and sent again,
 * and how fast meanwhile (RFC 6937). What is lost is found by rack.c where the peer sends SACK,
 * and here by duplicate ACKs (RFC 6582) where he does not.
 *
 * Each segment is: sent; sacked; lost (to be sent again); lost and retrans (was sent again). In
 * a TLP it is retrans without being lost. Recovery is OPEN, RECOVERY from the first loss or mark
 * (RFC 3168) until all that was sent by then arrived, LOSS the same after an RTO. */
#include "net/net_internal.h"

#include <string.h>

#include "base/util.h"
#include "net/congestion.h"
#include "net/seq.h"

#define DUP_THRESH 3
/* Steps of searching for what a SACK tells of: so many are paid for by each ACK, and by each segment
 * that was sent: it may have to be passed. */
#define STEPS_OF_ACK  128
#define STEPS_OF_SENT 2
#define MAX_CREDIT    (1u << 17)

static uint32_t size_of(const struct net_sent *sent)
{
	return sent->end - sent->seq;
}

/* --- segments --- */

/* A peer with a tiny MSS needs many for few bytes: what is more than its bytes should need, only out
 * of the first half, so that they do not run out for others. */
static bool may_have(const struct dmm_net_conn *c)
{
	const struct net_pool *pool = &c->net->sents;
	const uint32_t left = net_pool_left(pool), half = pool->count / 2;
	const uint32_t chunks = (c->tx_end - c->snd_una) / NET_CHUNK + 1;

	return c->n_sent < chunks * NET_SENTS_OF_CHUNK ||
	       (left > half && c->n_sent < (left - half) / 4);
}

struct net_sent *net_sent_new(struct dmm_net_conn *c)
{
	struct net_sent *sent;

	if (!c->one_used) {
		c->one_used = true;
		sent = &c->one;
	} else {
		sent = may_have(c) ? net_pool_get(&c->net->sents) : NULL;
		if (!sent)
			return NULL;
	}
	*sent = (struct net_sent){ .seq = 0 };
	c->n_sent++;
	c->sack_credit += STEPS_OF_SENT;
	return sent;
}

static void no_time(struct dmm_net_conn *c, struct net_sent *sent)
{
	if (!sent->timed)
		return;
	sent->timed = false;
	TAILQ_REMOVE(&c->sent_by_time, sent, by_time);
}

static void set_retrans(struct dmm_net_conn *c, struct net_sent *sent, bool retrans)
{
	if (sent->retrans == retrans)
		return;
	sent->retrans = retrans;
	c->retrans_bytes += retrans ? size_of(sent) : -size_of(sent);
	if (sent->lost)
		c->n_to_resend += retrans ? -1u : 1u;
}

static void set_lost(struct dmm_net_conn *c, struct net_sent *sent, bool lost)
{
	if (sent->lost == lost)
		return;
	sent->lost = lost;
	c->lost_bytes += lost ? size_of(sent) : -size_of(sent);
	if (!sent->retrans)
		c->n_to_resend += lost ? 1u : -1u;
}

static void set_sacked(struct dmm_net_conn *c, struct net_sent *sent)
{
	struct net_sent *before = TAILQ_PREV(sent, net_sent_list, by_seq);
	struct net_sent *after = TAILQ_NEXT(sent, by_seq);
	struct net_sent *first = before && before->sacked ? before->run : sent;
	struct net_sent *last = after && after->sacked ? after->run : sent;

	first->run = last;
	last->run = first;
	sent->sacked = true;
	c->sacked_bytes += size_of(sent);
	c->n_sacked++;
	if (!c->sack_high || seq_gt(sent->seq, c->sack_high->seq))
		c->sack_high = sent;
}

static void not_sacked(struct dmm_net_conn *c, struct net_sent *sent)
{
	if (sent->sacked) {
		c->sacked_bytes -= size_of(sent);
		c->n_sacked--;
	}
	sent->sacked = false;
}

/* It is the first of all, so it is the first of its row. */
static void leave_run(struct net_sent *sent)
{
	struct net_sent *next = TAILQ_NEXT(sent, by_seq), *last = sent->run;

	if (!sent->sacked || last == sent)
		return;
	next->run = last;
	last->run = next;
}

void net_sent_free(struct dmm_net_conn *c, struct net_sent *sent)
{
	no_time(c, sent);
	set_retrans(c, sent, false);
	set_lost(c, sent, false);
	leave_run(sent);
	not_sacked(c, sent);
	if (c->sack_high == sent)
		c->sack_high = NULL;
	if (c->lost_hint == sent)
		c->lost_hint = TAILQ_NEXT(sent, by_seq);
	TAILQ_REMOVE(&c->sent, sent, by_seq);
	c->n_sent--;
	if (sent == &c->one)
		c->one_used = false;
	else
		net_pool_put(&c->net->sents, sent);
}

static void may_undo(struct dmm_net_conn *c, const struct net_sent *sent)
{
	const bool first = !c->undo_bytes;

	if (!c->undo_ts) {
		c->undo_ts = true;
		c->undo_at = net_ts_now(c);
	}
	c->undo_start = first ? sent->seq : seq_min(c->undo_start, sent->seq);
	c->undo_end = first ? sent->end : seq_max(c->undo_end, sent->end);
	c->undo_bytes += size_of(sent) - sent->fin;
}

void net_sent_now(struct dmm_net_conn *c, struct net_sent *sent)
{
	no_time(c, sent);
	sent->sent_at = c->net->now;
	sent->timed = true;
	TAILQ_INSERT_TAIL(&c->sent_by_time, sent, by_time);
	sent->times += sent->times < UINT8_MAX;
	if (sent->times == 1)
		return;
	c->net->stats.retransmits++;
	set_retrans(c, sent, true);
	if (c->recovery != NET_OPEN)
		may_undo(c, sent);
}

void net_mark_lost(struct dmm_net_conn *c, struct net_sent *sent)
{
	no_time(c, sent);
	set_retrans(c, sent, false);
	if (sent->sacked)
		return;
	set_lost(c, sent, true);
	if (c->lost_hint && seq_lt(sent->seq, c->lost_hint->seq))
		c->lost_hint = sent;
}

struct net_sent *net_next_lost(struct dmm_net_conn *c)
{
	struct net_sent *sent = c->lost_hint ? c->lost_hint : TAILQ_FIRST(&c->sent);

	if (!c->n_to_resend)
		return NULL;
	while (!sent->lost || sent->retrans)
		sent = TAILQ_NEXT(sent, by_seq);
	c->lost_hint = sent;
	return sent;
}

/* RFC 6675 4: what is on its way as far as we know. Without SACK each duplicate ACK says that one
 * segment left (RFC 5681 3.2 step 4). */
uint32_t net_pipe(const struct dmm_net_conn *c)
{
	const uint32_t out = c->snd_nxt - c->snd_una;
	const uint32_t gone =
		c->sacked_bytes + c->lost_bytes + (c->sack_ok ? 0 : c->dup_acks * c->mss);

	return (gone < out ? out - gone : 0) + c->retrans_bytes;
}

bool net_recovery_is_sound(const struct dmm_net_conn *c)
{
	uint32_t n = 0, sacked = 0, lost = 0, retrans = 0, again = 0, at = c->snd_una;
	const struct net_sent *sent, *before = NULL, *first = NULL, *high = NULL;

	for (sent = TAILQ_FIRST(&c->sent); sent; sent = TAILQ_NEXT(sent, by_seq)) {
		if (sent->seq != at || !seq_lt(sent->seq, sent->end))
			return false;
		at = sent->end;
		n++;
		sacked += sent->sacked ? size_of(sent) : 0;
		lost += sent->lost ? size_of(sent) : 0;
		retrans += sent->retrans ? size_of(sent) : 0;
		again += sent->lost && !sent->retrans;
		if (sent->sacked && (sent->lost || sent->retrans || sent->timed))
			return false;
		if (sent->sacked && !(before && before->sacked))
			first = sent;
		if (before && before->sacked && !sent->sacked &&
		    (before->run != first || first->run != before))
			return false;
		if (sent->sacked)
			high = sent;
		before = sent;
	}
	return high == c->sack_high && (!high || high->run == first) && n == c->n_sent &&
	       (!n || at == c->snd_nxt) && sacked == c->sacked_bytes && lost == c->lost_bytes &&
	       retrans == c->retrans_bytes && again == c->n_to_resend;
}

/* --- what an ACK says --- */

static void delivered(struct dmm_net_conn *c, struct net_sent *sent, const struct net_segment *s,
		      struct net_acked *a)
{
	a->delivered += size_of(sent) - sent->syn; /* RFC 5681 3.1: a SYN's ACK opens no window */
	a->retrans_acked |= sent->times > 1;
	if (sent->times == 1 && !a->rtt)
		a->rtt = DMM_MAX(c->net->now - sent->sent_at, 1u);
	net_pmtu_arrived(c, sent);
	net_rack_delivered(c, sent, s);
}

/* Those that are not sacked, one after the other. */
static struct net_sent *next_open(const struct net_sent *sent)
{
	struct net_sent *next = TAILQ_NEXT(sent, by_seq);

	return next && next->sacked ? TAILQ_NEXT(next->run, by_seq) : next;
}

static struct net_sent *last_open(const struct net_sent *sent)
{
	struct net_sent *before = TAILQ_PREV(sent, net_sent_list, by_seq);

	return before && before->sacked ? TAILQ_PREV(before->run, net_sent_list, by_seq) : before;
}

/* The peer chooses what is searched, so the steps are counted (CVE-2019-11478): out of credit, what
 * he tells is left out, and has to be told again. */
static bool may_step(struct dmm_net_conn *c)
{
	if (!c->sack_credit)
		return false;
	c->sack_credit--;
	c->net->sack_steps++;
	return true;
}

/* The first that is not sacked and ends behind @at: from the front, or from the highest sacked, if
 * that is nearer. False: out of credit. */
static bool search(struct dmm_net_conn *c, uint32_t at, struct net_sent **ret)
{
	const struct net_sent *high = c->sack_high;
	struct net_sent *sent = TAILQ_FIRST(&c->sent), *before;

	if (high && (int32_t)(high->seq - at) < (int32_t)(at - c->snd_una)) {
		sent = TAILQ_NEXT(high, by_seq);
		before = TAILQ_PREV(high->run, net_sent_list, by_seq);
		for (; before && seq_gt(before->end, at); before = last_open(before)) {
			if (!may_step(c))
				return false;
			sent = before;
		}
	} else if (sent->sacked) {
		sent = TAILQ_NEXT(sent->run, by_seq);
	}
	for (; sent && seq_leq(sent->end, at); sent = next_open(sent))
		if (!may_step(c))
			return false;
	*ret = sent;
	return true;
}

/* False: it was left out. */
static bool take_block(struct dmm_net_conn *c, uint32_t start, uint32_t end,
		       const struct net_segment *s, struct net_acked *a)
{
	struct net_acked of_sack = { .rtt = 1 };
	struct net_sent *sent, *next;
	uint32_t from = start;
	unsigned int i;

	for (i = 0; i < NET_MAX_SACK; i++)
		if (c->seen[i].start == start && seq_leq(c->seen[i].end, end))
			from = c->seen[i].end;
	if (from == end)
		return true;
	if (!search(c, from, &sent))
		return false;
	if (sent && seq_lt(sent->seq, start))
		sent = next_open(sent);
	for (; sent && seq_leq(sent->end, end); sent = next) {
		next = next_open(sent);
		delivered(c, sent, s, &of_sack);
		no_time(c, sent);
		set_retrans(c, sent, false);
		set_lost(c, sent, false);
		set_sacked(c, sent);
		a->sacked_new = true;
	}
	a->delivered += of_sack.delivered;
	return true;
}

/* RFC 2883 4: the first block is a duplicate if it is acknowledged or inside the second. */
static bool is_dsack(const struct net_segment *s)
{
	const struct net_options *o = &s->opt;

	return seq_lt(o->sack[0].start, s->ack) ||
	       (o->n_sack > 1 && seq_geq(o->sack[0].start, o->sack[1].start) &&
		seq_leq(o->sack[0].end, o->sack[1].end));
}

/* RFC 3708: what was sent again had arrived before. */
static void take_duplicate(struct dmm_net_conn *c, uint32_t start, uint32_t end,
			   struct net_acked *a)
{
	a->dsack = true;
	c->net->stats.dsack_in++;
	net_rack_dsack(c);
	if (!c->undo_bytes || seq_geq(start, end) || seq_lt(start, c->undo_start) ||
	    seq_gt(end, c->undo_end))
		return;
	c->undo_bytes -= DMM_MIN(end - start, c->undo_bytes);
	a->all_dup = !c->undo_bytes;
}

static void take_sack(struct dmm_net_conn *c, const struct net_segment *s, struct net_acked *a)
{
	const struct net_options *o = &s->opt;
	unsigned int i = 0;
	bool all = true;

	c->net->stats.sack_in++;
	if (is_dsack(s)) {
		take_duplicate(c, o->sack[0].start, o->sack[0].end, a);
		i = 1;
	}
	for (; i < o->n_sack; i++) /* anything else is forged or old (RFC 2018, 5961) */
		if (seq_lt(o->sack[i].start, o->sack[i].end) && seq_gt(o->sack[i].start, s->ack) &&
		    seq_leq(o->sack[i].end, c->snd_nxt))
			all &= take_block(c, o->sack[i].start, o->sack[i].end, s, a);
	memcpy(c->seen, o->sack, sizeof(c->seen));
	if (!all)
		memset(c->seen, 0, sizeof(c->seen));
}

/* The peer has a part of a segment: the rest of it is a segment. */
static void trim(struct dmm_net_conn *c, struct net_sent *sent, uint32_t ack, struct net_acked *a)
{
	const uint32_t n = ack - sent->seq;

	if (sent->sacked)
		c->sacked_bytes -= n;
	else
		a->delivered += n;
	if (sent->lost)
		c->lost_bytes -= n;
	if (sent->retrans)
		c->retrans_bytes -= n;
	sent->seq = ack;
	sent->syn = false;
}

static void take_cumulative(struct dmm_net_conn *c, const struct net_segment *s,
			    struct net_acked *a)
{
	struct net_sent *sent;

	while ((sent = TAILQ_FIRST(&c->sent)) && seq_leq(sent->end, s->ack)) {
		if (!sent->sacked)
			delivered(c, sent, s, a);
		net_sent_free(c, sent);
	}
	if (sent && seq_lt(sent->seq, s->ack))
		trim(c, sent, s->ack, a);
	a->bytes = s->ack - c->snd_una;
	c->snd_una = s->ack;
}

/* RFC 6582 3.2, for peers without SACK. */
static void count_duplicates(struct dmm_net_conn *c, struct net_acked *a)
{
	const uint32_t acked = a->bytes / c->mss;
	struct net_sent *first = TAILQ_FIRST(&c->sent);

	if (a->bytes) {
		c->dup_acks = c->dup_acks > acked ? (uint8_t)(c->dup_acks - acked) : 0;
		if (c->recovery == NET_OPEN || seq_geq(c->snd_una, c->recover))
			c->dup_acks = 0;
		else if (c->recovery == NET_RECOVERY && !c->ecn_only && first && !first->retrans)
			net_mark_lost(c, first); /* a partial ACK: the next one is missing too */
		return;
	}
	if (!a->dup || c->dup_acks == UINT8_MAX)
		return;
	c->dup_acks++;
	a->delivered += c->mss;
	if (c->dup_acks < DUP_THRESH || !first)
		return;
	if ((c->recovery == NET_OPEN && seq_gt(c->snd_una, c->recover)) ||
	    (c->recovery == NET_RECOVERY && c->ecn_only)) {
		net_mark_lost(c, first);
		c->ecn_only = false;
	}
}

/* --- states --- */

static void remember(struct dmm_net_conn *c)
{
	c->undo_cwnd = c->cwnd;
	c->undo_ssthresh = c->ssthresh;
	c->undo_ts = false;
	c->undo_bytes = 0;
	c->recover = c->snd_nxt;
}

static void enter_recovery(struct dmm_net_conn *c, enum net_congested why)
{
	remember(c);
	c->recovery = NET_RECOVERY;
	c->probe &= !c->tlp_out; /* RFC 8985 7.1: what a probe hid is repaired and paid for now */
	c->tlp_out = false;
	c->prr_flight = DMM_MAX(c->snd_nxt - c->snd_una, c->mss);
	c->prr_delivered = c->prr_out = 0;
	c->ssthresh = c->cc->on_congested(c, why);
	c->ecn_cwr = c->ecn_ok;
	c->ecn_only = why == NET_CONGESTED_MARKED;
	if (why == NET_CONGESTED_MARKED) { /* whatever is undone later, this is not */
		c->undo_cwnd = c->undo_ssthresh = c->ssthresh;
		c->net->stats.ecn_reductions++;
	} else {
		c->net->stats.fast_recoveries++;
	}
}

static void leave_recovery(struct dmm_net_conn *c)
{
	if (c->recovery == NET_RECOVERY && c->net->paces)
		c->cwnd = c->ssthresh;
	else if (c->recovery == NET_RECOVERY) /* no burst for what is free at once */
		c->cwnd = DMM_MIN(c->ssthresh, DMM_MAX(net_pipe(c), c->mss) + 4 * c->mss);
	c->recovery = NET_OPEN;
	c->frto = NET_FRTO_NONE;
	c->dup_acks = 0;
	c->undo_ts = false;
	if (c->reo_persist && --c->reo_persist == 0)
		c->reo_mult = 1;
}

/* RFC 3522: the ACK was sent in answer to what we sent before we sent it again, so nothing was
 * lost (RFC 4015: and all is as before). */
static bool was_spurious(const struct dmm_net_conn *c, const struct net_segment *s,
			 const struct net_acked *a)
{
	return c->recovery != NET_OPEN && c->undo_ts && c->ts_ok && s->opt.has_ts && a->bytes &&
	       a->retrans_acked && seq_lt(s->opt.ts_ecr, c->undo_at);
}

/* RFC 5682 3.1 steps 2 and 3, where no timestamps tell: only the first segment was sent again, then
 * new ones (output.c). True: the next ACK is of something that was sent before the timeout. */
static bool frto_was_spurious(struct dmm_net_conn *c, const struct net_acked *a)
{
	const uint32_t high = c->sack_high ? seq_max(c->sack_high->end, c->snd_una) : c->snd_una;
	const bool tells = a->bytes || a->sacked_new;

	if (c->frto == NET_FRTO_AGAIN && a->bytes) {
		c->frto = seq_lt(c->snd_una, c->recover) ? NET_FRTO_NEW : NET_FRTO_NONE;
		return false;
	}
	if (c->frto != NET_FRTO_NEW || (!tells && !a->dup))
		return false;
	c->frto = NET_FRTO_NONE;
	return tells && seq_leq(high, c->recover);
}

static bool find_spurious(struct dmm_net_conn *c, const struct net_segment *s,
			  const struct net_acked *a)
{
	const bool by_frto = frto_was_spurious(c, a);

	c->net->stats.dsack_undos += a->all_dup;
	c->net->stats.frto_undos += by_frto;
	return by_frto || a->all_dup || was_spurious(c, s, a);
}

static void undo(struct dmm_net_conn *c)
{
	struct net_sent *sent;

	c->net->stats.spurious++;
	for (sent = TAILQ_LAST(&c->sent, net_sent_list); sent;
	     sent = TAILQ_PREV(sent, net_sent_list, by_seq)) {
		if (!sent->lost || sent->retrans)
			continue;
		set_lost(c, sent, false);
		sent->timed = true; /* it is on its way again; as the oldest */
		TAILQ_INSERT_HEAD(&c->sent_by_time, sent, by_time);
	}
	/* RFC 4015 3.3: until there is a new sample, wait longer; but it may have been only
	 * ACKs that were lost, so not ever longer */
	if (c->recovery == NET_LOSS && c->srtt)
		c->rto = DMM_MAX(c->rto, 4 * (c->srtt + 4 * c->rttvar));
	c->rack_sent_at = 0; /* may be of what was sent again, and the ACK was not of that */
	c->recovery = NET_OPEN;
	c->frto = NET_FRTO_NONE;
	c->undo_ts = false;
	c->undo_bytes = 0;
	c->cwnd = DMM_MAX(c->cwnd, c->undo_cwnd);
	c->ssthresh = c->undo_ssthresh;
	c->cc->on_undo(c);
}

/* RFC 6937 3: as much is sent as arrives, less what the reduction takes away. */
static void reduce(struct dmm_net_conn *c, const struct net_acked *a, bool new_loss)
{
	const uint32_t pipe = net_pipe(c);
	uint64_t send;

	if (!a->delivered)
		return;
	c->prr_delivered += a->delivered;
	if (pipe > c->ssthresh) {
		send = ((uint64_t)c->prr_delivered * c->ssthresh + c->prr_flight - 1) /
		       c->prr_flight;
		send = send > c->prr_out ? send - c->prr_out : 0;
	} else {
		send = c->prr_delivered > c->prr_out ? c->prr_delivered - c->prr_out : 0;
		send = DMM_MAX(send, a->delivered);
		if (a->bytes && !new_loss) /* RFC 9937: growing is safe then */
			send += c->mss;
		send = DMM_MIN(send, c->ssthresh - pipe);
	}
	if (!c->prr_out) /* the fast retransmission itself */
		send = DMM_MAX(send, c->mss);
	c->cwnd = (uint32_t)DMM_MAX(pipe + send, c->mss);
}

/* Marks that were passed stay near: 2 GiB later they would count as ahead. */
static void keep_near(struct dmm_net_conn *c)
{
	const uint32_t passed = c->snd_una - 1;

	c->recover = seq_max(c->recover, passed);
	c->limited = seq_max(c->limited, passed);
	c->dsack_round = seq_max(c->dsack_round, passed);
}

static bool is_limited(const struct dmm_net_conn *c, const struct net_acked *a)
{
	if (c->cwnd < c->ssthresh && a->in_flight >= c->cwnd / 2)
		return true;
	return seq_leq(c->snd_una - a->bytes, c->limited);
}

void net_recovery_ack(struct dmm_net_conn *c, const struct net_segment *s, struct net_acked *a)
{
	const uint32_t lost_before = c->lost_bytes;
	bool new_loss;

	if (a->dup)
		c->net->stats.dup_acks_in++;
	c->sack_credit = DMM_MIN(c->sack_credit + STEPS_OF_ACK, MAX_CREDIT);
	if (c->sack_ok && s->opt.n_sack)
		take_sack(c, s, a);
	take_cumulative(c, s, a);
	/* RFC 6298 3: nor of when the others arrived that it covers. No timestamp either: a
	 * duplicate does not change the one that is echoed (RFC 7323 5.3), so it may be as old
	 * as the last ACK that was lost. */
	if (a->retrans_acked)
		a->rtt = 0;
	if (find_spurious(c, s, a))
		undo(c);
	if (a->rtt && a->bytes)
		net_rtt_sample(c, a->rtt);
	if (c->sack_ok)
		net_rack_detect(c);
	else
		count_duplicates(c, a);
	net_tlp_ack(c, s, a);
	new_loss = c->lost_bytes > lost_before;

	if (c->recovery != NET_OPEN && seq_geq(c->snd_una, c->recover))
		leave_recovery(c);
	if (c->recovery == NET_OPEN && c->lost_bytes && c->state >= NET_ESTABLISHED)
		enter_recovery(c, NET_CONGESTED_LOST);
	else if (c->recovery == NET_OPEN && net_ecn_is_told(c, s))
		enter_recovery(c, NET_CONGESTED_MARKED);
	if (c->recovery == NET_RECOVERY)
		reduce(c, a, new_loss);
	else if (a->bytes && c->state >= NET_ESTABLISHED && is_limited(c, a))
		c->cc->on_ack(c, a);
	if (a->bytes || c->reo_wait || c->rtx == NET_RTX_REORDER)
		net_rtx_arm(c);
	if (a->bytes)
		keep_near(c);
}

/* RFC 6298 5.5, RFC 5681 3.1, RFC 8985 6.3: all may be lost; begin anew with one segment. */
void net_recovery_timeout(struct dmm_net_conn *c)
{
	struct net_sent *sent = TAILQ_FIRST(&c->sent);

	/* RFC 2018 8: the peer may throw away what it told it has */
	if (sent && sent->sacked)
		for (sent = TAILQ_FIRST(&c->sent); sent; sent = TAILQ_NEXT(sent, by_seq))
			not_sacked(c, sent);
	c->sack_high = c->lost_hint = NULL;
	memset(c->seen, 0, sizeof(c->seen));
	if (c->recovery != NET_LOSS && c->state >= NET_ESTABLISHED) {
		remember(c);
		c->ssthresh = c->cc->on_congested(c, NET_CONGESTED_TIMEOUT);
		c->ecn_cwr = c->ecn_ok;
	}
	for (sent = TAILQ_FIRST(&c->sent); sent; sent = TAILQ_NEXT(sent, by_seq)) {
		if (sent->sacked) {
			if (!c->sack_high || seq_gt(sent->seq, c->sack_high->seq))
				c->sack_high = sent;
			continue;
		}
		net_mark_lost(c, sent);
	}
	/* RFC 5682 3.1 step 1; timestamps tell sooner */
	c->frto = c->recovery == NET_OPEN && c->sack_ok && !c->ts_ok && c->state >= NET_ESTABLISHED
			  ? NET_FRTO_AGAIN
			  : NET_FRTO_NONE;
	c->recovery = NET_LOSS;
	c->recover = c->snd_nxt;
	c->cwnd = c->mss;
	c->dup_acks = 0;
	c->tlp_out = false;
}
