// SPDX-License-Identifier: Apache-2.0
/* A host for stack plug-ins over a wire of the test's choice. */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "instance/isn.h"
#include "stackhost.h"

#define FRAME_SIZE 2048
#define HEADROOM   64
#define FIRST_PORT 20000
#define LAST_PORT  31999

struct queue {
	struct dmm_frame frames[STACKHOST_FRAMES];
	unsigned int head, n;
};

struct stackhost {
	struct stackhost_params params;
	struct dmm_host host;
	void *library;
	const struct dmm_stack_ops *ops;
	struct dmm_stack *stack;
	uint8_t addrs[STACKHOST_MAX_ADDRS][16];
	uint32_t n_addrs;
	uint16_t next_port;

	uint8_t *memory;
	uint32_t free_frames[STACKHOST_FRAMES];
	unsigned int n_free;
	struct queue sent; /* without a wire */
	struct stackhost_conn *accepted;
	struct dmm_frame late;
	bool has_late, starved, peer_gone;

	uint64_t clock, deadline, random;
	struct isn isn;
	uint32_t last_isn;
	unsigned int violations;
};

static void violation(struct stackhost *h, const char *what)
{
	fprintf(stderr, "# plug-in %s: %s\n", h->ops ? h->ops->name : "?", what);
	h->violations++;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static bool chance(struct stackhost *h, unsigned int per_mille)
{
	return per_mille && next_random(&h->random) % 1000 < per_mille;
}

/* Frames */

static bool take_frame(struct stackhost *h, struct dmm_frame *ret)
{
	uint32_t i;

	if (!h->n_free)
		return false;
	i = h->free_frames[--h->n_free];
	*ret = (struct dmm_frame){ .data = h->memory + (size_t)i * FRAME_SIZE + HEADROOM,
				   .room = h->params.mtu,
				   .headroom = HEADROOM,
				   .cookie = i };
	return true;
}

static void give_frame(struct stackhost *h, const struct dmm_frame *frame)
{
	if (h->n_free == STACKHOST_FRAMES)
		violation(h, "gives back more frames than it got");
	else
		h->free_frames[h->n_free++] = (uint32_t)frame->cookie;
}

static bool host_frame_alloc(void *ctx, struct dmm_frame *frame)
{
	struct stackhost *h = ctx;

	return !h->starved && take_frame(h, frame);
}

static void host_frame_free(void *ctx, const struct dmm_frame *frame)
{
	give_frame(ctx, frame);
}

unsigned int stackhost_frames_out(const struct stackhost *h)
{
	return STACKHOST_FRAMES - h->n_free;
}

/* What leaves */

static uint32_t sum16(const uint8_t *p, size_t len, uint32_t sum)
{
	size_t i;

	for (i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)(p[i] << 8 | p[i + 1]);
	if (len & 1)
		sum += (uint32_t)p[len - 1] << 8;
	return sum;
}

static bool sums_up(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

static bool is_ours(const struct stackhost *h, const uint8_t *addr, bool v4)
{
	uint32_t i;

	for (i = 0; i < h->n_addrs; i++)
		if (v4 ? memcmp(h->addrs[i] + 12, addr, 4) == 0
		       : memcmp(h->addrs[i], addr, 16) == 0)
			return true;
	return false;
}

static void judge_packet(struct stackhost *h, const uint8_t *p, uint32_t len)
{
	const bool v4 = p[0] >> 4 == 4;
	const uint32_t header = v4 ? 20 : 40, addr_len = v4 ? 4 : 16;
	const uint8_t *src = p + (v4 ? 12 : 8);
	uint32_t total;

	if (len < header + 20 || len > h->params.mtu) {
		violation(h, "sends a packet that is too short or longer than the MTU");
		return;
	}
	total = v4 ? (uint32_t)(p[2] << 8 | p[3]) : 40 + (uint32_t)(p[4] << 8 | p[5]);
	if (total != len)
		violation(h, "sends a packet of another length than its header says");
	if (v4 && (p[0] != 0x45 || !sums_up(sum16(p, 20, 0))))
		violation(h, "sends a bad IP header");
	if (v4 && (p[6] & 0x40) == 0)
		violation(h, "sends a packet that may be fragmented");
	if ((v4 ? p[9] : p[6]) != 6)
		violation(h, "sends something that is not TCP");
	else if (!sums_up(sum16(p + header, len - header,
				sum16(src, addr_len * 2, 6 + len - header))))
		violation(h, "sends a bad TCP checksum");
	if (!is_ours(h, src, v4))
		violation(h, "sends from an address that is not ours");
}

static void put_on_wire(struct stackhost *h, const struct dmm_frame *frame)
{
	struct queue *q = &h->sent;

	if (h->params.wire < 0) {
		q->frames[(q->head + q->n++) % STACKHOST_FRAMES] = *frame;
		return;
	}
	/* a full socket loses packets, as a wire does */
	if (write(h->params.wire, frame->data, frame->len) < 0 && errno == EPIPE)
		h->peer_gone = true;
	give_frame(h, frame);
}

static void send_frame(struct stackhost *h, const struct dmm_frame *frame)
{
	judge_packet(h, frame->data, frame->len);
	if (chance(h, h->params.drop)) {
		give_frame(h, frame);
		return;
	}
	if (!h->has_late && chance(h, h->params.swap)) {
		h->late = *frame;
		h->has_late = true;
		return;
	}
	put_on_wire(h, frame);
	if (h->has_late)
		put_on_wire(h, &h->late);
	h->has_late = false;
}

static void host_output(void *ctx, const struct dmm_frame *frames, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		send_frame(ctx, &frames[i]);
}

/* Events */

static void judge_event(struct stackhost_conn *c, uint32_t events, int err)
{
	struct stackhost *h = c->host;

	if (!events)
		violation(h, "tells of nothing");
	if (!c->conn)
		violation(h, "tells of a connection whose handle is dead");
	if ((events & DMM_EV_CONNECTED) && !c->connects)
		violation(h, "connects twice");
	if (c->connects && (events & ~(DMM_EV_ERROR | DMM_EV_CLOSED)) &&
	    !(events & DMM_EV_CONNECTED))
		violation(h, "tells of bytes before the connection");
	if ((events & DMM_EV_EOF) && (c->seen & DMM_EV_EOF))
		violation(h, "ends twice");
	if ((events & DMM_EV_WRITABLE) && !c->sends_short)
		violation(h, "is writable when nobody waits for it");
	if (((events & DMM_EV_CLOSED) != 0) != c->closing)
		violation(h, "EV_CLOSED comes without close(), or something else after it");
	if (((events & DMM_EV_ERROR) != 0) != (err > 0))
		violation(h, "EV_ERROR has no errno, or an errno no EV_ERROR");
}

static void free_accepted(struct stackhost_conn *c)
{
	struct stackhost_conn **link = &c->host->accepted;

	while (*link != c)
		link = &(*link)->next;
	*link = c->next;
	free(c);
}

static void host_event(void *ctx, void *user, uint32_t events, int err)
{
	struct stackhost_conn *c = user;

	(void)ctx;
	judge_event(c, events, err);
	c->seen |= events;
	c->told++;
	if (events & DMM_EV_CONNECTED)
		c->connects = false;
	if (events & DMM_EV_WRITABLE)
		c->sends_short = false;
	if (events & DMM_EV_ERROR)
		c->err = err;
	if (events & (DMM_EV_ERROR | DMM_EV_CLOSED))
		c->conn = NULL;
	if (c->on_event)
		c->on_event(c, events);
	if (c->allocated && !c->conn)
		free_accepted(c);
}

static void *host_accepted(void *ctx, void *listen_user, struct dmm_conn *conn,
			   const struct dmm_endpoint *local, const struct dmm_endpoint *remote)
{
	struct stackhost_listener *l = listen_user;
	struct stackhost *h = ctx;
	struct stackhost_conn *c;

	if (l->refuse)
		return NULL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	*c = (struct stackhost_conn){ .host = h,
				      .next = h->accepted,
				      .conn = conn,
				      .local = *local,
				      .remote = *remote,
				      .allocated = true,
				      .on_event = l->on_event,
				      .arg = l->arg };
	h->accepted = c;
	l->accepted++;
	return c;
}

/* Time, chance, log */

static uint64_t monotonic(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint64_t host_now(void *ctx)
{
	return ((struct stackhost *)ctx)->clock;
}

static void host_random(void *ctx, void *buf, size_t len)
{
	struct stackhost *h = ctx;
	uint8_t *p = buf;

	while (len--)
		*p++ = (uint8_t)(next_random(&h->random) >> 24);
}

static uint32_t host_isn(void *ctx, const struct dmm_endpoint *local,
			 const struct dmm_endpoint *remote)
{
	struct stackhost *h = ctx;

	h->last_isn = isn_make(&h->isn, local, remote, h->clock);
	return h->last_isn;
}

static void host_log(void *ctx, enum dmm_log_level level, const char *format, ...)
{
	(void)ctx;
	(void)level;
	(void)format;
}

/* Life */

bool stackhost_endpoint(const char *addr, uint16_t port, struct dmm_endpoint *ret)
{
	struct dmm_endpoint ep = { .addr = { [10] = 0xff, [11] = 0xff }, .port = htons(port) };

	if (inet_pton(AF_INET, addr, ep.addr + 12) != 1 && inet_pton(AF_INET6, addr, ep.addr) != 1)
		return false;
	*ret = ep;
	return true;
}

static int load(struct stackhost *h)
{
	/* it stays: a library below it may hold memory for the life of the process */
	h->library = dlopen(h->params.plugin, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!h->library) {
		fprintf(stderr, "# %s\n", dlerror());
		return -ENOENT;
	}
	h->ops = dlsym(h->library, DMM_STACK_SYMBOL);
	if (!h->ops || h->ops->abi != DMM_STACK_ABI || h->ops->size != sizeof(*h->ops))
		return -EPROTO;
	return 0;
}

static int create(struct stackhost *h)
{
	const struct dmm_stack_params params = { .mtu = h->params.mtu,
						 .max_conns = h->params.max_conns,
						 .conn_memory = h->params.conn_memory,
						 .addrs = (const uint8_t(*)[16])h->addrs,
						 .n_addrs = h->n_addrs,
						 .options = "" };

	h->host = (struct dmm_host){ .abi = DMM_STACK_ABI,
				     .ctx = h,
				     .frame_alloc = host_frame_alloc,
				     .frame_free = host_frame_free,
				     .output = host_output,
				     .event = host_event,
				     .accepted = host_accepted,
				     .now = host_now,
				     .random = host_random,
				     .isn = host_isn,
				     .log = host_log };
	return h->ops->create(&params, &h->host, &h->stack);
}

static void release(struct stackhost *h)
{
	if (h->library)
		dlclose(h->library);
	free(h->memory);
	free(h);
}

int stackhost_open(const struct stackhost_params *params, struct stackhost **ret)
{
	struct stackhost *h = calloc(1, sizeof(*h));
	struct dmm_endpoint ep;
	int r = -ENOMEM;
	uint32_t i;

	if (!h)
		return -ENOMEM;
	h->params = *params;
	h->random = params->seed * 2 + 0x9e3779b97f4a7c15;
	h->clock = monotonic();
	host_random(h, &h->isn, sizeof(h->isn));
	h->next_port = FIRST_PORT;
	if (params->wire >= 0)
		fcntl(params->wire, F_SETFL, fcntl(params->wire, F_GETFL) | O_NONBLOCK);
	for (i = 0; i < STACKHOST_MAX_ADDRS && params->addrs[i]; i++)
		if (stackhost_endpoint(params->addrs[i], 0, &ep))
			memcpy(h->addrs[h->n_addrs++], ep.addr, 16);
	for (i = 0; i < STACKHOST_FRAMES; i++)
		h->free_frames[h->n_free++] = i;
	h->memory = calloc(STACKHOST_FRAMES, FRAME_SIZE);
	if (h->memory)
		r = load(h);
	if (r == 0)
		r = create(h);
	if (r < 0) {
		release(h);
		return r;
	}
	*ret = h;
	return 0;
}

unsigned int stackhost_close(struct stackhost *h)
{
	uint8_t packet[FRAME_SIZE];
	unsigned int violations;

	h->ops->destroy(h->stack);
	while (h->accepted)
		free_accepted(h->accepted);
	if (h->has_late)
		put_on_wire(h, &h->late);
	while (stackhost_take(h, packet, sizeof(packet)))
		;
	if (h->n_free != STACKHOST_FRAMES)
		violation(h, "keeps frames");
	violations = h->violations;
	release(h);
	return violations;
}

const struct dmm_stack_ops *stackhost_ops(const struct stackhost *h)
{
	return h->ops;
}

struct dmm_stack *stackhost_stack(const struct stackhost *h)
{
	return h->stack;
}

uint64_t stackhost_now(const struct stackhost *h)
{
	return h->clock;
}

bool stackhost_alive(const struct stackhost *h)
{
	return !h->peer_gone;
}

/* Connections */

static bool local_endpoint(const struct stackhost *h, const struct dmm_endpoint *remote,
			   struct dmm_endpoint *ret)
{
	static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };
	const bool v4 = memcmp(remote->addr, prefix, 12) == 0;
	uint32_t i;

	for (i = 0; i < h->n_addrs; i++) {
		if ((memcmp(h->addrs[i], prefix, 12) == 0) != v4)
			continue;
		memcpy(ret->addr, h->addrs[i], 16);
		return true;
	}
	return false;
}

int stackhost_connect(struct stackhost *h, const char *addr, uint16_t port, uint16_t local_port,
		      struct stackhost_conn *ret)
{
	struct dmm_connect args = { .user = ret };
	int r;

	if (!stackhost_endpoint(addr, port, &args.remote) ||
	    !local_endpoint(h, &args.remote, &args.local))
		return -EINVAL;
	if (!local_port) {
		local_port = h->next_port++;
		if (h->next_port > LAST_PORT)
			h->next_port = FIRST_PORT;
	}
	args.local.port = htons(local_port);
	ret->host = h;
	ret->local = args.local;
	ret->remote = args.remote;
	ret->connects = true;
	r = h->ops->connect(h->stack, &args, &ret->conn);
	if (r < 0)
		ret->conn = NULL;
	return r;
}

int stackhost_listen(struct stackhost *h, const char *addr, uint16_t port, int backlog,
		     struct stackhost_listener *ret)
{
	struct stackhost_conn *c = &ret->self;

	if (!h->ops->listen)
		return -ENOTSUP;
	if (!stackhost_endpoint(addr, port, &c->local))
		return -EINVAL;
	c->host = h;
	return h->ops->listen(h->stack, &c->local, backlog, ret, &c->conn);
}

ssize_t stackhost_send(struct stackhost_conn *c, const void *buf, size_t len)
{
	const struct dmm_stack_ops *ops = c->host->ops;
	const size_t space = ops->send_space(c->conn);
	const ssize_t n = ops->send(c->conn, buf, len);

	if (n > (ssize_t)len || (n >= 0 && (size_t)n > space))
		violation(c->host, "takes more bytes than there are or fit");
	if (n >= 0) {
		c->sends_short = (size_t)n < len;
		c->sent += (uint64_t)n;
	}
	return n;
}

size_t stackhost_recv(struct stackhost_conn *c, void *buf, size_t len)
{
	const struct dmm_stack_ops *ops = c->host->ops;
	struct iovec iov[4];
	size_t got = 0;

	while (got < len) {
		const unsigned int n = ops->recv_peek(c->conn, iov, DMM_ARRAY_SIZE(iov));
		size_t part = 0;
		unsigned int i;

		for (i = 0; i < n && got + part < len; i++) {
			const size_t m = DMM_MIN(iov[i].iov_len, len - got - part);

			if (!iov[i].iov_len)
				violation(c->host, "shows an empty piece");
			memcpy((uint8_t *)buf + got + part, iov[i].iov_base, m);
			part += m;
		}
		if (!part)
			break;
		ops->recv_done(c->conn, part);
		got += part;
	}
	c->received += got;
	return got;
}

void stackhost_close_conn(struct stackhost_conn *c)
{
	c->closing = true;
	c->host->ops->close(c->conn);
}

void stackhost_abort(struct stackhost_conn *c)
{
	c->host->ops->abort(c->conn);
	c->conn = NULL;
}

/* The loop */

static void tick(struct stackhost *h)
{
	h->deadline = h->ops->tick(h->stack, h->clock);
}

/* In batches, each from frames that are taken away again: the plug-in only borrows them. */
static void read_wire(struct stackhost *h)
{
	struct dmm_frame frames[DMM_PKTIO_BATCH], frame;
	unsigned int n = 0, i;

	while (n < DMM_PKTIO_BATCH && take_frame(h, &frame)) {
		const ssize_t len = read(h->params.wire, frame.data, FRAME_SIZE - HEADROOM);

		if (len <= 0) {
			h->peer_gone |= len == 0 || errno == ECONNRESET;
			give_frame(h, &frame);
			break;
		}
		frame.len = (uint32_t)len;
		frames[n++] = frame;
	}
	if (n)
		h->ops->input(h->stack, frames, n);
	for (i = 0; i < n; i++) {
		memset(frames[i].data, 0xa5, frames[i].len);
		give_frame(h, &frames[i]);
	}
}

void stackhost_turn(struct stackhost *h, int ms)
{
	struct pollfd fd = { .fd = h->params.wire, .events = POLLIN };
	uint64_t wait;

	tick(h);
	wait = h->deadline <= h->clock ? 0 : (h->deadline - h->clock + 999999) / 1000000;
	if (poll(&fd, 1, (int)DMM_MIN(wait, (uint64_t)ms)) > 0)
		read_wire(h);
	if (!h->params.manual_clock)
		h->clock = monotonic();
	tick(h);
}

bool stackhost_until(struct stackhost *h, bool (*done)(void *arg), void *arg, int ms)
{
	const uint64_t end = monotonic() + (uint64_t)ms * 1000000;

	while (!done(arg) && monotonic() < end && !h->peer_gone)
		stackhost_turn(h, 20);
	return done(arg);
}

struct wanted {
	const struct stackhost_conn *c;
	uint32_t events;
};

static bool wanted_seen(void *arg)
{
	const struct wanted *w = arg;

	return w->c->seen & w->events;
}

bool stackhost_wait(struct stackhost_conn *c, uint32_t events, int ms)
{
	struct wanted w = { c, events };

	return stackhost_until(c->host, wanted_seen, &w, ms);
}

void stackhost_input(struct stackhost *h, const void *packet, size_t len)
{
	/* of this very size, so that a sanitizer sees a read beyond it */
	uint8_t *copy = malloc(len ? len : 1);
	const struct dmm_frame frame = { .data = copy,
					 .len = (uint32_t)len,
					 .room = (uint32_t)len };

	if (!copy)
		abort();
	memcpy(copy, packet, len);
	h->ops->input(h->stack, &frame, 1);
	free(copy);
	tick(h);
}

size_t stackhost_take(struct stackhost *h, void *buf, size_t size)
{
	struct queue *q = &h->sent;
	const struct dmm_frame *frame = &q->frames[q->head];
	size_t len;

	if (!q->n)
		return 0;
	len = DMM_MIN(size, frame->len);
	memcpy(buf, frame->data, len);
	give_frame(h, frame);
	q->head = (q->head + 1) % STACKHOST_FRAMES;
	q->n--;
	return len;
}

void stackhost_pass(struct stackhost *h, uint64_t ms)
{
	const uint64_t end = h->clock + ms * 1000000;

	tick(h);
	while (h->deadline <= end) {
		h->clock = DMM_MAX(h->deadline, h->clock + 1000);
		tick(h);
	}
	h->clock = end;
	tick(h);
}

void stackhost_set_starved(struct stackhost *h, bool starved)
{
	h->starved = starved;
}

uint32_t stackhost_last_isn(const struct stackhost *h)
{
	return h->last_isn;
}
