// SPDX-License-Identifier: Apache-2.0
/* What a connection sends next: something lost, new bytes, a FIN, a probe, an ACK (RFC 9293 3.8.6,
 * 5681). Asked for one segment at a time, when the driver has room for it: so ACKs, windows and
 * what they ride on are those of the moment of sending. */
#include "base/util.h"
#include "net/bytes.h"
#include "net/checksum.h"
#include "net/congestion.h"
#include "net/net_internal.h"
#include "net/seq.h"

static bool sends_data(const struct dmm_net_conn *c)
{
	return c->state == NET_ESTABLISHED || c->state == NET_CLOSE_WAIT ||
	       c->state == NET_FIN_WAIT1 || c->state == NET_CLOSING || c->state == NET_LAST_ACK;
}

uint32_t net_tcp_header(struct dmm_net *net, uint8_t *p, const struct dmm_endpoint *local,
			const struct dmm_endpoint *remote, bool v4, uint8_t ecn,
			uint32_t options_len, uint32_t len)
{
	const uint32_t tcp_len = NET_TCP_HEADER + options_len;
	const uint32_t at =
		net_ip_build(net, p, local, remote, v4, NET_PROTO_TCP, ecn, tcp_len + len);

	memset(p + at, 0, NET_TCP_HEADER);
	memcpy(p + at, &local->port, 2);
	memcpy(p + at + 2, &remote->port, 2);
	p[at + 12] = (uint8_t)(tcp_len / 4 << 4);
	return at + tcp_len;
}

/* RFC 9293 3.8.6.2.2: the edge moves by what is worth it, and never back. RFC 7323 2.4: in scaled
 * units it is rounded up, so that rounding does not take it back either; but no farther than an
 * eighth of the buffer beyond it, or many small segments would never fill it. */
static uint16_t window_to_tell(struct dmm_net_conn *c, bool syn)
{
	const uint32_t most = c->rcv_read + c->rcv_buffer + c->rcv_buffer / 8;
	const uint32_t edge = net_receive_edge(c), unit = 1u << (syn ? 0 : c->rcv_scale);
	const uint32_t worth = DMM_MIN(c->rcv_buffer / 2, c->mss);
	uint32_t window = c->rcv_adv - c->rcv_nxt;

	if (edge - c->rcv_adv >= worth)
		window = (edge - c->rcv_nxt) / unit * unit;
	if (seq_lt(c->rcv_nxt + window, c->rcv_adv))
		window = c->rcv_adv - c->rcv_nxt;
	if (seq_leq(c->rcv_nxt + window + unit - 1, most))
		window += unit - 1;
	window = DMM_MIN(window / unit, 0xffffu);
	c->rcv_adv = seq_max(c->rcv_adv, c->rcv_nxt + window * unit);
	return (uint16_t)window;
}

static void was_acked(struct dmm_net_conn *c)
{
	c->ack_now = false;
	c->unacked = 0;
	c->last_ack = c->rcv_nxt;
	if (!c->sack_ok && c->dup_acks_owed)
		c->ack_now = --c->dup_acks_owed > 0;
	net_due_clear(c, NET_DUE_ACK);
}

/* The bytes of [@seq, @seq + @len) behind the header; adds them to the sum. */
static uint64_t put_data(struct dmm_net_conn *c, uint8_t *p, uint32_t seq, uint32_t len,
			 uint64_t sum)
{
	net_stream_get(&c->tx, seq, p, len);
	return net_sum(p, len, sum);
}

static uint32_t build(struct dmm_net_conn *c, uint8_t *p, uint8_t flags, uint8_t ecn, uint32_t seq,
		      uint32_t len, const uint8_t *options, uint32_t options_len)
{
	const uint32_t tcp_len = NET_TCP_HEADER + options_len;
	const uint32_t header =
		net_tcp_header(c->net, p, &c->local, &c->remote, c->v4, ecn, options_len, len);
	uint8_t *tcp = p + header - tcp_len;
	uint64_t sum;
	uint16_t field;

	put32(tcp + 4, seq);
	if (c->ecn_echo && !(flags & NET_SYN))
		flags |= NET_ECE;
	tcp[13] = flags;
	if (flags & NET_ACK) {
		put32(tcp + 8, c->rcv_nxt);
		put16(tcp + 14, window_to_tell(c, flags & NET_SYN));
		was_acked(c);
	} else {
		put16(tcp + 14, net_syn_window(c->net));
	}
	memcpy(tcp + NET_TCP_HEADER, options, options_len);
	sum = net_pseudo(&c->local, &c->remote, c->v4, NET_PROTO_TCP, tcp_len + len);
	sum = net_sum(tcp, tcp_len, sum);
	if (len)
		sum = put_data(c, p + header, seq, len, sum);
	field = net_sum_finish(sum);
	memcpy(tcp + 16, &field, sizeof(field));
	c->net->stats.segs_out++;
	return header + len;
}

