// SPDX-License-Identifier: Apache-2.0
/* ICMP errors read from packets (RFC 792, 1122 3.2.2, 4443). Everything else of ICMP, echo too, is
 * the host's. */
#include <errno.h>

#include "base/util.h"
#include "net/bytes.h"
#include "net/checksum.h"
#include "net/net_internal.h"

#define UNREACH4 3
#define UNREACH6 1
#define TOO_BIG6 2

/* As the kernel reports them. Source quench is not among them (MUST-55). */
static bool judge4(uint8_t type, uint8_t code, const uint8_t *p, struct dmm_icmp *e)
{
	static const int errors[] = { ENETUNREACH,  EHOSTUNREACH, ENOPROTOOPT,
				      ECONNREFUSED, EMSGSIZE,	  EOPNOTSUPP };

	if (type != UNREACH4)
		return false;
	e->err = code < 6 ? errors[code] : EHOSTUNREACH;
	e->hard = code == 2 || code == 3;
	if (code == 4) /* RFC 1191 4; of old routers it is 0: then the least there is */
		e->mtu = get16(p + 6) ? get16(p + 6) : NET_MIN_MTU;
	return true;
}

static bool judge6(uint8_t type, uint8_t code, const uint8_t *p, struct dmm_icmp *e)
{
	if (type == TOO_BIG6) {
		e->err = EMSGSIZE;
		e->mtu = get32(p + 4);
		return true;
	}
	if (type != UNREACH6)
		return false;
	e->err = code == 4 ? ECONNREFUSED : code == 1 ? EACCES : EHOSTUNREACH;
	e->hard = code == 1 || code == 4;
	return true;
}

uint32_t net_icmp_mtu(const struct dmm_icmp *e)
{
	if (net_is_v4(e->local.addr))
		return e->mtu ? DMM_MAX(e->mtu, NET_MIN_MTU) : 0;
	return e->mtu < NET_MIN_MTU6 ? 0 : e->mtu; /* RFC 8201 4: MUST be discarded */
}

/* The packet that it quotes, as we sent it: from us, without extension headers. */
static bool quoted(const struct dmm_net *net, const uint8_t *p, uint32_t len, bool v4,
		   struct dmm_icmp *e, uint8_t *ret_proto)
{
	const uint32_t header = v4 ? NET_HEADER4 : NET_HEADER6;
	uint8_t proto;

	if (len < header + 8 || p[0] >> 4 != (v4 ? 4 : 6) || (v4 && p[0] != 0x45))
		return false;
	proto = v4 ? p[9] : p[6];
	if (v4) {
		e->local.addr[10] = e->local.addr[11] = 0xff;
		e->remote.addr[10] = e->remote.addr[11] = 0xff;
		memcpy(e->local.addr + 12, p + 12, 4);
		memcpy(e->remote.addr + 12, p + 16, 4);
	} else {
		memcpy(e->local.addr, p + 8, 16);
		memcpy(e->remote.addr, p + 24, 16);
	}
	memcpy(&e->local.port, p + header, 2);
	memcpy(&e->remote.port, p + header + 2, 2);
	e->seq = get32(p + header + 4);
	*ret_proto = proto;
	return net_is_ours(net, e->local.addr);
}

void net_icmp_input(struct dmm_net *net, const struct net_packet *packet)
{
	const uint8_t *p = packet->data;
	struct dmm_icmp e = { .err = 0 };
	uint64_t sum = 0;
	uint8_t proto;

	if (packet->len < 8)
		return;
	if (!packet->v4)
		sum = net_pseudo(&packet->src, &packet->dst, false, NET_PROTO_ICMP6, packet->len);
	if (net_sum_finish(net_sum(p, packet->len, sum))) {
		net->stats.bad_checksum++;
		return;
	}
	if (!(packet->v4 ? judge4(p[0], p[1], p, &e) : judge6(p[0], p[1], p, &e)) ||
	    !quoted(net, p + 8, packet->len - 8, packet->v4, &e, &proto))
		return;
	if (proto == NET_PROTO_TCP)
		net_icmp_error(net, &e);
	else if (proto == NET_PROTO_UDP)
		net_udp_error(net, &e);
}
