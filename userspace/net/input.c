// SPDX-License-Identifier: Apache-2.0
/* A segment arrives (RFC 9293 3.10.7): the checks in the order of the RFC, with those of RFC 5961
 * against forged ones and of RFC 7323 against old ones. What passes goes to ack.c and receive.c. */
#include <errno.h>
#include <string.h>

#include "net/bytes.h"
#include "net/checksum.h"
#include "net/net_internal.h"
#include "net/seq.h"

#define CHALLENGES	 10 /* per second and connection */
#define INVALID_ACK_EACH (500 * NET_MS / 4)
#define TIME_WAIT	 (60 * NET_SEC)		       /* 2 MSL, as the kernel counts it */
#define TS_RECENT_LIFE	 (24ull * 24 * 3600 * NET_SEC) /* RFC 7323 5.5 */

static bool parse(struct dmm_net *net, const struct net_packet *packet, struct net_segment *ret)
{
	const uint8_t *p = packet->data;
	uint32_t header;

	if (packet->len < NET_TCP_HEADER)
		return false;
	header = (p[12] >> 4) * 4u;
	if (header < NET_TCP_HEADER || header > packet->len)
		return false;
	/* MUST-3 */
	if (net_sum_finish(net_sum(p, packet->len,
				   net_pseudo(&packet->src, &packet->dst, packet->v4, NET_PROTO_TCP,
					      packet->len)))) {
		net->stats.bad_checksum++;
		return false;
	}
	*ret = (struct net_segment){ .packet = packet,
				     .data = p + header,
				     .len = packet->len - header,
				     .seq = get32(p + 4),
				     .ack = get32(p + 8),
				     .window = get16(p + 14),
				     .flags = p[13],
				     .had_syn = p[13] & NET_SYN };
	return net_options_parse(p + NET_TCP_HEADER, header - NET_TCP_HEADER, &ret->opt);
}

static uint32_t seq_len(const struct net_segment *s)
{
	return s->len + !!(s->flags & NET_SYN) + !!(s->flags & NET_FIN);
}

void net_challenge(struct dmm_net_conn *c)
{
	struct dmm_net *net = c->net;

	/* Limited per connection: a limit for all can be read from outside (CVE-2016-5696). */
	if (net->now - c->challenge_since >= NET_SEC) {
		c->challenge_since = net->now;
		c->challenge_count = 0;
	}
	if (c->challenge_count++ >= CHALLENGES)
		return;
	net->stats.challenge_acks++;
	c->ack_now = true;
	net_want_output(c);
}

/* The answer to what is outside the window. Two sides that disagree would answer each other for
 * ever, so there are only so many; one with data is always answered: its sender has to learn. */
static void answer_invalid(struct dmm_net_conn *c, const struct net_segment *s)
{
	if (!s->len && c->invalid_ack_at && c->net->now - c->invalid_ack_at < INVALID_ACK_EACH)
		return;
	c->invalid_ack_at = c->net->now;
	if (s->len)
		c->quick_acks = NET_QUICK_ACKS;
	c->ack_now = true;
	net_want_output(c);
}

/* An old segment that came again is told as such (RFC 2883 4). */
static void tell_duplicate(struct dmm_net_conn *c, const struct net_segment *s)
{
	if (!s->len || !c->sack_ok || seq_gt(s->seq + s->len, c->rcv_nxt))
		return;
	c->dsack_start = s->seq;
	c->dsack_end = s->seq + s->len;
}

/* Then it is no measure, and the next one takes its place (RFC 7323 5.5). */
static bool ts_recent_is_old(const struct dmm_net_conn *c)
{
	return c->net->now - c->ts_recent_at > TS_RECENT_LIFE;
}

/* RFC 7323 5.3 R1. False: dropped. */
static bool check_paws(struct dmm_net_conn *c, const struct net_segment *s)
{
	if (!c->ts_ok || (s->flags & NET_RST))
		return true;
	if (!s->opt.has_ts) /* RFC 7323 3.2: it SHOULD be dropped */
		return (s->flags & NET_SYN) != 0;
	if (!seq_lt(s->opt.ts_val, c->ts_recent) || ts_recent_is_old(c))
		return true;
	c->net->stats.paws_dropped++;
	tell_duplicate(c, s);
	answer_invalid(c, s);
	return false;
}

