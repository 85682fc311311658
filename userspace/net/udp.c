// SPDX-License-Identifier: Apache-2.0
/* UDP (RFC 768, 1122 4.1, 8085): sockets, what they received and what they have to send. */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "net/bytes.h"
#include "net/checksum.h"
#include "net/net_internal.h"

/* --- sockets --- */

static struct dmm_net_udp **bucket(const struct dmm_net *net, const struct dmm_endpoint *local,
				   const struct dmm_endpoint *remote)
{
	return &net->udp_hash[net_tuple_hash(net->hash_key, local, remote, NET_PROTO_UDP) &
			      net->hash_mask];
}

static struct dmm_net_udp *find_exact(const struct dmm_net *net, const struct dmm_endpoint *local,
				      const struct dmm_endpoint *remote)
{
	struct dmm_net_udp *u;

	for (u = *bucket(net, local, remote); u; u = u->hash_next)
		if (net_same_end(&u->local, local) && net_same_end(&u->remote, remote))
			return u;
	return NULL;
}

/* Who talks with this very one, who listens at this address, who listens at all. */
static struct dmm_net_udp *find(const struct dmm_net *net, const struct dmm_endpoint *local,
				const struct dmm_endpoint *remote)
{
	const struct dmm_endpoint none = { .port = 0 };
	struct dmm_endpoint any = { .port = local->port };
	struct dmm_net_udp *u = find_exact(net, local, remote);

	if (!u)
		u = find_exact(net, local, &none);
	if (!u && net_is_v4(local->addr))
		any.addr[10] = any.addr[11] = 0xff;
	return u ? u : find_exact(net, &any, &none);
}

int dmm_net_udp_open(struct dmm_net *net, const struct dmm_endpoint *local,
		     const struct dmm_endpoint *remote, void *user, struct dmm_net_udp **ret)
{
	const struct dmm_endpoint none = { .port = 0 };
	struct dmm_net_udp **list, *u;

	if (!local->port || (remote && !remote->port))
		return -EINVAL;
	if (!net_is_ours(net, local->addr) && (remote || !net_is_any(local->addr)))
		return -EADDRNOTAVAIL;
	if (remote && net_is_v4(remote->addr) != net_is_v4(local->addr))
		return -EAFNOSUPPORT;
	if (find_exact(net, local, remote ? remote : &none))
		return -EADDRINUSE;
	u = net_pool_get(&net->udps);
	if (!u)
		return -ENOMEM;
	*u = (struct dmm_net_udp){
		.net = net, .user = user, .local = *local, .remote = remote ? *remote : none
	};
	TAILQ_INIT(&u->received);
	list = bucket(net, &u->local, &u->remote);
	u->hash_next = *list;
	*list = u;
	*ret = u;
	return 0;
}

static void free_datagram(struct dmm_net *net, struct net_datagram *d)
{
	net_stream_clear(&d->bytes, &net->chunks);
	net_pool_put(&net->datagrams, d);
}

void dmm_net_udp_close(struct dmm_net_udp *u)
{
	struct dmm_net_udp **list = bucket(u->net, &u->local, &u->remote);
	struct dmm_net *net = u->net;
	struct net_datagram *d;

	while (*list != u)
		list = &(*list)->hash_next;
	*list = u->hash_next;
	if (u->on_event)
		TAILQ_REMOVE(&net->udp_events, u, event_link);
	while ((d = TAILQ_FIRST(&u->received))) {
		TAILQ_REMOVE(&u->received, d, link);
		free_datagram(net, d);
	}
	for (d = TAILQ_FIRST(&net->udp_output); d; d = TAILQ_NEXT(d, link))
		if (d->socket == u)
			d->socket = NULL;
	net_pool_put(&net->udps, u);
}

/* A datagram costs a chunk at least. */
static uint32_t cost_of(uint32_t len)
{
	return DMM_MAX(len, NET_CHUNK);
}

