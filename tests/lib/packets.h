/* SPDX-License-Identifier: Apache-2.0 */
/* Packets for tests, put together layer by layer, outermost first:
 *
 *   struct pkt p = { 0 };
 *   pkt_eth(&p, ETH_P_IPV6);
 *   pkt_ipv6(&p, "fd00::2", "fd00::1");
 *   pkt_ext(&p, IPPROTO_DSTOPTS, 8);
 *   pkt_tcp(&p, 80, 20000, PKT_SYN);
 *   pkt_end(&p);
 *
 * Each layer names itself in the one before it; pkt_end() fills in lengths and checksums. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PKT_MAX	   1024
#define PKT_LAYERS 24

#define PKT_SYN 0x02
#define PKT_RST 0x04
#define PKT_ACK 0x10

struct pkt {
	uint8_t data[PKT_MAX];
	size_t len;
	uint8_t *next; /* where the layer to come writes its protocol number, NULL: nowhere */
	struct {
		uint8_t kind;
		size_t at;
	} layer[PKT_LAYERS];
	unsigned int n_layers;
};

void pkt_eth(struct pkt *p, uint16_t type);
void pkt_vlan(struct pkt *p, uint16_t type);
/* @options: bytes of NOP options, a multiple of 4. @frag: as in the header, host byte order. */
void pkt_ipv4(struct pkt *p, const char *source, const char *dest, size_t options, uint16_t frag);
void pkt_ipv6(struct pkt *p, const char *source, const char *dest);
/* An extension header of @type (IPPROTO_HOPOPTS, _ROUTING, _FRAGMENT, _DSTOPTS, _AH) and @len bytes. */
void pkt_ext(struct pkt *p, uint8_t type, size_t len);
/* A fragment header; @offset in units of 8. */
void pkt_fragment(struct pkt *p, uint16_t offset, int more);
void pkt_tcp(struct pkt *p, uint16_t source, uint16_t dest, uint8_t flags);
void pkt_udp(struct pkt *p, uint16_t source, uint16_t dest);
/* The quoted packet follows by pkt_ipv4() and so on. */
void pkt_icmp(struct pkt *p, uint8_t type, uint8_t code);
void pkt_icmpv6(struct pkt *p, uint8_t type, uint8_t code);
/* Any other transport. */
void pkt_proto(struct pkt *p, uint8_t proto, size_t len);
void pkt_bytes(struct pkt *p, size_t n);
void pkt_end(struct pkt *p);
