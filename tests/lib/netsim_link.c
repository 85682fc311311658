// SPDX-License-Identifier: Apache-2.0
/* The simulator's link: what happens to packets between two engines. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "netsim_internal.h"

#define PROTO_TCP  6
#define PROTO_FRAG 44
#define FIN	   0x01
#define SYN	   0x02
#define RST	   0x04
#define MAX_CUTS   3

/* --- packets --- */

struct packet *netsim_packet(struct netsim *sim)
{
	struct packet *p = sim->free;

	if (p)
		sim->free = p->next;
	else
		p = malloc(sizeof(*p));
	if (!p)
		abort();
	return p;
}

void netsim_packet_free(struct netsim *sim, struct packet *p)
{
	p->next = sim->free;
	sim->free = p;
}

static struct packet *copy_of(struct netsim *sim, const struct packet *p)
{
	struct packet *copy = netsim_packet(sim);

	copy->len = p->len;
	memcpy(copy->data, p->data, p->len);
	return copy;
}

/* The sum of RFC 1071 of 16-bit words as they lie in memory, folded. None of the engine's: this one
 * checks it. */
static uint32_t sum_of(const uint8_t *p, uint32_t len, uint64_t sum)
{
	uint64_t word;

	for (; len >= sizeof(word); len -= sizeof(word), p += sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		sum += (word & 0xffffffff) + (word >> 32);
	}
	word = 0;
	memcpy(&word, p, len);
	sum += (word & 0xffffffff) + (word >> 32);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint32_t)sum;
}

/* Of addresses, protocol and all that follows the header: 0xffff if the checksum is right. */
static uint32_t sum_of_tcp(const struct packet *p)
{
	const uint32_t header = netsim_ip_header(p), from = header == 20 ? 12 : 8;
	const uint32_t rest = PROTO_TCP + p->len - header;

	return sum_of(p->data + from, p->len - from, htons((uint16_t)rest));
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return ntohl(v);
}

static void put32(uint8_t *p, uint32_t v)
{
	v = htonl(v);
	memcpy(p, &v, sizeof(v));
}

/* The length in the IP header is that of the packet, and its checksum right. */
static void mend_ip(struct packet *p)
{
	uint16_t field;

	if (netsim_ip_header(p) == 40) {
		put16(p->data + 4, p->len - 40);
		return;
	}
	put16(p->data + 2, p->len);
	put16(p->data + 10, 0);
	field = (uint16_t)~sum_of(p->data, 20, 0);
	memcpy(p->data + 10, &field, sizeof(field));
}

static void mend_tcp(struct packet *p)
{
	uint8_t *field = p->data + netsim_ip_header(p) + 16;
	uint16_t sum;

	mend_ip(p);
	put16(field, 0);
	sum = (uint16_t)~sum_of_tcp(p);
	memcpy(field, &sum, sizeof(sum));
}

void netsim_make_bare(struct packet *p, uint8_t flags, uint32_t seq)
{
	uint8_t *tcp = p->data + netsim_ip_header(p);

	put32(tcp + 4, seq);
	tcp[12] = 5 << 4;
	tcp[13] = flags;
	p->len = netsim_ip_header(p) + 20;
	mend_tcp(p);
}

/* --- packets on their way --- */

static bool before(const struct flying *a, const struct flying *b)
{
	return a->at < b->at || (a->at == b->at && a->order < b->order);
}

/* @packet is the link's, and arrives at @at. */
static void fly(struct netsim *sim, unsigned int to, uint64_t at, struct packet *packet)
{
	const struct flying f = { .at = at, .order = sim->order++, .to = to, .packet = packet };
	uint32_t i = sim->n_flying;

	if (i == NETSIM_MAX_FLYING) { /* lost */
		netsim_packet_free(sim, packet);
		return;
	}
	sim->n_flying++;
	for (; i && before(&f, &sim->heap[(i - 1) / 2]); i = (i - 1) / 2)
		sim->heap[i] = sim->heap[(i - 1) / 2];
	sim->heap[i] = f;
}

struct flying netsim_land(struct netsim *sim)
{
	const struct flying first = sim->heap[0], last = sim->heap[--sim->n_flying];
	uint32_t i = 0, child;

	while ((child = 2 * i + 1) < sim->n_flying) {
		if (child + 1 < sim->n_flying && before(&sim->heap[child + 1], &sim->heap[child]))
			child++;
		if (!before(&sim->heap[child], &last))
			break;
		sim->heap[i] = sim->heap[child];
		i = child;
	}
	sim->heap[i] = last;
	return first;
}

/* --- what becomes of them --- */

static bool is_tcp(const struct packet *p)
{
	return p->data[p->data[0] >> 4 == 4 ? 9 : 6] == PROTO_TCP;
}

