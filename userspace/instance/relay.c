/* SPDX-License-Identifier: Apache-2.0 */
/* The relay: its flows, their wire ports, and who is to act upon what happened.
 * #syscalls close epoll_ctl fcntl getsockname setsockopt */
#include "instance/relay_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/sockopt.h"
#include "base/util.h"
#include "instance/watch.h"

#define UPKEEP_EVERY (100 * DMM_NS_PER_MS)
#define SWEEP_PORTS  1024 /* per upkeep */
/* An application that closed without our knowing sits in FIN_WAIT2 for a minute: then a probe finds
 * out, and the wire is let go too. */
#define KEEP_IDLE     60
#define KEEP_INTERVAL 10
#define KEEP_COUNT    6

/* --- flows and ports --- */

uint32_t relay_index(const struct relay *relay, const struct flow *flow)
{
	return (uint32_t)(flow - relay->flows);
}

struct flow *relay_flow_of_port(struct relay *relay, uint16_t port)
{
	uint16_t p = ntohs(port);

	if (p < relay->args.port_first || p > relay->args.port_last)
		return NULL;
	return &relay->flows[p - relay->args.port_first];
}

void relay_note(struct relay *relay, struct flow *flow)
{
	if (flow->noted)
		return;
	flow->noted = true;
	relay->noted[(relay->first_noted + relay->n_noted++) % relay->n_flows] =
		relay_index(relay, flow);
}

void relay_enter_active(struct relay *relay)
{
	relay->n_active++;
	relay->args.shared->flows = relay->n_active;
}

static void leave_active(struct relay *relay)
{
	relay->n_active--;
	relay->args.shared->flows = relay->n_active;
}

void relay_enter_closing(struct relay *relay, struct flow *flow)
{
	flow->state = FLOW_CLOSING;
	leave_active(relay);
	relay->n_closing++;
}

void relay_free_flow(struct relay *relay, struct flow *flow)
{
	enum flow_state was = flow->state;

	if (flow_is_pending(flow))
		pending_remove(relay, flow);
	else if (client_is_pending(flow))
		pending_unlist(relay, flow);
	if (was == FLOW_CLOSING || was == FLOW_RESTING)
		relay->n_closing--;
	else
		leave_active(relay);
	relay->n_half_open -= was == FLOW_HALF_OPEN;
	flow->state = FLOW_FREE;
	if (flow->conn)
		relay->args.ops->abort(flow->conn);
	flow->conn = NULL;
	flow->events = 0;
	if (flow->is_client && !clients_release(relay, flow, was)) {
		flow->state = FLOW_RESTING;
		relay->n_closing++;
		return;
	}
	if (!flow->is_client && flow->app_fd >= 0)
		close(flow->app_fd);
	flow->app_fd = -1;
	relay_free_port(relay, flow);
}

void relay_free_port(struct relay *relay, struct flow *flow)
{
	__atomic_store_n(&relay->args.shared->port[relay_index(relay, flow)], DMM_PORT_FREE,
			 __ATOMIC_RELEASE);
}

void relay_fill_wire(struct relay *relay, uint32_t index, const struct dmm_endpoint *local,
		     const struct dmm_endpoint *remote)
{
	struct dmm_wire *wire = &relay->args.shared->wire[index];

	memcpy(wire->remote, remote->addr, 16);
	memcpy(wire->local, local->addr, 16);
	wire->remote_port = remote->port;
	wire->local_port = local->port;
}

/* A claim that never became a flow: the application died, or its SYN was lost on the way here. */
static bool is_stale_claim(uint32_t claim, uint32_t now)
{
	return claim != DMM_PORT_FREE && claim != DMM_PORT_USED &&
	       (int32_t)(now - claim) > (int32_t)DMM_PORT_CLAIM_MS;
}

