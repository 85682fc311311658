// SPDX-License-Identifier: Apache-2.0
/* Two native engines on a link of a simulated clock. */
#include "netsim_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"

#define NEVER	    UINT64_MAX
#define PERIOD	    65521u
#define MAX_DRAINED 100000u /* packets at once; it would never end */
#define MAX_TOLD    20u	    /* violations of one world */
#define MIN_RTO	    (200 * NETSIM_MS)
#define MAX_RTO	    (120 * NETSIM_SEC)

void netsim_violation(struct netsim *sim, const char *what)
{
	if (sim->violations++ < MAX_TOLD)
		fprintf(stderr, "# seed %llu at %.3f ms: %s\n",
			(unsigned long long)sim->params.seed, (double)sim->now / 1e6, what);
}

uint64_t netsim_roll(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * 0x2545f4914f6cdd1d;
}

uint64_t netsim_random(struct netsim *sim)
{
	return netsim_roll(&sim->random);
}

bool netsim_chance(struct netsim *sim, uint32_t per_mille)
{
	return per_mille && (netsim_random(sim) >> 20) % 1000 < per_mille;
}

/* --- users --- */

/* A period that no buffer or segment divides. */
static const uint8_t *pattern(unsigned int side, uint64_t at, uint64_t *len)
{
	static uint8_t bytes[PERIOD];
	const uint64_t from = (at + side * 4099) % PERIOD;
	uint32_t i;

	for (i = 0; !bytes[PERIOD - 1] && i < PERIOD; i++) /* the last one is not 0 */
		bytes[i] = (uint8_t)((i + 1) * 2654435761u >> 13);
	*len = DMM_MIN(*len, PERIOD - from);
	return bytes + from;
}

static bool is_pattern(unsigned int side, uint64_t at, const uint8_t *p, uint64_t len)
{
	while (len) {
		uint64_t n = len;
		const uint8_t *want = pattern(side, at, &n);

		if (memcmp(p, want, n) != 0)
			return false;
		p += n;
		at += n;
		len -= n;
	}
	return true;
}

/* Also asks for more than it writes. */
static ssize_t send_in_place(struct dmm_net_conn *conn, const uint8_t *from, uint64_t len)
{
	struct iovec iov[32];
	unsigned int n = dmm_net_send_reserve(conn, len + 5000, iov, DMM_ARRAY_SIZE(iov)), i;
	uint64_t put = 0;

	for (i = 0; i < n && put < len; i++) {
		const uint64_t part = DMM_MIN(iov[i].iov_len, len - put);

		memcpy(iov[i].iov_base, from + put, part);
		put += part;
	}
	if (n)
		dmm_net_send_done(conn, put);
	return (ssize_t)put;
}

static void send_some(struct netsim_conn *c)
{
	const uint8_t *from;
	bool in_place;
	uint64_t want;
	ssize_t n;

	while (c->conn && c->connected && !c->shut && !c->blocked && c->sent < c->to_send) {
		want = DMM_MIN(c->to_send - c->sent, c->chunk ? c->chunk : 65536u);
		from = pattern(c->side, c->sent, &want);
		c->sim->side[c->side].touched = true;
		in_place = c->sent / 512 % 2;
		n = in_place ? send_in_place(c->conn, from, want)
			     : dmm_net_send(c->conn, from, want);
		if (n < 0) { /* it may have been reset, and its events tell one after the other */
			if (!c->may_fail)
				netsim_violation(c->sim, "send() fails on an open connection");
			return;
		}
		c->sent += (uint64_t)n;
		c->blocked = in_place ? n == 0 : (uint64_t)n < want;
	}
}

static void read_some(struct netsim_conn *c)
{
	struct iovec iov[4];
	unsigned int n, i;
	size_t got;

	while (c->conn && c->connected && (n = dmm_net_recv_peek(c->conn, iov, 4))) {
		for (got = 0, i = 0; i < n; i++) {
			if (!is_pattern(!c->side, c->received + got, iov[i].iov_base,
					iov[i].iov_len)) {
				netsim_violation(c->sim, "a byte is another");
				return;
			}
			got += iov[i].iov_len;
		}
		c->sim->side[c->side].touched = true;
		c->received += got;
		dmm_net_recv_done(c->conn, got);
	}
}

