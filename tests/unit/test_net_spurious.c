// SPDX-License-Identifier: Apache-2.0
/* Recoveries of the native engine that were for nothing, and how it finds that out where there are
 * no timestamps: duplicates that the peer tells (RFC 2883, 3708), and what is acknowledged after
 * an RTO (RFC 5682). The test delays and drops. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "net/bytes.h"
#include "net/checksum.h"
#include "netsim.h"

#define PORT  80
#define DELAY (10 * NETSIM_MS)
#define BYTES 400000

/* Which segments with data of engine 0, counted from 1. */
struct plan {
	unsigned int n;
	unsigned int drop, drop_to; /* these are lost */
	unsigned int late[4];	    /* these come @by later */
	uint64_t by;
	struct {
		uint64_t at;
		uint32_t len;
		uint8_t data[1500];
	} held[4];
	unsigned int n_held;
};

static void strip_timestamps(uint8_t *p, uint32_t len)
{
	uint8_t *tcp = p + 20, *o = tcp + 20, *end = tcp + (tcp[12] >> 4) * 4;
	uint16_t sum;

	while (o < end && *o) {
		if (o[0] == 8)
			memset(o, 1, 10);
		o += *o == 1 ? 1 : o[1];
	}
	put16(tcp + 16, 0);
	sum = net_sum_finish(
		net_sum(tcp, len - 20, net_sum_pseudo(p + 12, p + 16, 4, 6, len - 20)));
	memcpy(tcp + 16, &sum, 2);
}

static bool by_plan(struct netsim *sim, unsigned int from, uint8_t *p, uint32_t len, void *arg)
{
	struct plan *plan = arg;
	unsigned int i;

	if (p[33] & 2)
		strip_timestamps(p, len);
	if (from || len == 20 + (p[32] >> 4) * 4u)
		return true;
	plan->n++;
	for (i = 0; i < DMM_ARRAY_SIZE(plan->late); i++) {
		if (plan->late[i] != plan->n)
			continue;
		plan->held[plan->n_held].at = netsim_now(sim) + DELAY + plan->by;
		plan->held[plan->n_held].len = len;
		memcpy(plan->held[plan->n_held++].data, p, len);
		return false;
	}
	return plan->n < plan->drop || plan->n > plan->drop_to;
}

struct world {
	struct netsim *sim;
	struct netsim_conn client;
	struct dmm_net_stats stats; /* of the sender */
	struct dmm_net_info info;   /* of the client, when all was acknowledged */
	uint32_t before;	    /* the largest window so far when something was sent again */
};

static void begin(struct world *w, struct plan *plan)
{
	const struct netsim_params params = { .seed = 21,
					      .link = { { .delay = DELAY }, { .delay = DELAY } } };
	const struct netsim_conn server = { .expect = BYTES };

	*w = (struct world){ .client = { .to_send = BYTES } };
	w->sim = netsim_new(&params);
	netsim_set_tap(w->sim, by_plan, plan);
	netsim_listen(w->sim, 1, PORT, 4, &server);
	netsim_connect(w->sim, 0, 20000, PORT, &w->client);
}

static void look(struct world *w)
{
	if (!w->client.conn)
		return;
	dmm_net_get_info(w->client.conn, &w->info);
	dmm_net_get_stats(netsim_engine(w->sim, 0), &w->stats);
	if (!w->stats.retransmits)
		w->before = DMM_MAX(w->before, w->info.cwnd);
}

static void finish(struct world *w, struct plan *plan)
{
	unsigned int i;

	while (!w->client.closed) {
		for (i = 0; i < plan->n_held; i++) {
			if (!plan->held[i].len || plan->held[i].at > netsim_now(w->sim))
				continue;
			netsim_inject(w->sim, 1, plan->held[i].data, plan->held[i].len);
			plan->held[i].len = 0;
		}
		assert_true(netsim_step(w->sim));
		look(w);
	}
	assert_int_equal(netsim_end(w->sim), 0);
}

/* It comes after three others, but before it is sent again. */
static void a_late_segment_costs_nothing(void **state)
{
	struct plan plan = { .late = { 35 }, .by = 15 * NETSIM_MS };
	struct world w;

	(void)state;
	begin(&w, &plan);
	finish(&w, &plan);
	assert_int_equal(w.stats.retransmits, 1);
	assert_int_equal(w.stats.fast_recoveries, 1);
	assert_int_equal(w.stats.dsack_undos, 1);
	assert_true(w.info.cwnd >= w.before);
	assert_true(w.info.ssthresh > 1u << 30);
}

/* One of two was lost, so the window was cut for a reason. */
static void a_lost_one_beside_it_does(void **state)
{
	struct plan plan = { .late = { 35 }, .by = 15 * NETSIM_MS, .drop = 37, .drop_to = 37 };
	struct world w;

	(void)state;
	begin(&w, &plan);
	finish(&w, &plan);
	assert_int_equal(w.stats.retransmits, 2);
	assert_true(w.stats.dsack_in >= 1);
	assert_int_equal(w.stats.dsack_undos, 0);
	assert_true(w.info.ssthresh < w.before);
}

/* The path pauses for longer than an RTO, and nothing is lost. */
static void a_pause_costs_one_segment(void **state)
{
	struct plan plan = { .n = 0 };
	struct world w;

	(void)state;
	begin(&w, &plan);
	while (plan.n < 80)
		assert_true(netsim_step(w.sim));
	netsim_link(w.sim, 0)->delay = 500 * NETSIM_MS;
	finish(&w, &plan);
	assert_true(w.stats.rto >= 1);
	assert_int_equal(w.stats.frto_undos, 1);
	assert_int_equal(w.stats.retransmits, 1);
	assert_true(w.info.ssthresh > 1u << 30);
}

/* All is lost until the RTO; then new ones come through before what is missing. */
static void a_lost_flight_is_no_pause(void **state)
{
	struct plan plan = { .n = 0 };
	struct world w;

	(void)state;
	begin(&w, &plan);
	while (plan.n < 80)
		assert_true(netsim_step(w.sim));
	plan.drop = plan.n;
	plan.drop_to = UINT32_MAX;
	while (!w.stats.rto) {
		assert_true(netsim_step(w.sim));
		look(&w);
	}
	plan.drop_to = 0;
	finish(&w, &plan);
	assert_true(w.stats.rto >= 1);
	assert_int_equal(w.stats.frto_undos + w.stats.spurious, 0);
	assert_true(w.info.ssthresh < w.before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_late_segment_costs_nothing),
		cmocka_unit_test(a_lost_one_beside_it_does),
		cmocka_unit_test(a_pause_costs_one_segment),
		cmocka_unit_test(a_lost_flight_is_no_pause),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
