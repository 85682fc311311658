// SPDX-License-Identifier: Apache-2.0
/* What the user of a connection calls (RFC 9293 3.10.1 to 3.10.6). */
#include <errno.h>

#include "base/util.h"
#include "net/congestion.h"
#include "net/net_internal.h"
#include "net/seq.h"

int dmm_net_listen(struct dmm_net *net, const struct dmm_endpoint *local, int backlog, void *user,
		   struct dmm_net_conn **ret)
{
	const struct dmm_endpoint none = { .port = 0 };
	struct dmm_net_conn *c = net_find_listener(net, local);

	if (c && memcmp(&c->local, local, sizeof(*local)) == 0)
		return -EADDRINUSE;
	c = net_conn_new(net, local, &none);
	if (!c)
		return -ENOMEM;
	c->state = NET_LISTEN;
	c->user = user;
	c->told = true;
	c->backlog = (uint32_t)DMM_MAX(backlog, 1);
	net_listeners_add(c);
	net->stats.listeners++;
	*ret = c;
	return 0;
}

/* What was made by the listener and nobody knows of goes with it. */
static void unlisten(struct dmm_net_conn *l)
{
	struct dmm_net *net = l->net;
	uint32_t i;

	net_listeners_remove(l);
	net->stats.listeners--;
	for (i = 0; i < net->conns.fresh; i++) {
		struct dmm_net_conn *c = (void *)(net->conns.memory + (size_t)net->conns.size * i);

		if (c->listener != l || c->state == NET_CLOSED)
			continue;
		net_reply_abort(c);
		net_conn_free(c);
	}
	l->state = NET_CLOSED;
}

static bool is_connected(const struct dmm_net_conn *c)
{
	return c->state != NET_LISTEN && c->state != NET_SYN_SENT && c->state != NET_SYN_RCVD;
}

static uint32_t queued(const struct dmm_net_conn *c)
{
	return seq_gt(c->tx_end, c->snd_una) ? c->tx_end - c->snd_una : 0;
}

static bool may_send(const struct dmm_net_conn *c)
{
	return (c->state == NET_ESTABLISHED || c->state == NET_CLOSE_WAIT) && !c->shut;
}

size_t dmm_net_send_space(struct dmm_net_conn *c)
{
	const uint64_t left = (uint64_t)net_pool_left(&c->net->chunks) * NET_CHUNK / 4;
	const uint32_t n = queued(c), most = net_send_buffer(c);

	if (!may_send(c))
		return 0;
	return n < most ? DMM_MIN(left, most - n) : 0;
}

/* Where nothing is on its way, no ACK will tell of space: others hold all memory. */
static void wait_for_space(struct dmm_net_conn *c)
{
	c->want_write = true;
	if (!queued(c))
		net_due_set(c, NET_DUE_SPACE, c->net->now + 20 * NET_MS);
}

static void add_to_send(struct dmm_net_conn *c, size_t len)
{
	c->tx_end += (uint32_t)len;
	if (len)
		net_want_output(c);
}

ssize_t dmm_net_send(struct dmm_net_conn *c, const void *buf, size_t len)
{
	size_t n;

	if (!is_connected(c))
		return -ENOTCONN;
	if (c->shut || c->closing || c->state == NET_CLOSED)
		return -EPIPE;
	n = DMM_MIN(len, dmm_net_send_space(c));
	if (n && !net_stream_put(&c->tx, &c->net->chunks, c->tx_end, buf, (uint32_t)n)) {
		c->net->stats.no_memory++;
		n = 0;
	}
	add_to_send(c, n);
	c->want_write = false;
	if (n < len)
		wait_for_space(c);
	return (ssize_t)n;
}

unsigned int dmm_net_send_reserve(struct dmm_net_conn *c, size_t len, struct iovec *iov,
				  unsigned int n)
{
	uint32_t at = c->tx_end, left = (uint32_t)DMM_MIN(len, dmm_net_send_space(c));
	unsigned int i;

	for (i = 0; i < n && left; i++) {
		uint8_t *data;
		const uint32_t room = net_stream_room(&c->tx, &c->net->chunks, at, left, &data);

		if (!room)
			break;
		iov[i] = (struct iovec){ data, room };
		at += room;
		left -= room;
	}
	c->want_write = false;
	if (i == 0 && may_send(c))
		wait_for_space(c);
	return i;
}

void dmm_net_send_done(struct dmm_net_conn *c, size_t len)
{
	add_to_send(c, len);
	if (queued(c))
		net_stream_cut(&c->tx, &c->net->chunks, c->tx_end);
	else
		net_stream_clear(&c->tx, &c->net->chunks);
}

static uint32_t unread(const struct dmm_net_conn *c)
{
	return c->rcv_nxt - c->rcv_read - c->eof;
}

unsigned int dmm_net_recv_peek(struct dmm_net_conn *c, struct iovec *iov, unsigned int n)
{
	uint32_t at = c->rcv_read, left = is_connected(c) ? unread(c) : 0;
	unsigned int i;

	for (i = 0; i < n && left; i++) {
		const uint8_t *data;
		const uint32_t len = net_stream_peek(&c->rx, at, left, &data);

		iov[i] = (struct iovec){ (void *)(uintptr_t)data, len };
		at += len;
		left -= len;
	}
	return i;
}

