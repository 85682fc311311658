// SPDX-License-Identifier: Apache-2.0
/* The plug-in `lwip`, packet by packet and in made-up time: the test is its network and its peer. */
#include <arpa/inet.h>
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "segment.h"
#include "stackhost.h"

#define MEMORY	 (256u * 1024)
#define OUR4	 "10.9.0.1"
#define OUR6	 "fd09::1"
#define PEER4	 "10.9.0.2"
#define PEER6	 "fd09::2"
#define PEER_ISN 1000u

/* A connection as the peer sees it. */
struct peer {
	struct stackhost *host;
	struct stackhost_conn c;
	struct dmm_endpoint us, them; /* us: the stack under test */
	uint32_t seq, ack;	      /* the peer's next, and what it expects */
	uint16_t mss;
};

static struct stackhost_params base = { .wire = -1,
					.mtu = 1500,
					.max_conns = 100,
					.conn_memory = MEMORY,
					.addrs = { OUR4, OUR6, "10.9.0.7" },
					.seed = 3,
					.manual_clock = true };

static const char *plugin_path(void)
{
	static char path[PATH_MAX * 2];
	char self[PATH_MAX] = "";

	assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	snprintf(path, sizeof(path), "%s/../../stacks/lwip.so", dirname(self));
	return path;
}

static struct stackhost *open_host(const struct stackhost_params *params)
{
	struct stackhost_params p = *params;
	struct stackhost *host;

	p.plugin = plugin_path();
	assert_int_equal(stackhost_open(&p, &host), 0);
	return host;
}

static void close_host(struct stackhost *host)
{
	assert_int_equal(stackhost_close(host), 0);
}

static unsigned int take_all(struct stackhost *host)
{
	struct segment s;
	unsigned int n = 0;

	while (segment_take(host, &s))
		n++;
	return n;
}

/* The peer's moves */

static struct segment from_peer(const struct peer *p, uint8_t flags, uint32_t seq)
{
	return (struct segment){ .src = p->them,
				 .dst = p->us,
				 .seq = seq,
				 .ack = p->ack,
				 .flags = flags,
				 .window = 0xffff,
				 .v4 = segment_is_v4(p->them.addr) };
}

static void peer_sends(struct peer *p, uint8_t flags, const void *data, uint32_t len)
{
	struct segment s = from_peer(p, flags | ACK, p->seq);

	memcpy(s.data, data, len);
	s.len = len;
	p->seq += len + (flags & FIN ? 1 : 0);
	segment_inject(p->host, &s);
}

static void answer_syn(struct peer *p, const struct segment *syn)
{
	struct segment s;

	p->us = syn->src;
	p->them = syn->dst;
	p->seq = PEER_ISN;
	p->ack = syn->seq + 1;
	s = from_peer(p, SYN | ACK, p->seq++);
	/* MSS, window scale 7 */
	memcpy(s.options, "\x02\x04\x00\x00\x01\x03\x03\x07", 8);
	segment_put16(s.options + 2, p->mss);
	s.options_len = 8;
	segment_inject(p->host, &s);
}

static void start(struct stackhost *host, const char *addr, uint16_t local_port, struct peer *p,
		  struct segment *ret_syn)
{
	p->host = host;
	assert_int_equal(stackhost_connect(host, addr, 80, local_port, &p->c), 0);
	assert_true(segment_take(host, ret_syn));
	assert_int_equal(ret_syn->flags, SYN);
	p->us = ret_syn->src;
	p->them = ret_syn->dst;
	p->ack = ret_syn->seq + 1;
	p->seq = PEER_ISN;
}

static void establish_from(struct stackhost *host, const char *addr, uint16_t local_port,
			   struct peer *p)
{
	struct segment s;

	start(host, addr, local_port, p, &s);
	if (!p->mss)
		p->mss = 1460;
	answer_syn(p, &s);
	assert_int_equal(p->c.seen, DMM_EV_CONNECTED);
	assert_true(segment_take(host, &s));
	assert_int_equal(s.flags, ACK);
	assert_int_equal(s.ack, PEER_ISN + 1);
}

static void establish(struct stackhost *host, const char *addr, struct peer *p)
{
	establish_from(host, addr, 0, p);
}

