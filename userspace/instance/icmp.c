/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP errors. What they mean to a connection attempt is what the kernel's own TCP makes of them. */
#include "instance/icmp.h"

#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <string.h>

#include "base/util.h"

/* By code of "destination unreachable". */
static const int v4_errors[] = {
	ENETUNREACH,  EHOSTUNREACH, ENOPROTOOPT,  ECONNREFUSED, EMSGSIZE,     EOPNOTSUPP,
	ENETUNREACH,  EHOSTDOWN,    ENONET,	  ENETUNREACH,	EHOSTUNREACH, ENETUNREACH,
	EHOSTUNREACH, EHOSTUNREACH, EHOSTUNREACH, EHOSTUNREACH,
};

static const int v6_errors[] = {
	ENETUNREACH, EACCES, EHOSTUNREACH, EHOSTUNREACH, ECONNREFUSED, EACCES, EACCES,
};

static bool judge_v4(const uint8_t *icmp, struct icmp_error *e)
{
	switch (e->type) {
	case ICMP_DEST_UNREACH:
		if (e->code >= DMM_ARRAY_SIZE(v4_errors))
			return false;
		e->about.err = v4_errors[e->code];
		if (e->code == ICMP_FRAG_NEEDED) {
			/* a router older than RFC 1191 says 0: as small as can be, for the floor
			 * that the plug-in has. We forbid fragments, so silence would be for ever. */
			e->about.mtu = DMM_MAX(packet_get16(icmp + 6), 1);
			return true;
		}
		break;
	case ICMP_TIME_EXCEEDED:
		e->about.err = EHOSTUNREACH;
		break;
	case ICMP_PARAMETERPROB:
		e->about.err = EPROTO;
		break;
	default:
		return false;
	}
	e->about.hard = true;
	return true;
}

static bool judge_v6(const uint8_t *icmp, struct icmp_error *e)
{
	switch (e->type) {
	case ICMP6_DST_UNREACH:
		if (e->code >= DMM_ARRAY_SIZE(v6_errors))
			return false;
		e->about.err = v6_errors[e->code];
		break;
	case ICMP6_PACKET_TOO_BIG:
		e->about.err = EMSGSIZE;
		e->about.mtu = packet_get32(icmp + 4);
		return true;
	case ICMP6_TIME_EXCEEDED:
		e->about.err = EHOSTUNREACH;
		break;
	case ICMP6_PARAM_PROB:
		e->about.err = EPROTO;
		break;
	default:
		return false;
	}
	e->about.hard = true;
	return true;
}

/* The quoted segment is one of ours on its way out: its source is our local end. */
static bool read_quotation(const uint8_t *quoted, uint32_t len, enum dmm_family family,
			   struct dmm_icmp *about)
{
	struct packet inner;
	const uint8_t *tcp;

	if (!packet_parse_quoted(quoted, len, &inner) || inner.family != family ||
	    inner.proto != IPPROTO_TCP || inner.fragment || inner.header + 8 > inner.len)
		return false;
	tcp = quoted + inner.header;
	memcpy(about->local.addr, inner.src, 16);
	memcpy(about->remote.addr, inner.dst, 16);
	memcpy(&about->local.port, tcp, 2);
	memcpy(&about->remote.port, tcp + 2, 2);
	about->seq = packet_get32(tcp + 4);
	return true;
}

bool icmp_parse(const struct packet *packet, const uint8_t *data, struct icmp_error *ret)
{
	const uint8_t *icmp = data + packet->header;
	uint32_t len = packet->len - packet->header;
	bool v4 = packet->family == DMM_FAMILY_V4;
	struct icmp_error e = { .family = packet->family };

	if (packet->proto != (v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6) || packet->fragment || len < 8)
		return false;
	if (v4 ? checksum_fold(checksum_add(0, icmp, len)) : checksum_transport(packet, icmp, len))
		return false;
	e.type = icmp[0];
	e.code = icmp[1];
	if (!(v4 ? judge_v4(icmp, &e) : judge_v6(icmp, &e)) ||
	    !read_quotation(icmp + 8, len - 8, packet->family, &e.about))
		return false;
	*ret = e;
	return true;
}

void icmp_unreachable(enum dmm_family family, enum icmp_unreachable what, struct icmp_error *ret)
{
	bool host = what == ICMP_NO_HOST;

	*ret = (struct icmp_error){
		.family = family,
		.about.err = host ? EHOSTUNREACH : ENETUNREACH,
		.about.hard = true,
	};
	if (family == DMM_FAMILY_V4) {
		ret->type = ICMP_DEST_UNREACH;
		ret->code = host ? ICMP_HOST_UNREACH : ICMP_NET_UNREACH;
	} else {
		ret->type = ICMP6_DST_UNREACH;
		ret->code = host ? ICMP6_DST_UNREACH_ADDR : ICMP6_DST_UNREACH_NOROUTE;
	}
}
