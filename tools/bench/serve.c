/* SPDX-License-Identifier: Apache-2.0 */
/* The server of the bench: plain sockets and epoll, both IP versions. Says "ready" on stdout once it
 * listens.
 *
 *   serve [-s] P
 *   -s: spin in epoll_wait(0) instead of sleeping;  P: the first of the ports of services.h */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "services.h"

#define MAX_EVENTS 128
/* Reads of one connection in a row, so that a fast sender does not starve the others. */
#define MAX_READS 8

/* What an epoll event is about, packed into its 64 bits. */
struct who {
	int fd;
	uint16_t service;
	uint16_t listens;
};

static char buf[1 << 16];

static int watch(int epoll, struct who who, uint32_t events)
{
	struct epoll_event event = { .events = events };

	memcpy(&event.data, &who, sizeof(who));
	return epoll_ctl(epoll, EPOLL_CTL_ADD, who.fd, &event);
}

static int listen_on(int epoll, uint16_t port, enum service service)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1, zero = 0;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero)) < 0 ||
	    bind(fd, (struct sockaddr *)&any, sizeof(any)) < 0 || listen(fd, 4096) < 0)
		return -errno;
	return watch(epoll, (struct who){ fd, service, true }, EPOLLIN) < 0 ? -errno : 0;
}

static int listen_all(int epoll, uint16_t base)
{
	int r = 0;

	for (unsigned int i = 0; i < SERVE_PORTS && !r; i++)
		r = listen_on(epoll, base + i, service_of(i));
	return r;
}

static void accept_all(int epoll, struct who listener)
{
	int fd, one = 1;

	while ((fd = accept4(listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct who who = { fd, listener.service, false };

		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (watch(epoll, who, who.service == SEND ? EPOLLOUT : EPOLLIN) < 0)
			close(fd);
	}
}

/* Writes all of it; the loads keep few bytes in flight, so a full socket is soon free again. */
static bool write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno != EAGAIN)
			return false;
		if (n > 0) {
			data += n;
			len -= n;
		}
	}
	return true;
}

/* Returns whether the connection goes on. */
static bool read_some(struct who who)
{
	for (int i = 0; i < MAX_READS; i++) {
		ssize_t n = read(who.fd, buf, sizeof(buf));

		if (n <= 0)
			return n < 0 && errno == EAGAIN;
		if (who.service == ECHO && !write_all(who.fd, buf, n))
			return false;
		if ((size_t)n < sizeof(buf))
			break;
	}
	return true;
}

static void on_event(int epoll, struct who who)
{
	bool alive;

	if (who.listens) {
		accept_all(epoll, who);
		return;
	}
	if (who.service == SEND)
		alive = write(who.fd, buf, sizeof(buf)) >= 0 || errno == EAGAIN;
	else
		alive = read_some(who);
	if (!alive)
		close(who.fd);
}

static int serve(int epoll, bool spin)
{
	struct epoll_event events[MAX_EVENTS];

	for (;;) {
		int n = epoll_wait(epoll, events, MAX_EVENTS, spin ? 0 : -1);

		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n; i++) {
			struct who who;

			memcpy(&who, &events[i].data, sizeof(who));
			on_event(epoll, who);
		}
	}
}

int main(int argc, char **argv)
{
	int option, epoll = epoll_create1(EPOLL_CLOEXEC), r;
	bool spin = false;

	while ((option = getopt(argc, argv, "s")) > 0) {
		if (option != 's')
			return 2;
		spin = true;
	}
	if (optind != argc - 1) {
		fprintf(stderr, "usage: serve [-s] PORT\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	r = listen_all(epoll, atoi(argv[optind]));
	if (!r) {
		printf("ready\n");
		fflush(stdout);
		r = serve(epoll, spin);
	}
	fprintf(stderr, "serve: %s\n", strerror(-r));
	return 1;
}
