/* SPDX-License-Identifier: Apache-2.0 */
/* What the connect hook itself costs in different cgroups: connects to an address without a route, which
 * fail right behind the hook, so that neither a SYN nor the network's noise is timed. Each goes to
 * another port than the one before: for the same place a hook would not decide again.
 *
 *   hook_cost [-n connects] [-r rounds] ADDRESS EMPTY-CGROUP CGROUP...
 *   EMPTY-CGROUP gets a hook that does nothing
 *
 * Prints one line of JSON per cgroup: the ns per connect() of each round. */
#define _GNU_SOURCE
#include <getopt.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "cgroups.h"
#include "measure.h"

#define MAX_CGROUPS 8
#define MAX_ROUNDS  1000

static double figures[MAX_CGROUPS][MAX_ROUNDS];

static int connect_all(int fd, union address *to, unsigned int n, double *ret)
{
	uint64_t begin = dmm_now_ns();

	for (unsigned int i = 0; i < n; i++) {
		address_set_port(to, 1 + i % 60000);
		if (connect(fd, &to->any, address_len(to)) == 0 || errno != EHOSTUNREACH)
			return -errno;
	}
	*ret = (double)(dmm_now_ns() - begin) / n;
	return 0;
}

static int run(char **cgroups, unsigned int n_cgroups, union address *to, unsigned int connects,
	       unsigned int rounds)
{
	int fd[MAX_CGROUPS], r = 0;

	for (unsigned int k = 0; k < n_cgroups; k++) {
		r = enter(cgroups[k]);
		if (r < 0)
			return r;
		fd[k] = socket(to->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd[k] < 0)
			return -errno;
	}
	for (unsigned int round = 0; round < rounds; round++)
		for (unsigned int k = 0; k < n_cgroups && r == 0; k++)
			r = connect_all(fd[k], to, connects, &figures[k][round]);
	return r;
}

int main(int argc, char **argv)
{
	unsigned int connects = 2000, rounds = 100, n_cgroups;
	struct floor_bpf *skel = NULL;
	union address to;
	int option, r;

	while ((option = getopt(argc, argv, "n:r:")) > 0)
		*(option == 'n' ? &connects : &rounds) = atoi(optarg);
	n_cgroups = argc - optind - 1;
	if (optind > argc - 2 || n_cgroups > MAX_CGROUPS || rounds < 1 || rounds > MAX_ROUNDS ||
	    connects < 1 || !address_parse(argv[optind], 1, &to)) {
		fprintf(stderr, "usage: hook_cost [-n connects] [-r rounds] ADDRESS EMPTY-CGROUP "
				"CGROUP...\n");
		return 2;
	}
	r = attach_empty_hook(argv[optind + 1], &skel);
	if (r == 0)
		r = run(argv + optind + 1, n_cgroups, &to, connects, rounds);
	if (r < 0)
		fprintf(stderr, "hook_cost: %s\n", strerror(-r));
	for (unsigned int k = 0; k < n_cgroups && r == 0; k++) {
		printf("{\"cgroup\": \"%s\"", argv[optind + 1 + k]);
		print_rounds("ns", figures[k], rounds);
		puts("}");
	}
	floor_bpf__destroy(skel);
	return r < 0;
}
