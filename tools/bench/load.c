/* SPDX-License-Identifier: Apache-2.0 */
/* The client of the bench: an ordinary program of plain sockets and epoll that does one thing for a
 * fixed time and prints what it got as one line of JSON.
 *
 *   load [-c connections] [-b bytes] [-t seconds] [-w warm-up seconds] MODE ADDRESS PORT
 *   rr    one request at a time on each connection       send  client to server, as fast as it goes
 *   crr   connect, request, response, close on each      recv  server to client
 *         slot, slot i to PORT+i (room for TIME_WAIT)
 *
 * What happens in the warm-up is not counted. "failed" is never 0 by accident: look at it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/util.h"
#include "measure.h"

#define MAX_CONNS  4096
#define MAX_EVENTS 256
#define MAX_FAILED 1000

struct conn {
	int fd; /* -1: gone */
	bool connecting;
	size_t got;
	uint64_t began;
};

struct load;

struct mode {
	const char *name;
	bool per_request; /* a connection for each request, else all are made before the clock starts */
	uint32_t events;
	void (*ready)(struct load *load, struct conn *conn);
};

struct load {
	const struct mode *mode;
	union address server;
	uint16_t port;
	unsigned int n_conns, alive;
	size_t size;
	double seconds, warm_up;
	int epoll;
	uint64_t now, start, end;
	uint64_t count, bytes, failed;
	struct conn conn[MAX_CONNS];
	struct histogram times;
};

static char buf[1 << 17];

/* --- connections --- */

static int watch(struct load *load, struct conn *conn, int op, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = conn };

	return epoll_ctl(load->epoll, op, conn->fd, &event);
}

static int open_conn(struct load *load, struct conn *conn)
{
	int one = 1;

	conn->got = 0;
	conn->connecting = true;
	conn->began = dmm_now_ns();
	conn->fd =
		socket(load->server.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (conn->fd < 0)
		return -errno;
	setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (load->mode->per_request)
		address_set_port(&load->server, load->port + (conn - load->conn));
	if ((connect(conn->fd, &load->server.any, address_len(&load->server)) < 0 &&
	     errno != EINPROGRESS) ||
	    watch(load, conn, EPOLL_CTL_ADD, EPOLLOUT) < 0) {
		int err = errno;

		close(conn->fd);
		conn->fd = -1;
		return -err;
	}
	load->alive++;
	return 0;
}

static void close_conn(struct load *load, struct conn *conn)
{
	close(conn->fd);
	conn->fd = -1;
	load->alive--;
}

static void fail(struct load *load, struct conn *conn)
{
	load->failed++;
	close_conn(load, conn);
}

/* --- modes --- */

static void send_request(struct load *load, struct conn *conn)
{
	conn->got = 0;
	if (!load->mode->per_request)
		conn->began = dmm_now_ns();
	if (write(conn->fd, buf, load->size) != (ssize_t)load->size)
		fail(load, conn);
}

/* Returns whether the response is complete. */
static bool read_response(struct load *load, struct conn *conn)
{
	ssize_t n = read(conn->fd, buf, sizeof(buf));

	if (n < 0 && errno == EAGAIN)
		return false;
	if (n <= 0) {
		fail(load, conn);
		return false;
	}
	conn->got += n;
	return conn->got >= load->size;
}

static void count_response(struct load *load, const struct conn *conn)
{
	uint64_t now = dmm_now_ns();

	if (now < load->start)
		return;
	load->count++;
	hist_add(&load->times, now - conn->began);
}

static void ready_rr(struct load *load, struct conn *conn)
{
	if (!read_response(load, conn))
		return;
	count_response(load, conn);
	send_request(load, conn);
}

static void ready_crr(struct load *load, struct conn *conn)
{
	if (!read_response(load, conn))
		return;
	close_conn(load, conn);
	count_response(load, conn);
}

static void count_bytes(struct load *load, struct conn *conn, ssize_t n)
{
	if (n > 0 && load->now >= load->start)
		load->bytes += n;
	else if (n == 0 || (n < 0 && errno != EAGAIN))
		fail(load, conn);
}

static void ready_send(struct load *load, struct conn *conn)
{
	count_bytes(load, conn, write(conn->fd, buf, sizeof(buf)));
}

static void ready_recv(struct load *load, struct conn *conn)
{
	count_bytes(load, conn, read(conn->fd, buf, sizeof(buf)));
}

static const struct mode modes[] = {
	{ "rr", false, EPOLLIN, ready_rr },
	{ "crr", true, EPOLLIN, ready_crr },
	{ "send", false, EPOLLOUT, ready_send },
	{ "recv", false, EPOLLIN, ready_recv },
};

/* --- the loop --- */

static void connected(struct load *load, struct conn *conn)
{
	socklen_t len = sizeof(int);
	int err = 0;

	conn->connecting = false;
	if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 || err ||
	    watch(load, conn, EPOLL_CTL_MOD, load->mode->events) < 0)
		fail(load, conn);
	else if (load->mode->per_request)
		send_request(load, conn);
}

