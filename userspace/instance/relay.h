/* SPDX-License-Identifier: Apache-2.0 */
/* The relay: joins each application's loopback connection with a wire connection of the plug-in.
 *
 * A flow is one wire port, so the flows are an array beside dmm_inst_shared.port[]. Its life:
 *
 *	FREE	    --SYN event--> CONNECTING	the application's SYN is held, the plug-in connects
 *	CONNECTING  --connected--> INJECTED	the SYN has been let go: the application's kernel
 *						now shakes hands with our listener
 *	CONNECTING  --refused, unreachable--> FREE   the application was told
 *	CONNECTING  --timed out, no memory--> STALLED  it is not told: its own kernel times out
 *	STALLED	    --SYN again--> CONNECTING
 *	INJECTED    --accept()--> OPEN		bytes are carried
 *	INJECTED    --SYN again--> INJECTED	injected once more
 *	OPEN	    --FIN both ways--> CLOSING	the application's side is done, the wire's not yet
 *	OPEN	    --RST either way--> FREE	passed on to the other side
 *	CLOSING	    --EV_CLOSED, EV_ERROR--> FREE   the port may be used again
 *	CONNECTING, STALLED, INJECTED --application gave up, deadline--> FREE
 *
 * The first three (CONNECTING, STALLED, INJECTED) are "pending": found by the application's address,
 * under a deadline. `conn` is the plug-in's in all states but FREE and STALLED, and NULL once it said
 * EV_ERROR; `app_fd` is open in OPEN only. The port is USED in all states but FREE.
 *
 * Plug-in events are only noted when they come and acted upon in relay_run(), so nothing here is
 * entered from inside the plug-in, and one burst of segments costs one write. */
#pragma once

#include <dmm/abi/maps.h>
#include <dmm/stack.h>

#include "instance/icmp.h"

struct relay;
struct flow;

/* How the relay reaches beyond itself. */
struct relay_outside {
	void *ctx;
	/* Sends a packet to the application's kernel socket at @dst. */
	void (*inject)(void *ctx, enum dmm_family family, const uint8_t dst[16],
		       const uint8_t *packet, size_t len);
	/* More sockets to talk to servers with are welcome. */
	void (*want_sockets)(void *ctx, enum dmm_family family);
	/* 0, or a negative errno where no route leads to @remote. */
	int (*route)(void *ctx, const uint8_t remote[16], const uint8_t local[16]);
};

struct relay_args {
	const struct dmm_stack_ops *ops;
	struct dmm_stack *stack;
	struct dmm_inst_shared *shared;
	uint16_t port_first, port_last;
	int listeners[DMM_NUM_FAMILIES]; /* borrowed; -1: none */
	int epoll_fd;
	struct relay_outside outside;
};

int relay_open(const struct relay_args *args, struct relay **ret);
/* Resets what is left, both ways. */
void relay_close(struct relay *relay);

/* What happened; @now is of this turn. */
void relay_set_now(struct relay *relay, uint64_t now);
void relay_on_ring(struct relay *relay, const struct dmm_event *event);
void relay_on_listener(struct relay *relay, enum dmm_family family);
void relay_on_app(struct relay *relay, uint32_t flow, uint32_t epoll_events);
void relay_on_stack(struct relay *relay, struct flow *flow, uint32_t events, int err);
void relay_on_icmp(struct relay *relay, const struct icmp_error *error);
/* A SYN of ours goes out on the wire: by its number ICMP errors about it are known. */
void relay_on_wire_syn(struct relay *relay, uint16_t local_port, uint32_t seq);
/* A client's SYN came. What becomes of it: */
enum relay_syn {
	RELAY_SYN_DROP,
	RELAY_SYN_PASS,	  /* to the plug-in */
	RELAY_SYN_COOKIE, /* too many are half open: nothing is to be remembered of it */
};
enum relay_syn relay_on_client_syn(struct relay *relay, const struct dmm_endpoint *local,
				   const struct dmm_endpoint *remote);
/* A client came back with the SYN cookie @isn. False: there is no room for it now. */
bool relay_on_client_cookie(struct relay *relay, const struct dmm_endpoint *local,
			    const struct dmm_endpoint *remote, uint32_t isn);
/* May @local and @remote be a client with a cookie: nobody that is known? */
bool relay_is_unknown(struct relay *relay, const struct dmm_endpoint *local,
		      const struct dmm_endpoint *remote);
/* Did the client come with a SYN cookie? Then @ret_isn, if not NULL, is that. */
bool relay_came_by_cookie(struct relay *relay, const struct dmm_endpoint *local,
			  const struct dmm_endpoint *remote, uint32_t *ret_isn);
/* Its handshake is done: the flow, NULL: reset it. */
struct flow *relay_on_client(struct relay *relay, struct dmm_conn *conn,
			     const struct dmm_endpoint *local, const struct dmm_endpoint *remote);
/* Takes over a socket that is bound to @port of the range. False: of no use, and closed. */
bool clients_add_socket(struct relay *relay, enum dmm_family family, uint16_t port, int fd);
/* Ends the attempts whose remote @is_lost. */
void relay_on_unreachable(struct relay *relay,
			  bool (*is_lost)(void *ctx, const uint8_t remote[16],
					  const uint8_t local[16]),
			  void *ctx);

/* Acts upon what was noted, and on deadlines. Returns whether there was anything. */
bool relay_run(struct relay *relay);
/* Flows that are not yet done with their application; those the wire is not done with. */
uint32_t relay_active(const struct relay *relay);
uint32_t relay_closing(const struct relay *relay);
void relay_reset_all(struct relay *relay);