static void sweep_claims(struct relay *relay)
{
	uint32_t now = dmm_clock_ns(CLOCK_MONOTONIC_COARSE) >> 20; /* the hook's stamps */
	uint32_t i;

	for (i = 0; i < DMM_MIN(SWEEP_PORTS, relay->n_flows); i++) {
		uint32_t *port = &relay->args.shared->port[relay->sweep_at];
		uint32_t claim = __atomic_load_n(port, __ATOMIC_ACQUIRE);

		if (is_stale_claim(claim, now))
			__atomic_compare_exchange_n(port, &claim, DMM_PORT_FREE, false,
						    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
		relay->sweep_at = (relay->sweep_at + 1) % relay->n_flows;
	}
}

/* --- what happened --- */

void relay_set_now(struct relay *relay, uint64_t now)
{
	relay->now = now;
}

void relay_on_ring(struct relay *relay, const struct dmm_event *event)
{
	switch (event->kind) {
	case DMM_EVENT_SYN:
		pending_on_syn(relay, event);
		break;
	case DMM_EVENT_CLOSED:
		pending_on_closed(relay, event);
		break;
	}
}

void relay_on_listener(struct relay *relay, enum dmm_family family)
{
	pending_accept(relay, family);
}

void relay_on_app(struct relay *relay, uint32_t flow, uint32_t epoll_events)
{
	/* an event read in one batch with the one that ended its flow finds another, or none */
	if (flow >= relay->n_flows)
		return;
	switch (relay->flows[flow].state) {
	case FLOW_OPEN:
		bytes_on_app(relay, &relay->flows[flow], epoll_events);
		break;
	case FLOW_JOINING:
	case FLOW_RESTING:
		clients_on_app(relay, &relay->flows[flow], epoll_events);
		break;
	default:
		break;
	}
}

void relay_on_stack(struct relay *relay, struct flow *flow, uint32_t events, int err)
{
	if (flow->state == FLOW_FREE)
		return;
	flow->events |= events;
	if (events & DMM_EV_ERROR) {
		flow->err = err;
		flow->conn = NULL;
	}
	if (events & DMM_EV_CLOSED)
		flow->conn = NULL;
	relay_note(relay, flow);
}

static struct flow *flow_of_icmp(struct relay *relay, const struct dmm_icmp *about)
{
	struct flow *flow = relay_flow_of_port(relay, about->local.port);

	if (!flow)
		return clients_find(relay, &about->local, &about->remote);
	if (flow->state == FLOW_FREE || about->remote.port != flow->remote.port ||
	    memcmp(about->remote.addr, flow->remote.addr, 16) ||
	    memcmp(about->local.addr, flow->local.addr, 16))
		return NULL;
	return flow;
}

void relay_on_icmp(struct relay *relay, const struct icmp_error *error)
{
	const struct dmm_stack_ops *ops = relay->args.ops;
	struct flow *flow = flow_of_icmp(relay, &error->about);

	if (!flow)
		return;
	if (flow->state == FLOW_CONNECTING && flow->wire_seq_known &&
	    error->about.seq != flow->wire_seq)
		return; /* a guess */
	if (ops->icmp && flow->conn)
		ops->icmp(relay->args.stack, &error->about);
	if (error->about.hard && flow->state == FLOW_CONNECTING)
		pending_end_by_icmp(relay, flow, error);
}

void relay_on_wire_syn(struct relay *relay, uint16_t local_port, uint32_t seq)
{
	struct flow *flow = relay_flow_of_port(relay, local_port);

	if (flow && flow->state == FLOW_CONNECTING) {
		flow->wire_seq = seq;
		flow->wire_seq_known = true;
	}
}

void relay_on_unreachable(struct relay *relay,
			  bool (*is_lost)(void *ctx, const uint8_t remote[16],
					  const uint8_t local[16]),
			  void *ctx)
{
	uint32_t i = relay->pending;

	while (i) {
		struct flow *flow = &relay->flows[i - 1];
		struct icmp_error error;

		i = flow->next;
		if (flow->is_client || flow->state == FLOW_INJECTED ||
		    !is_lost(ctx, flow->remote.addr, flow->local.addr))
			continue;
		icmp_unreachable(flow->syn.ip.family, ICMP_NO_HOST, &error);
		pending_end_by_icmp(relay, flow, &error);
	}
}

/* --- acting upon it --- */

static void run_flow(struct relay *relay, struct flow *flow)
{
	switch (flow->state) {
	case FLOW_CONNECTING:
	case FLOW_STALLED:
	case FLOW_INJECTED:
		pending_run(relay, flow);
		break;
	case FLOW_HALF_OPEN:
	case FLOW_JOINING:
		clients_run(relay, flow);
		break;
	case FLOW_OPEN:
		bytes_run(relay, flow);
		break;
	case FLOW_CLOSING:
		if (flow->events & (DMM_EV_CLOSED | DMM_EV_ERROR))
			relay_free_flow(relay, flow);
		break;
	case FLOW_RESTING:
	case FLOW_FREE:
		break;
	}
}

static int watch_listeners(struct relay *relay, int op)
{
	int i;

	for (i = 0; i < DMM_NUM_FAMILIES; i++) {
		struct epoll_event event = watch_event(EPOLLIN, WATCH_LISTENER, i);

		if (relay->args.listeners[i] >= 0 &&
		    epoll_ctl(relay->args.epoll_fd, op, relay->args.listeners[i], &event) < 0)
			return -errno;
	}
	return 0;
}

static void upkeep(struct relay *relay)
{
	pending_expire(relay);
	sweep_claims(relay);
	clients_want_sockets(relay);
	clients_upkeep(relay);
	if (relay->accept_paused) {
		relay->accept_paused = false;
		watch_listeners(relay, EPOLL_CTL_MOD);
	}
	relay->next_upkeep = relay->now + UPKEEP_EVERY;
}

bool relay_run(struct relay *relay)
{
	uint32_t n = relay->n_noted, i;

	/* those noted meanwhile have their turn in the next one */
	for (i = 0; i < n; i++) {
		struct flow *flow = &relay->flows[relay->noted[relay->first_noted]];

		relay->first_noted = (relay->first_noted + 1) % relay->n_flows;
		relay->n_noted--;
		flow->noted = false;
		run_flow(relay, flow);
	}
	if (relay->now >= relay->next_upkeep)
		upkeep(relay);
	return n > 0 || relay->n_noted > 0;
}

uint32_t relay_active(const struct relay *relay)
{
	return relay->n_active;
}

uint32_t relay_closing(const struct relay *relay)
{
	return relay->n_closing;
}

void relay_reset_all(struct relay *relay)
{
	uint32_t i;

	for (i = 0; i < relay->n_flows; i++)
		if (relay->flows[i].state != FLOW_FREE)
			relay_free_flow(relay, &relay->flows[i]);
}

/* --- life --- */

/* Set once and inherited by every accepted socket from its first packet on (its buffers are
 * dmmd's business: they must be set before listen()). The lingering makes
 * a dying instance show as a reset: never as the clean end of a stream that was cut. */
int relay_set_loopback_options(int fd)
{
	struct linger reset = { .l_onoff = 1 };
	int r = 0;

	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) < 0)
		return -errno;
	r = r ? r : dmm_set_sockopt(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	r = r ? r : dmm_set_sockopt(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	r = r ? r : dmm_set_sockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE);
	r = r ? r : dmm_set_sockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEP_INTERVAL);
	r = r ? r : dmm_set_sockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEP_COUNT);
	return r;
}

