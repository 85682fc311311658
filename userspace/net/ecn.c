// SPDX-License-Identifier: Apache-2.0
/* Explicit congestion notification (RFC 3168): where both sides do it, routers mark segments (CE)
 * that they would have dropped. Who receives one says so with each ACK (ECE) until its sender says
 * (CWR) that he sends less; recovery.c does that as after a loss. */
#include "net/net_internal.h"
#include "net/seq.h"

/* RFC 3168 6.1.1, and 6.1.1.1: who drops such a SYN may let another through. */
uint8_t net_ecn_syn_flags(const struct dmm_net_conn *c)
{
	if (!c->ecn_ok)
		return 0;
	if (c->state == NET_SYN_RCVD)
		return NET_ECE;
	return c->syn_tries ? 0 : NET_ECE | NET_CWR;
}

bool net_ecn_agreed(const struct dmm_net_conn *c, const struct net_segment *s)
{
	const uint8_t flags = s->flags & (NET_ECE | NET_CWR);

	if (c->state == NET_SYN_SENT) /* both opening at a time cannot agree on it */
		return c->ecn_ok && (s->flags & NET_ACK) && flags == NET_ECE;
	return c->net->ecn != DMM_NET_ECN_OFF && flags == (NET_ECE | NET_CWR);
}

void net_ecn_receive(struct dmm_net_conn *c, const struct net_segment *s)
{
	if (!c->ecn_ok || !s->len)
		return;
	if (s->flags & NET_CWR)
		c->ecn_echo = false;
	if (s->packet->ecn != NET_CE)
		return;
	c->net->stats.ce_in++;
	c->ack_now |= !c->ecn_echo;
	c->ecn_echo = true;
}

bool net_ecn_is_told(const struct dmm_net_conn *c, const struct net_segment *s)
{
	return c->ecn_ok && (s->flags & (NET_ECE | NET_SYN)) == NET_ECE &&
	       seq_gt(c->snd_una, c->recover);
}
