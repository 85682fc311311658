// SPDX-License-Identifier: Apache-2.0
/* Initial sequence numbers after RFC 6528 for lwIP, which Debian builds without its hook for them.
 *
 * lwIP's next number is its last one plus tcp_ticks, the counter of its slow timer. While a SYN is
 * made, tcp_ticks holds what makes the sum come out as clock + SipHash-2-4(tuple, secret). */
#include <string.h>

#include "stacks/lwip/internal.h"

static uint64_t rotl(uint64_t x, int n)
{
	return x << n | x >> (64 - n);
}

static void sip_rounds(uint64_t v[4], int n)
{
	while (n--) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = rotl(v[1], 13) ^ v[0];
		v[3] = rotl(v[3], 16) ^ v[2];
		v[0] = rotl(v[0], 32);
		v[2] += v[1];
		v[0] += v[3];
		v[1] = rotl(v[1], 17) ^ v[2];
		v[3] = rotl(v[3], 21) ^ v[0];
		v[2] = rotl(v[2], 32);
	}
}

/* SipHash-2-4 of @n whole words; the length that it mixes in last is the same for all of ours. */
static uint64_t siphash(const uint64_t key[2], const uint64_t *words, size_t n)
{
	uint64_t v[4] = { key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
			  key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573 };
	uint64_t last = (uint64_t)n * 8 << 56;
	size_t i;

	for (i = 0; i <= n; i++) {
		uint64_t m = i < n ? words[i] : last;

		v[3] ^= m;
		sip_rounds(v, 2);
		v[0] ^= m;
	}
	v[2] ^= 0xff;
	sip_rounds(v, 4);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint32_t dmm_lwip_isn_begin(const struct dmm_stack *stack, const struct dmm_endpoint *local,
			    const struct dmm_endpoint *remote)
{
	const uint32_t ticks = tcp_ticks;
	uint64_t words[5] = { 0 };
	struct tcp_pcb any = { 0 };
	uint32_t isn, last;

	memcpy(&words[0], local->addr, 16);
	memcpy(&words[2], remote->addr, 16);
	words[4] = (uint64_t)local->port << 16 | remote->port;
	isn = (uint32_t)(stack->host.now(stack->host.ctx) / 4000) +
	      (uint32_t)siphash(stack->isn_key, words, 5);

	tcp_ticks = 0;
	last = tcp_next_iss(&any);
	tcp_ticks = isn - last;
	return ticks;
}

void dmm_lwip_isn_end(uint32_t ticks, struct tcp_pcb *touched)
{
	if (touched && touched->tmr == tcp_ticks)
		touched->tmr = ticks;
	if (touched && touched->rttest == tcp_ticks)
		touched->rttest = ticks;
	tcp_ticks = ticks;
}
