// SPDX-License-Identifier: Apache-2.0
/* UDP. */
#include "net/net_internal.h"

void net_udp_input(struct dmm_net *net, const struct net_packet *packet)
{
	(void)packet;
	net->stats.udp_dropped++;
}

uint32_t net_udp_output(struct dmm_net *net, uint8_t *p, uint32_t room)
{
	(void)net;
	(void)p;
	(void)room;
	return 0;
}
