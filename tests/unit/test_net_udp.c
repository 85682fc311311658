// SPDX-License-Identifier: Apache-2.0
/* UDP of the native engine: RFC 768, 1122 4.1, 8085. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "netsim.h"
#include "segment.h"

static const struct netsim_params plain = { .seed = 1,
					    .config = { { .max_udp = 8 }, { .max_udp = 8 } } };

struct last_packet {
	uint8_t data[2000];
	uint32_t len;
};

static bool keep(struct netsim *sim, unsigned int from, uint8_t *p, uint32_t len, void *arg)
{
	struct last_packet *last = arg;

	(void)sim;
	(void)from;
	memcpy(last->data, p, len);
	last->len = len;
	return true;
}

static struct dmm_net_udp *open_udp(struct netsim *sim, unsigned int side, uint16_t port,
				    uint16_t to)
{
	const struct dmm_endpoint local = netsim_endpoint(sim, side, port),
				  remote = netsim_endpoint(sim, !side, to);
	struct dmm_net_udp *u;

	assert_int_equal(dmm_net_udp_open(netsim_engine(sim, side), &local, to ? &remote : NULL,
					  NULL, &u),
			 0);
	return u;
}

static ssize_t receive(struct dmm_net_udp *u, void *buf, size_t len, struct dmm_endpoint *from)
{
	struct dmm_endpoint to;

	return dmm_net_udp_recv(u, buf, len, from, &to);
}

static void datagrams_go_both_ways(void **state)
{
	static uint8_t data[1472], got[2000];
	struct netsim_params params = plain;
	unsigned int v6;
	size_t len;

	(void)state;
	for (v6 = 0; v6 < 2; v6++) {
		struct dmm_net_udp *client, *server, *any;
		struct dmm_endpoint from;
		struct netsim *sim;
		void *user;

		params.v6 = v6;
		sim = netsim_new(&params);
		client = open_udp(sim, 0, 1000, 53);
		server = open_udp(sim, 1, 53, 0);
		for (len = 0; len <= 1472u - 20 * v6; len += 184) {
			memset(data, (int)len, sizeof(data));
			assert_int_equal(dmm_net_udp_send(client, NULL, data, len), 0);
			netsim_run(sim, NETSIM_MS);
			any = dmm_net_udp_event(netsim_engine(sim, 1), &user);
			assert_ptr_equal(any, server);
			assert_int_equal(receive(server, got, sizeof(got), &from), len);
			assert_memory_equal(got, data, len);
			assert_int_equal(dmm_net_udp_send(server, &from, got, len), 0);
			netsim_run(sim, NETSIM_MS);
			assert_int_equal(receive(client, got, sizeof(got), &from), len);
			assert_int_equal(receive(client, got, sizeof(got), &from), -EAGAIN);
		}
		assert_int_equal(dmm_net_udp_send(client, NULL, data, 1473 - 20 * v6), -EMSGSIZE);
		assert_int_equal(dmm_net_udp_send(server, NULL, data, 1), -EDESTADDRREQ);
		dmm_net_udp_close(client);
		dmm_net_udp_close(server);
		assert_int_equal(netsim_end(sim), 0);
	}
}

/* The one who talks with this remote end, else who is bound to the address, else who takes all. */
static void the_nearest_socket_gets_it(void **state)
{
	struct netsim *sim = netsim_new(&plain);
	struct dmm_endpoint all = netsim_endpoint(sim, 1, 53), from;
	struct dmm_net_udp *client = open_udp(sim, 0, 1000, 53), *sockets[3];
	char byte;
	int i, j;

	(void)state;
	memset(all.addr + 12, 0, 4);
	assert_int_equal(dmm_net_udp_open(netsim_engine(sim, 1), &all, NULL, NULL, &sockets[0]), 0);
	sockets[1] = open_udp(sim, 1, 53, 0);
	sockets[2] = open_udp(sim, 1, 53, 1000);
	assert_int_equal(dmm_net_udp_open(netsim_engine(sim, 1), &all, NULL, NULL, &sockets[0]),
			 -EADDRINUSE);
	for (i = 2; i >= 0; i--) {
		assert_int_equal(dmm_net_udp_send(client, NULL, "x", 1), 0);
		netsim_run(sim, NETSIM_MS);
		for (j = i; j >= 0; j--)
			assert_int_equal(receive(sockets[j], &byte, 1, &from),
					 j == i ? 1 : -EAGAIN);
		dmm_net_udp_close(sockets[i]);
	}
	dmm_net_udp_close(client);
	assert_int_equal(netsim_end(sim), 0);
}

