// SPDX-License-Identifier: Apache-2.0
/* The native engine against itself over links that lose, delay, reorder, duplicate, corrupt, cut,
 * mark, stall, forge and die for a while, one world per seed: at least 64 KiB each way under at least two
 * of these. Whatever happens: the bytes arrive as they were, windows are kept, everything ends,
 * nothing is left in memory. tests/lib/netsim.c checks it at every step.
 *
 *   SEED=n  that world alone   SEEDS=n  so many   LONG=1  100 times as many   JOBS=n  processes
 *   STOP=1  at the first that fails   TRACE=1  prints the packets */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "netsim.h"

#define PORT	  80
#define MAX_CONNS 3
#define MAX_JOBS  64
#define FOR_EVER  (7200 * NETSIM_SEC)
#ifdef __SANITIZE_ADDRESS__
#define SEEDS 2000
#else
#define SEEDS 100000
#endif

/* What one process found out, in memory that all see. */
struct found {
	struct dmm_net_stats stats;
	struct netsim_seen seen;
	uint64_t worlds, bad, bytes;
};

static struct found *found; /* of each process; then [0] is the sum */

struct world {
	struct netsim *sim;
	struct netsim_conn client[MAX_CONNS], reset;
	unsigned int n;
};

static uint64_t pick(uint64_t *dice, uint64_t from, uint64_t to)
{
	return from + netsim_roll(dice) % (to - from + 1);
}

static bool one_in(uint64_t *dice, uint64_t n)
{
	return netsim_roll(dice) % n == 0;
}

#define KINDS 13

static void impair(uint64_t *dice, struct netsim_link *l, unsigned int kind, bool v6)
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
	case 7: /* a half-open connection is tried again until 31 s, given up at 63 */
		l->dead_from = pick(dice, 0, 2000) * NETSIM_MS;
		l->dead_until = l->dead_from + pick(dice, 100, 12000) * NETSIM_MS;
		break;
	case 8: /* IPv6 has no less than 1280 */
		l->mtu = (uint32_t)pick(dice, v6 ? 1280 : 576, 1499);
		l->mtu_from = one_in(dice, 2) ? pick(dice, 0, 2000) * NETSIM_MS : 0;
		l->says_so = one_in(dice, 2);
		break;
	case 9:
		l->recut = (uint32_t)pick(dice, 1, 500);
		break;
	case 10:
		l->fragment = (uint32_t)pick(dice, 1, 300);
		break;
	case 11:
		l->forge = (uint32_t)pick(dice, 1, 100);
		break;
	case 12:
		l->mark = (uint32_t)pick(dice, 1, 300);
		break;
	}
}

static void roll_side(uint64_t *dice, struct dmm_net_config *c)
{
	static const uint32_t mtus[] = { 576, 1280, 1500, 1500, 1500, 9000 };

	c->mtu = mtus[pick(dice, 0, DMM_ARRAY_SIZE(mtus) - 1)];
	c->send_buffer = (uint32_t)pick(dice, 4, 300) * 1024;
	c->receive_buffer = (uint32_t)pick(dice, 3, one_in(dice, 3) ? 20 : 300) * 1024;
	c->buffer_memory = pick(dice, 256, 4096) * 1024;
	c->congestion = one_in(dice, 3) ? DMM_NET_NEWRENO : DMM_NET_CUBIC;
	c->delay_small = one_in(dice, 2);
	c->ecn = (enum dmm_net_ecn)pick(dice, DMM_NET_ECN_ACCEPT, DMM_NET_ECN_OFF);
}

static void roll(uint64_t *dice, struct netsim_params *p)
{
	unsigned int i, n, kind, taken = 0;

	p->v6 = one_in(dice, 3);
	p->link[0].no_timestamps = p->link[1].no_timestamps = one_in(dice, 4);
	for (i = 0; i < 2; i++) {
		p->link[i].delay = pick(dice, 10, one_in(dice, 4) ? 200000 : 20000) * 1000;
		roll_side(dice, &p->config[i]);
		if (p->v6)
			p->config[i].mtu = DMM_MAX(p->config[i].mtu, 1280u);
	}
	for (n = (unsigned int)pick(dice, 2, 4); n; n--) {
		do
			kind = (unsigned int)pick(dice, 0, KINDS - 1);
		while (taken & 1u << kind);
		taken |= 1u << kind;
		impair(dice, &p->link[n & 1], kind, p->v6);
		if (one_in(dice, 2))
			impair(dice, &p->link[!(n & 1)], kind, p->v6);
	}
}

static void add_numbers(void *to, const void *from, size_t size)
{
	const uint64_t *f = from;
	uint64_t *t = to;

	for (; size; size -= sizeof(*t))
		*t++ += *f++;
}

static void add_up(struct netsim *sim, struct found *to)
{
	struct dmm_net_stats s;
	unsigned int side;

	for (side = 0; side < 2; side++) {
		dmm_net_get_stats(netsim_engine(sim, side), &s);
		add_numbers(&to->stats, &s, sizeof(s));
	}
	add_numbers(&to->seen, netsim_seen(sim), sizeof(to->seen));
}

static uint64_t amount(uint64_t *dice)
{
	return pick(dice, 65536, one_in(dice, 4) ? 300000 : 90000);
}

/* Connections that one side gives up; the other learns of it, at the latest when it asks whether
 * anyone is there. */