static void check_packet(struct netsim *sim, unsigned int from, const struct packet *p)
{
	const uint8_t *d = p->data;
	const bool v4 = d[0] >> 4 == 4;
	const uint32_t total = v4 ? (uint32_t)(d[2] << 8 | d[3])
				  : 40u + (uint32_t)(d[4] << 8 | d[5]);

	if (total != p->len || p->len > sim->side[from].config.mtu)
		netsim_violation(sim, "a packet of a wrong length");
	if (v4 && sum_of(d, 20, 0) != 0xffff)
		netsim_violation(sim, "a wrong checksum of IPv4");
	if (is_tcp(p) && sum_of_tcp(p) != 0xffff)
		netsim_violation(sim, "a wrong checksum");
}

/* TRACE=1: what leaves, one line each. */
static void trace(const struct netsim *sim, unsigned int from, const struct packet *p)
{
	const uint8_t *tcp = p->data + netsim_ip_header(p);
	const uint32_t header = (uint32_t)(tcp - p->data) + (tcp[12] >> 4) * 4u;
	uint32_t i;

	fprintf(stderr, "# %12.3f %u> %s%s%s%s seq %u len %u ack %u win %u opt",
		(double)sim->now / 1e6, from, tcp[13] & 2 ? "S" : "", tcp[13] & 1 ? "F" : "",
		tcp[13] & 4 ? "R" : "", tcp[13] & 16 ? "." : "", get32(tcp + 4), p->len - header,
		get32(tcp + 8), tcp[14] << 8 | tcp[15]);
	for (i = 20; i < (tcp[12] >> 4) * 4u; i++)
		fprintf(stderr, "%s%02x", i % 4 ? "" : " ", tcp[i]);
	fprintf(stderr, "\n");
}

static void look(struct netsim *sim, const struct packet *p)
{
	const uint8_t *tcp = p->data + netsim_ip_header(p);

	sim->seen.packets++;
	if (!is_tcp(p))
		return;
	sim->seen.resets += (tcp[13] & RST) != 0;
	sim->seen.zero_windows += !(tcp[13] & RST) && !tcp[14] && !tcp[15];
}

static void too_big(struct netsim *sim, unsigned int from, const struct packet *p, uint32_t mtu)
{
	const uint8_t *tcp = p->data + netsim_ip_header(p);
	struct dmm_icmp e = { .mtu = mtu, .err = EMSGSIZE, .seq = get32(tcp + 4) };

	e.local = netsim_endpoint(sim, from, 0);
	e.remote = netsim_endpoint(sim, !from, 0);
	memcpy(&e.local.port, tcp, 2);
	memcpy(&e.remote.port, tcp + 2, 2);
	sim->seen.told_too_big++;
	dmm_net_icmp(sim->side[from].net, &e, sim->now);
}

static uint64_t stalled_until(const struct netsim_link *l, uint64_t at)
{
	const uint64_t phase = l->stall_every ? at % l->stall_every : 0;

	return l->stall_every && phase < l->stall_for ? at - phase + l->stall_for : at;
}

/* One bit: checksums see that for sure; but that of IPv6's length together with what it cuts
 * off. */
static void corrupt(struct netsim *sim, struct packet *p)
{
	const uint32_t at = (uint32_t)(netsim_random(sim) % p->len);

	sim->seen.corrupted++;
	if (p->data[0] >> 4 == 4 || (at != 4 && at != 5))
		p->data[at] ^= (uint8_t)(1u << netsim_random(sim) % 8);
}

/* "Congestion experienced", unless the packet knows nothing of it. */
static bool mark(struct packet *p)
{
	const bool v4 = p->data[0] >> 4 == 4;
	const unsigned int shift = v4 ? 0 : 4;

	if (!(p->data[1] >> shift & 3))
		return false;
	p->data[1] |= (uint8_t)(3 << shift);
	mend_ip(p);
	return true;
}

static void strip_timestamps(struct packet *p)
{
	uint8_t *tcp = p->data + netsim_ip_header(p), *end = tcp + (tcp[12] >> 4) * 4, *o;

	for (o = tcp + 20; o < end && *o; o += *o == 1 ? 1 : o[1])
		if (*o == 8)
			memset(o, 1, 10);
	mend_tcp(p);
}

/* The data of @p from @from to @to as a segment of its own. */
static struct packet *cut(struct netsim *sim, const struct packet *p, uint32_t from, uint32_t to)
{
	const uint32_t ip = netsim_ip_header(p), header = ip + (p->data[ip + 12] >> 4) * 4u;
	struct packet *part = netsim_packet(sim);

	memcpy(part->data, p->data, header);
	memcpy(part->data + header, p->data + header + from, to - from);
	part->len = header + to - from;
	put32(part->data + ip + 4, get32(p->data + ip + 4) + from);
	if (header + to < p->len)
		part->data[ip + 13] &= (uint8_t)~FIN; /* it is the last one's */
	mend_tcp(part);
	return part;
}

