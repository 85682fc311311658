// SPDX-License-Identifier: Apache-2.0
/* The native engine against itself over a link in memory: handshake, data, close (RFC 9293 3.5,
 * 3.6, 3.10). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "netsim.h"

#define PORT 80
#define FAST                                                                                       \
	{                                                                                          \
		.delay = NETSIM_MS                                                                 \
	}

static const struct netsim_params plain = { .seed = 1, .link = { FAST, FAST } };

static const char *state_of(const struct netsim_conn *c)
{
	struct dmm_net_info info;

	if (!c->conn)
		return "";
	dmm_net_get_info(c->conn, &info);
	return info.state;
}

static struct dmm_net_stats stats_of(struct netsim *sim, unsigned int side)
{
	struct dmm_net_stats stats;

	dmm_net_get_stats(netsim_engine(sim, side), &stats);
	return stats;
}

/* Both ways, then both close. */
static void transfer(const struct netsim_params *params, uint64_t there, uint64_t back)
{
	const struct netsim_conn server = { .to_send = back, .expect = there };
	struct netsim_conn client = { .to_send = there, .expect = back };
	struct netsim *sim = netsim_new(params);

	assert_int_equal(netsim_listen(sim, 1, PORT, 8, &server), 0);
	assert_int_equal(netsim_connect(sim, 0, 20000, PORT, &client), 0);
	assert_true(netsim_until(sim, &client.closed, 600 * NETSIM_SEC));
	assert_int_equal(netsim_n_accepted(sim, 1), 1);
	assert_true(netsim_until(sim, &netsim_accepted(sim, 1)->closed, 600 * NETSIM_SEC));
	assert_int_equal(client.received, back);
	assert_int_equal(netsim_accepted(sim, 1)->received, there);
	assert_int_equal(netsim_end(sim), 0);
}

static void bytes_go_both_ways(void **state)
{
	struct netsim_params params = plain;
	const uint64_t sizes[] = { 0, 1, 1459, 1460, 1461, 100000, 5000000 };
	size_t i, j;

	(void)state;
	for (params.v6 = false;; params.v6 = true) {
		for (i = 0; i < DMM_ARRAY_SIZE(sizes); i++)
			for (j = 0; j < DMM_ARRAY_SIZE(sizes); j += 2)
				transfer(&params, sizes[i], sizes[j]);
		if (params.v6)
			break;
	}
}

static void small_memory_is_enough(void **state)
{
	struct netsim_params params = plain;
	unsigned int i;

	(void)state;
	for (i = 0; i < 2; i++) {
		params.config[i].send_buffer = 4096;
		params.config[i].receive_buffer = 4096;
		params.config[i].buffer_memory = 128 << 10;
	}
	transfer(&params, 300000, 300000);
}

static void a_closed_port_refuses(void **state)
{
	struct netsim *sim = netsim_new(&plain);
	struct netsim_conn c = { .may_fail = true };

	(void)state;
	assert_int_equal(netsim_connect(sim, 0, 20000, PORT, &c), 0);
	assert_true(netsim_run(sim, NETSIM_SEC));
	assert_int_equal(c.err, ECONNREFUSED);
	assert_int_equal(netsim_end(sim), 0);
}

/* RFC9293 MUST-23: at least 3 minutes */
static void nobody_answers(void **state)
{
	struct netsim_params params = plain;
	struct netsim_conn c = { .may_fail = true };
	struct netsim *sim;
	uint64_t begin;

	(void)state;
	params.link[0].loss = 1000;
	sim = netsim_new(&params);
	begin = netsim_now(sim);
	assert_int_equal(netsim_connect(sim, 0, 20000, PORT, &c), 0);
	assert_true(netsim_run(sim, 1000 * NETSIM_SEC));
	assert_int_equal(c.err, ETIMEDOUT);
	assert_in_range((netsim_now(sim) - begin) / NETSIM_SEC, 180, 300);
	assert_int_equal(netsim_end(sim), 0);
}