/* RFC 9293 3.10.7.4, first check. */
static bool in_window(const struct dmm_net_conn *c, const struct net_segment *s)
{
	const uint32_t len = seq_len(s), window = c->rcv_adv - c->rcv_nxt;

	if (len == 0)
		return window ? seq_leq(c->rcv_nxt, s->seq) && seq_lt(s->seq, c->rcv_adv)
			      : s->seq == c->rcv_nxt;
	if (!window) /* MUST-66: its ACK, RST and URG count even then */
		return s->seq == c->rcv_nxt;
	return seq_lt(s->seq, c->rcv_adv) && seq_gt(s->seq + len, c->rcv_nxt);
}

void net_enter_time_wait(struct dmm_net_conn *c)
{
	if (c->state != NET_TIME_WAIT) {
		net_due_clear(c, NET_DUE_RTX);
		net_due_clear(c, NET_DUE_KEEP);
		net_stream_clear(&c->tx, &c->net->chunks);
		c->state = NET_TIME_WAIT;
		if (c->closing) /* the port is free for all but this very remote end */
			net_note(c, DMM_EV_CLOSED);
	}
	net_due_set(c, NET_DUE_LIFE, c->net->now + TIME_WAIT);
}

static void on_reset(struct dmm_net_conn *c, const struct net_segment *s)
{
	c->net->stats.resets_in++;
	/* RFC 5961 3.2: only what nobody can guess resets, else the peer may prove itself. */
	if (s->seq != c->rcv_nxt) {
		net_challenge(c);
		return;
	}
	switch (c->state) {
	case NET_SYN_RCVD:
		net_conn_end(c, ECONNREFUSED);
		break;
	case NET_TIME_WAIT: /* RFC 1337: it is not cut short */
		break;
	case NET_CLOSING:
	case NET_LAST_ACK: /* both sides are done */
		net_conn_end(c, c->fin_acked ? 0 : ECONNRESET);
		break;
	default:
		net_conn_end(c, ECONNRESET);
	}
}

/* RFC 5961 5.2. */
static bool good_ack(struct dmm_net_conn *c, const struct net_segment *s)
{
	if (seq_leq(c->snd_una - c->max_wnd, s->ack) && seq_leq(s->ack, c->snd_nxt))
		return true;
	net_challenge(c);
	return false;
}

/* The FIN that we sent is acknowledged. False: the connection is gone. */
static bool after_our_fin(struct dmm_net_conn *c)
{
	switch (c->state) {
	case NET_FIN_WAIT1:
		c->state = NET_FIN_WAIT2;
		if (c->closing)
			net_due_set(c, NET_DUE_LIFE, c->net->now + TIME_WAIT);
		return true;
	case NET_CLOSING:
		net_enter_time_wait(c);
		return true;
	case NET_LAST_ACK:
		net_conn_end(c, 0);
		return false;
	default:
		return true;
	}
}

/* RFC 9293 3.10.7.4 for TIME-WAIT: what comes again is a FIN whose ACK was lost. */
static void on_time_wait(struct dmm_net_conn *c, const struct net_segment *s)
{
	if (!(s->flags & NET_FIN) && !s->len)
		return;
	net_enter_time_wait(c);
	c->ack_now = true;
	net_want_output(c);
}

/* RFC 7323 4.3: the latest of what touches the left edge of the window. */
static void take_ts(struct dmm_net_conn *c, const struct net_segment *s)
{
	if (c->ts_ok && s->opt.has_ts && seq_leq(s->seq, c->last_ack) &&
	    (seq_geq(s->opt.ts_val, c->ts_recent) || ts_recent_is_old(c))) {
		c->ts_recent = s->opt.ts_val;
		c->ts_recent_at = c->net->now;
	}
}

/* Half-open, and the ACK is not of our SYN: RFC 9293 resets. But his SYN may have come twice,
 * and he answers the cookie that the other one got; or this has overtaken that answer. */
static void no_answer_to_ours(struct dmm_net_conn *c, const struct net_segment *s)
{
	struct dmm_net_conn *listener = c->listener;

	if (listener && net_cookie_is_ours(c->net, s)) {
		net_conn_end(c, 0);
		net_cookie_accept(listener, s);
	} else if (!listener || !net_cookie_may_be(c->net, s)) {
		net_reply_reset(c->net, s);
	}
}

