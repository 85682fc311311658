/* SPDX-License-Identifier: Apache-2.0 */
/* What connect() costs in different cgroups: non-blocking TCP connects to one server, each waited for
 * and then closed with a reset, the cgroups in turns. A socket belongs to the cgroup it was made in, so
 * each round makes its sockets first and moves no process while the clock runs. The first connects of a
 * turn are not counted: they bear what the turn before left to do.
 *
 *   connect_cost [-n connects] [-r rounds] [-e CGROUP] ADDRESS PORT CGROUP...
 *   -e: this cgroup gets a hook that does nothing
 *
 * Prints one line of JSON per cgroup, in ns, with each round's median: "call" is connect() itself (the
 * hook, the SYN, and what the SYN brings about on this CPU at once); "up" is until the connection
 * stands. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/util.h"
#include "cgroups.h"
#include "measure.h"

#define MAX_CGROUPS  8
#define MAX_ROUNDS   1000
#define MAX_CONNECTS 200 /* sockets open at a time, in each cgroup */
#define TIMEOUT_MS   5000
#define SETTLE	     40

/* One cgroup's: of the round that runs, and of all. */
struct figures {
	int fd[MAX_CONNECTS];
	double call[MAX_CONNECTS], up[MAX_CONNECTS];
	double round_call[MAX_ROUNDS], round_up[MAX_ROUNDS];
};

struct options {
	unsigned int connects, rounds, n_cgroups;
	const char *empty_hook;
	char **cgroups;
	union address server;
};

static int wait_until_up(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	socklen_t len = sizeof(int);
	int err = 0;

	if (poll(&p, 1, TIMEOUT_MS) != 1)
		return -ETIMEDOUT;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	return -err;
}

static int make_socket(const union address *server)
{
	int fd = socket(server->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct linger reset = { .l_onoff = 1 };

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	return fd;
}

static int connect_once(const union address *server, int fd, double *ret_call, double *ret_up)
{
	uint64_t begin = dmm_now_ns(), returned;
	int r = connect(fd, &server->any, address_len(server));

	returned = dmm_now_ns();
	if (r < 0 && errno != EINPROGRESS)
		return -errno;
	r = wait_until_up(fd);
	if (r < 0)
		return r;
	*ret_call = returned - begin;
	*ret_up = dmm_now_ns() - begin;
	return 0;
}

static struct figures figures[MAX_CGROUPS];

static int make_sockets(const struct options *o)
{
	for (unsigned int k = 0; k < o->n_cgroups; k++) {
		int r = enter(o->cgroups[k]);

		if (r < 0)
			return r;
		for (unsigned int i = 0; i < o->connects; i++) {
			figures[k].fd[i] = make_socket(&o->server);
			if (figures[k].fd[i] < 0)
				return figures[k].fd[i];
		}
	}
	return 0;
}

static int connect_all(const struct options *o)
{
	for (unsigned int k = 0; k < o->n_cgroups; k++) {
		struct figures *f = &figures[k];

		for (unsigned int i = 0; i < o->connects; i++) {
			int r = connect_once(&o->server, f->fd[i], &f->call[i], &f->up[i]);

			if (r < 0) {
				fprintf(stderr, "connect_cost: in %s: %s\n", o->cgroups[k],
					strerror(-r));
				return r;
			}
			close(f->fd[i]);
		}
	}
	return 0;
}

static int run(const struct options *o)
{
	for (unsigned int round = 0; round < o->rounds; round++) {
		int r = make_sockets(o);

		if (r < 0)
			fprintf(stderr, "connect_cost: sockets: %s\n", strerror(-r));
		else
			r = connect_all(o);
		if (r < 0)
			return r;
		for (unsigned int k = 0; k < o->n_cgroups; k++) {
			struct figures *f = &figures[k];

			f->round_call[round] = median(f->call + SETTLE, o->connects - SETTLE);
			f->round_up[round] = median(f->up + SETTLE, o->connects - SETTLE);
		}
	}
	return 0;
}

static void print_cgroups(const struct options *o)
{
	for (unsigned int k = 0; k < o->n_cgroups; k++) {
		printf("{\"cgroup\": \"%s\"", o->cgroups[k]);
		print_rounds("call", figures[k].round_call, o->rounds);
		print_rounds("up", figures[k].round_up, o->rounds);
		puts("}");
	}
}

static bool parse(struct options *o, int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "n:r:e:")) > 0) {
		switch (option) {
		case 'n':
			o->connects = atoi(optarg);
			break;
		case 'r':
			o->rounds = atoi(optarg);
			break;
		case 'e':
			o->empty_hook = optarg;
			break;
		default:
			return false;
		}
	}
	if (optind > argc - 3)
		return false;
	o->cgroups = argv + optind + 2;
	o->n_cgroups = argc - optind - 2;
	return o->n_cgroups <= MAX_CGROUPS && o->connects > SETTLE && o->connects <= MAX_CONNECTS &&
	       o->rounds >= 1 && o->rounds <= MAX_ROUNDS &&
	       address_parse(argv[optind], atoi(argv[optind + 1]), &o->server);
}

int main(int argc, char **argv)
{
	struct options o = { .connects = 80, .rounds = 100 };
	struct floor_bpf *skel = NULL;
	int r = 0;

	if (!parse(&o, argc, argv)) {
		fprintf(stderr, "usage: connect_cost [-n connects] [-r rounds] [-e CGROUP] "
				"ADDRESS PORT CGROUP...\n");
		return 2;
	}
	if (o.empty_hook)
		r = attach_empty_hook(o.empty_hook, &skel);
	if (r < 0)
		fprintf(stderr, "connect_cost: empty hook: %s\n", strerror(-r));
	else
		r = run(&o);
	if (!r)
		print_cgroups(&o);
	floor_bpf__destroy(skel);
	return r ? 1 : 0;
}
