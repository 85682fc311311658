/* SPDX-License-Identifier: Apache-2.0 */
/* Builds packets layer by layer. */
#include "packets.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include <linux/if_ether.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>

enum { LAYER_IPV4, LAYER_IPV6, LAYER_TCP, LAYER_UDP, LAYER_ICMP, LAYER_ICMPV6 };

static uint8_t *grow(struct pkt *p, size_t n)
{
	uint8_t *at = p->data + p->len;

	if (p->len + n > sizeof(p->data))
		abort();
	memset(at, 0, n);
	p->len += n;
	return at;
}

static void enter(struct pkt *p, uint8_t kind)
{
	if (p->n_layers == PKT_LAYERS)
		abort();
	p->layer[p->n_layers].kind = kind;
	p->layer[p->n_layers++].at = p->len;
}

static void is_next(struct pkt *p, uint8_t proto)
{
	if (p->next)
		*p->next = proto;
	p->next = NULL;
}

void pkt_eth(struct pkt *p, uint16_t type)
{
	struct ethhdr *eth = (struct ethhdr *)grow(p, sizeof(*eth));

	memset(eth->h_dest, 2, ETH_ALEN);
	memset(eth->h_source, 4, ETH_ALEN);
	eth->h_proto = htons(type);
}

void pkt_vlan(struct pkt *p, uint16_t type)
{
	uint8_t *tag = grow(p, 4);

	tag[1] = 42;
	tag[2] = type >> 8;
	tag[3] = type & 0xff;
}

void pkt_ipv4(struct pkt *p, const char *source, const char *dest, size_t options, uint16_t frag)
{
	struct iphdr *ip;

	enter(p, LAYER_IPV4);
	ip = (struct iphdr *)grow(p, sizeof(*ip) + options);
	ip->version = 4;
	ip->ihl = 5 + options / 4;
	ip->ttl = 64;
	ip->frag_off = htons(frag);
	memset(ip + 1, 1, options);
	if (inet_pton(AF_INET, source, &ip->saddr) != 1 ||
	    inet_pton(AF_INET, dest, &ip->daddr) != 1)
		abort();
	p->next = &ip->protocol;
}

void pkt_ipv6(struct pkt *p, const char *source, const char *dest)
{
	struct ip6_hdr *ip;

	enter(p, LAYER_IPV6);
	ip = (struct ip6_hdr *)grow(p, sizeof(*ip));
	ip->ip6_vfc = 0x60;
	ip->ip6_hlim = 64;
	if (inet_pton(AF_INET6, source, &ip->ip6_src) != 1 ||
	    inet_pton(AF_INET6, dest, &ip->ip6_dst) != 1)
		abort();
	p->next = &ip->ip6_nxt;
}

void pkt_ext(struct pkt *p, uint8_t type, size_t len)
{
	uint8_t *ext = grow(p, len);

	is_next(p, type);
	ext[1] = type == IPPROTO_AH ? len / 4 - 2 : len / 8 - 1;
	p->next = ext;
}

void pkt_fragment(struct pkt *p, uint16_t offset, int more)
{
	uint8_t *ext = grow(p, 8);
	uint16_t field = htons(offset << 3 | (more ? 1 : 0));

	is_next(p, IPPROTO_FRAGMENT);
	memcpy(ext + 2, &field, 2);
	ext[7] = 99;
	p->next = ext;
}

void pkt_tcp(struct pkt *p, uint16_t source, uint16_t dest, uint8_t flags)
{
	struct tcphdr *tcp;

	enter(p, LAYER_TCP);
	tcp = (struct tcphdr *)grow(p, sizeof(*tcp));
	is_next(p, IPPROTO_TCP);
	tcp->source = htons(source);
	tcp->dest = htons(dest);
	tcp->seq = htonl(0x01020304);
	tcp->doff = 5;
	((uint8_t *)tcp)[13] = flags;
}

