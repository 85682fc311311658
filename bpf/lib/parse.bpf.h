/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The flow door's parser: Ethernet frame -> which local port it is for. What it does not understand
 * belongs to the kernel, with a reason.
 *
 * The common case (TCP or UDP right behind an IP header) reads the packet in place. Extension
 * headers and ICMP errors are rare: they go through global functions that copy what they need, which
 * the verifier checks once each instead of once per path that leads there. */
#pragma once

#include "lib/maps.bpf.h"

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#define MAX_EXT_HEADERS 6
#define MAX_L4_OFFSET	0x3fff /* 14 + 40 + 6 * 2048 fits */
#define IPV4_MF		0x2000
#define IPV4_OFFSET	0x1fff
#define NEXT_HOP	0
#define NEXT_ROUTING	43
#define NEXT_FRAGMENT	44
#define NEXT_AUTH	51
#define NEXT_ICMPV6	58
#define NEXT_DEST	60
#define ICMP_UNREACH	3
#define ICMP_EXCEEDED	11
#define ICMP_PARAMETER	12

/* Where a chain of headers has led: the transport's number and its offset in the frame. */
struct chain {
	__u32 next, offset;
	__u32 first_fragment;
};

/* The packet that an ICMP error quotes, sent by us if its source is ours. */
struct quote {
	__u8 source[16], dest[16];
	__u32 proto, port, dest_port;
};

struct packet {
	enum dmm_family family;
	enum dmm_proto proto;
	__u32 port, remote_port; /* host byte order */
	bool syn;		 /* a bare TCP SYN: a new flow */
	bool first_fragment;
	bool is_error;
	struct quote quote;
};

static __always_inline bool is_ext(__u32 next)
{
	return next == NEXT_HOP || next == NEXT_ROUTING || next == NEXT_FRAGMENT ||
	       next == NEXT_AUTH || next == NEXT_DEST;
}

static __always_inline bool proto_of(__u32 next, enum dmm_proto *proto)
{
	if (next == IPPROTO_TCP)
		*proto = DMM_PROTO_TCP;
	else if (next == IPPROTO_UDP)
		*proto = DMM_PROTO_UDP;
	else
		return false;
	return true;
}

/* Steps over one IPv6 extension header. */
static __always_inline enum dmm_reason step_ext(struct xdp_md *ctx, struct chain *chain)
{
	__u8 ext[8]; /* none is shorter: next header, length, type-specific */

	if (bpf_xdp_load_bytes(ctx, chain->offset, ext, sizeof(ext)))
		return DMM_REASON_XDP_TRUNCATED;
	if (chain->next == NEXT_FRAGMENT) {
		__u32 frag = ext[2] << 8 | ext[3];

		if (frag >> 3)
			return DMM_REASON_XDP_FRAGMENT;
		chain->first_fragment |= frag & 1;
		chain->offset += 8;
	} else if (chain->next == NEXT_AUTH) {
		chain->offset += (ext[1] + 2) * 4;
	} else {
		chain->offset += (ext[1] + 1) * 8;
	}
	chain->next = ext[0];
	return DMM_REASON_NONE;
}

/* Follows an IPv6 extension header chain to the transport; an enum dmm_reason. */
__noinline int follow_ext(struct xdp_md *ctx, struct chain *chain)
{
	if (!chain)
		return DMM_REASON_XDP_EXT_HEADER;
	for (int i = 0; i < MAX_EXT_HEADERS; i++) {
		enum dmm_reason reason;

		if (!is_ext(chain->next))
			return DMM_REASON_NONE;
		reason = step_ext(ctx, chain);
		if (reason != DMM_REASON_NONE)
			return reason;
	}
	return is_ext(chain->next) ? DMM_REASON_XDP_EXT_HEADER : DMM_REASON_NONE;
}

static __always_inline enum dmm_reason quoted_ipv4(struct xdp_md *ctx, struct chain *chain,
						   struct quote *quote)
{
	__u32 *source = (__u32 *)quote->source, *dest = (__u32 *)quote->dest;
	struct iphdr ip;

