// SPDX-License-Identifier: Apache-2.0
/* SYNs: to a listener, in answer to ours, and what both sides agree on with them. */
#include <errno.h>

#include "net/congestion.h"
#include "net/net_internal.h"
#include "net/seq.h"

#define DEFAULT_MSS6 1220u
#define LEAST_MSS    64u /* a peer that says less wants to make us send nothing but headers */

/* RFC 6528: a clock of 4 us (MUST-8) beside a keyed hash of both ends (MUST-9). */
uint32_t net_isn(const struct dmm_net *net, const struct dmm_endpoint *local,
		 const struct dmm_endpoint *remote)
{
	if (net->isn)
		return net->isn(net->owner, local, remote);
	return (uint32_t)(net->now / 4000) +
	       (uint32_t)net_tuple_hash(net->isn_key, local, remote, 0);
}

static uint32_t headers(bool v4)
{
	return (v4 ? NET_HEADER4 : NET_HEADER6) + NET_TCP_HEADER;
}

/* MUST-67: what fits the interface less the fixed headers. */
uint16_t net_our_mss(const struct dmm_net *net, bool v4)
{
	return (uint16_t)(net->mtu - headers(v4));
}

/* RFC 9293 3.7.1, RFC 6691: the peer's MSS counts no options, so they come off. */
void net_set_mss(struct dmm_net_conn *c)
{
	uint32_t mss = (c->path_mtu ? c->path_mtu : c->net->mtu) - headers(c->v4);

	if (mss > c->peer_mss)
		mss = c->peer_mss;
	c->mss = mss - (c->ts_ok ? 12 : 0);
}

/* What the SYN says of its sender. @offered: what our own SYN offers, or offered. */
static void take_options(struct dmm_net_conn *c, const struct net_segment *s)
{
	const struct net_options *o = &s->opt;
	const uint32_t mss = o->has_mss ? o->mss : c->v4 ? NET_DEFAULT_MSS4 : DEFAULT_MSS6;

	c->peer_mss = (uint16_t)(mss > LEAST_MSS ? mss : LEAST_MSS);
	c->sack_ok = o->sack_ok;
	c->ecn_ok = net_ecn_agreed(c, s);
	c->ts_ok = o->has_ts;
	c->ts_recent = o->ts_val;
	c->ts_recent_at = c->net->now;
	c->snd_scale = o->has_scale ? o->scale : 0;
	c->rcv_scale = o->has_scale ? c->net->rcv_scale : 0; /* RFC 7323 2.2: both or none */
	c->irs = s->seq;
	c->rcv_nxt = c->rcv_read = c->last_ack = s->seq + 1;
	c->rcv_adv = c->rcv_nxt;
	if (c->state == NET_SYN_SENT || c->cookie) /* our SYN told it already */
		c->rcv_adv += net_syn_window(c->net);
	c->rcv_adv = net_receive_edge(c);
	if (c->rcv_adv - c->rcv_nxt > 0xffff) /* in a SYN it is never scaled */
		c->rcv_adv = c->rcv_nxt + 0xffff;
	net_set_mss(c);
}

static void begin(struct dmm_net_conn *c, uint32_t iss)
{
	c->iss = c->snd_una = c->snd_nxt = c->snd_wl2 = c->recover = c->limited = c->dsack_round =
		iss;
	c->rcv_mss = NET_DEFAULT_MSS4;
	c->tx_end = iss + 1; /* the SYN's own */
	c->snd_edge = c->tx_end;
	c->rto = NET_SEC; /* RFC 6298 2.1 */
	c->progress_at = c->heard_at = c->net->now;
	c->ts_offset = (uint32_t)net_tuple_hash(c->net->ts_key, &c->local, &c->remote, 0);
	c->reo_mult = 1;
	c->cc = net_congestion_of((enum dmm_net_congestion)c->net->congestion);
	net_hash_add(c);
	c->net->stats.conns++;
	net_want_output(c);
}

int dmm_net_connect(struct dmm_net *net, const struct dmm_endpoint *from,
		    const struct dmm_endpoint *remote, void *user, uint64_t now,
		    struct dmm_net_conn **ret)
{
	struct dmm_endpoint local = *from;
	struct dmm_net_conn *c;
	uint32_t iss;