static void turn(struct load *load)
{
	struct epoll_event events[MAX_EVENTS];
	int n = epoll_wait(load->epoll, events, MAX_EVENTS, 50);

	load->now = dmm_now_ns();
	for (int i = 0; i < n; i++) {
		struct conn *conn = events[i].data.ptr;

		if (conn->connecting)
			connected(load, conn);
		else
			load->mode->ready(load, conn);
		if (conn->fd < 0 && load->mode->per_request && open_conn(load, conn) < 0)
			load->failed++;
	}
}

static bool all_connected(const struct load *load)
{
	for (unsigned int i = 0; i < load->n_conns; i++)
		if (load->conn[i].connecting)
			return false;
	return true;
}

static void begin(struct load *load)
{
	load->now = dmm_now_ns();
	load->start = load->now + load->warm_up * DMM_NS_PER_SEC;
	load->end = load->start + load->seconds * DMM_NS_PER_SEC;
}

static int run(struct load *load)
{
	load->epoll = epoll_create1(EPOLL_CLOEXEC);
	load->start = UINT64_MAX;
	for (unsigned int i = 0; i < load->n_conns; i++) {
		int r = open_conn(load, &load->conn[i]);

		if (r < 0)
			return r;
	}
	while (!load->mode->per_request && !all_connected(load))
		turn(load);
	begin(load);
	if (load->mode->ready == ready_rr)
		for (unsigned int i = 0; i < load->n_conns; i++)
			if (load->conn[i].fd >= 0)
				send_request(load, &load->conn[i]);
	while (load->now < load->end && load->alive > 0 && load->failed < MAX_FAILED)
		turn(load);
	return 0;
}

static void print_result(const struct load *load)
{
	double seconds = (double)(dmm_now_ns() - load->start) / DMM_NS_PER_SEC;

	printf("{\"mode\": \"%s\", \"connections\": %u, \"failed\": %lu", load->mode->name,
	       load->n_conns, load->failed);
	if (load->now < load->end)
		printf(", \"error\": \"gave up early\"");
	else if (load->times.n > 0)
		printf(", \"per_second\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f",
		       load->count / seconds, hist_percentile(&load->times, 0.5) / 1e3,
		       hist_percentile(&load->times, 0.99) / 1e3);
	else if (load->bytes)
		printf(", \"gbps\": %.4f", load->bytes * 8 / seconds / 1e9);
	else
		printf(", \"error\": \"nothing came through\"");
	printf("}\n");
}

static const struct mode *find_mode(const char *name)
{
	for (size_t i = 0; i < DMM_ARRAY_SIZE(modes); i++)
		if (dmm_streq(modes[i].name, name))
			return &modes[i];
	return NULL;
}

static bool parse(struct load *load, int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "c:b:t:w:")) > 0) {
		switch (option) {
		case 'c':
			load->n_conns = atoi(optarg);
			break;
		case 'b':
			load->size = atoi(optarg);
			break;
		case 't':
			load->seconds = atof(optarg);
			break;
		case 'w':
			load->warm_up = atof(optarg);
			break;
		default:
			return false;
		}
	}
	if (optind != argc - 3)
		return false;
	load->mode = find_mode(argv[optind]);
	load->port = atoi(argv[optind + 2]);
	return load->mode && load->n_conns >= 1 && load->n_conns <= MAX_CONNS && load->size >= 1 &&
	       load->size <= sizeof(buf) &&
	       address_parse(argv[optind + 1], load->port, &load->server);
}

int main(int argc, char **argv)
{
	static struct load load = { .n_conns = 1, .size = 64, .seconds = 1, .warm_up = 0.3 };
	int r;

	if (!parse(&load, argc, argv)) {
		fprintf(stderr, "usage: load [-c connections] [-b bytes] [-t seconds] "
				"[-w seconds] rr|crr|send|recv ADDRESS PORT\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	alarm(load.seconds + load.warm_up + 20); /* a hang ends by SIGALRM */
	r = run(&load);
	if (r < 0) {
		fprintf(stderr, "load: connect: %s\n", strerror(-r));
		return 1;
	}
	print_result(&load);
	return 0;
}