/* May a queue of @held bytes take @len more? A quarter of what is left is for it, as for connections
 * (buffers.c), of chunks and of datagrams: those of a queue nobody reads are not all there are. */
static bool has_room(const struct dmm_net *net, uint32_t held, uint32_t len, uint32_t most)
{
	const uint64_t left = DMM_MIN(net_pool_left(&net->chunks), net_pool_left(&net->datagrams));

	return held + cost_of(len) <= DMM_MIN(left * NET_CHUNK / 4, (uint64_t)most);
}

static struct net_datagram *new_datagram(struct dmm_net *net, const struct dmm_endpoint *local,
					 const struct dmm_endpoint *remote, const void *data,
					 uint32_t len)
{
	struct net_datagram *d = net_pool_get(&net->datagrams);

	if (!d)
		return NULL;
	*d = (struct net_datagram){ .local = *local, .remote = *remote, .len = len };
	if (net_stream_put(&d->bytes, &net->chunks, 0, data, len))
		return d;
	free_datagram(net, d);
	return NULL;
}

static void note(struct dmm_net_udp *u)
{
	if (u->on_event)
		return;
	u->on_event = true;
	TAILQ_INSERT_TAIL(&u->net->udp_events, u, event_link);
}

struct dmm_net_udp *dmm_net_udp_event(struct dmm_net *net, void **ret_user)
{
	struct dmm_net_udp *u = TAILQ_FIRST(&net->udp_events);

	if (!u)
		return NULL;
	TAILQ_REMOVE(&net->udp_events, u, event_link);
	u->on_event = false;
	*ret_user = u->user;
	return u;
}

/* --- receiving --- */

/* The length of the datagram with its header, 0: it is bad. */
static uint32_t check(const struct net_packet *packet)
{
	const uint8_t *p = packet->data;
	uint32_t len;

	if (packet->len < NET_UDP_HEADER)
		return 0;
	len = get16(p + 4);
	if (len < NET_UDP_HEADER || len > packet->len)
		return 0;
	if (!get16(p + 6)) /* no checksum: only IPv4 may (RFC 1122 4.1.3.4, 8200 8.1) */
		return packet->v4 ? len : 0;
	return net_sum_finish(net_sum(p, len,
				      net_pseudo(&packet->src, &packet->dst, packet->v4,
						 NET_PROTO_UDP, len)))
		       ? 0
		       : len;
}

void net_udp_input(struct dmm_net *net, const struct net_packet *packet)
{
	struct dmm_endpoint local = packet->dst, remote = packet->src;
	const uint32_t len = check(packet);
	struct net_datagram *d;
	struct dmm_net_udp *u;

	if (!len) {
		net->stats.udp_dropped++;
		return;
	}
	memcpy(&remote.port, packet->data, 2);
	memcpy(&local.port, packet->data + 2, 2);
	u = find(net, &local, &remote);
	if (!u || !has_room(net, u->received_bytes, len, net->receive_buffer)) {
		net->stats.udp_dropped++;
		return;
	}
	d = new_datagram(net, &local, &remote, packet->data + NET_UDP_HEADER, len - NET_UDP_HEADER);
	if (!d) {
		net->stats.no_memory++;
		return;
	}
	net->stats.udp_in++;
	u->received_bytes += cost_of(len);
	TAILQ_INSERT_TAIL(&u->received, d, link);
	note(u);
}

ssize_t dmm_net_udp_recv(struct dmm_net_udp *u, void *buf, size_t len,
			 struct dmm_endpoint *ret_from, struct dmm_endpoint *ret_to)
{
	struct net_datagram *d = TAILQ_FIRST(&u->received);
	const int err = u->err;
	ssize_t whole;

	u->err = 0;
	if (err)
		return -err;
	if (!d)
		return -EAGAIN;
	whole = d->len;
	net_stream_get(&d->bytes, 0, buf, (uint32_t)DMM_MIN(len, d->len));
	*ret_from = d->remote;
	*ret_to = d->local;
	u->received_bytes -= cost_of(d->len + NET_UDP_HEADER);
	TAILQ_REMOVE(&u->received, d, link);
	free_datagram(u->net, d);
	return whole;
}

