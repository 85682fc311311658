/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The flow door's parser: Ethernet frame -> which local port it is for. What it does not understand
 * belongs to the kernel, with a reason. Cursor style: every read is checked against the end. */
#pragma once

#include "lib/maps.bpf.h"

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#define MAX_EXT_HEADERS 6
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

struct packet {
	enum dmm_family family;
	enum dmm_proto proto;
	__u32 port;	      /* the local one, host byte order */
	const __u8 *source, *dest; /* into the packet: 4 or 16 bytes */
	const __u8 *quoted;   /* ICMP errors: the quoted packet's source, which must be us */
	bool syn;	      /* a bare TCP SYN: a new flow */
	bool first_fragment;
};

struct cursor {
	const __u8 *pos, *end;
};

/* An IP header, its extension headers followed; @next is the transport's number. On return the
 * cursor is at the transport. */
struct ip_info {
	const __u8 *source, *dest;
	__u32 next;
	bool first_fragment;
};

static __always_inline enum dmm_reason parse_ipv4(struct cursor *c, struct ip_info *info)
{
	const struct iphdr *ip = (const void *)c->pos;
	__u32 frag;

	if ((const __u8 *)(ip + 1) > c->end)
		return DMM_REASON_XDP_TRUNCATED;
	if (ip->version != 4 || ip->ihl < 5)
		return DMM_REASON_XDP_NOT_IP;
	frag = bpf_ntohs(ip->frag_off);
	if (frag & IPV4_OFFSET)
		return DMM_REASON_XDP_FRAGMENT;
	info->first_fragment = frag & IPV4_MF;
	info->next = ip->protocol;
	info->source = (const __u8 *)&ip->saddr;
	info->dest = (const __u8 *)&ip->daddr;
	c->pos += ip->ihl * 4;
	return DMM_REASON_NONE;
}

struct ext_header {
	__u8 next, len;
	__be16 frag; /* fragment header only */
};

static __always_inline enum dmm_reason parse_ext(struct cursor *c, struct ip_info *info)
{
	const struct ext_header *ext = (const void *)c->pos;
	__u32 len;

	/* The shortest extension header is 8 bytes. */
	if (c->pos + 8 > c->end)
		return DMM_REASON_XDP_TRUNCATED;
	if (info->next == NEXT_FRAGMENT) {
		__u32 frag = bpf_ntohs(ext->frag);

		if (frag >> 3)
			return DMM_REASON_XDP_FRAGMENT;
		info->first_fragment |= frag & 1;
		len = 8;
	} else if (info->next == NEXT_AUTH) {
		len = (ext->len + 2) * 4;
	} else {
		len = (ext->len + 1) * 8;
	}
	info->next = ext->next;
	c->pos += len;
	return DMM_REASON_NONE;
}

static __always_inline bool is_ext(__u32 next)
{
	return next == NEXT_HOP || next == NEXT_ROUTING || next == NEXT_FRAGMENT ||
	       next == NEXT_AUTH || next == NEXT_DEST;
}

static __always_inline enum dmm_reason parse_ipv6(struct cursor *c, struct ip_info *info)
{
	const struct ipv6hdr *ip = (const void *)c->pos;

	if ((const __u8 *)(ip + 1) > c->end)
		return DMM_REASON_XDP_TRUNCATED;
	if (ip->version != 6)
		return DMM_REASON_XDP_NOT_IP;
	info->next = ip->nexthdr;
	info->source = (const __u8 *)&ip->saddr;
	info->dest = (const __u8 *)&ip->daddr;
	c->pos += sizeof(*ip);
	for (int i = 0; i < MAX_EXT_HEADERS; i++) {
		enum dmm_reason reason;

		if (!is_ext(info->next))
			return DMM_REASON_NONE;
		reason = parse_ext(c, info);
		if (reason != DMM_REASON_NONE)
			return reason;
	}
	return is_ext(info->next) ? DMM_REASON_XDP_EXT_HEADER : DMM_REASON_NONE;
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

static __always_inline bool is_icmp_error(const struct packet *p, __u32 next, __u8 type)
{
	if (p->family == DMM_FAMILY_V4)
		return next == IPPROTO_ICMP &&
		       (type == ICMP_UNREACH || type == ICMP_EXCEEDED || type == ICMP_PARAMETER);
	return next == NEXT_ICMPV6 && type > 0 && type < 128;
}

/* An ICMP error quotes the packet it is about: ours, if its source port is an instance's. */
static __always_inline enum dmm_reason parse_icmp(struct cursor *c, struct packet *p, __u32 next)
{
	struct ip_info inner = {};
	enum dmm_reason reason;

	if (c->pos + 8 > c->end)
		return DMM_REASON_XDP_TRUNCATED;
	if (!is_icmp_error(p, next, c->pos[0]))
		return DMM_REASON_XDP_NOT_TRANSPORT;
	c->pos += 8;
	reason = p->family == DMM_FAMILY_V4 ? parse_ipv4(c, &inner) : parse_ipv6(c, &inner);
	if (reason != DMM_REASON_NONE)
		return reason;
	if (!proto_of(inner.next, &p->proto))
		return DMM_REASON_XDP_NOT_TRANSPORT;
	if (c->pos + 4 > c->end)
		return DMM_REASON_XDP_TRUNCATED;
	p->port = bpf_ntohs(*(const __be16 *)c->pos);
	p->quoted = inner.source;
	return DMM_REASON_NONE;
}

static __always_inline enum dmm_reason parse_ports(struct cursor *c, struct packet *p)
{
	const struct tcphdr *tcp = (const void *)c->pos;

	if (c->pos + 4 > c->end)
		return DMM_REASON_XDP_TRUNCATED;
	p->port = bpf_ntohs(tcp->dest);
	if (p->proto != DMM_PROTO_TCP)
		return DMM_REASON_NONE;
	if (c->pos + sizeof(*tcp) > c->end)
		return p->first_fragment ? DMM_REASON_NONE : DMM_REASON_XDP_TRUNCATED;
	p->syn = (c->pos[13] & 0x17) == 0x02;
	return DMM_REASON_NONE;
}

/* NONE: @p is filled in. Anything else: pass it, for that reason. */
static __always_inline enum dmm_reason parse_frame(struct xdp_md *ctx, struct packet *p)
{
	struct cursor c = { (const void *)(long)ctx->data, (const void *)(long)ctx->data_end };
	const struct ethhdr *eth = (const void *)c.pos;
	struct ip_info info = {};
	enum dmm_reason reason;

	if ((const __u8 *)(eth + 1) > c.end)
		return DMM_REASON_XDP_TRUNCATED;
	c.pos += sizeof(*eth);
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		p->family = DMM_FAMILY_V4;
		reason = parse_ipv4(&c, &info);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		p->family = DMM_FAMILY_V6;
		reason = parse_ipv6(&c, &info);
	} else if (eth->h_proto == bpf_htons(ETH_P_8021Q) ||
		   eth->h_proto == bpf_htons(ETH_P_8021AD)) {
		return DMM_REASON_XDP_VLAN;
	} else {
		return DMM_REASON_XDP_NOT_IP;
	}
	if (reason != DMM_REASON_NONE)
		return reason;
	p->source = info.source;
	p->dest = info.dest;
	p->first_fragment = info.first_fragment;
	if (proto_of(info.next, &p->proto))
		return parse_ports(&c, p);
	return parse_icmp(&c, p, info.next);
}
