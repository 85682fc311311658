// SPDX-License-Identifier: Apache-2.0
/* Segments of a script, sent and expected. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "script_internal.h"

/* One of the script's. */
struct wanted {
	struct wire_segment s;
	unsigned int count;
	bool win, urg, ecn, options; /* they are said */
};

static struct wire_bases bases_of(const struct rig *r, bool ours)
{
	const struct rig_peer *p = r->peer;

	return ours ? (struct wire_bases){ p->our_isn, p->isn, p->our_clock, 0 }
		    : (struct wire_bases){ p->isn, p->our_isn, 0, p->our_clock };
}

static void print(const struct wire_segment *g, const struct wanted *like,
		  const struct wire_bases *b, char *to, size_t room)
{
	const long from = (int32_t)(g->seq - b->seq);
	char flags[10], options[300];
	int n;

	wire_flags_print(g->flags, flags);
	n = snprintf(to, room, "%s %ld:%ld(%u)", flags, from, from + g->len, g->len);
	if (g->flags & WIRE_ACK)
		n += snprintf(to + n, room - (size_t)n, " ack %d", (int)(g->ack - b->ack));
	if (!like || like->win)
		n += snprintf(to + n, room - (size_t)n, " win %u", g->window);
	if (like ? like->urg : g->urgent)
		n += snprintf(to + n, room - (size_t)n, " urg %u", g->urgent);
	if (like ? like->ecn : g->ecn)
		n += snprintf(to + n, room - (size_t)n, " ecn %u", g->ecn);
	wire_options_print(g, b, options, sizeof(options));
	if (!like || like->options)
		snprintf(to + n, room - (size_t)n, " <%s>", options);
}

static bool read_hex(struct script *s, const char *word, uint8_t to[40], uint32_t *ret_len)
{
	unsigned int byte;

	*ret_len = 0;
	for (; word && *word && *ret_len < 40; word += 2) {
		if (sscanf(word, "%2x", &byte) != 1)
			return wrong(s, "'%s' is no number", word);
		to[(*ret_len)++] = (uint8_t)byte;
	}
	return *ret_len || wrong(s, "a number is missing");
}

/* The words that come behind SEQ(LEN); *@i is at one. */
static bool read_more(struct script *s, const struct words *w, unsigned int *i, struct wanted *g,
		      const struct wire_bases *b)
{
	const char *word = w->word[*i], *next = w->word[*i + 1];
	long long n = 0;

	if (strcmp(word, "badsum") == 0) {
		g->s.bad_sum = true;
		return true;
	}
	++*i;
	if (strcmp(word, "from") == 0)
		return read_address(s, next, g->s.src.addr);
	if (strcmp(word, "to") == 0)
		return read_address(s, next, g->s.dst.addr);
	if (strcmp(word, "ipopt") == 0)
		return read_hex(s, next, g->s.ip_options, &g->s.ip_options_len);
	if (!read_number(s, next, &n))
		return false;
	if (strcmp(word, "ack") == 0) {
		g->s.ack = (uint32_t)n + b->ack;
	} else if (strcmp(word, "win") == 0) {
		g->s.window = (uint16_t)n;
		g->win = true;
	} else if (strcmp(word, "urg") == 0) {
		g->s.urgent = (uint16_t)n;
		g->urg = true;
	} else if (strcmp(word, "ecn") == 0) {
		g->s.ecn = (uint8_t)n;
		g->ecn = true;
	} else if (strcmp(word, "doff") == 0) {
		g->s.header_words = (int)n;
	} else if (strcmp(word, "reserved") == 0) {
		g->s.reserved = (uint8_t)n;
	} else if (strcmp(word, "cut") == 0) {
		g->s.cut = (uint32_t)n;
	} else if (strcmp(word, "count") == 0) {
		g->count = (unsigned int)n;
	} else if (strcmp(word, "exthdr") == 0) {
		g->s.next_header = (uint8_t)n;
		return read_hex(s, w->word[++*i], g->s.ip_options, &g->s.ip_options_len);
	} else {
		return wrong(s, "'%s' is nothing that a segment has", word);
	}
	return true;
}

static bool read_place(struct script *s, const char *word, const struct wire_bases *b,
		       struct wanted *g)
{
	long long seq, end, len;
	char *p;

	seq = end = strtoll(word, &p, 0);
	if (p != word && *p == ':')
		end = strtoll(p + 1, &p, 0);
	else
		end = -1;
	if (*p != '(')
		return wrong(s, "'%s' is no SEQ(LEN)", word);
	len = strtoll(p + 1, &p, 0);
	g->count = 1;
	if (*p == '*')
		g->count = (unsigned int)strtoll(p + 1, &p, 0);
	if (strcmp(p, ")") || len < 0 || len > 60000)
		return wrong(s, "'%s' is no SEQ(LEN)", word);
	if (end >= 0 && end - seq != len * g->count)
		return wrong(s, "'%s': its end is not its begin and its length", word);
	g->s.seq = (uint32_t)seq + b->seq;
	g->s.data_at = (uint32_t)seq;
	g->s.len = (uint32_t)len;
	return true;
}

