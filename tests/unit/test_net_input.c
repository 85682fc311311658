// SPDX-License-Identifier: Apache-2.0
/* One native engine, and the test as its peer, segment by segment: options, what may be forged,
 * what the path says, fragments, when ACKs and small segments go. */
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
#include "segment.h"

#include <dmm/net.h>

#define MS	1000000ull
#define SEC	(1000 * MS)
#define OUR_ISN 5000u
#define OUT_MAX 256
#define ADDRS	1000

struct rig {
	struct dmm_net *net;
	void *memory;
	uint64_t now;
	struct dmm_endpoint ours, theirs; /* ours: the engine's */
	struct segment out[OUT_MAX];
	unsigned int n_out;
	uint32_t events;
	int err;
	struct dmm_net_conn *conn;
	uint32_t iss;	   /* the engine's */
	uint32_t seq, ack; /* the peer's next */
	struct segment syn_ack;
};

static struct dmm_endpoint endpoint(bool v4, uint8_t last, uint16_t port)
{
	struct dmm_endpoint ep = { .addr = { [0] = 0xfd, [15] = last }, .port = htons(port) };

	if (v4)
		ep = (struct dmm_endpoint){ .addr = { [10] = 0xff, 0xff, 10, 0, 0, last },
					    .port = htons(port) };
	return ep;
}

static void open_rig_with(struct rig *r, bool v4, const char secret[32])
{
	struct dmm_net_config config = { .mtu = 1500,
					 .n_addrs = 1,
					 .max_addrs = ADDRS,
					 .max_conns = 200,
					 .max_time_wait = 100,
					 .send_buffer = 100000,
					 .receive_buffer = 100000,
					 .buffer_memory = 4 << 20 };

	*r = (struct rig){ .now = 12345 * SEC };
	r->ours = endpoint(v4, 1, 80);
	r->theirs = endpoint(v4, 2, 1234);
	memcpy(config.secret, secret, sizeof(config.secret));
	config.addrs = (const uint8_t(*)[16]) & r->ours.addr;
	r->memory = aligned_alloc(64, dmm_net_memory(&config));
	memset(r->memory, 0, dmm_net_memory(&config));
	assert_int_equal(dmm_net_create(&config, r->memory, r->now, &r->net), 0);
}

static void open_rig(struct rig *r, bool v4)
{
	static const char secret[32] = "not so secret";

	open_rig_with(r, v4, secret);
}

static void settle(struct rig *r)
{
	struct dmm_net_event ev;
	uint8_t buf[1500];
	uint32_t len;

	while (dmm_net_event(r->net, &ev)) {
		if (ev.events == DMM_NET_ACCEPTED)
			r->conn = ev.conn;
		else
			r->events |= ev.events;
		if (ev.events & DMM_EV_ERROR)
			r->err = ev.err;
		if (ev.events & (DMM_EV_ERROR | DMM_EV_CLOSED))
			r->conn = NULL;
	}
	while ((len = dmm_net_output(r->net, buf, sizeof(buf), r->now))) {
		assert_true(r->n_out < OUT_MAX);
		segment_parse(buf, len, &r->out[r->n_out++]);
	}
}

static void close_rig(struct rig *r)
{
	free(r->memory);
}

static void pass(struct rig *r, uint64_t ns)
{
	const uint64_t until = r->now + ns;

	for (;;) {
		settle(r);
		if (dmm_net_deadline(r->net) > until)
			break;
		r->now = DMM_MAX(r->now, dmm_net_deadline(r->net));
		dmm_net_tick(r->net, r->now);
	}
	r->now = until;
	dmm_net_tick(r->net, r->now);
	settle(r);
}

/* What came since the last time it was asked; NULL: nothing. */
static const struct segment *last(struct rig *r)
{
	const unsigned int n = r->n_out;

	r->n_out = 0;
	return n ? &r->out[n - 1] : NULL;
}

