/* SPDX-License-Identifier: Apache-2.0 */
/* A stack plug-in by itself: the same client as load.c, but linked with the instance's library and
 * calling the plug-in from its own loop. No socket door, no relay, no second process: what is left
 * is the stack and AF_XDP.
 *
 *   alone [-c connections] [-b bytes] [-t seconds] [-w warm-up seconds] [-s]
 *         PLUGIN INTERFACE MODE ADDRESS PORT
 *   -s: spin instead of sleeping;  MODE, the output, and what they mean: as in load.c
 *
 * Its local ports are FIRST_PORT on, which its own XDP program leads to it. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <net/if.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/clock.h"
#include "base/util.h"
#include "bench/floor.skel.h"
#include "instance/link.h"
#include "instance/plugin.h"
#include "measure.h"
#include "pktio/xsk.h"

#define FIRST_PORT  20000 /* as in floor.bpf.c */
#define N_PORTS	    12000
#define MAX_CONNS   1024
#define MAX_FAILED  1000
#define FRAMES	    8192
#define FRAME_SIZE  2048
#define CONN_MEMORY (128u << 10)
#define MAX_SLEEP   (100 * DMM_NS_PER_MS)
#define SPIN	    50000 /* ns without work before it sleeps: as an adaptive instance */

enum mode { RR, CRR, SEND, RECV };
static const char *const modes[] = { "rr", "crr", "send", "recv" };

/* A local port; its user pointer outlives the slot's interest in it. */
struct wire {
	struct slot *slot; /* NULL: closed by us, the stack ends it */
	bool used;
};

struct slot {
	struct dmm_conn *conn; /* NULL: gone */
	struct wire *wire;
	bool up;
	size_t got;
	uint64_t began;
};

static struct {
	enum mode mode;
	union address server;
	uint16_t port;
	unsigned int n_slots;
	size_t size;
	double seconds, warm_up;
	bool spin;
	const char *plugin_path, *ifname;

	struct floor_bpf *xdp;
	struct mirror mirror;
	struct nexthops nexthops;
	struct link link;
	struct dmm_inst_shared shared;
	struct plugin plugin;
	struct dmm_host host;
	struct dmm_stack *stack;
	struct dmm_endpoint local, remote;

	struct slot slot[MAX_CONNS];
	struct wire wire[N_PORTS];
	unsigned int next_wire, alive, up;
	uint64_t now, tick_at, worked_at, start, end;
	uint64_t count, bytes, failed;
	struct histogram times;
} b = { .n_slots = 1, .size = 64, .seconds = 1, .warm_up = 0.3, .start = UINT64_MAX };

static char buf[1 << 17];

static const struct dmm_stack_ops *ops(void)
{
	return b.plugin.ops;
}

/* --- the load --- */

static int open_slot(struct slot *slot)
{
	struct dmm_connect args = { .local = b.local, .remote = b.remote };
	unsigned int i;
	int r;

	for (i = 0; i < N_PORTS && b.wire[b.next_wire].used; i++)
		b.next_wire = (b.next_wire + 1) % N_PORTS;
	if (i == N_PORTS)
		return -EADDRNOTAVAIL;
	*slot = (struct slot){ .wire = &b.wire[b.next_wire], .began = dmm_now_ns() };
	*slot->wire = (struct wire){ .slot = slot, .used = true };
	args.local.port = htons(FIRST_PORT + b.next_wire);
	args.remote.port = htons(b.port + (b.mode == CRR ? slot - b.slot : 0));
	args.user = slot->wire;
	b.next_wire = (b.next_wire + 1) % N_PORTS;
	r = ops()->connect(b.stack, &args, &slot->conn);
	if (r < 0) {
		slot->wire->used = false;
		slot->conn = NULL;
		return r;
	}
	ops()->set_option(slot->conn, DMM_OPT_NODELAY, 1);
	b.alive++;
	return 0;
}

static void close_slot(struct slot *slot)
{
	slot->wire->slot = NULL;
	ops()->close(slot->conn);
	slot->conn = NULL;
	b.alive--;
}

static void fail_slot(struct slot *slot)
{
	b.failed++;
	if (slot->conn)
		close_slot(slot);
}

static void send_request(struct slot *slot)
{
	slot->got = 0;
	if (b.mode == RR)
		slot->began = dmm_now_ns();
	if (ops()->send(slot->conn, buf, b.size) != (ssize_t)b.size)
		fail_slot(slot);
}

