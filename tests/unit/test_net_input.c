// SPDX-License-Identifier: Apache-2.0
/* What the native engine does with what comes: options, what may be forged, what the path says,
 * fragments. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "netpeer.h"

static bool has_option(const struct segment *s, uint8_t kind)
{
	uint32_t i;

	for (i = 0; i < s->options_len && s->options[i];
	     i += s->options[i] == 1 ? 1 : s->options[i + 1])
		if (s->options[i] == kind)
			return true;
	return false;
}

/* --- options --- */

/* RFC9293 MUST-5, MUST-6, MUST-7, MUST-64 */
static void strange_options_do_no_harm(void **state)
{
	const uint8_t unknown[] = { 1, 1, 253, 4, 9, 9, 2, 4, 5, 180, 0, 0 };
	const uint8_t bad[][8] = { { 2, 0, 1, 1 },   { 2, 1, 1, 1 }, { 8, 40, 1, 1 },
				   { 2, 3, 5, 180 }, { 5, 9, 1, 1 }, { 1, 1, 1, 2 } };
	struct netpeer r;
	size_t i;

	(void)state;
	netpeer_open(&r, true);
	netpeer_establish(&r, unknown, sizeof(unknown));
	netpeer_close(&r);
	for (i = 0; i < DMM_ARRAY_SIZE(bad); i++) {
		struct segment s;

		netpeer_open(&r, true);
		netpeer_establish(&r, unknown, sizeof(unknown));
		s = netpeer_segment_of(&r, ACK | PSH, "abc", 3);
		memcpy(s.options, bad[i], 4);
		s.options_len = 4;
		netpeer_put(&r, &s);
		r.n_out = 0;
		netpeer_sends(&r, ACK | PSH, "abc", 3); /* it still works */
		netpeer_pass(&r, NETPEER_SEC);
		assert_int_equal(netpeer_last(&r)->ack, NETPEER_ISN + 4);
		netpeer_close(&r);
	}
}

/* RFC9293 MUST-15, MUST-16; RFC 7323 1.3: what is not offered is not used */
static void without_options_segments_are_small(void **state)
{
	static uint8_t data[20000];
	unsigned int v4, i;

	(void)state;
	for (v4 = 0; v4 < 2; v4++) {
		struct netpeer r;

		netpeer_open(&r, v4);
		netpeer_establish(&r, NULL, 0);
		assert_int_equal(r.syn_ack.mss, v4 ? 1460 : 1440);
		assert_false(has_option(&r.syn_ack, 3));
		assert_false(has_option(&r.syn_ack, 4));
		assert_false(has_option(&r.syn_ack, 8));
		assert_int_equal(dmm_net_send(r.conn, data, sizeof(data)), sizeof(data));
		netpeer_settle(&r);
		assert_in_range(r.n_out, 4, 10);
		for (i = 0; i < r.n_out; i++) {
			assert_int_equal(r.out[i].len, v4 ? 536 : 1220);
			assert_int_equal(r.out[i].options_len, 0);
		}
		netpeer_close(&r);
	}
}

static const uint8_t all_options[] = { 2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 8, 10,
				       0, 0, 3, 232, 0, 0, 0, 0, 0, 0, 0, 0 };

static void offered_options_are_used(void **state)
{
	struct netpeer r;

	(void)state;
	netpeer_open(&r, true);
	netpeer_accept_with(&r, all_options, sizeof(all_options));
	assert_true(has_option(&r.syn_ack, 3));
	assert_true(has_option(&r.syn_ack, 4));
	assert_true(has_option(&r.syn_ack, 8));
	netpeer_close(&r);
}

static struct segment with_ts(struct netpeer *r, uint8_t flags, const void *data, uint32_t len,
			      uint32_t ts)
{
	const uint8_t options[12] = {
		1,	    1, 8, 10, (uint8_t)(ts >> 24), (uint8_t)(ts >> 16), (uint8_t)(ts >> 8),
		(uint8_t)ts
	};
	struct segment s = netpeer_segment_of(r, flags, data, len);

	memcpy(s.options, options, sizeof(options));
	s.options_len = sizeof(options);
	return s;
}