	if (bpf_xdp_load_bytes(ctx, chain->offset, &ip, sizeof(ip)))
		return DMM_REASON_XDP_TRUNCATED;
	if (ip.version != 4 || ip.ihl < 5)
		return DMM_REASON_XDP_NOT_IP;
	if (bpf_ntohs(ip.frag_off) & IPV4_OFFSET)
		return DMM_REASON_XDP_FRAGMENT;
	source[0] = source[1] = dest[0] = dest[1] = 0;
	source[2] = dest[2] = bpf_htonl(0xffff);
	source[3] = ip.saddr;
	dest[3] = ip.daddr;
	chain->next = ip.protocol;
	chain->offset += ip.ihl * 4;
	return DMM_REASON_NONE;
}

static __always_inline enum dmm_reason quoted_ipv6(struct xdp_md *ctx, struct chain *chain,
						   struct quote *quote)
{
	struct ipv6hdr ip;

	if (bpf_xdp_load_bytes(ctx, chain->offset, &ip, sizeof(ip)))
		return DMM_REASON_XDP_TRUNCATED;
	if (ip.version != 6)
		return DMM_REASON_XDP_NOT_IP;
	__builtin_memcpy(quote->source, &ip.saddr, 16);
	__builtin_memcpy(quote->dest, &ip.daddr, 16);
	chain->next = ip.nexthdr;
	chain->offset += sizeof(ip);
	return follow_ext(ctx, chain);
}

/* An ICMP error at @offset quotes the packet it is about; an enum dmm_reason. */
__noinline int parse_quote(struct xdp_md *ctx, __u32 offset, __u32 family, struct quote *quote)
{
	struct chain chain = { .offset = offset + 8 };
	enum dmm_reason reason;
	__be16 ports[2];

	if (!quote)
		return DMM_REASON_XDP_NOT_TRANSPORT;
	reason = family == DMM_FAMILY_V4 ? quoted_ipv4(ctx, &chain, quote)
					 : quoted_ipv6(ctx, &chain, quote);
	if (reason != DMM_REASON_NONE)
		return reason;
	if (!proto_of(chain.next, &quote->proto))
		return DMM_REASON_XDP_NOT_TRANSPORT;
	if (bpf_xdp_load_bytes(ctx, chain.offset, ports, sizeof(ports)))
		return DMM_REASON_XDP_TRUNCATED;
	quote->port = bpf_ntohs(ports[0]);
	quote->dest_port = bpf_ntohs(ports[1]);
	return DMM_REASON_NONE;
}

static __always_inline bool is_icmp_error(enum dmm_family family, __u32 next, __u8 type)
{
	if (family == DMM_FAMILY_V4)
		return next == IPPROTO_ICMP &&
		       (type == ICMP_UNREACH || type == ICMP_EXCEEDED || type == ICMP_PARAMETER);
	return next == NEXT_ICMPV6 && type > 0 && type < 128;
}

static __always_inline enum dmm_reason parse_icmp(struct xdp_md *ctx, const __u8 *icmp,
						  const __u8 *end, const struct chain *chain,
						  struct packet *p)
{
	enum dmm_reason reason;

	if (icmp + 8 > end)
		return DMM_REASON_XDP_TRUNCATED;
	if (!is_icmp_error(p->family, chain->next, icmp[0]))
		return DMM_REASON_XDP_NOT_TRANSPORT;
	reason = parse_quote(ctx, chain->offset, p->family, &p->quote);
	p->is_error = true;
	p->proto = p->quote.proto;
	p->port = p->quote.port;
	p->remote_port = p->quote.dest_port;
	return reason;
}

static __always_inline enum dmm_reason parse_ports(const __u8 *l4, const __u8 *end,
						   struct packet *p)
{
	const struct tcphdr *tcp = (const void *)l4;

	if (l4 + 4 > end)
		return DMM_REASON_XDP_TRUNCATED;
	p->port = bpf_ntohs(tcp->dest);
	p->remote_port = bpf_ntohs(tcp->source);
	if (p->proto != DMM_PROTO_TCP)
		return DMM_REASON_NONE;
	if (l4 + sizeof(*tcp) > end)
		return p->first_fragment ? DMM_REASON_NONE : DMM_REASON_XDP_TRUNCATED;
	p->syn = (l4[13] & 0x17) == 0x02;
	return DMM_REASON_NONE;
}