static void respond(struct slot *slot)
{
	uint64_t now;

	if (slot->got < b.size)
		return;
	now = dmm_now_ns();
	if (now >= b.start) {
		b.count++;
		hist_add(&b.times, now - slot->began);
	}
	if (b.mode == RR)
		send_request(slot);
	else
		close_slot(slot); /* the loop opens the next one */
}

/* An application reads what it is given: so the bytes are copied once here, too. */
static size_t take(struct slot *slot)
{
	struct iovec iov[16];
	unsigned int n = ops()->recv_peek(slot->conn, iov, DMM_ARRAY_SIZE(iov));
	size_t len = 0;

	for (unsigned int i = 0; i < n && len + iov[i].iov_len <= sizeof(buf); i++) {
		memcpy(buf + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	if (len)
		ops()->recv_done(slot->conn, len);
	return len;
}

static void readable(struct slot *slot)
{
	size_t len = take(slot);

	if (b.mode == RECV) {
		for (; len; len = take(slot))
			if (b.now >= b.start)
				b.bytes += len;
		return;
	}
	slot->got += len;
	respond(slot);
}

static void fill(struct slot *slot)
{
	ssize_t n;

	do {
		n = ops()->send(slot->conn, buf, sizeof(buf));
		if (n > 0 && b.now >= b.start)
			b.bytes += n;
	} while (n == sizeof(buf));
	if (n < 0)
		fail_slot(slot);
}

static void connected(struct slot *slot)
{
	slot->up = true;
	b.up++;
	if (b.mode == CRR)
		send_request(slot);
	else if (b.mode == SEND)
		fill(slot);
}

/* --- what the plug-in calls --- */

static void on_event(void *ctx, void *user, uint32_t events, int err)
{
	struct wire *wire = user;
	struct slot *slot = wire->slot;

	(void)ctx, (void)err;
	if (events & (DMM_EV_CLOSED | DMM_EV_ERROR))
		wire->used = false;
	if (!slot)
		return;
	if (events & DMM_EV_ERROR) {
		slot->conn = NULL; /* dead already */
		b.alive--;
		fail_slot(slot);
		return;
	}
	if (events & DMM_EV_CONNECTED)
		connected(slot);
	if (slot->conn && events & DMM_EV_READABLE)
		readable(slot);
	if (slot->conn && events & DMM_EV_WRITABLE && b.mode == SEND)
		fill(slot);
	if (slot->conn && events & DMM_EV_EOF)
		fail_slot(slot);
}

static bool on_alloc(void *ctx, struct dmm_frame *frame)
{
	return link_alloc(ctx, frame);
}

static void on_free(void *ctx, const struct dmm_frame *frame)
{
	link_free(ctx, frame);
}

static void on_output(void *ctx, const struct dmm_frame *frames, unsigned int n)
{
	link_output(ctx, frames, n);
}

static uint64_t on_now(void *ctx)
{
	(void)ctx;
	return b.now;
}

static void on_random(void *ctx, void *to, size_t len)
{
	(void)ctx;
	if (getrandom(to, len, 0) != (ssize_t)len)
		abort();
}

static void on_log(void *ctx, enum dmm_log_level level, const char *format, ...)
{
	va_list ap;

	(void)ctx;
	if (level > DMM_LOG_WARNING)
		return;
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* --- the network around it --- */

static void on_input(void *ctx, const struct dmm_frame *frames, unsigned int n)
{
	(void)ctx;
	ops()->input(b.stack, frames, n);
}

static void on_icmp(void *ctx, const struct icmp_error *error)
{
	(void)ctx, (void)error;
}

static void on_resolved(void *ctx, struct neighbour *n)
{
	link_on_resolved(ctx, n);
}

static void on_dropped(void *ctx, struct neighbour *n)
{
	link_on_dropped(ctx, n);
}

static void on_neighbour_failed(void *ctx, const struct neighbour *n)
{
	(void)ctx, (void)n;
}

static void on_neighbour(void *ctx, const struct mirror_neighbour *n)
{
	nexthop_on_neighbour(ctx, n);
}

static void on_routes(void *ctx)
{
	nexthop_on_routes(ctx);
}

static void on_interface(void *ctx)
{
	(void)ctx;
}

static void on_lost(void *ctx)
{
	nexthop_on_lost(ctx);
}

static int open_network(uint32_t ifindex)
{
	const struct mirror_events mirror_events = {
		.ctx = &b.nexthops,
		.neighbour = on_neighbour,
		.routes = on_routes,
		.interface = on_interface,
		.lost = on_lost,
	};
	const struct nexthop_events nexthop_events = {
		.ctx = &b.link,
		.resolved = on_resolved,
		.dropped = on_dropped,
		.failed = on_neighbour_failed,
	};
	int r = mirror_open(&b.mirror, ifindex, &mirror_events);

	return r < 0 ? r : nexthop_open(&b.nexthops, &b.mirror, b.ifname, &nexthop_events);
}

static int open_io(uint32_t ifindex)
{
	struct dmm_xsk_request request = {
		.ifindex = ifindex,
		.n_queues = 1,
		.frame_size = FRAME_SIZE,
		.frames_per_queue = FRAMES,
	};
	struct dmm_handover_xsk desc;
	struct dmm_xsk_open args = { .frame_size = FRAME_SIZE,
				     .n_frames = FRAMES,
				     .n_queues = 1,
				     .ifindex = ifindex,
				     .mtu = b.mirror.mtu,
				     .descs = &desc };
	uint32_t queue = 0;
	int fd, r;

	b.xdp = floor_bpf__open_and_load();
	if (!b.xdp)
		return -errno;
	b.xdp->links.floor_redirect = bpf_program__attach_xdp(b.xdp->progs.floor_redirect, ifindex);
	if (!b.xdp->links.floor_redirect)
		return -errno;
	r = dmm_xsk_create(&request, &args.umem_fd, &args.umem_size, &fd, &desc);
	if (r < 0)
		return r;
	if (bpf_map_update_elem(bpf_map__fd(b.xdp->maps.floor_xsks), &queue, &fd, BPF_ANY) < 0)
		return -errno;
	args.xsk_fds = &fd;
	b.link = (struct link){
		.mirror = &b.mirror,
		.nexthops = &b.nexthops,
		.shared = &b.shared,
		.events = { .ctx = &b.link, .input = on_input, .icmp = on_icmp },
	};
	return dmm_xsk_open(&args, &b.link.io);
}

static void endpoint_of(const union address *a, struct dmm_endpoint *ret)
{
	if (a->any.sa_family == AF_INET6)
		memcpy(ret->addr, &a->v6.sin6_addr, 16);
	else
		addr_from_v4((const uint8_t *)&a->v4.sin_addr, ret->addr);
}

static int open_stack(void)
{
	struct dmm_stack_params params = {
		.mtu = b.mirror.mtu,
		.max_conns = N_PORTS,
		.conn_memory = CONN_MEMORY,
		.addrs = (const uint8_t(*)[16])b.mirror.own.list,
		.n_addrs = b.mirror.own.n,
		.options = "",
	};
	char text[512];
	int r = plugin_load(b.plugin_path, &b.plugin, text, sizeof(text));

	if (r < 0) {
		fprintf(stderr, "alone: %s\n", text);
		return r;
	}
	endpoint_of(&b.server, &b.remote);
	for (uint32_t i = b.mirror.own.n; i-- > 0;) /* the interface's own come first */
		if (addr_is_v4(b.mirror.own.list[i]) == addr_is_v4(b.remote.addr))
			memcpy(b.local.addr, b.mirror.own.list[i], 16);
	b.now = dmm_now_ns();
	b.host = (struct dmm_host){ .abi = DMM_STACK_ABI,
				    .ctx = &b.link,
				    .frame_alloc = on_alloc,
				    .frame_free = on_free,
				    .output = on_output,
				    .event = on_event,
				    .now = on_now,
				    .random = on_random,
				    .log = on_log };
	return ops()->create(&params, &b.host, &b.stack);
}

/* --- the loop --- */

static void sleep_until_work(void)
{
	uint64_t idle = b.now - b.worked_at, left;
	struct pollfd fds[2] = { { .fd = mirror_fd(&b.mirror), .events = POLLIN } };
	struct timespec timeout;
	int fd;

	if (b.spin || idle < SPIN || b.tick_at <= b.now)
		return;
	left = DMM_MIN(b.tick_at - b.now, MAX_SLEEP);
	timeout = (struct timespec){ .tv_nsec = left };
	b.link.io->ops->wait_fds(b.link.io, &fd, 1);
	fds[1] = (struct pollfd){ .fd = fd, .events = POLLIN };
	ppoll(fds, 2, &timeout, NULL);
}

static void turn(void)
{
	static uint64_t next_upkeep;

	sleep_until_work();
	b.now = b.link.now = dmm_now_ns();
	if (b.now >= next_upkeep) {
		mirror_run(&b.mirror);
		nexthop_tick(&b.nexthops, b.now);
		next_upkeep = b.now + 20 * DMM_NS_PER_MS;
	}
	if (link_receive(&b.link) > 0)
		b.worked_at = b.now;
	for (unsigned int i = 0; b.mode == CRR && i < b.n_slots; i++)
		if (!b.slot[i].conn && open_slot(&b.slot[i]) < 0)
			b.failed++;
	b.tick_at = ops()->tick(b.stack, b.now);
	link_flush(&b.link);
}

static int run(void)
{
	for (unsigned int i = 0; i < b.n_slots; i++) {
		int r = open_slot(&b.slot[i]);

		if (r < 0)
			return r;
	}
	while (b.mode != CRR && b.up < b.n_slots && !b.failed)
		turn();
	b.start = dmm_now_ns() + b.warm_up * DMM_NS_PER_SEC;
	b.end = b.start + b.seconds * DMM_NS_PER_SEC;
	for (unsigned int i = 0; b.mode == RR && i < b.n_slots; i++)
		if (b.slot[i].conn)
			send_request(&b.slot[i]);
	while (b.now < b.end && b.alive > 0 && b.failed < MAX_FAILED)
		turn();
	return 0;
}

static void print_result(void)
{
	double seconds = (double)(dmm_now_ns() - b.start) / DMM_NS_PER_SEC;

	printf("{\"mode\": \"%s\", \"connections\": %u, \"failed\": %lu", modes[b.mode], b.n_slots,
	       b.failed);
	if (b.now < b.end)
		printf(", \"error\": \"gave up early\"");
	else if (b.times.n > 0)
		printf(", \"per_second\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f",
		       b.count / seconds, hist_percentile(&b.times, 0.5) / 1e3,
		       hist_percentile(&b.times, 0.99) / 1e3);
	else
		printf(", \"gbps\": %.4f", b.bytes * 8 / seconds / 1e9);
	printf("}\n");
}

static bool parse(int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "c:b:t:w:s")) > 0) {
		switch (option) {
		case 'c':
			b.n_slots = atoi(optarg);
			break;
		case 'b':
			b.size = atoi(optarg);
			break;
		case 't':
			b.seconds = atof(optarg);
			break;
		case 'w':
			b.warm_up = atof(optarg);
			break;
		case 's':
			b.spin = true;
			break;
		default:
			return false;
		}
	}
	if (optind != argc - 5)
		return false;
	b.plugin_path = argv[optind];
	b.ifname = argv[optind + 1];
	while (b.mode < RECV && !dmm_streq(modes[b.mode], argv[optind + 2]))
		b.mode++;
	b.port = atoi(argv[optind + 4]);
	return dmm_streq(modes[b.mode], argv[optind + 2]) && b.n_slots >= 1 &&
	       b.n_slots <= MAX_CONNS && b.size >= 1 && b.size <= sizeof(buf) &&
	       address_parse(argv[optind + 3], b.port, &b.server);
}

int main(int argc, char **argv)
{
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	uint32_t ifindex;
	int r;

	if (!parse(argc, argv)) {
		fprintf(stderr,
			"usage: alone [-c connections] [-b bytes] [-t seconds] [-w seconds] "
			"[-s] PLUGIN INTERFACE rr|crr|send|recv ADDRESS PORT\n");
		return 2;
	}
	ifindex = if_nametoindex(b.ifname);
	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	alarm(b.seconds + b.warm_up + 20); /* a hang ends by SIGALRM */
	r = ifindex ? open_network(ifindex) : -ENODEV;
	if (r == 0)
		r = open_io(ifindex);
	if (r == 0)
		r = open_stack();
	if (r == 0)
		r = run();
	if (r < 0)
		fprintf(stderr, "alone: %s\n", strerror(-r));
	else
		print_result();
	floor_bpf__destroy(b.xdp);
	return r < 0;
}
