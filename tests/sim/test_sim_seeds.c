// SPDX-License-Identifier: Apache-2.0
/* The native engine against itself over links that lose, delay, reorder, duplicate, corrupt, stall
 * and die for a while, one world per seed. Whatever happens: the bytes arrive as they were, windows
 * are kept, everything ends, nothing is left in memory. tests/lib/netsim.c checks it at every
 * step.
 *
 *   SEED=n  that world alone, with its counters   SEEDS=n  so many   LONG=1  100 times as many
 *   STOP=1  at the first that fails   TRACE=1  prints the packets */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/util.h"
#include "netsim.h"

#define PORT	  80
#define MAX_CONNS 3
#define FOR_EVER  (7200 * NETSIM_SEC)
#ifdef __SANITIZE_ADDRESS__
#define SEEDS 400
#else
#define SEEDS 5000
#endif

static struct dmm_net_stats sum;
static uint64_t ran;

struct world {
	struct netsim *sim;
	struct netsim_conn client[MAX_CONNS];
	unsigned int n;
};

static uint64_t pick(struct netsim *dice, uint64_t from, uint64_t to)
{
	return from + netsim_random(dice) % (to - from + 1);
}

static bool one_in(struct netsim *dice, uint64_t n)
{
	return netsim_random(dice) % n == 0;
}

static void impair(struct netsim *dice, struct netsim_link *l, unsigned int kind, uint64_t now,
		   bool v6)
{
	switch (kind) {
	case 0:
		l->loss = (uint32_t)pick(dice, 1, one_in(dice, 4) ? 300 : 50);
		break;
	case 1:
		l->reorder = (uint32_t)pick(dice, 1, 250);
		l->reorder_by = pick(dice, 1, 30) * NETSIM_MS;
		break;
	case 2:
		l->dup = (uint32_t)pick(dice, 1, 100);
		break;
	case 3:
		l->corrupt = (uint32_t)pick(dice, 1, 30);
		break;
	case 4:
		l->stall_every = pick(dice, 100, 5000) * NETSIM_MS;
		l->stall_for = l->stall_every / pick(dice, 2, 10);
		break;
	case 5:
		l->jitter = pick(dice, 1, 50) * NETSIM_MS;
		break;
	case 6:
		l->rate = pick(dice, 20, 5000) * 1000;
		l->queue = (uint32_t)pick(dice, 5, 200);
		break;
	case 7:
		l->dead_from = now + pick(dice, 0, 2000) * NETSIM_MS;
		l->dead_until = l->dead_from + pick(dice, 100, 20000) * NETSIM_MS;
		break;
	case 9:
		l->recut = (uint32_t)pick(dice, 1, 500);
		break;
	case 8: /* IPv6 has no less than 1280 */
		l->mtu = (uint32_t)pick(dice, v6 ? 1280 : 576, 1499);
		l->says_so = one_in(dice, 2);
		break;
	}
}

static void roll_side(struct netsim *dice, struct dmm_net_config *c)
{
	static const uint32_t mtus[] = { 576, 1280, 1500, 1500, 1500, 9000 };

	c->mtu = mtus[pick(dice, 0, DMM_ARRAY_SIZE(mtus) - 1)];
	c->send_buffer = (uint32_t)pick(dice, 4, 300) * 1024;
	c->receive_buffer = (uint32_t)pick(dice, 3, 300) * 1024;
	c->buffer_memory = pick(dice, 256, 4096) * 1024;
	c->congestion = one_in(dice, 3) ? DMM_NET_NEWRENO : DMM_NET_CUBIC;
	c->delay_small = one_in(dice, 2);
}

static void roll(struct netsim *dice, struct netsim_params *p, uint64_t now)
{
	unsigned int i, n;

	p->v6 = one_in(dice, 3);
	for (i = 0; i < 2; i++) {
		p->link[i].delay = pick(dice, 10, one_in(dice, 4) ? 200000 : 20000) * 1000;
		roll_side(dice, &p->config[i]);
		if (p->v6)
			p->config[i].mtu = DMM_MAX(p->config[i].mtu, 1280u);
	}
	for (n = (unsigned int)pick(dice, 2, 4); n; n--) {
		const unsigned int kind = (unsigned int)pick(dice, 0, 9);

		impair(dice, &p->link[n & 1], kind, now, p->v6);
		if (one_in(dice, 2))
			impair(dice, &p->link[!(n & 1)], kind, now, p->v6);
	}
}

static void add_up(struct netsim *sim)
{
	struct dmm_net_stats s;
	const uint64_t *from = (const uint64_t *)&s;
	uint64_t *to = (uint64_t *)&sum;
	unsigned int side;
	size_t i;

	for (side = 0; side < 2; side++) {
		dmm_net_get_stats(netsim_engine(sim, side), &s);
		for (i = 0; i < sizeof(s) / sizeof(*from); i++)
			to[i] += from[i];
	}
}

