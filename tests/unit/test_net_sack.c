// SPDX-License-Identifier: Apache-2.0
/* What SACK blocks cost that a peer chooses to be expensive (CVE-2019-11478), counted in steps of
 * searching; and that those of an honest one are all taken. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/bytes.h"
#include "net/net_internal.h"
#include "segment.h"

#define MSS    100u
#define FLIGHT 8000u /* segments */
#define ACKS   2000u

struct rig {
	struct dmm_net *net;
	void *memory;
	struct dmm_net_conn *conn;
	struct segment in;
	uint64_t now;
	uint32_t una; /* the flight's first byte */
};

static void put(struct rig *r, uint8_t flags)
{
	uint8_t packet[2000];
	struct dmm_net_event ev;

	r->in.flags = flags;
	dmm_net_input(r->net, packet, (uint32_t)segment_build(&r->in, packet), r->now);
	while (dmm_net_event(r->net, &ev))
		if (ev.events == DMM_NET_ACCEPTED)
			r->conn = ev.conn;
}

static void take_all(struct rig *r, struct segment *last)
{
	uint8_t packet[2000];
	uint32_t n;

	while ((n = dmm_net_output(r->net, packet, sizeof(packet), r->now)))
		segment_parse(packet, n, last);
}

/* @FLIGHT segments are on their way; nothing is heard of them yet. */
static void begin(struct rig *r)
{
	struct dmm_endpoint ours = { .addr = { [10] = 0xff, 0xff, 10, 0, 0, 1 },
				     .port = htons(80) };
	const struct dmm_net_config config = { .mtu = 1500,
					       .addrs = (const uint8_t(*)[16]) & ours.addr,
					       .n_addrs = 1,
					       .max_addrs = 1,
					       .max_conns = 4,
					       .send_buffer = 4 << 20,
					       .receive_buffer = 1 << 20,
					       .buffer_memory = 128 << 20,
					       .no_pacing = true };
	static const uint8_t bytes[FLIGHT * MSS];
	struct dmm_net_conn *listener;
	struct segment last;

	*r = (struct rig){ .now = 1000 * NET_SEC };
	r->memory = aligned_alloc(64, dmm_net_memory(&config));
	assert_int_equal(dmm_net_create(&config, r->memory, r->now, &r->net), 0);
	dmm_net_listen(r->net, &ours, 4, NULL, &listener);
	r->in = (struct segment){ .dst = ours, .src = ours, .window = 60000, .v4 = true };
	r->in.src.addr[15] = 2;
	r->in.options_len = 12; /* MSS, window scale, SACK permitted */
	memcpy(r->in.options, (const uint8_t[]){ 2, 4, 0, MSS, 3, 3, 7, 4, 2, 1, 1, 1 }, 12);
	put(r, SYN);
	take_all(r, &last);
	r->in.options_len = 0;
	r->in.seq++;
	r->in.ack = r->una = last.seq + 1;
	put(r, ACK);
	r->conn->cwnd = FLIGHT * MSS;
	assert_int_equal(dmm_net_send(r->conn, bytes, sizeof(bytes)), sizeof(bytes));
	take_all(r, &last);
	assert_int_equal(r->conn->n_sent, FLIGHT);
}

static void finish(struct rig *r)
{
	free(r->memory);
}

/* An ACK with @n blocks, in bytes of the flight. It comes at once: nothing is held lost. */
static void sack(struct rig *r, unsigned int n, const uint32_t blocks[][2])
{
	unsigned int i;

	r->in.options_len = 4 + 8 * n;
	memcpy(r->in.options, (const uint8_t[]){ 1, 1, 5, (uint8_t)(2 + 8 * n) }, 4);
	for (i = 0; i < n; i++) {
		put32(r->in.options + 4 + 8 * i, r->una + blocks[i][0]);
		put32(r->in.options + 8 + 8 * i, r->una + blocks[i][1]);
	}
	put(r, ACK);
}

