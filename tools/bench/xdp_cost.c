/* SPDX-License-Identifier: Apache-2.0 */
/* What the flow door costs per packet: the program and the maps of a running dmmd are given packets by
 * BPF_PROG_TEST_RUN, in turns with a program that does nothing. Caches are hot; on a real link they are
 * not. Counts up that dmmd's counters.
 *
 *   xdp_cost [-n packets] [-r rounds] PROGRAM INTERFACE PORT LOCAL4 REMOTE4 LOCAL6 REMOTE6
 *   PROGRAM: pinned;  PORT: one that an instance on INTERFACE owns
 *
 * Prints one line of JSON per case, in ns; "over" is the median of the difference to `return XDP_PASS`
 * in the same round. A case that ends in another verdict than it should is an error. */
#include <errno.h>
#include <getopt.h>
#include <net/if.h>
#include <stdio.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include "base/util.h"
#include "bench/floor.skel.h"
#include "measure.h"

#define MAX_ROUNDS  1000
#define FRAME	    80
#define KERNEL_PORT 7
#define REMOTE_PORT 80

struct frame {
	unsigned char data[FRAME];
	uint32_t len;
};

struct xdp_case {
	const char *name;
	int prog;
	int verdict;
	struct frame frame;
	double ns[MAX_ROUNDS];
};

struct options {
	unsigned int packets, rounds;
	int prog;
	uint32_t ifindex;
	uint16_t port;
	union address local4, remote4, local6, remote6;
};

static void put_tcp(struct frame *f, size_t at, uint16_t port, bool syn)
{
	struct tcphdr tcp = {
		.source = htons(REMOTE_PORT),
		.dest = htons(port),
		.doff = 5,
		.syn = syn,
		.ack = !syn,
	};

	memcpy(f->data + at, &tcp, sizeof(tcp));
	f->len = DMM_MAX(at + sizeof(tcp), 64);
}

static struct frame frame4(const struct options *o, uint16_t port, bool syn)
{
	struct ethhdr eth = { .h_proto = htons(ETH_P_IP) };
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tot_len = htons(sizeof(struct iphdr) + sizeof(struct tcphdr)),
		.ttl = 64,
		.protocol = IPPROTO_TCP,
		.saddr = o->remote4.v4.sin_addr.s_addr,
		.daddr = o->local4.v4.sin_addr.s_addr,
	};
	struct frame f = { 0 };

	memcpy(f.data, &eth, sizeof(eth));
	memcpy(f.data + sizeof(eth), &ip, sizeof(ip));
	put_tcp(&f, sizeof(eth) + sizeof(ip), port, syn);
	return f;
}

static struct frame frame6(const struct options *o, uint16_t port, bool syn)
{
	struct ethhdr eth = { .h_proto = htons(ETH_P_IPV6) };
	struct ipv6hdr ip = {
		.version = 6,
		.payload_len = htons(sizeof(struct tcphdr)),
		.nexthdr = IPPROTO_TCP,
		.hop_limit = 64,
		.saddr = o->remote6.v6.sin6_addr,
		.daddr = o->local6.v6.sin6_addr,
	};
	struct frame f = { 0 };

	memcpy(f.data, &eth, sizeof(eth));
	memcpy(f.data + sizeof(eth), &ip, sizeof(ip));
	put_tcp(&f, sizeof(eth) + sizeof(ip), port, syn);
	return f;
}

/* By the kernel's own clock: whole nanoseconds, but without what the call does once (it rebuilds the
 * dispatcher of XDP programs) and without the time that others had the CPU. */
static int run_once(const struct options *o, const struct xdp_case *c, double *ret_ns)
{
	struct xdp_md ctx = { .data_end = c->frame.len, .ingress_ifindex = o->ifindex };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = c->frame.data, .data_size_in = c->frame.len,
		    .ctx_in = &ctx, .ctx_size_in = sizeof(ctx), .repeat = o->packets);
	int r = bpf_prog_test_run_opts(c->prog, &opts);

	if (r < 0)
		return r;
	if ((int)opts.retval != c->verdict) {
		fprintf(stderr, "xdp_cost: %s: verdict %u, not %d\n", c->name, opts.retval,
			c->verdict);
		return -EPROTO;
	}
	*ret_ns = opts.duration;
	return 0;
}

