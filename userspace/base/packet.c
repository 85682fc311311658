/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing IP packets. */
#include "base/packet.h"

#include <netinet/in.h>
#include <string.h>

static const uint8_t v4_prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

bool addr_is_v4(const uint8_t addr[16])
{
	return memcmp(addr, v4_prefix, sizeof(v4_prefix)) == 0;
}

void addr_from_v4(const uint8_t v4[4], uint8_t ret[16])
{
	memcpy(ret, v4_prefix, sizeof(v4_prefix));
	memcpy(ret + 12, v4, 4);
}

/* IPv4: this network, loopback, multicast, reserved and limited broadcast. IPv6: unspecified,
 * loopback, multicast, and mapped or compatible addresses, which no wire should carry. */
bool addr_is_illegal_source(const uint8_t addr[16])
{
	static const uint8_t zero[12];

	if (addr_is_v4(addr))
		return addr[12] == 0 || addr[12] == 127 || addr[12] >= 0xe0;
	return addr[0] == 0xff || memcmp(addr, zero, sizeof(zero)) == 0;
}

static bool parse_v4(const uint8_t *data, uint32_t len, struct packet *p)
{
	uint32_t header = (data[0] & 0xf) * 4;

	p->len = packet_get16(data + 2);
	if (header < 20 || header > len || p->len < header)
		return false;
	p->family = DMM_FAMILY_V4;
	p->header = header;
	p->proto = data[9];
	p->fragment = packet_get16(data + 6) & 0x3fff;
	addr_from_v4(data + 12, p->src);
	addr_from_v4(data + 16, p->dst);
	return true;
}

/* Walks the chain to the transport header. A header the chain does not follow is the payload. */
static bool walk_v6(const uint8_t *data, uint32_t len, struct packet *p)
{
	while (p->proto == IPPROTO_HOPOPTS || p->proto == IPPROTO_ROUTING ||
	       p->proto == IPPROTO_DSTOPTS || p->proto == IPPROTO_FRAGMENT) {
		const uint8_t *ext = data + p->header;

		if (p->header + 8 > len)
			return false;
		if (p->proto == IPPROTO_FRAGMENT) {
			p->fragment |= (packet_get16(ext + 2) & 0xfff9) != 0;
			p->header += 8;
		} else {
			p->header += (ext[1] + 1) * 8;
		}
		p->proto = ext[0];
		if (p->fragment)
			break;
	}
	return p->header <= len && p->header <= p->len;
}

static bool parse_v6(const uint8_t *data, uint32_t len, struct packet *p)
{
	if (len < 40)
		return false;
	p->family = DMM_FAMILY_V6;
	p->len = 40 + packet_get16(data + 4);
	p->header = 40;
	p->proto = data[6];
	p->fragment = false;
	memcpy(p->src, data + 8, 16);
	memcpy(p->dst, data + 24, 16);
	return walk_v6(data, len, p);
}

static bool parse(const uint8_t *data, uint32_t len, struct packet *p)
{
	if (len < 20)
		return false;
	switch (data[0] >> 4) {
	case 4:
		return parse_v4(data, len, p);
	case 6:
		return parse_v6(data, len, p);
	default:
		return false;
	}
}

bool packet_parse(const uint8_t *data, uint32_t len, struct packet *ret)
{
	return parse(data, len, ret) && ret->len <= len;
}

bool packet_parse_quoted(const uint8_t *data, uint32_t len, struct packet *ret)
{
	if (!parse(data, len, ret))
		return false;
	if (ret->len > len)
		ret->len = len;
	return true;
}

uint32_t checksum_add(uint32_t sum, const void *data, uint32_t len)
{
	const uint8_t *p = data;

	for (; len > 1; len -= 2, p += 2)
		sum += packet_get16(p);
	if (len)
		sum += (uint32_t)p[0] << 8;
	return sum;
}

uint16_t checksum_fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

uint16_t checksum_transport(const struct packet *p, const uint8_t *payload, uint32_t len)
{
	unsigned int skip = p->family == DMM_FAMILY_V4 ? 12 : 0;
	uint32_t sum = p->proto + len;

	sum = checksum_add(sum, p->src + skip, 16 - skip);
	sum = checksum_add(sum, p->dst + skip, 16 - skip);
	return checksum_fold(checksum_add(sum, payload, len));
}

void packet_set_length(uint8_t *ip, enum dmm_family family, uint32_t len)
{
	if (family == DMM_FAMILY_V6) {
		packet_put16(ip + 4, len - 40);
		return;
	}
	packet_put16(ip + 2, len);
	packet_put16(ip + 10, 0);
	packet_put16(ip + 10, checksum_fold(checksum_add(0, ip, (ip[0] & 0xf) * 4)));
}

uint32_t packet_write_ip(const struct packet *p, uint32_t len, uint8_t *ret)
{
	bool v4 = p->family == DMM_FAMILY_V4;
	uint32_t header = v4 ? 20 : 40;

	memset(ret, 0, header);
	if (v4) {
		ret[0] = 0x45;
		packet_put16(ret + 6, 0x4000); /* don't fragment */
		ret[8] = 64;
		ret[9] = p->proto;
		memcpy(ret + 12, p->src + 12, 4);
		memcpy(ret + 16, p->dst + 12, 4);
	} else {
		ret[0] = 0x60;
		ret[6] = p->proto;
		ret[7] = 64;
		memcpy(ret + 8, p->src, 16);
		memcpy(ret + 24, p->dst, 16);
	}
	packet_set_length(ret, p->family, header + len);
	return header;
}

uint32_t packet_write_tcp(const struct packet *p, const struct tcp_header *tcp, uint8_t *ret)
{
	uint32_t len = tcp->mss ? 24 : 20, header = packet_write_ip(p, len, ret);
	uint8_t *to = ret + header;

	memset(to, 0, len);
	memcpy(to, &tcp->src_port, 2);
	memcpy(to + 2, &tcp->dst_port, 2);
	packet_put32(to + 4, tcp->seq);
	packet_put32(to + 8, tcp->ack);
	to[12] = len << 2;
	to[13] = tcp->flags;
	packet_put16(to + 14, tcp->window);
	if (tcp->mss) {
		to[20] = 2;
		to[21] = 4;
		packet_put16(to + 22, tcp->mss);
	}
	packet_put16(to + 16, checksum_transport(p, to, len));
	return header + len;
}