/* RFC 7323 5.3 */
static void old_timestamps_are_dropped(void **state)
{
	struct segment s;
	struct netpeer r;

	(void)state;
	netpeer_open(&r, true);
	netpeer_accept_with(&r, all_options, sizeof(all_options));
	s = with_ts(&r, ACK, NULL, 0, 1001);
	netpeer_put(&r, &s);
	r.n_out = 0;
	s = with_ts(&r, ACK, "old", 3, 999);
	netpeer_put(&r, &s);
	assert_int_equal(netpeer_stats_of(&r).paws_dropped, 1);
	assert_int_equal(netpeer_last(&r)->ack, r.seq);
	assert_false(r.events & DMM_EV_READABLE);
	s = with_ts(&r, ACK, "new", 3, 1001);
	netpeer_put(&r, &s);
	assert_true(r.events & DMM_EV_READABLE);
	netpeer_close(&r);
}

/* --- RFC 5961, 5927, 6528 --- */

static void only_the_exact_reset_resets(void **state)
{
	struct segment s;
	struct netpeer r;

	(void)state;
	netpeer_open(&r, true);
	netpeer_establish(&r, NULL, 0);
	s = netpeer_segment_of(&r, RST, NULL, 0);
	s.seq += 100;
	netpeer_put(&r, &s);
	assert_non_null(r.conn);
	assert_int_equal(netpeer_last(&r)->ack, r.seq); /* a challenge */
	s.seq = r.seq - 1;
	netpeer_put(&r, &s);
	assert_null(netpeer_last(&r));
	s.seq = r.seq + 200000;
	netpeer_put(&r, &s);
	assert_null(netpeer_last(&r));
	assert_non_null(r.conn);
	s.seq = r.seq;
	netpeer_put(&r, &s);
	assert_null(r.conn);
	assert_int_equal(r.err, ECONNRESET);
	netpeer_close(&r);
}

static void forged_segments_are_challenged_so_often(void **state)
{
	struct segment s;
	unsigned int i;
	struct netpeer r;

	(void)state;
	netpeer_open(&r, true);
	netpeer_establish(&r, NULL, 0);
	for (i = 0; i < 30; i++) {
		s = netpeer_segment_of(&r, i % 3 ? SYN : ACK, NULL, 0);
		s.ack += i % 3 ? 0 : 100000;
		netpeer_put(&r, &s);
	}
	assert_non_null(r.conn);
	assert_int_equal(r.n_out, 10);
	assert_int_equal(r.out[9].flags, ACK);
	assert_int_equal(netpeer_stats_of(&r).challenge_acks, 10);
	netpeer_close(&r);
}

/* The engine's for a SYN from @port, @later than the first. */
static uint32_t initial_number(const char secret[32], uint16_t port, uint64_t later)
{
	struct netpeer r;

	netpeer_open_with(&r, true, secret);
	r.theirs.port = htons(port);
	r.now += later;
	netpeer_accept_with(&r, NULL, 0);
	netpeer_close(&r);
	return r.iss;
}

static bool is_far(uint32_t a, uint32_t b)
{
	return a - b > 100000 && b - a > 100000;
}

/* RFC9293 MUST-8, MUST-9, SHLD-1 */
static void initial_numbers_grow_with_time_only_for_one_tuple(void **state)
{
	static const char secret[32] = "one", other[32] = "two";
	const uint32_t first = initial_number(secret, 1234, 0);

	(void)state;
	/* 4 us each */
	assert_int_equal(initial_number(secret, 1234, 4 * NETPEER_MS) - first, 1000);
	assert_true(is_far(initial_number(secret, 1235, 0), first));
	assert_true(is_far(initial_number(other, 1234, 0), first));
	/* nor is the step from one tuple to the next the same for all */
	assert_true(is_far(initial_number(secret, 1235, 0) - first,
			   initial_number(other, 1235, 0) - initial_number(other, 1234, 0)));
}

/* RFC9293 MUST-3, MUST-57, MUST-63 */
static void unsound_packets_do_nothing(void **state)
{
	uint8_t packet[2000];
	struct segment s;
	struct netpeer r;
	size_t len;

	(void)state;
	netpeer_open(&r, true);
	s = netpeer_segment_of(&r, SYN, NULL, 0);
	len = segment_build(&s, packet);
	packet[len - 1] ^= 1;
	dmm_net_input(r.net, packet, (uint32_t)len, r.now);
	s.src.addr[12] = 224;
	netpeer_put(&r, &s);
	s.src = r.ours;
	netpeer_put(&r, &s);
	for (len = 0; len < 40; len++)
		dmm_net_input(r.net, packet, (uint32_t)len, r.now);
	netpeer_settle(&r);
	assert_null(netpeer_last(&r));
	assert_int_equal(netpeer_stats_of(&r).bad_checksum, 1);
	netpeer_close(&r);
}

