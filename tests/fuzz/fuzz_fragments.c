// SPDX-License-Identifier: Apache-2.0
/* Fragments of a few UDP datagrams in any order, twice, overlapping, cut where they may not be, with
 * time between them. A datagram is received when its last fragment came and then only, byte for
 * byte; nothing comes of one whose fragments overlapped, but those that were there already change
 * nothing; in time all memory is given back. */
#include <stdlib.h>

#include "base/util.h"
#include "input.h"

#define LIFE	    (30000 * MS)
#define DATAGRAMS   6
#define MAX_LEN	    65500u
#define UNIT	    8u	/* of offsets */
#define MAX_PARTS   64u /* that the engine keeps apart */
#define MAX_AT_ONCE 16u

struct datagram {
	uint32_t id, len; /* len: with the header of UDP; 0: there is none */
	uint32_t given;	  /* fragments */
	uint32_t missing; /* units */
	uint8_t seen[MAX_LEN / UNIT + 1];
	bool begun, dead, vague; /* dead: nothing may come of it; vague: anything may */
	uint8_t bytes[MAX_LEN];
};

struct world {
	struct input in;
	struct dmm_net *net;
	uint64_t now;
	bool v4;
	struct dmm_endpoint ours, theirs;
	struct dmm_net_udp *udp;
	uint32_t ids,
		left_behind; /* packets that were begun and are no longer among the datagrams */
	struct datagram *datagrams;
};

static void make(struct world *w, struct datagram *d)
{
	const uint32_t most = take(&w->in, 1) % 16 ? 2000 : MAX_LEN;
	const uint32_t skip = w->v4 ? 12 : 0;
	uint32_t i;
	uint16_t sum;

	w->left_behind += d->begun;
	d->id = w->ids++;
	d->len = 8 + take(&w->in, 2) % (most - 7);
	d->given = 0;
	d->missing = (d->len + UNIT - 1) / UNIT;
	d->begun = d->dead = d->vague = false;
	memset(d->seen, 0, d->missing);
	for (i = 8; i < d->len; i++)
		d->bytes[i] = (uint8_t)(i * 7 + (i >> 8) * 5 + d->id);
	memcpy(d->bytes, &w->theirs.port, 2);
	memcpy(d->bytes + 2, &w->ours.port, 2);
	put16(d->bytes + 4, d->len);
	put16(d->bytes + 6, 0);
	sum = net_sum_finish(net_sum(d->bytes, d->len,
				     net_sum_pseudo(w->theirs.addr + skip, w->ours.addr + skip,
						    16 - skip, 17, d->len)));
	sum = sum ? sum : 0xffff;
	memcpy(d->bytes + 6, &sum, 2);
}

static void put_in(struct world *w, const struct datagram *d, uint32_t from, uint32_t len,
		   bool more)
{
	static uint8_t p[48 + MAX_LEN];
	uint32_t at =
		ip_header(p, w->v4, &w->theirs, &w->ours, w->v4 ? 17 : 44, len + (w->v4 ? 0 : 8));

	if (w->v4) {
		put16(p + 4, d->id);
		put16(p + 6, from / UNIT | more << 13);
		mend_ip(p);
	} else {
		put32(p + at, 17u << 24 | from | more);
		put32(p + at + 4, d->id);
		at += 8;
	}
	memcpy(p + at, d->bytes + from, len);
	dmm_net_input(w->net, p, at + len, w->now);
}

/* True: a datagram was received, and it is @d. */
static bool received(struct world *w, const struct datagram *d)
{
	static uint8_t buf[MAX_LEN];
	struct dmm_endpoint from, to;
	const ssize_t n = dmm_net_udp_recv(w->udp, buf, sizeof(buf), &from, &to);

	if (n < 0)
		return false;
	must((uint32_t)n == d->len - 8 && memcmp(buf, d->bytes + 8, (size_t)n) == 0);
	must(dmm_net_udp_recv(w->udp, buf, sizeof(buf), &from, &to) < 0);
	return true;
}