static struct segment segment_of(struct rig *r, uint8_t flags, const void *data, uint32_t len)
{
	struct segment s = { .src = r->theirs,
			     .dst = r->ours,
			     .seq = r->seq,
			     .ack = r->ack,
			     .flags = flags,
			     .window = 60000,
			     .len = len,
			     .v4 = segment_is_v4(r->ours.addr) };

	if (len)
		memcpy(s.data, data, len);
	return s;
}

static void put(struct rig *r, const struct segment *s)
{
	uint8_t packet[2000];
	const size_t len = segment_build(s, packet);

	dmm_net_input(r->net, packet, (uint32_t)len, r->now);
	settle(r);
}

static void peer_sends(struct rig *r, uint8_t flags, const void *data, uint32_t len)
{
	const struct segment s = segment_of(r, flags, data, len);

	put(r, &s);
	r->seq += len + !!(flags & SYN) + !!(flags & FIN);
}

/* A connection from the peer, whose SYN has these options. */
static void accept_with(struct rig *r, const uint8_t *options, uint32_t len)
{
	struct dmm_net_conn *listener;
	struct segment s;

	dmm_net_listen(r->net, &r->ours, 8, NULL, &listener);
	r->seq = OUR_ISN;
	s = segment_of(r, SYN, NULL, 0);
	if (len)
		memcpy(s.options, options, len);
	s.options_len = len;
	put(r, &s);
	r->seq++;
	assert_int_equal(r->n_out, 1);
	r->syn_ack = r->out[0];
	r->n_out = 0;
	assert_int_equal(r->syn_ack.flags, SYN | ACK);
	assert_int_equal(r->syn_ack.ack, r->seq);
	r->iss = r->syn_ack.seq;
	r->ack = r->iss + 1;
}

static void establish(struct rig *r, const uint8_t *options, uint32_t len)
{
	accept_with(r, options, len);
	peer_sends(r, ACK, NULL, 0);
	assert_non_null(r->conn);
	r->n_out = 0;
}

static struct dmm_net_stats stats_of(struct rig *r)
{
	struct dmm_net_stats s;

	dmm_net_get_stats(r->net, &s);
	return s;
}

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
	struct rig r;
	size_t i;

	(void)state;
	open_rig(&r, true);
	establish(&r, unknown, sizeof(unknown));
	close_rig(&r);
	for (i = 0; i < DMM_ARRAY_SIZE(bad); i++) {
		struct segment s;

		open_rig(&r, true);
		establish(&r, unknown, sizeof(unknown));
		s = segment_of(&r, ACK | PSH, "abc", 3);
		memcpy(s.options, bad[i], 4);
		s.options_len = 4;
		put(&r, &s);
		r.n_out = 0;
		peer_sends(&r, ACK | PSH, "abc", 3); /* it still works */
		pass(&r, SEC);
		assert_int_equal(last(&r)->ack, OUR_ISN + 4);
		close_rig(&r);
	}
}

/* RFC9293 MUST-15, MUST-16; RFC 7323 1.3: what is not offered is not used */
static void without_options_segments_are_small(void **state)
{
	static uint8_t data[20000];
	unsigned int v4, i;

	(void)state;
	for (v4 = 0; v4 < 2; v4++) {
		struct rig r;

		open_rig(&r, v4);
		establish(&r, NULL, 0);
		assert_int_equal(r.syn_ack.mss, v4 ? 1460 : 1440);
		assert_false(has_option(&r.syn_ack, 3));
		assert_false(has_option(&r.syn_ack, 4));
		assert_false(has_option(&r.syn_ack, 8));
		assert_int_equal(dmm_net_send(r.conn, data, sizeof(data)), sizeof(data));
		settle(&r);
		assert_in_range(r.n_out, 4, 10);
		for (i = 0; i < r.n_out; i++) {
			assert_int_equal(r.out[i].len, v4 ? 536 : 1220);
			assert_int_equal(r.out[i].options_len, 0);
		}
		close_rig(&r);
	}
}

static const uint8_t all_options[] = { 2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 8, 10,
				       0, 0, 3, 232, 0, 0, 0, 0, 0, 0, 0, 0 };