/* Both FINs, ours first. */
static void finish(struct peer *p)
{
	struct segment s;

	stackhost_close_conn(&p->c);
	assert_true(segment_take(p->host, &s));
	assert_int_equal(s.flags & (FIN | RST), FIN);
	p->ack = s.seq + s.len + 1;
	peer_sends(p, FIN, "", 0);
	assert_true(p->c.seen & DMM_EV_CLOSED);
	assert_true(segment_take(p->host, &s));
	assert_int_equal(s.flags, ACK);
	assert_int_equal(s.ack, p->seq);
}

/* @n full segments in one batch, from the peer's next byte on, without number @lost. */
static void burst(struct peer *p, unsigned int n, unsigned int lost)
{
	static uint8_t packets[DMM_PKTIO_BATCH][2000];
	struct dmm_frame frames[DMM_PKTIO_BATCH];
	unsigned int i, n_frames = 0;

	for (i = 0; i < n; i++, p->seq += 1460) {
		struct segment s = from_peer(p, ACK, p->seq);

		if (i == lost)
			continue;
		s.len = 1460;
		frames[n_frames] = (struct dmm_frame){ .data = packets[n_frames] };
		frames[n_frames].len = (uint32_t)segment_build(&s, packets[n_frames]);
		n_frames++;
	}
	stackhost_ops(p->host)->input(stackhost_stack(p->host), frames, n_frames);
}

/* Tests */

static void says_nothing_by_itself(void **state)
{
	struct stackhost *host = open_host(&base);
	struct dmm_stack *other;
	const struct dmm_stack_params params = { .options = "" };
	const struct dmm_host none = { .abi = DMM_STACK_ABI };

	(void)state;
	stackhost_pass(host, 200000);
	assert_int_equal(take_all(host), 0);
	assert_int_equal(stackhost_ops(host)->create(&params, &none, &other), -EBUSY);
	close_host(host);
}

static void mss_follows_mtu_and_peer(void **state)
{
	struct stackhost_params params = base;
	struct stackhost *host;
	struct segment s;
	struct peer p = { .mss = 700 }, q = { 0 };
	uint8_t data[3000] = { 0 };

	(void)state;
	params.mtu = 1400;
	host = open_host(&params);
	start(host, PEER4, 0, &p, &s);
	assert_int_equal(s.mss, 1360);
	answer_syn(&p, &s);
	take_all(host);
	assert_int_equal(stackhost_send(&p.c, data, sizeof(data)), sizeof(data));
	assert_true(segment_take(host, &s));
	assert_int_equal(s.len, 700);
	take_all(host);
	start(host, PEER6, 0, &q, &s);
	assert_int_equal(s.mss, 1340);
	close_host(host);
}

static void initial_sequence_numbers_are_the_hosts(void **state)
{
	struct stackhost *host = open_host(&base);
	struct peer p[4] = { 0 };
	struct segment s;
	int i;

	(void)state;
	for (i = 0; i < 4; i++) {
		start(host, PEER4, (uint16_t)(21000 + i), &p[i], &s);
		assert_int_equal(s.seq, stackhost_last_isn(host));
	}
	close_host(host);
}

static void refused_and_reset(void **state)
{
	const char *addrs[] = { PEER4, PEER6 };
	struct stackhost *host = open_host(&base);
	struct segment s;
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct peer p = { 0 }, q = { 0 };
		char buf[8];

		start(host, addrs[i], 0, &p, &s);
		s = from_peer(&p, RST | ACK, 0);
		s.ack++; /* not about our SYN */
		segment_inject(host, &s);
		assert_int_equal(p.c.told, 0);
		s.ack--;
		segment_inject(host, &s);
		assert_int_equal(p.c.seen, DMM_EV_ERROR);
		assert_int_equal(p.c.err, ECONNREFUSED);

		establish(host, addrs[i], &q);
		peer_sends(&q, PSH, "abc", 3);
		assert_int_equal(stackhost_recv(&q.c, buf, sizeof(buf)), 3);
		s = from_peer(&q, RST | ACK, q.seq);
		segment_inject(host, &s);
		assert_true(q.c.seen & DMM_EV_ERROR);
		assert_int_equal(q.c.err, ECONNRESET);
	}
	close_host(host);
}

static void gives_up_as_late_as_the_kernel(void **state)
{
	struct stackhost *host = open_host(&base);
	const uint64_t began = stackhost_now(host);
	struct peer p = { 0 };
	struct segment s;
	unsigned int syns = 1, first = 0, ms;

	(void)state;
	start(host, PEER4, 0, &p, &s);
	for (ms = 0; !p.c.told && ms < 200000; ms += 100) {
		stackhost_pass(host, 100);
		while (segment_take(host, &s)) {
			assert_int_equal(s.flags, SYN);
			assert_int_equal(s.seq + 1, p.ack);
			first = syns++ == 1 ? ms : first;
		}
	}
	assert_int_equal(p.c.err, ETIMEDOUT);
	assert_int_equal(syns, 7);
	assert_in_range(first, 400, 1200);
	assert_in_range((stackhost_now(host) - began) / 1000000, 125000, 129000);
	close_host(host);
}

