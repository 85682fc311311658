// SPDX-License-Identifier: Apache-2.0
/* What a connection of the native engine costs while it does nothing: at most 1 KB, its places in
 * all tables included. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "net/net_internal.h"
#include "netsim.h"

#define PORT  80
#define CONNS 60

static size_t memory_of(uint32_t max_conns)
{
	const uint8_t addr[1][16] = { { [10] = 0xff, 0xff, 10, 0, 0, 1 } };
	const struct dmm_net_config config = { .mtu = 1500,
					       .addrs = addr,
					       .n_addrs = 1,
					       .max_addrs = 1,
					       .max_conns = max_conns,
					       .send_buffer = 1 << 20,
					       .receive_buffer = 1 << 20,
					       .buffer_memory = 1 << 20 };

	return dmm_net_memory(&config);
}

/* Tables have powers of two as their sizes, so just above one it is most. */
static void an_idle_connection_costs_a_kilobyte(void **state)
{
	const size_t none = memory_of(1), many = (1 << 20) + 1;
	const double each = (double)(memory_of(many) - none) / (double)many;

	(void)state;
	printf("# a connection: %zu bytes, with its places in tables %.0f\n",
	       sizeof(struct dmm_net_conn), each);
	assert_true(each <= 1024);
}

/* Nothing else is held once bytes have gone both ways and were read. */
static void nothing_is_held_when_it_is_idle(void **state)
{
	const struct netsim_params params = { .seed = 51,
					      .link = { { .delay = NETSIM_MS, .loss = 50 },
							{ .delay = NETSIM_MS, .loss = 50 } } };
	const struct netsim_conn server = { .to_send = 70000, .keep_open = true };
	struct netsim *sim = netsim_new(&params);
	static struct netsim_conn client[CONNS];
	struct dmm_net_stats stats;
	unsigned int i;

	(void)state;
	netsim_listen(sim, 1, PORT, CONNS, &server);
	for (i = 0; i < CONNS; i++) {
		client[i] = (struct netsim_conn){ .to_send = 50000, .keep_open = true };
		netsim_connect(sim, 0, (uint16_t)(20000 + i), PORT, &client[i]);
	}
	netsim_run(sim, 60 * NETSIM_SEC);
	for (i = 0; i < CONNS; i++)
		assert_int_equal(client[i].received, 70000);
	for (i = 0; i < 2; i++) {
		dmm_net_get_stats(netsim_engine(sim, i), &stats);
		assert_int_equal(stats.conns, CONNS);
		/* one more: the listener */
		assert_true(stats.memory <= (CONNS + 1) * 1024);
	}
	assert_int_equal(netsim_end(sim), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_idle_connection_costs_a_kilobyte),
		cmocka_unit_test(nothing_is_held_when_it_is_idle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