static int prepare_listeners(struct relay *relay)
{
	int i, r;

	for (i = 0; i < DMM_NUM_FAMILIES; i++) {
		struct sockaddr_in6 addr; /* the port is where sockaddr_in has it */
		socklen_t len = sizeof(addr);

		if (relay->args.listeners[i] < 0)
			continue;
		if (getsockname(relay->args.listeners[i], (struct sockaddr *)&addr, &len) < 0)
			return -errno;
		relay->relay_ports[i] = addr.sin6_port;
		r = relay_set_loopback_options(relay->args.listeners[i]);
		if (r < 0)
			return r;
	}
	return watch_listeners(relay, EPOLL_CTL_ADD);
}

static void free_relay(struct relay *relay)
{
	clients_close(relay);
	free(relay->flows);
	free(relay->noted);
	free(relay);
}

int relay_open(const struct relay_args *args, struct relay **ret)
{
	struct relay *relay;
	uint32_t i;
	int r;

	relay = calloc(1, sizeof(*relay));
	if (!relay)
		return -ENOMEM;
	relay->args = *args;
	relay->n_flows = args->port_last - args->port_first + 1;
	relay->flows = calloc(relay->n_flows, sizeof(*relay->flows));
	relay->noted = calloc(relay->n_flows, sizeof(*relay->noted));
	r = relay->flows && relay->noted ? clients_open(relay) : -ENOMEM;
	r = r ? r : prepare_listeners(relay);
	if (r < 0) {
		free_relay(relay);
		return r;
	}
	for (i = 0; i < relay->n_flows; i++)
		relay->flows[i].app_fd = -1;
	*ret = relay;
	return 0;
}

void relay_close(struct relay *relay)
{
	relay->ends = true;
	relay_reset_all(relay);
	free_relay(relay);
}