/* What must neither get an answer nor do harm. */
static void foreign_packets_do_nothing(void **state)
{
	static const struct {
		const char *src, *dst;
	} bad[] = {
		{ OUR4, OUR4 },		{ "10.9.0.7", OUR4 },	{ "127.0.0.1", OUR4 },
		{ "0.0.0.0", OUR4 },	{ "224.0.0.1", OUR4 },	{ "255.255.255.255", OUR4 },
		{ PEER4, "10.9.0.9" },	{ PEER4, "224.0.0.1" }, { PEER4, "255.255.255.255" },
		{ PEER4, "127.0.0.1" }, { PEER4, "0.0.0.0" },	{ OUR6, OUR6 },
		{ "::", OUR6 },		{ "::1", OUR6 },	{ "ff02::1", OUR6 },
		{ PEER6, "fd09::9" },	{ PEER6, "ff02::1" },	{ PEER6, "::1" },
	};
	static const uint8_t kinds[] = { SYN, ACK, SYN | ACK, FIN | ACK, PSH | ACK };
	struct stackhost *host = open_host(&base);
	struct stackhost_listener l4 = { 0 }, l6 = { 0 };
	struct peer p = { 0 };
	struct segment s;
	size_t i, k;

	(void)state;
	assert_int_equal(stackhost_listen(host, OUR4, 80, 5, &l4), 0);
	assert_int_equal(stackhost_listen(host, OUR6, 80, 5, &l6), 0);
	establish(host, PEER4, &p);
	for (i = 0; i < DMM_ARRAY_SIZE(bad); i++) {
		for (k = 0; k < DMM_ARRAY_SIZE(kinds); k++) {
			s = (struct segment){ .seq = 5, .window = 100, .flags = kinds[k] };
			assert_true(stackhost_endpoint(bad[i].src, 80, &s.src));
			assert_true(stackhost_endpoint(bad[i].dst, 80, &s.dst));
			s.v4 = segment_is_v4(s.dst.addr);
			segment_inject(host, &s);
			if (segment_take(host, &s))
				fail_msg("answers %s -> %s flags %d", bad[i].src, bad[i].dst,
					 kinds[k]);
		}
	}
	stackhost_pass(host, 30000);
	assert_int_equal(take_all(host), 0);
	peer_sends(&p, PSH, "alive", 5);
	assert_true(p.c.seen & DMM_EV_READABLE);
	close_host(host);
}

static void make_fragment(uint8_t *packet, uint32_t offset, uint32_t len)
{
	segment_put16(packet + 2, len);
	segment_put16(packet + 6, offset);
	segment_put16(packet + 10, 0);
	segment_put16(packet + 10, segment_checksum(packet, 20, 0));
}

static void broken_packets_do_nothing(void **state)
{
	struct stackhost *host = open_host(&base);
	struct stackhost_listener l = { 0 };
	struct segment s = { .seq = 5, .window = 100, .flags = SYN, .v4 = true };
	uint8_t packet[2000], copy[2000];
	size_t len, i;
	int v4;

	(void)state;
	assert_int_equal(stackhost_listen(host, OUR4, 80, 500, &l), 0);
	for (v4 = 0; v4 < 2; v4++) {
		s.v4 = v4;
		assert_true(stackhost_endpoint(v4 ? PEER4 : PEER6, 4000, &s.src));
		assert_true(stackhost_endpoint(v4 ? OUR4 : OUR6, 80, &s.dst));
		memcpy(s.options, "\x02\x04\x05\xb4", s.options_len = 4);
		len = segment_build(&s, packet);
		for (i = 0; i < len; i++) /* every truncation */
			stackhost_input(host, packet, i);
		assert_int_equal(take_all(host), 0);
		for (i = v4 ? 20 : 40; i < len; i++) { /* any byte of TCP is another */
			memcpy(copy, packet, len);
			copy[i] ^= 0x40;
			stackhost_input(host, copy, len);
		}
		assert_int_equal(take_all(host), 0);
	}
	/* v4 again, in two fragments */
	s.len = 24;
	len = segment_build(&s, packet);
	memcpy(copy, packet, len);
	make_fragment(packet, 0x2000, 44);
	stackhost_input(host, packet, 44);
	memmove(copy + 20, copy + 44, 24);
	make_fragment(copy, 3, 44);
	stackhost_input(host, copy, 44);
	assert_int_equal(take_all(host), 0);
	segment_inject(host, &s); /* and the same as it should be */
	assert_int_equal(take_all(host), 1);
	close_host(host);
}