/* The bytes behind @p's IP header from @from to @to as a fragment. */
static struct packet *fragment_of(struct netsim *sim, const struct packet *p, uint32_t from,
				  uint32_t to)
{
	const uint32_t ip = netsim_ip_header(p), header = ip == 20 ? 20 : 48;
	const bool more = ip + to < p->len;
	struct packet *f = netsim_packet(sim);

	memcpy(f->data, p->data, ip);
	memcpy(f->data + header, p->data + ip + from, to - from);
	f->len = header + to - from;
	if (ip == 20) {
		put16(f->data + 4, sim->fragment_id);
		put16(f->data + 6, from / 8 | (more ? 0x2000u : 0));
	} else {
		put32(f->data + 40, (uint32_t)f->data[6] << 24 | from | more);
		put32(f->data + 44, sim->fragment_id);
		f->data[6] = PROTO_FRAG;
	}
	mend_ip(f);
	return f;
}

/* It goes on as two to four fragments, each with a delay of its own. */
static void fly_in_fragments(struct netsim *sim, unsigned int to, uint64_t at, struct packet *p)
{
	const uint32_t len = p->len - netsim_ip_header(p);
	uint32_t n = 1 + (uint32_t)(netsim_random(sim) % MAX_CUTS), from = 0, end;

	sim->seen.fragmented++;
	sim->fragment_id++;
	for (; from < len; from = end) {
		end = from + 8 + (uint32_t)(netsim_random(sim) % len) / 8 * 8;
		end = n-- ? DMM_MIN(end, len) : len;
		fly(sim, to, at + netsim_random(sim) % (2 * NETSIM_MS),
		    fragment_of(sim, p, from, end));
	}
	netsim_packet_free(sim, p);
}

/* When the link has sent it on; 0: its queue is full. */
static uint64_t queued_until(struct netsim *sim, unsigned int from, uint32_t len)
{
	const struct netsim_link *l = &sim->params.link[from];
	struct side *s = &sim->side[from];

	if (!l->rate)
		return sim->now;
	if (l->queue && s->free_at > sim->now &&
	    (s->free_at - sim->now) / (1500 * NETSIM_SEC / l->rate + 1) > l->queue)
		return 0;
	s->free_at = DMM_MAX(s->free_at, sim->now) + len * NETSIM_SEC / l->rate;
	return s->free_at;
}

/* True: it is lost before it is on its way. */
static bool is_lost(struct netsim *sim, unsigned int from, const struct packet *p)
{
	const struct netsim_link *l = &sim->params.link[from];
	const uint64_t since = sim->now - sim->begin;

	if (l->mtu && p->len > l->mtu && since >= l->mtu_from) {
		sim->seen.too_big++;
		if (l->says_so)
			too_big(sim, from, p, l->mtu);
		return true;
	}
	if (since >= l->dead_from && since < l->dead_until) {
		sim->seen.dead++;
		return true;
	}
	if (netsim_chance(sim, l->loss)) {
		sim->seen.lost++;
		return true;
	}
	return false;
}

static void transmit_one(struct netsim *sim, unsigned int from, struct packet *p)
{
	const struct netsim_link *l = &sim->params.link[from];
	uint64_t at, sent;

	if (is_lost(sim, from, p)) {
		netsim_packet_free(sim, p);
		return;
	}
	sent = queued_until(sim, from, p->len);
	if (!sent) {
		sim->seen.queue_full++;
		netsim_packet_free(sim, p);
		return;
	}
	if (netsim_chance(sim, l->mark))
		sim->seen.marked += mark(p);
	at = stalled_until(l, sent);
	sim->seen.stalled += at != sent;
	at += l->delay + (l->jitter ? netsim_random(sim) % l->jitter : 0);
	if (netsim_chance(sim, l->reorder)) {
		sim->seen.reordered++;
		at += l->reorder_by;
	}
	if (netsim_chance(sim, l->dup)) {
		sim->seen.duplicated++;
		fly(sim, !from, at + netsim_random(sim) % (NETSIM_MS * 2), copy_of(sim, p));
	}
	if (netsim_chance(sim, l->fragment)) {
		fly_in_fragments(sim, !from, at, p);
		return;
	}
	if (netsim_chance(sim, l->corrupt))
		corrupt(sim, p);
	fly(sim, !from, at, p);
}

void netsim_transmit(struct netsim *sim, unsigned int from, struct packet *p)
{
	const struct netsim_link *l = &sim->params.link[from];
	const uint32_t header = netsim_ip_header(p);
	uint32_t data, at;

	check_packet(sim, from, p);
	look(sim, p);
	if (sim->traces)
		trace(sim, from, p);
	if (sim->tap && !sim->tap(sim, from, p->data, p->len, sim->tap_arg)) {
		netsim_packet_free(sim, p);
		return;
	}
	if (l->no_timestamps && is_tcp(p) && (p->data[header + 13] & SYN))
		strip_timestamps(p);
	data = l->recut ? p->len - header - (p->data[header + 12] >> 4) * 4u : 0;
	if (data < 2 || !netsim_chance(sim, l->recut)) {
		transmit_one(sim, from, p);
		return;
	}
	sim->seen.recut++;
	at = 1 + (uint32_t)(netsim_random(sim) % (data - 1));
	transmit_one(sim, from, cut(sim, p, 0, at));
	transmit_one(sim, from, cut(sim, p, at, data));
	netsim_packet_free(sim, p);
}
