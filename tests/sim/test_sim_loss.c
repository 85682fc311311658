// SPDX-License-Identifier: Apache-2.0
/* How the native engine finds what is lost, and what it does to its window: one fault at a
 * time, and the models of the RFCs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "netsim.h"

#define PORT   80
#define LARGE  (1ull << 40)
#define FACTOR 0.4 /* C of RFC 9438 */
#define BETA   0.7

/* Which segments with data, counted from 1, do not arrive; from engine 0. */
struct plan {
	unsigned int n, drop[8];
	unsigned int from, to; /* and all of these */
	bool no_sack;	       /* SYNs lose their SACK-permitted option */
};

static uint32_t add16(const uint8_t *p, uint32_t len, uint32_t sum)
{
	uint32_t i;

	for (i = 0; i < len; i += 2)
		sum += (uint32_t)p[i] << 8 | (i + 1 < len ? p[i + 1] : 0);
	return sum;
}

static void fix_checksum(uint8_t *p, uint32_t len)
{
	uint8_t *tcp = p + 20;
	uint32_t sum;

	tcp[16] = tcp[17] = 0;
	sum = add16(p + 12, len - 12, 6 + len - 20);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	tcp[16] = (uint8_t)(~sum >> 8);
	tcp[17] = (uint8_t)~sum;
}

static void strip_sack(uint8_t *p, uint32_t len)
{
	uint8_t *tcp = p + 20, *o = tcp + 20, *end = tcp + (tcp[12] >> 4) * 4;

	while (o < end && *o) {
		if (o[0] == 4)
			o[0] = o[1] = 1;
		o += *o == 1 ? 1 : o[1];
	}
	fix_checksum(p, len);
}

static bool by_plan(struct netsim *sim, unsigned int from, uint8_t *p, uint32_t len, void *arg)
{
	struct plan *plan = arg;
	const uint32_t header = 20 + (p[32] >> 4) * 4u;
	size_t i;

	(void)sim;
	if (plan->no_sack && (p[33] & 2))
		strip_sack(p, len);
	if (from || len == header)
		return true;
	plan->n++;
	for (i = 0; i < DMM_ARRAY_SIZE(plan->drop); i++)
		if (plan->drop[i] == plan->n)
			return false;
	return plan->n < plan->from || plan->n > plan->to;
}

/* @bytes from 0 to 1 over 10 ms each way; the sender's counters are returned. */
static struct dmm_net_stats send_by(struct plan *plan, uint64_t bytes,
				    enum dmm_net_congestion congestion)
{
	const struct netsim_params params = { .seed = 7,
					      .link = { { .delay = 10 * NETSIM_MS },
							{ .delay = 10 * NETSIM_MS } },
					      .config = { { .congestion = congestion } } };
	const struct netsim_conn server = { .expect = bytes };
	struct netsim_conn client = { .to_send = bytes };
	struct netsim *sim = netsim_new(&params);
	struct dmm_net_stats stats;

	netsim_set_tap(sim, by_plan, plan);
	netsim_listen(sim, 1, PORT, 4, &server);
	netsim_connect(sim, 0, 20000, PORT, &client);
	assert_true(netsim_until(sim, &client.closed, 60 * NETSIM_SEC));
	dmm_net_get_stats(netsim_engine(sim, 0), &stats);
	assert_int_equal(netsim_end(sim), 0);
	return stats;
}

/* RFC 8985, 6675: repaired in a round trip, by one retransmission. */
static void one_lost_segment_is_sent_again_once(void **state)
{
	struct plan plan = { .drop = { 20 } };
	const struct dmm_net_stats s = send_by(&plan, 100000, DMM_NET_CUBIC);

	(void)state;
	assert_int_equal(s.retransmits, 1);
	assert_int_equal(s.fast_recoveries, 1);
	assert_int_equal(s.rto, 0);
}

static void many_lost_segments_are_sent_again_once_each(void **state)
{
	struct plan plan = { .drop = { 12, 13, 14, 17, 19, 20, 23, 24 } };
	const struct dmm_net_stats s = send_by(&plan, 300000, DMM_NET_CUBIC);

	(void)state;
	assert_int_equal(s.retransmits, 8);
	assert_int_equal(s.fast_recoveries, 1);
	assert_int_equal(s.rto, 0);
}

/* RFC 8985 7: nothing comes after it, so nothing tells that it is missing. */
static void a_lost_tail_is_probed(void **state)
{
	struct plan plan = { .drop = { 70 } };
	const struct dmm_net_stats s = send_by(&plan, 100000, DMM_NET_CUBIC);

	(void)state;
	assert_int_equal(s.tlp, 1);
	assert_int_equal(s.rto, 0);
}