static void listens_within_its_backlog(void **state)
{
	const char *ours[] = { OUR4, OUR6 }, *peers[] = { PEER4, PEER6 };
	struct stackhost *host = open_host(&base);
	struct stackhost_listener l[2] = { 0 };
	struct segment s = { .flags = SYN, .window = 1000 };
	int i, n;

	(void)state;
	for (i = 0; i < 2; i++) {
		assert_int_equal(stackhost_listen(host, ours[i], 80, 4, &l[i]), 0);
		s.v4 = i == 0;
		s.flags = SYN;
		s.seq = 100;
		assert_true(stackhost_endpoint(ours[i], 80, &s.dst));
		for (n = 0; n < 10; n++) {
			assert_true(stackhost_endpoint(peers[i], (uint16_t)(5000 + n), &s.src));
			segment_inject(host, &s);
		}
		assert_int_equal(take_all(host), 4);
		stackhost_pass(host, 60000); /* they are given up */
		take_all(host);
		segment_inject(host, &s);
		assert_true(segment_take(host, &s));
		assert_int_equal(s.flags, SYN | ACK);
		assert_int_equal(s.seq, stackhost_last_isn(host));
		s = (struct segment){ .src = s.dst,
				      .dst = s.src,
				      .seq = 101,
				      .ack = s.seq + 1,
				      .flags = ACK,
				      .window = 1000,
				      .v4 = i == 0 };
		segment_inject(host, &s);
		assert_int_equal(l[i].accepted, 1);
		stackhost_close_conn(&l[i].self);
		stackhost_pass(host, 1);
		assert_true(l[i].self.seen & DMM_EV_CLOSED);
	}
	close_host(host);
}

static void time_wait_costs_nobody_a_port(void **state)
{
	struct stackhost *host = open_host(&base);
	struct dmm_stack_stats stats;
	struct peer p = { 0 };
	struct segment s, fin;
	int i;

	(void)state;
	establish_from(host, PEER4, 22000, &p);
	finish(&p);
	/* our last ACK was lost: the FIN comes again */
	fin = from_peer(&p, FIN | ACK, p.seq - 1);
	segment_inject(host, &fin);
	assert_true(segment_take(host, &s));
	assert_int_equal(s.flags, ACK);
	assert_int_equal(s.ack, p.seq);
	/* and the very same port serves at once */
	for (i = 0; i < 5; i++) {
		p = (struct peer){ 0 };
		establish_from(host, PEER4, 22000, &p);
		finish(&p);
	}
	for (i = 0; i < 600; i++) {
		p = (struct peer){ 0 };
		establish(host, PEER6, &p);
		finish(&p);
	}
	stackhost_ops(host)->stats(stackhost_stack(host), &stats);
	assert_in_range(stats.time_wait, 100, 256);
	assert_int_equal(stats.conns, 0);
	assert_int_equal(stats.memory, 0);
	close_host(host);

	host = open_host(&base); /* nothing is left of it, though lwIP stays in the process */
	stackhost_ops(host)->stats(stackhost_stack(host), &stats);
	assert_int_equal(stats.time_wait, 0);
	close_host(host);
}

static void a_peer_may_reuse_its_tuple(void **state)
{
	struct stackhost *host = open_host(&base);
	struct stackhost_listener l = { 0 };
	struct segment s = { .flags = SYN, .window = 1000, .v4 = true }, r, a;
	struct peer p = { .mss = 1460 };

	(void)state;
	assert_int_equal(stackhost_listen(host, OUR4, 80, 4, &l), 0);
	assert_true(stackhost_endpoint(OUR4, 80, &s.dst));
	assert_true(stackhost_endpoint(PEER4, 5000, &s.src));
	/* a connection of ours from port 80, so that TIME-WAIT is on the listener's port */
	p.host = host;
	assert_int_equal(stackhost_connect(host, PEER4, 5000, 80, &p.c), 0);
	assert_true(segment_take(host, &r));
	answer_syn(&p, &r);
	take_all(host);
	finish(&p);
	s.seq = p.seq + 1000;
	segment_inject(host, &s);
	assert_true(segment_take(host, &a));
	assert_int_equal(a.flags, SYN | ACK);
	assert_int_equal(a.ack, s.seq + 1);
	close_host(host);
}

