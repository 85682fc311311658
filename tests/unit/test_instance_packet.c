/* SPDX-License-Identifier: Apache-2.0 */
/* Packets read and written by an instance: IP headers, ICMP errors, held SYNs and what is injected
 * for them. Every truncation of every fixture is tried. */
#include "instance/icmp.h"
#include "instance/inject.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"

struct bytes {
	uint8_t b[256];
	uint32_t len;
};

static void addr(const char *text, uint8_t ret[16])
{
	uint8_t v4[4];

	if (inet_pton(AF_INET, text, v4) == 1)
		addr_from_v4(v4, ret);
	else
		assert_int_equal(inet_pton(AF_INET6, text, ret), 1);
}

/* An IP packet with this payload; IPv6 where @src is. */
static struct bytes ip(const char *src, const char *dst, uint8_t proto, const struct bytes *payload)
{
	uint8_t s[16], d[16];
	struct bytes p = { 0 };

	addr(src, s);
	addr(dst, d);
	if (addr_is_v4(s)) {
		p.b[0] = 0x45;
		p.b[8] = 64;
		p.b[9] = proto;
		packet_put16(p.b + 2, 20 + payload->len);
		memcpy(p.b + 12, s + 12, 4);
		memcpy(p.b + 16, d + 12, 4);
		packet_put16(p.b + 10, checksum_fold(checksum_add(0, p.b, 20)));
		p.len = 20;
	} else {
		p.b[0] = 0x60;
		p.b[6] = proto;
		p.b[7] = 64;
		packet_put16(p.b + 4, payload->len);
		memcpy(p.b + 8, s, 16);
		memcpy(p.b + 24, d, 16);
		p.len = 40;
	}
	memcpy(p.b + p.len, payload->b, payload->len);
	p.len += payload->len;
	return p;
}

static struct bytes tcp(uint16_t from, uint16_t to, uint32_t seq, uint8_t flags, uint32_t data)
{
	struct bytes t = { .len = 24 + data };

	packet_put16(t.b, from);
	packet_put16(t.b + 2, to);
	packet_put32(t.b + 4, seq);
	t.b[12] = 6 << 4; /* one option: MSS */
	t.b[13] = flags;
	packet_put32(t.b + 20, 0x020405b4);
	memset(t.b + 24, 'x', data);
	return t;
}

static struct bytes icmp(bool v4, uint8_t type, uint8_t code, uint32_t rest,
			 const struct bytes *quoted)
{
	struct bytes m = { .len = 8 + quoted->len };

	(void)v4;
	m.b[0] = type;
	m.b[1] = code;
	packet_put32(m.b + 4, rest);
	memcpy(m.b + 8, quoted->b, quoted->len);
	return m;
}

/* Fills in the checksum of an ICMP message within its packet. */
static void finish_icmp(struct bytes *p)
{
	struct packet parsed;
	uint8_t *m;
	uint32_t len;

	assert_true(packet_parse(p->b, p->len, &parsed));
	m = p->b + parsed.header;
	len = p->len - parsed.header;
	packet_put16(m + 2, 0);
	packet_put16(m + 2, parsed.family == DMM_FAMILY_V4 ? checksum_fold(checksum_add(0, m, len))
							   : checksum_transport(&parsed, m, len));
}

static void headers_are_found(void **state)
{
	struct bytes t = tcp(1, 2, 3, 0x10, 5), p = ip("10.1.2.3", "10.4.5.6", IPPROTO_TCP, &t);
	struct packet parsed;
	uint8_t want[16];

	(void)state;
	assert_true(packet_parse(p.b, p.len + 6, &parsed)); /* with link padding */
	assert_int_equal(parsed.len, p.len);
	assert_int_equal(parsed.header, 20);
	assert_int_equal(parsed.proto, IPPROTO_TCP);
	assert_false(parsed.fragment);
	addr("10.1.2.3", want);
	assert_memory_equal(parsed.src, want, 16);

	p = ip("2001:db8::1", "2001:db8::2", IPPROTO_TCP, &t);
	assert_true(packet_parse(p.b, p.len, &parsed));
	assert_int_equal(parsed.header, 40);
	addr("2001:db8::2", want);
	assert_memory_equal(parsed.dst, want, 16);
}