static uint32_t dice(uint32_t *state, uint32_t n)
{
	*state = *state * 1664525 + 1013904223;
	return (*state >> 8) % n;
}

/* Each ACK tells what is known, in blocks that begin elsewhere. */
static void what_is_known_is_passed_in_one(void **state)
{
	uint32_t i, k, seed = 1, half = FLIGHT / 2 * MSS;
	uint64_t steps;
	struct rig r;

	(void)state;
	begin(&r);
	sack(&r, 1, (const uint32_t[][2]){ { half, FLIGHT * MSS - MSS } });
	assert_int_equal(r.conn->n_sacked, FLIGHT / 2 - 1);
	steps = r.net->sack_steps;
	for (i = 0; i < ACKS; i++) {
		uint32_t blocks[3][2];

		for (k = 0; k < 3; k++) {
			blocks[k][0] = half + dice(&seed, half / 2);
			blocks[k][1] = blocks[k][0] + 1 + dice(&seed, half / 2 - MSS);
		}
		sack(&r, 3, blocks);
	}
	assert_in_range(r.net->sack_steps - steps, 0, 3 * ACKS);
	assert_int_equal(r.conn->n_sacked, FLIGHT / 2 - 1);
	assert_true(net_recovery_is_sound(r.conn));
	finish(&r);
}

/* Every other one is sacked, so that there is nothing to be passed in one; and then blocks of which
 * none is a whole segment. */
static void searching_has_a_limit(void **state)
{
	uint32_t i, seed = 2;
	uint64_t steps;
	struct rig r;

	(void)state;
	begin(&r);
	for (i = 1; i < FLIGHT; i += 2)
		sack(&r, 1, (const uint32_t[][2]){ { i * MSS, (i + 1) * MSS } });
	assert_int_equal(r.conn->n_sacked, FLIGHT / 2);
	steps = r.net->sack_steps;
	for (i = 0; i < ACKS; i++) {
		const uint32_t a = MSS + dice(&seed, (FLIGHT - 2) * MSS);
		const uint32_t b = MSS + dice(&seed, (FLIGHT - 2) * MSS);
		const uint32_t d = MSS + dice(&seed, (FLIGHT - 2) * MSS);

		sack(&r, 3, (const uint32_t[][2]){ { a, a + 1 }, { b, b + 1 }, { d, d + 1 } });
	}
	steps = r.net->sack_steps - steps;
	printf("# %llu steps for an ACK\n", (unsigned long long)(steps / ACKS));
	assert_in_range(steps, ACKS, ACKS * 250);
	assert_true(net_recovery_is_sound(r.conn));
	finish(&r);
}

/* The first that arrives does so in the middle; others before and behind it, in any order. */
static void an_honest_peer_is_believed(void **state)
{
	uint32_t i, at, seed = 3, n = 0;
	static bool has[FLIGHT];
	struct rig r;

	(void)state;
	memset(has, 0, sizeof(has));
	begin(&r);
	for (i = 0; i < 3000; i++) {
		at = i ? FLIGHT / 4 + dice(&seed, FLIGHT / 2) : FLIGHT / 2;
		n += !has[at];
		has[at] = true;
		sack(&r, 1, (const uint32_t[][2]){ { at * MSS, (at + 1) * MSS } });
		if (i < 6)
			assert_int_equal(r.conn->n_sacked, n);
		if (i % 100 == 0)
			assert_true(net_recovery_is_sound(r.conn));
	}
	/* all at once */
	sack(&r, 1, (const uint32_t[][2]){ { MSS, FLIGHT * MSS } });
	assert_int_equal(r.conn->n_sacked, FLIGHT - 1);
	assert_true(net_recovery_is_sound(r.conn));
	finish(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_known_is_passed_in_one),
		cmocka_unit_test(searching_has_a_limit),
		cmocka_unit_test(an_honest_peer_is_believed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