static void icmp_ends_an_attempt(void **state)
{
	struct stackhost *host = open_host(&base);
	const struct dmm_stack_ops *ops = stackhost_ops(host);
	struct peer p = { 0 };
	struct dmm_icmp icmp = { .err = EHOSTUNREACH };
	struct segment s;

	(void)state;
	start(host, PEER4, 0, &p, &s);
	icmp.local = p.us;
	icmp.remote = p.them;
	icmp.seq = s.seq;
	ops->icmp(stackhost_stack(host), &icmp); /* soft */
	assert_int_equal(p.c.told, 0);
	icmp.hard = true;
	icmp.seq = s.seq + 100; /* nothing of ours */
	ops->icmp(stackhost_stack(host), &icmp);
	assert_int_equal(p.c.told, 0);
	icmp.seq = s.seq;
	ops->icmp(stackhost_stack(host), &icmp);
	assert_int_equal(p.c.seen, DMM_EV_ERROR);
	assert_int_equal(p.c.err, EHOSTUNREACH);
	assert_int_equal(take_all(host), 0);

	p = (struct peer){ 0 };
	establish(host, PEER4, &p);
	icmp.local = p.us;
	icmp.seq = p.ack;
	ops->icmp(stackhost_stack(host), &icmp);
	stackhost_pass(host, 1);
	assert_false(p.c.seen & DMM_EV_ERROR);
	close_host(host);
}

static void path_mtu_is_obeyed(void **state)
{
	const char *addrs[] = { PEER4, PEER6 };
	struct stackhost *host = open_host(&base);
	const struct dmm_stack_ops *ops = stackhost_ops(host);
	size_t i, a;

	(void)state;
	for (a = 0; a < 2; a++) {
		const uint32_t mss = a ? 1280 - 60 : 1000 - 40;
		struct dmm_icmp icmp = { .err = EMSGSIZE, .mtu = a ? 1100 : 1000 };
		uint8_t data[12000], got[12000];
		struct peer p = { .mss = 1440 };
		struct segment s;
		uint32_t first;

		for (i = 0; i < sizeof(data); i++)
			data[i] = (uint8_t)(i * 7 ^ i >> 8);
		establish(host, addrs[a], &p);
		first = p.ack;
		assert_int_equal(stackhost_send(&p.c, data, sizeof(data)), sizeof(data));
		assert_true(segment_take(host, &s));
		assert_int_equal(s.len, 1440);
		take_all(host);
		icmp.local = p.us;
		icmp.remote = p.them;
		icmp.seq = s.seq;
		ops->icmp(stackhost_stack(host), &icmp);
		/* all comes again, in pieces that fit, as the window of the sender allows */
		for (i = 0; p.ack != first + sizeof(data) && i < 100; i++) {
			while (segment_take(host, &s)) {
				assert_in_range(s.len, 1, mss);
				memcpy(got + (s.seq - first), s.data, s.len);
				if (s.seq == p.ack)
					p.ack += s.len;
			}
			peer_sends(&p, 0, "", 0);
		}
		assert_int_equal(p.ack, first + sizeof(data));
		assert_memory_equal(got, data, sizeof(data));
		assert_int_equal(ops->unsent(p.c.conn), 0);
		assert_int_equal(stackhost_send(&p.c, data, 5000), 5000);
		assert_true(segment_take(host, &s));
		assert_int_equal(s.len, mss);
		take_all(host);
		stackhost_abort(&p.c);
		take_all(host);
	}
	close_host(host);
}

static void waits_for_frames(void **state)
{
	struct stackhost *host = open_host(&base);
	struct peer p = { 0 };
	struct segment s;

	(void)state;
	establish(host, PEER4, &p);
	stackhost_set_starved(host, true);
	assert_int_equal(stackhost_send(&p.c, "later", 5), 5);
	stackhost_pass(host, 5);
	assert_int_equal(take_all(host), 0);
	stackhost_set_starved(host, false);
	stackhost_pass(host, 5); /* no retransmission timer's job */
	assert_true(segment_take(host, &s));
	assert_int_equal(s.len, 5);
	close_host(host);
}