/* Where a segment without data stands. With a probe on its way beyond the window, a peer who did not
 * take it looks only at what stands before it, and who did only at what follows it: in turns, or two
 * that probe each other would never hear what the other one took. */
static uint32_t acceptable_seq(struct dmm_net_conn *c)
{
	const uint32_t edge = seq_max(net_send_edge(c), c->snd_una);

	if (seq_geq(edge, c->snd_nxt))
		return c->snd_nxt;
	c->ack_before = !c->ack_before;
	return c->ack_before ? edge : c->snd_nxt;
}

static uint32_t send_ack(struct dmm_net_conn *c, uint8_t *p, uint32_t seq)
{
	uint8_t options[40];
	const uint32_t options_len = net_options_data(c, options, true);
	const uint32_t len = build(c, p, NET_ACK, NET_NOT_ECT, seq, 0, options, options_len);

	c->ack_now |= c->sack_ok && c->dup_acks_owed;
	return len;
}

static uint32_t send_syn(struct dmm_net_conn *c, uint8_t *p, struct net_sent *sent)
{
	const bool answer = c->state == NET_SYN_RCVD;
	uint8_t options[40], flags;
	uint32_t len;

	/* what the peer did not offer we may not (RFC 7323 1.3, 2018 2) */
	len = net_options_syn(options, net_our_mss(c->net, c->v4),
			      answer && !c->snd_scale && !c->rcv_scale ? -1 : c->net->rcv_scale,
			      !answer || c->sack_ok, !answer || c->ts_ok, net_ts_now(c),
			      c->ts_recent);
	flags = NET_SYN | (answer ? NET_ACK : 0) | net_ecn_syn_flags(c);
	net_sent_now(c, sent);
	c->syn_tries++;
	return build(c, p, flags, NET_NOT_ECT, c->iss, 0, options, len);
}

static uint32_t send_data(struct dmm_net_conn *c, uint8_t *p, struct net_sent *sent, uint32_t len,
			  const uint8_t *options, uint32_t options_len)
{
	/* RFC 3168 6.1.5, 6.1.6: not what is sent again, nor probes into a closed window */
	const bool fresh = c->ecn_ok && len && !sent->times &&
			   seq_leq(sent->seq + len, c->snd_edge);
	uint8_t flags = NET_ACK;

	if (sent->fin && len == sent->end - sent->seq - 1)
		flags |= NET_FIN;
	if (sent->seq + len == c->tx_end && len)
		flags |= NET_PSH; /* MUST-61 */
	if (fresh && c->ecn_cwr) {
		flags |= NET_CWR;
		c->ecn_cwr = false;
	}
	net_sent_now(c, sent);
	net_pace_sent(c, len);
	if (c->recovery == NET_RECOVERY)
		c->prr_out += len;
	return build(c, p, flags, fresh ? NET_ECT : NET_NOT_ECT, sent->seq, len, options,
		     options_len);
}

/* The path's MTU fell: @sent becomes two, of which the first has @len bytes. Out of memory it stays
 * one, and what arrives of it is taken off when it is acknowledged. */
static void split(struct dmm_net_conn *c, struct net_sent *sent, uint32_t len)
{
	struct net_sent *rest = net_sent_new(c);

	if (!rest)
		return;
	rest->seq = sent->seq + len;
	rest->end = sent->end;
	rest->fin = sent->fin;
	rest->lost = sent->lost;
	rest->retrans = sent->retrans;
	c->n_to_resend += rest->lost && !rest->retrans;
	rest->timed = sent->timed;
	rest->times = sent->times;
	rest->sent_at = sent->sent_at;
	TAILQ_INSERT_AFTER(&c->sent, sent, rest, by_seq);
	if (rest->timed)
		TAILQ_INSERT_AFTER(&c->sent_by_time, sent, rest, by_time);
	sent->end = rest->seq;
	sent->fin = false;
}

