// SPDX-License-Identifier: Apache-2.0
/* The engine of a script. */
#include "rig.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#define OUR_PORT   80
#define FIRST_PORT 1000
#define START	   1000000000000ull
#define WAITS	   300000000000ull

static struct dmm_endpoint endpoint(bool v6, uint8_t last, unsigned int port)
{
	struct dmm_endpoint ep = { .addr = { [10] = 0xff, 0xff, 10, 0, 0, last },
				   .port = htons((uint16_t)port) };

	if (v6)
		ep = (struct dmm_endpoint){ .addr = { [0] = 0xfd, [15] = last },
					    .port = htons((uint16_t)port) };
	return ep;
}

static uint32_t our_isn(void *owner, const struct dmm_endpoint *local,
			const struct dmm_endpoint *remote)
{
	const struct rig *r = owner;
	const unsigned int i = ntohs(remote->port) - FIRST_PORT;

	(void)local;
	return i < RIG_PEERS ? r->peers[i].our_isn : 0;
}

void rig_init(struct rig *r)
{
	unsigned int i;

	*r = (struct rig){ .now = START };
	r->config = (struct dmm_net_config){ .mtu = 1500,
					     .n_addrs = 2,
					     .max_addrs = 4,
					     .max_conns = 32,
					     .max_time_wait = 8,
					     .send_buffer = 1 << 20,
					     .receive_buffer = 65535,
					     .buffer_memory = 2 << 20,
					     .no_pacing = true,
					     .secret = "not so secret" };
	for (i = 0; i < RIG_PEERS; i++) {
		r->peers[i].isn = 1000000 + i;
		r->peers[i].our_isn = 7000000 + i;
	}
	r->peer = r->peers;
}

bool rig_create(struct rig *r)
{
	const size_t size = dmm_net_memory(&r->config);
	unsigned int i;

	r->ours = endpoint(r->v6, 1, OUR_PORT);
	for (i = 0; i < RIG_PEERS; i++)
		r->peers[i].end = endpoint(r->v6, 2, FIRST_PORT + i);
	memcpy(r->addrs[0], r->ours.addr, 16);
	memcpy(r->addrs[1], r->ours.addr, 16);
	r->addrs[1][15] = 3;
	r->config.addrs = (const uint8_t(*)[16])r->addrs;
	r->config.owner = r;
	r->config.isn = r->own_isn ? NULL : our_isn;
	if (!size || r->config.mtu > RIG_MTU)
		return false;
	r->out = calloc(RIG_OUT, sizeof(*r->out));
	r->memory = aligned_alloc(64, size);
	if (!r->memory || !r->out)
		return false;
	memset(r->memory, 0, size);
	return dmm_net_create(&r->config, r->memory, r->now, &r->net) == 0;
}

void rig_free(struct rig *r)
{
	free(r->memory);
	free(r->out);
}

static void take_event(struct rig *r, const struct dmm_net_event *ev)
{
	struct rig_peer *p = ev->user;
	struct dmm_endpoint local, remote;

	if (ev->events == DMM_NET_ACCEPTED) {
		dmm_net_endpoints(ev->conn, &local, &remote);
		p = &r->peers[(ntohs(remote.port) - FIRST_PORT) % RIG_PEERS];
		dmm_net_set_user(ev->conn, p);
		p->conn = ev->conn;
		p->sent = p->received = 0;
	}
	if (!p) /* the listener's */
		return;
	if (p->n_events < RIG_EVENTS)
		p->events[p->n_events++] = (struct rig_event){ ev->events, ev->err };
	if (ev->events & (DMM_EV_ERROR | DMM_EV_CLOSED))
		p->conn = NULL;
}

