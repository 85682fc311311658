// SPDX-License-Identifier: Apache-2.0
/* When the native engine sends: ACKs, small segments, probes, resets; and where a connection begins that
 * takes another one's place. */
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

/* RFC9293 MUST-40, SHLD-18, SHLD-19 */
static void acks_are_delayed_and_every_second_is_not(void **state)
{
	static const uint8_t data[536];
	unsigned int i;
	struct netpeer r;

	(void)state;
	netpeer_open(&r, true);
	netpeer_establish(&r, NULL, 0);
	for (i = 0; i < 16; i++) /* quick at the beginning */
		netpeer_sends(&r, ACK, data, sizeof(data));
	assert_int_equal(r.n_out, 16);
	r.n_out = 0;
	netpeer_sends(&r, ACK, data, sizeof(data));
	assert_null(netpeer_last(&r));
	netpeer_pass(&r, 39 * NETPEER_MS);
	assert_null(netpeer_last(&r));
	netpeer_pass(&r, 3 * NETPEER_MS);
	assert_int_equal(netpeer_last(&r)->ack, r.seq);
	netpeer_sends(&r, ACK, data, sizeof(data));
	assert_null(netpeer_last(&r));
	netpeer_sends(&r, ACK, data, sizeof(data));
	assert_int_equal(netpeer_last(&r)->ack, r.seq);
	netpeer_close(&r);
}

/* Who closed first is found by the same peer again, at once: what was sent before is no part of what is
 * sent now. */
static void reopened_it_begins_behind_what_was_used(void **state)
{
	static const uint8_t data[60000];
	uint32_t used;
	struct netpeer r;

	(void)state;
	netpeer_open(&r, true);
	netpeer_establish(&r, NULL, 0);
	assert_int_equal(dmm_net_send(r.conn, data, 4000), 4000);
	netpeer_settle(&r);
	r.ack += 4000;
	netpeer_sends(&r, ACK, NULL, 0);
	assert_int_equal(dmm_net_send(r.conn, data, 60000), 60000);
	assert_int_equal(dmm_net_shutdown(r.conn), 0);
	for (unsigned int i = 0; i < 60 && r.ack != r.iss + 1 + 64000; i++) {
		netpeer_settle(&r);
		for (unsigned int k = 0; k < r.n_out; k++)
			r.ack = DMM_MAX(r.ack, r.out[k].seq + r.out[k].len);
		r.n_out = 0;
		netpeer_sends(&r, ACK, NULL, 0);
	}
	r.ack++; /* its FIN */
	netpeer_sends(&r, FIN | ACK, NULL, 0);
	used = r.ack;
	netpeer_last(&r);
	r.seq += 1000000;
	r.ack = 0;
	netpeer_sends(&r, SYN, NULL, 0);
	assert_non_null(&r.out[0]);
	assert_int_equal(r.n_out, 1);
	assert_int_equal(r.out[0].flags, SYN | ACK);
	assert_true((int32_t)(r.out[0].seq - used) > 0);
	netpeer_close(&r);
}

/* With cookies about, an ACK that could show one is not reset, since the one that does may come later; all
 * others are, as ever. */
static void strays_are_reset_beside_cookies(void **state)
{
	struct dmm_net_conn *listener;
	struct dmm_net_stats stats;
	const struct segment *out;
	unsigned int time, resets;
	struct netpeer r;

	(void)state;
	netpeer_open(&r, true);
	dmm_net_listen(r.net, &r.ours, 1, NULL, &listener);
	for (unsigned int i = 0; i < 2; i++) {
		r.theirs.port = htons(2000 + i);
		netpeer_sends(&r, SYN, NULL, 0);
	}
	dmm_net_get_stats(r.net, &stats);
	assert_int_equal(stats.cookies_sent, 1);
	netpeer_last(&r);
	r.theirs.port = htons(3000);
	for (time = resets = 0; time < 32; time++) {
		r.now += NETPEER_SEC / 10; /* resets are limited */
		r.ack = (time << 27 | 12345) + 1;
		netpeer_sends(&r, ACK, NULL, 0);
		out = netpeer_last(&r);
		assert_true(!out || out->flags == RST);
		resets += out != NULL;
	}
	assert_int_equal(resets, 30);
	netpeer_close(&r);
}

static void room_that_is_not_used_is_given_back(void **state)
{
	struct dmm_net_stats before, after;
	static uint8_t data[100];
	struct iovec iov[4];
	struct netpeer r;

	(void)state;
	netpeer_open(&r, true);
	netpeer_establish(&r, NULL, 0);
	dmm_net_get_stats(r.net, &before);
	for (unsigned int used = 0; used <= 100; used += 100) {
		assert_true(dmm_net_send_reserve(r.conn, 9000, iov, DMM_ARRAY_SIZE(iov)) >= 3);
		memcpy(iov[0].iov_base, data, used);
		dmm_net_send_done(r.conn, used);
		netpeer_settle(&r);
		r.ack += used;
		netpeer_sends(&r, ACK, NULL, 0);
		dmm_net_get_stats(r.net, &after);
		assert_int_equal(after.memory, before.memory);
	}
	netpeer_close(&r);
}

