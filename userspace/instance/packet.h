/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing IP packets, as far as the host of a stack needs it: where the headers are,
 * addresses in the 16-byte form, checksums. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <dmm/abi/types.h>

/* Views into a packet; addresses are copied. */
struct packet {
	enum dmm_family family;
	uint8_t src[16], dst[16];
	uint8_t proto;	 /* of the payload; IPv6 extension headers are walked */
	bool fragment;	 /* any but a whole packet: the payload may be missing or cut */
	uint32_t len;	 /* what the IP header says: link padding lies beyond */
	uint32_t header; /* bytes before the payload */
};

/* @data starts at the IP header. False: not a whole, well-formed IP packet. */
bool packet_parse(const uint8_t *data, uint32_t len, struct packet *ret);

/* As packet_parse(), but the payload may be cut short: what ICMP errors quote. @ret->len is what is
 * there. */
bool packet_parse_quoted(const uint8_t *data, uint32_t len, struct packet *ret);

static inline uint16_t packet_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t packet_get32(const uint8_t *p)
{
	return (uint32_t)packet_get16(p) << 16 | packet_get16(p + 2);
}

static inline void packet_put16(uint8_t *p, uint16_t v)
{
	p[0] = v >> 8;
	p[1] = v;
}

static inline void packet_put32(uint8_t *p, uint32_t v)
{
	packet_put16(p, v >> 16);
	packet_put16(p + 2, v);
}

bool addr_is_v4(const uint8_t addr[16]);
void addr_from_v4(const uint8_t v4[4], uint8_t ret[16]);
/* What may never be the source of a unicast packet from a wire. */
bool addr_is_illegal_source(const uint8_t addr[16]);

/* Sum of 16-bit words to be continued and folded; @data may be odd only in the last part. */
uint32_t checksum_add(uint32_t sum, const void *data, uint32_t len);
uint16_t checksum_fold(uint32_t sum);
/* Of a payload with its pseudo-header; 0 where a received one is right. Network order value, to be
 * stored by packet_put16(). */
uint16_t checksum_transport(const struct packet *p, const uint8_t *payload, uint32_t len);