/* Sends again. SACKs that this ACK should tell go by themselves then: they would not fit. */
static uint32_t send_again(struct dmm_net_conn *c, uint8_t *p, struct net_sent *sent)
{
	const bool tell = c->ack_now && c->sack_ok && (c->held || c->dsack_start != c->dsack_end);
	uint8_t options[40];
	uint32_t options_len, len;

	if (sent->syn)
		return send_syn(c, p, sent);
	len = sent->end - sent->seq - sent->fin;
	if (len > c->mss) {
		len = c->mss;
		split(c, sent, len);
	}
	options_len = net_options_data(c, options, false);
	len = send_data(c, p, sent, len, options, options_len);
	c->ack_now |= tell;
	return len;
}

static void fin_is_sent(struct dmm_net_conn *c)
{
	c->fin_sent = true;
	if (c->state == NET_ESTABLISHED)
		c->state = NET_FIN_WAIT1;
	else if (c->state == NET_CLOSE_WAIT)
		c->state = NET_LAST_ACK;
}

/* The next segment of [snd_nxt, snd_nxt + @len) or less, and the FIN if that is its place. */
static uint32_t send_new(struct dmm_net_conn *c, uint8_t *p, uint32_t len, bool syn)
{
	struct net_sent *sent = net_sent_new(c);
	uint32_t options_len;
	uint8_t options[40];

	if (!sent)
		return 0;
	options_len = net_options_data(c, options, true);
	if (len == c->mss && options_len == (c->ts_ok ? 12u : 0u))
		len = net_pmtu_try(c, DMM_MIN(net_waiting(c), net_send_edge(c) - c->snd_nxt));
	else
		len = DMM_MIN(len, c->mss + (c->ts_ok ? 12 : 0) - options_len);
	if (c->snd_nxt == c->snd_una)
		c->progress_at = c->net->now;
	sent->seq = c->snd_nxt;
	sent->syn = syn;
	sent->fin = !syn && c->shut && c->snd_nxt + len == c->tx_end;
	sent->end = sent->seq + len + sent->fin + syn;
	TAILQ_INSERT_TAIL(&c->sent, sent, by_seq);
	c->snd_nxt = sent->end;
	if (sent->fin)
		fin_is_sent(c);
	return syn ? send_syn(c, p, sent) : send_data(c, p, sent, len, options, options_len);
}

/* How many new bytes may go now. *@fin_only: none, but the FIN may. */
static uint32_t new_bytes(struct dmm_net_conn *c, bool *fin_only)
{
	const uint32_t waiting = net_waiting(c);
	const uint32_t edge = net_send_edge(c);
	const uint32_t room = seq_gt(edge, c->snd_nxt) ? edge - c->snd_nxt : 0;
	const uint32_t pipe = net_pipe(c);
	const uint32_t len = DMM_MIN(waiting, c->mss);

	*fin_only = false;
	if (c->fin_sent || !sends_data(c) || (!waiting && !c->shut))
		return 0;
	if (pipe + len > c->cwnd && pipe) {
		c->limited = c->snd_nxt;
		return 0;
	}
	if (!waiting) {
		*fin_only = true;
		return 0;
	}
	if (room >= len) { /* Nagle: a small one waits while anything is on its way */
		if (len == c->mss || c->shut || c->nodelay || c->snd_nxt == c->snd_una)
			return len;
		return 0;
	}
	/* RFC 9293 3.8.6.2.1: less than a segment only where the window will not get larger */
	return room && room >= c->max_wnd / 2 ? room : 0;
}