static void extension_headers_are_walked(void **state)
{
	struct bytes t = tcp(1, 2, 3, 0x10, 0), ext = { .len = 16 }, p;
	struct packet parsed;

	(void)state;
	ext.b[0] = IPPROTO_DSTOPTS;
	ext.b[8] = IPPROTO_TCP;
	memcpy(ext.b + 16, t.b, t.len);
	ext.len += t.len;
	p = ip("2001:db8::1", "2001:db8::2", IPPROTO_HOPOPTS, &ext);
	assert_true(packet_parse(p.b, p.len, &parsed));
	assert_int_equal(parsed.proto, IPPROTO_TCP);
	assert_int_equal(parsed.header, 56);
	ext.b[9] = 200; /* longer than the packet */
	p = ip("2001:db8::1", "2001:db8::2", IPPROTO_HOPOPTS, &ext);
	assert_false(packet_parse(p.b, p.len, &parsed));
}

static void truncated_packets_are_refused(void **state)
{
	struct bytes t = tcp(1, 2, 3, 2, 0), p[] = {
		ip("10.1.2.3", "10.4.5.6", IPPROTO_TCP, &t),
		ip("2001:db8::1", "2001:db8::2", IPPROTO_TCP, &t),
	};
	struct packet parsed;
	unsigned int i, len;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(p); i++)
		for (len = 0; len < p[i].len; len++) {
			uint8_t *cut = malloc(len); /* so that reading beyond is seen */

			memcpy(cut, p[i].b, len);
			assert_false(packet_parse(cut, len, &parsed));
			packet_parse_quoted(cut, len, &parsed);
			free(cut);
		}
}

static void sources_are_judged(void **state)
{
	static const char *const legal[] = { "10.0.0.1", "8.8.8.8", "2001:db8::1", "fe80::1",
					     "fd00::1" };
	static const char *const illegal[] = {
		"0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1",
		"::",	   "::1",	"ff02::1",   "::10.0.0.1"
	};
	uint8_t a[16];
	size_t i;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(legal); i++) {
		addr(legal[i], a);
		assert_false(addr_is_illegal_source(a));
	}
	for (i = 0; i < DMM_ARRAY_SIZE(illegal); i++) {
		addr(illegal[i], a);
		assert_true(addr_is_illegal_source(a));
	}
}

/* --- ICMP --- */

struct icmp_case {
	bool v4;
	uint8_t type, code;
	uint32_t rest;
	int err;
	bool hard;
	uint32_t mtu;
};

static const struct icmp_case icmp_cases[] = {
	{ true, 3, 0, 0, ENETUNREACH, true, 0 },   { true, 3, 1, 0, EHOSTUNREACH, true, 0 },
	{ true, 3, 3, 0, ECONNREFUSED, true, 0 },  { true, 3, 4, 1280, EMSGSIZE, false, 1280 },
	{ true, 3, 13, 0, EHOSTUNREACH, true, 0 }, { true, 11, 0, 0, EHOSTUNREACH, true, 0 },
	{ true, 12, 0, 0, EPROTO, true, 0 },	   { false, 1, 0, 0, ENETUNREACH, true, 0 },
	{ false, 1, 1, 0, EACCES, true, 0 },	   { false, 1, 3, 0, EHOSTUNREACH, true, 0 },
	{ false, 1, 4, 0, ECONNREFUSED, true, 0 }, { false, 2, 0, 1300, EMSGSIZE, false, 1300 },
	{ false, 3, 0, 0, EHOSTUNREACH, true, 0 }, { true, 3, 4, 0, EMSGSIZE, false, 1 },
};