static void use(struct netsim_conn *c)
{
	if (!c->conn || c->hold)
		return;
	if (c->keep_alive) {
		dmm_net_set_option(c->conn, DMM_NET_KEEPALIVE, (int)c->keep_alive);
		c->keep_alive = 0;
	}
	if (c->patient) {
		c->patient = false;
		dmm_net_set_option(c->conn, DMM_NET_USER_TIMEOUT, 3600 * 1000);
	}
	send_some(c);
	if (c->sim->now >= c->slow_until)
		read_some(c);
	if (!c->connected || c->keep_open || c->sim->now < c->slow_until)
		return;
	if (c->sent == c->to_send && !c->shut) {
		c->shut = true;
		c->sim->side[c->side].touched = true;
		dmm_net_shutdown(c->conn);
	}
	if (c->shut && c->eof && !c->closing && !dmm_net_unsent(c->conn)) {
		if (c->received != c->expect)
			netsim_violation(c->sim, "it ended with another number of bytes");
		c->closing = c->sim->side[c->side].touched = true;
		dmm_net_close(c->conn);
	}
}

static void add_conn(struct netsim *sim, struct netsim_conn *c)
{
	unsigned int i;

	for (i = 0; i < sim->n_conns && sim->conns[i] != c; i++)
		;
	if (i == sim->n_conns && i < DMM_ARRAY_SIZE(sim->conns))
		sim->conns[sim->n_conns++] = c;
}

static void accept_one(struct netsim *sim, unsigned int side, struct dmm_net_conn *conn)
{
	struct side *s = &sim->side[side];
	struct netsim_conn *c;

	if (s->n_accepted == NETSIM_MAX_ACCEPTED) {
		dmm_net_abort(conn);
		return;
	}
	c = malloc(sizeof(*c));
	*c = s->accept;
	c->sim = sim;
	c->side = side;
	c->conn = conn;
	c->connected = true;
	c->moved_at = sim->now;
	s->accepted[s->n_accepted++] = c;
	add_conn(sim, c);
	dmm_net_set_user(conn, c);
}

/* When nothing has come through for a minute the other side may be done with the connection, by the rules:
 * it has given up a handshake, or its TIME-WAIT is over while our last bytes waited for its ACK. */
static bool is_outage(const struct netsim_conn *c, int err)
{
	return err == ECONNRESET && c->silence >= 60 * NETSIM_SEC;
}

static void note_silence(struct netsim_conn *c)
{
	c->silence = DMM_MAX(c->silence, c->sim->now - c->moved_at);
	c->moved_at = c->sim->now;
}

static void on_event(struct netsim *sim, unsigned int side, const struct dmm_net_event *ev)
{
	struct netsim_conn *c = ev->user;

	if (ev->events == DMM_NET_ACCEPTED) {
		accept_one(sim, side, ev->conn);
		return;
	}
	if (!c) /* a listener */
		return;
	sim->side[side].touched = true;
	if (ev->conn != c->conn)
		netsim_violation(sim, "an event for a handle that is dead");
	note_silence(c);
	c->events |= ev->events;
	c->connected |= (ev->events & DMM_EV_CONNECTED) != 0;
	if (ev->events & DMM_EV_WRITABLE)
		c->blocked = false;
	if ((ev->events & DMM_EV_EOF) && c->eof)
		netsim_violation(sim, "two ends");
	c->eof |= (ev->events & DMM_EV_EOF) != 0;
	if (ev->events & DMM_EV_ERROR) {
		c->err = ev->err;
		c->conn = NULL;
		if (is_outage(c, ev->err)) {
			sim->seen.outages++;
			c->closed = true;
		} else if (!c->may_fail) {
			netsim_violation(sim, strerror(ev->err));
		}
	}
	if (ev->events & DMM_EV_CLOSED) {
		if (!c->closing)
			netsim_violation(sim, "closed by itself");
		c->closed = true;
		c->conn = NULL;
	}
	use(c);
}

static void events(struct netsim *sim)
{
	struct dmm_net_event ev;
	unsigned int i;

	for (i = 0; i < 2; i++)
		while (dmm_net_event(sim->side[i].net, &ev))
			on_event(sim, i, &ev);
}

/* --- what must always hold --- */

static bool same_ends(const struct netsim_conn *c, const struct dmm_endpoint *local,
		      const struct dmm_endpoint *remote)
{
	struct dmm_endpoint l, r;

	dmm_net_endpoints(c->conn, &l, &r);
	return memcmp(&l, local, sizeof(l)) == 0 && memcmp(&r, remote, sizeof(r)) == 0;
}

