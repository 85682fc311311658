/* SPDX-License-Identifier: Apache-2.0 */
/* A fuzzer's input taken as numbers, and IP packets made from them. */
#pragma once

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/bytes.h"
#include "net/checksum.h"

#include <dmm/net.h>

#define MS  1000000ull
#define MTU 1500u

/* What does not hold is a finding. */
static inline void must(bool holds)
{
	if (!holds)
		abort();
}

struct input {
	const uint8_t *data;
	size_t left;
};

/* A number of @n bytes; zeros follow the end. */
static inline uint32_t take(struct input *in, unsigned int n)
{
	uint32_t v = 0;

	while (n--) {
		v <<= 8;
		if (in->left) {
			v |= *in->data++;
			in->left--;
		}
	}
	return v;
}

/* At most @most bytes; returns how many. */
static inline uint32_t take_bytes(struct input *in, uint8_t *to, uint32_t most)
{
	const uint32_t n = take(in, 2) % (most + 1);
	uint32_t i;

	for (i = 0; i < n; i++)
		to[i] = (uint8_t)take(in, 1);
	return n;
}

static inline struct dmm_endpoint endpoint(bool v4, uint8_t last, uint16_t port)
{
	struct dmm_endpoint ep = { .addr = { 0xfd, [15] = last }, .port = htons(port) };

	if (v4)
		ep = (struct dmm_endpoint){ .addr = { [10] = 0xff, 0xff, 10, 0, 0, last },
					    .port = htons(port) };
	return ep;
}

/* Writes the header for @len bytes of @proto; returns its length. */
static inline uint32_t ip_header(uint8_t *p, bool v4, const struct dmm_endpoint *src,
				 const struct dmm_endpoint *dst, uint8_t proto, uint32_t len)
{
	memset(p, 0, 40);
	if (v4) {
		p[0] = 0x45;
		put16(p + 2, 20 + len);
		p[8] = 64;
		p[9] = proto;
		memcpy(p + 12, src->addr + 12, 4);
		memcpy(p + 16, dst->addr + 12, 4);
		return 20;
	}
	p[0] = 0x60;
	put16(p + 4, len);
	p[6] = proto;
	p[7] = 64;
	memcpy(p + 8, src->addr, 16);
	memcpy(p + 24, dst->addr, 16);
	return 40;
}

/* Makes the checksum of an IPv4 header of 20 bytes right. */
static inline void mend_ip(uint8_t *p)
{
	uint16_t sum;

	put16(p + 10, 0);
	sum = net_sum_finish(net_sum(p, 20, 0));
	memcpy(p + 10, &sum, 2);
}

/* Makes IP and transport checksums right, where there is one. */
static inline void mend(uint8_t *p, uint32_t len)
{
	const bool v4 = p[0] >> 4 == 4;
	const uint32_t header = v4 ? (p[0] & 0xf) * 4u : 40;
	const uint8_t proto = len > 40 ? p[v4 ? 9 : 6] : 0;
	uint64_t sum = 0;
	uint16_t field;
	uint32_t at;

	if (len < 40 || header < 20 || header + 20 > len)
		return;
	if (v4) {
		put16(p + 10, 0);
		field = net_sum_finish(net_sum(p, header, 0));
		memcpy(p + 10, &field, 2);
	}
	at = header + (proto == 6 ? 16 : proto == 17 ? 6 : 2);
	put16(p + at, 0);
	if (proto != 1)
		sum = net_sum_pseudo(p + (v4 ? 12 : 8), p + (v4 ? 16 : 24), v4 ? 4 : 16, proto,
				     len - header);
	field = net_sum_finish(net_sum(p + header, len - header, sum));
	memcpy(p + at, &field, 2);
}