static void established_input(struct dmm_net_conn *c, struct net_segment *s)
{
	struct dmm_net *net = c->net;

	/* simultaneous open: his SYN again, with the ACK of ours (RFC 9293 figure 7) */
	if (c->state == NET_SYN_RCVD && (s->flags & (NET_SYN | NET_ACK)) == (NET_SYN | NET_ACK) &&
	    s->seq == c->irs && s->ack == c->snd_nxt) {
		s->flags &= (uint8_t)~NET_SYN;
		s->seq++;
		c->ack_now = true;
	}
	if (c->state == NET_SYN_RCVD && (s->flags & (NET_SYN | NET_ACK | NET_RST)) == NET_SYN &&
	    s->seq == c->irs) { /* our SYN|ACK was lost */
		if (!TAILQ_EMPTY(&c->sent))
			net_mark_lost(c, TAILQ_FIRST(&c->sent));
		net_want_output(c);
		return;
	}
	if (!check_paws(c, s))
		return;
	if (!in_window(c, s)) {
		net->stats.out_of_window++;
		if (s->flags & NET_RST)
			return;
		tell_duplicate(c, s);
		answer_invalid(c, s);
		if (c->state == NET_TIME_WAIT)
			on_time_wait(c, s);
		return;
	}
	if (s->flags & NET_RST) {
		on_reset(c, s);
		return;
	}
	if (s->flags & NET_SYN) { /* RFC 5961 4.2 */
		net_challenge(c);
		return;
	}
	if (!(s->flags & NET_ACK))
		return;
	if (c->state == NET_SYN_RCVD) {
		if (!seq_lt(c->snd_una, s->ack) || !seq_leq(s->ack, c->snd_nxt)) {
			no_answer_to_ours(c, s);
			return;
		}
		net_establish(c, s);
	} else if (!good_ack(c, s)) {
		return;
	}
	net_heard(c);
	take_ts(c, s);
	if (c->state == NET_TIME_WAIT) {
		on_time_wait(c, s);
		return;
	}
	net_ack_input(c, s);
	if (c->fin_acked && !after_our_fin(c))
		return;
	net_ecn_receive(c, s);
	if (s->len || (s->flags & NET_FIN))
		net_receive(c, s);
}

/* A SYN for a tuple that we hold in TIME-WAIT begins anew if it cannot be an old one (RFC 6191,
 * RFC 9293 MAY-2). True: the old connection made way. */
static bool makes_way(struct dmm_net_conn *c, struct net_segment *s)
{
	const struct dmm_net_conn *listener = net_find_listener(c->net, &s->packet->dst);

	if (c->state != NET_TIME_WAIT || (s->flags & (NET_SYN | NET_RST | NET_ACK)) != NET_SYN ||
	    !listener ||
	    listener->half_open >= listener->backlog) /* a cookie has no choice of its ISS */
		return false;
	if (c->ts_ok && s->opt.has_ts ? !seq_gt(s->opt.ts_val, c->ts_recent)
				      : !seq_gt(s->seq, c->rcv_nxt))
		return false;
	s->least_iss = net_iss_behind(c);
	net_conn_end(c, 0);
	return true;
}

void net_tcp_input(struct dmm_net *net, const struct net_packet *packet)
{
	struct net_packet ends = *packet;
	struct dmm_net_conn *c;
	struct net_segment s;

	if (!parse(net, packet, &s)) {
		net->stats.bad_tcp++;
		return;
	}
	net->stats.segs_in++;
	memcpy(&ends.src.port, packet->data, 2);
	memcpy(&ends.dst.port, packet->data + 2, 2);
	s.packet = &ends;
	c = net_find(net, &ends.dst, &ends.src);
	if (c && makes_way(c, &s))
		c = NULL;
	if (!c) {
		c = net_find_listener(net, &ends.dst);
		if (c)
			net_listen_input(c, &s);
		else
			net_reply_reset(net, &s);
	} else if (c->state == NET_SYN_SENT) {
		net_syn_sent_input(c, &s);
	} else {
		established_input(c, &s);
	}
}
