// SPDX-License-Identifier: Apache-2.0
/* TCP options. Any bytes are read the same by the engine and by a second, slower reader; what the
 * engine writes is read back as what it meant. */
#include <stdlib.h>

#include "base/util.h"
#include "input.h"
#include "net/net_internal.h"
#include "net/seq.h"

#define ROOM	  40
#define MAX_PARTS 8

/* The @n-th option of kind @kind whose length is right: a pointer to what follows its length; NULL:
 * there is none. *@sound: no length is illegal. Negative @n: count from the end. */
static const uint8_t *find(const uint8_t *p, uint32_t len, uint8_t kind, int n, uint32_t *ret_len,
			   bool *sound)
{
	const uint8_t *found[ROOM];
	uint32_t at, step, lens[ROOM];
	int count = 0;

	*sound = true;
	for (at = 0; at < len && p[at] != 0; at += step) {
		step = 1;
		if (p[at] == 1)
			continue;
		*sound = at + 1 < len && p[at + 1] >= 2 && at + p[at + 1] <= len;
		if (!*sound)
			return NULL;
		step = p[at + 1];
		if (p[at] != kind || (kind == 2 && step != 4) || (kind == 3 && step != 3) ||
		    (kind == 4 && step != 2) || (kind == 8 && step != 10) ||
		    (kind == 5 && step % 8 != 2))
			continue;
		lens[count] = step - 2;
		found[count++] = p + at + 2;
	}
	n = n < 0 ? count + n : n;
	if (n < 0 || n >= count)
		return NULL;
	*ret_len = lens[n];
	return found[n];
}

/* The last of each kind counts, and the first four blocks of all SACKs. */
static void read_twice(const uint8_t *p, uint32_t len)
{
	const uint8_t *o;
	struct net_options got;
	uint32_t size, at;
	unsigned int n = 0;
	bool sound;
	int i;

	o = find(p, len, 2, -1, &size, &sound);
	must(net_options_parse(p, len, &got) == sound);
	if (!sound)
		return;
	must(got.has_mss == !!o && (!o || got.mss == get16(o)));
	o = find(p, len, 3, -1, &size, &sound);
	must(got.has_scale == !!o && (!o || got.scale == (o[0] < 14 ? o[0] : 14)));
	must(got.sack_ok == !!find(p, len, 4, 0, &size, &sound));
	o = find(p, len, 8, -1, &size, &sound);
	must(got.has_ts == !!o && (!o || (got.ts_val == get32(o) && got.ts_ecr == get32(o + 4))));
	for (i = 0; (o = find(p, len, 5, i, &size, &sound)); i++)
		for (at = 0; at < size && n < NET_MAX_SACK; at += 8, n++)
			must(got.sack[n].start == get32(o + at) &&
			     got.sack[n].end == get32(o + at + 4));
	must(got.n_sack == n);
}

static void write_syn(struct input *in)
{
	const uint16_t mss = (uint16_t)take(in, 2);
	const int scale = (int)take(in, 1) % 16 - 1;
	const bool sack_ok = take(in, 1) & 1, ts = take(in, 1) & 1;
	const uint32_t val = take(in, 4), ecr = take(in, 4);
	uint8_t p[ROOM];
	const uint32_t len = net_options_syn(p, mss, scale, sack_ok, ts, val, ecr);
	struct net_options got;

	must(len <= ROOM && len % 4 == 0 && net_options_parse(p, len, &got));
	must(got.has_mss && got.mss == mss && got.has_scale == (scale >= 0) &&
	     got.sack_ok == sack_ok && got.has_ts == ts && !got.n_sack);
	must(scale < 0 || got.scale == scale);
	must(!ts || (got.ts_val == val && got.ts_ecr == ecr));
}

static const struct net_range *part_with(const struct net_range *held, uint32_t at)
{
	while (held && !(seq_leq(held->start, at) && seq_lt(at, held->end)))
		held = held->next;
	return held;
}

/* Parts that are held, in order and apart, and a duplicate: it is told first, then the part of what
 * came last, then others, each once and as many as there is room for. */
static void write_data(struct input *in)
{
	static struct dmm_net net;
	struct net_range parts[MAX_PARTS];
	const bool ts = take(in, 1) & 1, sack = take(in, 1) & 1;
	const uint32_t twice = take(in, 4), twice_end = twice + take(in, 1);
	const unsigned int n = take(in, 1) % (MAX_PARTS + 1), dsack = twice != twice_end;
	const unsigned int want = DMM_MIN(n + dsack, ts ? 3u : 4u);
	struct dmm_net_conn c = { .net = &net, .ts_ok = ts, .sack_ok = true };
	const struct net_range *part;
	struct net_options got;
	uint32_t len, at = take(in, 4);
	unsigned int i, j;
	uint8_t p[ROOM];

	for (i = 0; i < n; i++) {
		parts[i].start = at + 1 + take(in, 1);
		at = parts[i].end = parts[i].start + 1 + take(in, 1);
		parts[i].next = i + 1 < n ? &parts[i + 1] : NULL;
	}
	c.held = n ? parts : NULL;
	c.dsack_start = twice;
	c.dsack_end = twice_end;
	for (i = 0; i < 3 && n; i++)
		c.recent[i] = parts[take(in, 1) % n].start + take(in, 1) % 2;
	len = net_options_data(&c, p, sack);
	must(len <= ROOM && len % 4 == 0 && net_options_parse(p, len, &got));
	must(got.has_ts == ts && !got.has_mss && !got.has_scale && !got.sack_ok);
	must(got.n_sack == (sack ? want : 0));
	if (!got.n_sack)
		return;
	must(!dsack || (got.sack[0].start == twice && got.sack[0].end == twice_end));
	for (i = dsack; i < want; i++) {
		part = part_with(c.held, got.sack[i].start);
		must(part && part->start == got.sack[i].start && part->end == got.sack[i].end);
		for (j = dsack; j < i; j++)
			must(got.sack[j].start != got.sack[i].start);
	}
	part = part_with(c.held, c.recent[0]);
	must(!part || want == dsack || part->start == got.sack[dsack].start);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint32_t len;
	uint8_t *exact; /* so that one byte too many is seen */

	switch (take(&in, 1) % 3) {
	case 0:
		len = (uint32_t)DMM_MIN(in.left, (size_t)ROOM);
		exact = malloc(len + 1);
		if (!exact)
			return 0;
		memcpy(exact + 1, in.data, len);
		read_twice(exact + 1, len);
		free(exact);
		break;
	case 1:
		write_syn(&in);
		break;
	case 2:
		write_data(&in);
		break;
	}
	return 0;
}
