/* SPDX-License-Identifier: Apache-2.0 */
/* Packets for an application's kernel socket. */
#include "instance/inject.h"

#include <netinet/in.h>
#include <string.h>

#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

static void set_length(uint8_t *ip, enum dmm_family family, uint32_t len)
{
	if (family == DMM_FAMILY_V6) {
		packet_put16(ip + 4, len - 40);
		return;
	}
	packet_put16(ip + 2, len);
	packet_put16(ip + 10, 0);
	packet_put16(ip + 10, checksum_fold(checksum_add(0, ip, (ip[0] & 0xf) * 4)));
}

bool inject_hold(const uint8_t *packet, uint32_t len, struct held_syn *ret)
{
	struct held_syn syn;
	uint8_t *tcp;

	if (len > sizeof(syn.packet) || !packet_parse_quoted(packet, len, &syn.ip) ||
	    syn.ip.proto != IPPROTO_TCP || syn.ip.fragment || syn.ip.header + 20 > len)
		return false;
	memcpy(syn.packet, packet, len);
	tcp = syn.packet + syn.ip.header;
	syn.tcp_len = (tcp[12] >> 4) * 4;
	if (syn.tcp_len < 20 || syn.ip.header + syn.tcp_len > len || !(tcp[13] & TCP_SYN))
		return false;
	syn.isn = packet_get32(tcp + 4);
	syn.len = syn.ip.header + syn.tcp_len;
	syn.ip.len = syn.len;
	set_length(syn.packet, syn.ip.family, syn.len);
	packet_put16(tcp + 16, 0);
	packet_put16(tcp + 16, checksum_transport(&syn.ip, tcp, syn.tcp_len));
	*ret = syn;
	return true;
}

/* An IP header from the relay to the application; returns its length. */
static uint32_t write_ip(const struct held_syn *syn, uint8_t proto, uint32_t payload, uint8_t *ip)
{
	bool v4 = syn->ip.family == DMM_FAMILY_V4;
	uint32_t header = v4 ? 20 : 40;

	memset(ip, 0, header);
	if (v4) {
		ip[0] = 0x45;
		packet_put16(ip + 6, 0x4000); /* don't fragment */
		ip[8] = 64;
		ip[9] = proto;
		memcpy(ip + 12, syn->ip.dst + 12, 4);
		memcpy(ip + 16, syn->ip.src + 12, 4);
	} else {
		ip[0] = 0x60;
		ip[6] = proto;
		ip[7] = 64;
		memcpy(ip + 8, syn->ip.dst, 16);
		memcpy(ip + 24, syn->ip.src, 16);
	}
	set_length(ip, syn->ip.family, header + payload);
	return header;
}

static uint16_t checksum_back(const struct held_syn *syn, uint8_t proto, const uint8_t *payload,
			      uint32_t len)
{
	struct packet back = { .family = syn->ip.family, .proto = proto };

	memcpy(back.src, syn->ip.dst, 16);
	memcpy(back.dst, syn->ip.src, 16);
	return checksum_transport(&back, payload, len);
}

size_t inject_refusal(const struct held_syn *syn, uint8_t *ret)
{
	const uint8_t *from = syn->packet + syn->ip.header;
	uint32_t header = write_ip(syn, IPPROTO_TCP, 20, ret);
	uint8_t *tcp = ret + header;

	memset(tcp, 0, 20);
	memcpy(tcp, from + 2, 2);
	memcpy(tcp + 2, from, 2);
	packet_put32(tcp + 8, syn->isn + 1);
	tcp[12] = 5 << 4;
	tcp[13] = TCP_RST | TCP_ACK;
	packet_put16(tcp + 16, checksum_back(syn, IPPROTO_TCP, tcp, 20));
	return header + 20;
}

size_t inject_icmp(const struct held_syn *syn, const struct icmp_error *error, uint8_t *ret)
{
	bool v4 = syn->ip.family == DMM_FAMILY_V4;
	uint8_t proto = v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
	uint32_t len = 8 + syn->len;
	uint32_t header = write_ip(syn, proto, len, ret);
	uint8_t *icmp = ret + header;

	memset(icmp, 0, 8);
	icmp[0] = error->type;
	icmp[1] = error->code;
	memcpy(icmp + 8, syn->packet, syn->len);
	packet_put16(icmp + 2, v4 ? checksum_fold(checksum_add(0, icmp, len))
				  : checksum_back(syn, proto, icmp, len));
	return header + len;
}
