// SPDX-License-Identifier: Apache-2.0
/* Buffers of the native engine that grow with what a connection does: on long fat paths up to what
 * the config allows, elsewhere no farther than is of use. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "netsim.h"
#include "segment.h"

#define PORT  80
#define LARGE (1ull << 40)
#define MOST  (4u << 20)

struct seen {
	uint64_t received;
	uint32_t first, window; /* told by the receiver: with its SYN, the largest */
	uint32_t queued;	/* by the sender, at most */
};

/* 40 ms there and back. @rate 0: as fast as windows allow; else with a queue of 30 segments. @hold:
 * the receiver reads nothing. */
static struct seen run(uint64_t rate, uint64_t for_ns, bool hold, uint64_t memory)
{
	struct netsim_params params = {
		.seed = 31, .link = { { .delay = 20 * NETSIM_MS }, { .delay = 20 * NETSIM_MS } }
	};
	const struct netsim_conn server = { .keep_open = true, .hold = hold };
	struct netsim_conn client = { .to_send = LARGE, .keep_open = true };
	struct dmm_net_info info;
	struct seen seen = { .first = 0 };
	struct netsim *sim;
	uint64_t until;
	uint32_t window;
	unsigned int i;

	params.link[0].rate = rate;
	params.link[0].queue = 30;
	for (i = 0; i < 2; i++) {
		params.config[i].send_buffer = params.config[i].receive_buffer = MOST;
		params.config[i].buffer_memory = memory;
	}
	sim = netsim_new(&params);
	until = netsim_now(sim) + for_ns;
	netsim_listen(sim, 1, PORT, 4, &server);
	netsim_connect(sim, 0, 20000, PORT, &client);
	while (netsim_now(sim) < until && netsim_step(sim)) {
		struct netsim_conn *s = netsim_accepted(sim, 1);

		seen.queued = DMM_MAX(seen.queued,
				      client.conn ? (uint32_t)dmm_net_unsent(client.conn) : 0u);
		if (!s)
			continue;
		dmm_net_get_info(s->conn, &info);
		window = info.rcv_edge - info.rcv_nxt + info.unread;
		seen.first = seen.first ? seen.first : window;
		seen.window = DMM_MAX(seen.window, window);
		seen.received = s->received;
	}
	assert_int_equal(netsim_end(sim), 0);
	printf("# first %u, largest window %u, queued %u, received %llu\n", seen.first, seen.window,
	       seen.queued, (unsigned long long)seen.received);
	return seen;
}

static void they_begin_small_and_grow_to_the_limit(void **state)
{
	const struct seen s = run(0, 3 * NETSIM_SEC, false, 64 << 20);

	(void)state;
	assert_in_range(s.first, 60000, 65536);
	assert_in_range(s.window, MOST - 65536, MOST);
	assert_in_range(s.queued, MOST - 65536, MOST);
	/* a window each round trip, less what it takes to get there */
	assert_true(s.received > 2 * NETSIM_SEC / (40 * NETSIM_MS) * MOST);
}

/* A path that holds 100 kB gets no megabytes, and is full all the same. */
static void they_grow_no_farther_than_the_path(void **state)
{
	const struct seen s = run(2500000, 10 * NETSIM_SEC, false, 64 << 20);

	(void)state;
	assert_true(s.window < MOST / 2);
	assert_true(s.received > 10 * 2500000 * 9 / 10);
}

static void who_does_not_read_gets_no_more(void **state)
{
	const struct seen s = run(0, 3 * NETSIM_SEC, true, 64 << 20);

	(void)state;
	assert_in_range(s.window, 60000, 65536 * 9 / 8);
	assert_true(s.queued <= 512 << 10);
}

/* The engine's memory bounds what its connections ask for. */
static void memory_is_the_limit_of_all(void **state)
{
	const struct seen s = run(0, 3 * NETSIM_SEC, false, 2 << 20);

	(void)state;
	assert_true(s.window <= 512 << 10);
	assert_true(s.queued <= 2 << 20);
	assert_true(s.received > 3 << 20);
}

/* --- a peer of one byte each, in scaled windows --- */

#define UNIT 128u /* of 4 MiB */

struct rig {
	struct dmm_net *net;
	struct segment in, last; /* last: of the engine */
	struct dmm_net_conn *conn;
	uint64_t now;
};

static void put(struct rig *r, uint8_t flags, uint32_t seq, uint32_t len)
{
	uint8_t packet[2000];
	struct dmm_net_event ev;
	uint32_t n;

	r->in.flags = flags;
	r->in.seq = seq;
	r->in.len = len;
	dmm_net_input(r->net, packet, (uint32_t)segment_build(&r->in, packet), r->now);
	while (dmm_net_event(r->net, &ev))
		if (ev.events == DMM_NET_ACCEPTED)
			r->conn = ev.conn;
	while ((n = dmm_net_output(r->net, packet, sizeof(packet), r->now)))
		segment_parse(packet, n, &r->last);
	r->in.ack = r->last.seq + !!(r->last.flags & SYN);
}

/* Windows are told in units of 128 bytes, rounded up: if each ACK moved the edge for it, who sends a
 * byte at a time could fill all memory. Each old byte that comes again asks for an ACK. */
static void small_segments_fill_it_too(void **state)
{
	struct dmm_endpoint ours = { .addr = { [10] = 0xff, 0xff, 10, 0, 0, 1 },
				     .port = htons(80) };
	const struct dmm_net_config config = { .mtu = 1500,
					       .addrs = (const uint8_t(*)[16]) & ours.addr,
					       .n_addrs = 1,
					       .max_addrs = 1,
					       .max_conns = 4,
					       .send_buffer = MOST,
					       .receive_buffer = MOST,
					       .buffer_memory = 16 << 20 };
	struct rig r = { .now = 1000 * NETSIM_SEC };
	struct dmm_net_conn *listener;
	struct dmm_net_info info;
	void *memory = aligned_alloc(64, dmm_net_memory(&config));
	uint32_t seq = 1000, edge;

	(void)state;
	memset(memory, 0, dmm_net_memory(&config));
	assert_int_equal(dmm_net_create(&config, memory, r.now, &r.net), 0);
	dmm_net_listen(r.net, &ours, 4, NULL, &listener);
	r.in = (struct segment){ .dst = ours, .src = ours, .window = 60000, .v4 = true };
	r.in.src.addr[15] = 2;
	memcpy(r.in.options, (const uint8_t[]){ 1, 3, 3, 7 }, 4);
	r.in.options_len = 4;
	put(&r, SYN, seq++, 0);
	r.in.options_len = 0;
	put(&r, ACK, seq, 0);
	assert_non_null(r.conn);
	for (edge = seq + 1; seq < edge && seq < 1 << 20; seq++) {
		r.now += NETSIM_SEC;
		put(&r, ACK, seq, 1);
		put(&r, ACK, seq, 1);
		edge = r.last.ack + r.last.window * UNIT;
	}
	dmm_net_get_info(r.conn, &info);
	assert_in_range(info.unread, 60000, 65536 * 9 / 8);
	free(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(they_begin_small_and_grow_to_the_limit),
		cmocka_unit_test(they_grow_no_farther_than_the_path),
		cmocka_unit_test(who_does_not_read_gets_no_more),
		cmocka_unit_test(memory_is_the_limit_of_all),
		cmocka_unit_test(small_segments_fill_it_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