void dmm_net_recv_done(struct dmm_net_conn *c, size_t len)
{
	if (!is_connected(c))
		return;
	c->rcv_read += (uint32_t)DMM_MIN(len, unread(c));
	net_receive_buffer_read(c);
	if (!unread(c) && !c->held)
		net_stream_clear(&c->rx, &c->net->chunks);
	else
		net_stream_drop(&c->rx, &c->net->chunks, c->rcv_read);
	if (c->state != NET_CLOSED)
		net_want_output(c); /* if the window is worth telling */
}

size_t dmm_net_unsent(const struct dmm_net_conn *c)
{
	return is_connected(c) && c->state != NET_CLOSED ? queued(c) : 0;
}

int dmm_net_shutdown(struct dmm_net_conn *c)
{
	if (!is_connected(c))
		return -ENOTCONN;
	c->shut = true;
	c->want_write = false;
	net_want_output(c);
	return 0;
}

void dmm_net_close(struct dmm_net_conn *c)
{
	const bool lost = is_connected(c) && unread(c);

	c->closing = true;
	c->events &= ~(DMM_EV_CONNECTED | DMM_EV_READABLE | DMM_EV_WRITABLE | DMM_EV_EOF);
	if (c->state == NET_LISTEN)
		unlisten(c);
	if (c->state == NET_CLOSED || c->state == NET_TIME_WAIT) {
		c->events &= ~DMM_EV_ERROR;
		net_note(c, DMM_EV_CLOSED);
	} else if (!is_connected(c)) {
		if (c->state == NET_SYN_RCVD)
			net_reply_abort(c);
		net_conn_end(c, 0);
	} else if (lost) { /* RFC 2525 2.17: the peer must not think that it was read */
		net_reply_abort(c);
		net_conn_end(c, 0);
	} else {
		dmm_net_shutdown(c);
		if (c->state == NET_FIN_WAIT2)
			net_due_set(c, NET_DUE_LIFE, c->net->now + 60 * NET_SEC);
	}
}

void dmm_net_abort(struct dmm_net_conn *c)
{
	if (c->state == NET_LISTEN)
		unlisten(c);
	else if (c->state != NET_CLOSED && c->state != NET_SYN_SENT && c->state != NET_TIME_WAIT)
		net_reply_abort(c);
	net_conn_free(c);
}

void dmm_net_set_user(struct dmm_net_conn *c, void *user)
{
	c->user = user;
}

int dmm_net_set_option(struct dmm_net_conn *c, enum dmm_net_option option, int value)
{
	if (value < 0)
		return -EINVAL;
	if (c->state == NET_LISTEN)
		return -ENOTCONN;
	switch (option) {
	case DMM_NET_NODELAY:
		c->nodelay = value != 0;
		net_want_output(c);
		return 0;
	case DMM_NET_KEEPALIVE:
		c->keep_idle = (uint32_t)value;
		net_due_clear(c, NET_DUE_KEEP);
		if (value && c->state != NET_CLOSED)
			net_due_set(c, NET_DUE_KEEP, c->heard_at + (uint64_t)value * NET_SEC);
		return 0;
	case DMM_NET_USER_TIMEOUT:
		c->user_timeout = (uint32_t)value;
		return 0;
	case DMM_NET_CONGESTION:
		if (value > DMM_NET_NEWRENO)
			return -EINVAL;
		if (!is_connected(c) || c->state == NET_CLOSED)
			return -ENOTCONN;
		c->cc = net_congestion_of((enum dmm_net_congestion)value);
		memset(c->cc_state, 0, sizeof(c->cc_state));
		c->cc->begin(c);
		return 0;
	}
	return -ENOPROTOOPT;
}

void *dmm_net_owner(const struct dmm_net_conn *c)
{
	return c->net->owner;
}

void dmm_net_endpoints(const struct dmm_net_conn *c, struct dmm_endpoint *ret_local,
		       struct dmm_endpoint *ret_remote)
{
	*ret_local = c->local;
	*ret_remote = c->remote;
}

void dmm_net_get_info(const struct dmm_net_conn *c, struct dmm_net_info *ret)
{
	static const char *const names[] = { "CLOSED",	    "LISTEN",	 "SYN_SENT",  "SYN_RCVD",
					     "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "CLOSE_WAIT",
					     "CLOSING",	    "LAST_ACK",	 "TIME_WAIT" };
	const struct net_range *r;

	*ret = (struct dmm_net_info){ .state = names[c->state],
				      .cwnd = c->cwnd,
				      .ssthresh = c->ssthresh,
				      .in_flight = net_pipe(c),
				      .mss = c->mss,
				      .snd_una = c->snd_una,
				      .snd_nxt = c->snd_nxt,
				      .snd_edge = c->snd_edge,
				      .rcv_nxt = c->rcv_nxt,
				      .rcv_edge = c->rcv_adv,
				      .unread = unread(c),
				      .srtt = c->srtt,
				      .rttvar = c->rttvar,
				      .min_rtt = c->min_rtt,
				      .rto = c->rto,
				      .ecn = c->ecn_ok,
				      .sound = net_recovery_is_sound(c) };
	for (r = c->held; r; r = r->next)
		ret->held += r->end - r->start;
}
