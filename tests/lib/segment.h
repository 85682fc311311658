/* SPDX-License-Identifier: Apache-2.0 */
/* TCP segments as a test writes and reads them, and their way into and out of a stackhost. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stackhost.h"

#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define PSH 0x08
#define ACK 0x10

struct segment {
	struct dmm_endpoint src, dst;
	uint32_t seq, ack;
	uint8_t flags;
	uint16_t window, mss; /* mss: of a SYN that was read */
	uint8_t options[40];
	uint32_t options_len;
	uint8_t data[1500];
	uint32_t len;
	bool v4;
};

/* Numbers in network order; independent of what the engine has for it. */

static inline void segment_put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void segment_put32(uint8_t *p, uint32_t v)
{
	segment_put16(p, v >> 16);
	segment_put16(p + 2, v);
}

static inline uint32_t segment_get16(const uint8_t *p)
{
	return (uint32_t)(p[0] << 8 | p[1]);
}

static inline uint32_t segment_get32(const uint8_t *p)
{
	return segment_get16(p) << 16 | segment_get16(p + 2);
}

bool segment_is_v4(const uint8_t addr[16]);
/* The Internet checksum, begun with @sum; @p begins at an even byte. */
uint16_t segment_checksum(const uint8_t *p, size_t len, uint32_t sum);
/* @p has room for 2000 bytes; returns the length of the packet. */
size_t segment_build(const struct segment *s, uint8_t *p);
/* @p is a TCP segment with no IP options, whole and sound. */
void segment_parse(const uint8_t *p, size_t len, struct segment *ret);
void segment_inject(struct stackhost *host, const struct segment *s);
/* The oldest that the plug-in has sent and nobody has taken; false: none. */
bool segment_take(struct stackhost *host, struct segment *ret);
