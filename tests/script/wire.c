// SPDX-License-Identifier: Apache-2.0
/* Segments as text and as packets. */
#include "wire.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "segment.h"

static const char flag_names[] = "FSRPAUEC"; /* from bit 0 on */

uint8_t wire_byte(uint32_t at)
{
	return (uint8_t)(at ^ at >> 7 ^ at >> 15);
}

/* RFC 1071. */
static uint32_t add(const uint8_t *p, size_t len, uint32_t sum)
{
	size_t i;

	for (i = 0; i < len; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static uint32_t pseudo(const uint8_t *ip, uint8_t proto, size_t len)
{
	return ip[0] >> 4 == 4 ? add(ip + 12, 8, (uint32_t)len + proto)
			       : add(ip + 8, 32, (uint32_t)len + proto);
}

/* --- packets --- */

static size_t put_ip(uint8_t *p, const uint8_t src[16], const uint8_t dst[16], bool v4,
		     uint8_t proto, const uint8_t *more, uint32_t more_len, size_t len)
{
	const size_t header = (v4 ? 20 : 40) + more_len;

	memset(p, 0, header);
	memcpy(p + header - more_len, more, more_len);
	if (v4) {
		p[0] = (uint8_t)(0x40 | header / 4);
		segment_put16(p + 2, (uint32_t)(header + len));
		p[8] = 64;
		p[9] = proto;
		memcpy(p + 12, src + 12, 4);
		memcpy(p + 16, dst + 12, 4);
		segment_put16(p + 10, ~add(p, header, 0));
	} else {
		p[0] = 0x60;
		segment_put16(p + 4, (uint32_t)(more_len + len));
		p[6] = proto;
		p[7] = 64;
		memcpy(p + 8, src, 16);
		memcpy(p + 24, dst, 16);
	}
	return header;
}

static void put_ecn(uint8_t *p, size_t header, uint8_t ecn)
{
	if (p[0] >> 4 == 6) {
		p[1] |= (uint8_t)(ecn << 4);
		return;
	}
	p[1] |= ecn;
	segment_put16(p + 10, 0);
	segment_put16(p + 10, ~add(p, header, 0));
}

size_t wire_build(const struct wire_segment *s, uint8_t *p)
{
	const uint32_t tcp_header = 20 + s->options_len;
	const uint8_t proto = s->ip_options_len && !s->v4 ? s->next_header : 6;
	const size_t at = put_ip(p, s->src.addr, s->dst.addr, s->v4, proto, s->ip_options,
				 s->ip_options_len, tcp_header + s->len);
	uint8_t *tcp = p + at;
	uint32_t i;

	put_ecn(p, at, s->ecn);
	memset(tcp, 0, 20);
	memcpy(tcp, &s->src.port, 2);
	memcpy(tcp + 2, &s->dst.port, 2);
	segment_put32(tcp + 4, s->seq);
	segment_put32(tcp + 8, s->ack);
	tcp[12] = (uint8_t)((s->header_words ? (uint32_t)s->header_words : tcp_header / 4) << 4 |
			    s->reserved);
	tcp[13] = s->flags;
	segment_put16(tcp + 14, s->window);
	segment_put16(tcp + 18, s->urgent);
	memcpy(tcp + 20, s->options, s->options_len);
	for (i = 0; i < s->len; i++)
		tcp[tcp_header + i] = wire_byte(s->data_at + i);
	segment_put16(tcp + 16, ~add(tcp, tcp_header + s->len, pseudo(p, 6, tcp_header + s->len)));
	if (s->bad_sum)
		tcp[17] ^= 1;
	return s->cut && s->cut < at + tcp_header + s->len ? s->cut : at + tcp_header + s->len;
}

size_t wire_icmp(const struct wire_segment *about, const uint8_t from[16], uint8_t type,
		 uint8_t code, uint32_t word, uint8_t *p)
{
	const uint32_t ip = about->v4 ? 20 : 40, len = 8 + ip + 8;
	const size_t at =
		put_ip(p, from, about->src.addr, about->v4, about->v4 ? 1 : 58, p, 0, len);
	uint8_t *icmp = p + at;

	memset(icmp, 0, len);
	icmp[0] = type;
	icmp[1] = code;
	segment_put32(icmp + 4, word);
	put_ip(icmp + 8, about->src.addr, about->dst.addr, about->v4, 6, p, 0, 20 + about->len);
	memcpy(icmp + 8 + ip, &about->src.port, 2);
	memcpy(icmp + 8 + ip + 2, &about->dst.port, 2);
	segment_put32(icmp + 8 + ip + 4, about->seq);
	segment_put16(icmp + 2, ~add(icmp, len, about->v4 ? 0 : pseudo(p, 58, len)));
	return at + len;
}

uint16_t wire_remote_port(const uint8_t *p, bool outgoing)
{
	const uint8_t *tcp = p + (p[0] >> 4 == 4 ? (p[0] & 15) * 4 : 40);

	return (uint16_t)segment_get16(outgoing ? tcp + 2 : tcp);
}

static const char *parse_ip(const uint8_t *p, size_t len, size_t *ret_at, struct wire_segment *s)
{
	s->v4 = len >= 20 && p[0] >> 4 == 4;
	s->ecn = s->v4 ? p[1] & 3 : p[1] >> 4 & 3;
	if (s->v4) {
		s->src.addr[10] = s->src.addr[11] = s->dst.addr[10] = s->dst.addr[11] = 0xff;
		memcpy(s->src.addr + 12, p + 12, 4);
		memcpy(s->dst.addr + 12, p + 16, 4);
		*ret_at = 20;
		if (p[0] != 0x45 || segment_get16(p + 2) != len || p[9] != 6 || !p[8])
			return "its IPv4 header is odd";
		if (segment_get16(p + 6) != 0x4000)
			return "it may be fragmented";
		return add(p, 20, 0) == 0xffff ? NULL : "its IPv4 checksum is wrong";
	}
	if (len < 40 || p[0] >> 4 != 6 || segment_get16(p + 4) != len - 40 || p[6] != 6 || !p[7])
		return "its IPv6 header is odd";
	memcpy(s->src.addr, p + 8, 16);
	memcpy(s->dst.addr, p + 24, 16);
	*ret_at = 40;
	return NULL;
}

/* RFC 9293 MUST-65, MUST-68, MUST-69 */
static const char *check_options(const struct wire_segment *s)
{
	uint32_t i = 0;

	while (i < s->options_len) {
		if (s->options[i] == 0)
			break;
		if (s->options[i] == 1) {
			i++;
			continue;
		}
		if (i + 2 > s->options_len || s->options[i + 1] < 2 ||
		    i + s->options[i + 1] > s->options_len)
			return "the length of an option is wrong";
		if (s->options[i] == 2 && !(s->flags & WIRE_SYN))
			return "it has an MSS and is no SYN";
		i += s->options[i + 1];
	}
	for (; i < s->options_len; i++)
		if (s->options[i])
			return "its padding is not zero";
	return NULL;
}

const char *wire_parse(const uint8_t *p, size_t len, uint32_t first, struct wire_segment *ret)
{
	struct wire_segment s = { .flags = 0 };
	const char *wrong;
	const uint8_t *tcp;
	uint32_t header, i;
	size_t at = 0;

	wrong = parse_ip(p, len, &at, &s);
	if (wrong)
		return wrong;
	tcp = p + at;
	header = (uint32_t)(tcp[12] >> 4) * 4;
	if (len < at + 20 || header < 20 || at + header > len)
		return "it is too short";
	memcpy(&s.src.port, tcp, 2);
	memcpy(&s.dst.port, tcp + 2, 2);
	s.seq = segment_get32(tcp + 4);
	s.ack = segment_get32(tcp + 8);
	s.reserved = tcp[12] & 15;
	s.flags = tcp[13];
	s.window = (uint16_t)segment_get16(tcp + 14);
	s.urgent = (uint16_t)segment_get16(tcp + 18);
	s.options_len = header - 20;
	memcpy(s.options, tcp + 20, s.options_len);
	s.len = (uint32_t)(len - at) - header;
	*ret = s;
	if (add(tcp, len - at, pseudo(p, 6, len - at)) != 0xffff)
		return "its checksum is wrong";
	if (s.reserved)
		return "a reserved bit is set";
	if (!(s.flags & WIRE_ACK) && s.ack)
		return "it has an acknowledgment number and no ACK";
	for (i = 0; i < s.len; i++)
		if (tcp[header + i] != wire_byte(s.seq - first + i))
			return "its data are not those of the stream";
	return check_options(&s);
}

/* --- text --- */

bool wire_flags_read(const char *text, size_t len, uint8_t *ret)
{
	size_t i;

	*ret = 0;
	if (len == 1 && *text == '-')
		return true;
	for (i = 0; i < len; i++) {
		const char *at = strchr(flag_names, text[i]);

		if (!at)
			return false;
		*ret |= (uint8_t)(1 << (at - flag_names));
	}
	return len > 0;
}

void wire_flags_print(uint8_t flags, char to[10])
{
	unsigned int i, n = 0;

	for (i = 0; i < 8; i++)
		if (flags & 1 << i)
			to[n++] = flag_names[i];
	if (!n)
		to[n++] = '-';
	to[n] = 0;
}

static uint32_t number(const char **p)
{
	char *end;
	const long long v = strtoll(*p, &end, 0);

	*p = end;
	while (**p == ' ' || **p == ':')
		(*p)++;
	return (uint32_t)v;
}

static bool is_number(const char *p)
{
	return isdigit((unsigned char)*p) || *p == '-';
}

/* The bytes of one option; returns how many, 0: there is no such. */
static uint32_t read_one(const char *p, const struct wire_bases *b, uint8_t o[40])
{
	uint32_t n = 2;

	if (strcmp(p, "nop") == 0 || strcmp(p, "eol") == 0) {
		o[0] = *p == 'n';
		return 1;
	}
	if (strcmp(p, "sackOK") == 0) {
		o[0] = 4;
	} else if (strncmp(p, "mss ", 4) == 0) {
		p += 4;
		o[0] = 2;
		segment_put16(o + 2, number(&p));
		n = 4;
	} else if (strncmp(p, "wscale ", 7) == 0) {
		p += 7;
		o[0] = 3;
		o[2] = (uint8_t)number(&p);
		n = 3;
	} else if (strncmp(p, "ts ", 3) == 0) {
		p += 3;
		o[0] = 8;
		segment_put32(o + 2, number(&p) + b->ts_val);
		segment_put32(o + 6, number(&p) + b->ts_ecr);
		n = 10;
	} else if (strncmp(p, "sack ", 5) == 0) {
		p += 5;
		o[0] = 5;
		for (; is_number(p) && n < 34; n += 4)
			segment_put32(o + n, number(&p) + b->ack);
	} else if (strncmp(p, "raw ", 4) == 0) {
		unsigned int byte;

		for (p += 4, n = 0; n < 40 && sscanf(p, "%2x", &byte) == 1; p += 2)
			o[n++] = (uint8_t)byte;
		return *p ? 0 : n;
	} else {
		return 0;
	}
	o[1] = (uint8_t)n;
	return *p && strcmp(p, "sackOK") ? 0 : n;
}

bool wire_options_read(const char *text, const struct wire_bases *b, struct wire_segment *s)
{
	char copy[256], *save, *word;
	uint8_t o[64];

	s->options_len = 0;
	snprintf(copy, sizeof(copy), "%s", text);
	for (word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		uint32_t n;

		word += strspn(word, " ");
		while (*word && word[strlen(word) - 1] == ' ')
			word[strlen(word) - 1] = 0;
		n = read_one(word, b, o);
		if (!n || s->options_len + n > sizeof(s->options))
			return false;
		memcpy(s->options + s->options_len, o, n);
		s->options_len += n;
	}
	while (s->options_len % 4)
		s->options[s->options_len++] = 0;
	return true;
}

static int print_one(const uint8_t *o, const struct wire_bases *b, char *to, size_t room)
{
	const uint8_t len = o[1];
	int n, i;

	if (o[0] == 2 && len == 4)
		return snprintf(to, room, "mss %u", segment_get16(o + 2));
	if (o[0] == 3 && len == 3)
		return snprintf(to, room, "wscale %u", o[2]);
	if (o[0] == 4 && len == 2)
		return snprintf(to, room, "sackOK");
	if (o[0] == 8 && len == 10)
		return snprintf(to, room, "ts %d %d", (int)(segment_get32(o + 2) - b->ts_val),
				(int)(segment_get32(o + 6) - b->ts_ecr));
	n = snprintf(to, room, o[0] == 5 ? "sack" : "raw ");
	for (i = 2; o[0] == 5 && i + 8 <= len; i += 8)
		n += snprintf(to + n, room - (size_t)n, " %d:%d",
			      (int)(segment_get32(o + i) - b->ack),
			      (int)(segment_get32(o + i + 4) - b->ack));
	for (i = 0; o[0] != 5 && i < len; i++)
		n += snprintf(to + n, room - (size_t)n, "%02x", o[i]);
	return n;
}

void wire_options_print(const struct wire_segment *s, const struct wire_bases *b, char *to,
			size_t room)
{
	uint32_t i = 0;
	int n = 0;

	*to = 0;
	while (i < s->options_len && s->options[i]) {
		if (s->options[i] == 1) {
			i++;
			continue;
		}
		if (n)
			n += snprintf(to + n, room - (size_t)n, ",");
		n += print_one(s->options + i, b, to + n, room - (size_t)n);
		i += s->options[i + 1] < 2 ? 2 : s->options[i + 1];
	}
}