static void offered_options_are_used(void **state)
{
	struct rig r;

	(void)state;
	open_rig(&r, true);
	accept_with(&r, all_options, sizeof(all_options));
	assert_true(has_option(&r.syn_ack, 3));
	assert_true(has_option(&r.syn_ack, 4));
	assert_true(has_option(&r.syn_ack, 8));
	close_rig(&r);
}

static struct segment with_ts(struct rig *r, uint8_t flags, const void *data, uint32_t len,
			      uint32_t ts)
{
	const uint8_t options[12] = {
		1,	    1, 8, 10, (uint8_t)(ts >> 24), (uint8_t)(ts >> 16), (uint8_t)(ts >> 8),
		(uint8_t)ts
	};
	struct segment s = segment_of(r, flags, data, len);

	memcpy(s.options, options, sizeof(options));
	s.options_len = sizeof(options);
	return s;
}

/* RFC 7323 5.3 */
static void old_timestamps_are_dropped(void **state)
{
	struct segment s;
	struct rig r;

	(void)state;
	open_rig(&r, true);
	accept_with(&r, all_options, sizeof(all_options));
	s = with_ts(&r, ACK, NULL, 0, 1001);
	put(&r, &s);
	r.n_out = 0;
	s = with_ts(&r, ACK, "old", 3, 999);
	put(&r, &s);
	assert_int_equal(stats_of(&r).paws_dropped, 1);
	assert_int_equal(last(&r)->ack, r.seq);
	assert_false(r.events & DMM_EV_READABLE);
	s = with_ts(&r, ACK, "new", 3, 1001);
	put(&r, &s);
	assert_true(r.events & DMM_EV_READABLE);
	close_rig(&r);
}

/* --- RFC 5961, 5927, 6528 --- */

static void only_the_exact_reset_resets(void **state)
{
	struct segment s;
	struct rig r;

	(void)state;
	open_rig(&r, true);
	establish(&r, NULL, 0);
	s = segment_of(&r, RST, NULL, 0);
	s.seq += 100;
	put(&r, &s);
	assert_non_null(r.conn);
	assert_int_equal(last(&r)->ack, r.seq); /* a challenge */
	s.seq = r.seq - 1;
	put(&r, &s);
	assert_null(last(&r));
	s.seq = r.seq + 200000;
	put(&r, &s);
	assert_null(last(&r));
	assert_non_null(r.conn);
	s.seq = r.seq;
	put(&r, &s);
	assert_null(r.conn);
	assert_int_equal(r.err, ECONNRESET);
	close_rig(&r);
}

static void forged_segments_are_challenged_so_often(void **state)
{
	struct segment s;
	unsigned int i;
	struct rig r;

	(void)state;
	open_rig(&r, true);
	establish(&r, NULL, 0);
	for (i = 0; i < 30; i++) {
		s = segment_of(&r, i % 3 ? SYN : ACK, NULL, 0);
		s.ack += i % 3 ? 0 : 100000;
		put(&r, &s);
	}
	assert_non_null(r.conn);
	assert_int_equal(r.n_out, 10);
	assert_int_equal(r.out[9].flags, ACK);
	assert_int_equal(stats_of(&r).challenge_acks, 10);
	close_rig(&r);
}

/* The engine's for a SYN from @port, @later than the first. */
static uint32_t initial_number(const char secret[32], uint16_t port, uint64_t later)
{
	struct rig r;

	open_rig_with(&r, true, secret);
	r.theirs.port = htons(port);
	r.now += later;
	accept_with(&r, NULL, 0);
	close_rig(&r);
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
	assert_int_equal(initial_number(secret, 1234, 4 * MS) - first, 1000);
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
	struct rig r;
	size_t len;

	(void)state;
	open_rig(&r, true);
	s = segment_of(&r, SYN, NULL, 0);
	len = segment_build(&s, packet);
	packet[len - 1] ^= 1;
	dmm_net_input(r.net, packet, (uint32_t)len, r.now);
	s.src.addr[12] = 224;
	put(&r, &s);
	s.src = r.ours;
	put(&r, &s);
	for (len = 0; len < 40; len++)
		dmm_net_input(r.net, packet, (uint32_t)len, r.now);
	settle(&r);
	assert_null(last(&r));
	assert_int_equal(stats_of(&r).bad_checksum, 1);
	close_rig(&r);
}