/* RFC 8085 5.2: only a socket that talks with one remote end can tell which of its datagrams it is
 * about. That they do not fit is for him to know as well who sends them: we do not cut (3.2). */
void net_udp_error(struct dmm_net *net, const struct dmm_icmp *error)
{
	struct dmm_net_udp *u = find_exact(net, &error->local, &error->remote);

	net->stats.icmp_in++;
	if (!u || (!error->hard && !net_icmp_mtu(error)))
		return;
	u->err = error->err;
	note(u);
}

/* --- sending --- */

static uint32_t headers(bool v4)
{
	return (v4 ? NET_HEADER4 : NET_HEADER6) + NET_UDP_HEADER;
}

int dmm_net_udp_send(struct dmm_net_udp *u, const struct dmm_endpoint *to, const void *buf,
		     size_t len)
{
	struct dmm_net *net = u->net;
	struct net_datagram *d;

	if (!to)
		to = &u->remote;
	if (!to->port)
		return -EDESTADDRREQ;
	if (net_is_any(u->local.addr) || net_is_v4(to->addr) != net_is_v4(u->local.addr))
		return -EAFNOSUPPORT;
	if (net_is_ours(net, to->addr))
		return -EHOSTUNREACH;
	if (len > net->mtu - headers(net_is_v4(to->addr)))
		return -EMSGSIZE;
	if (!has_room(net, u->waiting_bytes, (uint32_t)len, net->send_buffer))
		return -EAGAIN;
	d = new_datagram(net, &u->local, to, buf, (uint32_t)len);
	if (!d)
		return -ENOMEM;
	d->socket = u;
	u->waiting_bytes += cost_of((uint32_t)len);
	TAILQ_INSERT_TAIL(&net->udp_output, d, link);
	return 0;
}

static void no_longer_waits(struct dmm_net *net, struct net_datagram *d)
{
	if (d->socket)
		d->socket->waiting_bytes -= cost_of(d->len);
	TAILQ_REMOVE(&net->udp_output, d, link);
	free_datagram(net, d);
}

/* The first that fits: the MTU may have become less since it was queued. */
static struct net_datagram *next_to_send(struct dmm_net *net)
{
	struct net_datagram *d;

	while ((d = TAILQ_FIRST(&net->udp_output)) &&
	       headers(net_is_v4(d->local.addr)) + d->len > net->mtu) {
		net->stats.udp_dropped++;
		no_longer_waits(net, d);
	}
	return d;
}

uint32_t net_udp_output(struct dmm_net *net, uint8_t *p, uint32_t room)
{
	struct net_datagram *d = room < net->mtu ? NULL : next_to_send(net);
	uint32_t header, len;
	bool v4;
	uint16_t sum;

	if (!d)
		return 0;
	v4 = net_is_v4(d->local.addr);
	len = d->len + NET_UDP_HEADER;
	header = net_ip_build(net, p, &d->local, &d->remote, v4, NET_PROTO_UDP, NET_NOT_ECT, len);
	memcpy(p + header, &d->local.port, 2);
	memcpy(p + header + 2, &d->remote.port, 2);
	put16(p + header + 4, len);
	put16(p + header + 6, 0);
	net_stream_get(&d->bytes, 0, p + header + NET_UDP_HEADER, d->len);
	sum = net_sum_finish(net_sum(p + header, len,
				     net_pseudo(&d->local, &d->remote, v4, NET_PROTO_UDP, len)));
	if (!sum) /* RFC 768: 0 would mean that there is none */
		sum = 0xffff;
	memcpy(p + header + 6, &sum, sizeof(sum));
	no_longer_waits(net, d);
	net->stats.udp_out++;
	return header + len;
}
