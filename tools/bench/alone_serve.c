/* SPDX-License-Identifier: Apache-2.0 */
/* A stack plug-in by itself as a server: the same services as serve.c, but linked with the instance's
 * library and calling the plug-in from its own loop. Says "ready" on stdout once it listens.
 *
 *   alone_serve [-s] PLUGIN INTERFACE ADDRESS P
 *   -s: spin instead of sleeping;  ADDRESS: the interface's;  P: the first of the ports of services.h,
 *   all of them among those from ALONE_FIRST_PORT on */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#include "alone_stack.h"
#include "base/util.h"
#include "services.h"

#define BACKLOG 4096

/* A connection of ours; its place is free again once the stack has ended it. */
struct peer {
	struct dmm_conn *conn; /* NULL: closed */
	enum service service;
	bool fresh, ended;
	struct peer *next; /* free, or fresh */
};

static struct alone alone;
static struct peer peers[ALONE_PORTS];
static struct peer *free_peers, *fresh; /* fresh: accepted, and its first bytes are to be sent */
static char buf[1 << 17];

static void release(struct peer *peer)
{
	peer->next = free_peers;
	free_peers = peer;
}

static void lose(struct peer *peer)
{
	alone.ops->close(peer->conn);
	peer->conn = NULL;
}

/* A load waits for the response before it asks again: what does not fit is an error. */
static void echo(struct peer *peer)
{
	size_t len;

	while ((len = alone_take(&alone, peer->conn, buf, sizeof(buf))) > 0) {
		if (alone.ops->send(peer->conn, buf, len) == (ssize_t)len)
			continue;
		lose(peer);
		return;
	}
}

static void swallow(struct peer *peer)
{
	while (alone_take(&alone, peer->conn, buf, sizeof(buf)) > 0)
		;
}

static void fill(struct peer *peer)
{
	if (alone_fill(&alone, peer->conn, buf, sizeof(buf)) < 0)
		lose(peer);
}

/* --- what the stack tells --- */

static void *on_accepted(void *listen_user, struct dmm_conn *conn)
{
	const enum service *service = listen_user;
	struct peer *peer = free_peers;

	if (!peer)
		return NULL;
	free_peers = peer->next;
	*peer = (struct peer){ .conn = conn, .service = *service };
	alone.ops->set_option(conn, DMM_OPT_NODELAY, 1);
	if (peer->service == SEND) {
		peer->fresh = true;
		peer->next = fresh;
		fresh = peer;
	}
	return peer;
}

static void fill_fresh(void)
{
	while (fresh) {
		struct peer *peer = fresh;

		fresh = peer->next;
		peer->fresh = false;
		if (peer->ended)
			release(peer);
		else if (peer->conn)
			fill(peer);
	}
}

static void on_event(void *user, uint32_t events)
{
	struct peer *peer = user;

	if (events & (DMM_EV_CLOSED | DMM_EV_ERROR)) {
		peer->conn = NULL;
		peer->ended = true;
		if (!peer->fresh) /* else fill_fresh() does it */
			release(peer);
		return;
	}
	if (events & DMM_EV_READABLE && peer->service == ECHO)
		echo(peer);
	else if (events & DMM_EV_READABLE)
		swallow(peer);
	if (peer->conn && events & DMM_EV_WRITABLE && peer->service == SEND)
		fill(peer);
	if (peer->conn && events & DMM_EV_EOF)
		lose(peer);
}

/* --- the loop --- */

static int listen_all(const union address *address, uint16_t base)
{
	static const enum service services[] = { ECHO, SWALLOW, SEND };
	int r = 0;

	for (unsigned int i = 0; i < SERVE_PORTS && r == 0; i++) {
		struct dmm_endpoint local;
		struct dmm_conn *listener;

		alone_endpoint(address, base + i, &local);
		r = alone.ops->listen(alone.stack, &local, BACKLOG,
				      (void *)&services[service_of(i)], &listener);
	}
	return r;
}

static int serve(const union address *address, uint16_t base)
{
	int r = alone.ops->listen ? listen_all(address, base) : -ENOTSUP;

	if (r < 0)
		return r;
	for (size_t i = 0; i < DMM_ARRAY_SIZE(peers); i++)
		release(&peers[i]);
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		alone_receive(&alone);
		fill_fresh();
		alone_send(&alone);
	}
}

int main(int argc, char **argv)
{
	union address address;
	int option, r, port;

	while ((option = getopt(argc, argv, "s")) > 0) {
		if (option != 's')
			return 2;
		alone.spin = true;
	}
	argv += optind;
	port = argc - optind == 4 ? atoi(argv[3]) : 0;
	if (port < ALONE_FIRST_PORT || port + SERVE_PORTS > ALONE_FIRST_PORT + ALONE_PORTS ||
	    !address_parse(argv[2], 0, &address)) {
		fprintf(stderr, "usage: alone_serve [-s] PLUGIN INTERFACE ADDRESS PORT\n");
		return 2;
	}
	alone.plugin_path = argv[0];
	alone.ifname = argv[1];
	alone.event = on_event;
	alone.accepted = on_accepted;
	r = alone_open(&alone);
	if (r == 0)
		r = serve(&address, port);
	fprintf(stderr, "alone_serve: %s\n", strerror(-r));
	alone_close(&alone);
	return 1;
}