/* A connection of @client to a listener with @server's script; returns the server's end. */
static struct netsim_conn *open_one(struct netsim *sim, const struct netsim_conn *server,
				    struct netsim_conn *client)
{
	netsim_listen(sim, 1, PORT, 8, server);
	netsim_connect(sim, 0, 20000, PORT, client);
	netsim_run(sim, NETSIM_SEC);
	return netsim_accepted(sim, 1);
}

/* RFC9293 MUST-10 */
static void both_open_at_a_time(void **state)
{
	struct netsim_conn a = { .to_send = 5000, .expect = 7000 },
			   b = { .to_send = 7000, .expect = 5000 };
	struct netsim *sim = netsim_new(&plain);

	(void)state;
	assert_int_equal(netsim_connect(sim, 0, 20000, 20001, &a), 0);
	assert_int_equal(netsim_connect(sim, 1, 20001, 20000, &b), 0);
	assert_true(netsim_until(sim, &a.closed, 10 * NETSIM_SEC));
	assert_true(netsim_until(sim, &b.closed, 10 * NETSIM_SEC));
	assert_int_equal(stats_of(sim, 0).simultaneous_open, 1);
	assert_int_equal(stats_of(sim, 1).simultaneous_open, 1);
	assert_int_equal(netsim_end(sim), 0);
}

static void both_close_at_a_time(void **state)
{
	const struct netsim_conn server = { .keep_open = true };
	struct netsim_conn client = { .keep_open = true }, *s;
	struct netsim *sim = netsim_new(&plain);

	(void)state;
	s = open_one(sim, &server, &client);
	assert_string_equal(state_of(&client), "ESTABLISHED");
	assert_string_equal(state_of(s), "ESTABLISHED");
	client.closing = s->closing = true;
	dmm_net_close(client.conn);
	dmm_net_close(s->conn);
	assert_true(netsim_until(sim, &client.closed, NETSIM_SEC));
	assert_true(netsim_until(sim, &s->closed, NETSIM_SEC));
	assert_int_equal(stats_of(sim, 0).simultaneous_close, 1);
	assert_int_equal(stats_of(sim, 1).simultaneous_close, 1);
	assert_int_equal(stats_of(sim, 0).time_wait, 1);
	assert_int_equal(netsim_end(sim), 0);
}

static void half_close(void **state)
{
	const struct netsim_conn server = { .keep_open = true };
	struct netsim_conn client = { .keep_open = true }, *s;
	struct netsim *sim = netsim_new(&plain);

	(void)state;
	s = open_one(sim, &server, &client);
	assert_int_equal(dmm_net_shutdown(client.conn), 0);
	assert_int_equal(dmm_net_send(client.conn, "x", 1), -EPIPE);
	assert_true(netsim_until(sim, &s->eof, NETSIM_SEC));
	assert_string_equal(state_of(&client), "FIN_WAIT2");
	assert_string_equal(state_of(s), "CLOSE_WAIT");
	s->to_send = 200000;
	netsim_run(sim, 5 * NETSIM_SEC);
	assert_int_equal(client.received, 200000);
	s->closing = client.closing = true;
	dmm_net_close(s->conn);
	assert_true(netsim_until(sim, &s->closed, NETSIM_SEC));
	assert_string_equal(state_of(&client), "TIME_WAIT");
	dmm_net_close(client.conn);
	assert_true(netsim_until(sim, &client.closed, NETSIM_SEC));
	assert_int_equal(netsim_end(sim), 0);
}

static void abort_resets(void **state)
{
	const struct netsim_conn server = { .keep_open = true, .may_fail = true };
	struct netsim_conn client = { .keep_open = true }, *s;
	struct netsim *sim = netsim_new(&plain);

	(void)state;
	s = open_one(sim, &server, &client);
	dmm_net_abort(client.conn);
	client.conn = NULL;
	netsim_run(sim, NETSIM_SEC);
	assert_int_equal(s->err, ECONNRESET);
	assert_int_equal(netsim_end(sim), 0);
}