static __always_inline enum dmm_reason parse_ipv4(const __u8 *pos, const __u8 *end,
						  struct chain *chain)
{
	const struct iphdr *ip = (const void *)pos;
	__u32 frag;

	if ((const __u8 *)(ip + 1) > end)
		return DMM_REASON_XDP_TRUNCATED;
	if (ip->version != 4 || ip->ihl < 5)
		return DMM_REASON_XDP_NOT_IP;
	frag = bpf_ntohs(ip->frag_off);
	if (frag & IPV4_OFFSET)
		return DMM_REASON_XDP_FRAGMENT;
	chain->first_fragment = frag & IPV4_MF;
	chain->next = ip->protocol;
	chain->offset = ETH_HLEN + ip->ihl * 4;
	return DMM_REASON_NONE;
}

static __always_inline enum dmm_reason parse_ipv6(struct xdp_md *ctx, const __u8 *pos,
						  const __u8 *end, struct chain *chain)
{
	const struct ipv6hdr *ip = (const void *)pos;

	if ((const __u8 *)(ip + 1) > end)
		return DMM_REASON_XDP_TRUNCATED;
	if (ip->version != 6)
		return DMM_REASON_XDP_NOT_IP;
	chain->next = ip->nexthdr;
	chain->offset = ETH_HLEN + sizeof(*ip);
	return is_ext(chain->next) ? follow_ext(ctx, chain) : DMM_REASON_NONE;
}

/* NONE: @p is filled in. Anything else: pass it, for that reason. */
static __always_inline enum dmm_reason parse_frame(struct xdp_md *ctx, struct packet *p)
{
	const __u8 *data = (const void *)(long)ctx->data, *end = (const void *)(long)ctx->data_end;
	const struct ethhdr *eth = (const void *)data;
	struct chain chain = {};
	enum dmm_reason reason;
	const __u8 *l4;

	if ((const __u8 *)(eth + 1) > end)
		return DMM_REASON_XDP_TRUNCATED;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		p->family = DMM_FAMILY_V4;
		reason = parse_ipv4(data + ETH_HLEN, end, &chain);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		p->family = DMM_FAMILY_V6;
		reason = parse_ipv6(ctx, data + ETH_HLEN, end, &chain);
	} else if (eth->h_proto == bpf_htons(ETH_P_8021Q) ||
		   eth->h_proto == bpf_htons(ETH_P_8021AD)) {
		return DMM_REASON_XDP_VLAN;
	} else {
		return DMM_REASON_XDP_NOT_IP;
	}
	if (reason != DMM_REASON_NONE)
		return reason;
	p->first_fragment = chain.first_fragment;
	if (chain.offset > MAX_L4_OFFSET)
		return DMM_REASON_XDP_TRUNCATED;
	l4 = data + chain.offset;
	if (proto_of(chain.next, &p->proto))
		return parse_ports(l4, end, p);
	return parse_icmp(ctx, l4, end, &chain, p);
}

/* The IP header's addresses; parse_frame() has found them within the packet. */
static __always_inline void load_addr(struct xdp_md *ctx, const struct packet *p, bool dest,
				      __u8 *to)
{
	const __u8 *data = (const void *)(long)ctx->data, *end = (const void *)(long)ctx->data_end;
	const struct iphdr *ip = (const void *)(data + ETH_HLEN);
	const struct ipv6hdr *ip6 = (const void *)ip;
	__u32 *w = (__u32 *)to;

	w[0] = w[1] = w[2] = w[3] = 0;
	if (p->family == DMM_FAMILY_V4 && (const __u8 *)(ip + 1) <= end) {
		w[2] = bpf_htonl(0xffff);
		w[3] = dest ? ip->daddr : ip->saddr;
	} else if (p->family == DMM_FAMILY_V6 && (const __u8 *)(ip6 + 1) <= end) {
		__builtin_memcpy(to, dest ? (const void *)&ip6->daddr : (const void *)&ip6->saddr,
				 16);
	}
}