static struct bytes icmp_packet(const struct icmp_case *c, uint32_t quoted_len)
{
	struct bytes t = tcp(20001, 80, 0xdeadbeef, 2, 0);
	struct bytes quoted = c->v4 ? ip("10.0.0.1", "10.9.9.9", IPPROTO_TCP, &t)
				    : ip("2001:db8::1", "2001:db8:9::9", IPPROTO_TCP, &t);
	struct bytes m, p;

	quoted.len = DMM_MIN(quoted.len, quoted_len);
	m = icmp(c->v4, c->type, c->code, c->rest, &quoted);
	p = c->v4 ? ip("10.0.0.254", "10.0.0.1", IPPROTO_ICMP, &m)
		  : ip("2001:db8::fe", "2001:db8::1", IPPROTO_ICMPV6, &m);
	finish_icmp(&p);
	return p;
}

static bool parse_icmp(const struct bytes *p, struct icmp_error *ret)
{
	struct packet parsed;

	return packet_parse(p->b, p->len, &parsed) && icmp_parse(&parsed, p->b, ret);
}

static void icmp_errors_mean_what_the_kernel_says(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(icmp_cases); i++) {
		const struct icmp_case *c = &icmp_cases[i];
		struct bytes p = icmp_packet(c, 256);
		struct icmp_error e;
		uint8_t want[16];

		assert_true(parse_icmp(&p, &e));
		assert_int_equal(e.about.err, c->err);
		assert_int_equal(e.about.hard, c->hard);
		assert_int_equal(e.about.mtu, c->mtu);
		assert_int_equal(e.about.seq, 0xdeadbeef);
		assert_int_equal(e.about.local.port, htons(20001));
		assert_int_equal(e.about.remote.port, htons(80));
		addr(c->v4 ? "10.9.9.9" : "2001:db8:9::9", want);
		assert_memory_equal(e.about.remote.addr, want, 16);
		assert_int_equal(e.type, c->type);
		assert_int_equal(e.code, c->code);
	}
}

static void icmp_quotations_may_be_short_but_not_too_short(void **state)
{
	struct icmp_error e;
	size_t i;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(icmp_cases); i++) {
		uint32_t header = icmp_cases[i].v4 ? 20 : 40, len;

		for (len = 0; len < header + 24; len++) {
			struct bytes p = icmp_packet(&icmp_cases[i], len);

			assert_int_equal(parse_icmp(&p, &e), len >= header + 8);
		}
	}
}

static void other_icmp_is_ignored(void **state)
{
	static const struct icmp_case others[] = {
		{ .v4 = true, .type = 8 }, { .v4 = true, .type = 5 },
		{ .v4 = true, .type = 4 }, { .v4 = true, .type = 3, .code = 16 },
		{ .type = 128 },	   { .type = 135 },
		{ .type = 1, .code = 7 },
	};
	struct icmp_error e;
	struct bytes p;
	size_t i;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(others); i++) {
		p = icmp_packet(&others[i], 256);
		assert_false(parse_icmp(&p, &e));
	}
	p = icmp_packet(&icmp_cases[0], 256);
	p.b[p.len - 1] ^= 1; /* the checksum does not cover this any more */
	assert_false(parse_icmp(&p, &e));
}

/* --- held SYNs --- */

static struct bytes syn_packet(bool v4, uint32_t data)
{
	struct bytes t = tcp(40000, 9999, 0x01020304, 2, data);

	packet_put16(t.b + 16, 0x1234); /* a partial checksum, as loopback has it */
	return v4 ? ip("127.0.0.1", "127.0.0.1", IPPROTO_TCP, &t)
		  : ip("::1", "::1", IPPROTO_TCP, &t);
}