static void note_given(struct world *w, struct datagram *d, uint32_t from, uint32_t len)
{
	const uint32_t missing = d->missing;
	bool overlaps = false;
	uint32_t unit;

	for (unit = from / UNIT; unit * UNIT < from + len; unit++) {
		overlaps |= d->seen[unit];
		d->missing -= !d->seen[unit];
		d->seen[unit] = 1;
	}
	d->dead |= overlaps && d->missing != missing;
	d->begun = true;
	if (++d->given >= MAX_PARTS || w->left_behind + DATAGRAMS > MAX_AT_ONCE)
		d->vague = true;
}

static void give(struct world *w, struct datagram *d)
{
	const uint32_t units = (d->len + UNIT - 1) / UNIT;
	const uint32_t from = take(&w->in, 2) % units * UNIT;
	const uint32_t most = (1 + take(&w->in, 2) % units) * UNIT;
	const uint32_t len = DMM_MIN(most, d->len - from);
	const bool all = len == d->len, was_whole = !d->missing;

	if (!all)
		note_given(w, d, from, len);
	put_in(w, d, from, len, from + len < d->len);
	if (all) /* it is none */
		must(received(w, d));
	else if (d->vague)
		received(w, d);
	else
		must(received(w, d) == (!d->dead && !d->missing));
	if (!all && !was_whole && !d->missing && !d->dead) { /* it begins anew if more comes */
		d->begun = false;
		d->vague = true;
	}
}

/* A length that is no multiple of 8, or an end where there is none. */
static void give_wrong(struct world *w, struct datagram *d)
{
	const uint32_t from = take(&w->in, 2) % (d->len / UNIT + 1) * UNIT;
	const uint32_t most = take(&w->in, 2) % 2000, len = DMM_MIN(most, d->len - from);

	d->begun = d->vague = true;
	put_in(w, d, from, len, take(&w->in, 1) & 1);
	received(w, d);
}

static void step(struct world *w)
{
	struct datagram *d = &w->datagrams[take(&w->in, 1) % DATAGRAMS];
	const uint32_t what = take(&w->in, 1) % 8;
	uint64_t passed;
	unsigned int i;

	if (what == 0 || !d->len) {
		make(w, d);
	} else if (what < 6) {
		give(w, d);
	} else if (what == 6) {
		give_wrong(w, d);
	} else {
		passed = take(&w->in, 2) * MS;
		w->now += passed;
		if (passed > LIFE)
			w->left_behind = 0;
		dmm_net_tick(w->net, w->now);
		for (i = 0; i < DATAGRAMS; i++)
			w->datagrams[i].vague |= w->datagrams[i].begun;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct datagram datagrams[DATAGRAMS];
	static void *memory;
	struct world w = { .in = { data, size }, .now = 1000 * MS, .datagrams = datagrams };
	struct dmm_net_config config = { .mtu = MTU,
					 .n_addrs = 1,
					 .max_addrs = 1,
					 .max_conns = 1,
					 .max_udp = 1,
					 .send_buffer = 4096,
					 .receive_buffer = 70000,
					 .buffer_memory = 4 << 20 };
	const size_t len = dmm_net_memory(&config);
	struct dmm_net_stats stats;
	unsigned int i;

	w.v4 = take(&w.in, 1) & 1;
	w.ours = endpoint(w.v4, 1, 80);
	w.theirs = endpoint(w.v4, 2, 1234);
	config.addrs = (const uint8_t(*)[16]) & w.ours.addr;
	if (!memory && !(memory = aligned_alloc(64, len)))
		return 0;
	must(dmm_net_create(&config, memory, w.now, &w.net) == 0);
	must(dmm_net_udp_open(w.net, &w.ours, NULL, NULL, &w.udp) == 0);
	for (i = 0; i < DATAGRAMS; i++)
		datagrams[i].len = datagrams[i].begun = 0;
	while (w.in.left)
		step(&w);
	dmm_net_udp_close(w.udp);
	dmm_net_tick(w.net, w.now + 100000 * MS);
	dmm_net_get_stats(w.net, &stats);
	must(stats.memory == 0 && stats.no_memory == 0);
	return 0;
}