/* RFC 8985 6.2: RFC 6675 would have to wait for the timer. */
static void a_lost_retransmission_is_found(void **state)
{
	struct plan plan = { .drop = { 30, 50 } };
	struct dmm_net_stats s;
	unsigned int i;

	(void)state;
	for (i = 40; i < 90; i++) { /* whichever number the retransmission has */
		plan = (struct plan){ .drop = { 30, i } };
		s = send_by(&plan, 400000, DMM_NET_CUBIC);
		assert_int_equal(s.retransmits, 2);
		assert_int_equal(s.rto, 0);
	}
}

/* RFC 6298: all of a flight lost, and what follows. */
static void all_lost_is_found_by_the_timer(void **state)
{
	struct plan plan = { .from = 11, .to = 33 };
	const struct dmm_net_stats s = send_by(&plan, 400000, DMM_NET_CUBIC);

	(void)state;
	assert_true(s.rto >= 1);
	assert_int_equal(s.fast_recoveries, 0);
}

/* RFC 6582 */
static void without_sack_duplicate_acks_tell(void **state)
{
	struct plan plan = { .drop = { 20, 24 }, .no_sack = true };
	const struct dmm_net_stats s = send_by(&plan, 100000, DMM_NET_NEWRENO);

	(void)state;
	assert_int_equal(s.sack_in, 0);
	assert_int_equal(s.retransmits, 2);
	assert_int_equal(s.fast_recoveries, 1);
	assert_int_equal(s.rto, 0);
}

/* --- windows --- */

static struct netsim_params wide(uint64_t seed)
{
	struct netsim_params p = {
		.seed = seed, .link = { { .delay = 20 * NETSIM_MS }, { .delay = 20 * NETSIM_MS } }
	};
	unsigned int i;

	for (i = 0; i < 2; i++) {
		p.config[i].send_buffer = p.config[i].receive_buffer = 16 << 20;
		p.config[i].buffer_memory = 256 << 20;
	}
	return p;
}

static uint32_t window_of(const struct netsim_conn *c, struct dmm_net_info *info)
{
	dmm_net_get_info(c->conn, info);
	return info->cwnd;
}

/* RFC 9438 4.2 and 4.3 beside what the engine does, from one loss on; within 5 %. */
static void cubic_follows_its_curve(void **state)
{
	struct netsim_params params = wide(3);
	const struct netsim_conn server = { .keep_open = true };
	struct netsim_conn client = { .to_send = LARGE, .keep_open = true };
	struct netsim *sim = netsim_new(&params);
	struct dmm_net_info info;
	struct plan plan = { .n = 0 };
	double w_max, k, t, cubic, reno, begin, worst = 0;
	unsigned int i;

	(void)state;
	netsim_set_tap(sim, by_plan, &plan);
	netsim_listen(sim, 1, PORT, 4, &server);
	netsim_connect(sim, 0, 20000, PORT, &client);
	while (!client.connected || window_of(&client, &info) < 1000000)
		assert_true(netsim_step(sim));
	plan.drop[0] = plan.n + 10;
	w_max = 0;
	while (window_of(&client, &info) > 0 && info.ssthresh > 1u << 30) {
		w_max = info.cwnd;
		assert_true(netsim_step(sim));
	}
	netsim_run(sim, 60 * NETSIM_MS); /* recovered; the curve begins with the first ACK then */
	begin = (double)netsim_now(sim) - 20e6;
	w_max /= info.mss;
	k = cbrt(w_max * (1 - BETA) / FACTOR);
	for (i = 0; i < 120; i++) {
		double want, got;

		netsim_run(sim, 100 * NETSIM_MS);
		t = ((double)netsim_now(sim) - begin) / 1e9;
		cubic = FACTOR * pow(t - k, 3) + w_max;
		reno = w_max * BETA + 3 * (1 - BETA) / (1 + BETA) * t / 0.04;
		want = fmax(cubic, reno);
		got = (double)window_of(&client, &info) / info.mss;
		worst = fmax(worst, fabs(got - want) / want);
		if (getenv("CURVE"))
			printf("# %.2f s: %.1f, model %.1f\n", t, got, want);
	}
	printf("# K %.2f s, W_max %.0f, at most %.1f %% off\n", k, w_max, worst * 100);
	assert_true(worst < 0.05);
	netsim_end(sim);
}

/* Two seconds from the beginning on 100 Mb/s with 500 kB on the way and a queue of 9 MB. */
static struct dmm_net_stats fill_deep_queue(enum dmm_net_congestion kind,
					    struct dmm_net_info *ret_info)
{
	struct netsim_params params = wide(4);
	const struct netsim_conn server = { .keep_open = true };
	struct netsim_conn client = { .to_send = LARGE, .keep_open = true };
	struct netsim *sim;
	struct dmm_net_stats stats;