static void start(struct world *w, struct netsim *dice, bool both)
{
	struct netsim_conn *c = &w->client[0], server;
	unsigned int i;

	*c = (struct netsim_conn){ .patient = true,
				   .to_send = pick(dice, 65536, 200000),
				   .expect = pick(dice, 65536, 200000),
				   .chunk = one_in(dice, 3) ? (uint32_t)pick(dice, 1, 4000) : 0 };
	server = (struct netsim_conn){ .patient = true,
				       .to_send = c->expect,
				       .expect = c->to_send,
				       .chunk = one_in(dice, 3) ? (uint32_t)pick(dice, 1, 4000)
								: 0 };
	if (one_in(dice, 4))
		server.slow_until = netsim_now(w->sim) + pick(dice, 1, 20000) * NETSIM_MS;
	if (one_in(dice, 4))
		c->slow_until = netsim_now(w->sim) + pick(dice, 1, 20000) * NETSIM_MS;
	if (both) { /* opens at the same time */
		w->client[1] = server;
		netsim_connect(w->sim, 0, 20000, 21000, c);
		netsim_connect(w->sim, 1, 21000, 20000, &w->client[1]);
		w->n = 2;
		return;
	}
	netsim_listen(w->sim, 1, PORT, one_in(dice, 2) ? 8 : 1, &server);
	w->n = one_in(dice, 4) ? MAX_CONNS : 1; /* alike */
	for (i = 0; i < w->n; i++) {
		w->client[i] = *c;
		netsim_connect(w->sim, 0, (uint16_t)(20000 + i), PORT, &w->client[i]);
	}
}

static bool all_closed(struct world *w)
{
	unsigned int i;

	for (i = 0; i < w->n; i++)
		if (!w->client[i].closed)
			return false;
	return netsim_all_closed(w->sim);
}

static void say_stuck(struct world *w)
{
	const struct netsim_conn *c = &w->client[0];
	struct dmm_net_info info = { .state = "gone" };

	if (c->conn)
		dmm_net_get_info(c->conn, &info);
	netsim_violation(w->sim, "it does not end");
	fprintf(stderr,
		"#   client %s sent %llu received %llu cwnd %u in flight %u una %u nxt %u\n",
		info.state, (unsigned long long)c->sent, (unsigned long long)c->received, info.cwnd,
		info.in_flight, info.snd_una, info.snd_nxt);
}

static unsigned int run_seed(uint64_t seed)
{
	const struct netsim_params none = { .seed = seed };
	struct netsim *dice = netsim_new(&none);
	struct netsim_params params = none;
	struct world w = { .n = 0 };
	uint64_t until;
	unsigned int violations;

	roll(dice, &params, netsim_now(dice));
	w.sim = netsim_new(&params);
	start(&w, dice, one_in(dice, 10));
	until = netsim_now(w.sim) + FOR_EVER;
	if (one_in(dice, 20)) { /* cut short somewhere */
		netsim_run(w.sim, pick(dice, 1, 3000) * NETSIM_MS);
		netsim_abort_all(w.sim);
		w.n = 0;
	}
	while (!all_closed(&w) && netsim_now(w.sim) < until && netsim_step(w.sim))
		;
	if (!all_closed(&w))
		say_stuck(&w);
	add_up(w.sim);
	violations = netsim_end(w.sim);
	netsim_end(dice);
	return violations;
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

static void every_seed_holds(void **state)
{
	const bool is_long = number("LONG", 0) != 0;
	const uint64_t n = number("SEEDS", is_long ? 100ull * SEEDS : SEEDS);
	const uint64_t only = number("SEED", 0), stop = number("STOP", 0);
	uint64_t seed, bad = 0;

	(void)state;
	if (only) {
		assert_int_equal(run_seed(only), 0);
		return;
	}
	for (seed = 1; seed <= n && !(bad && stop); seed++)
		bad += run_seed(seed) > 0;
	ran = n;
	assert_int_equal(bad, 0);
}

#define COUNTER(name)                                                                              \
	{                                                                                          \
#name, offsetof(struct dmm_net_stats, name)                                        \
	}

static const struct counter {
	const char *name;
	size_t at;
} counters[] = {
	COUNTER(retransmits),
	COUNTER(rto),
	COUNTER(tlp),
	COUNTER(fast_recoveries),
	COUNTER(rack_marked),
	COUNTER(spurious),
	COUNTER(dsack_in),
	COUNTER(dsack_out),
	COUNTER(sack_in),
	COUNTER(dup_acks_in),
	COUNTER(paws_dropped),
	COUNTER(challenge_acks),
	COUNTER(out_of_window),
	COUNTER(zero_window_probes),
	COUNTER(window_updates),
	COUNTER(out_of_order),
	COUNTER(delayed_acks),
	COUNTER(simultaneous_open),
	COUNTER(simultaneous_close),
	COUNTER(bad_checksum),
	COUNTER(bad_ip),
	COUNTER(cookies_taken),
	COUNTER(icmp_in),
	COUNTER(pmtu_lowered),
	COUNTER(black_holes),
};

static void everything_happened(void **state)
{
	const bool judge = ran >= 5000; /* a few may miss something */
	const struct counter *c;
	bool missing = false;
	uint64_t n;

	(void)state;
	for (c = counters; c < counters + DMM_ARRAY_SIZE(counters); c++) {
		memcpy(&n, (const char *)&sum + c->at, sizeof(n));
		printf("# %-20s %llu\n", c->name, (unsigned long long)n);
		missing |= !n;
	}
	assert_false(judge && missing);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_seed_holds),
		cmocka_unit_test(everything_happened),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
