// SPDX-License-Identifier: Apache-2.0
/* The engine as a whole: its memory, packets to where they belong, turns of sending, events. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/hash.h"
#include "net/net_internal.h"

#define ALIGN	   64u
#define TURN	   16u /* segments of one connection before the next one's turn */
#define MAX_WHOLE  65536u
#define MAX_SCALE  14 /* RFC 7323 2.3 */
#define MIN_BUFFER 2048u
#define FIRST_PORT 1024
#define MAX_BUFFER (1u << 30) /* the largest window there is (RFC 7323 2.2) */

/* How many of each thing an engine has, and where its memory goes. */
struct plan {
	uint32_t conns, chunks, sents, ranges, datagrams, hash;
	size_t at_hash, at_listeners, at_udp_hash, at_addrs, at_conns, at_sents, at_ranges,
		at_datagrams, at_udps, at_whole, at_chunks, size;
};

_Static_assert(sizeof(struct dmm_net_conn) <= 1024, "an idle connection costs no more");

static size_t reserve(size_t *at, size_t size, size_t n)
{
	const size_t here = *at;

	*at += (size * n + ALIGN - 1) / ALIGN * ALIGN;
	return here;
}

static uint16_t first_port(const struct dmm_net_config *config)
{
	return config->first_port ? config->first_port : FIRST_PORT;
}

static bool make_plan(const struct dmm_net_config *config, struct plan *ret)
{
	const uint64_t chunks = config->buffer_memory / sizeof(struct net_chunk);
	struct plan p = { .hash = 16 };
	size_t at = 0;

	if (!config->max_conns || config->max_conns > 1u << 24 ||
	    config->max_time_wait > 1u << 24 || config->max_udp > 1u << 20 ||
	    config->mtu < NET_MIN_MTU || config->mtu > 65535 || config->send_buffer < MIN_BUFFER ||
	    config->receive_buffer < MIN_BUFFER || config->send_buffer > MAX_BUFFER ||
	    config->receive_buffer > MAX_BUFFER || chunks < 16 || chunks > UINT32_MAX / 4 ||
	    config->n_addrs > config->max_addrs ||
	    (config->last_port && first_port(config) > config->last_port))
		return false;
	p.conns = config->max_conns + config->max_time_wait;
	p.chunks = (uint32_t)chunks;
	p.sents = p.chunks * NET_SENTS_OF_CHUNK + 1024;
	p.ranges = p.chunks + 1024;
	p.datagrams = config->max_udp ? config->max_udp * 4 + 1024 : 0;
	while (p.hash < p.conns || p.hash < config->max_udp)
		p.hash *= 2;

	reserve(&at, sizeof(struct dmm_net), 1);
	p.at_hash = reserve(&at, sizeof(void *), p.hash);
	p.at_listeners = reserve(&at, sizeof(void *), p.hash);
	p.at_udp_hash = reserve(&at, sizeof(void *), p.hash);
	p.at_addrs = reserve(&at, 16, config->max_addrs);
	p.at_whole = reserve(&at, 1, MAX_WHOLE);
	p.at_conns = reserve(&at, sizeof(struct dmm_net_conn), p.conns);
	p.at_sents = reserve(&at, sizeof(struct net_sent), p.sents);
	p.at_ranges = reserve(&at, sizeof(struct net_range), p.ranges);
	p.at_datagrams = reserve(&at, sizeof(struct net_datagram), p.datagrams);
	p.at_udps = reserve(&at, sizeof(struct dmm_net_udp), config->max_udp);
	p.at_chunks = reserve(&at, sizeof(struct net_chunk), p.chunks);
	p.size = at;
	*ret = p;
	return true;
}

size_t dmm_net_memory(const struct dmm_net_config *config)
{
	struct plan plan;

	return make_plan(config, &plan) ? plan.size : 0;
}

static void make_keys(struct dmm_net *net, const uint8_t secret[32])
{
	const uint8_t uses[5] = { 1, 2, 3, 4, 5 };
	uint64_t *keys[5] = { net->hash_key, net->isn_key, net->ts_key, net->cookie_key,
			      net->port_key };
	uint64_t master[4];
	unsigned int i;

	memcpy(master, secret, sizeof(master));
	for (i = 0; i < 5; i++) {
		keys[i][0] = net_hash(master, &uses[i], 1);
		keys[i][1] = net_hash(master + 2, &uses[i], 1);
	}
	for (i = 0; i < NET_PORT_STEPS; i++)
		net->port_steps[i] = (uint16_t)net_hash(net->port_key, &i, sizeof(i));
}

