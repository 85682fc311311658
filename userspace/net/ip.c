// SPDX-License-Identifier: Apache-2.0
/* IPv4 and IPv6: headers read and written. Knows nothing of what is inside. */
#include <string.h>

#include "net/bytes.h"
#include "net/checksum.h"
#include "net/hash.h"
#include "net/net_internal.h"

#define TTL	       64
#define DONT_FRAGMENT  0x4000
#define MORE_FRAGMENTS 0x2000
#define OFFSET_MASK    0x1fff
#define MAX_HEADERS    8 /* extension headers in a row */

#define NEXT_HOP_BY_HOP	 0
#define NEXT_ROUTING	 43
#define NEXT_FRAGMENT	 44
#define NEXT_DESTINATION 60

static const uint8_t v4_prefix[12] = { [10] = 0xff, [11] = 0xff };

bool net_is_v4(const uint8_t addr[16])
{
	return memcmp(addr, v4_prefix, sizeof(v4_prefix)) == 0;
}

static void set_v4(uint8_t to[16], const uint8_t *ip)
{
	memcpy(to, v4_prefix, sizeof(v4_prefix));
	memcpy(to + sizeof(v4_prefix), ip, 4);
}

/* RFC 1122 3.2.1.3, RFC 9293 MUST-57: nothing is answered that comes from nowhere, from many, or
 * from ourselves. */
static bool good_source4(const uint8_t *ip)
{
	return ip[0] != 0 && ip[0] != 127 && ip[0] < 224;
}

/* Nor, of IPv6, from an IPv4 address, which no wire carries there. */
static bool good_source6(const uint8_t ip[16])
{
	static const uint8_t zero[15];

	return ip[0] != 0xff && memcmp(ip, zero, sizeof(zero)) != 0 && !net_is_v4(ip);
}

bool net_is_unicast(const uint8_t addr[16])
{
	return net_is_v4(addr) ? good_source4(addr + 12) : good_source6(addr);
}

static enum net_verdict drop(uint64_t *counter)
{
	(*counter)++;
	return NET_VERDICT_DROP;
}

static enum net_verdict for_us(struct dmm_net *net, const struct net_packet *packet,
			       enum net_verdict verdict)
{
	if (!net_is_ours(net, packet->dst.addr) || net_is_ours(net, packet->src.addr))
		return drop(&net->stats.not_ours);
	return verdict;
}

static enum net_verdict parse4(struct dmm_net *net, const uint8_t *p, uint32_t len,
			       struct net_packet *ret, struct net_fragment *f)
{
	const uint32_t header = (p[0] & 0xf) * 4u;
	uint32_t total, offset;

	if (len < NET_HEADER4 || header < NET_HEADER4)
		return drop(&net->stats.bad_ip);
	total = get16(p + 2);
	if (total > len || total < header || net_sum_finish(net_sum(p, header, 0)) ||
	    !good_source4(p + 12))
		return drop(&net->stats.bad_ip);
	set_v4(ret->src.addr, p + 12);
	set_v4(ret->dst.addr, p + 16);
	ret->v4 = true;
	ret->proto = p[9];
	ret->ecn = p[1] & 3;
	ret->data = p + header;
	ret->len = total - header;
	offset = get16(p + 6);
	*f = (struct net_fragment){ .id = get16(p + 4),
				    .offset = (offset & OFFSET_MASK) * 8,
				    .more = offset & MORE_FRAGMENTS };
	return for_us(net, ret, f->more || f->offset ? NET_VERDICT_FRAGMENT : NET_VERDICT_WHOLE);
}

/* RFC 8200 4.2: of options that it does not know, a node skips those whose two highest bits are 0
 * and drops the packet for the others. */
static bool options_allow(const uint8_t *p, uint32_t len)
{
	uint32_t at = 2;

	while (at < len) {
		if (p[at] == 0) { /* Pad1 */
			at++;
			continue;
		}
		if (at + 2 > len || at + 2 + p[at + 1] > len || p[at] >> 6)
			return false;
		at += 2u + p[at + 1];
	}
	return true;
}

/* Goes through extension headers; *@at is behind the last one known. 0: drop, -1: a fragment. */
static int skip_headers(const uint8_t *p, uint32_t total, uint32_t *at, uint8_t *next,
			struct net_fragment *f)
{
	unsigned int n;
	uint32_t len;

