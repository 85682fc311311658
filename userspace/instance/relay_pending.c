/* SPDX-License-Identifier: Apache-2.0 */
/* From an application's held SYN to its accepted connection, or to the truth about why not.
 * #syscalls accept4 close epoll_ctl */
#define _GNU_SOURCE /* accept4() */
#include "instance/relay_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/util.h"
#include "instance/addrset.h"
#include "base/packet.h"
#include "instance/watch.h"

/* A kernel sends its SYN again at most this long after the last one, else it has given up. */
#define SYN_PATIENCE (DMM_PORT_CLAIM_MS * DMM_NS_PER_MS)
/* The handshake on loopback takes microseconds, or one SYN retransmission more. */
#define ACCEPT_PATIENCE (10 * DMM_NS_PER_SEC)
#define ACCEPT_BATCH	64

bool flow_is_pending(const struct flow *flow)
{
	return flow->state == FLOW_CONNECTING || flow->state == FLOW_STALLED ||
	       flow->state == FLOW_INJECTED;
}

/* --- the table of pending flows, by application --- */

static uint32_t *hash_of(struct relay *relay, const struct flow_app *app)
{
	uint64_t h = addr_hash(app->addr) ^ ((uint64_t)app->port * 0x9e3779b1u) ^ app->relay_port;

	return &relay->hash[(h ^ h >> 16) % RELAY_HASH];
}

static bool is_same_app(const struct flow_app *a, const struct flow_app *b)
{
	return a->port == b->port && a->relay_port == b->relay_port &&
	       memcmp(a->addr, b->addr, sizeof(a->addr)) == 0;
}

static struct flow *find(struct relay *relay, const struct flow_app *app)
{
	uint32_t i;

	for (i = *hash_of(relay, app); i; i = relay->flows[i - 1].next_hash)
		if (is_same_app(&relay->flows[i - 1].app, app))
			return &relay->flows[i - 1];
	return NULL;
}

void pending_list(struct relay *relay, struct flow *flow)
{
	uint32_t at = relay_index(relay, flow) + 1;

	flow->prev = 0;
	flow->next = relay->pending;
	if (flow->next)
		relay->flows[flow->next - 1].prev = at;
	relay->pending = at;
}

void pending_unlist(struct relay *relay, struct flow *flow)
{
	if (flow->next)
		relay->flows[flow->next - 1].prev = flow->prev;
	if (flow->prev)
		relay->flows[flow->prev - 1].next = flow->next;
	else
		relay->pending = flow->next;
}

static void insert(struct relay *relay, struct flow *flow)
{
	uint32_t *head = hash_of(relay, &flow->app);

	flow->next_hash = *head;
	*head = relay_index(relay, flow) + 1;
	pending_list(relay, flow);
}

void pending_remove(struct relay *relay, struct flow *flow)
{
	uint32_t *link = hash_of(relay, &flow->app), at = relay_index(relay, flow) + 1;

	while (*link != at)
		link = &relay->flows[*link - 1].next_hash;
	*link = flow->next_hash;
	pending_unlist(relay, flow);
}

static struct flow_app app_of_event(const struct dmm_event *event)
{
	struct flow_app app = { .port = event->app_port, .relay_port = event->relay_port };

	memcpy(app.addr, event->app, sizeof(app.addr));
	return app;
}

/* --- telling the application --- */

static void inject(struct relay *relay, struct flow *flow, const uint8_t *packet, size_t len)
{
	const struct relay_outside *outside = &relay->args.outside;

	outside->inject(outside->ctx, flow->syn.ip.family, flow->syn.ip.dst, packet, len);
}

/* To the application's own kernel: the other way. */
static void inject_back(struct relay *relay, struct flow *flow, const uint8_t *packet, size_t len)
{
	const struct relay_outside *outside = &relay->args.outside;

	outside->inject(outside->ctx, flow->syn.ip.family, flow->syn.ip.src, packet, len);
}

static void let_syn_go(struct relay *relay, struct flow *flow)
{
	inject(relay, flow, flow->syn.packet, flow->syn.len);
}

/* Frees the flow, then tells: an application that connects again at once finds everything as if the
 * attempt had never been. The held SYN stays readable in the freed flow. */
static void end_by(struct relay *relay, struct flow *flow, const uint8_t *packet, size_t len)
{
	relay->args.shared->flows_refused++;
	relay_free_flow(relay, flow);
	inject_back(relay, flow, packet, len);
}