static int run(const struct options *o, struct xdp_case *cases, unsigned int n)
{
	for (unsigned int round = 0; round < o->rounds; round++) {
		for (unsigned int k = 0; k < n; k++) {
			int r = run_once(o, &cases[k], &cases[k].ns[round]);

			if (r < 0) {
				fprintf(stderr, "xdp_cost: %s: %s\n", cases[k].name, strerror(-r));
				return r;
			}
		}
	}
	return 0;
}

static void print_cases(const struct options *o, struct xdp_case *cases, unsigned int n)
{
	static double over[MAX_ROUNDS];

	/* the first is what the others are compared with: its rounds are sorted last */
	for (unsigned int k = n; k-- > 0;) {
		double ns, over_median;

		for (unsigned int i = 0; i < o->rounds; i++)
			over[i] = cases[k].ns[i] - cases[0].ns[i];
		over_median = median(over, o->rounds);
		ns = median(cases[k].ns, o->rounds);
		printf("{\"case\": \"%s\", \"ns\": %.1f, \"ns_min\": %.1f, \"ns_max\": %.1f, "
		       "\"over\": %.1f, \"over_min\": %.1f, \"over_max\": %.1f}\n",
		       cases[k].name, ns, cases[k].ns[0], cases[k].ns[o->rounds - 1], over_median,
		       over[0], over[o->rounds - 1]);
	}
}

static int measure(const struct options *o, int floor)
{
	static struct xdp_case cases[] = {
		{ .name = "return XDP_PASS", .verdict = XDP_PASS },
		{ .name = "kernel's port, IPv4", .verdict = XDP_PASS },
		{ .name = "kernel's port, IPv6", .verdict = XDP_PASS },
		{ .name = "to the instance, IPv4", .verdict = XDP_REDIRECT },
		{ .name = "to the instance, IPv6", .verdict = XDP_REDIRECT },
		{ .name = "to the instance, IPv4 SYN", .verdict = XDP_REDIRECT },
	};
	int r;

	for (size_t k = 0; k < DMM_ARRAY_SIZE(cases); k++)
		cases[k].prog = k ? o->prog : floor;
	cases[0].frame = cases[1].frame = frame4(o, KERNEL_PORT, false);
	cases[2].frame = frame6(o, KERNEL_PORT, false);
	cases[3].frame = frame4(o, o->port, false);
	cases[4].frame = frame6(o, o->port, false);
	cases[5].frame = frame4(o, o->port, true);
	r = run(o, cases, DMM_ARRAY_SIZE(cases));
	if (r == 0)
		print_cases(o, cases, DMM_ARRAY_SIZE(cases));
	return r;
}

static bool parse(struct options *o, int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "n:r:")) > 0) {
		if (option == 'n')
			o->packets = atoi(optarg);
		else if (option == 'r')
			o->rounds = atoi(optarg);
		else
			return false;
	}
	argv += optind;
	if (argc - optind != 7 || o->packets < 1 || o->rounds < 1 || o->rounds > MAX_ROUNDS)
		return false;
	o->prog = bpf_obj_get(argv[0]);
	o->ifindex = if_nametoindex(argv[1]);
	o->port = atoi(argv[2]);
	if (o->prog < 0 || !o->ifindex) {
		fprintf(stderr, "xdp_cost: no %s\n", o->prog < 0 ? argv[0] : argv[1]);
		return false;
	}
	return address_parse(argv[3], 0, &o->local4) && address_parse(argv[4], 0, &o->remote4) &&
	       address_parse(argv[5], 0, &o->local6) && address_parse(argv[6], 0, &o->remote6);
}

int main(int argc, char **argv)
{
	struct options o = { .packets = 1000000, .rounds = 9 };
	struct floor_bpf *skel;
	int r;

	if (!parse(&o, argc, argv)) {
		fprintf(stderr, "usage: xdp_cost [-n packets] [-r rounds] PROGRAM INTERFACE PORT "
				"LOCAL4 REMOTE4 LOCAL6 REMOTE6\n");
		return 2;
	}
	skel = floor_bpf__open_and_load();
	if (!skel) {
		fprintf(stderr, "xdp_cost: floor program: %s\n", strerror(errno));
		return 1;
	}
	r = measure(&o, bpf_program__fd(skel->progs.floor_xdp));
	floor_bpf__destroy(skel);
	return r ? 1 : 0;
}
