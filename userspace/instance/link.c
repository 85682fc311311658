/* SPDX-License-Identifier: Apache-2.0 */
/* Ethernet in and out. The flow door has looked at these packets already, but a stack may be run
 * with another program in front of it, and one packet with our own address as source kills lwIP: so
 * everything is checked again. */
#include "instance/link.h"

#include <errno.h>
#include <net/ethernet.h>
#include <netinet/in.h>

#include "base/util.h"

#define BEHIND 8 /* bursts: a quarter of the smallest ring */

/* Is the packet one that the plug-in may see? */
static bool is_for_us(const struct link *link, const struct packet *p)
{
	const struct addrset *own = &link->mirror->own.set;

	return addrset_find(own, p->dst) == ADDR_OWN && !addr_is_illegal_source(p->src) &&
	       addrset_find(own, p->src) == ADDR_FOREIGN;
}

/* Takes the Ethernet header and the padding off. */
static bool strip(const struct link *link, struct dmm_frame *f, struct packet *p)
{
	uint16_t type;

	if (f->len < ETH_HEADER || memcmp(f->data, link->mirror->mac, 6) != 0)
		return false;
	type = packet_get16(f->data + 12);
	f->data += ETH_HEADER;
	f->len -= ETH_HEADER;
	f->room -= ETH_HEADER;
	f->headroom += ETH_HEADER;
	if (!packet_parse(f->data, f->len, p) ||
	    type != (p->family == DMM_FAMILY_V4 ? ETHERTYPE_IP : ETHERTYPE_IPV6))
		return false;
	f->len = p->len;
	return is_for_us(link, p);
}

