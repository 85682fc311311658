// SPDX-License-Identifier: Apache-2.0
/* TCP options, read and written (RFC 9293 3.2, 2018, 2883, 7323). */
#include "net/bytes.h"
#include "net/net_internal.h"
#include "net/seq.h"

#define END	  0
#define NOP	  1
#define MSS	  2
#define SCALE	  3
#define SACK_OK	  4
#define SACK	  5
#define TS	  8
#define MAX_SCALE 14
#define ROOM	  40						   /* for all options */
#define TS_ALONE  ((uint32_t)NOP << 24 | NOP << 16 | TS << 8 | 10) /* RFC 7323 appendix A */

/* One option of @len bytes whose length fits; an option of another length than it must have counts
 * as unknown (RFC 9293 MUST-6, MUST-7). */
static void parse_one(const uint8_t *p, uint32_t len, struct net_options *o)
{
	uint32_t at;

	switch (p[0]) {
	case MSS:
		if (len == 4) {
			o->has_mss = true;
			o->mss = get16(p + 2);
		}
		break;
	case SCALE:
		if (len == 3) { /* RFC 7323 2.3: a larger one counts as 14 */
			o->has_scale = true;
			o->scale = p[2] < MAX_SCALE ? p[2] : MAX_SCALE;
		}
		break;
	case SACK_OK:
		o->sack_ok |= len == 2;
		break;
	case TS:
		if (len == 10) {
			o->has_ts = true;
			o->ts_val = get32(p + 2);
			o->ts_ecr = get32(p + 6);
		}
		break;
	case SACK:
		for (at = 2; (len - 2) % 8 == 0 && at < len && o->n_sack < NET_MAX_SACK; at += 8) {
			o->sack[o->n_sack].start = get32(p + at);
			o->sack[o->n_sack++].end = get32(p + at + 4);
		}
		break;
	}
}

bool net_options_parse(const uint8_t *p, uint32_t len, struct net_options *ret)
{
	uint32_t at = 0;

	*ret = (struct net_options){ 0 };
	if (len == 12 && get32(p) == TS_ALONE) { /* of nearly all segments */
		parse_one(p + 2, 10, ret);
		return true;
	}
	while (at < len && p[at] != END) {
		if (p[at] == NOP) {
			at++;
			continue;
		}
		/* RFC 9293 MUST-7: an illegal length must not be the end of us */
		if (at + 2 > len || p[at + 1] < 2 || at + p[at + 1] > len)
			return false;
		parse_one(p + at, p[at + 1], ret);
		at += p[at + 1];
	}
	return true;
}

uint32_t net_ts_now(const struct dmm_net_conn *c)
{
	return (uint32_t)(c->net->now / NET_MS) + c->ts_offset;
}

static uint32_t put_ts(uint8_t *p, uint32_t val, uint32_t ecr)
{
	p[0] = NOP;
	p[1] = NOP;
	p[2] = TS;
	p[3] = 10;
	put32(p + 4, val);
	put32(p + 8, ecr);
	return 12;
}

uint32_t net_options_syn(uint8_t *p, uint16_t mss, int scale, bool sack_ok, bool ts,
			 uint32_t ts_val, uint32_t ts_ecr)
{
	uint32_t at = 4;

	p[0] = MSS;
	p[1] = 4;
	put16(p + 2, mss);
	if (scale >= 0) {
		p[at++] = NOP;
		p[at++] = SCALE;
		p[at++] = 3;
		p[at++] = (uint8_t)scale;
	}
	if (sack_ok) {
		p[at++] = NOP;
		p[at++] = NOP;
		p[at++] = SACK_OK;
		p[at++] = 2;
	}
	if (ts)
		at += put_ts(p + at, ts_val, ts_ecr);
	return at;
}

/* RFC 2018 4: the first part is the one that came last, then those told before, then any. The
 * duplicate (RFC 2883 4) stands before all. */
struct blocks {
	uint32_t start[NET_MAX_SACK], end[NET_MAX_SACK];
	unsigned int n, max;
};

static void add_block(struct blocks *b, uint32_t start, uint32_t end, unsigned int from)
{
	unsigned int i;

	for (i = from; i < b->n; i++)
		if (b->start[i] == start)
			return;
	if (b->n == b->max)
		return;
	b->start[b->n] = start;
	b->end[b->n++] = end;
}

static void add_part_at(struct blocks *b, const struct net_range *held, uint32_t at,
			unsigned int from)
{
	for (; held; held = held->next)
		if (seq_leq(held->start, at) && seq_lt(at, held->end))
			add_block(b, held->start, held->end, from);
}

/* From the part on that was not told last, around. */
static void add_others(struct dmm_net_conn *c, struct blocks *b, unsigned int from)
{
	const struct net_range *part;
	unsigned int round;

	for (round = 0; round < 2; round++)
		for (part = c->held; part && b->n < b->max; part = part->next)
			if (round || seq_gt(part->start, c->sack_told))
				add_block(b, part->start, part->end, from);
	if (b->n > from)
		c->sack_told = b->start[b->n - 1];
}

static uint32_t put_sack(struct dmm_net_conn *c, uint8_t *p, uint32_t room)
{
	struct blocks b = { .max = (room - 4) / 8 };
	unsigned int dsack = 0, i;

	b.max = b.max < NET_MAX_SACK ? b.max : NET_MAX_SACK;
	if (c->dsack_start != c->dsack_end) {
		add_block(&b, c->dsack_start, c->dsack_end, 0);
		c->dsack_start = c->dsack_end;
		c->net->stats.dsack_out++;
		dsack = 1;
	}
	for (i = 0; i < 3 && !c->sack_more; i++)
		add_part_at(&b, c->held, c->recent[i], dsack);
	add_others(c, &b, dsack);
	c->dup_acks_owed -= c->dup_acks_owed < b.n ? c->dup_acks_owed : (uint16_t)b.n;
	c->sack_more = c->dup_acks_owed > 0;
	if (!b.n)
		return 0;
	p[0] = NOP;
	p[1] = NOP;
	p[2] = SACK;
	p[3] = (uint8_t)(2 + 8 * b.n);
	for (i = 0; i < b.n; i++) {
		put32(p + 4 + 8 * i, b.start[i]);
		put32(p + 8 + 8 * i, b.end[i]);
	}
	return 4 + 8 * b.n;
}

uint32_t net_options_data(struct dmm_net_conn *c, uint8_t *p, bool sack)
{
	uint32_t at = 0;

	if (c->ts_ok)
		at = put_ts(p, net_ts_now(c), c->ts_recent);
	if (c->sack_ok && !c->held) {
		c->dup_acks_owed = 0;
		c->sack_more = false;
	}
	if (sack && c->sack_ok && (c->held || c->dsack_start != c->dsack_end))
		at += put_sack(c, p + at, ROOM - at);
	return at;
}
