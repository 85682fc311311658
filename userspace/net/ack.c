// SPDX-License-Identifier: Apache-2.0
/* What a segment acknowledges, and the window that it tells (RFC 9293 3.10.7.4, fifth check). */
#include "net/net_internal.h"
#include "net/seq.h"

void net_window_update(struct dmm_net_conn *c, const struct net_segment *s)
{
	uint32_t window = s->window;

	/* RFC 9293's rule alone leaves out what is told with a retransmission: its number is
	 * old, and with the new left edge the old window would reach too far. */
	if (!seq_gt(s->ack, c->snd_una) && !seq_lt(c->snd_wl1, s->seq) &&
	    !(c->snd_wl1 == s->seq && seq_leq(c->snd_wl2, s->ack)))
		return;
	if (!s->had_syn)
		window <<= c->snd_scale;
	if (window > c->max_wnd)
		c->max_wnd = window;
	c->snd_wnd = window;
	c->snd_wl1 = s->seq;
	c->snd_wl2 = s->ack;
	c->snd_edge = seq_max(c->snd_edge, s->ack + window);
}

/* RFC 5681 2; but what tells of a closed window answers a probe, and says nothing of what arrived. */
static bool is_duplicate(const struct dmm_net_conn *c, const struct net_segment *s)
{
	return s->ack == c->snd_una && !s->len && !(s->flags & (NET_SYN | NET_FIN)) &&
	       c->snd_nxt != c->snd_una && c->snd_wnd &&
	       (uint32_t)s->window << c->snd_scale == c->snd_wnd;
}

/* New bytes are acknowledged: their memory is free, and so is their place in the buffer. */
static void release(struct dmm_net_conn *c)
{
	c->backoff = 0;
	c->big_lost = 0;
	c->progress_at = c->net->now;
	if (seq_geq(c->snd_una, c->tx_end))
		net_stream_clear(&c->tx, &c->net->chunks);
	else
		net_stream_drop(&c->tx, &c->net->chunks, c->snd_una);
	if (c->fin_sent && c->snd_una == c->snd_nxt)
		c->fin_acked = true;
	if (c->want_write && dmm_net_send_space(c)) {
		c->want_write = false;
		net_note(c, DMM_EV_WRITABLE);
	}
}

void net_ack_input(struct dmm_net_conn *c, const struct net_segment *s)
{
	struct net_acked a = { .in_flight = net_pipe(c), .dup = is_duplicate(c, s) };
	const uint32_t window = c->snd_wnd;

	if (seq_lt(s->ack, c->snd_una))
		return;
	net_window_update(c, s);
	net_recovery_ack(c, s, &a);
	if (a.bytes)
		release(c);
	if (!window && c->snd_wnd) { /* what was sent into the closed window is lost */
		c->backoff = 0;
		if (!TAILQ_EMPTY(&c->sent))
			net_mark_lost(c, TAILQ_FIRST(&c->sent));
		net_rtx_arm(c);
	} else if (!c->snd_wnd && window) {
		net_rtx_arm(c);
	}
	net_want_output(c);
}