	for (n = 0; n < MAX_HEADERS; n++) {
		const uint8_t *h = p + *at;

		if (*next != NEXT_HOP_BY_HOP && *next != NEXT_ROUTING && *next != NEXT_FRAGMENT &&
		    *next != NEXT_DESTINATION)
			return 1;
		if (*at + 8 > total || (*next == NEXT_HOP_BY_HOP && n))
			return 0;
		len = *next == NEXT_FRAGMENT ? 8 : 8 + h[1] * 8u;
		if (*at + len > total)
			return 0;
		if (*next == NEXT_FRAGMENT) {
			*f = (struct net_fragment){ .id = get32(h + 4),
						    .offset = get16(h + 2) & 0xfff8u,
						    .more = h[3] & 1 };
			*next = h[0];
			*at += len;
			if (f->offset || f->more)
				return -1;
			continue; /* RFC 6946: whole by itself */
		}
		/* RFC 5095: what is routed further is not for us */
		if (*next == NEXT_ROUTING ? h[3] != 0 : !options_allow(h, len))
			return 0;
		*next = h[0];
		*at += len;
	}
	return 0;
}

static enum net_verdict parse6(struct dmm_net *net, const uint8_t *p, uint32_t len,
			       struct net_packet *ret, struct net_fragment *f)
{
	uint32_t total, at = NET_HEADER6;
	int found;

	if (len < NET_HEADER6)
		return drop(&net->stats.bad_ip);
	total = NET_HEADER6 + get16(p + 4);
	if (total > len || !good_source6(p + 8))
		return drop(&net->stats.bad_ip);
	memcpy(ret->src.addr, p + 8, 16);
	memcpy(ret->dst.addr, p + 24, 16);
	ret->v4 = false;
	ret->proto = p[6];
	ret->ecn = p[1] >> 4 & 3;
	found = skip_headers(p, total, &at, &ret->proto, f);
	if (!found)
		return drop(&net->stats.bad_ip);
	ret->data = p + at;
	ret->len = total - at;
	return for_us(net, ret, found < 0 ? NET_VERDICT_FRAGMENT : NET_VERDICT_WHOLE);
}

enum net_verdict net_ip_parse(struct dmm_net *net, const uint8_t *p, uint32_t len,
			      struct net_packet *ret, struct net_fragment *ret_fragment)
{
	*ret_fragment = (struct net_fragment){ 0 };
	*ret = (struct net_packet){ 0 };
	if (len && p[0] >> 4 == 4)
		return parse4(net, p, len, ret, ret_fragment);
	if (len && p[0] >> 4 == 6)
		return parse6(net, p, len, ret, ret_fragment);
	return drop(&net->stats.bad_ip);
}

bool net_ip_inside(struct dmm_net *net, struct net_packet *packet)
{
	struct net_fragment fragment;
	uint32_t at = 0;

	/* hop-by-hop options stand before all that may be cut */
	if (!packet->v4 &&
	    (packet->proto == NEXT_HOP_BY_HOP ||
	     skip_headers(packet->data, packet->len, &at, &packet->proto, &fragment) <= 0)) {
		net->stats.bad_ip++;
		return false;
	}
	packet->data += at;
	packet->len -= at;
	return true;
}

static void build4(uint8_t *p, const uint8_t *src, const uint8_t *dst, uint8_t proto, uint8_t ecn,
		   uint32_t len)
{
	uint16_t sum;

	p[0] = 0x45;
	p[1] = ecn;
	put16(p + 2, NET_HEADER4 + len);
	put16(p + 4, 0); /* what is never cut needs no name (RFC 6864 4.1), and counts nothing */
	put16(p + 6, DONT_FRAGMENT);
	p[8] = TTL;
	p[9] = proto;
	put16(p + 10, 0);
	memcpy(p + 12, src + 12, 4);
	memcpy(p + 16, dst + 12, 4);
	sum = net_sum_finish(net_sum(p, NET_HEADER4, 0));
	memcpy(p + 10, &sum, sizeof(sum));
}

uint32_t net_ip_build(struct dmm_net *net, uint8_t *p, const struct dmm_endpoint *local,
		      const struct dmm_endpoint *remote, bool v4, uint8_t proto, uint8_t ecn,
		      uint32_t len)
{
	uint32_t label;

	if (v4) {
		build4(p, local->addr, remote->addr, proto, ecn, len);
		return NET_HEADER4;
	}
	/* RFC 6437: one label for each flow, evenly spread */
	label = (uint32_t)net_tuple_hash(net->hash_key, local, remote, proto) & 0xfffff;
	put32(p, 6u << 28 | (uint32_t)ecn << 20 | label);
	put16(p + 4, len);
	p[6] = proto;
	p[7] = TTL;
	memcpy(p + 8, local->addr, 16);
	memcpy(p + 24, remote->addr, 16);
	return NET_HEADER6;
}

uint64_t net_pseudo(const struct dmm_endpoint *a, const struct dmm_endpoint *b, bool v4,
		    uint8_t proto, uint32_t len)
{
	const uint32_t skip = v4 ? 12 : 0;

	return net_sum_pseudo(a->addr + skip, b->addr + skip, 16 - skip, proto, len);
}