static void icmp_about(struct rig *r, uint32_t seq, uint32_t mtu, int err, bool hard)
{
	const struct dmm_icmp e = { .local = r->ours,
				    .remote = r->theirs,
				    .seq = seq,
				    .mtu = mtu,
				    .err = err,
				    .hard = hard };

	dmm_net_icmp(r->net, &e, r->now);
	settle(r);
}

/* A host has them in any order; a stranger's packets are nobody's. */
static void each_of_many_addresses_is_ours(void **state)
{
	static uint8_t addrs[ADDRS][16];
	struct rig r;
	unsigned int i;

	(void)state;
	open_rig(&r, true);
	for (i = 0; i < ADDRS; i++) {
		const struct dmm_endpoint v4 = endpoint(true, 1, 0), v6 = endpoint(false, 1, 0);

		memcpy(addrs[i], i % 2 ? v4.addr : v6.addr, 16);
		addrs[i][13] = (uint8_t)(i * 7919 >> 8);
		addrs[i][14] = (uint8_t)(i * 7919);
	}
	assert_int_equal(dmm_net_configure(r.net, 1500, (const uint8_t(*)[16])addrs, ADDRS), 0);
	for (i = 0; i < ADDRS; i++) {
		r.theirs = endpoint(i % 2, 2, 1234);
		memcpy(r.ours.addr, addrs[i], 16);
		r.now += SEC; /* replies to nobody are limited */
		peer_sends(&r, SYN, NULL, 0);
		assert_non_null(last(&r));
		r.ours.addr[15] = 3;
		peer_sends(&r, SYN, NULL, 0);
		assert_null(last(&r));
	}
	close_rig(&r);
}

/* RFC 1191, 5927; RFC9293 MUST-56 */
static void path_mtu_is_obeyed_if_it_is_about_us(void **state)
{
	static uint8_t data[10000];
	struct rig r;
	unsigned int i;

	(void)state;
	open_rig(&r, true);
	establish(&r, all_options, 4);
	dmm_net_send(r.conn, data, sizeof(data));
	settle(&r);
	assert_int_equal(r.out[0].len, 1460);
	r.n_out = 0;
	icmp_about(&r, r.iss - 5, 1000, EMSGSIZE, false); /* not on its way */
	icmp_about(&r, r.iss + 20000, 1000, EMSGSIZE, false);
	assert_null(last(&r));
	icmp_about(&r, r.iss + 1, 1000, EMSGSIZE, false);
	assert_true(r.n_out > 0);
	for (i = 0; i < r.n_out; i++)
		assert_in_range(r.out[i].len, 1, 960);
	r.n_out = 0;
	icmp_about(&r, r.iss + 1, 68, EMSGSIZE, false); /* no less than the least there is */
	pass(&r, SEC);
	assert_in_range(last(&r)->len, 1, 536);
	assert_int_equal(stats_of(&r).fast_recoveries, 0);
	icmp_about(&r, r.iss + 1, 0, EHOSTUNREACH, true);
	assert_non_null(r.conn);
	close_rig(&r);
}

static void a_hard_error_ends_an_attempt(void **state)
{
	struct dmm_net_conn *c;
	struct rig r;
	uint32_t seq;

	(void)state;
	open_rig(&r, true);
	assert_int_equal(dmm_net_connect(r.net, &r.ours, &r.theirs, NULL, r.now, &c), 0);
	settle(&r);
	seq = last(&r)->seq;
	icmp_about(&r, seq + 1, 0, ECONNREFUSED, true);
	icmp_about(&r, seq, 0, EHOSTUNREACH, false);
	assert_int_equal(r.err, 0);
	icmp_about(&r, seq, 0, ECONNREFUSED, true);
	assert_int_equal(r.err, ECONNREFUSED);
	close_rig(&r);
}

