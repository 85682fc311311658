/* SPDX-License-Identifier: Apache-2.0 */
/* Connects without pause, and judges each: did it go where the policy that decided it says?
 *
 *   swap_load serve PORT PORT
 *   swap_load load MAP ADDR PORT PORT FIRST LAST EVEN PROGRESS STOP
 *
 * The server tells each client its port, as seen on the wire. The client connects to the two ports in
 * turn and reads from MAP (the pinned dmm_sock) what the hooks kept in its own socket: generation and
 * verdict. A generation of even number steers port number EVEN (0 or 1) through the stack, whose wire
 * ports are FIRST-LAST, and leaves the other to the kernel; an odd one the other way round. Goes on until
 * the file STOP is there; keeps the number of connects in the file PROGRESS; prints one line of JSON. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include <dmm/abi/maps.h>

#include "base/util.h"

#define BACKLOG	      4096
#define PATIENCE_S    30
#define PROGRESS_EACH 128 /* connects; the stop file is looked for as often */

static void die(const char *what)
{
	fprintf(stderr, "swap_load: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* --- server --- */

static int listen_on(uint16_t port)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1, zero = 0;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero)) < 0 ||
	    bind(fd, (struct sockaddr *)&any, sizeof(any)) < 0 || listen(fd, BACKLOG) < 0)
		die("listen");
	return fd;
}

static void answer_all(int listener)
{
	struct sockaddr_in6 peer;
	socklen_t len = sizeof(peer);
	int fd;

	while ((fd = accept(listener, (struct sockaddr *)&peer, &len)) >= 0) {
		(void)!send(fd, &peer.sin6_port, sizeof(peer.sin6_port), MSG_NOSIGNAL);
		close(fd);
		len = sizeof(peer);
	}
}

static _Noreturn void serve(char **ports)
{
	int epoll = epoll_create1(0);

	for (int i = 0; i < 2; i++) {
		int fd = listen_on(atoi(ports[i]));
		struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

		if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
			die("epoll");
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event events[2];
		int n = epoll_wait(epoll, events, 2, -1);

		for (int i = 0; i < n; i++)
			answer_all(events[i].data.fd);
	}
}

/* --- client --- */

struct load {
	int map;
	const char *addr;
	uint16_t ports[2], first, last;
	unsigned int even;
	/* what came of it */
	unsigned long connects, failed, undecided, misrouted, against_policy;
	unsigned long stack[2], kernel[2]; /* by port */
	uint32_t first_generation, last_generation;
	int failed_errno;
};

static int connect_to(const struct load *load, uint16_t port)
{
	struct sockaddr_in to4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 to6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	bool v6 = inet_pton(AF_INET6, load->addr, &to6.sin6_addr) == 1;
	struct linger reset = { .l_onoff = 1 };
	struct timeval patience = { .tv_sec = PATIENCE_S };
	int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0), r;

	if (fd < 0)
		die("socket");
	inet_pton(AF_INET, load->addr, &to4.sin_addr);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	r = v6 ? connect(fd, (struct sockaddr *)&to6, sizeof(to6))
	       : connect(fd, (struct sockaddr *)&to4, sizeof(to4));
	if (r == 0)
		return fd;
	r = errno;
	close(fd);
	errno = r;
	return -1;
}

static void judge(struct load *load, unsigned int which, const struct dmm_sock *kept, uint16_t seen)
{
	bool on_wire = seen >= load->first && seen <= load->last;
	bool decided = kept->verdict == DMM_VERDICT_USERSPACE;
	bool asked = (kept->generation % 2 ? !load->even : load->even) == which;

	load->misrouted += on_wire != decided;
	load->against_policy += decided != asked;
	if (on_wire)
		load->stack[which]++;
	else
		load->kernel[which]++;
	if (!load->first_generation)
		load->first_generation = kept->generation;
	load->last_generation = kept->generation;
}

static void one_connect(struct load *load, unsigned int which)
{
	int fd = connect_to(load, load->ports[which]);
	struct dmm_sock kept;
	uint16_t seen = 0;

	load->connects++;
	if (fd < 0 || recv(fd, &seen, sizeof(seen), MSG_WAITALL) != sizeof(seen)) {
		load->failed++;
		load->failed_errno = errno;
	} else if (bpf_map_lookup_elem(load->map, &fd, &kept) < 0 ||
		   kept.verdict == DMM_VERDICT_NONE) {
		load->undecided++;
	} else {
		judge(load, which, &kept, ntohs(seen));
	}
	if (fd >= 0)
		close(fd);
}

static int run_load(char **args)
{
	struct load load = {
		.map = bpf_obj_get(args[0]),
		.addr = args[1],
		.ports = { atoi(args[2]), atoi(args[3]) },
		.first = atoi(args[4]),
		.last = atoi(args[5]),
		.even = atoi(args[6]),
	};
	int progress = open(args[7], O_WRONLY | O_CREAT, 0600);

	if (load.map < 0)
		die(args[0]);
	while (load.connects % PROGRESS_EACH || access(args[8], F_OK) < 0) {
		one_connect(&load, load.connects % 2);
		if (load.connects % PROGRESS_EACH == 0 &&
		    pwrite(progress, &load.connects, sizeof(load.connects), 0) < 0)
			die(args[7]);
	}
	printf("{\"connects\": %lu, \"failed\": %lu, \"failed_errno\": %d, \"undecided\": %lu, "
	       "\"misrouted\": %lu, \"against_policy\": %lu, \"stack\": [%lu, %lu], "
	       "\"kernel\": [%lu, %lu], \"generations\": [%u, %u]}\n",
	       load.connects, load.failed, load.failed_errno, load.undecided, load.misrouted,
	       load.against_policy, load.stack[0], load.stack[1], load.kernel[0], load.kernel[1],
	       load.first_generation, load.last_generation);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && dmm_streq(argv[1], "serve"))
		serve(argv + 2);
	if (argc == 11 && dmm_streq(argv[1], "load"))
		return run_load(argv + 2);
	fputs("usage: see the top of swap_load.c\n", stderr);
	return 2;
}
