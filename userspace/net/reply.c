// SPDX-License-Identifier: Apache-2.0
/* Segments of no connection: resets and cookies. A ring of a few; what does not fit is lost, as on
 * a wire, so that a flood of what is to be refused cannot hold up anything. */
#include <string.h>

#include "net/bytes.h"
#include "net/checksum.h"
#include "net/net_internal.h"

void net_reply_add(struct dmm_net *net, const struct net_reply *reply)
{
	if (net->n_replies == NET_REPLIES) {
		net->stats.replies_dropped++;
		return;
	}
	net->replies[(net->reply_head + net->n_replies++) % NET_REPLIES] = *reply;
}

/* RFC 9293 3.10.7.1: a reset that its receiver finds acceptable. */
void net_reply_reset(struct dmm_net *net, const struct net_segment *s)
{
	struct net_reply r = { .local = s->packet->dst,
			       .remote = s->packet->src,
			       .v4 = s->packet->v4,
			       .flags = NET_RST };

	if (s->flags & NET_RST)
		return;
	if (s->flags & NET_ACK) {
		r.seq = s->ack;
	} else {
		r.flags |= NET_ACK;
		r.ack = s->seq + s->len + !!(s->flags & NET_SYN) + !!(s->flags & NET_FIN);
	}
	net->stats.resets_out++;
	net_reply_add(net, &r);
}

void net_reply_abort(struct dmm_net_conn *c)
{
	const struct net_reply r = { .local = c->local,
				     .remote = c->remote,
				     .v4 = c->v4,
				     .flags = NET_RST | NET_ACK,
				     .seq = c->snd_nxt,
				     .ack = c->rcv_nxt };

	c->net->stats.resets_out++;
	net_reply_add(c->net, &r);
}

uint32_t net_reply_output(struct dmm_net *net, uint8_t *p, uint32_t room)
{
	const struct net_reply *r = &net->replies[net->reply_head];
	uint32_t options, header;
	uint8_t opt[40], *tcp;
	uint16_t sum;

	if (!net->n_replies || room < NET_MIN_MTU)
		return 0;
	net->reply_head = (net->reply_head + 1) % NET_REPLIES;
	net->n_replies--;
	options = r->flags & NET_SYN ? net_options_syn(opt, r->mss, r->no_scale ? -1 : r->scale,
						       r->sack_ok, r->ts, r->ts_val, r->ts_ecr)
				     : 0;
	header = net_tcp_header(net, p, &r->local, &r->remote, r->v4, NET_NOT_ECT, options, 0);
	tcp = p + header - NET_TCP_HEADER - options;
	memcpy(tcp + NET_TCP_HEADER, opt, options);
	put32(tcp + 4, r->seq);
	put32(tcp + 8, r->ack);
	tcp[13] = r->flags;
	put16(tcp + 14, r->window);
	sum = net_sum_finish(net_sum(tcp, NET_TCP_HEADER + options,
				     net_pseudo(&r->local, &r->remote, r->v4, NET_PROTO_TCP,
						NET_TCP_HEADER + options)));
	memcpy(tcp + 16, &sum, sizeof(sum));
	net->stats.segs_out++;
	return header;
}
