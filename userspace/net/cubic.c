// SPDX-License-Identifier: Apache-2.0
/* CUBIC (RFC 9438) with HyStart++ (RFC 9406) as its slow start. Whole numbers only: bytes, ms,
 * ns. */
#include "base/util.h"
#include "net/congestion.h"
#include "net/seq.h"

#define BETA_OF(x) ((uint32_t)((uint64_t)(x)*7 / 10)) /* RFC 9438 4.6 */
#define MAX_T_MS   200000

/* RFC 9406 4.3 */
#define MIN_RTT_THRESH (4 * NET_MS)
#define MAX_RTT_THRESH (16 * NET_MS)
#define RTT_DIVISOR    8
#define N_RTT_SAMPLE   8
#define CSS_DIVISOR    4 /* of growth */
#define CSS_ROUNDS     5
#define LIMIT	       8 /* segments per ACK, unless they are paced */

struct cubic {
	uint32_t w_max, w_est, origin; /* origin: where the curve is flat */
	uint32_t cwnd_prior, rest, est_rest;
	uint32_t k_ms;
	uint32_t round_end;
	uint64_t last;	/* ACK of this epoch; 0: a new one begins with the next */
	uint64_t epoch; /* how long it has lasted */
	uint64_t last_min, this_min, css_min;
	uint8_t samples, css_rounds; /* css_rounds: of conservative slow start; 0: not in it */
	bool started;		     /* slow start was left once: RFC 9406 is only for the first */
};

_Static_assert(sizeof(struct cubic) <= sizeof(((struct dmm_net_conn *)0)->cc_state), "its room");

static struct cubic *state(struct dmm_net_conn *c)
{
	return (struct cubic *)(void *)c->cc_state;
}

static void begin(struct dmm_net_conn *c)
{
	struct cubic *q = state(c);

	*q = (struct cubic){ .last_min = UINT64_MAX,
			     .this_min = UINT64_MAX,
			     .round_end = c->snd_nxt };
}

static uint32_t cube_root(uint64_t x)
{
	uint64_t r = 0;
	int shift;

	for (shift = 20; shift >= 0; shift--) {
		const uint64_t try = r | 1ull << shift;

		if (try * try * try <= x)
			r = try;
	}
	return (uint32_t)r;
}

/* --- slow start --- */

static void end_slow_start(struct dmm_net_conn *c)
{
	c->ssthresh = c->cwnd;
	state(c)->started = true;
	state(c)->css_rounds = 0;
}

static void next_round(struct dmm_net_conn *c, struct cubic *q)
{
	q->round_end = c->snd_nxt;
	q->last_min = q->this_min;
	q->this_min = UINT64_MAX;
	q->samples = 0;
	if (q->css_rounds && ++q->css_rounds > CSS_ROUNDS)
		end_slow_start(c);
}

/* RFC 9406 4.2: when round trips get longer than in the round before, the path's queue fills. */
static void watch_delay(struct cubic *q, uint64_t rtt)
{
	uint64_t thresh;

	if (rtt) {
		q->this_min = DMM_MIN(q->this_min, rtt);
		q->samples += q->samples < UINT8_MAX;
	}
	if (q->samples < N_RTT_SAMPLE || q->this_min == UINT64_MAX || q->last_min == UINT64_MAX)
		return;
	if (q->css_rounds) { /* it was a fluke */
		if (q->this_min < q->css_min)
			q->css_rounds = 0;
		return;
	}
	thresh = DMM_MIN(DMM_MAX(q->last_min / RTT_DIVISOR, MIN_RTT_THRESH), MAX_RTT_THRESH);
	if (q->this_min >= q->last_min + thresh) {
		q->css_min = q->this_min;
		q->css_rounds = 1;
	}
}

static void slow_start(struct dmm_net_conn *c, struct cubic *q, const struct net_acked *a)
{
	struct net_acked slower = *a;

	if (q->css_rounds)
		slower.delivered /= CSS_DIVISOR;
	net_slow_start(c, &slower, c->net->paces ? UINT16_MAX : LIMIT);
	if (q->started)
		return;
	watch_delay(q, a->rtt);
	if (seq_gt(c->snd_una, q->round_end))
		next_round(c, q);
}

/* --- congestion avoidance --- */

