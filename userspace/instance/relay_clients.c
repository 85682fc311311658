/* SPDX-License-Identifier: Apache-2.0 */
/* Clients from the wire: from their SYN to the connection with the server that listens here.
 *
 * The flow door has asked the kernel who listens and the policy who serves, so every SYN that gets here
 * is meant. A client's flow has an index as every flow has; its port is the one that its socket talks to
 * the server from. These sockets come from dmmd, bound already, and are used again and again: connect()
 * to nowhere takes them back. struct dmm_wire tells the doors which client is behind which port.
 * #syscalls connect close epoll_ctl getsockopt setsockopt */
#include "instance/relay_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/util.h"
#include "dmm/abi/wire.h"
#include "base/packet.h"
#include "instance/watch.h"

/* From a SYN to the end of its handshake. */
#define HANDSHAKE_PATIENCE (30 * DMM_NS_PER_SEC)
/* A server that does not accept: its kernel drops our SYN, as it would the client's last ACK. */
#define JOIN_PATIENCE (120 * DMM_NS_PER_SEC)
/* So many, then SYNs are answered by cookies: lwIP walks over them with every segment. */
#define MAX_HALF_OPEN 256
/* Sockets at rest below which more are asked for. */
#define SOCKETS_LOW 256u
#define BACKLOG	    4096
/* A listener of the plug-in's that nobody has come to for so long goes. */
#define LISTENER_IDLE (60 * DMM_NS_PER_SEC)

bool client_is_pending(const struct flow *flow)
{
	return flow->state == FLOW_HALF_OPEN || flow->state == FLOW_JOINING;
}

/* --- the wires, as the doors see them --- */

static uint32_t *head_of(struct relay *relay, const struct dmm_endpoint *local,
			 const struct dmm_endpoint *remote)
{
	struct dmm_inst_shared *shared = relay->args.shared;

	return &shared->head[dmm_wire_hash(shared->seed, remote->addr, remote->port, local->port)];
}

static bool is_wire(const struct dmm_wire *wire, const struct dmm_endpoint *local,
		    const struct dmm_endpoint *remote)
{
	return wire->remote_port == remote->port && wire->local_port == local->port &&
	       memcmp(wire->remote, remote->addr, 16) == 0 &&
	       memcmp(wire->local, local->addr, 16) == 0;
}

struct flow *clients_find(struct relay *relay, const struct dmm_endpoint *local,
			  const struct dmm_endpoint *remote)
{
	struct dmm_inst_shared *shared = relay->args.shared;
	uint32_t at = *head_of(relay, local, remote), i;

	for (i = 0; at && at <= relay->n_flows && i < DMM_WIRE_CHAIN; i++) {
		if (is_wire(&shared->wire[at - 1], local, remote))
			return &relay->flows[at - 1];
		at = shared->wire[at - 1].next;
	}
	return NULL;
}

/* False: too many have the same hash. */
static bool link_wire(struct relay *relay, uint32_t index, const struct dmm_endpoint *local,
		      const struct dmm_endpoint *remote)
{
	struct dmm_inst_shared *shared = relay->args.shared;
	uint32_t *head = head_of(relay, local, remote), at, length = 0;
	struct dmm_wire *wire = &shared->wire[index];

	for (at = *head; at; at = shared->wire[at - 1].next)
		if (++length >= DMM_WIRE_CHAIN)
			return false;
	relay_fill_wire(relay, index, local, remote);
	wire->next = *head;
	__atomic_store_n(head, index + 1, __ATOMIC_RELEASE);
	return true;
}

static void unlink_wire(struct relay *relay, const struct flow *flow)
{
	struct dmm_inst_shared *shared = relay->args.shared;
	uint32_t *at = head_of(relay, &flow->local, &flow->remote);
	const uint32_t index = relay_index(relay, flow) + 1;

	while (*at && *at != index)
		at = &shared->wire[*at - 1].next;
	if (*at)
		__atomic_store_n(at, shared->wire[index - 1].next, __ATOMIC_RELEASE);
}

/* --- sockets --- */

static enum dmm_family family_of(const struct dmm_endpoint *end)
{
	return addr_is_v4(end->addr) ? DMM_FAMILY_V4 : DMM_FAMILY_V6;
}