static bool is_icmp(const struct packet *p)
{
	return p->proto == (p->family == DMM_FAMILY_V4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

static bool is_tcp(const struct packet *p)
{
	return p->proto == IPPROTO_TCP && !p->fragment && p->len >= p->header + 20u;
}

/* Those segments that the owner looks at: may the plug-in have it? */
static bool may_pass(const struct link *link, const struct packet *p, const struct dmm_frame *f)
{
	const uint8_t flags = f->data[p->header + 13] & (TCP_SYN | TCP_ACK | TCP_RST);

	if (flags & TCP_SYN && f->data[p->header + 13] & TCP_FIN)
		return false; /* nobody means that */
	if (flags == TCP_SYN && link->events.client_syn)
		return link->events.client_syn(link->events.ctx, p, f);
	if (flags == TCP_ACK && link->asks_acks)
		return link->events.client_ack(link->events.ctx, p, f);
	return true;
}

unsigned int link_receive(struct link *link)
{
	struct dmm_frame got[DMM_PKTIO_BATCH], good[DMM_PKTIO_BATCH];
	unsigned int n, i, n_good = 0;

	n = link->io->ops->rx_burst(link->io, got, DMM_PKTIO_BATCH);
	link->full_bursts = n == DMM_PKTIO_BATCH ? link->full_bursts + 1 : 0;
	if (n == 0)
		return 0;
	for (i = 0; i < n; i++) {
		struct icmp_error error;
		struct packet p;

		link->shared->rx_packets++;
		link->shared->rx_bytes += got[i].len;
		good[n_good] = got[i];
		if (!strip(link, &good[n_good], &p))
			link->shared->rx_dropped++;
		else if (is_tcp(&p))
			n_good += may_pass(link, &p, &good[n_good]);
		else if (!is_icmp(&p))
			n_good++;
		else if (icmp_parse(&p, good[n_good].data, &error))
			link->events.icmp(link->events.ctx, &error);
	}
	if (n_good > 0)
		link->events.input(link->events.ctx, good, n_good);
	link->io->ops->free(link->io, got, n);
	return n;
}

bool link_is_behind(const struct link *link)
{
	return link->full_bursts >= BEHIND;
}

bool link_alloc(struct link *link, struct dmm_frame *frame)
{
	if (link->n_spare == 0)
		link->n_spare = link->io->ops->alloc(link->io, link->spare, DMM_PKTIO_BATCH);
	if (link->n_spare == 0) {
		link->shared->tx_no_frame++;
		return false;
	}
	*frame = link->spare[--link->n_spare];
	frame->data += ETH_HEADER;
	frame->room -= ETH_HEADER;
	frame->headroom += ETH_HEADER;
	return true;
}

void link_free(struct link *link, const struct dmm_frame *frame)
{
	link->io->ops->free(link->io, frame, 1);
}

static void send_batch(struct link *link)
{
	const struct dmm_pktio_ops *ops = link->io->ops;
	unsigned int sent = ops->tx_burst(link->io, link->out, link->n_out);

	if (sent < link->n_out) { /* make room, then once more */
		ops->flush(link->io);
		sent += ops->tx_burst(link->io, link->out + sent, link->n_out - sent);
	}
	if (sent < link->n_out) {
		link->shared->tx_no_frame += link->n_out - sent;
		ops->free(link->io, link->out + sent, link->n_out - sent);
	}
	link->shared->tx_packets += sent;
	link->n_out = 0;
}

/* @frame's data is at the IP header. */
static void send_to(struct link *link, const uint8_t mac[6], const struct dmm_frame *frame)
{
	struct dmm_frame *f = &link->out[link->n_out++];
	bool v4 = frame->data[0] >> 4 == 4;

	*f = *frame;
	f->data -= ETH_HEADER;
	f->len += ETH_HEADER;
	f->room += ETH_HEADER;
	f->headroom -= ETH_HEADER;
	memcpy(f->data, mac, 6);
	memcpy(f->data + 6, link->mirror->mac, 6);
	packet_put16(f->data + 12, v4 ? ETHERTYPE_IP : ETHERTYPE_IPV6);
	link->shared->tx_bytes += f->len;
	if (link->n_out == DMM_PKTIO_BATCH)
		send_batch(link);
}

void link_answer(struct link *link, const struct dmm_frame *received,
		 const struct dmm_frame *answer)
{
	send_to(link, received->data - ETH_HEADER + 6, answer);
}

static void addrs_of(const uint8_t *ip, uint8_t dst[16], uint8_t src[16])
{
	if (ip[0] >> 4 == 4) {
		addr_from_v4(ip + 12, src);
		addr_from_v4(ip + 16, dst);
	} else {
		memcpy(src, ip + 8, 16);
		memcpy(dst, ip + 24, 16);
	}
}

static void output_one(struct link *link, const struct dmm_frame *frame)
{
	uint8_t dst[16], src[16];
	struct dmm_frame dropped;
	struct neighbour *n = NULL;
	int err;

	if (frame->len >= 20 && (frame->data[0] >> 4 == 4 || frame->len >= 40)) {
		addrs_of(frame->data, dst, src);
		n = nexthop_find(link->nexthops, dst, src, link->now, &err);
	}
	if (n && n->valid) {
		send_to(link, n->mac, frame);
		return;
	}
	dropped = *frame;
	if (!n || nexthop_hold(n, frame, link->now, &dropped)) {
		link->shared->no_neighbour++;
		link_free(link, &dropped);
	}
}

void link_output(struct link *link, const struct dmm_frame *frames, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		output_one(link, &frames[i]);
}

void link_flush(struct link *link)
{
	if (link->n_out > 0)
		send_batch(link);
	link->io->ops->flush(link->io);
}

void link_on_resolved(struct link *link, struct neighbour *n)
{
	unsigned int i;

	for (i = 0; i < n->n_held; i++)
		send_to(link, n->mac, &n->held[i]);
}

void link_on_dropped(struct link *link, struct neighbour *n)
{
	link->shared->no_neighbour += n->n_held;
	link->io->ops->free(link->io, n->held, n->n_held);
}

void link_close(struct link *link)
{
	link_flush(link);
	if (link->n_spare > 0)
		link->io->ops->free(link->io, link->spare, link->n_spare);
	link->n_spare = 0;
}
