// SPDX-License-Identifier: Apache-2.0
/* SYN cookies (RFC 4987 3.6): beyond its backlog a listener keeps nothing of a SYN, and finds what
 * it has to know in the ACK: in our sequence number the time and the MSS, in our timestamp the rest.
 *
 *	31..27 time in units of 64 s   26..24 MSS   23..0 keyed hash of the ends and all that
 *
 * Timestamp: its lowest 6 bits are the peer's window scale (4, 15: none) and whether he does SACK
 * and ECN; without timestamps there is none of it. */
#include "net/net_internal.h"

#include "net/seq.h"

#define UNIT	  (64 * NET_SEC)
#define NO_SCALE  15u
#define DOES_SACK 0x10u
#define DOES_ECN  0x20u

static const uint16_t mss_steps[8] = { 216, 536, 900, 1220, 1400, 1440, 1460, 8940 };

static uint32_t make(const struct dmm_net *net, const struct net_packet *ends, uint32_t irs,
		     uint32_t time, uint32_t mss_step)
{
	const uint32_t head = (time & 31) << 27 | mss_step << 24;
	const uint64_t more = (uint64_t)irs << 32 | head | (time >> 5 & 0xffffff);

	return head | (net_tuple_hash(net->cookie_key, &ends->dst, &ends->src, more) & 0xffffff);
}

static uint32_t clock_of(const struct dmm_net *net)
{
	return (uint32_t)(net->now / UNIT);
}

void net_cookie_send(struct dmm_net_conn *l, const struct net_segment *s)
{
	struct dmm_net *net = l->net;
	const struct net_options *o = &s->opt;
	const uint16_t mss = o->has_mss ? o->mss : 536;
	const uint32_t ts_now =
		(uint32_t)(net->now / NET_MS) +
		(uint32_t)net_tuple_hash(net->ts_key, &s->packet->dst, &s->packet->src, 0);
	const bool ecn = o->has_ts && net_ecn_agreed(l, s);
	const uint32_t kept = (o->has_scale ? o->scale : NO_SCALE) | (o->sack_ok ? DOES_SACK : 0) |
			      (ecn ? DOES_ECN : 0);
	struct net_reply r = { .local = s->packet->dst,
			       .remote = s->packet->src,
			       .v4 = s->packet->v4,
			       .flags = NET_SYN | NET_ACK | (ecn ? NET_ECE : 0),
			       .ack = s->seq + 1,
			       .mss = net_our_mss(net, s->packet->v4),
			       .window = net_syn_window(net),
			       .scale = net->rcv_scale,
			       .ts = o->has_ts,
			       .sack_ok = o->has_ts && o->sack_ok,
			       .ts_ecr = o->ts_val };
	uint32_t step = 7;

	while (step && mss_steps[step] > mss)
		step--;
	r.seq = make(net, s->packet, s->seq, clock_of(net), step);
	r.no_scale = !o->has_ts || !o->has_scale;
	r.ts_val = ((ts_now & ~0x3fu) | kept);
	if (seq_gt(r.ts_val, ts_now)) /* never ahead of what the connection will say */
		r.ts_val -= 0x40;
	net->stats.cookies_sent++;
	net->cookie_at = net->now;
	net_reply_add(net, &r);
}

/* The cookie is one below what his ACK has. */
static uint32_t age_of(const struct dmm_net *net, const struct net_segment *s)
{
	return (clock_of(net) - ((s->ack - 1) >> 27)) & 31;
}

bool net_cookie_may_be(const struct dmm_net *net, const struct net_segment *s)
{
	return net->stats.cookies_sent && net->now - net->cookie_at < 2 * UNIT &&
	       age_of(net, s) <= 1;
}

/* So is the number of his SYN. */
bool net_cookie_is_ours(const struct dmm_net *net, const struct net_segment *s)
{
	const uint32_t cookie = s->ack - 1, time = clock_of(net) - age_of(net, s);

	return net_cookie_may_be(net, s) &&
	       make(net, s->packet, s->seq - 1, time, cookie >> 24 & 7) == cookie;
}

struct dmm_net_conn *net_cookie_accept(struct dmm_net_conn *l, const struct net_segment *s)
{
	const uint32_t cookie = s->ack - 1, kept = s->opt.ts_ecr & 0x3f;
	struct net_segment syn = *s, ack = *s;
	struct dmm_net_conn *c;

	if (!net_cookie_is_ours(l->net, s))
		return NULL;
	/* the SYN as it was */
	syn.seq--;
	syn.flags = NET_SYN | (s->opt.has_ts && (kept & DOES_ECN) ? NET_ECE | NET_CWR : 0);
	syn.opt.has_mss = true;
	syn.opt.mss = mss_steps[cookie >> 24 & 7];
	syn.opt.has_scale = s->opt.has_ts && (kept & 15) != NO_SCALE;
	syn.opt.scale = kept & 15;
	syn.opt.sack_ok = s->opt.has_ts && (kept & DOES_SACK);
	c = net_spawn(l, &syn, cookie, true);
	if (!c)
		return NULL;
	l->net->stats.cookies_taken++;
	c->snd_nxt = c->iss + 1;
	net_establish(c, &ack);
	c->snd_una = c->snd_nxt;
	if (s->len || (s->flags & NET_FIN))
		net_receive(c, &ack);
	return c;
}