static struct netsim_conn *conn_of(struct netsim *sim, unsigned int side,
				   const struct dmm_endpoint *local,
				   const struct dmm_endpoint *remote)
{
	unsigned int i;

	for (i = 0; i < sim->n_conns; i++)
		if (sim->conns[i]->conn && sim->conns[i]->side == side &&
		    same_ends(sim->conns[i], local, remote))
			return sim->conns[i];
	return NULL;
}

static struct netsim_conn *peer_of(struct netsim *sim, struct netsim_conn *c)
{
	struct dmm_endpoint local, remote;

	if (!c->peer) {
		dmm_net_endpoints(c->conn, &local, &remote);
		c->peer = conn_of(sim, !c->side, &remote, &local);
	}
	return c->peer && c->peer->conn ? c->peer : NULL;
}

/* What is true of each moment. */
static void check_state(struct netsim *sim, struct netsim_conn *c)
{
	const struct dmm_net_info *info = &c->info;
	const struct dmm_net_config *config = &sim->side[c->side].config;

	c->most_held = DMM_MAX(c->most_held, info->unread + info->held);
	/* a little more: windows are rounded up to what their scale can tell (RFC 7323 2.4) */
	if (info->unread + info->held > config->receive_buffer + config->receive_buffer / 8)
		netsim_violation(sim, "more is held than the buffer is large");
	if (dmm_net_unsent(c->conn) > config->send_buffer)
		netsim_violation(sim, "more waits to be sent than the buffer is large");
	if ((int32_t)(info->snd_nxt - info->snd_una) < 0)
		netsim_violation(sim, "snd_nxt is before snd_una");
	if (c->watched && (int32_t)(info->snd_nxt - info->snd_edge) > 2) /* a probe and a FIN */
		netsim_violation(sim, "more is sent than the window allows");
	if (c->watched && (info->rto < MIN_RTO || info->rto > MAX_RTO || info->cwnd < info->mss ||
			   info->ssthresh < info->mss))
		netsim_violation(sim, "a timeout or a window beyond its bounds");
	if (!info->sound)
		netsim_violation(sim, "what is on its way is not what was counted");
}

/* What only grows; and what was sent in this step, though no probe, had room in the window of
 * congestion. */
static void check_change(struct netsim *sim, const struct dmm_net_info *was,
			 const struct dmm_net_info *is, bool probed)
{
	if ((int32_t)(is->snd_una - was->snd_una) < 0 || (int32_t)(is->snd_nxt - was->snd_nxt) < 0)
		netsim_violation(sim, "a number of the sender goes back");
	if ((int32_t)(is->rcv_nxt - was->rcv_nxt) < 0)
		netsim_violation(sim, "what was received is taken back");
	if ((int32_t)(is->rcv_edge - was->rcv_edge) < 0)
		netsim_violation(sim, "the window was taken back");
	if (is->snd_nxt != was->snd_nxt && !probed && is->in_flight > is->cwnd + is->mss)
		netsim_violation(sim, "more is on its way than congestion allows");
}

/* What is true of both ends together. */
static void check_pair(struct netsim *sim, const struct netsim_conn *c, const struct netsim_conn *o)
{
	if (!c->watched || !o->watched)
		return;
	if ((int32_t)(o->info.rcv_nxt - c->info.snd_nxt) > 0)
		netsim_violation(sim, "more was received than sent");
	if ((int32_t)(c->info.snd_una - o->info.rcv_nxt) > 0)
		netsim_violation(sim, "more is acknowledged than was received");
	if ((int32_t)(c->info.snd_edge - o->info.rcv_edge) > 0)
		netsim_violation(sim, "the sender believes in a larger window than there is");
}

static void check_conn(struct netsim *sim, struct netsim_conn *c, bool probed)
{
	const struct dmm_net_info was = c->info;
	struct netsim_conn *o;

	dmm_net_get_info(c->conn, &c->info);
	if (c->watched)
		check_change(sim, &was, &c->info, probed);
	c->watched = c->connected && strcmp(c->info.state, "CLOSED") != 0;
	check_state(sim, c);
	o = c->watched ? peer_of(sim, c) : NULL;
	if (!o)
		return;
	check_pair(sim, c, o);
	check_pair(sim, o, c);
}

