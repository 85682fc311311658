// SPDX-License-Identifier: Apache-2.0
/* A client that no preloaded library could reach: linked statically, several threads, raw calls.
 *
 *   static_client ADDR PORT BYTES THREADS
 *
 * Each thread connects to a server that says whom it sees and then echoes, sends BYTES of a stream
 * of its own and wants them back unchanged. Prints the local port of each connection. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_THREADS 64

static union {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
} server;
static socklen_t server_len;
static size_t total;

static void die(const char *what)
{
	fprintf(stderr, "static_client: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void want(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "static_client: %s\n", what);
	exit(1);
}

static uint8_t byte_at(unsigned int seed, size_t at)
{
	return (uint8_t)((at * 2654435761u + seed * 97u) >> 11);
}

static void fill(unsigned int seed, size_t at, uint8_t *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = byte_at(seed, at + i);
}

/* The server's first line is the address and port that it sees. */
static void check_names(int fd)
{
	struct sockaddr_in6 name = { 0 };
	socklen_t len = sizeof(name);
	char line[128] = "";
	size_t n = 0;

	while (n < sizeof(line) - 1 && read(fd, line + n, 1) == 1 && line[n] != '\n')
		n++;
	line[n] = '\0';
	if (getsockname(fd, (struct sockaddr *)&name, &len) < 0)
		die("getsockname");
	want(strrchr(line, ' ') && atoi(strrchr(line, ' ')) == ntohs(name.sin6_port),
	     "the server sees another port than getsockname() tells");
	printf("%u\n", ntohs(name.sin6_port));
	len = sizeof(name);
	if (getpeername(fd, (struct sockaddr *)&name, &len) < 0)
		die("getpeername");
	want(len == server_len && name.sin6_port == server.v6.sin6_port,
	     "getpeername() tells another port than was connected to");
}

static size_t send_some(int fd, unsigned int seed, size_t sent)
{
	uint8_t buf[16384];
	size_t len = total - sent < sizeof(buf) ? total - sent : sizeof(buf);
	ssize_t n;

	fill(seed, sent, buf, len);
	n = send(fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN)
		die("send");
	return n < 0 ? 0 : (size_t)n;
}

static size_t receive_some(int fd, unsigned int seed, size_t received)
{
	uint8_t buf[16384], expected[16384];
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN)
		die("recv");
	want(n != 0, "early end");
	if (n < 0)
		return 0;
	fill(seed, received, expected, n);
	want(memcmp(buf, expected, n) == 0, "what came back is not what was sent");
	return n;
}

static void *client(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg;
	size_t sent = 0, received = 0;
	char end;
	int fd = socket(server.any.sa_family, SOCK_STREAM, 0);

	if (fd < 0 || connect(fd, &server.any, server_len) < 0)
		die("connect");
	check_names(fd);
	while (received < total) {
		struct pollfd p = { fd, POLLIN | (sent < total ? POLLOUT : 0), 0 };

		if (poll(&p, 1, 30000) <= 0)
			die("poll");
		if (p.revents & POLLOUT)
			sent += send_some(fd, seed, sent);
		if (p.revents & (POLLIN | POLLERR | POLLHUP))
			received += receive_some(fd, seed, received);
	}
	shutdown(fd, SHUT_WR);
	want(recv(fd, &end, 1, 0) == 0, "no clean end");
	close(fd);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[MAX_THREADS];
	unsigned int n;

	want(argc == 5, "usage: static_client ADDR PORT BYTES THREADS");
	if (inet_pton(AF_INET, argv[1], &server.v4.sin_addr) == 1) {
		server.v4.sin_family = AF_INET;
		server_len = sizeof(server.v4);
	} else {
		want(inet_pton(AF_INET6, argv[1], &server.v6.sin6_addr) == 1, "not an address");
		server.v6.sin6_family = AF_INET6;
		server_len = sizeof(server.v6);
	}
	server.v4.sin_port = htons(atoi(argv[2]));
	total = strtoull(argv[3], NULL, 10);
	n = atoi(argv[4]);
	want(n >= 1 && n <= MAX_THREADS, "1 to 64 threads");
	for (unsigned int i = 0; i < n; i++)
		if (pthread_create(&threads[i], NULL, client, (void *)(uintptr_t)i))
			die("pthread_create");
	for (unsigned int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