	params.config[0].congestion = kind;
	params.link[0].rate = 12500000;
	params.link[0].queue = 6000;
	sim = netsim_new(&params);
	netsim_listen(sim, 1, PORT, 4, &server);
	netsim_connect(sim, 0, 20000, PORT, &client);
	netsim_run(sim, 2 * NETSIM_SEC);
	dmm_net_get_stats(netsim_engine(sim, 0), &stats);
	dmm_net_get_info(client.conn, ret_info);
	printf("# %s: ssthresh %u, cwnd %u, %llu retransmissions\n",
	       kind == DMM_NET_CUBIC ? "HyStart++" : "without", ret_info->ssthresh, ret_info->cwnd,
	       (unsigned long long)stats.retransmits);
	netsim_end(sim);
	return stats;
}

/* RFC 9406: slow start ends before the queue does. It is noticed when the first segments of a round
 * had to wait; then 5 rounds with a quarter of the growth follow. Without it, the queue runs
 * over. */
static void slow_start_ends_without_loss(void **state)
{
	struct dmm_net_info info;

	(void)state;
	assert_true(fill_deep_queue(DMM_NET_NEWRENO, &info).retransmits > 0);
	assert_int_equal(fill_deep_queue(DMM_NET_CUBIC, &info).retransmits, 0);
	assert_in_range(info.ssthresh, 400000, 6500000);
}

static double jain(double a, double b)
{
	return (a + b) * (a + b) / (2 * (a * a + b * b));
}

static void two_share_a_link(void **state)
{
	const enum dmm_net_congestion kinds[] = { DMM_NET_CUBIC, DMM_NET_NEWRENO };
	size_t k;

	(void)state;
	for (k = 0; k < DMM_ARRAY_SIZE(kinds); k++) {
		struct netsim_params params = wide(5 + k);
		const struct netsim_conn server = { .keep_open = true };
		struct netsim_conn a = { .to_send = LARGE, .keep_open = true }, b = a;
		struct netsim *sim;
		uint64_t a0, b0;
		double fair;

		params.config[0].congestion = kinds[k];
		params.link[0].rate = 2500000;
		params.link[0].queue = 100;
		sim = netsim_new(&params);
		netsim_listen(sim, 1, PORT, 4, &server);
		netsim_connect(sim, 0, 20000, PORT, &a);
		netsim_run(sim, 5 * NETSIM_SEC); /* the second comes later */
		netsim_connect(sim, 0, 20001, PORT, &b);
		netsim_run(sim, 30 * NETSIM_SEC);
		a0 = a.sent;
		b0 = b.sent;
		netsim_run(sim, 60 * NETSIM_SEC);
		fair = jain((double)(a.sent - a0), (double)(b.sent - b0));
		printf("# %s: Jain %.3f, link %.0f %% full\n", k ? "newreno" : "cubic", fair,
		       100.0 * (double)(a.sent - a0 + b.sent - b0) / (60 * 2500000.0));
		assert_true(fair >= 0.95);
		assert_true(a.sent - a0 + b.sent - b0 > 0.85 * 60 * 2500000);
		netsim_end(sim);
	}
}

/* Goodput over 40 ms and 100 Mb/s by loss, against the square root law (Mathis): no less. */
static void loss_costs_what_it_must(void **state)
{
	const uint32_t losses[] = { 0, 1, 10, 50 };
	size_t i;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(losses); i++) {
		struct netsim_params params = wide(8);
		const struct netsim_conn server = { .keep_open = true };
		struct netsim_conn c = { .to_send = LARGE, .keep_open = true };
		struct dmm_net_stats stats;
		struct netsim *sim;
		double rate, law;

		params.link[0].rate = 12500000;
		params.link[0].queue = 400;
		params.link[0].loss = losses[i];
		sim = netsim_new(&params);
		netsim_listen(sim, 1, PORT, 4, &server);
		netsim_connect(sim, 0, 20000, PORT, &c);
		netsim_run(sim, 30 * NETSIM_SEC);
		rate = (double)netsim_accepted(sim, 1)->received / 30;
		law = losses[i] ? 1448 / 0.04 * 1.22 / sqrt(losses[i] / 1000.0) : 12500000;
		law = fmin(law, 12500000);
		dmm_net_get_stats(netsim_engine(sim, 0), &stats);
		printf("# loss %.1f %%: %.2f Mb/s, law %.2f, RTOs %llu\n", losses[i] / 10.0,
		       rate * 8 / 1e6, law * 8 / 1e6, (unsigned long long)stats.rto);
		assert_true(rate > 0.8 * law || losses[i] > 10);
		netsim_end(sim);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_lost_segment_is_sent_again_once),
		cmocka_unit_test(many_lost_segments_are_sent_again_once_each),
		cmocka_unit_test(a_lost_tail_is_probed),
		cmocka_unit_test(a_lost_retransmission_is_found),
		cmocka_unit_test(all_lost_is_found_by_the_timer),
		cmocka_unit_test(without_sack_duplicate_acks_tell),
		cmocka_unit_test(cubic_follows_its_curve),
		cmocka_unit_test(slow_start_ends_without_loss),
		cmocka_unit_test(two_share_a_link),
		cmocka_unit_test(loss_costs_what_it_must),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