/* A probe: whatever the window says, but no more than asks for an answer. */
static uint32_t send_probe(struct dmm_net_conn *c, uint8_t *p)
{
	const uint32_t edge = net_send_edge(c), waiting = net_waiting(c);
	const bool room = seq_gt(edge, c->snd_nxt);
	struct net_sent *sent;
	uint32_t len;

	c->probe = false;
	if (c->rtx == NET_RTX_PERSIST || !c->tlp_out) {
		c->net->stats.zero_window_probes++;
		sent = TAILQ_FIRST(&c->sent);
		if (sent)
			return send_again(c, p, sent);
		len = room ? DMM_MIN(DMM_MIN(edge - c->snd_nxt, waiting), c->mss) : 1;
		return waiting || c->shut ? send_new(c, p, DMM_MIN(len, waiting), false) : 0;
	}
	/* TLP: RFC 8985 7.3 */
	c->tlp_end = c->snd_nxt;
	if (waiting && room && edge - c->snd_nxt >= DMM_MIN(waiting, c->mss) && !c->fin_sent) {
		len = send_new(c, p, DMM_MIN(waiting, c->mss), false);
		c->tlp_end = c->snd_nxt;
		if (len)
			return len;
	}
	sent = TAILQ_LAST(&c->sent, net_sent_list);
	while (sent && sent->sacked) /* since the timer was set */
		sent = TAILQ_PREV(sent, net_sent_list, by_seq);
	if (!sent) {
		c->tlp_out = false;
		return 0;
	}
	c->tlp_retrans = true;
	return send_again(c, p, sent);
}

static void idle(struct dmm_net_conn *c)
{
	if (c->snd_nxt == c->snd_una && c->net->now - c->progress_at > c->rto)
		net_congestion_idle(c);
}

/* RFC 5682 3.1 step 2b: two new segments, to see what their ACKs say; where there are none, what is
 * lost has to go. */
static uint32_t frto_new(struct dmm_net_conn *c, uint8_t *p)
{
	const uint32_t new = c->snd_nxt - c->recover;
	uint32_t len = 0;
	bool fin_only;

	if (new < 2 * c->mss)
		len = new_bytes(c, &fin_only);
	if (!len && !new)
		c->frto = NET_FRTO_NONE;
	return len ? send_new(c, p, len, false) : 0;
}

static uint32_t send_something(struct dmm_net_conn *c, uint8_t *p)
{
	struct net_sent *lost;
	uint32_t len, pipe;
	bool fin_only;

	if (TAILQ_EMPTY(&c->sent) && (c->state == NET_SYN_SENT || c->state == NET_SYN_RCVD))
		return send_new(c, p, 0, true);
	if (c->probe) {
		len = send_probe(c, p);
		if (len)
			return len;
	}
	if ((c->n_to_resend || net_waiting(c)) && !net_pace_allows(c))
		return 0;
	if (c->frto == NET_FRTO_NEW) {
		len = frto_new(c, p);
		if (len || c->frto == NET_FRTO_NEW)
			return len;
	}
	lost = net_next_lost(c);
	if (lost) {
		pipe = net_pipe(c);
		if (!pipe || pipe + (lost->end - lost->seq) <= c->cwnd || lost->syn)
			return send_again(c, p, lost);
		c->limited = c->snd_nxt;
		return 0;
	}
	if (net_waiting(c) && c->snd_nxt == c->snd_una)
		idle(c);
	len = new_bytes(c, &fin_only);
	return len || fin_only ? send_new(c, p, len, false) : 0;
}

/* A window that was small or closed may be told to be open now, if that is worth a segment. */
static bool window_opened(const struct dmm_net_conn *c)
{
	const uint32_t buffer = c->rcv_buffer;

	return c->state >= NET_ESTABLISHED && c->rcv_adv - c->rcv_nxt < buffer / 2 && !c->eof &&
	       net_receive_edge(c) - c->rcv_adv >= DMM_MIN(buffer / 2, 2 * c->mss);
}

uint32_t net_tcp_output(struct dmm_net_conn *c, uint8_t *p, uint32_t room)
{
	uint32_t len;

	if (room < c->net->mtu || c->state <= NET_LISTEN)
		return 0;
	len = send_something(c, p);
	if (len) {
		if (!c->due[NET_DUE_RTX] || c->rtx == NET_RTX_TLP || c->rtx == NET_RTX_PERSIST)
			net_rtx_arm(c);
		else if (c->rtx == NET_RTX_RTO)
			net_tlp_arm(c); /* one segment more may be enough for it to be sooner */
		return len;
	}
	if (c->snd_nxt == c->snd_una && !c->due[NET_DUE_RTX])
		net_rtx_arm(c); /* something may wait for the window */
	if (c->state == NET_SYN_SENT)
		return 0;
	if (c->keep_probe) {
		c->keep_probe = false;
		return send_ack(c, p, c->snd_nxt - 1);
	}
	if (c->ack_now || window_opened(c)) {
		c->net->stats.window_updates += !c->ack_now;
		return send_ack(c, p, acceptable_seq(c));
	}
	return 0;
}
