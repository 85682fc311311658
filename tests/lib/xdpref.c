/* SPDX-License-Identifier: Apache-2.0 */
/* The reference parser of the flow door. */
#include "xdpref.h"

#include <string.h>

#define MAX_EXT 6
#define PARSED	DMM_REASON_NONE

struct network {
	size_t source, dest; /* offsets */
	size_t alen;
	size_t transport;
	uint8_t proto;
	bool first_fragment;
};

static unsigned int be16(const uint8_t *b, size_t at)
{
	return b[at] << 8 | b[at + 1];
}

static enum dmm_reason network4(const uint8_t *b, size_t len, size_t at, struct network *ret)
{
	unsigned int frag;

	if (len < at + 20)
		return DMM_REASON_XDP_TRUNCATED;
	if (b[at] < 0x45 || b[at] > 0x4f)
		return DMM_REASON_XDP_NOT_IP;
	frag = be16(b, at + 6);
	if (frag % 0x2000 != 0)
		return DMM_REASON_XDP_FRAGMENT;
	*ret = (struct network){
		.source = at + 12,
		.dest = at + 16,
		.alen = 4,
		.transport = at + (b[at] - 0x40) * 4u,
		.proto = b[at + 9],
		.first_fragment = (frag & 0x2000) != 0,
	};
	return PARSED;
}

static bool extends(uint8_t proto)
{
	return memchr("\x00\x2b\x2c\x33\x3c", proto, 5) != NULL;
}

static enum dmm_reason network6(const uint8_t *b, size_t len, size_t at, struct network *ret)
{
	unsigned int seen = 0;

	if (len < at + 40)
		return DMM_REASON_XDP_TRUNCATED;
	if (b[at] >> 4 != 6)
		return DMM_REASON_XDP_NOT_IP;
	*ret = (struct network){
		.source = at + 8,
		.dest = at + 24,
		.alen = 16,
		.transport = at + 40,
		.proto = b[at + 6],
	};
	while (extends(ret->proto)) {
		size_t ext = ret->transport;

		if (seen++ == MAX_EXT)
			return DMM_REASON_XDP_EXT_HEADER;
		if (len < ext + 8)
			return DMM_REASON_XDP_TRUNCATED;
		switch (ret->proto) {
		case 44:
			if (be16(b, ext + 2) >= 8)
				return DMM_REASON_XDP_FRAGMENT;
			if (be16(b, ext + 2) & 1)
				ret->first_fragment = true;
			ret->transport += 8;
			break;
		case 51:
			ret->transport += b[ext + 1] * 4u + 8;
			break;
		default:
			ret->transport += b[ext + 1] * 8u + 8;
		}
		ret->proto = b[ext];
	}
	return PARSED;
}

static enum dmm_reason network(const uint8_t *b, size_t len, size_t at, bool v6,
			       struct network *ret)
{
	return v6 ? network6(b, len, at, ret) : network4(b, len, at, ret);
}

static void address(const uint8_t *b, size_t at, size_t alen, uint8_t *ret)
{
	memset(ret, 0, 16);
	if (alen == 4)
		ret[10] = ret[11] = 0xff;
	memcpy(ret + 16 - alen, b + at, alen);
}

static bool illegal_source(const struct xdpref_world *world, const uint8_t *addr, bool v6)
{
	static const uint8_t zero[12], mapped[12] = { [10] = 0xff, 0xff };

	if (world->is_local(addr))
		return true;
	if (v6)
		return addr[0] == 0xff || memcmp(addr, zero, 12) == 0 ||
		       memcmp(addr, mapped, 12) == 0;
	return addr[12] == 0 || addr[12] == 127 || addr[12] > 223;
}

static bool reports_error(uint8_t proto, uint8_t type, bool v6)
{
	if (v6)
		return proto == 58 && type >= 1 && type <= 127;
	return proto == 1 && (type == 3 || type == 11 || type == 12);
}

static bool transport(uint8_t number, enum dmm_proto *ret)
{
	*ret = number == 17 ? DMM_PROTO_UDP : DMM_PROTO_TCP;
	return number == 17 || number == 6;
}

/* Decided before a port was found. */
static struct xdpref_result only(enum dmm_reason reason)
{
	return (struct xdpref_result){ .reason = reason };
}

struct xdpref_result xdpref(const struct xdpref_world *world, const uint8_t *b, size_t len)
{
	unsigned int type = be16(b, 12);
	bool v6 = type == 0x86dd, syn = false, quotes = false;
	struct xdpref_result r = { 0 };
	struct network outer, inner;
	uint8_t addr[16];
	size_t at;

	if (type == 0x8100 || type == 0x88a8)
		return only(DMM_REASON_XDP_VLAN);
	if (type != 0x0800 && !v6)
		return only(DMM_REASON_XDP_NOT_IP);
	r.reason = network(b, len, 14, v6, &outer);
	if (r.reason != PARSED)
		return r;
	at = outer.transport;

	if (transport(outer.proto, &r.proto)) {
		if (len < at + 4)
			return only(DMM_REASON_XDP_TRUNCATED);
		r.port = be16(b, at + 2);
		if (r.proto == DMM_PROTO_TCP && len < at + 20 && !outer.first_fragment)
			return only(DMM_REASON_XDP_TRUNCATED);
		if (r.proto == DMM_PROTO_TCP && len >= at + 20)
			syn = (b[at + 13] & 2) && !(b[at + 13] & 0x15);
	} else {
		if (len < at + 8)
			return only(DMM_REASON_XDP_TRUNCATED);
		if (!reports_error(outer.proto, b[at], v6))
			return only(DMM_REASON_XDP_NOT_TRANSPORT);
		r.reason = network(b, len, at + 8, v6, &inner);
		if (r.reason != PARSED)
			return r;
		if (!transport(inner.proto, &r.proto))
			return only(DMM_REASON_XDP_NOT_TRANSPORT);
		if (len < inner.transport + 4)
			return only(DMM_REASON_XDP_TRUNCATED);
		r.port = be16(b, inner.transport);
		quotes = true;
	}

	r.reason = world->port(r.proto, r.port, syn);
	if (r.reason == DMM_REASON_XDP_KERNEL_PORT)
		return r;
	address(b, outer.source, outer.alen, addr);
	if (illegal_source(world, addr, v6)) {
		r.reason = DMM_REASON_XDP_BAD_SOURCE;
		return r;
	}
	address(b, outer.dest, outer.alen, addr);
	if (!world->is_unicast(addr))
		r.reason = DMM_REASON_XDP_NOT_OURS;
	if (quotes) {
		address(b, inner.source, inner.alen, addr);
		if (!world->is_unicast(addr))
			r.reason = DMM_REASON_XDP_NOT_OURS;
	}
	if (r.reason == DMM_REASON_XDP_REDIRECT && outer.first_fragment)
		r.reason = DMM_REASON_XDP_FIRST_FRAG;
	return r;
}