/* RFC 6864 4.1: what may not be cut needs no identification, and no two tell how many went between. */
static void identifications_tell_nothing(void **state)
{
	struct netsim *sim = netsim_new(&plain);
	struct dmm_net_udp *client = open_udp(sim, 0, 1000, 53);
	struct last_packet last = { .len = 0 };
	unsigned int i;

	(void)state;
	netsim_set_tap(sim, keep, &last);
	for (i = 0; i < 3; i++) {
		dmm_net_udp_send(client, NULL, "x", 1);
		netsim_run(sim, NETSIM_MS);
		assert_int_equal(last.data[4] << 8 | last.data[5], 0);
		assert_int_equal(last.data[6] & 0x40, 0x40); /* do not fragment */
	}
	dmm_net_udp_close(client);
	assert_int_equal(netsim_end(sim), 0);
}

/* Checksum 0 and lengths. */
static void unsound_datagrams_are_dropped(void **state)
{
	struct netsim_params params = plain;
	unsigned int v6;

	(void)state;
	for (v6 = 0; v6 < 2; v6++) {
		struct dmm_net_udp *client, *server;
		const uint32_t header = v6 ? 40 : 20;
		struct last_packet last = { .len = 0 };
		struct dmm_endpoint from;
		struct netsim *sim;
		uint8_t p[2000], byte;

		params.v6 = v6;
		sim = netsim_new(&params);
		client = open_udp(sim, 0, 1000, 53);
		server = open_udp(sim, 1, 53, 0);
		netsim_set_tap(sim, keep, &last);
		dmm_net_udp_send(client, NULL, "x", 1);
		netsim_run(sim, NETSIM_MS);
		assert_int_equal(receive(server, &byte, 1, &from), 1);

		memcpy(p, last.data, last.len);
		p[header + 6] = p[header + 7] = 0; /* none: only IPv4 may */
		netsim_inject(sim, 1, p, last.len);
		assert_int_equal(receive(server, &byte, 1, &from), v6 ? -EAGAIN : 1);
		memcpy(p, last.data, last.len);
		p[header + 7] ^= 1;
		netsim_inject(sim, 1, p, last.len);
		memcpy(p, last.data, last.len);
		p[header + 5] = 200;
		p[header + 6] = p[header + 7] = 0;
		netsim_inject(sim, 1, p, last.len);
		p[header + 5] = 7;
		netsim_inject(sim, 1, p, last.len);
		assert_int_equal(receive(server, &byte, 1, &from), -EAGAIN);
		dmm_net_udp_close(client);
		dmm_net_udp_close(server);
		assert_int_equal(netsim_end(sim), 0);
	}
}

static void who_does_not_read_loses(void **state)
{
	struct netsim *sim = netsim_new(&plain);
	struct dmm_net_udp *client = open_udp(sim, 0, 1000, 53), *server = open_udp(sim, 1, 53, 0);
	struct dmm_net_stats stats;
	unsigned int i, sent = 0;

	(void)state;
	for (i = 0; i < 500; i++) {
		sent += dmm_net_udp_send(client, NULL, "x", 1) == 0;
		if (i % 50 == 49)
			netsim_run(sim, NETSIM_MS);
	}
	dmm_net_get_stats(netsim_engine(sim, 1), &stats);
	assert_int_equal(stats.udp_in + stats.udp_dropped, sent);
	assert_int_equal(stats.udp_in, (256 << 10) / 4096);
	assert_in_range(stats.memory, 1, 300 << 10);
	dmm_net_udp_close(server);
	dmm_net_udp_close(client);
	assert_int_equal(netsim_end(sim), 0);
}

/* Whatever its buffer may hold: what one socket leaves unread, or does not get rid of, is not all that
 * there is, of chunks or of datagrams. */