static bool checksum_is_right(const uint8_t *packet, size_t len)
{
	struct packet p;

	assert_true(packet_parse(packet, len, &p));
	if (p.family == DMM_FAMILY_V4 && checksum_fold(checksum_add(0, packet, p.header)))
		return false;
	if (p.proto == IPPROTO_ICMP)
		return !checksum_fold(checksum_add(0, packet + p.header, len - p.header));
	return !checksum_transport(&p, packet + p.header, len - p.header);
}

static void held_syns_are_made_whole(void **state)
{
	int v4;

	(void)state;
	for (v4 = 0; v4 < 2; v4++) {
		struct bytes p = syn_packet(v4, 30);
		struct held_syn syn;

		assert_true(inject_hold(p.b, p.len, &syn));
		assert_int_equal(syn.isn, 0x01020304);
		assert_int_equal(syn.len, p.len - 30); /* its data is cut off */
		assert_true(checksum_is_right(syn.packet, syn.len));
		p.len -= 10; /* the copy was cut within the data */
		assert_true(inject_hold(p.b, p.len, &syn));
		assert_int_equal(syn.len, p.len - 20);
	}
}

static void cut_syns_are_refused(void **state)
{
	struct held_syn syn;
	int v4;

	(void)state;
	for (v4 = 0; v4 < 2; v4++) {
		struct bytes p = syn_packet(v4, 0);
		uint32_t len;

		for (len = 0; len < p.len; len++)
			assert_false(inject_hold(p.b, len, &syn));
		p.b[(v4 ? 20 : 40) + 13] = 0x10; /* no SYN */
		assert_false(inject_hold(p.b, p.len, &syn));
	}
}

static void refusals_answer_the_syn(void **state)
{
	uint8_t packet[INJECT_MAX];
	int v4;

	(void)state;
	for (v4 = 0; v4 < 2; v4++) {
		struct bytes p = syn_packet(v4, 0);
		const uint8_t *t = packet + (v4 ? 20 : 40);
		struct held_syn syn;
		size_t len;

		assert_true(inject_hold(p.b, p.len, &syn));
		len = inject_refusal(&syn, packet);
		assert_true(checksum_is_right(packet, len));
		assert_int_equal(packet_get16(t), 9999);
		assert_int_equal(packet_get16(t + 2), 40000);
		assert_int_equal(packet_get32(t + 8), 0x01020305);
		assert_int_equal(t[13], 0x14);
	}
}

static void icmp_errors_quote_the_syn(void **state)
{
	uint8_t packet[INJECT_MAX];
	int v4;

	(void)state;
	for (v4 = 0; v4 < 2; v4++) {
		enum dmm_family family = v4 ? DMM_FAMILY_V4 : DMM_FAMILY_V6;
		struct bytes p = syn_packet(v4, 0);
		struct icmp_error error, back;
		struct held_syn syn;
		struct bytes sent = { 0 };

		assert_true(inject_hold(p.b, p.len, &syn));
		icmp_unreachable(family, ICMP_NO_HOST, &error);
		sent.len = inject_icmp(&syn, &error, packet);
		memcpy(sent.b, packet, sent.len);
		assert_true(checksum_is_right(sent.b, sent.len));
		assert_true(parse_icmp(&sent, &back));
		assert_int_equal(back.about.err, EHOSTUNREACH);
		assert_int_equal(back.about.seq, 0x01020304);
		assert_int_equal(back.about.local.port, htons(40000));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(headers_are_found),
		cmocka_unit_test(extension_headers_are_walked),
		cmocka_unit_test(truncated_packets_are_refused),
		cmocka_unit_test(sources_are_judged),
		cmocka_unit_test(icmp_errors_mean_what_the_kernel_says),
		cmocka_unit_test(icmp_quotations_may_be_short_but_not_too_short),
		cmocka_unit_test(other_icmp_is_ignored),
		cmocka_unit_test(held_syns_are_made_whole),
		cmocka_unit_test(cut_syns_are_refused),
		cmocka_unit_test(refusals_answer_the_syn),
		cmocka_unit_test(icmp_errors_quote_the_syn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
