/* SPDX-License-Identifier: Apache-2.0 */
/* vs_select: a server that sends messages back, with one thread and one select() for all connections. */
#include "lib/apps.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

struct server {
	struct app_options o;
	struct app_meter meter;
	struct app_echo echo[FD_SETSIZE];
	enum app_echo_says says[FD_SETSIZE]; /* of those that are open */
	bool is_open[FD_SETSIZE];
	unsigned int accepted, n_open;
	int listener, failed;
};

static struct server server;

static void take_one(void)
{
	int fd = app_accept(server.listener);

	/* what select() cannot see would be written beyond its sets */
	if (fd >= FD_SETSIZE)
		app_fail("select() ends at 1023 descriptors", EMFILE);
	app_echo_open(&server.echo[fd], fd, server.o.length);
	server.says[fd] = APP_ECHO_READ;
	server.is_open[fd] = true;
	server.n_open++;
	if (++server.accepted == server.o.accepts) {
		close(server.listener);
		server.listener = -1;
	}
}

static void run_one(int fd)
{
	server.says[fd] = app_echo_run(&server.echo[fd], &server.meter);
	if (server.says[fd] != APP_ECHO_END && server.says[fd] != APP_ECHO_ERROR)
		return;
	if (server.says[fd] == APP_ECHO_ERROR) {
		fprintf(stderr, "error: a connection: %s\n", strerror(errno));
		server.failed = 1;
	}
	app_echo_close(&server.echo[fd]);
	server.is_open[fd] = false;
	server.n_open--;
}

static int fill_sets(fd_set *reads, fd_set *writes)
{
	int most = server.listener;

	FD_ZERO(reads);
	FD_ZERO(writes);
	if (server.listener >= 0)
		FD_SET(server.listener, reads);
	for (int fd = 0; fd < FD_SETSIZE; fd++) {
		if (!server.is_open[fd])
			continue;
		FD_SET(fd, server.says[fd] == APP_ECHO_WRITE ? writes : reads);
		most = fd > most ? fd : most;
	}
	return most + 1;
}

static void turn(void)
{
	struct timeval wait = { .tv_sec = server.o.wait_s };
	fd_set reads, writes;
	int most = fill_sets(&reads, &writes);
	int n = select(most, &reads, &writes, NULL, server.o.wait_s ? &wait : NULL);

	if (n < 0 && errno == EINTR)
		return;
	if (n <= 0)
		app_fail("select", n ? errno : ETIMEDOUT);
	for (int fd = 0; fd < most; fd++)
		if (server.is_open[fd] && (FD_ISSET(fd, &reads) || FD_ISSET(fd, &writes)))
			run_one(fd);
	if (server.listener >= 0 && FD_ISSET(server.listener, &reads))
		take_one();
}

int main(int argc, char **argv)
{
	app_options_read(argc, argv, "sends messages back: select()", false, &server.o);
	server.listener = app_listen(&server.o.own);
	app_meter_open(&server.meter, &server.o);
	while (server.listener >= 0 || server.n_open > 0)
		turn();
	app_meter_end(&server.meter, "received", server.accepted);
	return server.failed;
}