static void one_socket_leaves_some_for_others(void **state)
{
	const uint64_t memory[] = { 256 << 10, 64 << 20 };
	const uint32_t places[] = { (256 << 10) / 4096, 8 * 4 + 1024 };
	unsigned int i, n;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(memory); i++) {
		const struct netsim_params params = { .seed = 1,
						      .config = {
							      { .max_udp = 8,
								.buffer_memory = memory[i],
								.send_buffer = 16 << 20,
								.receive_buffer = 16 << 20 },
							      { .max_udp = 8,
								.buffer_memory = memory[i],
								.receive_buffer = 16 << 20 } } };
		struct netsim *sim = netsim_new(&params);
		struct dmm_net_udp *client = open_udp(sim, 0, 1000, 53),
				   *other = open_udp(sim, 0, 1001, 53),
				   *server = open_udp(sim, 1, 53, 0);
		const struct dmm_endpoint to = netsim_endpoint(sim, 0, 1000);
		struct dmm_net_stats stats;

		for (n = 0; n < places[i]; n++) { /* all at a time */
			const int r = dmm_net_udp_send(client, NULL, NULL, 0);

			assert_int_equal(r, r < 0 ? -EAGAIN : 0);
		}
		assert_int_equal(dmm_net_udp_send(other, NULL, "x", 1), 0);
		for (n = 0; n < places[i]; n++) { /* one by one */
			netsim_run(sim, NETSIM_MS);
			assert_int_equal(dmm_net_udp_send(client, NULL, "x", 1), 0);
		}
		netsim_run(sim, NETSIM_MS);
		dmm_net_get_stats(netsim_engine(sim, 1), &stats);
		assert_in_range(stats.udp_in, places[i] / 6, places[i] / 4);
		assert_int_equal(stats.no_memory, 0);
		assert_int_equal(dmm_net_udp_send(server, &to, "x", 1), 0);
		netsim_run(sim, NETSIM_MS);
		dmm_net_udp_close(server);
		dmm_net_udp_close(client);
		dmm_net_udp_close(other);
		assert_int_equal(netsim_end(sim), 0);
	}
}

/* Neither holds up the other: at most 16 in a row while both have something. */
static void connections_and_datagrams_take_turns(void **state)
{
	struct netsim *sim = netsim_new(&plain);
	struct dmm_net *net = netsim_engine(sim, 0);
	struct dmm_net_udp *client = open_udp(sim, 0, 1000, 53);
	const struct dmm_endpoint to = netsim_endpoint(sim, 1, 80);
	unsigned int left[2] = { 60, 60 }, run = 0, i;
	struct dmm_net_conn *conns[60];
	bool udp, before = false;
	uint8_t p[1500];

	(void)state;
	for (i = 0; i < 60; i++) { /* SYNs and datagrams, as many of each */
		const struct dmm_endpoint local = netsim_endpoint(sim, 0, (uint16_t)(2000 + i));

		assert_int_equal(
			dmm_net_connect(net, &local, &to, NULL, netsim_now(sim), &conns[i]), 0);
		assert_int_equal(dmm_net_udp_send(client, NULL, "x", 1), 0);
	}
	while (left[0] + left[1]) {
		assert_true(dmm_net_output(net, p, sizeof(p), netsim_now(sim)) > 0);
		udp = p[9] == 17;
		run = udp == before ? run + 1 : 1;
		assert_true(run <= 16 || !left[!udp]);
		before = udp;
		left[udp]--;
	}
	for (i = 0; i < 60; i++)
		dmm_net_abort(conns[i]);
	dmm_net_udp_close(client);
	assert_int_equal(netsim_end(sim), 0);
}

/* Not even those that were queued before the MTU became less. */
static void nothing_is_longer_than_the_mtu(void **state)
{
	static const uint8_t data[1472];
	struct netsim *sim = netsim_new(&plain);
	struct dmm_net *net = netsim_engine(sim, 0);
	struct dmm_net_udp *client = open_udp(sim, 0, 1000, 53);
	const struct dmm_endpoint local = netsim_endpoint(sim, 0, 0);
	struct dmm_net_stats stats;
	uint8_t buf[1500];
	unsigned int i;

	(void)state;
	for (i = 0; i < 60; i++) { /* of those dropped nothing is kept */
		assert_int_equal(dmm_net_configure(net, 1500, &local.addr, 1), 0);
		assert_int_equal(dmm_net_udp_send(client, NULL, data, 1472), 0);
		assert_int_equal(dmm_net_udp_send(client, NULL, data, 548), 0);
		assert_int_equal(dmm_net_configure(net, 576, &local.addr, 1), 0);
		assert_int_equal(dmm_net_udp_send(client, NULL, data, 549), -EMSGSIZE);
		assert_int_equal(dmm_net_output(net, buf, 576, netsim_now(sim)), 576);
		assert_int_equal(dmm_net_output(net, buf, 576, netsim_now(sim)), 0);
	}
	dmm_net_get_stats(net, &stats);
	assert_int_equal(stats.udp_dropped, 60);
	dmm_net_udp_close(client);
	assert_int_equal(netsim_end(sim), 0);
}

