/* SPDX-License-Identifier: Apache-2.0 */
/* A stack plug-in in the loop of the program that uses it: what alone.c and alone_serve.c share. The
 * instance's library does the network around it; an XDP program of its own leads ALONE_PORTS to it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <dmm/stack.h>

#include "instance/isn.h"
#include "instance/link.h"
#include "instance/plugin.h"
#include "measure.h"

#define ALONE_FIRST_PORT 20000 /* as in floor.bpf.c */
#define ALONE_PORTS	 12000

struct floor_bpf;

struct alone {
	/* The owner's, before alone_open(). */
	const char *ifname, *plugin_path;
	bool spin; /* instead of sleeping */
	void (*event)(void *user, uint32_t events);
	/* A new connection: returns its user, NULL to refuse. Not needed where nothing listens. */
	void *(*accepted)(void *listen_user, struct dmm_conn *conn);

	/* The owner's to read. */
	const struct dmm_stack_ops *ops;
	struct dmm_stack *stack;
	uint64_t now; /* of this turn */

	uint64_t tick_at, worked_at, upkeep_at;
	struct floor_bpf *xdp;
	struct mirror mirror;
	struct nexthops nexthops;
	struct link link;
	struct dmm_inst_shared shared;
	struct plugin plugin;
	struct dmm_host host;
	struct isn isn;
};

/* alone_close() is due on failure, too. */
int alone_open(struct alone *a);
void alone_close(struct alone *a);

/* One turn is both, in this order: sleeps if there is nothing to do, takes what has come ... */
void alone_receive(struct alone *a);
/* ... and sends what has been said since. */
void alone_send(struct alone *a);

void alone_endpoint(const union address *addr, uint16_t port, struct dmm_endpoint *ret);
/* The interface's own first address of @remote's IP version. */
void alone_local(const struct alone *a, const struct dmm_endpoint *remote,
		 struct dmm_endpoint *ret);

/* An application reads what it is given: copies received bytes to @buf; returns how many. */
size_t alone_take(const struct alone *a, struct dmm_conn *conn, char *buf, size_t size);
/* Sends the @size bytes of @buf again and again until no more fits; returns how many bytes that were,
 * or a negative errno. */
ssize_t alone_fill(const struct alone *a, struct dmm_conn *conn, const char *buf, size_t size);