/* The numbers that its peer's begin to count from. */
static void learn(struct rig *r, const uint8_t *packet, uint32_t len)
{
	struct rig_peer *p = &r->peers[(wire_remote_port(packet, true) - FIRST_PORT) % RIG_PEERS];
	struct wire_segment s;
	uint32_t i;

	wire_parse(packet, len, 0, &s);
	if (!(s.flags & WIRE_SYN))
		return;
	p->our_isn = s.seq;
	for (i = 0; i < s.options_len && s.options[i];
	     i += s.options[i] == 1 || s.options[i + 1] < 2 ? 1 : s.options[i + 1]) {
		if (s.options[i] != 8 || p->clock_known)
			continue;
		p->our_clock = (uint32_t)s.options[i + 2] << 24 | (uint32_t)s.options[i + 3] << 16 |
			       (uint32_t)s.options[i + 4] << 8 | s.options[i + 5];
		p->clock_known = true;
	}
}

static void check_sound(struct rig *r)
{
	struct dmm_net_info info;
	unsigned int i;

	for (i = 0; i < RIG_PEERS; i++) {
		if (!r->peers[i].conn)
			continue;
		dmm_net_get_info(r->peers[i].conn, &info);
		if (!info.sound)
			r->wrong = "a connection's counts are not those of its lists";
	}
}

void rig_settle(struct rig *r)
{
	struct dmm_net_event ev;
	struct rig_packet *out;
	uint32_t len;

	while (dmm_net_event(r->net, &ev))
		take_event(r, &ev);
	while (!r->wrong) {
		out = &r->out[(r->out_head + r->n_out) % RIG_OUT];
		len = dmm_net_output(r->net, out->bytes, RIG_MTU, r->now);
		if (!len)
			break;
		out->at = r->now;
		out->len = len;
		learn(r, out->bytes, len);
		if (r->n_out == RIG_OUT - 1)
			r->wrong = "more leaves than a script can look at";
		else
			r->n_out++;
	}
	check_sound(r);
}

void rig_run(struct rig *r, uint64_t until)
{
	for (rig_settle(r); !r->n_out && !r->wrong && r->now < until; rig_settle(r)) {
		const uint64_t next = dmm_net_deadline(r->net);

		if (next > r->now)
			r->now = next < until ? next : until;
		dmm_net_tick(r->net, r->now);
		if (dmm_net_deadline(r->net) <= r->now)
			r->wrong = "the engine wants a tick that it has had";
	}
}

void rig_put(struct rig *r, const void *packet, size_t len)
{
	dmm_net_input(r->net, packet, (uint32_t)len, r->now);
}

const struct rig_packet *rig_first(const struct rig *r)
{
	return r->n_out ? &r->out[r->out_head] : NULL;
}

void rig_drop_first(struct rig *r)
{
	r->out_head = (r->out_head + 1) % RIG_OUT;
	r->n_out--;
}

bool rig_end(struct rig *r)
{
	const uint64_t until = r->now + WAITS;
	struct dmm_net_stats stats;
	unsigned int i;

	for (i = 0; i < RIG_PEERS; i++) {
		if (r->peers[i].conn)
			dmm_net_abort(r->peers[i].conn);
		r->peers[i].conn = NULL;
	}
	if (r->listener)
		dmm_net_abort(r->listener);
	while (r->now < until && !r->wrong) { /* TIME-WAIT */
		rig_run(r, until);
		while (r->n_out)
			rig_drop_first(r);
	}
	dmm_net_get_stats(r->net, &stats);
	return !stats.conns && !stats.half_open && !stats.time_wait && !stats.memory;
}

const char *rig_state(const struct rig *r)
{
	struct dmm_net_stats stats;
	struct dmm_net_info info;

	if (r->peer->conn) {
		dmm_net_get_info(r->peer->conn, &info);
		return info.state;
	}
	/* nobody holds it */
	dmm_net_get_stats(r->net, &stats);
	return stats.half_open	 ? "SYN_RCVD"
	       : stats.time_wait ? "TIME_WAIT"
	       : r->listener	 ? "LISTEN"
				 : "CLOSED";
}
