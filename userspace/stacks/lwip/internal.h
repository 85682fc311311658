/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the lwIP plug-in share: the stack, its connections, and who does what.
 *
 * lwIP is run from tick() alone: none of its own timers, threads or clock. Its callbacks only note
 * what happened; the host hears of it when lwIP has returned (dmm_lwip_leave), so that it may call
 * back into a connection, close or abort it from within event() without lwIP noticing. */
#pragma once

#include <lwip/netif.h>
#include <lwip/priv/tcp_priv.h>
#include <lwip/tcp.h>

#include <dmm/stack.h>

/* Beside enum DMM_EV_*: the host has not been told of this accepted connection yet. */
#define LWIP_EV_ACCEPTED (1u << 31)

/* TIME-WAIT is left to lwIP for so many connections; the oldest goes for the newest. */
#define LWIP_MAX_TIME_WAIT 256u

/* A connection or listener.
 *
 * @pcb is lwIP's part; it goes away first (reset, timeout, TIME-WAIT), and then is NULL while the
 * host still holds the conn. The conn itself is freed in dmm_lwip_leave() only: after EV_ERROR,
 * EV_CLOSED or abort(), always by way of the ready list. */
struct dmm_conn {
	struct dmm_stack *stack;
	struct tcp_pcb *pcb;
	void *user;
	struct dmm_conn *prev, *next; /* in stack->conns */
	struct dmm_conn *ready_next;
	uint32_t events; /* to be told */
	int err;

	bool listening;
	bool queued;	 /* on the ready list */
	bool connected;	 /* the handshake is done */
	bool shut;	 /* FIN is sent or queued */
	bool closing;	 /* close() was called */
	bool dead;	 /* abort() was called: nobody may be told anything */
	bool want_write; /* send() came up short */

	/* Received bytes: pbufs linked by next, each by itself (tot_len: room it takes). The room
	 * left in the last one is for small segments to follow. */
	struct pbuf *rx_head, *rx_tail;
	uint32_t rx_bytes, rx_held, rx_room;
	uint32_t window; /* receive window when nothing waits */

	unsigned int syn_tries;	     /* SYNs sent again */
	unsigned int fin_wait_ticks; /* since close(), in FIN-WAIT-2 */
	unsigned int half_open, backlog;
};

struct dmm_stack {
	struct dmm_host host;
	struct netif netif;
	uint32_t max_conns, conn_memory;
	uint8_t (*addrs)[16];
	uint32_t n_addrs;

	struct dmm_conn *conns;
	uint32_t n_conns;
	struct dmm_conn *ready, **ready_tail;

	struct dmm_frame out[DMM_PKTIO_BATCH];
	bool out_is_news[DMM_PKTIO_BATCH]; /* a pure ACK of what none before it acknowledged */
	unsigned int n_out;
	bool gathers; /* from input() on, what is to be sent waits for tick() */
	unsigned int
		depth; /* calls into the plug-in that send frames and tell events at their end */
	bool starved;  /* the host had no frame: try again soon */
	uint64_t next_timer; /* ns; 0: none runs */

	uint64_t segs_in, segs_out, retransmits, resets_sent;
};

/* stack.c */

/* Brackets every call that runs lwIP: at the end of the outermost, what lwIP has sent goes to the
 * host as one batch. After input() that is at the next tick(): the window that the host opens
 * meanwhile then travels with the ACK of what it has read. */
void dmm_lwip_enter(struct dmm_stack *stack);
void dmm_lwip_leave(struct dmm_stack *stack);
/* Tells the host what its connections noted, and frees those that are done. Not within lwIP. */
void dmm_lwip_tell(struct dmm_stack *stack);

/* conn.c */

struct dmm_conn *dmm_lwip_conn_new(struct dmm_stack *stack, void *user);
void dmm_lwip_conn_free(struct dmm_conn *conn);
/* Notes @events for the host. */
void dmm_lwip_note(struct dmm_conn *conn, uint32_t events);
/* Gives up a pcb without the host being told; @reset sends a RST. */
void dmm_lwip_drop_pcb(struct dmm_conn *conn, bool reset);
/* lwIP is told of @conn's callbacks; the handshake is done or starting. */
void dmm_lwip_attach(struct dmm_conn *conn, struct tcp_pcb *pcb);
/* The handshake is done: sets buffers and windows to what the host allows. */
void dmm_lwip_established(struct dmm_conn *conn);
/* Segments of @pcb carry at most @mss bytes from now on, those on their way too. */
void dmm_lwip_lower_mss(struct tcp_pcb *pcb, uint16_t mss);

int dmm_lwip_connect(struct dmm_stack *stack, const struct dmm_connect *args,
		     struct dmm_conn **ret);
ssize_t dmm_lwip_send(struct dmm_conn *conn, const void *buf, size_t len);
size_t dmm_lwip_send_space(struct dmm_conn *conn);
unsigned int dmm_lwip_recv_peek(struct dmm_conn *conn, struct iovec *iov, unsigned int n);
void dmm_lwip_recv_done(struct dmm_conn *conn, size_t len);
size_t dmm_lwip_unsent(struct dmm_conn *conn);
int dmm_lwip_shutdown(struct dmm_conn *conn);
void dmm_lwip_close(struct dmm_conn *conn);
void dmm_lwip_abort(struct dmm_conn *conn);
int dmm_lwip_set_option(struct dmm_conn *conn, enum dmm_stack_option option, int value);
void dmm_lwip_set_user(struct dmm_conn *conn, void *user);

/* listen.c */

int dmm_lwip_listen(struct dmm_stack *stack, const struct dmm_endpoint *local, int backlog,
		    void *user, struct dmm_conn **ret);
void dmm_lwip_unlisten(struct dmm_conn *conn);
/* False: this SYN's listener has as many half-open connections as it may. */
bool dmm_lwip_may_open(const struct dmm_stack *stack, const struct dmm_endpoint *local);
/* After a SYN went in: counts the half-open connection that it made. */
void dmm_lwip_count_half_open(struct tcp_pcb *pcb);

/* wire.c */

int dmm_lwip_wire_open(struct dmm_stack *stack, const struct dmm_stack_params *params);
void dmm_lwip_wire_close(struct dmm_stack *stack);
int dmm_lwip_wire_set(struct dmm_stack *stack, const struct dmm_stack_params *params);
bool dmm_lwip_is_ours(const struct dmm_stack *stack, const uint8_t addr[16]);
void dmm_lwip_input(struct dmm_stack *stack, const struct dmm_frame *frames, unsigned int n);
void dmm_lwip_icmp(struct dmm_stack *stack, const struct dmm_icmp *error);
/* What segments cost that wait for those before them. */
uint64_t dmm_lwip_out_of_order(const struct tcp_pcb *pcb);
/* TIME-WAIT of this very tuple ends: it is used again. */
void dmm_lwip_end_time_wait(const struct dmm_endpoint *local, const struct dmm_endpoint *remote);

bool dmm_lwip_is_v4(const uint8_t addr[16]);
void dmm_lwip_addr(const struct dmm_stack *stack, const uint8_t addr[16], ip_addr_t *ret);
void dmm_lwip_endpoint(const ip_addr_t *addr, uint16_t port, struct dmm_endpoint *ret);

/* isn.c */

/* lwIP's own initial sequence numbers count up from a constant. Between these two calls the next one it
 * hands out is @isn. They borrow lwIP's tick counter: give the pcbs that were touched meanwhile to
 * isn_end(). */
uint32_t dmm_lwip_isn_begin(uint32_t isn);
void dmm_lwip_isn_end(uint32_t ticks, struct tcp_pcb *touched);