static void begin_and_reset(struct world *w, uint64_t *dice)
{
	const uint64_t until = netsim_now(w->sim) + FOR_EVER;
	struct netsim_conn *c = &w->reset, server;

	*c = (struct netsim_conn){ .to_send = pick(dice, 0, 200000),
				   .expect = pick(dice, 0, 200000),
				   .keep_alive = 10,
				   .may_fail = true };
	server = *c;
	server.to_send = c->expect;
	server.expect = c->to_send;
	netsim_listen(w->sim, 1, PORT, 4, &server);
	netsim_connect(w->sim, 0, 30000, PORT, c);
	netsim_run(w->sim, pick(dice, 1, 3000) * NETSIM_MS);
	netsim_abort(w->sim, (unsigned int)pick(dice, 0, 1));
	netsim_unlisten(w->sim, 1);
	while (!netsim_all_closed(w->sim) && netsim_now(w->sim) < until && netsim_step(w->sim))
		;
	if (!netsim_all_closed(w->sim))
		netsim_violation(w->sim, "a reset is never noticed");
}

static void start(struct world *w, uint64_t *dice, bool both)
{
	struct netsim_conn *c = &w->client[0], server;
	unsigned int i;

	*c = (struct netsim_conn){ .patient = true,
				   .to_send = amount(dice),
				   .expect = amount(dice),
				   .chunk = one_in(dice, 3) ? (uint32_t)pick(dice, 1, 4000) : 0 };
	server = (struct netsim_conn){ .patient = true,
				       .to_send = c->expect,
				       .expect = c->to_send,
				       .chunk = one_in(dice, 3) ? (uint32_t)pick(dice, 1, 4000)
								: 0 };
	if (one_in(dice, 3))
		server.slow_until = netsim_now(w->sim) + pick(dice, 1, 20000) * NETSIM_MS;
	if (one_in(dice, 3))
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

static void run_seed(uint64_t seed, struct found *to)
{
	uint64_t dice = seed * 0x9e3779b97f4a7c15 + 1, until;
	struct netsim_params params = { .seed = seed };
	struct world w = { .n = 0 };
	unsigned int i;

	roll(&dice, &params);
	w.sim = netsim_new(&params);
	if (one_in(&dice, 20))
		begin_and_reset(&w, &dice);
	start(&w, &dice, one_in(&dice, 10));
	until = netsim_now(w.sim) + FOR_EVER;
	while (!all_closed(&w) && netsim_now(w.sim) < until && netsim_step(w.sim))
		;
	if (!all_closed(&w))
		say_stuck(&w);
	add_up(w.sim, to);
	for (i = 0; i < w.n; i++)
		to->bytes += w.client[i].received;
	to->worlds++;
	to->bad += netsim_end(w.sim) > 0;
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

/* Each of @jobs processes has its share of the seeds. */
static void run_share(unsigned int job, unsigned int jobs, uint64_t n, bool stop)
{
	uint64_t seed;

	for (seed = 1 + job; seed <= n && !(found[job].bad && stop); seed += jobs)
		run_seed(seed, &found[job]);
}

static void every_seed_holds(void **state)
{
	const uint64_t n = number("SEEDS", number("LONG", 0) ? 100ull * SEEDS : SEEDS);
	const uint64_t only = number("SEED", 0);
	const unsigned int jobs = (unsigned int)DMM_MIN(
		number("JOBS", (uint64_t)sysconf(_SC_NPROCESSORS_ONLN)), (uint64_t)MAX_JOBS);
	unsigned int job;
	int status;

	(void)state;
	found = mmap(NULL, MAX_JOBS * sizeof(*found), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(found != MAP_FAILED);
	if (only) {
		run_seed(only, found);
		assert_int_equal(found->bad, 0);
		return;
	}
	for (job = 0; job < jobs; job++)
		if (fork() == 0) {
			run_share(job, jobs, n, number("STOP", 0));
			_exit(0);
		}
	while (wait(&status) > 0)
		assert_int_equal(status, 0);
	for (job = 1; job < jobs; job++)
		add_numbers(found, &found[job], sizeof(*found));
	printf("# %llu worlds, %llu MB\n", (unsigned long long)found->worlds,
	       (unsigned long long)found->bytes >> 20);
	assert_int_equal(found->bad, 0);
	assert_int_equal(found->worlds, n);
	assert_true(found->seen.outages <= n / 1000);
}

#define COUNTER(name)                                                                              \
	{                                                                                          \
#name, offsetof(struct found, stats.name)                                          \
	}

#define SEEN(name)                                                                                 \
	{                                                                                          \
#name, offsetof(struct found, seen.name)                                           \
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
	COUNTER(dsack_undos),
	COUNTER(frto_undos),
	COUNTER(ce_in),
	COUNTER(ecn_reductions),
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
	COUNTER(reassembled),
	COUNTER(resets_in),
	COUNTER(keepalives),
	SEEN(zero_windows),
	SEEN(lost),
	SEEN(queue_full),
	SEEN(dead),
	SEEN(stalled),
	SEEN(reordered),
	SEEN(duplicated),
	SEEN(corrupted),
	SEEN(recut),
	SEEN(marked),
	SEEN(fragmented),
	SEEN(forged_resets),
	SEEN(forged_syns),
	SEEN(too_big),
	SEEN(told_too_big),
};

static void everything_happened(void **state)
{
	const bool judge = found->worlds >= 50000; /* a few may miss something */
	const struct counter *c;
	bool missing = false;
	uint64_t n;

	(void)state;
	for (c = counters; c < counters + DMM_ARRAY_SIZE(counters); c++) {
		memcpy(&n, (const char *)found + c->at, sizeof(n));
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
