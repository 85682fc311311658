/* SPDX-License-Identifier: Apache-2.0 */
/* vc_fork: sends random strings of 50 bytes to vs_fork, and compares what comes back. */
#include "lib/apps.h"

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

static bool exchange(int fd)
{
	char sent[STRING], got[STRING];

	draw(sent);
	return app_write(fd, sent, STRING) == 0 && app_read(fd, got, STRING) > 0 &&
	       memcmp(sent, got, STRING) == 0;
}

int main(int argc, char **argv)
{
	char last[STRING] = "#exit";
	struct app_options o;
	uint64_t n = 0;
	bool good;
	int fd;

	app_options_read(argc, argv, "sends random strings and has them sent back", true, &o);
	if (o.client_port)
		app_addr_set_port(&o.own, o.client_port);
	fd = app_connect(&o.dest, &o.own);
	if (fd < 0)
		app_fail("connect", fd);
	while (n < o.messages && exchange(fd))
		n++;
	good = n == o.messages && app_write(fd, last, STRING) == 0 && app_read(fd, last, 1) == 0;
	close(fd);
	printf("Result = %s\n", good ? "Success" : "Fail");
	return !good;
}