static uint64_t memory_of(struct stackhost *host)
{
	struct dmm_stack_stats stats;

	stackhost_ops(host)->stats(stackhost_stack(host), &stats);
	return stats.memory;
}

static void unread_bytes_close_the_window(void **state)
{
	struct stackhost *host = open_host(&base);
	uint8_t data[1460], buf[4096];
	struct segment s = { 0 };
	struct peer p = { 0 };
	uint32_t sent = 0, got = 0, window = 0xffff, i;

	(void)state;
	establish(host, PEER4, &p);
	while (window >= sizeof(data) && sent < 10 * MEMORY) {
		for (i = 0; i < sizeof(data); i++)
			data[i] = (uint8_t)((sent + i) * 11 >> 3);
		peer_sends(&p, PSH, data, sizeof(data));
		sent += sizeof(data);
		stackhost_pass(host, 300); /* no ACK is delayed for longer */
		while (segment_take(host, &s))
			window = (uint32_t)s.window << 1;
		assert_int_equal(s.ack, p.seq);
	}
	assert_in_range(sent, 100000, 131070);
	assert_in_range(memory_of(host), sent, MEMORY + 2000);
	stackhost_pass(host, 10000);
	assert_int_equal(take_all(host), 0);
	while (got < sent) {
		const size_t n = stackhost_recv(&p.c, buf, sizeof(buf));

		assert_true(n > 0);
		for (i = 0; i < n; i++)
			assert_int_equal(buf[i], (uint8_t)((got + i) * 11 >> 3));
		got += (uint32_t)n;
		while (segment_take(host, &s)) /* no more is offered than there is room for */
			assert_in_range((uint32_t)s.window << 1, 1, 131070 - (sent - got));
		window = (uint32_t)s.window << 1;
	}
	assert_in_range(window, 100000, 131070);
	close_host(host);
}

static void small_segments_cost_what_they_carry(void **state)
{
	struct stackhost *host = open_host(&base);
	struct peer p = { 0 };
	uint32_t i, got = 0;
	uint8_t buf[3000];

	(void)state;
	establish(host, PEER4, &p);
	for (i = 0; i < 60000; i++) {
		buf[0] = (uint8_t)(i * 13 >> 4);
		peer_sends(&p, PSH, buf, 1);
		take_all(host);
	}
	assert_in_range(memory_of(host), 60000, 100000);
	while (got < 60000) {
		const size_t n = stackhost_recv(&p.c, buf, sizeof(buf));

		assert_true(n > 0);
		for (i = 0; i < n; i++)
			assert_int_equal(buf[i], (uint8_t)((got + i) * 13 >> 4));
		got += (uint32_t)n;
	}
	close_host(host);
}

static void memory_is_refused_in_the_end(void **state)
{
	struct stackhost_params params = base;
	struct stackhost *host;
	struct peer p = { 0 };
	struct segment s;
	uint32_t i, acked = 0;

	(void)state;
	params.conn_memory = 20000;
	host = open_host(&params);
	establish(host, PEER4, &p);
	for (i = 0; i < 100; i++) { /* such a mix costs most: the window alone would let it in */
		uint8_t data[520] = { 0 };

		peer_sends(&p, PSH, data, i & 1 ? 1 : sizeof(data));
		stackhost_pass(host, 300);
		while (segment_take(host, &s))
			acked = s.ack;
		p.seq = acked; /* the rest would be sent again */
	}
	assert_in_range(memory_of(host), 10000, 20000 + 2000);
	/* what was acknowledged is there at once, refused or not */
	while (stackhost_recv(&p.c, s.data, sizeof(s.data)))
		;
	assert_in_range(p.c.received, 2000, 12000);
	assert_int_equal(p.c.received, acked - PEER_ISN - 1);
	close_host(host);
}

static void bytes_before_a_reset_are_read(void **state)
{
	struct stackhost *host = open_host(&base);
	struct peer p = { 0 };
	struct segment s;
	struct dmm_frame frames[2];
	uint8_t packets[2][2000];

	(void)state;
	establish(host, PEER4, &p);
	s = from_peer(&p, PSH | ACK, p.seq);
	memcpy(s.data, "last", s.len = 4);
	frames[0] = (struct dmm_frame){ .data = packets[0],
					.len = (uint32_t)segment_build(&s, packets[0]) };
	s = from_peer(&p, RST | ACK, p.seq + 4);
	frames[1] = (struct dmm_frame){ .data = packets[1],
					.len = (uint32_t)segment_build(&s, packets[1]) };
	stackhost_ops(host)->input(stackhost_stack(host), frames, 2); /* one batch */
	assert_int_equal(p.c.told, 3);
	assert_int_equal(p.c.seen, DMM_EV_CONNECTED | DMM_EV_READABLE | DMM_EV_ERROR);
	close_host(host);
}