/* Every second full one of his (SHLD-19), whatever we could send. */
static void acks_go_by_the_peers_segments(void **state)
{
	static const uint8_t data[1400];
	unsigned int n_acks, i;
	uint32_t len;
	struct netpeer r;

	(void)state;
	for (len = 600; len <= 1400; len += 800) {
		netpeer_open(&r, true);
		netpeer_establish(&r, NULL, 0);
		for (i = 0; i < 20; i++) /* those that are quick, and larger ones than will come */
			netpeer_sends(&r, ACK, data, 1400);
		netpeer_sends(&r, ACK, data, len);
		netpeer_last(&r);
		for (i = n_acks = 0; i < 20; i++) {
			netpeer_sends(&r, ACK, data, len);
			n_acks += netpeer_last(&r) != NULL;
			dmm_net_recv_done(r.conn, len);
		}
		assert_in_range(n_acks, 9, 11);
		netpeer_close(&r);
	}
}

/* A window of one segment does not wait for the delayed ACK. */
static void after_a_loss_acks_are_quick(void **state)
{
	static const uint8_t data[536];
	unsigned int loss, i;
	struct netpeer r;

	(void)state;
	for (loss = 0; loss < 2; loss++) {
		netpeer_open(&r, true);
		netpeer_establish(&r, NULL, 0);
		for (i = 0; i < 20; i++)
			netpeer_sends(&r, ACK, data, sizeof(data));
		netpeer_last(&r);
		if (loss == 0) { /* of what it sent */
			r.seq += sizeof(data);
			netpeer_sends(&r, ACK, data, sizeof(data));
			r.seq -= 2 * sizeof(data);
			netpeer_sends(&r, ACK, data, sizeof(data));
			r.seq += sizeof(data);
		} else { /* of our ACK */
			r.seq -= sizeof(data);
			netpeer_sends(&r, ACK, data, sizeof(data));
		}
		for (i = 0; i < 15; i++) {
			netpeer_last(&r);
			netpeer_sends(&r, ACK, data, sizeof(data));
			assert_non_null(netpeer_last(&r));
		}
		netpeer_close(&r);
	}
}

/* RFC9293 MUST-17 */
static void nagle_holds_small_ones_back(void **state)
{
	struct netpeer r;

	(void)state;
	netpeer_open(&r, true);
	netpeer_establish(&r, NULL, 0);
	assert_int_equal(dmm_net_set_option(r.conn, DMM_NET_NODELAY, 0), 0);
	dmm_net_send(r.conn, "a", 1);
	netpeer_settle(&r);
	assert_int_equal(netpeer_last(&r)->len, 1);
	dmm_net_send(r.conn, "b", 1);
	netpeer_settle(&r);
	dmm_net_send(r.conn, "c", 1);
	netpeer_settle(&r);
	assert_null(netpeer_last(&r));
	r.ack++;
	netpeer_sends(&r, ACK, NULL, 0);
	assert_int_equal(netpeer_last(&r)->len, 2);
	assert_int_equal(dmm_net_set_option(r.conn, DMM_NET_NODELAY, 1), 0);
	dmm_net_send(r.conn, "d", 1);
	netpeer_settle(&r);
	assert_int_equal(netpeer_last(&r)->len, 1);
	netpeer_close(&r);
}

/* RFC9293 MUST-36, MUST-37 */
static void a_closed_window_is_probed_for_ever(void **state)
{
	struct segment s;
	unsigned int i;
	struct netpeer r;

	(void)state;
	netpeer_open(&r, true);
	netpeer_establish(&r, NULL, 0);
	s = netpeer_segment_of(&r, ACK, NULL, 0);
	s.window = 0;
	netpeer_put(&r, &s);
	dmm_net_send(r.conn, "abc", 3);
	netpeer_settle(&r);
	assert_null(netpeer_last(&r));
	for (i = 0; i < 40; i++) {
		netpeer_pass(&r, 125 * NETPEER_SEC);
		assert_true(r.n_out > 0);
		assert_int_equal(netpeer_last(&r)->len, 1);
		netpeer_put(&r, &s);
		assert_non_null(r.conn);
	}
	netpeer_pass(&r, NETPEER_SEC);
	r.n_out = 0;
	s.window = 100;
	netpeer_put(&r, &s);
	assert_int_equal(r.n_out, 2);
	assert_int_equal(r.out[0].seq, r.iss + 1);
	assert_int_equal(r.out[1].len, 2);
	netpeer_close(&r);
}

/* RFC9293 MUST-20, SHLD-11: R2; and it ends with a reset and an error */
static void who_never_answers_is_given_up(void **state)
{
	uint64_t begin;
	struct netpeer r;

	(void)state;
	netpeer_open(&r, true);
	netpeer_establish(&r, NULL, 0);
	dmm_net_send(r.conn, "abc", 3);
	for (begin = r.now; r.conn && r.now - begin < 1000 * NETPEER_SEC;)
		netpeer_pass(&r, NETPEER_SEC);
	assert_int_equal(r.err, ETIMEDOUT);
	assert_in_range((r.now - begin) / NETPEER_SEC, 100, 400);
	assert_true(netpeer_last(&r)->flags & RST);
	netpeer_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
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
