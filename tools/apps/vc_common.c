/* SPDX-License-Identifier: Apache-2.0 */
/* vc_common: a client that has each of its messages sent back, over one or more connections by turns,
 * and compares every byte. */
#include "lib/apps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct client {
	struct app_options o;
	struct app_meter meter;
	char *sent, *got;
	int *fds;
};

/* Another one for each connection and message. */
static void fill(char *message, size_t length, unsigned int connection, uint64_t n)
{
	uint64_t x = n * 0x9e3779b97f4a7c15 + connection + 1;

	for (size_t i = 0; i < length; i++) {
		x = x * 6364136223846793005 + 1442695040888963407;
		message[i] = (char)(x >> 56);
	}
}

static void exchange(struct client *c, unsigned int i, uint64_t n)
{
	int r;

	fill(c->sent, c->o.length, i, n);
	r = app_write(c->fds[i], c->sent, c->o.length);
	if (r < 0)
		app_fail("send", r);
	r = app_read(c->fds[i], c->got, c->o.length);
	if (r <= 0)
		app_fail("receive", r ? r : -EPIPE);
	if (memcmp(c->sent, c->got, c->o.length) != 0) {
		fprintf(stderr,
			"error: connection %u, message %" PRIu64 ": other bytes came back\n", i, n);
		exit(1);
	}
	app_meter_count(&c->meter);
}

int main(int argc, char **argv)
{
	struct client c;

	app_options_read(argc, argv, "sends messages and has them sent back", true, &c.o);
	c.sent = malloc(c.o.length);
	c.got = malloc(c.o.length);
	c.fds = calloc(c.o.fds, sizeof(*c.fds));
	if (!c.sent || !c.got || !c.fds)
		app_fail("memory", ENOMEM);
	for (unsigned int i = 0; i < c.o.fds; i++)
		c.fds[i] = app_connect_client(&c.o, i);
	app_meter_open(&c.meter, &c.o);
	for (uint64_t n = 0; n < c.o.messages; n++)
		for (unsigned int i = 0; i < c.o.fds; i++)
			exchange(&c, i, n);
	app_meter_end(&c.meter, "send", c.o.fds);
	for (unsigned int i = 0; i < c.o.fds; i++)
		close(c.fds[i]);
	free(c.fds);
	free(c.got);
	free(c.sent);
	return 0;
}
