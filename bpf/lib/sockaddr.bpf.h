/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses in sock_addr contexts. Each ctx field is read once, at the top, and all words of an
 * address are written: clang otherwise merges accesses into ones that the verifier refuses. */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include <dmm/abi/types.h>

#define AF_INET	 2
#define AF_INET6 10

#define CTX_READ(lvalue)	 (*(volatile typeof(lvalue) *)&(lvalue))
#define CTX_WRITE(lvalue, value) (*(volatile typeof(lvalue) *)&(lvalue) = (value))

/* The address words of @dst, in network order. */
static __always_inline void addr_from_v4(__u8 *dst, __u32 v4)
{
	__u32 *w = (__u32 *)dst;

	w[0] = 0;
	w[1] = 0;
	w[2] = bpf_htonl(0xffff);
	w[3] = v4;
}

/* Where relays listen. */
static __always_inline void relay_addr(__u8 *addr, enum dmm_family family)
{
	__u32 *w = (__u32 *)addr;

	if (family == DMM_FAMILY_V4) {
		addr_from_v4(addr, bpf_htonl(0x7f000001));
	} else {
		w[0] = w[1] = w[2] = 0;
		w[3] = bpf_htonl(1);
	}
}

static __always_inline bool addr_equal(const __u8 *a, const __u8 *b)
{
	const __u32 *x = (const __u32 *)a, *y = (const __u32 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

static __always_inline void ctx_get_addr(struct bpf_sock_addr *ctx, bool v6, __u8 *addr)
{
	__u32 *w = (__u32 *)addr;

	if (v6) {
		w[0] = CTX_READ(ctx->user_ip6[0]);
		w[1] = CTX_READ(ctx->user_ip6[1]);
		w[2] = CTX_READ(ctx->user_ip6[2]);
		w[3] = CTX_READ(ctx->user_ip6[3]);
	} else {
		addr_from_v4(addr, CTX_READ(ctx->user_ip4));
	}
}

static __always_inline void ctx_set_addr(struct bpf_sock_addr *ctx, bool v6, const __u8 *addr,
					 __be16 port)
{
	const __u32 *w = (const __u32 *)addr;

	if (v6) {
		CTX_WRITE(ctx->user_ip6[0], w[0]);
		CTX_WRITE(ctx->user_ip6[1], w[1]);
		CTX_WRITE(ctx->user_ip6[2], w[2]);
		CTX_WRITE(ctx->user_ip6[3], w[3]);
	} else {
		CTX_WRITE(ctx->user_ip4, w[3]);
	}
	CTX_WRITE(ctx->user_port, port);
}
