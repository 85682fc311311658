// SPDX-License-Identifier: Apache-2.0
/* TCP segments as a test writes and reads them. */
#include <string.h>

#include "segment.h"

bool segment_is_v4(const uint8_t addr[16])
{
	static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };

	return memcmp(addr, prefix, 12) == 0;
}

uint16_t segment_checksum(const uint8_t *p, size_t len, uint32_t sum)
{
	size_t i;

	for (i = 0; i < len; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static uint32_t pseudo(const uint8_t *addrs, size_t len, uint32_t tcp_len)
{
	return (uint16_t)~segment_checksum(addrs, len, 6 + tcp_len);
}

size_t segment_build(const struct segment *s, uint8_t *p)
{
	const uint32_t header = s->v4 ? 20 : 40, addr = s->v4 ? 4 : 16, skip = 16 - addr;
	const uint32_t tcp_len = 20 + s->options_len + s->len;
	uint8_t *tcp = p + header, *addrs = p + (s->v4 ? 12 : 8);

	memset(p, 0, header + 20);
	memcpy(addrs, s->src.addr + skip, addr);
	memcpy(addrs + addr, s->dst.addr + skip, addr);
	if (s->v4) {
		p[0] = 0x45;
		segment_put16(p + 2, header + tcp_len);
		p[8] = 64;
		p[9] = 6;
		segment_put16(p + 10, segment_checksum(p, 20, 0));
	} else {
		p[0] = 0x60;
		segment_put16(p + 4, tcp_len);
		p[6] = 6;
		p[7] = 64;
	}
	memcpy(tcp, &s->src.port, 2);
	memcpy(tcp + 2, &s->dst.port, 2);
	segment_put32(tcp + 4, s->seq);
	segment_put32(tcp + 8, s->ack);
	tcp[12] = (uint8_t)((20 + s->options_len) << 2);
	tcp[13] = s->flags;
	segment_put16(tcp + 14, s->window);
	memcpy(tcp + 20, s->options, s->options_len);
	memcpy(tcp + 20 + s->options_len, s->data, s->len);
	segment_put16(tcp + 16, segment_checksum(tcp, tcp_len, pseudo(addrs, addr * 2, tcp_len)));
	return header + tcp_len;
}

void segment_parse(const uint8_t *p, size_t len, struct segment *ret)
{
	const bool v4 = p[0] >> 4 == 4;
	const uint32_t header = v4 ? 20 : 40, addr = v4 ? 4 : 16;
	const uint8_t *tcp = p + header, *addrs = p + (v4 ? 12 : 8);
	struct segment s = { .v4 = v4 };
	uint32_t i;

	if (v4)
		s.src.addr[10] = s.src.addr[11] = s.dst.addr[10] = s.dst.addr[11] = 0xff;
	memcpy(s.src.addr + 16 - addr, addrs, addr);
	memcpy(s.dst.addr + 16 - addr, addrs + addr, addr);
	memcpy(&s.src.port, tcp, 2);
	memcpy(&s.dst.port, tcp + 2, 2);
	s.seq = segment_get32(tcp + 4);
	s.ack = segment_get32(tcp + 8);
	s.flags = tcp[13];
	s.window = (uint16_t)segment_get16(tcp + 14);
	s.options_len = (uint32_t)(tcp[12] >> 4) * 4 - 20;
	memcpy(s.options, tcp + 20, s.options_len);
	for (i = 0; i + 1 < s.options_len && s.options[i];
	     i += s.options[i] == 1 ? 1 : s.options[i + 1])
		if (s.options[i] == 2)
			s.mss = (uint16_t)segment_get16(s.options + i + 2);
	s.len = (uint32_t)len - header - 20 - s.options_len;
	memcpy(s.data, tcp + 20 + s.options_len, s.len);
	*ret = s;
}

void segment_inject(struct stackhost *host, const struct segment *s)
{
	uint8_t packet[2000];
	const size_t len = segment_build(s, packet);

	stackhost_input(host, packet, len);
}

bool segment_take(struct stackhost *host, struct segment *ret)
{
	uint8_t packet[2000];
	const size_t len = stackhost_take(host, packet, sizeof(packet));

	if (len)
		segment_parse(packet, len, ret);
	return len;
}
