/* SPDX-License-Identifier: Apache-2.0 */
/* Two native engines on a link of a simulated clock. All chance comes from one seed, so a run
 * repeats exactly. At every step it checks what must always hold; what does not is a violation,
 * printed with the seed and counted. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <dmm/net.h>

#define NETSIM_MS  1000000ull
#define NETSIM_SEC (1000 * NETSIM_MS)

/* One direction of the link. Chances are per mille; times are ns from the beginning. */
struct netsim_link {
	uint64_t delay, jitter; /* ns */
	uint64_t rate;		/* bytes per second, 0: no limit */
	uint32_t queue;		/* of 1500 bytes that wait at most for that, 0: no limit */
	uint32_t loss, dup, corrupt, reorder;
	uint32_t mark;	     /* of those that know of it: by a router with a queue (RFC 3168) */
	uint32_t recut;	     /* a segment goes on as two */
	uint32_t fragment;   /* a packet goes on as fragments */
	uint32_t forge;	     /* behind it comes what an attacker sent who does not see it */
	uint64_t reorder_by; /* so much later they come */
	uint64_t
		stall_every; /* 0: never; for stall_for, nothing gets through: what is sent waits */
	uint64_t stall_for;
	uint64_t dead_from, dead_until; /* all is lost */
	uint32_t mtu; /* larger packets vanish; with @says_so, an ICMP comes back */
	uint64_t mtu_from;
	bool says_so;
	bool no_timestamps; /* SYNs lose that option; on both, or an end takes it for agreed */
};

/* What the links did, and what was seen on them. */
struct netsim_seen {
	uint64_t packets, lost, queue_full, dead, stalled, reordered, duplicated, corrupted, recut;
	uint64_t marked, fragmented, forged_resets, forged_syns, too_big, told_too_big;
	uint64_t zero_windows, resets, outages;
};

struct netsim_params {
	uint64_t seed;
	bool v6;
	struct netsim_link link[2];	 /* [0]: from engine 0 to 1 */
	struct dmm_net_config config[2]; /* what is 0 gets a default */
};

struct netsim;

/* A connection as its user sees it, on either side: it sends @to_send bytes of a known pattern,
 * checks what comes, and closes when both are done. */
struct netsim_conn {
	struct netsim *sim;
	struct dmm_net_conn *conn; /* NULL: the handle is dead */
	unsigned int side;
	uint64_t to_send, sent, received;
	uint64_t expect; /* bytes that the other side will send */
	bool connected, eof, shut, closing, closed;
	bool blocked;	     /* send() came up short, and nobody told of room yet */
	bool hold;	     /* sends and reads only when the test does it */
	bool keep_open;	     /* does not close by itself */
	bool patient;	     /* waits an hour for an ACK */
	bool may_fail;	     /* an error is no violation */
	uint32_t keep_alive; /* s */
	uint64_t slow_until; /* reads nothing before that */
	uint32_t chunk;	     /* bytes at most per call, 0: any */
	int err;
	uint32_t events; /* all seen */
	uint32_t most_held;
	uint64_t moved_at, silence; /* when something happened to it last; the longest without */
	/* for what must hold from one step to the next */
	struct netsim_conn *peer;
	struct dmm_net_info info;
	bool watched; /* @info is of one that is open */
};

/* What each packet that leaves is shown to, if set; false drops it. */
typedef bool (*netsim_tap)(struct netsim *sim, unsigned int from, uint8_t *packet, uint32_t len,
			   void *arg);

struct netsim *netsim_new(const struct netsim_params *params);
/* Everything must be given back by then; returns the violations. */
unsigned int netsim_end(struct netsim *sim);
struct dmm_net *netsim_engine(struct netsim *sim, unsigned int side);
struct netsim_link *netsim_link(struct netsim *sim, unsigned int from);
uint64_t netsim_now(const struct netsim *sim);
const struct netsim_seen *netsim_seen(const struct netsim *sim);
/* The next of the numbers that begin with *@state, which is not 0. */
uint64_t netsim_roll(uint64_t *state);
void netsim_set_tap(struct netsim *sim, netsim_tap tap, void *arg);
void netsim_violation(struct netsim *sim, const char *what);

struct dmm_endpoint netsim_endpoint(const struct netsim *sim, unsigned int side, uint16_t port);
/* @accepted is copied for each connection that comes. */
int netsim_listen(struct netsim *sim, unsigned int side, uint16_t port, int backlog,
		  const struct netsim_conn *accepted);
void netsim_unlisten(struct netsim *sim, unsigned int side);
int netsim_connect(struct netsim *sim, unsigned int side, uint16_t local_port, uint16_t port,
		   struct netsim_conn *conn);
/* The last connection that @side accepted. */
struct netsim_conn *netsim_accepted(struct netsim *sim, unsigned int side);
unsigned int netsim_n_accepted(const struct netsim *sim, unsigned int side);
/* All connections of @side end at once. */
void netsim_abort(struct netsim *sim, unsigned int side);
/* That every connection so far is. */
bool netsim_all_closed(const struct netsim *sim);
/* Puts a packet in front of an engine, at once. */
void netsim_inject(struct netsim *sim, unsigned int to, const void *packet, uint32_t len);

/* One step of time; false: nothing will ever happen again. */
bool netsim_step(struct netsim *sim);
/* Until nothing happens any more, or @for_ns have passed; true: nothing does. */
bool netsim_run(struct netsim *sim, uint64_t for_ns);
bool netsim_until(struct netsim *sim, const bool *flag, uint64_t for_ns);