int dmm_net_create(const struct dmm_net_config *config, void *memory, uint64_t now,
		   struct dmm_net **ret)
{
	struct dmm_net *net = memory;
	uint8_t *m = memory;
	struct plan p;

	if (!make_plan(config, &p))
		return -EINVAL;
	memset(memory, 0, p.at_whole); /* what is behind is written before it is read */
	net->now = now;
	net->owner = config->owner;
	net->isn = config->isn;
	net_wheel_init(&net->wheel, now);
	TAILQ_INIT(&net->output);
	TAILQ_INIT(&net->events);
	TAILQ_INIT(&net->waiting);
	TAILQ_INIT(&net->udp_output);
	TAILQ_INIT(&net->udp_events);
	net_pool_init(&net->conns, m + p.at_conns, sizeof(struct dmm_net_conn), p.conns);
	net_pool_init(&net->sents, m + p.at_sents, sizeof(struct net_sent), p.sents);
	net_pool_init(&net->ranges, m + p.at_ranges, sizeof(struct net_range), p.ranges);
	net_pool_init(&net->datagrams, m + p.at_datagrams, sizeof(struct net_datagram),
		      p.datagrams);
	net_pool_init(&net->udps, m + p.at_udps, sizeof(struct dmm_net_udp), config->max_udp);
	net_pool_init(&net->chunks, m + p.at_chunks, sizeof(struct net_chunk), p.chunks);
	net->hash = (void *)(m + p.at_hash);
	net->listeners = (void *)(m + p.at_listeners);
	net->udp_hash = (void *)(m + p.at_udp_hash);
	net->hash_mask = p.hash - 1;
	net->addrs = (void *)(m + p.at_addrs);
	net->max_addrs = config->max_addrs;
	net->assembled = m + p.at_whole;

	net->max_conns = config->max_conns;
	net->send_buffer = config->send_buffer;
	net->receive_buffer = config->receive_buffer;
	net->congestion = (uint8_t)config->congestion;
	net->ecn = (uint8_t)config->ecn;
	net->delay_small = config->delay_small;
	net->paces = !config->no_pacing;
	net->first_port = first_port(config);
	net->last_port = config->last_port ? config->last_port : UINT16_MAX;
	while (net->rcv_scale < MAX_SCALE && net->receive_buffer >> net->rcv_scale > 0xffff)
		net->rcv_scale++;
	make_keys(net, config->secret);
	dmm_net_configure(net, config->mtu, config->addrs, config->n_addrs);
	*ret = net;
	return 0;
}

static int compare_addrs(const void *a, const void *b)
{
	return memcmp(a, b, 16);
}

bool net_is_ours(const struct dmm_net *net, const uint8_t addr[16])
{
	return bsearch(addr, net->addrs, net->n_addrs, 16, compare_addrs);
}

/* Shell's, in place: that of the C library asks the system how much memory there is. */
static void sort_addrs(uint8_t (*addrs)[16], uint32_t n)
{
	uint8_t addr[16];
	uint32_t gap, i, at;

	for (gap = n / 2; gap; gap /= 2) {
		for (i = gap; i < n; i++) {
			memcpy(addr, addrs[i], 16);
			for (at = i; at >= gap && memcmp(addrs[at - gap], addr, 16) > 0; at -= gap)
				memcpy(addrs[at], addrs[at - gap], 16);
			memcpy(addrs[at], addr, 16);
		}
	}
}

int dmm_net_configure(struct dmm_net *net, uint32_t mtu, const uint8_t (*addrs)[16],
		      uint32_t n_addrs)
{
	uint32_t i;

	if (mtu < NET_MIN_MTU || mtu > 65535 || n_addrs > net->max_addrs)
		return -EINVAL;
	net->n_addrs = 0;
	for (i = 0; i < n_addrs; i++)
		/* RFC 8200 5: no IPv6 where less than 1280 goes; the kernel has none there either */
		if (mtu >= NET_MIN_MTU6 || net_is_v4(addrs[i]))
			memcpy(net->addrs[net->n_addrs++], addrs[i], 16);
	sort_addrs(net->addrs, net->n_addrs); /* each packet asks twice */
	for (i = 0; mtu < net->mtu && i < net->conns.fresh; i++) {
		struct dmm_net_conn *c = (void *)(net->conns.memory + (size_t)net->conns.size * i);

		if (c->state > NET_LISTEN)
			net_pmtu_lower(c, mtu);
	}
	net->mtu = mtu;
	return 0;
}

/* --- lists --- */

