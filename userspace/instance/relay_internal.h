/* SPDX-License-Identifier: Apache-2.0 */
/* The relay's files among themselves: relay.c owns the flows and their ports, relay_pending.c what
 * happens until an application is connected, relay_clients.c the same for a client from the wire,
 * relay_bytes.c what happens after. */
#pragma once

#include "instance/inject.h"
#include "instance/relay.h"

#define RELAY_SCRATCH (128u << 10)
#define RELAY_HASH    4096

enum flow_state {
	FLOW_FREE,
	FLOW_CONNECTING,
	FLOW_STALLED,
	FLOW_INJECTED,
	FLOW_HALF_OPEN,
	FLOW_JOINING,
	FLOW_OPEN,
	FLOW_CLOSING,
	FLOW_RESTING,
};

/* The application's end of the loopback leg. */
struct flow_app {
	uint8_t addr[16];
	uint16_t port, relay_port; /* network order */
};

struct flow {
	enum flow_state state;
	int app_fd;
	struct dmm_conn *conn;
	uint32_t events; /* noted, DMM_EV_* */
	int err;

	bool is_client;		  /* it came from the wire */
	bool noted;		  /* is in relay->noted */
	bool can_read;		  /* the last read did not come up short */
	bool can_write;		  /* the last write did not come up short */
	bool greedy;		  /* urgent data or a FIN may hide behind a short read */
	bool app_eof, wire_eof;	  /* FIN came from there */
	bool app_shut, wire_shut; /* FIN was passed on to there */
	bool wire_seq_known;
	bool by_cookie; /* a client that has had our SYN-ACK: wire_seq was in it */

	struct dmm_endpoint local, remote;
	uint32_t wire_seq; /* of our SYN on the wire */

	/* while pending */
	struct flow_app app;
	uint64_t cookie;
	uint64_t deadline;
	uint32_t next_hash, next, prev; /* index + 1 */
	struct held_syn syn;
};

/* A listener of the plug-in's. */
struct client_listener {
	struct dmm_endpoint local;
	struct dmm_conn *conn;
	uint64_t used_at;
};
#define RELAY_MAX_LISTENERS 1024

struct relay {
	struct relay_args args;
	struct flow *flows;
	uint32_t n_flows;
	uint64_t now;
	uint64_t next_upkeep;
	uint32_t sweep_at;

	uint32_t *noted; /* ring of flows with events, each once */
	uint32_t first_noted, n_noted;

	uint32_t pending; /* list of those under a deadline, index + 1 */
	uint32_t hash[RELAY_HASH];

	uint16_t relay_ports[DMM_NUM_FAMILIES]; /* network order */
	bool accept_paused;
	uint32_t n_active, n_closing;
	uint32_t n_half_open;

	/* clients */
	int *sockets; /* of each port: bound to it, -1: none */
	/* Indices of sockets that no flow has: rings, so that one is used again as late as can be. Readers
	 * of its wire that are still there have long gone by then. */
	uint32_t *at_rest[DMM_NUM_FAMILIES];
	uint32_t first_at_rest[DMM_NUM_FAMILIES], n_at_rest[DMM_NUM_FAMILIES];
	bool ends;			  /* relay_close() is at work */
	bool is_served[DMM_NUM_FAMILIES]; /* a client of that family has come */
	struct client_listener listeners[RELAY_MAX_LISTENERS];
	uint32_t n_listeners;

	uint8_t scratch[RELAY_SCRATCH];
};

/* --- relay.c --- */
uint32_t relay_index(const struct relay *relay, const struct flow *flow);
void relay_note(struct relay *relay, struct flow *flow);
/* NULL: the port is not ours. */
struct flow *relay_flow_of_port(struct relay *relay, uint16_t port);
void relay_enter_active(struct relay *relay);
/* The application's side is done: the wire closes on its own. */
void relay_enter_closing(struct relay *relay, struct flow *flow);
/* Frees the flow and its port; a connection that is left is reset. */
void relay_free_flow(struct relay *relay, struct flow *flow);
void relay_free_port(struct relay *relay, struct flow *flow);
/* For whoever looks at the shared page: which flow the port has. */
void relay_fill_wire(struct relay *relay, uint32_t index, const struct dmm_endpoint *local,
		     const struct dmm_endpoint *remote);
/* Of a socket on loopback that an instance has. */
int relay_set_loopback_options(int fd);

/* --- relay_pending.c --- */
bool flow_is_pending(const struct flow *flow);
void pending_on_syn(struct relay *relay, const struct dmm_event *event);
void pending_on_closed(struct relay *relay, const struct dmm_event *event);
/* Acts upon flow->events. */
void pending_run(struct relay *relay, struct flow *flow);
void pending_end_by_icmp(struct relay *relay, struct flow *flow, const struct icmp_error *error);
void pending_accept(struct relay *relay, enum dmm_family family);
void pending_expire(struct relay *relay);
/* The list of those under a deadline. */
void pending_list(struct relay *relay, struct flow *flow);
void pending_unlist(struct relay *relay, struct flow *flow);
/* Takes the flow off the list and out of the hash. */
void pending_remove(struct relay *relay, struct flow *flow);

/* --- relay_clients.c --- */
int clients_open(struct relay *relay);
void clients_close(struct relay *relay);
bool client_is_pending(const struct flow *flow);
struct flow *clients_find(struct relay *relay, const struct dmm_endpoint *local,
			  const struct dmm_endpoint *remote);
/* Acts upon flow->events while there is no connection to the server. */
void clients_run(struct relay *relay, struct flow *flow);
void clients_on_app(struct relay *relay, struct flow *flow, uint32_t epoll_events);
void clients_want_sockets(struct relay *relay);
void clients_upkeep(struct relay *relay);
/* The flow is free but for its socket. False: the server's kernel has not got all bytes yet. */
bool clients_release(struct relay *relay, struct flow *flow, enum flow_state was);

/* --- relay_bytes.c --- */
void bytes_begin(struct relay *relay, struct flow *flow);
void bytes_on_app(struct relay *relay, struct flow *flow, uint32_t epoll_events);
void bytes_run(struct relay *relay, struct flow *flow);
