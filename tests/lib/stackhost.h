/* SPDX-License-Identifier: Apache-2.0 */
/* A host for stack plug-ins, as dmm-stack is, over a wire of the test's choice: a file descriptor
 * that carries one IP packet per read or write (a SOCK_SEQPACKET socket to another process, a TUN
 * device), or none: then the test plays the network packet by packet.
 *
 * It watches what the plug-in does: frames that are not given back, packets with a wrong checksum,
 * too long, or from a foreign address, events that <dmm/stack.h> forbids. Each is a violation,
 * printed and counted. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <dmm/stack.h>

#define STACKHOST_MAX_ADDRS 8
#define STACKHOST_FRAMES    4096

struct stackhost_params {
	const char *plugin; /* path of the .so */
	int wire;	    /* file descriptor, -1: none */
	uint32_t mtu, max_conns, conn_memory;
	const char *addrs[STACKHOST_MAX_ADDRS]; /* "10.0.0.1", "fd00::1" */
	/* What goes out: per mille lost, per mille sent after the next one; by seed. */
	unsigned int drop, swap;
	uint64_t seed;
	bool manual_clock; /* time stands still but for stackhost_pass() */
};

struct stackhost;

/* One connection as its user sees it. */
struct stackhost_conn {
	struct stackhost *host;
	struct dmm_conn *conn; /* NULL: the handle is dead */
	struct dmm_endpoint local, remote;
	uint32_t seen; /* all events so far */
	uint32_t told; /* how many times any came */
	int err;
	bool closing;		     /* close() was called */
	bool connects;		     /* EV_CONNECTED is due */
	bool allocated;		     /* by the host, when it was accepted */
	struct stackhost_conn *next; /* of those */
	bool sends_short;	     /* EV_WRITABLE may come */
	uint64_t sent, received;     /* the test's own counts */
	void (*on_event)(struct stackhost_conn *c, uint32_t events); /* optional */
	void *arg;
};

/* A listener: @on_event is set for each connection that comes. */
struct stackhost_listener {
	struct stackhost_conn self;
	void (*on_event)(struct stackhost_conn *c, uint32_t events);
	void *arg;
	unsigned int accepted;
	bool refuse;
};

int stackhost_open(const struct stackhost_params *params, struct stackhost **ret);
/* Destroys the stack; returns the violations seen in all. */
unsigned int stackhost_close(struct stackhost *host);

const struct dmm_stack_ops *stackhost_ops(const struct stackhost *host);
struct dmm_stack *stackhost_stack(const struct stackhost *host);
uint64_t stackhost_now(const struct stackhost *host);

bool stackhost_endpoint(const char *addr, uint16_t port, struct dmm_endpoint *ret);
/* From our first address of the family, from the port given (0: the next one in turn). */
int stackhost_connect(struct stackhost *host, const char *addr, uint16_t port, uint16_t local_port,
		      struct stackhost_conn *ret);
int stackhost_listen(struct stackhost *host, const char *addr, uint16_t port, int backlog,
		     struct stackhost_listener *ret);
ssize_t stackhost_send(struct stackhost_conn *c, const void *buf, size_t len);
/* Copies out and consumes up to @len bytes. */
size_t stackhost_recv(struct stackhost_conn *c, void *buf, size_t len);
void stackhost_close_conn(struct stackhost_conn *c);
void stackhost_abort(struct stackhost_conn *c);

/* One turn of the loop: waits on the wire at most until the plug-in's deadline or @ms. */
void stackhost_turn(struct stackhost *host, int ms);
/* Turns until @done(@arg) or @ms have passed; returns the last @done(@arg). */
bool stackhost_until(struct stackhost *host, bool (*done)(void *arg), void *arg, int ms);
/* Until any of @events was seen on @c. */
bool stackhost_wait(struct stackhost_conn *c, uint32_t events, int ms);
/* False once the other end of the wire is closed. */
bool stackhost_alive(const struct stackhost *host);

/* Without a wire */

void stackhost_input(struct stackhost *host, const void *packet, size_t len);
/* The oldest packet that was sent and not taken yet, else 0. */
size_t stackhost_take(struct stackhost *host, void *buf, size_t size);
/* Time passes, and the plug-in is called when it wants to be. */
void stackhost_pass(struct stackhost *host, uint64_t ms);
void stackhost_set_starved(struct stackhost *host, bool starved);
/* How many frames the plug-in or the wire hold. */
unsigned int stackhost_frames_out(const struct stackhost *host);
/* The sequence number that the plug-in was last given. */
uint32_t stackhost_last_isn(const struct stackhost *host);