/* An engine that nothing was done to is as it was when it was looked at last. */
static void check(struct netsim *sim)
{
	struct dmm_net_stats stats;
	bool probed[2] = { false };
	unsigned int i;

	for (i = 0; i < 2; i++) {
		if (!sim->side[i].touched)
			continue;
		dmm_net_get_stats(sim->side[i].net, &stats);
		stats.tlp += stats.rto + stats.zero_window_probes;
		probed[i] = stats.tlp != sim->side[i].probes;
		sim->side[i].probes = stats.tlp;
	}
	for (i = 0; i < sim->n_conns; i++) {
		struct netsim_conn *c = sim->conns[i];

		if (c->conn && sim->side[c->side].touched)
			check_conn(sim, c, probed[c->side]);
	}
	sim->side[0].touched = sim->side[1].touched = false;
}

/* --- time --- */

static void drain(struct netsim *sim, unsigned int i)
{
	struct packet *p;
	uint32_t n;

	for (n = 0; n < MAX_DRAINED; n++) {
		p = netsim_packet(sim);
		p->len = dmm_net_output(sim->side[i].net, p->data, sizeof(p->data), sim->now);
		if (!p->len) {
			netsim_packet_free(sim, p);
			return;
		}
		sim->side[i].touched = true;
		netsim_transmit(sim, i, p);
	}
	netsim_violation(sim, "it sends for ever");
}

static void settle(struct netsim *sim)
{
	unsigned int i;

	events(sim);
	for (i = 0; i < sim->n_conns; i++)
		use(sim->conns[i]);
	events(sim);
	for (i = 0; i < 2; i++)
		drain(sim, i);
	check(sim);
}

static uint64_t next_wake(const struct netsim *sim)
{
	uint64_t at = NEVER;
	unsigned int i;

	for (i = 0; i < sim->n_conns; i++)
		if (sim->conns[i]->conn && sim->conns[i]->slow_until > sim->now)
			at = DMM_MIN(at, sim->conns[i]->slow_until);
	for (i = 0; i < 2; i++)
		at = DMM_MIN(at, dmm_net_deadline(sim->side[i].net));
	return at;
}

/* Behind @p comes a segment of someone who has guessed the window but not the number (RFC 5961): it
 * changes nothing. */
static bool is_whole_tcp(const struct packet *p)
{
	const uint8_t *d = p->data;

	return d[0] >> 4 == 6 ? d[6] == 6 : d[0] == 0x45 && d[9] == 6 && !(d[6] & 0x3f) && !d[7];
}

static void forge(struct netsim *sim, unsigned int to, struct packet *p)
{
	struct dmm_endpoint local = netsim_endpoint(sim, to, 0),
			    remote = netsim_endpoint(sim, !to, 0);
	const uint8_t *tcp = p->data + netsim_ip_header(p);
	const bool syn = netsim_random(sim) % 2;
	struct netsim_conn *c;
	struct dmm_net_info info;

	memcpy(&remote.port, tcp, 2);
	memcpy(&local.port, tcp + 2, 2);
	c = conn_of(sim, to, &local, &remote);
	if (!c || !c->connected)
		return;
	dmm_net_get_info(c->conn, &info);
	if (info.rcv_edge - info.rcv_nxt < 2 || strcmp(info.state, "CLOSED") == 0 ||
	    strcmp(info.state, "TIME_WAIT") == 0) /* a SYN may end that */
		return;
	netsim_make_bare(
		p, syn ? 0x02 : 0x04,
		info.rcv_nxt + 1 +
			(uint32_t)(netsim_random(sim) % (info.rcv_edge - info.rcv_nxt - 1)));
	sim->seen.forged_syns += syn;
	sim->seen.forged_resets += !syn;
	dmm_net_input(sim->side[to].net, p->data, p->len, sim->now);
}

static void arrive(struct netsim *sim)
{
	const struct flying f = netsim_land(sim);
	struct packet *p = f.packet;

	sim->side[f.to].touched = true;
	dmm_net_input(sim->side[f.to].net, p->data, p->len, sim->now);
	if (netsim_chance(sim, sim->params.link[!f.to].forge) && is_whole_tcp(p))
		forge(sim, f.to, p);
	netsim_packet_free(sim, p);
}