static void unread_bytes_are_told_by_a_reset(void **state)
{
	const struct netsim_conn server = { .hold = true };
	struct netsim_conn client = { .to_send = 1000, .keep_open = true, .may_fail = true }, *s;
	struct netsim *sim = netsim_new(&plain);

	(void)state;
	s = open_one(sim, &server, &client);
	s->closing = true;
	dmm_net_close(s->conn);
	assert_true(netsim_until(sim, &s->closed, NETSIM_SEC));
	netsim_run(sim, NETSIM_SEC);
	assert_int_equal(client.err, ECONNRESET);
	assert_int_equal(netsim_end(sim), 0);
}

static void a_slow_reader_closes_the_window(void **state)
{
	const struct netsim_conn server = { .hold = true, .expect = 2000000 };
	struct netsim_conn client = { .to_send = 2000000 }, *s;
	struct netsim *sim = netsim_new(&plain);
	struct dmm_net_info info;

	(void)state;
	netsim_listen(sim, 1, PORT, 8, &server);
	netsim_connect(sim, 0, 20000, PORT, &client);
	netsim_run(sim, 100 * NETSIM_SEC);
	s = netsim_accepted(sim, 1);
	dmm_net_get_info(s->conn, &info);
	assert_in_range(info.unread, 60 << 10, 64 << 10);
	assert_true(stats_of(sim, 0).zero_window_probes > 2);
	assert_int_equal(stats_of(sim, 0).rto, 0);
	s->hold = false;
	assert_true(netsim_until(sim, &client.closed, 100 * NETSIM_SEC));
	assert_true(netsim_until(sim, &s->closed, 100 * NETSIM_SEC));
	assert_int_equal(netsim_end(sim), 0);
}

/* Both windows are full to the last byte, and both FINs go behind them as probes: whoever has the
 * other's must still hear what it acknowledges. */
static void both_close_behind_full_windows(void **state)
{
	struct netsim_conn client = { .expect = 8192, .to_send = 8192 }, server = client, *s;
	struct netsim_params params = plain;
	struct netsim *sim;
	unsigned int i;

	(void)state;
	for (i = 0; i < 2; i++)
		params.config[i].receive_buffer = 8192;
	sim = netsim_new(&params);
	client.slow_until = server.slow_until = netsim_now(sim) + 60 * NETSIM_SEC;
	netsim_listen(sim, 1, PORT, 8, &server);
	netsim_connect(sim, 0, 20000, PORT, &client);
	netsim_run(sim, 39 * NETSIM_MS / 10); /* all bytes are there, and nothing was read */
	s = netsim_accepted(sim, 1);
	client.shut = s->shut = true;
	dmm_net_shutdown(client.conn);
	dmm_net_shutdown(s->conn);
	assert_true(netsim_until(sim, &client.closed, 100 * NETSIM_SEC));
	assert_true(netsim_until(sim, &s->closed, 100 * NETSIM_SEC));
	assert_int_equal(netsim_end(sim), 0);
}

/* In TIME-WAIT a tuple may be used again by who opened it, and by who is asked (RFC 6191). */
static void time_wait_makes_way(void **state)
{
	const struct netsim_conn server = { .to_send = 10, .expect = 10 };
	struct netsim *sim = netsim_new(&plain);
	struct netsim_conn client[20];
	size_t i;

	(void)state;
	netsim_listen(sim, 1, PORT, 8, &server);
	for (i = 0; i < DMM_ARRAY_SIZE(client); i++) {
		client[i] = (struct netsim_conn){ .to_send = 10, .expect = 10 };
		assert_int_equal(netsim_connect(sim, 0, 20000, PORT, &client[i]), 0);
		assert_true(netsim_until(sim, &client[i].closed, 10 * NETSIM_SEC));
	}
	assert_int_equal(stats_of(sim, 0).time_wait + stats_of(sim, 1).time_wait, 1);
	assert_int_equal(netsim_end(sim), 0);
}

