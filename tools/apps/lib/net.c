/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and sockets of the sample programs. */
#define _GNU_SOURCE /* accept4() */
#include "apps.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define BACKLOG 1024

void app_fail(const char *what, int err)
{
	fprintf(stderr, "error: %s: %s\n", what, strerror(err < 0 ? -err : err));
	exit(1);
}

void app_addr_set_port(union app_addr *addr, uint16_t port)
{
	/* where sockaddr_in has it, too */
	((struct sockaddr_in6 *)addr)->sin6_port = htons(port);
}

static socklen_t size_of(const union app_addr *addr)
{
	return addr->sa.sa_family == AF_INET ? sizeof(struct sockaddr_in)
					     : sizeof(struct sockaddr_in6);
}

bool app_addr_read(const char *text, uint16_t port, union app_addr *ret)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
		ret->sa.sa_family = AF_INET;
	else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1)
		ret->sa.sa_family = AF_INET6;
	else
		return false;
	app_addr_set_port(ret, port);
	return true;
}

void app_addr_any(uint16_t port, union app_addr *ret)
{
	memset(ret, 0, sizeof(*ret));
	app_addr_set_port(ret, port);
}

static int new_socket(int family)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	signal(SIGPIPE, SIG_IGN); /* write() and sendfile() say EPIPE instead */
	if (fd < 0)
		app_fail("socket", errno);
	return fd;
}

int app_listen(const union app_addr *addr)
{
	union app_addr at = *addr;
	int one = 1, zero = 0, fd;

	if (!at.sa.sa_family)
		at.sa.sa_family = AF_INET6;
	fd = new_socket(at.sa.sa_family);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (!addr->sa.sa_family)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(fd, &at.sa, size_of(&at)) < 0)
		app_fail("bind", errno);
	if (listen(fd, BACKLOG) < 0)
		app_fail("listen", errno);
	return fd;
}

static uint16_t port_of(const union app_addr *addr)
{
	return ((const struct sockaddr_in6 *)addr)->sin6_port;
}

/* An interrupted connect() goes on by itself; calling it again would not wait. */
static int finish_connect(int fd, unsigned int wait_s)
{
	struct pollfd wait = { .fd = fd, .events = POLLOUT };
	int r, err = 0;
	socklen_t len = sizeof(err);

	do
		r = poll(&wait, 1, wait_s ? (int)wait_s * 1000 : -1);
	while (r < 0 && errno == EINTR);
	if (r > 0)
		r = getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	else if (r == 0)
		err = ETIMEDOUT;
	return r < 0 ? -errno : -err;
}

/* 0 or negative errno */
static int connect_fully(int fd, const union app_addr *to, unsigned int wait_s)
{
	if (connect(fd, &to->sa, size_of(to)) == 0)
		return 0;
	if (errno == EINTR)
		return finish_connect(fd, wait_s);
	return errno == EINPROGRESS ? -ETIMEDOUT : -errno; /* the patience ended */
}

int app_connect(const union app_addr *to, const union app_addr *from, unsigned int wait_s)
{
	union app_addr at = *from;
	int fd, one = 1, r = 0;

	if (!at.sa.sa_family)
		at.sa.sa_family = to->sa.sa_family;
	fd = new_socket(to->sa.sa_family);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	/* bound to an address alone: connect() chooses the port, and so whoever decides by it */
	if (!port_of(from))
		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	app_set_patience(fd, wait_s);
	if ((from->sa.sa_family || port_of(from)) && bind(fd, &at.sa, size_of(&at)) < 0)
		r = -errno;
	if (r == 0)
		r = connect_fully(fd, to, wait_s);
	if (r == 0)
		return fd;
	close(fd);
	return r;
}

int app_connect_client(const struct app_options *o, unsigned int i)
{
	const uint64_t until = dmm_now_ns() + o->wait_s * DMM_NS_PER_SEC;
	const struct timespec pause = { .tv_nsec = 50 * DMM_NS_PER_MS };
	union app_addr from = o->own;

	if (o->client_port)
		app_addr_set_port(&from, o->client_port + i);
	for (;;) {
		int fd = app_connect(&o->dest, &from, o->wait_s);

		if (fd >= 0)
			return fd;
		if (fd != -ECONNREFUSED || dmm_now_ns() >= until)
			app_fail("connect", fd);
		nanosleep(&pause, NULL);
	}
}

int app_accept(int listener)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0)
			return fd;
		if (errno == EAGAIN)
			return -EAGAIN;
		if (errno != EINTR && errno != ECONNABORTED)
			app_fail("accept", errno);
	}
}

void app_set_patience(int fd, unsigned int seconds)
{
	struct timeval time = { .tv_sec = seconds };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time));
}

int app_read(int fd, void *buf, size_t len)
{
	size_t have = 0;

	while (have < len) {
		ssize_t n = read(fd, (char *)buf + have, len - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (n == 0)
			return have ? -EPIPE : 0;
		have += n;
	}
	return 1;
}

int app_write(int fd, const void *buf, size_t len)
{
	size_t sent = 0;

	while (sent < len) {
		ssize_t n = write(fd, (const char *)buf + sent, len - sent);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		sent += n;
	}
	return 0;
}