	net->now = now;
	if (!net_is_ours(net, local.addr))
		return -EADDRNOTAVAIL;
	if (net_is_v4(local.addr) != net_is_v4(remote->addr))
		return -EAFNOSUPPORT;
	if (!net_is_unicast(remote->addr) || net_is_ours(net, remote->addr) ||
	    !remote->port) /* MUST-46 */
		return -EHOSTUNREACH;
	if (!local.port)
		local.port = net_port_for(net, from, remote);
	if (!local.port)
		return -EADDRNOTAVAIL;
	c = net_find(net, &local, remote);
	iss = net_isn(net, &local, remote);
	if (c && (c->state != NET_TIME_WAIT || !c->orphan))
		return -EADDRINUSE;
	if (c) { /* RFC 9293 3.4.3 */
		iss = seq_max(iss, net_iss_behind(c));
		net_conn_end(c, 0);
	}
	c = net_conn_new(net, &local, remote);
	if (!c)
		return -ENOMEM;
	c->user = user;
	c->told = true;
	c->ecn_ok = net->ecn == DMM_NET_ECN_ASK;
	c->peer_mss = net_our_mss(net, c->v4);
	c->rcv_scale = net->rcv_scale;
	net_set_mss(c);
	c->state = NET_SYN_SENT;
	begin(c, iss);
	*ret = c;
	return 0;
}

struct dmm_net_conn *net_spawn(struct dmm_net_conn *l, const struct net_segment *syn, uint32_t iss,
			       bool cookie)
{
	struct dmm_net_conn *c = net_conn_new(l->net, &syn->packet->dst, &syn->packet->src);

	if (!c) {
		l->net->stats.no_memory++;
		return NULL;
	}
	c->passive = true;
	c->cookie = cookie;
	c->listener = l;
	c->user = l->user;
	c->state = NET_SYN_RCVD;
	l->half_open++;
	l->net->stats.half_open++;
	take_options(c, syn);
	c->snd_wnd = c->max_wnd = syn->window;
	c->snd_wl1 = syn->seq;
	begin(c, iss);
	return c;
}

void net_listen_input(struct dmm_net_conn *l, struct net_segment *s)
{
	struct dmm_net_conn *c;
	uint32_t iss;

	if (s->flags & NET_RST)
		return;
	if (s->flags & NET_ACK) {
		c = s->flags & NET_SYN ? NULL : net_cookie_accept(l, s);
		/* it may only have overtaken the one that shows its cookie */
		if (!c && !net_cookie_may_be(l->net, s))
			net_reply_reset(l->net, s);
		return;
	}
	if (!(s->flags & NET_SYN))
		return;
	if (l->half_open >= l->backlog) {
		net_cookie_send(l, s);
		return;
	}
	iss = net_isn(l->net, &s->packet->dst, &s->packet->src);
	if (s->least_iss)
		iss = seq_max(iss, s->least_iss);
	net_spawn(l, s, iss, false);
}

/* The handshake is done; the segment that did it is still to be processed. */
void net_establish(struct dmm_net_conn *c, const struct net_segment *s)
{
	c->state = NET_ESTABLISHED;
	c->snd_wnd = (uint32_t)s->window << (s->had_syn ? 0 : c->snd_scale);
	c->max_wnd = c->snd_wnd;
	c->snd_wl1 = s->seq;
	c->snd_wl2 = s->ack;
	c->snd_edge = s->ack + c->snd_wnd;
	c->quick_acks = NET_QUICK_ACKS;
	if (c->syn_tries > 1) /* RFC 6298 5.7 */
		c->rto = 3 * NET_SEC;
	net_congestion_begin(c, c->syn_tries > 1);
	c->round_at = c->net->now;
	c->round_from = c->rcv_read;
	if (c->listener) {
		c->listener->half_open--;
		c->net->stats.half_open--;
	}
	net_note(c, c->passive ? DMM_NET_ACCEPTED : DMM_EV_CONNECTED);
}

/* RFC 9293 3.10.7.3. */
void net_syn_sent_input(struct dmm_net_conn *c, struct net_segment *s)
{
	const bool ack_ok = c->snd_nxt != c->iss && s->ack == c->snd_nxt;

	if ((s->flags & NET_ACK) && !ack_ok) {
		net_reply_reset(c->net, s);
		return;
	}
	if (s->flags & NET_RST) {
		c->net->stats.resets_in++;
		if (s->flags & NET_ACK)
			net_conn_end(c, ECONNREFUSED);
		return;
	}
	if (!(s->flags & NET_SYN))
		return;
	take_options(c, s);
	net_heard(c);
	if (s->flags & NET_ACK) {
		net_establish(c, s);
		net_ack_input(c, s);
		c->ack_now = true;
		/* what a SYN|ACK carries beside itself will come again */
	} else { /* simultaneous open: MUST-10 */
		c->net->stats.simultaneous_open++;
		c->state = NET_SYN_RCVD;
		c->snd_wnd = c->max_wnd = s->window;
		c->snd_wl1 = s->seq;
		if (!TAILQ_EMPTY(&c->sent))
			net_mark_lost(c, TAILQ_FIRST(&c->sent)); /* again, with an ACK */
	}
	net_want_output(c);
}