/* Of the interface, whatever the protocol asks of one: less than 1280 is no place for IPv6, so its
 * addresses are not ours there, and what is still sent from them fits. */
static void no_packet_is_longer_than_the_interface_takes(void **state)
{
	static uint8_t data[10000];
	unsigned int i;
	struct rig r;

	(void)state;
	open_rig(&r, false);
	establish(&r, all_options, 4);
	dmm_net_send(r.conn, data, sizeof(data));
	settle(&r);
	assert_int_equal(r.out[0].len, 1440);
	r.n_out = 0;
	assert_int_equal(dmm_net_configure(r.net, 1000, &r.ours.addr, 1), 0);
	pass(&r, 10 * SEC);
	assert_true(r.n_out > 3);
	for (i = 0; i < r.n_out; i++)
		assert_in_range(r.out[i].len, 1, 940);
	peer_sends(&r, ACK, "x", 1);
	assert_int_equal(stats_of(&r).not_ours, 1);
	assert_int_equal(dmm_net_configure(r.net, 1280, &r.ours.addr, 1), 0);
	peer_sends(&r, ACK, "x", 1);
	assert_int_equal(stats_of(&r).not_ours, 1);
	close_rig(&r);
}

/* --- fragments and extension headers --- */

/* The bytes [@from, @to) of an IPv4 packet's payload as a fragment. */
static void put_fragment(struct rig *r, const uint8_t *packet, size_t len, size_t from, size_t to)
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
	settle(r);
}

static void fragments_make_a_packet(void **state)
{
	static const uint8_t data[1000] = { 1, 2, 3 };
	const unsigned int orders[][3] = { { 0, 1, 2 }, { 2, 1, 0 }, { 1, 2, 0 } };
	const size_t ends[] = { 0, 24, 512, 1020 };
	uint8_t packet[2000];
	struct segment s;
	struct rig r;
	size_t i, j, len;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(orders); i++) {
		open_rig(&r, true);
		establish(&r, NULL, 0);
		s = segment_of(&r, ACK, data, sizeof(data));
		len = segment_build(&s, packet);
		for (j = 0; j < 3; j++) {
			assert_false(r.events & DMM_EV_READABLE);
			put_fragment(&r, packet, len, ends[orders[i][j]], ends[orders[i][j] + 1]);
		}
		assert_true(r.events & DMM_EV_READABLE);
		assert_int_equal(stats_of(&r).reassembled, 1);
		close_rig(&r);
	}
}

/* RFC 5722 */
static void overlapping_fragments_are_dropped(void **state)
{
	static const uint8_t data[1000] = { 1, 2, 3 };
	uint8_t packet[2000];
	struct segment s;
	struct rig r;
	size_t len;

	(void)state;
	open_rig(&r, true);
	establish(&r, NULL, 0);
	s = segment_of(&r, ACK, data, sizeof(data));
	len = segment_build(&s, packet);
	put_fragment(&r, packet, len, 0, 512);
	put_fragment(&r, packet, len, 504, 600);
	put_fragment(&r, packet, len, 512, 1020);
	put_fragment(&r, packet, len, 600, 1020);
	assert_false(r.events & DMM_EV_READABLE);
	pass(&r, 31 * SEC); /* and forgotten */
	put_fragment(&r, packet, len, 0, 512);
	put_fragment(&r, packet, len, 512, 1020);
	assert_true(r.events & DMM_EV_READABLE);
	close_rig(&r);
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
	struct rig r;
	size_t i, len;

	(void)state;
	open_rig(&r, true);
	establish(&r, NULL, 0);
	s = segment_of(&r, ACK, data, sizeof(data));
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
	assert_int_equal(stats_of(&r).fragments_dropped, 0);
	close_rig(&r);
}