static void icmp_about(struct netpeer *r, uint32_t seq, uint32_t mtu, int err, bool hard)
{
	const struct dmm_icmp e = { .local = r->ours,
				    .remote = r->theirs,
				    .seq = seq,
				    .mtu = mtu,
				    .err = err,
				    .hard = hard };

	dmm_net_icmp(r->net, &e, r->now);
	netpeer_settle(r);
}

/* A host has them in any order; a stranger's packets are nobody's. */
static void each_of_many_addresses_is_ours(void **state)
{
	static uint8_t addrs[NETPEER_ADDRS][16];
	struct netpeer r;
	unsigned int i;

	(void)state;
	netpeer_open(&r, true);
	for (i = 0; i < NETPEER_ADDRS; i++) {
		const struct dmm_endpoint v4 = netpeer_endpoint(true, 1, 0),
					  v6 = netpeer_endpoint(false, 1, 0);

		memcpy(addrs[i], i % 2 ? v4.addr : v6.addr, 16);
		addrs[i][13] = (uint8_t)(i * 7919 >> 8);
		addrs[i][14] = (uint8_t)(i * 7919);
	}
	assert_int_equal(dmm_net_configure(r.net, 1500, (const uint8_t(*)[16])addrs, NETPEER_ADDRS),
			 0);
	for (i = 0; i < NETPEER_ADDRS; i++) {
		r.theirs = netpeer_endpoint(i % 2, 2, 1234);
		memcpy(r.ours.addr, addrs[i], 16);
		r.now += NETPEER_SEC; /* replies to nobody are limited */
		netpeer_sends(&r, SYN, NULL, 0);
		assert_non_null(netpeer_last(&r));
		r.ours.addr[15] = 3;
		netpeer_sends(&r, SYN, NULL, 0);
		assert_null(netpeer_last(&r));
	}
	netpeer_close(&r);
}

/* RFC 1191, 5927; RFC9293 MUST-56 */
static void path_mtu_is_obeyed_if_it_is_about_us(void **state)
{
	static uint8_t data[10000];
	struct netpeer r;
	unsigned int i;

	(void)state;
	netpeer_open(&r, true);
	netpeer_establish(&r, all_options, 4);
	dmm_net_send(r.conn, data, sizeof(data));
	netpeer_settle(&r);
	assert_int_equal(r.out[0].len, 1460);
	r.n_out = 0;
	icmp_about(&r, r.iss - 5, 1000, EMSGSIZE, false); /* not on its way */
	icmp_about(&r, r.iss + 20000, 1000, EMSGSIZE, false);
	assert_null(netpeer_last(&r));
	icmp_about(&r, r.iss + 1, 1000, EMSGSIZE, false);
	assert_true(r.n_out > 0);
	for (i = 0; i < r.n_out; i++)
		assert_in_range(r.out[i].len, 1, 960);
	r.n_out = 0;
	icmp_about(&r, r.iss + 1, 68, EMSGSIZE, false); /* no less than the least there is */
	netpeer_pass(&r, NETPEER_SEC);
	assert_in_range(netpeer_last(&r)->len, 1, 536);
	assert_int_equal(netpeer_stats_of(&r).fast_recoveries, 0);
	icmp_about(&r, r.iss + 1, 0, EHOSTUNREACH, true);
	assert_non_null(r.conn);
	netpeer_close(&r);
}

static void a_hard_error_ends_an_attempt(void **state)
{
	struct dmm_net_conn *c;
	struct netpeer r;
	uint32_t seq;

	(void)state;
	netpeer_open(&r, true);
	assert_int_equal(dmm_net_connect(r.net, &r.ours, &r.theirs, NULL, r.now, &c), 0);
	netpeer_settle(&r);
	seq = netpeer_last(&r)->seq;
	icmp_about(&r, seq + 1, 0, ECONNREFUSED, true);
	icmp_about(&r, seq, 0, EHOSTUNREACH, false);
	assert_int_equal(r.err, 0);
	icmp_about(&r, seq, 0, ECONNREFUSED, true);
	assert_int_equal(r.err, ECONNREFUSED);
	netpeer_close(&r);
}

