// SPDX-License-Identifier: Apache-2.0
/* CUBIC's curve runs over the time in which the window held sending back, and over no other (RFC
 * 9438 4.2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "net/congestion.h"

#define RTT  (40 * NET_MS)
#define MSS  1000u
#define FULL (1500 * MSS)

struct flow {
	struct dmm_net net;
	struct dmm_net_conn conn;
};

/* It has just recovered from a loss with @FULL on its way. */
static void begin(struct flow *f)
{
	*f = (struct flow){ .net = { .now = 1000 * NET_SEC } };
	f->conn = (struct dmm_net_conn){
		.net = &f->net, .cc = &net_cubic, .mss = MSS, .srtt = RTT, .cwnd = FULL
	};
	net_cubic.begin(&f->conn);
	f->conn.ssthresh = net_cubic.on_congested(&f->conn, NET_CONGESTED_LOST);
	f->conn.cwnd = f->conn.ssthresh;
}

/* Round trips in which a whole window is acknowledged, in four parts. */
static void send_on(struct flow *f, unsigned int rounds)
{
	const struct net_acked none = { .bytes = 0 };

	for (rounds *= 4; rounds; rounds--) {
		struct net_acked a = none;

		a.bytes = a.delivered = f->conn.cwnd / 4;
		f->net.now += RTT / 4;
		net_cubic.on_ack(&f->conn, &a);
	}
}

static void a_pause_is_no_time(void **state)
{
	struct flow busy, paused;

	(void)state;
	begin(&busy);
	begin(&paused);
	send_on(&busy, 25);
	send_on(&paused, 25);
	paused.net.now += 60 * NET_SEC;
	send_on(&busy, 25);
	send_on(&paused, 25);
	printf("# after two seconds of sending %u, with a minute between them %u\n", busy.conn.cwnd,
	       paused.conn.cwnd);
	assert_in_range(paused.conn.cwnd, busy.conn.cwnd, busy.conn.cwnd * 102 / 100);
	assert_true(paused.conn.cwnd < FULL);
}

/* It sends less than it may, and the window is in the way only once in a while. */
static void what_holds_nothing_back_is_no_time(void **state)
{
	unsigned int i;
	struct flow f;

	(void)state;
	begin(&f);
	for (i = 0; i < 20; i++) {
		send_on(&f, 1);
		f.net.now += 5 * NET_SEC;
	}
	assert_true(f.conn.cwnd < FULL);
}

/* Nor is it less than it was: the curve passes where the loss was, after K. */
static void without_one_it_grows_as_ever(void **state)
{
	const unsigned int k = 260; /* round trips: cbrt(450 / 0.4) s */
	struct flow f;

	(void)state;
	begin(&f);
	send_on(&f, k);
	assert_in_range(f.conn.cwnd, FULL * 98 / 100, FULL * 101 / 100);
	send_on(&f, k);
	assert_in_range(f.conn.cwnd, FULL * 125 / 100, FULL * 132 / 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pause_is_no_time),
		cmocka_unit_test(what_holds_nothing_back_is_no_time),
		cmocka_unit_test(without_one_it_grows_as_ever),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