static void fragments_cost_only_so_much(void **state)
{
	struct rig r;
	uint8_t packet[2000] = { 0 };
	struct segment s;
	unsigned int i;

	(void)state;
	open_rig(&r, true);
	s = segment_of(&r, ACK, packet, 1400);
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
	assert_in_range(stats_of(&r).memory, 1, 16 * 5000);
	close_rig(&r);
}

static void put_with_header(struct rig *r, uint8_t next, const uint8_t header[8])
{
	const struct segment s = segment_of(r, ACK, "abc", 3);
	uint8_t packet[2000], with[2000];
	const size_t len = segment_build(&s, packet);

	memcpy(with, packet, 40);
	memcpy(with + 40, header, 8);
	memcpy(with + 48, packet + 40, len - 40);
	with[6] = next;
	segment_put16(with + 4, (uint32_t)(len - 40 + 8));
	dmm_net_input(r->net, with, (uint32_t)len + 8, r->now);
	settle(r);
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
		struct rig r;

		open_rig(&r, false);
		establish(&r, NULL, 0);
		put_with_header(&r, cases[i].next, cases[i].header);
		assert_int_equal((r.events & DMM_EV_READABLE) != 0, cases[i].good);
		assert_int_equal(stats_of(&r).other_proto, cases[i].next == 51);
		close_rig(&r);
	}
}

/* The bytes [@from, @to) of an IPv6 packet's payload, which begins with a header @next. */
static void put_fragment6(struct rig *r, const uint8_t *packet, size_t len, uint8_t next,
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
	settle(r);
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
		struct rig r;

		open_rig(&r, false);
		establish(&r, NULL, 0);
		s = segment_of(&r, ACK, "abc", 3);
		len = segment_build(&s, packet) + 8;
		memmove(packet + 48, packet + 40, len - 48);
		memcpy(packet + 40, cases[i].header, 8);
		put_fragment6(&r, packet, len, cases[i].next, 16, len - 40);
		put_fragment6(&r, packet, len, cases[i].next, 0, 16);
		assert_int_equal((r.events & DMM_EV_READABLE) != 0, cases[i].good);
		assert_int_equal(stats_of(&r).reassembled, 1);
		assert_int_equal(stats_of(&r).bad_ip, !cases[i].good);
		close_rig(&r);
	}
}

/* --- when to send --- */

/* RFC9293 MUST-40, SHLD-18, SHLD-19 */
static void acks_are_delayed_and_every_second_is_not(void **state)
{
	static const uint8_t data[536];
	unsigned int i;
	struct rig r;

	(void)state;
	open_rig(&r, true);
	establish(&r, NULL, 0);
	for (i = 0; i < 16; i++) /* quick at the beginning */
		peer_sends(&r, ACK, data, sizeof(data));
	assert_int_equal(r.n_out, 16);
	r.n_out = 0;
	peer_sends(&r, ACK, data, sizeof(data));
	assert_null(last(&r));
	pass(&r, 39 * MS);
	assert_null(last(&r));
	pass(&r, 3 * MS);
	assert_int_equal(last(&r)->ack, r.seq);
	peer_sends(&r, ACK, data, sizeof(data));
	assert_null(last(&r));
	peer_sends(&r, ACK, data, sizeof(data));
	assert_int_equal(last(&r)->ack, r.seq);
	close_rig(&r);
}

/* Who closed first is found by the same peer again, at once: what was sent before is no part of what is
 * sent now. */
static void reopened_it_begins_behind_what_was_used(void **state)
{
	static const uint8_t data[60000];
	uint32_t used;
	struct rig r;

	(void)state;
	open_rig(&r, true);
	establish(&r, NULL, 0);
	assert_int_equal(dmm_net_send(r.conn, data, 4000), 4000);
	settle(&r);
	r.ack += 4000;
	peer_sends(&r, ACK, NULL, 0);
	assert_int_equal(dmm_net_send(r.conn, data, 60000), 60000);
	assert_int_equal(dmm_net_shutdown(r.conn), 0);
	for (unsigned int i = 0; i < 60 && r.ack != r.iss + 1 + 64000; i++) {
		settle(&r);
		for (unsigned int k = 0; k < r.n_out; k++)
			r.ack = DMM_MAX(r.ack, r.out[k].seq + r.out[k].len);
		r.n_out = 0;
		peer_sends(&r, ACK, NULL, 0);
	}
	r.ack++; /* its FIN */
	peer_sends(&r, FIN | ACK, NULL, 0);
	used = r.ack;
	last(&r);
	r.seq += 1000000;
	r.ack = 0;
	peer_sends(&r, SYN, NULL, 0);
	assert_non_null(&r.out[0]);
	assert_int_equal(r.n_out, 1);
	assert_int_equal(r.out[0].flags, SYN | ACK);
	assert_true((int32_t)(r.out[0].seq - used) > 0);
	close_rig(&r);
}