/* An error about @about, which engine 0 sent. */
static void put_icmp(struct netsim *sim, const struct last_packet *about, uint8_t type,
		     uint8_t code, uint32_t mtu)
{
	const bool v6 = about->data[0] >> 4 == 6;
	const uint32_t ip = v6 ? 40 : 20, quoted = ip + 8, len = 8 + quoted, addrs = v6 ? 32 : 8;
	uint8_t p[200] = { 0x45, [8] = 64, 1 }, pseudo[200] = { 0 };

	if (v6) {
		memset(p, 0, 9);
		p[0] = 0x60;
		p[6] = 58;
		p[7] = 64;
	}
	segment_put16(p + (v6 ? 4 : 2), v6 ? len : ip + len);
	/* from whom it was for */
	memcpy(p + ip - addrs, about->data + ip - addrs / 2, addrs / 2);
	memcpy(p + ip - addrs / 2, about->data + ip - addrs, addrs / 2);
	if (!v6)
		segment_put16(p + 10, segment_checksum(p, 20, 0));
	p[ip] = type;
	p[ip + 1] = code;
	segment_put16(p + ip + 6, mtu);
	memcpy(p + ip + 8, about->data, quoted);
	memcpy(pseudo, p + 8, 32);
	segment_put16(pseudo + 34, len);
	pseudo[39] = 58;
	memcpy(pseudo + 40, p + ip, len);
	segment_put16(p + ip + 2, v6 ? segment_checksum(pseudo, 40 + len, 0)
				     : segment_checksum(p + ip, len, 0));
	netsim_inject(sim, 0, p, ip + len);
}

/* RFC 1122 4.1.3.3, to a socket with one remote end; of those that say what the path takes (RFC 1191,
 * 8201) what may be believed. */
static void icmp_reaches_the_socket(void **state)
{
	const struct {
		bool v6;
		uint8_t type, code;
		uint32_t mtu;
		int err;
	} cases[] = {
		{ false, 3, 3, 0, ECONNREFUSED }, { false, 3, 1, 0, EAGAIN },
		{ false, 3, 4, 1000, EMSGSIZE },  { false, 3, 4, 0, EMSGSIZE },
		{ true, 1, 4, 0, ECONNREFUSED },  { true, 1, 3, 0, EAGAIN },
		{ true, 2, 0, 1280, EMSGSIZE },	  { true, 2, 0, 1279, EAGAIN },
	};
	size_t i;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(cases); i++) {
		const struct netsim_params params = { .seed = 1,
						      .v6 = cases[i].v6,
						      .config = { { .max_udp = 8 } } };
		struct netsim *sim = netsim_new(&params);
		struct dmm_net_udp *client = open_udp(sim, 0, 1000, 53);
		struct last_packet last = { .len = 0 };
		struct dmm_endpoint from;
		uint8_t byte;
		void *user;

		netsim_set_tap(sim, keep, &last);
		dmm_net_udp_send(client, NULL, "x", 1);
		netsim_run(sim, NETSIM_MS);
		put_icmp(sim, &last, cases[i].type, cases[i].code, cases[i].mtu);
		assert_ptr_equal(dmm_net_udp_event(netsim_engine(sim, 0), &user),
				 cases[i].err == EAGAIN ? NULL : client);
		assert_int_equal(receive(client, &byte, 1, &from), -cases[i].err);
		assert_int_equal(receive(client, &byte, 1, &from), -EAGAIN);
		dmm_net_udp_close(client);
		assert_int_equal(netsim_end(sim), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(datagrams_go_both_ways),
		cmocka_unit_test(the_nearest_socket_gets_it),
		cmocka_unit_test(identifications_tell_nothing),
		cmocka_unit_test(unsound_datagrams_are_dropped),
		cmocka_unit_test(who_does_not_read_loses),
		cmocka_unit_test(one_socket_leaves_some_for_others),
		cmocka_unit_test(connections_and_datagrams_take_turns),
		cmocka_unit_test(nothing_is_longer_than_the_mtu),
		cmocka_unit_test(icmp_reaches_the_socket),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