static bool read_segment(struct script *s, const struct words *w, bool ours, struct wanted *ret)
{
	const struct rig *r = &s->rig;
	const struct wire_bases b = bases_of(r, ours);
	struct wanted g = { .s = { .v4 = !r->v6, .window = 65535 } };
	const char *said = NULL;
	unsigned int i;

	g.s.src = ours ? r->ours : r->peer->end;
	g.s.dst = ours ? r->peer->end : r->ours;
	if (w->n < 3 || !wire_flags_read(w->word[1], strlen(w->word[1]), &g.s.flags))
		return wrong(s, "this is no segment");
	if (!read_place(s, w->word[2], &b, &g))
		return false;
	for (i = 3; i < w->n; i++) {
		if (w->word[i][-1] == '<') {
			g.options = true;
			if (!wire_options_read(w->word[i], &b, &g.s))
				return wrong(s, "'%s': no such option", w->word[i]);
			continue;
		}
		if (strcmp(w->word[i], "ack") == 0)
			said = w->word[i];
		if (!read_more(s, w, &i, &g, &b))
			return false;
	}
	if (!said != !(g.s.flags & WIRE_ACK))
		return wrong(s, "flag A and ack go together");
	*ret = g;
	return true;
}

/* What has left and was not expected. */
bool nothing_left(struct script *s)
{
	const struct wire_bases b = bases_of(&s->rig, true);
	const struct rig_packet *packet = rig_first(&s->rig);
	struct wire_segment g;
	char text[600];
	const char *odd;

	if (s->rig.wrong)
		return wrong(s, "%s", s->rig.wrong);
	if (!packet)
		return true;
	odd = wire_parse(packet->bytes, packet->len, s->rig.peer->our_isn, &g);
	print(&g, NULL, &b, text, sizeof(text));
	return wrong(s, "expected nothing, got > %s%s%s", text, odd ? ", and " : "",
		     odd ? odd : "");
}

/* The next that left, since @before. */
static bool expect_one(struct script *s, const struct words *w, const struct wanted *g,
		       uint64_t before)
{
	const struct wire_bases b = bases_of(&s->rig, true);
	const struct rig_packet *packet = rig_first(&s->rig);
	char want[600], got[600];
	struct wire_segment came;
	const char *odd;
	double at;

	print(&g->s, g, &b, want, sizeof(want));
	if (!packet)
		return wrong(s, "expected > %s, got nothing in %.6f s", want,
			     (double)(s->rig.now - before) / SEC);
	odd = wire_parse(packet->bytes, packet->len, s->rig.peer->our_isn, &came);
	print(&came, g, &b, got, sizeof(got));
	if (!odd && (memcmp(&came.src, &g->s.src, sizeof(came.src)) ||
		     memcmp(&came.dst, &g->s.dst, sizeof(came.dst))))
		odd = "its ends are others";
	at = (double)(packet->at - before) / SEC;
	if (odd || strcmp(want, got))
		return wrong(s, "expected > %s, got > %s after %.6f s%s%s", want, got, at,
			     odd ? ", and " : "", odd ? odd : "");
	if (at < w->after - w->tolerance - 1e-9)
		return wrong(s, "expected > %s after %g s, got it after %.6f s", want, w->after,
			     at);
	rig_drop_first(&s->rig);
	return true;
}

bool do_expect_segment(struct script *s, struct words *w)
{
	const uint64_t before = s->rig.now;
	struct wanted g;
	unsigned int i;

	/* the numbers of a SYN are known when it has left */
	rig_run(&s->rig, before + (uint64_t)((w->after + w->tolerance) * SEC + 0.5));
	if (s->rig.wrong)
		return wrong(s, "%s", s->rig.wrong);
	if (!read_segment(s, w, true, &g))
		return false;
	for (i = 0; i < g.count; i++) {
		if (!expect_one(s, w, &g, before))
			return false;
		g.s.seq += g.s.len;
	}
	return true;
}

bool do_send_segment(struct script *s, struct words *w)
{
	static uint8_t packet[WIRE_MAX];
	struct wanted g;
	unsigned int i;

	if (!read_segment(s, w, false, &g))
		return false;
	for (i = 0; i < g.count; i++) {
		rig_put(&s->rig, packet, wire_build(&g.s, packet));
		g.s.seq += g.s.len;
		g.s.data_at += g.s.len;
	}
	rig_settle(&s->rig);
	return true;
}

/* icmp TYPE CODE seq N [word N] [from ADDRESS] */
bool do_icmp(struct script *s, struct words *w)
{
	const struct wire_bases b = bases_of(&s->rig, true);
	struct wire_segment about = { .v4 = !s->rig.v6, .src = s->rig.ours };
	long long type, code, seq, word = 0;
	uint8_t packet[200];

	about.dst = s->rig.peer->end;
	if (w->n < 5 || strcmp(w->word[3], "seq") || !read_number(s, w->word[1], &type) ||
	    !read_number(s, w->word[2], &code) || !read_number(s, w->word[4], &seq) ||
	    (w->n > 6 && !read_number(s, w->word[6], &word)))
		return wrong(s, "icmp TYPE CODE seq N [word N]");
	about.seq = (uint32_t)seq + b.seq;
	rig_put(&s->rig, packet,
		wire_icmp(&about, about.dst.addr, (uint8_t)type, (uint8_t)code, (uint32_t)word,
			  packet));
	rig_settle(&s->rig);
	return true;
}
