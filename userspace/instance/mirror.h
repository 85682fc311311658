/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel knows of addresses, routes and neighbours, by netlink. Read-only: works without
 * privilege. Addresses are kept as a copy; a route or a neighbour is asked for when it is first
 * needed and then followed by notifications, so that large tables cost nothing. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "instance/addrset.h"

struct mnl_socket;

/* A neighbour of our interface as the kernel has it. */
enum mirror_reach {
	MIRROR_UNKNOWN, /* none, or being resolved */
	MIRROR_STALE,	/* usable, to be confirmed */
	MIRROR_FRESH,
	MIRROR_FAILED, /* it did not answer */
};

struct mirror_neighbour {
	uint8_t addr[16];
	uint8_t mac[6];
	enum mirror_reach reach;
};

/* Called from mirror_run(). */
struct mirror_events {
	void *ctx;
	void (*neighbour)(void *ctx, const struct mirror_neighbour *n);
	void (*routes)(void *ctx);    /* any may have changed */
	void (*interface)(void *ctx); /* addresses, MTU or MAC: read them again below */
	void (*lost)(void *ctx);      /* notifications were lost: nothing remembered holds */
};

/* The host's addresses. */
struct mirror_addrs {
	struct addrset set;
	uint8_t (*list)[16]; /* the unicast ones but loopback's, the interface's own first */
	uint32_t n, room;
};

struct mirror {
	struct mnl_socket *query, *watch;
	struct mirror_events events;
	uint32_t ifindex;
	uint32_t mtu;
	uint8_t mac[6];
	bool gone; /* the interface was removed */
	struct mirror_addrs own;
};

/* @query and @watch: rtnetlink sockets that are not bound, owned from here on in any case. */
int mirror_open(struct mirror *m, uint32_t ifindex, int query, int watch,
		const struct mirror_events *events);
void mirror_close(struct mirror *m);
/* Becomes readable when mirror_run() has something to do. */
int mirror_fd(const struct mirror *m);
void mirror_run(struct mirror *m);

/* Where packets from @src to @dst go: 0 and the next hop's address (@dst itself where it is on the
 * link). -ENETUNREACH, -EHOSTUNREACH, ...: as the kernel says; -ENETUNREACH also where it leaves by
 * another interface. */
int mirror_route(struct mirror *m, const uint8_t dst[16], const uint8_t src[16],
		 uint8_t ret_hop[16]);
void mirror_neighbour(struct mirror *m, const uint8_t addr[16], struct mirror_neighbour *ret);
