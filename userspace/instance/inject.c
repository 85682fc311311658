/* SPDX-License-Identifier: Apache-2.0 */
/* Packets for an application's kernel socket. */
#include "instance/inject.h"

#include <netinet/in.h>
#include <string.h>

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
	packet_set_length(syn.packet, syn.ip.family, syn.len);
	packet_put16(tcp + 16, 0);
	packet_put16(tcp + 16, checksum_transport(&syn.ip, tcp, syn.tcp_len));
	*ret = syn;
	return true;
}

/* From the relay to the application. */
static struct packet way_back(const struct held_syn *syn, uint8_t proto)
{
	struct packet back = { .family = syn->ip.family, .proto = proto };

	memcpy(back.src, syn->ip.dst, 16);
	memcpy(back.dst, syn->ip.src, 16);
	return back;
}

size_t inject_refusal(const struct held_syn *syn, uint8_t *ret)
{
	const uint8_t *from = syn->packet + syn->ip.header;
	struct tcp_header tcp = { .ack = syn->isn + 1, .flags = TCP_RST | TCP_ACK };
	struct packet back = way_back(syn, IPPROTO_TCP);

	memcpy(&tcp.src_port, from + 2, 2);
	memcpy(&tcp.dst_port, from, 2);
	return packet_write_tcp(&back, &tcp, ret);
}

size_t inject_icmp(const struct held_syn *syn, const struct icmp_error *error, uint8_t *ret)
{
	bool v4 = syn->ip.family == DMM_FAMILY_V4;
	struct packet back = way_back(syn, v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
	uint32_t len = 8 + syn->len;
	uint32_t header = packet_write_ip(&back, len, ret);
	uint8_t *icmp = ret + header;

	memset(icmp, 0, 8);
	icmp[0] = error->type;
	icmp[1] = error->code;
	memcpy(icmp + 8, syn->packet, syn->len);
	packet_put16(icmp + 2, v4 ? checksum_fold(checksum_add(0, icmp, len))
				  : checksum_transport(&back, icmp, len));
	return header + len;
}
