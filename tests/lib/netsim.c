// SPDX-License-Identifier: Apache-2.0
/* Two native engines on a link of a simulated clock. */
#include "netsim.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"

#define MAX_FLYING   8192
#define MAX_ACCEPTED 64
#define NEVER	     UINT64_MAX
#define MAX_JUMBO    9216
#define PERIOD	     65521u

struct flying {
	uint64_t at, order; /* the heap is by these */
	unsigned int to;
	uint32_t len;
	uint8_t *data;
};

struct side {
	struct dmm_net *net;
	void *memory;
	size_t memory_len;
	uint32_t mtu;
	struct dmm_net_conn *listener;
	struct netsim_conn accept;
	struct netsim_conn *accepted[MAX_ACCEPTED];
	unsigned int n_accepted;
	uint64_t free_at; /* the link's */
	uint32_t waiting;
};

struct netsim {
	struct netsim_params params;
	struct side side[2];
	struct flying heap[MAX_FLYING];
	unsigned int n_flying;
	uint64_t now, order, random;
	struct netsim_conn *conns[2 * MAX_ACCEPTED];
	unsigned int n_conns;
	netsim_tap tap;
	void *tap_arg;
	unsigned int violations;
	bool traces;
};

void netsim_violation(struct netsim *sim, const char *what)
{
	fprintf(stderr, "# seed %llu at %.3f ms: %s\n", (unsigned long long)sim->params.seed,
		(double)sim->now / 1e6, what);
	sim->violations++;
}

uint64_t netsim_random(struct netsim *sim)
{
	sim->random ^= sim->random << 13;
	sim->random ^= sim->random >> 7;
	sim->random ^= sim->random << 17;
	return sim->random * 0x2545f4914f6cdd1d;
}

static bool chance(struct netsim *sim, uint32_t per_mille)
{
	return per_mille && (netsim_random(sim) >> 20) % 1000 < per_mille;
}

/* --- packets on their way --- */

