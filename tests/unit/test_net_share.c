// SPDX-License-Identifier: Apache-2.0
/* What many connections share: peers who ask for much of it, with tiny segments or with many parts
 * out of order, leave enough for those who do not. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/net_internal.h"
#include "segment.h"

#define MEMORY (4u << 20)
#define GREEDY 40u

struct rig {
	struct dmm_net *net;
	void *memory;
	struct dmm_net_conn *conn; /* the last that was accepted */
	struct segment in, out;
	uint64_t now;
};

static void begin(struct rig *r)
{
	struct dmm_endpoint ours = { .addr = { [10] = 0xff, 0xff, 10, 0, 0, 1 },
				     .port = htons(80) };
	const struct dmm_net_config config = { .mtu = 1500,
					       .addrs = (const uint8_t(*)[16]) & ours.addr,
					       .n_addrs = 1,
					       .max_addrs = 1,
					       .max_conns = 100,
					       .send_buffer = 1 << 20,
					       .receive_buffer = 1 << 16,
					       .buffer_memory = MEMORY,
					       .no_pacing = true };
	struct dmm_net_conn *listener;

	*r = (struct rig){ .now = 1000 * NET_SEC };
	r->memory = aligned_alloc(64, dmm_net_memory(&config));
	assert_int_equal(dmm_net_create(&config, r->memory, r->now, &r->net), 0);
	dmm_net_listen(r->net, &ours, 100, NULL, &listener);
	r->in = (struct segment){ .dst = ours, .src = ours, .window = 65535, .v4 = true };
	r->in.src.addr[15] = 2;
}

static void put(struct rig *r, uint8_t flags)
{
	uint8_t packet[2000];
	struct dmm_net_event ev;
	uint32_t n;

	r->in.flags = flags;
	dmm_net_input(r->net, packet, (uint32_t)segment_build(&r->in, packet), r->now);
	while (dmm_net_event(r->net, &ev))
		if (ev.events == DMM_NET_ACCEPTED)
			r->conn = ev.conn;
	while ((n = dmm_net_output(r->net, packet, sizeof(packet), r->now)))
		segment_parse(packet, n, &r->out);
}

static void accept_one(struct rig *r, unsigned int port, unsigned int mss)
{
	r->in.src.port = htons((uint16_t)port);
	r->in.seq = 1000;
	r->in.len = 0;
	r->in.options_len = 4;
	memcpy(r->in.options, (const uint8_t[]){ 2, 4, (uint8_t)(mss >> 8), (uint8_t)mss }, 4);
	put(r, SYN);
	r->in.options_len = 0;
	r->in.seq++;
	r->in.ack = r->out.seq + 1;
	put(r, ACK);
}

/* Sends 64 KiB, as far as congestion goes, and nothing is acknowledged. */
static void send_much(struct rig *r)
{
	static const uint8_t bytes[65535];
	uint8_t packet[2000];

	r->conn->cwnd = 1 << 20;
	dmm_net_send(r->conn, bytes, sizeof(bytes));
	while (dmm_net_output(r->net, packet, sizeof(packet), r->now))
		;
}

static void tiny_segments_leave_some(void **state)
{
	struct rig r;
	unsigned int i;

	(void)state;
	begin(&r);
	for (i = 0; i < GREEDY; i++) {
		accept_one(&r, 1000 + i, 64);
		send_much(&r);
	}
	printf("# %u of %u are left\n", net_pool_left(&r.net->sents), r.net->sents.count);
	accept_one(&r, 5000, 1460);
	send_much(&r);
	/* all that memory let it send is on its way */
	assert_true(dmm_net_unsent(r.conn) > 0);
	assert_int_equal(r.conn->snd_nxt, r.conn->tx_end);
	free(r.memory);
}

static void parts_out_of_order_leave_some(void **state)
{
	struct dmm_net_info info;
	unsigned int i, k;
	struct rig r;

	(void)state;
	begin(&r);
	for (i = 0; i < GREEDY; i++) {
		accept_one(&r, 1000 + i, 1460);
		r.in.len = 1;
		for (k = 0; k < NET_MAX_RANGES; k++) {
			r.in.seq = 1003 + 2 * k;
			put(&r, ACK);
		}
	}
	printf("# %u of %u are left\n", net_pool_left(&r.net->ranges), r.net->ranges.count);
	accept_one(&r, 5000, 1460);
	r.in.len = 1;
	r.in.seq = 1003;
	put(&r, ACK);
	dmm_net_get_info(r.conn, &info);
	assert_int_equal(info.held, 1);
	free(r.memory);
}

/* However much comes out of order, what is in order finds room. */
static void bytes_out_of_order_leave_some(void **state)
{
	struct dmm_net_info info;
	unsigned int i, k;
	struct rig r;

	(void)state;
	begin(&r);
	for (i = 0; i < 90; i++) {
		accept_one(&r, 1000 + i, 1460);
		r.in.len = 1400;
		for (k = 0; k < 46; k++) {
			r.in.seq = 1002 + 1400 * k;
			put(&r, ACK);
		}
	}
	printf("# %u of %u are left\n", net_pool_left(&r.net->chunks), r.net->chunks.count);
	assert_true(net_pool_left(&r.net->chunks) >= r.net->chunks.count / 8);
	accept_one(&r, 5000, 1460);
	r.in.len = 100;
	put(&r, ACK);
	dmm_net_get_info(r.conn, &info);
	assert_int_equal(info.unread, 100);
	free(r.memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tiny_segments_leave_some),
		cmocka_unit_test(parts_out_of_order_leave_some),
		cmocka_unit_test(bytes_out_of_order_leave_some),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