static void put_at_rest(struct relay *relay, enum dmm_family family, uint32_t index)
{
	uint32_t last = relay->first_at_rest[family] + relay->n_at_rest[family]++;

	relay->at_rest[family][last % relay->n_flows] = index;
}

static uint32_t take_from_rest(struct relay *relay, enum dmm_family family)
{
	uint32_t index = relay->at_rest[family][relay->first_at_rest[family]];

	relay->first_at_rest[family] = (relay->first_at_rest[family] + 1) % relay->n_flows;
	relay->n_at_rest[family]--;
	return index;
}

bool clients_add_socket(struct relay *relay, enum dmm_family family, uint16_t port, int fd)
{
	uint32_t index = (uint32_t)port - relay->args.port_first;

	if (index >= relay->n_flows || family >= DMM_NUM_FAMILIES || relay->sockets[index] >= 0 ||
	    relay_set_loopback_options(fd) < 0) {
		close(fd);
		return false;
	}
	relay->sockets[index] = fd;
	put_at_rest(relay, family, index);
	return true;
}

void clients_want_sockets(struct relay *relay)
{
	const struct relay_outside *outside = &relay->args.outside;
	const uint32_t low = DMM_MIN(SOCKETS_LOW, relay->n_flows / 4);

	for (int family = 0; family < DMM_NUM_FAMILIES; family++)
		if (relay->is_served[family] && relay->n_at_rest[family] < DMM_MAX(low, 1u))
			outside->want_sockets(outside->ctx, family);
}