static bool before(const struct flying *a, const struct flying *b)
{
	return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void swap(struct flying *a, struct flying *b)
{
	const struct flying t = *a;

	*a = *b;
	*b = t;
}

static void fly(struct netsim *sim, unsigned int to, uint64_t at, const uint8_t *p, uint32_t len)
{
	unsigned int i = sim->n_flying;
	struct flying *f = &sim->heap[i];

	if (i == MAX_FLYING)
		return; /* lost */
	*f = (struct flying){ .at = at, .order = sim->order++, .to = to, .len = len };
	f->data = malloc(len);
	memcpy(f->data, p, len);
	sim->n_flying++;
	for (; i && before(&sim->heap[i], &sim->heap[(i - 1) / 2]); i = (i - 1) / 2)
		swap(&sim->heap[i], &sim->heap[(i - 1) / 2]);
}

static struct flying land(struct netsim *sim)
{
	struct flying first = sim->heap[0];
	unsigned int i = 0, child;

	sim->heap[0] = sim->heap[--sim->n_flying];
	while ((child = 2 * i + 1) < sim->n_flying) {
		if (child + 1 < sim->n_flying && before(&sim->heap[child + 1], &sim->heap[child]))
			child++;
		if (!before(&sim->heap[child], &sim->heap[i]))
			break;
		swap(&sim->heap[child], &sim->heap[i]);
		i = child;
	}
	return first;
}

static void too_big(struct netsim *sim, unsigned int from, const uint8_t *p, uint32_t mtu)
{
	const bool v4 = p[0] >> 4 == 4;
	const uint32_t header = v4 ? 20 : 40;
	struct dmm_icmp e = { .mtu = mtu, .err = EMSGSIZE };

	e.local = netsim_endpoint(sim, from, 0);
	e.remote = netsim_endpoint(sim, !from, 0);
	memcpy(&e.local.port, p + header, 2);
	memcpy(&e.remote.port, p + header + 2, 2);
	memcpy(&e.seq, p + header + 4, 4);
	e.seq = ntohl(e.seq);
	dmm_net_icmp(sim->side[from].net, &e, sim->now);
}

static void check_packet(struct netsim *sim, unsigned int from, const uint8_t *p, uint32_t len)
{
	const bool v4 = p[0] >> 4 == 4;
	const uint32_t header = v4 ? 20 : 40;
	const uint32_t total = v4 ? (uint32_t)(p[2] << 8 | p[3])
				  : 40u + (uint32_t)(p[4] << 8 | p[5]);
	uint32_t sum = 0, i;

	if (total != len || len > sim->side[from].mtu)
		netsim_violation(sim, "a packet of a wrong length");
	if ((v4 ? p[9] : p[6]) != 6)
		return;
	for (i = v4 ? 12 : 8; i < len; i += 2) /* addresses and all that follows */
		sum += (uint32_t)p[i] << 8 | (i + 1 < len ? p[i + 1] : 0);
	sum += 6 + len - header;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	if (sum != 0xffff)
		netsim_violation(sim, "a wrong checksum");
}

static uint64_t stalled_until(const struct netsim *sim, const struct netsim_link *l, uint64_t at)
{
	const uint64_t phase = l->stall_every ? at % l->stall_every : 0;

	(void)sim;
	return l->stall_every && phase < l->stall_for ? at - phase + l->stall_for : at;
}

/* One bit: checksums see that for sure; but that of IPv6's length together with what it cuts
 * off. */
static void corrupt(struct netsim *sim, uint8_t *p, uint32_t len)
{
	const uint32_t at = (uint32_t)(netsim_random(sim) % len);

	if (p[0] >> 4 == 4 || (at != 4 && at != 5))
		p[at] ^= (uint8_t)(1u << netsim_random(sim) % 8);
}

/* TRACE=1: what leaves, one line each. */
static void trace(const struct netsim *sim, unsigned int from, const uint8_t *p, uint32_t len)
{
	const uint8_t *tcp = p + (p[0] >> 4 == 4 ? 20 : 40);
	const uint32_t header = (uint32_t)(tcp - p) + (tcp[12] >> 4) * 4u;
	uint32_t seq, ack, i;

	memcpy(&seq, tcp + 4, 4);
	memcpy(&ack, tcp + 8, 4);
	fprintf(stderr, "# %12.3f %u> %s%s%s%s seq %u len %u ack %u win %u opt",
		(double)sim->now / 1e6, from, tcp[13] & 2 ? "S" : "", tcp[13] & 1 ? "F" : "",
		tcp[13] & 4 ? "R" : "", tcp[13] & 16 ? "." : "", ntohl(seq), len - header,
		ntohl(ack), tcp[14] << 8 | tcp[15]);
	for (i = 20; i < (tcp[12] >> 4) * 4u; i++)
		fprintf(stderr, "%s%02x", i % 4 ? "" : " ", tcp[i]);
	fprintf(stderr, "\n");
}

static void put_checksum(uint8_t *p, uint32_t header, uint32_t len)
{
	uint32_t sum = 6 + len - header, i;

	p[header + 16] = p[header + 17] = 0;
	for (i = header == 20 ? 12 : 8; i < len; i += 2)
		sum += (uint32_t)p[i] << 8 | (i + 1 < len ? p[i + 1] : 0);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	p[header + 16] = (uint8_t)(~sum >> 8);
	p[header + 17] = (uint8_t)~sum;
}

/* The bytes of @p from @from to @to as a segment of their own; returns its length. */
static uint32_t cut(const uint8_t *p, uint32_t len, uint32_t from, uint32_t to, uint8_t *ret)
{
	const bool v4 = p[0] >> 4 == 4;
	const uint32_t header = v4 ? 20 : 40, tcp = (p[header + 12] >> 4) * 4u;
	const uint32_t total = header + tcp + to - from;
	uint32_t seq, sum, i;

	memcpy(ret, p, header + tcp);
	memcpy(ret + header + tcp, p + header + tcp + from, to - from);
	memcpy(&seq, p + header + 4, 4);
	seq = htonl(ntohl(seq) + from);
	memcpy(ret + header + 4, &seq, 4);
	if (header + tcp + to < len)
		ret[header + 13] &= (uint8_t)~1; /* the FIN is the last one's */
	ret[v4 ? 2 : 4] = (uint8_t)((v4 ? total : total - 40) >> 8);
	ret[v4 ? 3 : 5] = (uint8_t)(v4 ? total : total - 40);
	if (v4) {
		ret[10] = ret[11] = 0;
		for (sum = 0, i = 0; i < 20; i += 2)
			sum += (uint32_t)ret[i] << 8 | ret[i + 1];
		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		ret[10] = (uint8_t)(~sum >> 8);
		ret[11] = (uint8_t)~sum;
	}
	put_checksum(ret, header, total);
	return total;
}

static void transmit_one(struct netsim *sim, unsigned int from, uint8_t *p, uint32_t len);

static void transmit(struct netsim *sim, unsigned int from, uint8_t *p, uint32_t len)
{
	const struct netsim_link *l = &sim->params.link[from];
	const uint32_t header = p[0] >> 4 == 4 ? 20 : 40;
	uint32_t data, at;
	uint8_t part[MAX_JUMBO];

	check_packet(sim, from, p, len);
	if (sim->traces)
		trace(sim, from, p, len);
	if (sim->tap && !sim->tap(sim, from, p, len, sim->tap_arg))
		return;
	data = l->recut ? len - header - (p[header + 12] >> 4) * 4u : 0;
	if (data < 2 || !chance(sim, l->recut)) {
		transmit_one(sim, from, p, len);
		return;
	}
	at = 1 + (uint32_t)(netsim_random(sim) % (data - 1));
	transmit_one(sim, from, part, cut(p, len, 0, at, part));
	transmit_one(sim, from, part, cut(p, len, at, data, part));
}

static void transmit_one(struct netsim *sim, unsigned int from, uint8_t *p, uint32_t len)
{
	const struct netsim_link *l = &sim->params.link[from];
	struct side *s = &sim->side[from];
	uint64_t at = sim->now;

	if (l->mtu && len > l->mtu) {
		if (l->says_so)
			too_big(sim, from, p, l->mtu);
		return;
	}
	if (chance(sim, l->loss) || (at >= l->dead_from && at < l->dead_until))
		return;
	if (l->rate) {
		const uint64_t takes = len * NETSIM_SEC / l->rate;

		if (l->queue && s->free_at > at &&
		    (s->free_at - at) / (1500 * NETSIM_SEC / l->rate + 1) > l->queue)
			return;
		s->free_at = DMM_MAX(s->free_at, at) + takes;
		at = s->free_at;
	}
	at = stalled_until(sim, l, at) + l->delay;
	if (l->jitter)
		at += netsim_random(sim) % l->jitter;
	if (chance(sim, l->reorder))
		at += l->reorder_by;
	if (chance(sim, l->dup))
		fly(sim, !from, at + netsim_random(sim) % (NETSIM_MS * 2), p, len);
	if (chance(sim, l->corrupt))
		corrupt(sim, p, len);
	fly(sim, !from, at, p, len);
}

static void drain(struct netsim *sim)
{
	uint8_t buf[MAX_JUMBO];
	unsigned int i;
	uint32_t len;

	for (i = 0; i < 2; i++)
		while ((len = dmm_net_output(sim->side[i].net, buf, sizeof(buf), sim->now)))
			transmit(sim, i, buf, len);
}

/* --- users --- */

/* A period that no buffer or segment divides. */
static const uint8_t *pattern(unsigned int side, uint64_t at, uint64_t *len)
{
	static uint8_t bytes[PERIOD];
	const uint64_t from = (at + side * 4099) % PERIOD;
	uint32_t i;

	for (i = 0; !bytes[1] && i < PERIOD; i++)
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

static void send_some(struct netsim_conn *c)
{
	const uint8_t *from;
	uint64_t want;
	ssize_t n;

	while (c->conn && c->connected && !c->shut && !c->blocked && c->sent < c->to_send) {
		want = DMM_MIN(c->to_send - c->sent, c->chunk ? c->chunk : 65536u);
		from = pattern(c->side, c->sent, &want);
		n = dmm_net_send(c->conn, from, want);
		if (n < 0) {
			netsim_violation(c->sim, "send() fails on an open connection");
			return;
		}
		c->sent += (uint64_t)n;
		c->blocked = (uint64_t)n < want;
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
		c->received += got;
		dmm_net_recv_done(c->conn, got);
	}
}

static void use(struct netsim_conn *c)
{
	if (!c->conn || c->hold)
		return;
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
		dmm_net_shutdown(c->conn);
	}
	if (c->shut && c->eof && !c->closing && !dmm_net_unsent(c->conn)) {
		if (c->received != c->expect)
			netsim_violation(c->sim, "it ended with another number of bytes");
		c->closing = true;
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

	if (s->n_accepted == MAX_ACCEPTED) {
		dmm_net_abort(conn);
		return;
	}
	c = malloc(sizeof(*c));
	*c = s->accept;
	c->sim = sim;
	c->side = side;
	c->conn = conn;
	c->connected = true;
	s->accepted[s->n_accepted++] = c;
	add_conn(sim, c);
	dmm_net_set_user(conn, c);
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
	if (ev->conn != c->conn)
		netsim_violation(sim, "an event for a handle that is dead");
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
		if (!c->may_fail)
			netsim_violation(sim, strerror(ev->err));
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

static const struct netsim_conn *peer_of(struct netsim *sim, const struct netsim_conn *c)
{
	struct dmm_endpoint local, remote, l, r;
	unsigned int i;

	dmm_net_endpoints(c->conn, &local, &remote);
	for (i = 0; i < sim->n_conns; i++) {
		const struct netsim_conn *o = sim->conns[i];

		if (!o->conn || o->side == c->side)
			continue;
		dmm_net_endpoints(o->conn, &l, &r);
		if (memcmp(&l, &remote, sizeof(l)) == 0 && memcmp(&r, &local, sizeof(r)) == 0)
			return o;
	}
	return NULL;
}

static void check_conn(struct netsim *sim, struct netsim_conn *c)
{
	struct dmm_net_info info, peer;
	const struct netsim_conn *o;

	dmm_net_get_info(c->conn, &info);
	c->most_held = DMM_MAX(c->most_held, info.unread + info.held);
	if ((int32_t)(info.snd_nxt - info.snd_una) < 0)
		netsim_violation(sim, "snd_nxt is before snd_una");
	if (c->connected && strcmp(info.state, "CLOSED") != 0 &&
	    (int32_t)(info.snd_nxt - info.snd_edge) > 2) /* a probe and a FIN */
		netsim_violation(sim, "more is sent than the window allows");
	if (c->edge && (int32_t)(info.rcv_edge - c->edge) < 0)
		netsim_violation(sim, "the window was taken back");
	c->edge = info.rcv_edge;
	if (!info.sound)
		netsim_violation(sim, "what is on its way is not what was counted");
	o = c->connected ? peer_of(sim, c) : NULL;
	if (!o)
		return;
	dmm_net_get_info(o->conn, &peer);
	if (strcmp(info.state, "CLOSED") == 0 || strcmp(peer.state, "CLOSED") == 0 || !o->connected)
		return;
	if ((int32_t)(peer.rcv_nxt - info.snd_nxt) > 0)
		netsim_violation(sim, "more was received than sent");
	if ((int32_t)(info.snd_una - peer.rcv_nxt) > 0)
		netsim_violation(sim, "more is acknowledged than was received");
	if ((int32_t)(info.snd_edge - peer.rcv_edge) > 0)
		netsim_violation(sim, "the sender believes in a larger window than there is");
}

static void check(struct netsim *sim)
{
	unsigned int i;

	for (i = 0; i < sim->n_conns; i++)
		if (sim->conns[i]->conn)
			check_conn(sim, sim->conns[i]);
}

/* --- time --- */

static void settle(struct netsim *sim)
{
	unsigned int i;

	events(sim);
	for (i = 0; i < sim->n_conns; i++)
		use(sim->conns[i]);
	events(sim);
	drain(sim);
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

bool netsim_step(struct netsim *sim)
{
	uint64_t at;
	unsigned int i;

	settle(sim);
	at = DMM_MIN(next_wake(sim), sim->n_flying ? sim->heap[0].at : NEVER);
	if (at == NEVER)
		return false;
	sim->now = DMM_MAX(sim->now, at);
	while (sim->n_flying && sim->heap[0].at <= sim->now) {
		struct flying f = land(sim);

		dmm_net_input(sim->side[f.to].net, f.data, f.len, sim->now);
		free(f.data);
	}
	for (i = 0; i < 2; i++)
		if (dmm_net_deadline(sim->side[i].net) <= sim->now)
			dmm_net_tick(sim->side[i].net, sim->now);
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

static void open_side(struct netsim *sim, unsigned int i)
{
	struct dmm_net_config config = sim->params.config[i];
	struct dmm_endpoint ep = netsim_endpoint(sim, i, 0);
	struct side *s = &sim->side[i];
	unsigned int j;

	set_default(&config.mtu, 1500);
	set_default(&config.max_conns, 64);
	set_default(&config.max_time_wait, 64);
	set_default(&config.send_buffer, 256 << 10);
	set_default(&config.receive_buffer, 256 << 10);
	if (!config.buffer_memory)
		config.buffer_memory = 8 << 20;
	config.max_addrs = 4;
	config.n_addrs = 1;
	config.addrs = (const uint8_t(*)[16]) & ep.addr;
	for (j = 0; j < sizeof(config.secret); j++)
		config.secret[j] = (uint8_t)netsim_random(sim);
	s->mtu = config.mtu;
	s->memory_len = dmm_net_memory(&config);
	s->memory = mmap(NULL, s->memory_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);
	if (s->memory == MAP_FAILED)
		abort();
	if (dmm_net_create(&config, s->memory, sim->now, &s->net) < 0)
		abort();
}

struct netsim *netsim_new(const struct netsim_params *params)
{
	struct netsim *sim = calloc(1, sizeof(*sim));
	unsigned int i;

	if (!sim)
		abort();
	sim->params = *params;
	sim->traces = getenv("TRACE") != NULL;
	sim->random = params->seed * 0x9e3779b97f4a7c15 + 0x123456789;
	sim->now = netsim_random(sim) % (1000000 * NETSIM_SEC);
	for (i = 0; i < 2; i++)
		open_side(sim, i);
	return sim;
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
		munmap(sim->side[i].memory, sim->side[i].memory_len);
		while (sim->side[i].n_accepted)
			free(sim->side[i].accepted[--sim->side[i].n_accepted]);
	}
	while (sim->n_flying)
		free(sim->heap[--sim->n_flying].data);
	violations = sim->violations;
	free(sim);
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

void netsim_abort_all(struct netsim *sim)
{
	unsigned int i;

	for (i = 0; i < sim->n_conns; i++) {
		if (sim->conns[i]->conn)
			dmm_net_abort(sim->conns[i]->conn);
		sim->conns[i]->conn = NULL;
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
	dmm_net_input(sim->side[to].net, packet, len, sim->now);
	settle(sim);
}
