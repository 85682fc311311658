/* SPDX-License-Identifier: Apache-2.0 */
/* vc_fork: sends random strings of 50 bytes to vs_fork, and compares what comes back. */
#include "lib/apps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define STRING 50

static void draw(char *string)
{
	unsigned char random[STRING];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		abort();
	for (int i = 0; i < STRING - 1; i++)
		string[i] = (char)('a' + random[i] % 26);
	string[STRING - 1] = '\0';
}

/* 0 or negative errno */
static int exchange(int fd)
{
	char sent[STRING], got[STRING];
	int r;

	draw(sent);
	r = app_write(fd, sent, STRING);
	if (r < 0)
		return r;
	r = app_read(fd, got, STRING);
	if (r <= 0)
		return r ? r : -EPIPE;
	return memcmp(sent, got, STRING) == 0 ? 0 : -EBADMSG;
}

/* Says "#exit": nothing but the end comes then. */
static int end(int fd)
{
	char last[STRING] = "#exit";
	int r = app_write(fd, last, STRING);

	if (r == 0)
		r = app_read(fd, last, 1);
	return r > 0 ? -EBADMSG : r;
}

int main(int argc, char **argv)
{
	struct app_options o;
	uint64_t n = 0;
	int fd, r = 0;

	app_options_read(argc, argv, "sends random strings and has them sent back", true, &o);
	fd = app_connect_client(&o, 0);
	while (r == 0 && n < o.messages) {
		r = exchange(fd);
		n += r == 0;
	}
	if (r == 0)
		r = end(fd);
	close(fd);
	if (r < 0)
		fprintf(stderr, "error: after %" PRIu64 " strings: %s\n", n, strerror(-r));
	printf("Result = %s\n", r == 0 ? "Success" : "Fail");
	return r != 0;
}