static void orphans_end(void **state)
{
	struct stackhost *host = open_host(&base);
	struct peer p = { 0 }, q = { 0 };
	struct segment s;

	(void)state;
	/* bytes for one that is closed: the peer learns that they are lost */
	establish(host, PEER4, &p);
	stackhost_close_conn(&p.c);
	assert_true(segment_take(host, &s));
	p.ack = s.seq + 1;
	peer_sends(&p, PSH, "x", 1);
	assert_true(segment_take(host, &s));
	assert_true(s.flags & RST);
	assert_true(p.c.seen & DMM_EV_CLOSED);

	/* a peer that never closes its side */
	establish(host, PEER6, &q);
	stackhost_close_conn(&q.c);
	assert_true(segment_take(host, &s));
	q.ack = s.seq + 1;
	peer_sends(&q, 0, "", 0);
	stackhost_pass(host, 50000);
	assert_false(q.c.seen & DMM_EV_CLOSED);
	stackhost_pass(host, 15000);
	assert_true(q.c.seen & DMM_EV_CLOSED);

	/* one that vanished: retransmissions end some time */
	q = (struct peer){ 0 };
	establish(host, PEER6, &q);
	assert_int_equal(stackhost_send(&q.c, "x", 1), 1);
	stackhost_pass(host, 4000 * 1000);
	assert_int_equal(q.c.err, ETIMEDOUT);
	take_all(host);
	close_host(host);
}

static void simultaneous_close(void **state)
{
	struct stackhost *host = open_host(&base);
	struct peer p = { 0 };
	struct segment s;

	(void)state;
	establish(host, PEER4, &p);
	stackhost_close_conn(&p.c);
	assert_true(segment_take(host, &s));
	peer_sends(&p, FIN, "", 0); /* sent before it saw ours */
	take_all(host);
	assert_false(p.c.seen & DMM_EV_CLOSED);
	p.ack = s.seq + 1;
	peer_sends(&p, 0, "", 0);
	assert_true(p.c.seen & DMM_EV_CLOSED);
	close_host(host);
}

static void refuses_what_cannot_be(void **state)
{
	struct stackhost_params params = base;
	struct stackhost *host;
	struct stackhost_conn c[3] = { 0 };
	struct dmm_connect args;
	struct dmm_conn *conn;

	(void)state;
	params.max_conns = 2;
	host = open_host(&params);
	assert_int_equal(stackhost_connect(host, PEER4, 80, 0, &c[0]), 0);
	assert_int_equal(stackhost_connect(host, PEER4, 80, 0, &c[1]), 0);
	assert_int_equal(stackhost_connect(host, PEER4, 80, 0, &c[2]), -ENOMEM);
	assert_int_equal(stackhost_connect(host, OUR4, 80, 0, &c[2]), -EHOSTUNREACH);
	args = (struct dmm_connect){ .local = c[0].remote, .remote = c[0].remote };
	assert_int_equal(stackhost_ops(host)->connect(stackhost_stack(host), &args, &conn),
			 -EADDRNOTAVAIL);
	take_all(host);
	close_host(host);
}

static void addresses_come_and_go(void **state)
{
	struct stackhost *host = open_host(&base);
	struct dmm_stack_params params = {
		.mtu = 1200, .max_conns = 10, .conn_memory = MEMORY, .options = ""
	};
	uint8_t data[3000] = { 0 };
	struct dmm_endpoint ep;
	struct peer p = { 0 };
	struct segment s;

	(void)state;
	establish(host, PEER4, &p);
	assert_true(stackhost_endpoint(OUR4, 0, &ep));
	params.addrs = (const uint8_t(*)[16]) & ep.addr;
	params.n_addrs = 1;
	stackhost_ops(host)->configure(stackhost_stack(host), &params);
	assert_int_equal(stackhost_send(&p.c, data, sizeof(data)), sizeof(data));
	assert_true(segment_take(host, &s));
	assert_int_equal(s.len, 1160);
	take_all(host);
	params.n_addrs = 0;
	stackhost_ops(host)->configure(stackhost_stack(host), &params);
	peer_sends(&p, PSH, "x", 1);
	assert_false(p.c.seen & DMM_EV_READABLE);
	stackhost_abort(&p.c);
	take_all(host);
	close_host(host);
}

