// SPDX-License-Identifier: Apache-2.0
/* Pacing of the native engine: windows go evenly, queues stay short, and short paths see nothing
 * of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "netsim.h"

#define PORT  80
#define LARGE (1ull << 40)
#define SLOT  (2 * NETSIM_MS)

/* What leaves engine 0 in 2 ms, from @from on. */
struct watch {
	uint64_t from, slot;
	uint32_t bytes, most;
};

struct seen {
	uint64_t received;
	uint32_t most, cwnd;
	struct dmm_net_stats stats;
};

static bool count(struct netsim *sim, unsigned int from, uint8_t *p, uint32_t len, void *arg)
{
	const uint64_t slot = netsim_now(sim) / SLOT;
	struct watch *w = arg;

	(void)p;
	if (from || netsim_now(sim) < w->from)
		return true;
	w->bytes = slot == w->slot ? w->bytes + len : len;
	w->slot = slot;
	w->most = DMM_MAX(w->most, w->bytes);
	return true;
}

static struct seen run(bool paces, uint64_t delay, uint64_t rate, uint32_t queue, uint64_t for_ns)
{
	struct netsim_params params = { .seed = 41,
					.link = { { .delay = delay }, { .delay = delay } } };
	const struct netsim_conn server = { .keep_open = true };
	struct netsim_conn client = { .to_send = LARGE, .keep_open = true };
	struct dmm_net_info info;
	struct watch watch = { .most = 0 };
	struct netsim *sim;
	struct seen seen;
	unsigned int i;

	params.link[0].rate = rate;
	params.link[0].queue = queue;
	for (i = 0; i < 2; i++) {
		params.config[i].send_buffer = params.config[i].receive_buffer = 1 << 20;
		params.config[i].buffer_memory = 32 << 20;
		params.config[i].no_pacing = !paces;
	}
	sim = netsim_new(&params);
	watch.from = netsim_now(sim) + for_ns / 2;
	netsim_set_tap(sim, count, &watch);
	netsim_listen(sim, 1, PORT, 4, &server);
	netsim_connect(sim, 0, 20000, PORT, &client);
	netsim_run(sim, for_ns);
	dmm_net_get_info(client.conn, &info);
	seen = (struct seen){ .received = netsim_accepted(sim, 1)->received,
			      .most = watch.most,
			      .cwnd = info.cwnd };
	dmm_net_get_stats(netsim_engine(sim, 0), &seen.stats);
	assert_int_equal(netsim_end(sim), 0);
	printf("# %s: most in 2 ms %u, cwnd %u, received %llu, sent again %llu\n",
	       paces ? "paced" : "not paced", seen.most, seen.cwnd,
	       (unsigned long long)seen.received, (unsigned long long)seen.stats.retransmits);
	return seen;
}

/* The window of 40 ms is bounded by the peer's, 1 MiB; 2 ms of it are 52 kB, twice that in slow
 * start. */
static void windows_are_spread(void **state)
{
	const struct seen paced = run(true, 20 * NETSIM_MS, 0, 0, 2 * NETSIM_SEC);
	const struct seen free = run(false, 20 * NETSIM_MS, 0, 0, 2 * NETSIM_SEC);

	(void)state;
	assert_true(paced.most < (1 << 20) * 2 / 20 * 3 / 2);
	assert_true(free.most > 1 << 19);
	assert_true(paced.cwnd < 3 << 20); /* what is not used does not grow (RFC 7661) */
	assert_true(paced.received > free.received * 9 / 10);
}

/* A queue for 30 segments on a path that holds 166. */
static void short_queues_are_enough(void **state)
{
	const struct seen paced = run(true, 10 * NETSIM_MS, 12500000, 30, 10 * NETSIM_SEC);
	const struct seen free = run(false, 10 * NETSIM_MS, 12500000, 30, 10 * NETSIM_SEC);

	(void)state;
	assert_true(paced.received > free.received);
	assert_true(paced.received > 10 * 12500000ull * 8 / 10);
	assert_true(paced.stats.retransmits * free.received <
		    free.stats.retransmits * paced.received);
}

/* Below a millisecond all goes at once. */
static void short_paths_are_not_paced(void **state)
{
	const struct seen paced = run(true, NETSIM_MS / 10, 0, 0, NETSIM_SEC / 20);
	const struct seen free = run(false, NETSIM_MS / 10, 0, 0, NETSIM_SEC / 20);

	(void)state;
	assert_int_equal(paced.most, free.most);
	assert_true(paced.received >= free.received);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(windows_are_spread),
		cmocka_unit_test(short_queues_are_enough),
		cmocka_unit_test(short_paths_are_not_paced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