/* Of the interface, whatever the protocol asks of one: less than 1280 is no place for IPv6, so its
 * addresses are not ours there, and what is still sent from them fits. */
static void no_packet_is_longer_than_the_interface_takes(void **state)
{
	static uint8_t data[10000];
	unsigned int i;
	struct netpeer r;

	(void)state;
	netpeer_open(&r, false);
	netpeer_establish(&r, all_options, 4);
	dmm_net_send(r.conn, data, sizeof(data));
	netpeer_settle(&r);
	assert_int_equal(r.out[0].len, 1440);
	r.n_out = 0;
	assert_int_equal(dmm_net_configure(r.net, 1000, &r.ours.addr, 1), 0);
	netpeer_pass(&r, 10 * NETPEER_SEC);
	assert_true(r.n_out > 3);
	for (i = 0; i < r.n_out; i++)
		assert_in_range(r.out[i].len, 1, 940);
	netpeer_sends(&r, ACK, "x", 1);
	assert_int_equal(netpeer_stats_of(&r).not_ours, 1);
	assert_int_equal(dmm_net_configure(r.net, 1280, &r.ours.addr, 1), 0);
	netpeer_sends(&r, ACK, "x", 1);
	assert_int_equal(netpeer_stats_of(&r).not_ours, 1);
	netpeer_close(&r);
}

/* --- fragments and extension headers --- */

/* The bytes [@from, @to) of an IPv4 packet's payload as a fragment. */
static void put_fragment(struct netpeer *r, const uint8_t *packet, size_t len, size_t from,
			 size_t to)
{
	uint8_t f[2000];

	memcpy(f, packet, 20);
	memcpy(f + 20, packet + 20 + from, to - from);
	segment_put16(f + 2, (uint32_t)(20 + to - from));
	segment_put16(f + 4, 4711);
	segment_put16(f + 6, (uint32_t)(from / 8) | (to + 20 < len ? 0x2000 : 0));
	segment_put16(f + 10, 0);
	segment_put16(f + 10, segment_checksum(f, 20, 0));
	dmm_net_input(r->net, f, (uint32_t)(20 + to - from), r->now);
	netpeer_settle(r);
}

static void fragments_make_a_packet(void **state)
{
	static const uint8_t data[1000] = { 1, 2, 3 };
	const unsigned int orders[][3] = { { 0, 1, 2 }, { 2, 1, 0 }, { 1, 2, 0 } };
	const size_t ends[] = { 0, 24, 512, 1020 };
	uint8_t packet[2000];
	struct segment s;
	struct netpeer r;
	size_t i, j, len;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(orders); i++) {
		netpeer_open(&r, true);
		netpeer_establish(&r, NULL, 0);
		s = netpeer_segment_of(&r, ACK, data, sizeof(data));
		len = segment_build(&s, packet);
		for (j = 0; j < 3; j++) {
			assert_false(r.events & DMM_EV_READABLE);
			put_fragment(&r, packet, len, ends[orders[i][j]], ends[orders[i][j] + 1]);
		}
		assert_true(r.events & DMM_EV_READABLE);
		assert_int_equal(netpeer_stats_of(&r).reassembled, 1);
		netpeer_close(&r);
	}
}

/* RFC 5722 */
static void overlapping_fragments_are_dropped(void **state)
{
	static const uint8_t data[1000] = { 1, 2, 3 };
	uint8_t packet[2000];
	struct segment s;
	struct netpeer r;
	size_t len;

	(void)state;
	netpeer_open(&r, true);
	netpeer_establish(&r, NULL, 0);
	s = netpeer_segment_of(&r, ACK, data, sizeof(data));
	len = segment_build(&s, packet);
	put_fragment(&r, packet, len, 0, 512);
	put_fragment(&r, packet, len, 504, 600);
	put_fragment(&r, packet, len, 512, 1020);
	put_fragment(&r, packet, len, 600, 1020);
	assert_false(r.events & DMM_EV_READABLE);
	netpeer_pass(&r, 31 * NETPEER_SEC); /* and forgotten */
	put_fragment(&r, packet, len, 0, 512);
	put_fragment(&r, packet, len, 512, 1020);
	assert_true(r.events & DMM_EV_READABLE);
	netpeer_close(&r);
}

