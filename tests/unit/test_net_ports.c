// SPDX-License-Identifier: Apache-2.0
/* Local ports that the native engine chooses (RFC 6056). */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "netsim.h"

#define CONNECTS 100000
#define SLOTS	 64

static struct netsim *open_sim(uint64_t seed, uint16_t first, uint16_t last)
{
	struct netsim_params params = { .seed = seed };

	params.config[0].first_port = first;
	params.config[0].last_port = last;
	return netsim_new(&params);
}

/* Connects to port @port of 10.1.x.y; the handle, or NULL with *@err. */
static struct dmm_net_conn *connect_to(struct netsim *sim, uint16_t host, uint16_t port, int *err)
{
	const struct dmm_endpoint local = netsim_endpoint(sim, 0, 0);
	struct dmm_endpoint remote = netsim_endpoint(sim, 1, port);
	struct dmm_net_conn *conn = NULL;

	remote.addr[13] = 1;
	remote.addr[14] = (uint8_t)(host >> 8);
	remote.addr[15] = (uint8_t)host;
	*err = dmm_net_connect(netsim_engine(sim, 0), &local, &remote, NULL, netsim_now(sim),
			       &conn);
	return conn;
}

static uint16_t local_port(const struct dmm_net_conn *conn)
{
	struct dmm_endpoint local, remote;

	dmm_net_endpoints(conn, &local, &remote);
	return ntohs(local.port);
}

static uint16_t port_to(struct netsim *sim, uint16_t host, uint16_t port)
{
	int err;
	struct dmm_net_conn *conn = connect_to(sim, host, port, &err);
	uint16_t ret;

	assert_non_null(conn);
	ret = local_port(conn);
	dmm_net_abort(conn);
	return ret;
}

/* Over many remote ends all ports are as likely: chi-square with 63 degrees of freedom, of which
 * one in a thousand is above 103. */
static void ports_are_spread_evenly(void **state)
{
	struct netsim *sim = open_sim(1, 0, 0);
	double chi = 0, want = (double)CONNECTS / SLOTS;
	unsigned int count[SLOTS] = { 0 }, i;

	(void)state;
	for (i = 0; i < CONNECTS; i++) {
		const uint16_t port = port_to(sim, (uint16_t)i, (uint16_t)(1 + i % 7));

		assert_true(port >= 1024);
		count[(port - 1024u) * SLOTS / 64512]++;
	}
	for (i = 0; i < SLOTS; i++)
		chi += (count[i] - want) * (count[i] - want) / want;
	printf("# chi-square %.1f\n", chi);
	assert_true(chi < 103);
	assert_int_equal(netsim_end(sim), 0);
}

/* RFC 6056 3.3.4: to one remote end a port comes back as late as may be. */
static void a_port_does_not_come_back_soon(void **state)
{
	struct netsim *sim = open_sim(2, 20000, 20999);
	uint8_t seen[1000] = { 0 };
	unsigned int i;

	(void)state;
	for (i = 0; i < 1000; i++) {
		const uint16_t port = port_to(sim, 5, 80);

		assert_in_range(port, 20000, 20999);
		assert_int_equal(seen[port - 20000]++, 0);
	}
	assert_int_equal(netsim_end(sim), 0);
}

/* Another secret, another place to begin. */
static void the_secret_decides(void **state)
{
	struct netsim *a = open_sim(3, 0, 0), *b = open_sim(4, 0, 0);
	unsigned int i, same = 0;

	(void)state;
	for (i = 0; i < 100; i++)
		same += port_to(a, (uint16_t)i, 80) == port_to(b, (uint16_t)i, 80);
	assert_true(same < 3);
	netsim_end(a);
	netsim_end(b);
}

static void used_tuples_are_passed_over(void **state)
{
	struct netsim *sim = open_sim(5, 30000, 30009);
	struct dmm_net_conn *conn[10];
	unsigned int i, j;
	int err;

	(void)state;
	for (i = 0; i < 10; i++) {
		conn[i] = connect_to(sim, 7, 80, &err);
		assert_non_null(conn[i]);
		for (j = 0; j < i; j++)
			assert_int_not_equal(local_port(conn[i]), local_port(conn[j]));
	}
	assert_null(connect_to(sim, 7, 80, &err));
	assert_int_equal(err, -EADDRNOTAVAIL);
	/* to another remote end all are free */
	assert_in_range(port_to(sim, 8, 80), 30000, 30009);
	i = local_port(conn[3]);
	dmm_net_abort(conn[3]);
	conn[3] = connect_to(sim, 7, 80, &err);
	assert_int_equal(local_port(conn[3]), i);
	for (i = 0; i < 10; i++)
		dmm_net_abort(conn[i]);
	assert_int_equal(netsim_end(sim), 0);
}

static void a_range_must_be_one(void **state)
{
	const uint8_t addr[1][16] = { { [10] = 0xff, 0xff, 10, 0, 0, 1 } };
	struct dmm_net_config config = { .mtu = 1500,
					 .addrs = addr,
					 .n_addrs = 1,
					 .max_addrs = 1,
					 .max_conns = 1,
					 .send_buffer = 65536,
					 .receive_buffer = 65536,
					 .buffer_memory = 1 << 20 };

	(void)state;
	assert_true(dmm_net_memory(&config) > 0);
	config.last_port = 1000; /* before the first */
	assert_int_equal(dmm_net_memory(&config), 0);
	config.first_port = 1000;
	assert_true(dmm_net_memory(&config) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ports_are_spread_evenly),
		cmocka_unit_test(a_port_does_not_come_back_soon),
		cmocka_unit_test(the_secret_decides),
		cmocka_unit_test(used_tuples_are_passed_over),
		cmocka_unit_test(a_range_must_be_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