static void end_by_refusal(struct relay *relay, struct flow *flow)
{
	uint8_t packet[INJECT_MAX];

	end_by(relay, flow, packet, inject_refusal(&flow->syn, packet));
}

void pending_end_by_icmp(struct relay *relay, struct flow *flow, const struct icmp_error *error)
{
	uint8_t packet[INJECT_MAX];

	end_by(relay, flow, packet, inject_icmp(&flow->syn, error, packet));
}

static void end_by_unreachable(struct relay *relay, struct flow *flow, int err)
{
	struct icmp_error error;

	icmp_unreachable(flow->syn.ip.family, err == EHOSTUNREACH ? ICMP_NO_HOST : ICMP_NO_ROUTE,
			 &error);
	pending_end_by_icmp(relay, flow, &error);
}

/* --- the wire --- */

/* The application hears nothing: it sends its SYN again, and then this tries again. */
static void stall(struct flow *flow)
{
	flow->state = FLOW_STALLED;
	flow->conn = NULL;
	flow->wire_seq_known = false;
}

static void connect_wire(struct relay *relay, struct flow *flow)
{
	const struct relay_outside *outside = &relay->args.outside;
	const struct dmm_stack_ops *ops = relay->args.ops;
	struct dmm_connect args = { flow->local, flow->remote, flow };
	struct dmm_conn *conn;
	int r;

	r = outside->route(outside->ctx, flow->remote.addr, flow->local.addr);
	if (r < 0) {
		end_by_unreachable(relay, flow, -r);
		return;
	}
	flow->state = FLOW_CONNECTING;
	flow->events = 0;
	r = ops->connect(relay->args.stack, &args, &conn);
	if (r < 0) {
		stall(flow);
		return;
	}
	if (flow->events & DMM_EV_ERROR)
		return; /* said while it was being made: the handle is dead already */
	flow->conn = conn;
	/* Small writes were held back, or not, on the way here. */
	ops->set_option(conn, DMM_OPT_NODELAY, 1);
}

static void connect_failed(struct relay *relay, struct flow *flow)
{
	switch (flow->err) {
	case ECONNREFUSED:
	case ECONNRESET:
		end_by_refusal(relay, flow);
		break;
	case EHOSTUNREACH:
	case ENETUNREACH:
		end_by_unreachable(relay, flow, flow->err);
		break;
	case ETIMEDOUT:
		relay->args.shared->flows_timed_out++;
		stall(flow);
		break;
	default: /* no memory and the like */
		stall(flow);
		break;
	}
}

void pending_run(struct relay *relay, struct flow *flow)
{
	uint32_t events = flow->events;

	flow->events = 0;
	if (events & DMM_EV_EOF)
		flow->wire_eof = true;
	if (flow->state == FLOW_INJECTED && events & DMM_EV_ERROR) {
		/* Reset before the application was accepted: it finds no flow and gets a RST. */
		relay->args.shared->flows_reset++;
		relay_free_flow(relay, flow);
	} else if (events & DMM_EV_ERROR) {
		connect_failed(relay, flow);
	} else if (flow->state == FLOW_CONNECTING && events & DMM_EV_CONNECTED) {
		flow->state = FLOW_INJECTED;
		flow->deadline = relay->now + ACCEPT_PATIENCE;
		let_syn_go(relay, flow);
	}
}

/* --- events of the BPF programs --- */

/* Takes the port from the hook's claim; also where the claim has been swept, or where this is a late
 * copy of a SYN that was refused: then the port is free and nobody else may take it meanwhile. */
static void take_port(struct relay *relay, uint32_t index)
{
	__atomic_store_n(&relay->args.shared->port[index], DMM_PORT_USED, __ATOMIC_RELEASE);
}

static void begin(struct relay *relay, struct flow *flow, const struct dmm_event *event,
		  const struct held_syn *syn)
{
	struct flow_app app = app_of_event(event);
	struct flow *older = find(relay, &app);

	if (older) /* its end got lost: the application uses the same port for a new attempt */
		relay_free_flow(relay, older);
	take_port(relay, relay_index(relay, flow));
	*flow = (struct flow){
		.state = FLOW_CONNECTING,
		.app_fd = -1,
		.noted = flow->noted,
		.local.port = event->local_port,
		.remote.port = event->remote_port,
		.app = app,
		.cookie = event->cookie,
		.deadline = relay->now + SYN_PATIENCE,
		.syn = *syn,
	};
	memcpy(flow->local.addr, event->local, 16);
	memcpy(flow->remote.addr, event->remote, 16);
	relay_fill_wire(relay, relay_index(relay, flow), &flow->local, &flow->remote);
	insert(relay, flow);
	relay_enter_active(relay);
	connect_wire(relay, flow);
}

