/* SPDX-License-Identifier: Apache-2.0 */
/* The instance as a whole: what it was given, its parts, and the loop that runs them. Each
 * host_*_up() is a stage of main(), each host_*_down() undoes it. */
#pragma once

#include <stdbool.h>

#include "instance/isn.h"
#include "instance/link.h"
#include "instance/master.h"
#include "instance/plugin.h"
#include "instance/relay.h"
#include "instance/sandbox.h"
#include "instance/takeover.h"

struct ring_buffer; /* libbpf's */

struct host {
	int handover_fd;
	struct takeover given;
	int epoll_fd;
	struct master master;
	struct dmm_inst_shared *shared;
	struct ring_buffer *ring;
	struct mirror mirror;
	struct nexthops nexthops;
	struct link link;
	struct plugin plugin;
	bool empty_root;
	struct sandbox sandbox;
	struct dmm_host callbacks;
	struct dmm_stack *stack;
	struct relay *relay;

	uint64_t now;
	uint64_t tick_at; /* when the plug-in wants to be called */
	uint64_t next_upkeep;
	uint64_t worked_at;	    /* the last turn that had anything to do */
	uint64_t stop_at;	    /* while draining and idle; 0: not yet */
	uint64_t rx_dropped_before; /* by the kernel, as last read */
	struct isn isn;
	uint64_t cookies_until;	  /* somebody may have one */
	uint64_t cookies_said_at; /* in the log; 0: never */
	bool draining, stopping;
	uint64_t ask_for_sockets_at[DMM_NUM_FAMILIES]; /* not before */
	int error;				       /* negative errno: the loop ends with it */
	uint8_t random[256];			       /* drawn ahead */
	size_t n_random;
};

/* --- host.c: stages --- */
int host_handover_up(struct host *host);
void host_handover_down(struct host *host);
int host_shared_up(struct host *host);
void host_shared_down(struct host *host);
int host_network_up(struct host *host);
void host_network_down(struct host *host);
int host_ring_up(struct host *host);
void host_ring_down(struct host *host);
int host_plugin_up(struct host *host);
void host_plugin_down(struct host *host);
int host_privileges_up(struct host *host);
int host_root_up(struct host *host);
int host_pktio_up(struct host *host);
void host_pktio_down(struct host *host);
int host_sandbox_up(struct host *host);
int host_stack_up(struct host *host);
void host_stack_down(struct host *host);
int host_relay_up(struct host *host);
void host_relay_down(struct host *host);
int host_ready_up(struct host *host);

/* Why it ends: logged, told to dmmd, and left in the shared page. Returns @err. */
int host_fail(struct host *host, int err, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void host_set_last_words(struct host *host, const char *text);

/* --- host_callbacks.c: what plug-in, link and relay call --- */
void host_fill_callbacks(struct host *host);
struct link_events host_link_events(struct host *host);
struct nexthop_events host_nexthop_events(struct host *host);
struct mirror_events host_mirror_events(struct host *host);
struct relay_outside host_relay_outside(struct host *host);
void host_fill_params(const struct host *host, struct dmm_stack_params *ret);

/* --- host_clients.c: for struct link_events --- */
bool host_on_client_syn(void *ctx, const struct packet *p, const struct dmm_frame *frame);
bool host_on_client_ack(void *ctx, const struct packet *p, const struct dmm_frame *frame);

/* --- loop.c --- */
/* Runs until dmmd says stop, a drain is through, or something ends it: 0 or negative errno. */
int host_run(struct host *host);
