/* SPDX-License-Identifier: Apache-2.0 */
/* A server with a thread for each connection. */
#include "apps.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct connection {
	app_serve_fn serve;
	struct app_meter *meter;
	pthread_t thread;
	int fd, result;
};

static void *run(void *arg)
{
	struct connection *c = arg;

	c->result = c->serve(c->fd, c->meter);
	if (c->result < 0)
		fprintf(stderr, "error: a connection: %s\n", strerror(-c->result));
	return NULL;
}

int app_serve_by_threads(int argc, char **argv, const char *what, app_serve_fn serve)
{
	struct app_options o;
	struct app_meter meter;
	struct connection *connections;
	int listener, failed = 0;
	unsigned int i;

	app_options_read(argc, argv, what, false, &o);
	connections = calloc(o.accepts, sizeof(*connections));
	if (!connections)
		app_fail("memory", ENOMEM);
	listener = app_listen(&o.own);
	app_meter_open(&meter, &o);
	for (i = 0; i < o.accepts; i++) {
		struct connection *c = &connections[i];
		int err;

		*c = (struct connection){ serve, &meter, .fd = app_accept(listener) };
		err = pthread_create(&c->thread, NULL, run, c);
		if (err)
			app_fail("thread", err);
	}
	close(listener);
	for (i = 0; i < o.accepts; i++) {
		pthread_join(connections[i].thread, NULL);
		failed |= connections[i].result < 0;
	}
	app_meter_end(&meter, "received", o.accepts);
	free(connections);
	return failed;
}