bool netsim_step(struct netsim *sim)
{
	uint64_t at;
	unsigned int i;

	settle(sim);
	at = DMM_MIN(next_wake(sim), sim->n_flying ? sim->heap[0].at : NEVER);
	if (at == NEVER)
		return false;
	sim->now = DMM_MAX(sim->now, at);
	while (sim->n_flying && sim->heap[0].at <= sim->now)
		arrive(sim);
	for (i = 0; i < 2; i++) {
		struct dmm_net *net = sim->side[i].net;

		if (dmm_net_deadline(net) > sim->now)
			continue;
		sim->side[i].touched = true;
		dmm_net_tick(net, sim->now);
		if (dmm_net_deadline(net) <= sim->now)
			netsim_violation(sim, "a timer that is due does not run");
	}
	return true;
}

bool netsim_run(struct netsim *sim, uint64_t for_ns)
{
	const uint64_t until = sim->now + for_ns;

	while (sim->now < until)
		if (!netsim_step(sim))
			return true;
	return false;
}

bool netsim_until(struct netsim *sim, const bool *flag, uint64_t for_ns)
{
	const uint64_t until = sim->now + for_ns;

	settle(sim);
	while (!*flag && sim->now < until && netsim_step(sim))
		;
	settle(sim);
	return *flag;
}

/* --- life --- */

static void set_default(uint32_t *value, uint32_t to)
{
	if (!*value)
		*value = to;
}

/* Worlds come one after the other: the memory of the last ones serves again. It is dirty, as an
 * engine's may be. */
static struct netsim *last_sim;
static struct memory {
	void *at;
	size_t len;
} last_memory[2];

static void *get_memory(size_t len, size_t *ret_len)
{
	struct memory *m = last_memory[0].at ? &last_memory[0] : &last_memory[1];
	void *at = m->at;

	*ret_len = m->len;
	m->at = NULL;
	if (at && *ret_len >= len)
		return at;
	if (at)
		munmap(at, *ret_len);
	*ret_len = len;
	at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		abort();
	return at;
}

static void put_memory(void *at, size_t len)
{
	struct memory *m = last_memory[0].at ? &last_memory[1] : &last_memory[0];

	if (m->at)
		munmap(at, len);
	else
		*m = (struct memory){ at, len };
}

static void open_side(struct netsim *sim, unsigned int i)
{
	const struct dmm_endpoint ep = netsim_endpoint(sim, i, 0);
	struct side *s = &sim->side[i];
	struct dmm_net_config *config = &s->config;
	unsigned int j;

	*config = sim->params.config[i];
	set_default(&config->mtu, 1500);
	set_default(&config->max_conns, 64);
	set_default(&config->max_time_wait, 64);
	set_default(&config->send_buffer, 256 << 10);
	set_default(&config->receive_buffer, 256 << 10);
	if (!config->buffer_memory)
		config->buffer_memory = 8 << 20;
	config->max_addrs = 4;
	config->n_addrs = 1;
	config->addrs = (const uint8_t(*)[16]) & ep.addr;
	for (j = 0; j < sizeof(config->secret); j++)
		config->secret[j] = (uint8_t)netsim_random(sim);
	s->memory = get_memory(dmm_net_memory(config), &s->memory_len);
	if (dmm_net_create(config, s->memory, sim->now, &s->net) < 0)
		abort();
	config->addrs = NULL; /* they were ours */
}

struct netsim *netsim_new(const struct netsim_params *params)
{
	struct netsim *sim = last_sim ? last_sim : calloc(1, sizeof(*sim));
	struct packet *packets;
	unsigned int i;

	if (!sim)
		abort();
	last_sim = NULL;
	packets = sim->free;
	memset(sim, 0, offsetof(struct netsim, heap));
	sim->free = packets;
	sim->params = *params;
	sim->traces = getenv("TRACE") != NULL;
	sim->random = params->seed * 0x9e3779b97f4a7c15 + 0x123456789;
	sim->begin = sim->now = netsim_random(sim) % (1000000 * NETSIM_SEC);
	for (i = 0; i < 2; i++)
		open_side(sim, i);
	return sim;
}

static void free_sim(struct netsim *sim)
{
	struct packet *p;

	while ((p = sim->free)) {
		sim->free = p->next;
		free(p);
	}
	free(sim);
}

static void check_pools(struct netsim *sim, unsigned int i)
{
	struct dmm_net_stats stats;
	struct dmm_net_event ev;

	while (dmm_net_event(sim->side[i].net, &ev))
		;
	/* TIME-WAIT goes by itself */
	dmm_net_tick(sim->side[i].net, sim->now + 1000 * NETSIM_SEC);
	dmm_net_get_stats(sim->side[i].net, &stats);
	if (stats.conns || stats.listeners || stats.time_wait || stats.half_open)
		netsim_violation(sim, "connections are left");
	if (stats.memory)
		netsim_violation(sim, "memory is left");
}