/* The application's kernel sends a held SYN again and again. */
static void repeat(struct relay *relay, struct flow *flow)
{
	if (flow->state == FLOW_INJECTED) {
		let_syn_go(relay, flow);
		return;
	}
	flow->deadline = relay->now + SYN_PATIENCE;
	if (flow->state == FLOW_STALLED)
		connect_wire(relay, flow);
}

void pending_on_syn(struct relay *relay, const struct dmm_event *event)
{
	struct flow *flow = relay_flow_of_port(relay, event->local_port);
	struct flow_app app = app_of_event(event);
	struct held_syn syn;

	if (!flow || event->packet_len > sizeof(event->packet) ||
	    !inject_hold(event->packet, event->packet_len, &syn))
		return;
	if (flow->state == FLOW_FREE)
		begin(relay, flow, event, &syn);
	else if (flow_is_pending(flow) && is_same_app(&flow->app, &app) && flow->syn.isn == syn.isn)
		repeat(relay, flow);
	/* else a late copy of an earlier SYN whose port has gone to another flow */
}

void pending_on_closed(struct relay *relay, const struct dmm_event *event)
{
	struct flow_app app = app_of_event(event);
	struct flow *flow = find(relay, &app);

	if (flow && flow->cookie == event->cookie)
		relay_free_flow(relay, flow);
}

/* --- the listener --- */

static bool peer_of(const struct sockaddr_storage *addr, uint16_t relay_port, struct flow_app *ret)
{
	const struct sockaddr_in *in = (const void *)addr;
	const struct sockaddr_in6 *in6 = (const void *)addr;

	ret->relay_port = relay_port;
	switch (addr->ss_family) {
	case AF_INET:
		addr_from_v4((const uint8_t *)&in->sin_addr, ret->addr);
		ret->port = in->sin_port;
		return true;
	case AF_INET6:
		memcpy(ret->addr, &in6->sin6_addr, 16);
		ret->port = in6->sin6_port;
		return true;
	default:
		return false;
	}
}

/* Closing resets: accepted sockets inherit the listener's SO_LINGER. */
static void turn_away(struct relay *relay, int fd)
{
	relay->args.shared->strangers++;
	close(fd);
}

static void welcome(struct relay *relay, int fd, const struct sockaddr_storage *addr,
		    uint16_t relay_port)
{
	struct flow_app app;
	struct flow *flow;

	flow = peer_of(addr, relay_port, &app) ? find(relay, &app) : NULL;
	if (!flow || flow->state != FLOW_INJECTED) {
		turn_away(relay, fd);
		return;
	}
	pending_remove(relay, flow);
	flow->state = FLOW_OPEN;
	flow->app_fd = fd;
	relay->args.shared->flows_opened++;
	bytes_begin(relay, flow);
}

/* No descriptor is free: leave connections in the backlog, and epoll alone with them, until one is. */
static void pause_accept(struct relay *relay)
{
	struct epoll_event none = watch_event(0, WATCH_LISTENER, 0);
	int i;

	for (i = 0; i < DMM_NUM_FAMILIES; i++)
		if (relay->args.listeners[i] >= 0)
			epoll_ctl(relay->args.epoll_fd, EPOLL_CTL_MOD, relay->args.listeners[i],
				  &none);
	relay->accept_paused = true;
}

void pending_accept(struct relay *relay, enum dmm_family family)
{
	int i;

	for (i = 0; i < ACCEPT_BATCH; i++) {
		struct sockaddr_storage addr;
		socklen_t len = sizeof(addr);
		int fd = accept4(relay->args.listeners[family], (struct sockaddr *)&addr, &len,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			welcome(relay, fd, &addr, relay->relay_ports[family]);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			pause_accept(relay);
		if (errno != ECONNABORTED && errno != EINTR)
			return;
	}
}

/* --- deadlines --- */

void pending_expire(struct relay *relay)
{
	uint32_t i = relay->pending;

	while (i) {
		struct flow *flow = &relay->flows[i - 1];

		i = flow->next;
		if (relay->now >= flow->deadline)
			relay_free_flow(relay, flow);
	}
}