/* RFC 8200 4.5: links do that; the first one counts. */
static void fragments_may_come_twice(void **state)
{
	static const uint8_t data[1000] = { 1, 2, 3 };
	const size_t ends[] = { 0, 24, 512, 1020 };
	const unsigned int twice[] = { 0, 2, 0, 2, 1 };
	uint8_t packet[2000], other[2000] = { 0 };
	struct iovec iov;
	struct segment s;
	struct netpeer r;
	size_t i, len;

	(void)state;
	netpeer_open(&r, true);
	netpeer_establish(&r, NULL, 0);
	s = netpeer_segment_of(&r, ACK, data, sizeof(data));
	len = segment_build(&s, packet);
	memcpy(other, packet, 20);
	for (i = 0; i < DMM_ARRAY_SIZE(twice); i++) {
		const unsigned int n = twice[i];

		assert_false(r.events & DMM_EV_READABLE);
		put_fragment(&r, i == 2 || i == 3 ? other : packet, len, ends[n], ends[n + 1]);
		put_fragment(&r, other, len, 0, 8); /* a part of what is there */
	}
	assert_true(r.events & DMM_EV_READABLE);
	assert_int_equal(dmm_net_recv_peek(r.conn, &iov, 1), 1);
	assert_int_equal(iov.iov_len, sizeof(data));
	assert_memory_equal(iov.iov_base, data, sizeof(data));
	assert_int_equal(netpeer_stats_of(&r).fragments_dropped, 0);
	netpeer_close(&r);
}

static void fragments_cost_only_so_much(void **state)
{
	struct netpeer r;
	uint8_t packet[2000] = { 0 };
	struct segment s;
	unsigned int i;

	(void)state;
	netpeer_open(&r, true);
	s = netpeer_segment_of(&r, ACK, packet, 1400);
	for (i = 0; i < 1000; i++) {
		uint8_t f[2000];

		segment_build(&s, f);
		segment_put16(f + 2, 1420);
		segment_put16(f + 4, i);
		segment_put16(f + 6, 0x2000);
		segment_put16(f + 10, 0);
		segment_put16(f + 10, segment_checksum(f, 20, 0));
		dmm_net_input(r.net, f, 1420, r.now);
	}
	assert_in_range(netpeer_stats_of(&r).memory, 1, 16 * 5000);
	netpeer_close(&r);
}

static void put_with_header(struct netpeer *r, uint8_t next, const uint8_t header[8])
{
	const struct segment s = netpeer_segment_of(r, ACK, "abc", 3);
	uint8_t packet[2000], with[2000];
	const size_t len = segment_build(&s, packet);

	memcpy(with, packet, 40);
	memcpy(with + 40, header, 8);
	memcpy(with + 48, packet + 40, len - 40);
	with[6] = next;
	segment_put16(with + 4, (uint32_t)(len - 40 + 8));
	dmm_net_input(r->net, with, (uint32_t)len + 8, r->now);
	netpeer_settle(r);
}

/* RFC 8200 4 */
static void extension_headers_are_read(void **state)
{
	const struct {
		uint8_t next, header[8];
		bool good;
	} cases[] = {
		{ 0, { 6, 0, 1, 4, 0, 0, 0, 0 }, true },      /* PadN */
		{ 60, { 6, 0, 0x1e, 4, 0, 0, 0, 0 }, true },  /* unknown, to be skipped */
		{ 60, { 6, 0, 0x5e, 4, 0, 0, 0, 0 }, false }, /* unknown, to be dropped */
		{ 60, { 6, 0, 0x1e, 5, 0, 0, 0, 0 }, false }, /* longer than its header */
		{ 60, { 6, 9, 1, 4, 0, 0, 0, 0 }, false },    /* longer than the packet */
		{ 43, { 6, 0, 0, 0, 0, 0, 0, 0 }, true },     /* no segments left */
		{ 43, { 6, 0, 0, 1, 0, 0, 0, 0 }, false },
		{ 44, { 6, 0, 0, 0, 0, 0, 0, 1 }, true },  /* RFC 6946: atomic */
		{ 44, { 6, 0, 0, 1, 0, 0, 0, 1 }, false }, /* more to come */
		{ 51, { 6, 0, 0, 0, 0, 0, 0, 0 }, false },
	};
	size_t i;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(cases); i++) {
		struct netpeer r;

		netpeer_open(&r, false);
		netpeer_establish(&r, NULL, 0);
		put_with_header(&r, cases[i].next, cases[i].header);
		assert_int_equal((r.events & DMM_EV_READABLE) != 0, cases[i].good);
		assert_int_equal(netpeer_stats_of(&r).other_proto, cases[i].next == 51);
		netpeer_close(&r);
	}
}