unsigned int netsim_end(struct netsim *sim)
{
	unsigned int i, violations;

	for (i = 0; i < sim->n_conns; i++)
		if (sim->conns[i]->conn)
			dmm_net_abort(sim->conns[i]->conn);
	for (i = 0; i < 2; i++) {
		netsim_unlisten(sim, i);
		check_pools(sim, i);
		put_memory(sim->side[i].memory, sim->side[i].memory_len);
		while (sim->side[i].n_accepted)
			free(sim->side[i].accepted[--sim->side[i].n_accepted]);
	}
	while (sim->n_flying)
		netsim_packet_free(sim, sim->heap[--sim->n_flying].packet);
	violations = sim->violations;
	if (last_sim)
		free_sim(sim);
	else
		last_sim = sim;
	return violations;
}

struct dmm_net *netsim_engine(struct netsim *sim, unsigned int side)
{
	return sim->side[side].net;
}

struct netsim_link *netsim_link(struct netsim *sim, unsigned int from)
{
	return &sim->params.link[from];
}

uint64_t netsim_now(const struct netsim *sim)
{
	return sim->now;
}

const struct netsim_seen *netsim_seen(const struct netsim *sim)
{
	return &sim->seen;
}

void netsim_set_tap(struct netsim *sim, netsim_tap tap, void *arg)
{
	sim->tap = tap;
	sim->tap_arg = arg;
}

struct dmm_endpoint netsim_endpoint(const struct netsim *sim, unsigned int side, uint16_t port)
{
	struct dmm_endpoint ep = { .port = htons(port) };

	if (sim->params.v6)
		memcpy(ep.addr, (const uint8_t[16]){ 0xfd, 9, [15] = (uint8_t)(side + 1) }, 16);
	else
		memcpy(ep.addr,
		       (const uint8_t[16]){ [10] = 0xff, 0xff, 10, 9, 0, (uint8_t)(side + 1) }, 16);
	return ep;
}

int netsim_listen(struct netsim *sim, unsigned int side, uint16_t port, int backlog,
		  const struct netsim_conn *accepted)
{
	const struct dmm_endpoint local = netsim_endpoint(sim, side, port);

	sim->side[side].accept = *accepted;
	return dmm_net_listen(sim->side[side].net, &local, backlog, NULL,
			      &sim->side[side].listener);
}

void netsim_unlisten(struct netsim *sim, unsigned int side)
{
	if (sim->side[side].listener)
		dmm_net_close(sim->side[side].listener);
	sim->side[side].listener = NULL;
}

int netsim_connect(struct netsim *sim, unsigned int side, uint16_t local_port, uint16_t port,
		   struct netsim_conn *c)
{
	const struct dmm_endpoint local = netsim_endpoint(sim, side, local_port),
				  remote = netsim_endpoint(sim, !side, port);
	int r;

	c->sim = sim;
	c->side = side;
	c->moved_at = sim->now;
	r = dmm_net_connect(sim->side[side].net, &local, &remote, c, sim->now, &c->conn);
	if (r < 0)
		c->conn = NULL;
	else
		add_conn(sim, c);
	return r;
}

struct netsim_conn *netsim_accepted(struct netsim *sim, unsigned int side)
{
	const struct side *s = &sim->side[side];

	return s->n_accepted ? s->accepted[s->n_accepted - 1] : NULL;
}

unsigned int netsim_n_accepted(const struct netsim *sim, unsigned int side)
{
	return sim->side[side].n_accepted;
}

void netsim_abort(struct netsim *sim, unsigned int side)
{
	unsigned int i;

	for (i = 0; i < sim->n_conns; i++) {
		struct netsim_conn *c = sim->conns[i];

		if (c->conn && c->side == side)
			dmm_net_abort(c->conn);
		if (c->side == side)
			c->conn = NULL;
	}
}

bool netsim_all_closed(const struct netsim *sim)
{
	unsigned int i;

	for (i = 0; i < sim->n_conns; i++)
		if (sim->conns[i]->conn)
			return false;
	return true;
}

void netsim_inject(struct netsim *sim, unsigned int to, const void *packet, uint32_t len)
{
	sim->side[to].touched = true;
	dmm_net_input(sim->side[to].net, packet, len, sim->now);
	settle(sim);
}
