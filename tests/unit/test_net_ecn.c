// SPDX-License-Identifier: Apache-2.0
/* Explicit congestion notification in the native engine (RFC 3168, RFC9293 SHLD-8): who agrees to it, what is sent
 * with it, and what a mark does. The test is the router that marks. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "net/checksum.h"
#include "net/net_internal.h"
#include "netsim.h"

#define PORT  80
#define DELAY (10 * NETSIM_MS)

/* What passes from engine 0, and what the router does to it. */
struct router {
	unsigned int mark_from, mark_to; /* of segments with data, counted from 1 */
	unsigned int drop, drop_syns;
	bool mirrors; /* an answer to a SYN has the flags of the SYN */
	unsigned int n, syns;
	uint8_t syn_flags[8], answer_flags;
	unsigned int cwr, again, ece; /* ece: from engine 1 */
	uint32_t highest;	      /* sent so far */
	unsigned int wrong;	      /* segments with ECT or CWR that may not have it */
	unsigned int ect;
};

static uint8_t ecn_of(const uint8_t *p)
{
	return p[0] >> 4 == 4 ? p[1] & 3 : p[1] >> 4 & 3;
}

static void mark(uint8_t *p)
{
	uint32_t sum = 0, i;

	if (p[0] >> 4 == 6) {
		p[1] |= 0x30;
		return;
	}
	p[1] |= 3;
	p[10] = p[11] = 0;
	for (i = 0; i < 20; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	p[10] = (uint8_t)(~sum >> 8);
	p[11] = (uint8_t)~sum;
}

static void mirror(uint8_t *p, uint32_t len)
{
	uint16_t sum;

	p[20 + 13] |= NET_ECE | NET_CWR;
	memset(p + 20 + 16, 0, 2);
	sum = net_sum_finish(
		net_sum(p + 20, len - 20, net_sum_pseudo(p + 12, p + 16, 4, 6, len - 20)));
	memcpy(p + 20 + 16, &sum, 2);
}

static bool route(struct netsim *sim, unsigned int from, uint8_t *p, uint32_t len, void *arg)
{
	struct router *r = arg;
	const uint8_t *tcp = p + (p[0] >> 4 == 4 ? 20 : 40), flags = tcp[13];
	const uint32_t data = len - (uint32_t)(tcp - p) - (tcp[12] >> 4) * 4u;
	uint32_t seq;
	bool again;

	(void)sim;
	memcpy(&seq, tcp + 4, 4);
	seq = ntohl(seq);
	if (from == 1) {
		r->wrong += ecn_of(p) && !data;
		if ((flags & NET_SYN) && r->mirrors)
			mirror(p, len);
		if (flags & NET_SYN)
			r->answer_flags = flags;
		else
			r->ece += (flags & NET_ECE) != 0;
		return true;
	}
	if (flags & NET_SYN) {
		r->wrong += ecn_of(p) != 0;
		r->highest = seq;
		r->syn_flags[r->syns++ % 8] = flags;
		return r->syns > r->drop_syns;
	}
	again = (int32_t)(seq + data - r->highest) <= 0;
	r->wrong += (ecn_of(p) || (flags & NET_CWR)) && (again || !data);
	r->ect += ecn_of(p) == NET_ECT;
	if (!data)
		return true;
	r->cwr += (flags & NET_CWR) != 0;
	r->again += again;
	r->highest = again ? r->highest : seq + data;
	if (++r->n == r->drop)
		return false;
	if (ecn_of(p) && r->n >= r->mark_from && r->n <= r->mark_to)
		mark(p);
	return true;
}

struct world {
	struct netsim *sim;
	struct netsim_conn client;
	struct dmm_net_stats client_saw, server_saw;
	bool client_ecn, server_ecn;
};

static bool does_ecn(const struct netsim_conn *c)
{
	struct dmm_net_info info;

	dmm_net_get_info(c->conn, &info);
	return info.ecn;
}

static void start(struct world *w, struct router *r, bool v6, enum dmm_net_ecn client,
		  enum dmm_net_ecn server, uint64_t bytes, int backlog)
{
	const struct netsim_params params = { .seed = 11,
					      .v6 = v6,
					      .link = { { .delay = DELAY }, { .delay = DELAY } },
					      .config = { { .ecn = client }, { .ecn = server } } };
	const struct netsim_conn accepted = { .expect = bytes, .to_send = 100 };

	*w = (struct world){ .client = { .to_send = bytes, .expect = 100 } };
	w->sim = netsim_new(&params);
	netsim_set_tap(w->sim, route, r);
	netsim_listen(w->sim, 1, PORT, backlog, &accepted);
	netsim_connect(w->sim, 0, 20000, PORT, &w->client);
	assert_true(netsim_until(w->sim, &w->client.connected, 30 * NETSIM_SEC));
	netsim_run(w->sim, 2 * DELAY);
	w->client_ecn = does_ecn(&w->client);
	w->server_ecn = does_ecn(netsim_accepted(w->sim, 1));
}

static void finish(struct world *w)
{
	assert_true(netsim_until(w->sim, &w->client.closed, 100 * NETSIM_SEC));
	dmm_net_get_stats(netsim_engine(w->sim, 0), &w->client_saw);
	dmm_net_get_stats(netsim_engine(w->sim, 1), &w->server_saw);
	assert_int_equal(netsim_end(w->sim), 0);
}

/* 6.1.1 RFC9293 SHLD-8 */
static void both_have_to_want_it(void **state)
{
	unsigned int v6, client, server;

	(void)state;
	for (v6 = 0; v6 < 2; v6++)
		for (client = 0; client < 3; client++)
			for (server = 0; server < 3; server++) {
				const bool asks = client == DMM_NET_ECN_ASK;
				const bool agrees = asks && server != DMM_NET_ECN_OFF;
				struct router r = { .n = 0 };
				struct world w;

				start(&w, &r, v6, client, server, 100000, 4);
				assert_int_equal(w.client_ecn, agrees);
				assert_int_equal(w.server_ecn, agrees);
				assert_int_equal(r.syn_flags[0],
						 NET_SYN | (asks ? NET_ECE | NET_CWR : 0));
				assert_int_equal(r.answer_flags,
						 NET_SYN | NET_ACK | (agrees ? NET_ECE : 0));
				finish(&w);
				assert_int_equal(r.wrong, 0);
				assert_int_equal(r.ect, agrees ? r.n : 0);
			}
}

/* 6.1.1.1: there may be somebody on the way who drops such SYNs. */
static void the_second_syn_does_not_ask(void **state)
{
	struct router r = { .drop_syns = 2 };
	struct world w;

	(void)state;
	start(&w, &r, false, DMM_NET_ECN_ASK, DMM_NET_ECN_ACCEPT, 10000, 4);
	assert_int_equal(r.syn_flags[1], NET_SYN);
	assert_int_equal(r.syn_flags[2], NET_SYN);
	assert_false(w.client_ecn || w.server_ecn);
	finish(&w);
}

/* 6.1.1: there are hosts that send the flags of a SYN back. */
static void a_mirror_does_not_agree(void **state)
{
	struct router r = { .mirrors = true };
	struct world w;

	(void)state;
	start(&w, &r, false, DMM_NET_ECN_ASK, DMM_NET_ECN_OFF, 10000, 4);
	assert_false(w.client_ecn);
	finish(&w);
	assert_int_equal(r.ect, 0);
}

/* 6.1.2, 6.1.3: told until it is heard, and one answer. */
static void a_mark_cuts_the_window_once(void **state)
{
	struct router r = { .mark_from = 40, .mark_to = 40 };
	struct world w;
	struct dmm_net_info info;
	uint32_t before = 0;

	(void)state;
	start(&w, &r, false, DMM_NET_ECN_ASK, DMM_NET_ECN_ACCEPT, 400000, 4);
	do {
		assert_true(netsim_step(w.sim));
		dmm_net_get_info(w.client.conn, &info);
		before = info.ssthresh > 1u << 30 ? info.cwnd : before;
	} while (info.ssthresh > 1u << 30);
	assert_in_range(info.ssthresh, before * 69 / 100, before * 71 / 100);
	finish(&w);
	assert_int_equal(w.server_saw.ce_in, 1);
	assert_int_equal(w.client_saw.ecn_reductions, 1);
	assert_int_equal(w.client_saw.retransmits, 0);
	assert_int_equal(r.cwr, 1);
	assert_true(r.ece > 2); /* for a round trip */
	assert_int_equal(r.wrong, 0);
}

static void many_marks_cut_it_once_a_round_trip(void **state)
{
	struct router r = { .mark_from = 40, .mark_to = 139 };
	struct world w;

	(void)state;
	start(&w, &r, true, DMM_NET_ECN_ASK, DMM_NET_ECN_ACCEPT, 400000, 4);
	finish(&w);
	assert_int_equal(w.server_saw.ce_in, 100);
	/* 100 segments are a few windows of 40 and less */
	assert_in_range(w.client_saw.ecn_reductions, 2, 6);
	assert_int_equal(r.cwr, w.client_saw.ecn_reductions);
	assert_int_equal(r.wrong, 0);
}

/* 6.1.2: a loss in the same window is no second reason. 6.1.5: what is sent again has no ECT. */
static void a_loss_beside_a_mark_counts_once(void **state)
{
	struct router r = { .mark_from = 40, .mark_to = 40, .drop = 45 };
	struct world w;

	(void)state;
	start(&w, &r, false, DMM_NET_ECN_ASK, DMM_NET_ECN_ACCEPT, 400000, 4);
	finish(&w);
	assert_int_equal(w.client_saw.ecn_reductions + w.client_saw.fast_recoveries, 1);
	assert_int_equal(w.client_saw.retransmits, 1);
	assert_int_equal(r.again, 1);
	assert_int_equal(r.wrong, 0);
}

/* The cookie is in the timestamp, so nothing is forgotten. */
static void cookies_remember_it(void **state)
{
	struct router r = { .n = 0 };
	struct world w;
	struct netsim_conn other[2] = { { .to_send = 10000, .expect = 100 },
					{ .to_send = 10000, .expect = 100 } };

	(void)state;
	start(&w, &r, false, DMM_NET_ECN_ASK, DMM_NET_ECN_ACCEPT, 10000, 1);
	netsim_connect(w.sim, 0, 20001, PORT, &other[0]); /* takes the place */
	do {
		assert_true(netsim_step(w.sim));
		dmm_net_get_stats(netsim_engine(w.sim, 1), &w.server_saw);
	} while (!w.server_saw.half_open);
	netsim_connect(w.sim, 0, 20002, PORT, &other[1]);
	while (netsim_n_accepted(w.sim, 1) < 3)
		assert_true(netsim_step(w.sim));
	dmm_net_get_stats(netsim_engine(w.sim, 1), &w.server_saw);
	assert_int_equal(w.server_saw.cookies_taken, 1);
	assert_true(does_ecn(&other[1]) && does_ecn(netsim_accepted(w.sim, 1)));
	finish(&w);
}

/* A window that was cut long ago, by sequence numbers half the circle behind. */
static void a_mark_counts_after_2_gib(void **state)
{
	struct router r = { .mark_from = 200, .mark_to = 200 };
	struct world w;

	(void)state;
	start(&w, &r, false, DMM_NET_ECN_ASK, DMM_NET_ECN_ACCEPT, 600000, 4);
	w.client.conn->recover = w.client.conn->snd_una - (1u << 31) + 50000;
	finish(&w);
	assert_int_equal(w.client_saw.ecn_reductions, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_have_to_want_it),
		cmocka_unit_test(the_second_syn_does_not_ask),
		cmocka_unit_test(a_mirror_does_not_agree),
		cmocka_unit_test(a_mark_cuts_the_window_once),
		cmocka_unit_test(many_marks_cut_it_once_a_round_trip),
		cmocka_unit_test(a_loss_beside_a_mark_counts_once),
		cmocka_unit_test(cookies_remember_it),
		cmocka_unit_test(a_mark_counts_after_2_gib),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
