/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where a flow of the wire is in struct dmm_inst_shared: the same in the flow door and in the instance. */
#pragma once

#include <dmm/abi/maps.h>

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#define DMM_ROTL64(x, n) ((x) << (n) | (x) >> (64 - (n)))

struct dmm_sip {
	__u64 a, b, c, d;
};

static __always_inline void dmm_sip_round(struct dmm_sip *s)
{
	s->a += s->b;
	s->b = DMM_ROTL64(s->b, 13) ^ s->a;
	s->a = DMM_ROTL64(s->a, 32);
	s->c += s->d;
	s->d = DMM_ROTL64(s->d, 16) ^ s->c;
	s->a += s->d;
	s->d = DMM_ROTL64(s->d, 21) ^ s->a;
	s->c += s->b;
	s->b = DMM_ROTL64(s->b, 17) ^ s->c;
	s->c = DMM_ROTL64(s->c, 32);
}

static __always_inline void dmm_sip_add(struct dmm_sip *s, __u64 word)
{
	s->d ^= word;
	dmm_sip_round(s);
	s->a ^= word;
}

/* SipHash-1-3 (Aumasson and Bernstein) of a flow's far end and its ports: who does not know the @seed
 * cannot aim at one chain. An index into head[]. */
static __always_inline __u32 dmm_wire_hash(const __u64 seed[2], const __u8 *remote,
					   __be16 remote_port, __be16 local_port)
{
	struct dmm_sip s = { seed[0] ^ 0x736f6d6570736575ull, seed[1] ^ 0x646f72616e646f6dull,
			     seed[0] ^ 0x6c7967656e657261ull, seed[1] ^ 0x7465646279746573ull };
	__u32 w[4];

	__builtin_memcpy(w, remote, sizeof(w)); /* it may not be aligned */
	dmm_sip_add(&s, (__u64)w[0] << 32 | w[1]);
	dmm_sip_add(&s, (__u64)w[2] << 32 | w[3]);
	dmm_sip_add(&s, (__u64)20 << 56 | (__u64)remote_port << 16 | local_port);
	s.c ^= 0xff;
	dmm_sip_round(&s);
	dmm_sip_round(&s);
	dmm_sip_round(&s);
	return (__u32)(s.a ^ s.b ^ s.c ^ s.d) % DMM_WIRE_HEADS;
}