/* Of those at rest one whose port no application's connect has: claimed. */
static struct flow *claim(struct relay *relay, enum dmm_family family)
{
	for (uint32_t tries = relay->n_at_rest[family]; tries > 0; tries--) {
		uint32_t index = take_from_rest(relay, family), unclaimed = DMM_PORT_FREE;
		uint32_t *port = &relay->args.shared->port[index];

		if (__atomic_compare_exchange_n(port, &unclaimed, DMM_PORT_USED, false,
						__ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			return &relay->flows[index];
		put_at_rest(relay, family, index);
	}
	return NULL;
}

static bool is_closed(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
	       info.tcpi_state == TCP_CLOSE;
}

/* Resets it, if there is anything to reset. */
static void take_back(struct relay *relay, const struct flow *flow)
{
	struct sockaddr nowhere = { .sa_family = AF_UNSPEC };
	uint32_t index = relay_index(relay, flow);
	int fd = relay->sockets[index];

	epoll_ctl(relay->args.epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	if (connect(fd, &nowhere, sizeof(nowhere)) == 0) {
		put_at_rest(relay, family_of(&flow->local), index);
		return;
	}
	close(fd);
	relay->sockets[index] = -1;
}

/* What the client has said and the server not read yet arrives without us. */
static void leave_to_kernel(struct relay *relay, uint32_t index)
{
	struct linger orderly = { 0 };

	setsockopt(relay->sockets[index], SOL_SOCKET, SO_LINGER, &orderly, sizeof(orderly));
	close(relay->sockets[index]);
	relay->sockets[index] = -1;
}

bool clients_release(struct relay *relay, struct flow *flow, enum flow_state was)
{
	uint32_t index = relay_index(relay, flow);

	if (was != FLOW_RESTING)
		unlink_wire(relay, flow);
	if (relay->ends && (was == FLOW_CLOSING || was == FLOW_RESTING)) {
		leave_to_kernel(relay, index);
		return true;
	}
	/* what the server has not read yet its kernel still delivers */
	if (was == FLOW_CLOSING && !is_closed(relay->sockets[index]))
		return false;
	take_back(relay, flow);
	return true;
}

/* --- listeners of the plug-in --- */

static struct client_listener *find_listener(struct relay *relay, const struct dmm_endpoint *local)
{
	for (uint32_t i = 0; i < relay->n_listeners; i++)
		if (relay->listeners[i].local.port == local->port &&
		    memcmp(relay->listeners[i].local.addr, local->addr, 16) == 0)
			return &relay->listeners[i];
	return NULL;
}

/* No event of one that closes is ours any more. */
static void close_listener(struct relay *relay, struct client_listener *listener)
{
	relay->args.ops->set_user(listener->conn, NULL);
	relay->args.ops->close(listener->conn);
}

/* Those that nobody has come to for a while make room. */
void clients_upkeep(struct relay *relay)
{
	for (uint32_t i = relay->n_listeners; i-- > 0;) {
		struct client_listener *listener = &relay->listeners[i];

		if (relay->now - listener->used_at < LISTENER_IDLE || relay->n_half_open > 0)
			continue;
		close_listener(relay, listener);
		*listener = relay->listeners[--relay->n_listeners];
	}
}

/* The plug-in's listener there; it is made when the first client comes. */
static bool has_listener(struct relay *relay, const struct dmm_endpoint *local)
{
	struct client_listener *listener = find_listener(relay, local);
	const struct dmm_stack_ops *ops = relay->args.ops;

	if (!listener) {
		if (relay->n_listeners == RELAY_MAX_LISTENERS || !ops->listen)
			return false;
		listener = &relay->listeners[relay->n_listeners];
		listener->local = *local;
		if (ops->listen(relay->args.stack, local, BACKLOG, NULL, &listener->conn) < 0)
			return false;
		relay->n_listeners++;
	}
	listener->used_at = relay->now;
	return true;
}

/* --- a client comes --- */

static struct flow *begin(struct relay *relay, const struct dmm_endpoint *local,
			  const struct dmm_endpoint *remote)
{
	enum dmm_family family = family_of(local);
	struct flow *flow = claim(relay, family);

	relay->is_served[family] = true;
	clients_want_sockets(relay);
	if (!flow)
		return NULL;
	*flow = (struct flow){
		.state = FLOW_HALF_OPEN,
		.is_client = true,
		.app_fd = -1,
		.noted = flow->noted,
		.local = *local,
		.remote = *remote,
		.deadline = relay->now + HANDSHAKE_PATIENCE,
	};
	if (!link_wire(relay, relay_index(relay, flow), local, remote)) {
		flow->state = FLOW_FREE;
		relay_free_port(relay, flow);
		put_at_rest(relay, family, relay_index(relay, flow));
		return NULL;
	}
	pending_list(relay, flow);
	relay_enter_active(relay);
	relay->n_half_open++;
	return flow;
}

static bool has_socket(struct relay *relay, const struct dmm_endpoint *local)
{
	clients_want_sockets(relay);
	return relay->n_at_rest[family_of(local)] > 0;
}

enum relay_syn relay_on_client_syn(struct relay *relay, const struct dmm_endpoint *local,
				   const struct dmm_endpoint *remote)
{
	if (relay_flow_of_port(relay, local->port))
		return RELAY_SYN_PASS; /* an application's connection, or nobody's: the plug-in knows */
	if (has_listener(relay, local)) {
		if (clients_find(relay, local, remote))
			return RELAY_SYN_PASS;
		/* without a socket for it, a client that has a cookie would wait for a greeting */
		if (relay->n_half_open >= MAX_HALF_OPEN && has_socket(relay, local))
			return RELAY_SYN_COOKIE;
		if (relay->n_half_open < MAX_HALF_OPEN && begin(relay, local, remote))
			return RELAY_SYN_PASS;
	}
	relay->args.shared->clients_dropped++;
	return RELAY_SYN_DROP;
}

bool relay_is_unknown(struct relay *relay, const struct dmm_endpoint *local,
		      const struct dmm_endpoint *remote)
{
	return !relay_flow_of_port(relay, local->port) && !clients_find(relay, local, remote);
}

bool relay_on_client_cookie(struct relay *relay, const struct dmm_endpoint *local,
			    const struct dmm_endpoint *remote, uint32_t isn)
{
	struct flow *flow = has_listener(relay, local) ? begin(relay, local, remote) : NULL;

	if (!flow) {
		relay->args.shared->clients_dropped++;
		return false;
	}
	flow->by_cookie = true;
	flow->wire_seq = isn;
	relay->args.shared->cookies_taken++;
	return true;
}

bool relay_came_by_cookie(struct relay *relay, const struct dmm_endpoint *local,
			  const struct dmm_endpoint *remote, uint32_t *ret_isn)
{
	const struct flow *flow = clients_find(relay, local, remote);

	if (!flow || !flow->by_cookie)
		return false;
	if (ret_isn)
		*ret_isn = flow->wire_seq;
	return true;
}

struct flow *relay_on_client(struct relay *relay, struct dmm_conn *conn,
			     const struct dmm_endpoint *local, const struct dmm_endpoint *remote)
{
	struct flow *flow = clients_find(relay, local, remote);

	if (!flow || flow->state != FLOW_HALF_OPEN)
		return NULL;
	flow->conn = conn;
	flow->state = FLOW_JOINING;
	relay->n_half_open--;
	relay_note(relay, flow);
	return flow;
}

/* --- the server --- */

static void start_join(struct relay *relay, struct flow *flow)
{
	const uint32_t index = relay_index(relay, flow);
	struct epoll_event event = watch_event(EPOLLOUT | EPOLLET, WATCH_APP, index);
	struct sockaddr_in6 to6 = { .sin6_family = AF_INET6, .sin6_port = flow->local.port };
	struct sockaddr_in to4 = { .sin_family = AF_INET, .sin_port = flow->local.port };
	bool v4 = family_of(&flow->local) == DMM_FAMILY_V4;
	int fd = relay->sockets[index];

	memcpy(&to6.sin6_addr, flow->local.addr, 16);
	memcpy(&to4.sin_addr, flow->local.addr + 12, 4);
	flow->app_fd = fd;
	flow->deadline = relay->now + JOIN_PATIENCE;
	relay->args.ops->set_option(flow->conn, DMM_OPT_NODELAY, 1);
	if (epoll_ctl(relay->args.epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ||
	    (connect(fd, v4 ? (struct sockaddr *)&to4 : (struct sockaddr *)&to6,
		     v4 ? sizeof(to4) : sizeof(to6)) < 0 &&
	     errno != EINPROGRESS))
		relay_free_flow(relay, flow); /* it went away: the client is reset */
}

static void joined(struct relay *relay, struct flow *flow)
{
	pending_unlist(relay, flow);
	flow->state = FLOW_OPEN;
	relay->args.shared->flows_opened++;
	bytes_begin(relay, flow);
}

void clients_run(struct relay *relay, struct flow *flow)
{
	uint32_t events = flow->events;

	flow->events = 0;
	if (events & DMM_EV_EOF)
		flow->wire_eof = true;
	if (events & DMM_EV_ERROR) { /* the client gave up: the server's kernel is told */
		relay->args.shared->flows_reset++;
		relay_free_flow(relay, flow);
	} else if (flow->state == FLOW_JOINING && flow->app_fd < 0) {
		start_join(relay, flow);
	}
}

void clients_on_app(struct relay *relay, struct flow *flow, uint32_t epoll_events)
{
	if (flow->state == FLOW_RESTING) {
		if (is_closed(relay->sockets[relay_index(relay, flow)]))
			relay_free_flow(relay, flow);
	} else if (epoll_events & (EPOLLERR | EPOLLHUP)) {
		relay->args.shared->flows_refused++;
		relay_free_flow(relay, flow);
	} else if (epoll_events & EPOLLOUT) {
		joined(relay, flow);
	}
}

/* --- life --- */

int clients_open(struct relay *relay)
{
	relay->sockets = malloc(relay->n_flows * sizeof(*relay->sockets));
	for (int family = 0; family < DMM_NUM_FAMILIES; family++) {
		relay->at_rest[family] = calloc(relay->n_flows, sizeof(uint32_t));
		if (!relay->at_rest[family])
			return -ENOMEM;
	}
	if (!relay->sockets)
		return -ENOMEM;
	memset(relay->sockets, 0xff, relay->n_flows * sizeof(*relay->sockets));
	return 0;
}

void clients_close(struct relay *relay)
{
	for (uint32_t i = 0; i < relay->n_listeners; i++)
		close_listener(relay, &relay->listeners[i]);
	for (uint32_t i = 0; relay->sockets && i < relay->n_flows; i++)
		if (relay->sockets[i] >= 0)
			close(relay->sockets[i]);
	free(relay->sockets);
	for (int family = 0; family < DMM_NUM_FAMILIES; family++)
		free(relay->at_rest[family]);
}