static void out_of_order_bytes_are_limited(void **state)
{
	struct stackhost *host = open_host(&base);
	struct peer p = { 0 };
	struct segment s;
	uint32_t i;

	(void)state;
	establish(host, PEER4, &p);
	for (i = 0; i < 4000; i++) { /* every other byte */
		s = from_peer(&p, PSH | ACK, p.seq + 2 + 2 * i);
		s.len = 1;
		segment_inject(host, &s);
		take_all(host);
		assert_in_range(memory_of(host), 0, MEMORY + 2000);
	}
	/* the rest, in order: all 8000 bytes come out, whatever was let go */
	for (i = 0; i < 8000; i += 1000) {
		uint8_t data[1000] = { 0 }, buf[9000];

		peer_sends(&p, PSH, data, sizeof(data));
		stackhost_recv(&p.c, buf, sizeof(buf));
	}
	take_all(host);
	assert_in_range(p.c.received, 8000, 8001);
	close_host(host);
}

/* With the window that the reader has opened by then. */
static void one_ack_answers_a_burst(void **state)
{
	const char *addrs[] = { PEER4, PEER6 };
	struct stackhost *host = open_host(&base);
	static uint8_t buf[32 * 1460];
	struct segment s;
	uint16_t window;
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct peer p = { 0 }, q = { 0 };

		establish(host, addrs[i], &p);
		establish(host, addrs[i], &q);
		burst(&p, 2, UINT_MAX);
		stackhost_pass(host, 0);
		assert_true(segment_take(host, &s));
		window = s.window;
		burst(&p, 30, UINT_MAX);
		burst(&q, 30, UINT_MAX);
		assert_int_equal(stackhost_recv(&p.c, buf, sizeof(buf)), 32 * 1460);
		stackhost_pass(host, 0);
		assert_true(segment_take(host, &s));
		assert_int_equal(s.dst.port, p.them.port);
		assert_int_equal(s.src.port, p.us.port);
		assert_int_equal(s.ack, p.seq);
		assert_true(s.window > window);
		assert_true(segment_take(host, &s));
		assert_int_equal(s.src.port, q.us.port);
		assert_int_equal(s.ack, q.seq);
		assert_int_equal(take_all(host), 0);
	}
	close_host(host);
}

/* They are how the peer learns of a loss, and how much of what follows has arrived. */
static void duplicate_acks_are_all_sent(void **state)
{
	struct stackhost *host = open_host(&base);
	struct segment s;
	struct peer p = { 0 };
	uint32_t begin;
	int i;

	(void)state;
	establish(host, PEER4, &p);
	begin = p.seq;
	burst(&p, 12, 4);
	stackhost_pass(host, 0);
	for (i = 0; i < 1 + 7; i++) {
		assert_true(segment_take(host, &s));
		assert_int_equal(s.ack, begin + 4 * 1460);
	}
	assert_int_equal(take_all(host), 0);
	close_host(host);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(says_nothing_by_itself),
		cmocka_unit_test(mss_follows_mtu_and_peer),
		cmocka_unit_test(initial_sequence_numbers_are_the_hosts),
		cmocka_unit_test(refused_and_reset),
		cmocka_unit_test(gives_up_as_late_as_the_kernel),
		cmocka_unit_test(foreign_packets_do_nothing),
		cmocka_unit_test(broken_packets_do_nothing),
		cmocka_unit_test(listens_within_its_backlog),
		cmocka_unit_test(time_wait_costs_nobody_a_port),
		cmocka_unit_test(a_peer_may_reuse_its_tuple),
		cmocka_unit_test(icmp_ends_an_attempt),
		cmocka_unit_test(path_mtu_is_obeyed),
		cmocka_unit_test(waits_for_frames),
		cmocka_unit_test(unread_bytes_close_the_window),
		cmocka_unit_test(small_segments_cost_what_they_carry),
		cmocka_unit_test(memory_is_refused_in_the_end),
		cmocka_unit_test(bytes_before_a_reset_are_read),
		cmocka_unit_test(orphans_end),
		cmocka_unit_test(simultaneous_close),
		cmocka_unit_test(refuses_what_cannot_be),
		cmocka_unit_test(addresses_come_and_go),
		cmocka_unit_test(out_of_order_bytes_are_limited),
		cmocka_unit_test(one_ack_answers_a_burst),
		cmocka_unit_test(duplicate_acks_are_all_sent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