void pkt_udp(struct pkt *p, uint16_t source, uint16_t dest)
{
	struct udphdr *udp;

	enter(p, LAYER_UDP);
	udp = (struct udphdr *)grow(p, sizeof(*udp));
	is_next(p, IPPROTO_UDP);
	udp->source = htons(source);
	udp->dest = htons(dest);
}

static void add_icmp(struct pkt *p, uint8_t kind, uint8_t proto, uint8_t type, uint8_t code)
{
	uint8_t *icmp;

	enter(p, kind);
	icmp = grow(p, 8);
	is_next(p, proto);
	icmp[0] = type;
	icmp[1] = code;
}

void pkt_icmp(struct pkt *p, uint8_t type, uint8_t code)
{
	add_icmp(p, LAYER_ICMP, IPPROTO_ICMP, type, code);
}

void pkt_icmpv6(struct pkt *p, uint8_t type, uint8_t code)
{
	add_icmp(p, LAYER_ICMPV6, IPPROTO_ICMPV6, type, code);
}

void pkt_proto(struct pkt *p, uint8_t proto, size_t len)
{
	is_next(p, proto);
	grow(p, len);
}

void pkt_bytes(struct pkt *p, size_t n)
{
	memset(grow(p, n), 'x', n);
}

/* --- lengths and checksums --- */

static uint32_t sum(const void *data, size_t len, uint32_t acc)
{
	const uint8_t *b = data;
	size_t i;

	for (i = 0; i + 1 < len; i += 2)
		acc += b[i] << 8 | b[i + 1];
	if (len & 1)
		acc += b[len - 1] << 8;
	return acc;
}

static uint16_t fold(uint32_t acc)
{
	while (acc >> 16)
		acc = (acc & 0xffff) + (acc >> 16);
	return htons((uint16_t)~acc);
}

static uint32_t pseudo(const uint8_t *ip, size_t len, uint8_t proto)
{
	return ip[0] >> 4 == 4 ? sum(ip + 12, 8, proto + len) : sum(ip + 8, 32, proto + len);
}

static void put(uint8_t *at, uint16_t value)
{
	memcpy(at, &value, 2);
}

/* Checksums of a transport at @at of @len bytes; @ip is the nearest IP header before it. */
static void fix_transport(uint8_t kind, const uint8_t *ip, uint8_t *at, size_t len)
{
	switch (kind) {
	case LAYER_TCP:
		put(at + 16, 0);
		put(at + 16, fold(sum(at, len, pseudo(ip, len, IPPROTO_TCP))));
		break;
	case LAYER_UDP:
		put(at + 4, htons(len));
		put(at + 6, fold(sum(at, len, pseudo(ip, len, IPPROTO_UDP))));
		break;
	case LAYER_ICMP:
		put(at + 2, fold(sum(at, len, 0)));
		break;
	case LAYER_ICMPV6:
		put(at + 2, fold(sum(at, len, pseudo(ip, len, IPPROTO_ICMPV6))));
		break;
	}
}

void pkt_end(struct pkt *p)
{
	unsigned int i = p->n_layers;
	int ip;

	/* from the inside out: outer checksums cover what lies inside */
	while (i-- > 0) {
		uint8_t *at = p->data + p->layer[i].at;
		size_t len = p->len - p->layer[i].at;

		if (p->layer[i].kind == LAYER_IPV4) {
			put(at + 2, htons(len));
			put(at + 10, fold(sum(at, (at[0] & 15) * 4, 0)));
			continue;
		}
		if (p->layer[i].kind == LAYER_IPV6) {
			put(at + 4, htons(len - sizeof(struct ip6_hdr)));
			continue;
		}
		for (ip = i; ip > 0 && p->layer[ip].kind > LAYER_IPV6; ip--)
			;
		fix_transport(p->layer[i].kind, p->data + p->layer[ip].at, at, len);
	}
}