void net_want_output(struct dmm_net_conn *c)
{
	if (c->on_output || c->state <= NET_LISTEN)
		return;
	c->on_output = true;
	TAILQ_INSERT_TAIL(&c->net->output, c, output_link);
}

static void no_output(struct dmm_net_conn *c)
{
	if (!c->on_output)
		return;
	if (c == TAILQ_FIRST(&c->net->output))
		c->net->turn = 0;
	c->on_output = false;
	TAILQ_REMOVE(&c->net->output, c, output_link);
}

void net_note(struct dmm_net_conn *c, uint32_t events)
{
	c->events |= events;
	if (c->on_event || c->orphan)
		return;
	c->on_event = true;
	TAILQ_INSERT_TAIL(&c->net->events, c, event_link);
}

static void no_event(struct dmm_net_conn *c)
{
	if (!c->on_event)
		return;
	c->on_event = false;
	TAILQ_REMOVE(&c->net->events, c, event_link);
}

static void no_wait(struct dmm_net_conn *c)
{
	if (!c->waits)
		return;
	c->waits = false;
	c->net->stats.time_wait--;
	TAILQ_REMOVE(&c->net->waiting, c, wait_link);
}

/* --- connections --- */

struct dmm_net_conn *net_conn_new(struct dmm_net *net, const struct dmm_endpoint *local,
				  const struct dmm_endpoint *remote)
{
	struct dmm_net_conn *c;

	if (net->conns.used - net->stats.time_wait >= net->max_conns)
		return NULL;
	if (!net_pool_left(&net->conns))
		net_conn_end(TAILQ_FIRST(&net->waiting), 0);
	c = net_pool_get(&net->conns);
	*c = (struct dmm_net_conn){ .net = net, .local = *local, .remote = *remote };
	c->v4 = net_is_v4(local->addr);
	c->nodelay = !net->delay_small;
	net_buffers_begin(c);
	TAILQ_INIT(&c->sent);
	TAILQ_INIT(&c->sent_by_time);
	return c;
}

static void leave_wire(struct dmm_net_conn *c)
{
	unsigned int i;

	if (c->hashed)
		net_hash_remove(c);
	for (i = 0; i < NET_NUM_DUE; i++)
		c->due[i] = 0;
	net_wheel_clear(&c->net->wheel, &c->timer);
	no_output(c);
	while (!TAILQ_EMPTY(&c->sent))
		net_sent_free(c, TAILQ_FIRST(&c->sent));
	net_stream_clear(&c->tx, &c->net->chunks);
	net_held_clear(c);
	if (c->state == NET_SYN_RCVD && c->listener) {
		c->listener->half_open--;
		c->net->stats.half_open--;
	}
	if (c->state != NET_LISTEN && c->state != NET_CLOSED)
		c->net->stats.conns--;
	c->state = NET_CLOSED;
}

void net_conn_free(struct dmm_net_conn *c)
{
	leave_wire(c);
	no_event(c);
	no_wait(c);
	net_stream_clear(&c->rx, &c->net->chunks);
	c->listener = NULL;
	net_pool_put(&c->net->conns, c);
}

void net_conn_end(struct dmm_net_conn *c, int err)
{
	leave_wire(c);
	if (c->orphan || (c->passive && !c->told)) {
		net_conn_free(c);
		return;
	}
	if (c->closing) {
		net_note(c, DMM_EV_CLOSED);
	} else if (err) {
		c->err = err;
		net_note(c, DMM_EV_ERROR);
	}
}

/* The caller has taken its last event. In TIME-WAIT the wire is not done yet. */
static void let_go(struct dmm_net_conn *c)
{
	struct dmm_net *net = c->net;

	no_event(c);
	c->orphan = true;
	if (c->state != NET_TIME_WAIT) {
		net_conn_free(c);
		return;
	}
	net_stream_clear(&c->rx, &net->chunks);
	c->waits = true;
	net->stats.time_wait++;
	TAILQ_INSERT_TAIL(&net->waiting, c, wait_link);
	if (net->stats.time_wait > net->conns.count - net->max_conns)
		net_conn_free(TAILQ_FIRST(&net->waiting));
}

bool dmm_net_event(struct dmm_net *net, struct dmm_net_event *ret)
{
	struct dmm_net_conn *c = TAILQ_FIRST(&net->events);
	const uint32_t last = DMM_EV_ERROR | DMM_EV_CLOSED;

	if (!c)
		return false;
	*ret = (struct dmm_net_event){ .conn = c, .user = c->user };
	/* one after the other: that it exists, what came, that it ended */
	if (c->events & DMM_NET_ACCEPTED) {
		ret->events = DMM_NET_ACCEPTED;
		c->told = true;
		c->listener = NULL;
	} else if (c->events & ~last) {
		ret->events = c->events & ~last;
	} else {
		ret->events = c->events;
		ret->err = c->events & DMM_EV_ERROR ? c->err : 0;
	}
	c->events &= ~ret->events;
	if (ret->events & last) {
		let_go(c);
	} else if (!c->events) {
		no_event(c);
	}
	return true;
}