/* With cookies about, an ACK that could show one is not reset, since the one that does may come later; all
 * others are, as ever. */
static void strays_are_reset_beside_cookies(void **state)
{
	struct dmm_net_conn *listener;
	struct dmm_net_stats stats;
	const struct segment *out;
	unsigned int time, resets;
	struct rig r;

	(void)state;
	open_rig(&r, true);
	dmm_net_listen(r.net, &r.ours, 1, NULL, &listener);
	for (unsigned int i = 0; i < 2; i++) {
		r.theirs.port = htons(2000 + i);
		peer_sends(&r, SYN, NULL, 0);
	}
	dmm_net_get_stats(r.net, &stats);
	assert_int_equal(stats.cookies_sent, 1);
	last(&r);
	r.theirs.port = htons(3000);
	for (time = resets = 0; time < 32; time++) {
		r.now += SEC / 10; /* resets are limited */
		r.ack = (time << 27 | 12345) + 1;
		peer_sends(&r, ACK, NULL, 0);
		out = last(&r);
		assert_true(!out || out->flags == RST);
		resets += out != NULL;
	}
	assert_int_equal(resets, 30);
	close_rig(&r);
}

static void room_that_is_not_used_is_given_back(void **state)
{
	struct dmm_net_stats before, after;
	static uint8_t data[100];
	struct iovec iov[4];
	struct rig r;

	(void)state;
	open_rig(&r, true);
	establish(&r, NULL, 0);
	dmm_net_get_stats(r.net, &before);
	for (unsigned int used = 0; used <= 100; used += 100) {
		assert_true(dmm_net_send_reserve(r.conn, 9000, iov, DMM_ARRAY_SIZE(iov)) >= 3);
		memcpy(iov[0].iov_base, data, used);
		dmm_net_send_done(r.conn, used);
		settle(&r);
		r.ack += used;
		peer_sends(&r, ACK, NULL, 0);
		dmm_net_get_stats(r.net, &after);
		assert_int_equal(after.memory, before.memory);
	}
	close_rig(&r);
}

/* Every second full one of his (SHLD-19), whatever we could send. */
static void acks_go_by_the_peers_segments(void **state)
{
	static const uint8_t data[1400];
	unsigned int n_acks, i;
	uint32_t len;
	struct rig r;

	(void)state;
	for (len = 600; len <= 1400; len += 800) {
		open_rig(&r, true);
		establish(&r, NULL, 0);
		for (i = 0; i < 20; i++) /* those that are quick, and larger ones than will come */
			peer_sends(&r, ACK, data, 1400);
		peer_sends(&r, ACK, data, len);
		last(&r);
		for (i = n_acks = 0; i < 20; i++) {
			peer_sends(&r, ACK, data, len);
			n_acks += last(&r) != NULL;
			dmm_net_recv_done(r.conn, len);
		}
		assert_in_range(n_acks, 9, 11);
		close_rig(&r);
	}
}