static void a_listener_ends_what_it_made(void **state)
{
	const struct netsim_conn server = { .keep_open = true };
	struct netsim_conn client = { .may_fail = true, .keep_open = true };
	struct netsim *sim = netsim_new(&plain);

	(void)state;
	netsim_listen(sim, 1, PORT, 8, &server);
	netsim_connect(sim, 0, 20000, PORT, &client);
	while (!stats_of(sim, 1).half_open)
		netsim_step(sim);
	netsim_unlisten(sim, 1);
	netsim_run(sim, NETSIM_SEC);
	assert_int_equal(client.err, client.connected ? ECONNRESET : ECONNREFUSED);
	assert_int_equal(netsim_end(sim), 0);
}

static void a_flood_gets_cookies(void **state)
{
	const struct netsim_conn server = { .to_send = 5000, .expect = 5000 };
	struct netsim *sim = netsim_new(&plain);
	struct netsim_conn client[40];
	size_t i;

	(void)state;
	netsim_listen(sim, 1, PORT, 4, &server);
	for (i = 0; i < DMM_ARRAY_SIZE(client); i++) {
		client[i] = (struct netsim_conn){ .to_send = 5000, .expect = 5000 };
		assert_int_equal(netsim_connect(sim, 0, (uint16_t)(20000 + i), PORT, &client[i]),
				 0);
	}
	for (i = 0; i < DMM_ARRAY_SIZE(client); i++)
		assert_true(netsim_until(sim, &client[i].closed, 10 * NETSIM_SEC));
	assert_int_equal(stats_of(sim, 1).cookies_sent, 36);
	assert_int_equal(stats_of(sim, 1).cookies_taken, 36);
	netsim_run(sim, NETSIM_SEC);
	assert_int_equal(netsim_end(sim), 0);
}

static void keepalive_finds_the_dead(void **state)
{
	const struct netsim_conn server = { .keep_open = true, .may_fail = true };
	struct netsim_conn client = { .keep_open = true, .may_fail = true };
	struct netsim *sim = netsim_new(&plain);

	(void)state;
	netsim_listen(sim, 1, PORT, 4, &server);
	netsim_connect(sim, 0, 20000, PORT, &client);
	netsim_until(sim, &client.connected, NETSIM_SEC);
	assert_int_equal(dmm_net_set_option(client.conn, DMM_NET_KEEPALIVE, 60), 0);
	netsim_run(sim, 3600 * NETSIM_SEC);
	assert_int_equal(client.err, 0); /* he answers */
	assert_in_range(stats_of(sim, 0).keepalives, 50, 61);
	netsim_link(sim, 0)->loss = 1000;
	netsim_run(sim, 3600 * NETSIM_SEC);
	assert_int_equal(client.err, ETIMEDOUT);
	assert_int_equal(netsim_end(sim), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_go_both_ways),
		cmocka_unit_test(small_memory_is_enough),
		cmocka_unit_test(a_closed_port_refuses),
		cmocka_unit_test(nobody_answers),
		cmocka_unit_test(both_open_at_a_time),
		cmocka_unit_test(both_close_at_a_time),
		cmocka_unit_test(half_close),
		cmocka_unit_test(abort_resets),
		cmocka_unit_test(unread_bytes_are_told_by_a_reset),
		cmocka_unit_test(a_slow_reader_closes_the_window),
		cmocka_unit_test(both_close_behind_full_windows),
		cmocka_unit_test(time_wait_makes_way),
		cmocka_unit_test(a_listener_ends_what_it_made),
		cmocka_unit_test(a_flood_gets_cookies),
		cmocka_unit_test(keepalive_finds_the_dead),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