/* --- packets --- */

void dmm_net_input(struct dmm_net *net, const void *data, uint32_t len, uint64_t now)
{
	struct net_fragment fragment;
	struct net_packet packet;

	net->now = now;
	net->stats.packets_in++;
	switch (net_ip_parse(net, data, len, &packet, &fragment)) {
	case NET_VERDICT_DROP:
		return;
	case NET_VERDICT_FRAGMENT:
		if (!net_fragment(net, &packet, &fragment) || !net_ip_inside(net, &packet))
			return;
		break;
	case NET_VERDICT_WHOLE:
		break;
	}
	if (packet.proto == NET_PROTO_TCP)
		net_tcp_input(net, &packet);
	else if (packet.proto == NET_PROTO_UDP)
		net_udp_input(net, &packet);
	else if (packet.proto == (packet.v4 ? NET_PROTO_ICMP : NET_PROTO_ICMP6))
		net_icmp_input(net, &packet);
	else
		net->stats.other_proto++;
}

/* Connections take turns, so that one with much to send does not hold up the others. */
static uint32_t output_of_next(struct dmm_net *net, uint8_t *p, uint32_t room)
{
	struct dmm_net_conn *c;
	uint32_t len;

	while ((c = TAILQ_FIRST(&net->output))) {
		if (!net->turn)
			net->turn = TURN;
		len = net_tcp_output(c, p, room);
		if (!len) {
			if (c == TAILQ_FIRST(&net->output))
				no_output(c);
			continue;
		}
		if (--net->turn == 0 && c == TAILQ_FIRST(&net->output)) {
			TAILQ_REMOVE(&net->output, c, output_link);
			TAILQ_INSERT_TAIL(&net->output, c, output_link);
		}
		return len;
	}
	return 0;
}

/* As do all of them and UDP. */
static uint32_t output_of_either(struct dmm_net *net, uint8_t *p, uint32_t room)
{
	uint32_t i, len;

	for (i = 0; i < 2; i++) {
		if (!net->kind_turn) {
			net->udp_next = !net->udp_next;
			net->kind_turn = TURN;
		}
		len = net->udp_next ? net_udp_output(net, p, room) : output_of_next(net, p, room);
		if (len) {
			net->kind_turn--;
			return len;
		}
		net->kind_turn = 0;
	}
	return 0;
}

uint32_t dmm_net_output(struct dmm_net *net, void *buf, uint32_t room, uint64_t now)
{
	uint32_t len;

	net->now = now;
	len = net_reply_output(net, buf, room);
	if (!len)
		len = output_of_either(net, buf, room);
	net->stats.packets_out += len > 0;
	return len;
}

bool dmm_net_has_output(const struct dmm_net *net)
{
	return net->n_replies || !TAILQ_EMPTY(&net->output) || !TAILQ_EMPTY(&net->udp_output);
}

void dmm_net_tick(struct dmm_net *net, uint64_t now)
{
	struct net_timer *timer;

	net->now = now;
	while ((timer = net_wheel_expire(&net->wheel, now)))
		net_timers_run((void *)((uint8_t *)timer - offsetof(struct dmm_net_conn, timer)));
	if (net->fragments_until && net->fragments_until <= now)
		net_fragments_expire(net);
}

uint64_t dmm_net_deadline(const struct dmm_net *net)
{
	const uint64_t timers = net_wheel_next(&net->wheel), fragments = net->fragments_until;

	return fragments && fragments < timers ? fragments : timers;
}

void dmm_net_icmp(struct dmm_net *net, const struct dmm_icmp *error, uint64_t now)
{
	net->now = now;
	net_icmp_error(net, error);
}

void dmm_net_get_stats(const struct dmm_net *net, struct dmm_net_stats *ret)
{
	*ret = net->stats;
	ret->memory = (uint64_t)net->chunks.used * sizeof(struct net_chunk) +
		      (uint64_t)net->sents.used * sizeof(struct net_sent) +
		      (uint64_t)net->ranges.used * sizeof(struct net_range) +
		      (uint64_t)net->datagrams.used * sizeof(struct net_datagram) +
		      (uint64_t)net->conns.used * sizeof(struct dmm_net_conn);
}
