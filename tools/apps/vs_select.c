/* SPDX-License-Identifier: Apache-2.0 */
/* vs_select: a server that sends messages back, with one thread and one select() for all connections. */
#include "lib/apps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

#include "base/clock.h"

struct server {
	struct app_options o;
	struct app_meter meter;
	struct app_echo echo[FD_SETSIZE];
	enum app_echo_says says[FD_SETSIZE]; /* of those that are open */
	bool is_open[FD_SETSIZE];
	uint64_t until[FD_SETSIZE]; /* when its patience ends; UINT64_MAX: never */
	unsigned int accepted, n_open;
	int listener, failed;
};

static struct server server;

static void be_patient(int fd)
{
	server.until[fd] = server.o.wait_s ? dmm_now_ns() + server.o.wait_s * DMM_NS_PER_SEC
					   : UINT64_MAX;
}

static void take_one(void)
{
	int fd = app_accept(server.listener);

	if (fd < 0)
		return; /* it has gone again */
	/* what select() cannot see would be written beyond its sets */
	if (fd >= FD_SETSIZE)
		app_fail("select() ends at 1023 descriptors", EMFILE);
	app_echo_open(&server.echo[fd], fd, server.o.length);
	server.says[fd] = APP_ECHO_READ;
	server.is_open[fd] = true;
	be_patient(fd);
	server.n_open++;
	if (++server.accepted == server.o.accepts) {
		close(server.listener);
		server.listener = -1;
	}
}

/* @err: 0, or why */
static void end_one(int fd, int err)
{
	if (err) {
		fprintf(stderr, "error: a connection: %s\n", strerror(err));
		server.failed = 1;
	}
	app_echo_close(&server.echo[fd]);
	server.is_open[fd] = false;
	server.n_open--;
}

static void run_one(int fd)
{
	server.says[fd] = app_echo_run(&server.echo[fd], &server.meter);
	if (server.says[fd] == APP_ECHO_END)
		end_one(fd, 0);
	else if (server.says[fd] == APP_ECHO_ERROR)
		end_one(fd, errno);
	else
		be_patient(fd);
}

/* Returns select()'s first argument. */
static int fill_sets(fd_set *reads, fd_set *writes, uint64_t *ret_until)
{
	int most = server.listener;

	*ret_until = UINT64_MAX;
	FD_ZERO(reads);
	FD_ZERO(writes);
	if (server.listener >= 0)
		FD_SET(server.listener, reads);
	for (int fd = 0; fd < FD_SETSIZE; fd++) {
		if (!server.is_open[fd])
			continue;
		FD_SET(fd, server.says[fd] == APP_ECHO_WRITE ? writes : reads);
		most = fd > most ? fd : most;
		if (server.until[fd] < *ret_until)
			*ret_until = server.until[fd];
	}
	return most + 1;
}

static int wait_until(int most, fd_set *reads, fd_set *writes, uint64_t until)
{
	const uint64_t now = dmm_now_ns(), us = 1000; /* one more: not before */
	const uint64_t left = us + (until > now ? until - now : 0);
	struct timeval wait = { .tv_sec = left / DMM_NS_PER_SEC,
				.tv_usec = left % DMM_NS_PER_SEC / us };

	return select(most, reads, writes, NULL, until == UINT64_MAX ? NULL : &wait);
}

static void turn(void)
{
	fd_set reads, writes;
	uint64_t until, now;
	int most = fill_sets(&reads, &writes, &until);

	if (wait_until(most, &reads, &writes, until) < 0) {
		if (errno != EINTR)
			app_fail("select", errno);
		return;
	}
	now = dmm_now_ns();
	for (int fd = 0; fd < most; fd++) {
		if (!server.is_open[fd])
			continue;
		if (FD_ISSET(fd, &reads) || FD_ISSET(fd, &writes))
			run_one(fd);
		else if (now >= server.until[fd])
			end_one(fd, ETIMEDOUT);
	}
	if (server.listener >= 0 && FD_ISSET(server.listener, &reads))
		take_one();
}

int main(int argc, char **argv)
{
	app_options_read(argc, argv, "sends messages back: select()", false, &server.o);
	server.listener = app_listen(&server.o.own);
	if (fcntl(server.listener, F_SETFL, O_NONBLOCK) < 0)
		app_fail("fcntl", errno);
	app_meter_open(&server.meter, &server.o);
	while (server.listener >= 0 || server.n_open > 0)
		turn();
	app_meter_end(&server.meter, "received", server.accepted);
	return server.failed;
}
