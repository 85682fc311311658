// SPDX-License-Identifier: Apache-2.0
/* Packets put together from fragments (RFC 791 3.2, 8200 4.5): a few at a time, each at most 64 KiB
 * and 30 s; who comes when all places are taken takes that of the oldest. Fragments that overlap
 * are an attack or a fault, so nothing of their packet is used (RFC 5722, also for IPv4); what came
 * already is the network's doing. */
#include <string.h>

#include "net/net_internal.h"

#define LIFE	  (30 * NET_SEC) /* RFC 1122 3.3.2 has 60 to 120 s, all stacks in use 30 */
#define MAX_TOTAL 65535u
#define MAX_PARTS 64

static void forget(struct dmm_net *net, struct net_fragmented *f)
{
	net_stream_clear(&f->bytes, &net->chunks);
	net_ranges_clear(&f->parts, &net->ranges);
	f->used = false;
}

static bool is_of(const struct net_fragmented *f, const struct net_packet *p, uint32_t id)
{
	return f->used && f->id == id && f->v4 == p->v4 && (!f->v4 || f->proto == p->proto) &&
	       memcmp(f->src, p->src.addr, 16) == 0 && memcmp(f->dst, p->dst.addr, 16) == 0;
}

void net_fragments_expire(struct dmm_net *net)
{
	struct net_fragmented *f;
	uint64_t first = 0;

	for (f = net->fragmented; f < net->fragmented + NET_MAX_FRAGMENTED; f++) {
		if (f->used && f->until <= net->now) {
			net->stats.fragments_dropped++;
			forget(net, f);
		}
		if (f->used && (!first || f->until < first))
			first = f->until;
	}
	net->fragments_until = first;
}

static struct net_fragmented *place_for(struct dmm_net *net, const struct net_packet *p,
					uint32_t id)
{
	struct net_fragmented *f, *best = net->fragmented;

	for (f = net->fragmented; f < net->fragmented + NET_MAX_FRAGMENTED; f++) {
		if (is_of(f, p, id))
			return f;
		if (!f->used ? best->used : best->used && f->until < best->until)
			best = f;
	}
	if (best->used) {
		net->stats.fragments_dropped++;
		forget(net, best);
	}
	*best = (struct net_fragmented){
		.id = id, .proto = p->proto, .v4 = p->v4, .used = true, .until = net->now + LIFE
	};
	if (!net->fragments_until) /* those that were there are older */
		net->fragments_until = best->until;
	memcpy(best->src, p->src.addr, 16);
	memcpy(best->dst, p->dst.addr, 16);
	return best;
}

static bool overlaps(const struct net_fragmented *f, uint32_t start, uint32_t end)
{
	const struct net_range *r;

	for (r = f->parts; r; r = r->next)
		if (start < r->end && r->start < end)
			return true;
	return false;
}

/* RFC 8200 4.5: one that comes twice may be ignored. What it holds is not looked at: the first counts. */
static bool is_again(const struct net_fragmented *f, uint32_t start, uint32_t end)
{
	const struct net_range *r;

	for (r = f->parts; r; r = r->next)
		if (r->start <= start && end <= r->end)
			return true;
	return false;
}

/* False: this packet will never be whole. */
static bool add(struct dmm_net *net, struct net_fragmented *f, const struct net_packet *p,
		const struct net_fragment *part)
{
	const uint32_t end = part->offset + p->len;
	struct net_range merged;

	if (end > MAX_TOTAL || !p->len || (part->more && p->len % 8))
		return false;
	if (is_again(f, part->offset, end))
		return true;
	if (overlaps(f, part->offset, end))
		return false;
	if (f->total ? (!part->more || end > f->total) : false)
		return false;
	if (!part->more) {
		const struct net_range *r;

		for (r = f->parts; r; r = r->next)
			if (r->end > end)
				return false;
		f->total = end;
	}
	f->ecn |= (uint8_t)(1u << p->ecn);
	if (part->offset == 0)
		f->proto = p->proto; /* RFC 8200 4.5: the first one's counts */
	return net_ranges_add(&f->parts, &net->ranges, part->offset, end, MAX_PARTS, &merged) &&
	       net_stream_put(&f->bytes, &net->chunks, part->offset, p->data, p->len);
}

/* RFC 3168 5.3: one mark marks the whole, unless others say that the sender knows nothing of it.
 * False: it is dropped. */
static bool whole_ecn(const struct net_fragmented *f, uint8_t *ret)
{
	if (!(f->ecn & 1u << NET_CE))
		return true;
	*ret = NET_CE;
	return !(f->ecn & 1u << NET_NOT_ECT);
}

bool net_fragment(struct dmm_net *net, struct net_packet *packet, const struct net_fragment *part)
{
	struct net_fragmented *f;

	net->stats.fragments_in++;
	if (net->fragments_until && net->fragments_until <= net->now)
		net_fragments_expire(net);
	f = place_for(net, packet, part->id);
	if (f->dead)
		return false;
	if (!add(net, f, packet, part)) {
		net->stats.fragments_dropped++;
		forget(net, f);
		f->used = f->dead = true; /* so that its others are dropped too */
		return false;
	}
	if (!f->total || f->parts->start != 0 || f->parts->end != f->total)
		return false;
	if (!whole_ecn(f, &packet->ecn)) {
		net->stats.fragments_dropped++;
		forget(net, f);
		return false;
	}
	net_stream_get(&f->bytes, 0, net->assembled, f->total);
	packet->data = net->assembled;
	packet->len = f->total;
	packet->proto = f->proto;
	forget(net, f);
	net->stats.reassembled++;
	return true;
}