/* The bytes [@from, @to) of an IPv6 packet's payload, which begins with a header @next. */
static void put_fragment6(struct netpeer *r, const uint8_t *packet, size_t len, uint8_t next,
			  size_t from, size_t to)
{
	uint8_t f[2000];

	memcpy(f, packet, 40);
	f[6] = 44;
	segment_put16(f + 4, (uint32_t)(8 + to - from));
	f[40] = next;
	f[41] = 0;
	segment_put16(f + 42, (uint32_t)(from | (to + 40 < len)));
	memset(f + 44, 7, 4);
	memcpy(f + 48, packet + 40 + from, to - from);
	dmm_net_input(r->net, f, (uint32_t)(48 + to - from), r->now);
	netpeer_settle(r);
}

/* RFC 8200 4.5: those behind the fragment header are cut too, so they are read when all is there. */
static void extension_headers_in_fragments_are_read(void **state)
{
	const struct {
		uint8_t next, header[8];
		bool good;
	} cases[] = {
		{ 60, { 6, 0, 1, 4, 0, 0, 0, 0 }, true },
		{ 60, { 6, 0, 0x5e, 4, 0, 0, 0, 0 }, false },
		{ 60, { 6, 99, 1, 4, 0, 0, 0, 0 }, false },
		{ 0, { 6, 0, 1, 4, 0, 0, 0, 0 }, false },  /* only at the beginning */
		{ 44, { 6, 0, 0, 1, 0, 0, 0, 1 }, false }, /* a fragment of a fragment */
	};
	size_t i, len;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(cases); i++) {
		uint8_t packet[2000];
		struct segment s;
		struct netpeer r;

		netpeer_open(&r, false);
		netpeer_establish(&r, NULL, 0);
		s = netpeer_segment_of(&r, ACK, "abc", 3);
		len = segment_build(&s, packet) + 8;
		memmove(packet + 48, packet + 40, len - 48);
		memcpy(packet + 40, cases[i].header, 8);
		put_fragment6(&r, packet, len, cases[i].next, 16, len - 40);
		put_fragment6(&r, packet, len, cases[i].next, 0, 16);
		assert_int_equal((r.events & DMM_EV_READABLE) != 0, cases[i].good);
		assert_int_equal(netpeer_stats_of(&r).reassembled, 1);
		assert_int_equal(netpeer_stats_of(&r).bad_ip, !cases[i].good);
		netpeer_close(&r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strange_options_do_no_harm),
		cmocka_unit_test(without_options_segments_are_small),
		cmocka_unit_test(offered_options_are_used),
		cmocka_unit_test(old_timestamps_are_dropped),
		cmocka_unit_test(only_the_exact_reset_resets),
		cmocka_unit_test(forged_segments_are_challenged_so_often),
		cmocka_unit_test(initial_numbers_grow_with_time_only_for_one_tuple),
		cmocka_unit_test(unsound_packets_do_nothing),
		cmocka_unit_test(each_of_many_addresses_is_ours),
		cmocka_unit_test(path_mtu_is_obeyed_if_it_is_about_us),
		cmocka_unit_test(a_hard_error_ends_an_attempt),
		cmocka_unit_test(no_packet_is_longer_than_the_interface_takes),
		cmocka_unit_test(fragments_make_a_packet),
		cmocka_unit_test(overlapping_fragments_are_dropped),
		cmocka_unit_test(fragments_may_come_twice),
		cmocka_unit_test(fragments_cost_only_so_much),
		cmocka_unit_test(extension_headers_are_read),
		cmocka_unit_test(extension_headers_in_fragments_are_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