/* A window of one segment does not wait for the delayed ACK. */
static void after_a_loss_acks_are_quick(void **state)
{
	static const uint8_t data[536];
	unsigned int loss, i;
	struct rig r;

	(void)state;
	for (loss = 0; loss < 2; loss++) {
		open_rig(&r, true);
		establish(&r, NULL, 0);
		for (i = 0; i < 20; i++)
			peer_sends(&r, ACK, data, sizeof(data));
		last(&r);
		if (loss == 0) { /* of what it sent */
			r.seq += sizeof(data);
			peer_sends(&r, ACK, data, sizeof(data));
			r.seq -= 2 * sizeof(data);
			peer_sends(&r, ACK, data, sizeof(data));
			r.seq += sizeof(data);
		} else { /* of our ACK */
			r.seq -= sizeof(data);
			peer_sends(&r, ACK, data, sizeof(data));
		}
		for (i = 0; i < 15; i++) {
			last(&r);
			peer_sends(&r, ACK, data, sizeof(data));
			assert_non_null(last(&r));
		}
		close_rig(&r);
	}
}

/* RFC9293 MUST-17 */
static void nagle_holds_small_ones_back(void **state)
{
	struct rig r;

	(void)state;
	open_rig(&r, true);
	establish(&r, NULL, 0);
	assert_int_equal(dmm_net_set_option(r.conn, DMM_NET_NODELAY, 0), 0);
	dmm_net_send(r.conn, "a", 1);
	settle(&r);
	assert_int_equal(last(&r)->len, 1);
	dmm_net_send(r.conn, "b", 1);
	settle(&r);
	dmm_net_send(r.conn, "c", 1);
	settle(&r);
	assert_null(last(&r));
	r.ack++;
	peer_sends(&r, ACK, NULL, 0);
	assert_int_equal(last(&r)->len, 2);
	assert_int_equal(dmm_net_set_option(r.conn, DMM_NET_NODELAY, 1), 0);
	dmm_net_send(r.conn, "d", 1);
	settle(&r);
	assert_int_equal(last(&r)->len, 1);
	close_rig(&r);
}

/* RFC9293 MUST-36, MUST-37 */
static void a_closed_window_is_probed_for_ever(void **state)
{
	struct segment s;
	unsigned int i;
	struct rig r;

	(void)state;
	open_rig(&r, true);
	establish(&r, NULL, 0);
	s = segment_of(&r, ACK, NULL, 0);
	s.window = 0;
	put(&r, &s);
	dmm_net_send(r.conn, "abc", 3);
	settle(&r);
	assert_null(last(&r));
	for (i = 0; i < 40; i++) {
		pass(&r, 125 * SEC);
		assert_true(r.n_out > 0);
		assert_int_equal(last(&r)->len, 1);
		put(&r, &s);
		assert_non_null(r.conn);
	}
	pass(&r, SEC);
	r.n_out = 0;
	s.window = 100;
	put(&r, &s);
	assert_int_equal(r.n_out, 2);
	assert_int_equal(r.out[0].seq, r.iss + 1);
	assert_int_equal(r.out[1].len, 2);
	close_rig(&r);
}

/* RFC9293 MUST-20, SHLD-11: R2; and it ends with a reset and an error */
static void who_never_answers_is_given_up(void **state)
{
	uint64_t begin;
	struct rig r;

	(void)state;
	open_rig(&r, true);
	establish(&r, NULL, 0);
	dmm_net_send(r.conn, "abc", 3);
	for (begin = r.now; r.conn && r.now - begin < 1000 * SEC;)
		pass(&r, SEC);
	assert_int_equal(r.err, ETIMEDOUT);
	assert_in_range((r.now - begin) / SEC, 100, 400);
	assert_true(last(&r)->flags & RST);
	close_rig(&r);
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
		cmocka_unit_test(acks_are_delayed_and_every_second_is_not),
		cmocka_unit_test(reopened_it_begins_behind_what_was_used),
		cmocka_unit_test(acks_go_by_the_peers_segments),
		cmocka_unit_test(room_that_is_not_used_is_given_back),
		cmocka_unit_test(strays_are_reset_beside_cookies),
		cmocka_unit_test(after_a_loss_acks_are_quick),
		cmocka_unit_test(nagle_holds_small_ones_back),
		cmocka_unit_test(a_closed_window_is_probed_for_ever),
		cmocka_unit_test(who_never_answers_is_given_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