/* RFC 9438 4.2: K = cbrt((W_max - cwnd) / C) in segments and seconds, C = 0.4. */
static void begin_epoch(struct dmm_net_conn *c, struct cubic *q)
{
	q->epoch = 0;
	q->w_est = c->cwnd;
	q->rest = q->est_rest = 0;
	if (c->cwnd < q->w_max) {
		const uint64_t segments_k = (uint64_t)(q->w_max - c->cwnd) * 1000 / c->mss;

		q->k_ms = cube_root(segments_k * 2500000);
		q->origin = q->w_max;
	} else {
		q->k_ms = 0;
		q->origin = c->cwnd;
	}
}

/* W_cubic(t) = C * (t - K)^3 + W_max. */
static uint32_t curve(const struct dmm_net_conn *c, const struct cubic *q, uint64_t t_ms)
{
	const int64_t d = (int64_t)DMM_MIN(t_ms, (uint64_t)MAX_T_MS) - (int64_t)q->k_ms;
	const int64_t by = d * d * d / 10000 * 4 * (int64_t)c->mss / 1000000;
	const int64_t w = (int64_t)q->origin + by;

	return (uint32_t)DMM_MAX(w, (int64_t)c->mss);
}

/* RFC 9438 4.3: what AIMD with the same average would have; alpha = 3 (1 - beta) / (1 + beta). */
static void grow_estimate(struct dmm_net_conn *c, struct cubic *q, uint32_t bytes)
{
	const uint64_t alpha = q->w_est < q->cwnd_prior ? 529 : 1000;
	const uint64_t by = (uint64_t)bytes * c->mss * alpha / 1000 + q->est_rest;

	q->w_est += (uint32_t)(by / c->cwnd);
	q->est_rest = (uint32_t)(by % c->cwnd);
}

/* RFC 9438 4.2: the time in which the window did not hold sending back does not count. While it
 * does, ACKs are no more than a round trip apart. */
static void pass_time(struct dmm_net_conn *c, struct cubic *q)
{
	if (!q->last)
		begin_epoch(c, q);
	else
		q->epoch += DMM_MIN(c->net->now - q->last, c->srtt);
	q->last = DMM_MAX(c->net->now, (uint64_t)1);
}

static void avoid(struct dmm_net_conn *c, struct cubic *q, uint32_t bytes)
{
	uint32_t target;
	uint64_t by;

	pass_time(c, q);
	grow_estimate(c, q, bytes);
	if (curve(c, q, q->epoch / NET_MS) < q->w_est) { /* the Reno-friendly region */
		c->cwnd = DMM_MAX(c->cwnd, q->w_est);
		return;
	}
	target = curve(c, q, (q->epoch + c->srtt) / NET_MS);
	target = DMM_MIN(DMM_MAX(target, c->cwnd), c->cwnd + c->cwnd / 2);
	by = (uint64_t)bytes * (target - c->cwnd) + q->rest;
	q->rest = (uint32_t)(by % c->cwnd);
	c->cwnd += (uint32_t)(by / c->cwnd);
}

static void on_ack(struct dmm_net_conn *c, const struct net_acked *a)
{
	struct cubic *q = state(c);

	if (c->cwnd < c->ssthresh)
		slow_start(c, q, a);
	else
		avoid(c, q, a->delivered);
}

static uint32_t on_congested(struct dmm_net_conn *c, enum net_congested why)
{
	struct cubic *q = state(c);

	q->started = true;
	q->css_rounds = 0;
	q->last = 0;
	q->cwnd_prior = c->cwnd;
	/* RFC 9438 4.7: where there was less than before, others want some; leave it sooner */
	q->w_max = c->cwnd < q->w_max ? (uint32_t)((uint64_t)c->cwnd * 17 / 20) : c->cwnd;
	if (why == NET_CONGESTED_TIMEOUT)
		q->w_max = c->cwnd;
	return DMM_MAX(BETA_OF(c->cwnd), 2 * c->mss);
}

static void on_undo(struct dmm_net_conn *c)
{
	struct cubic *q = state(c);

	q->w_max = DMM_MAX(q->w_max, q->cwnd_prior);
	q->last = 0;
}

const struct net_congestion_ops net_cubic = {
	.name = "cubic",
	.begin = begin,
	.on_ack = on_ack,
	.on_congested = on_congested,
	.on_undo = on_undo,
};
