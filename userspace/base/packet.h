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

/* Headers of packets that the host sends itself: from @p's src to its dst; family and proto are to be
 * set. */
struct tcp_header {
	uint16_t src_port, dst_port; /* network order */
	uint32_t seq, ack;
	uint8_t flags; /* TCP_* */
	uint16_t window;
	uint16_t mss; /* 0: no such option */
};
#define TCP_FIN 0x01u
#define TCP_SYN 0x02u
#define TCP_RST 0x04u
#define TCP_ACK 0x10u

/* Room for what packet_write_tcp() writes. */
#define PACKET_TCP_MAX (40u + 24u)

/* Before a payload of @len bytes; returns how long it is. */
uint32_t packet_write_ip(const struct packet *p, uint32_t len, uint8_t *ret);
/* A whole packet without data; returns its length. */
uint32_t packet_write_tcp(const struct packet *p, const struct tcp_header *tcp, uint8_t *ret);
/* @ip's length field, and IPv4's checksum with it. */
void packet_set_length(uint8_t *ip, enum dmm_family family, uint32_t len);

/* Sum of 16-bit words to be continued and folded; @data may be odd only in the last part. */
uint32_t checksum_add(uint32_t sum, const void *data, uint32_t len);
uint16_t checksum_fold(uint32_t sum);
/* Of a payload with its pseudo-header; 0 where a received one is right. Network order value, to be
 * stored by packet_put16(). */
uint16_t checksum_transport(const struct packet *p, const uint8_t *payload, uint32_t len);
