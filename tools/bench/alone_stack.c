/* SPDX-License-Identifier: Apache-2.0 */
/* A stack plug-in in its user's own loop: its host, the network and the packet I/O around it. */
#define _GNU_SOURCE
#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/resource.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "alone_stack.h"
#include "base/clock.h"
#include "base/hostsock.h"
#include "base/util.h"
#include "bench/floor.skel.h"
#include "pktio/xsk.h"

#define FRAMES	    8192
#define FRAME_SIZE  2048
#define CONN_MEMORY (128u << 10)
#define MAX_SLEEP   (100 * DMM_NS_PER_MS)
#define UPKEEP	    (20 * DMM_NS_PER_MS)
#define SPIN	    50000 /* ns without work before it sleeps: as an adaptive instance */

/* --- what the plug-in calls --- */

static bool on_alloc(void *ctx, struct dmm_frame *frame)
{
	struct alone *a = ctx;

	return link_alloc(&a->link, frame);
}

static void on_free(void *ctx, const struct dmm_frame *frame)
{
	struct alone *a = ctx;

	link_free(&a->link, frame);
}

static void on_output(void *ctx, const struct dmm_frame *frames, unsigned int n)
{
	struct alone *a = ctx;

	link_output(&a->link, frames, n);
}

static void on_event(void *ctx, void *user, uint32_t events, int err)
{
	const struct alone *a = ctx;

	(void)err;
	a->event(user, events);
}

static void *on_accepted(void *ctx, void *listen_user, struct dmm_conn *conn,
			 const struct dmm_endpoint *local, const struct dmm_endpoint *remote)
{
	const struct alone *a = ctx;

	(void)local, (void)remote;
	return a->accepted(listen_user, conn);
}

static uint64_t on_now(void *ctx)
{
	const struct alone *a = ctx;

	return a->now;
}

static void on_random(void *ctx, void *to, size_t len)
{
	(void)ctx;
	if (getrandom(to, len, 0) != (ssize_t)len)
		abort();
}

static uint32_t on_isn(void *ctx, const struct dmm_endpoint *local,
		       const struct dmm_endpoint *remote)
{
	const struct alone *a = ctx;

	return isn_make(&a->isn, local, remote, a->now);
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
	const struct alone *a = ctx;

	a->ops->input(a->stack, frames, n);
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

static int open_network(struct alone *a, uint32_t ifindex)
{
	const struct mirror_events mirror_events = {
		.ctx = &a->nexthops,
		.neighbour = on_neighbour,
		.routes = on_routes,
		.interface = on_interface,
		.lost = on_lost,
	};
	const struct nexthop_events nexthop_events = {
		.ctx = &a->link,
		.resolved = on_resolved,
		.dropped = on_dropped,
		.failed = on_neighbour_failed,
	};
	int r = mirror_open(&a->mirror, ifindex, dmm_hostsock_netlink(0),
			    dmm_hostsock_netlink(1 << 20), &mirror_events);

	if (r < 0)
		return r;
	nexthop_open(&a->nexthops, &a->mirror, dmm_hostsock_probe(AF_INET, a->ifname),
		     dmm_hostsock_probe(AF_INET6, a->ifname), &nexthop_events);
	return a->nexthops.probe4 < 0 ? a->nexthops.probe4 : 0;
}

static int open_io(struct alone *a, uint32_t ifindex)
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
				     .mtu = a->mirror.mtu,
				     .descs = &desc };
	uint32_t queue = 0;
	int fd, r;

	a->xdp = floor_bpf__open_and_load();
	if (!a->xdp)
		return -errno;
	a->xdp->links.floor_redirect =
		bpf_program__attach_xdp(a->xdp->progs.floor_redirect, ifindex);
	if (!a->xdp->links.floor_redirect)
		return -errno;
	r = dmm_xsk_create(&request, &args.umem_fd, &args.umem_size, &fd, &desc);
	if (r < 0)
		return r;
	if (bpf_map_update_elem(bpf_map__fd(a->xdp->maps.floor_xsks), &queue, &fd, BPF_ANY) < 0)
		return -errno;
	args.xsk_fds = &fd;
	a->link = (struct link){
		.mirror = &a->mirror,
		.nexthops = &a->nexthops,
		.shared = &a->shared,
		.events = { .ctx = a, .input = on_input, .icmp = on_icmp },
	};
	return dmm_xsk_open(&args, &a->link.io);
}

static int open_stack(struct alone *a)
{
	struct dmm_stack_params params = {
		.mtu = a->mirror.mtu,
		.max_conns = ALONE_PORTS,
		.conn_memory = CONN_MEMORY,
		.addrs = (const uint8_t(*)[16])a->mirror.own.list,
		.n_addrs = a->mirror.own.n,
		.options = "",
	};
	char text[512];
	int r = plugin_load(a->plugin_path, &a->plugin, text, sizeof(text));

	if (r < 0) {
		fprintf(stderr, "%s\n", text);
		return r;
	}
	a->ops = a->plugin.ops;
	a->now = dmm_now_ns();
	on_random(a, &a->isn, sizeof(a->isn));
	a->host = (struct dmm_host){ .abi = DMM_STACK_ABI,
				     .ctx = a,
				     .frame_alloc = on_alloc,
				     .frame_free = on_free,
				     .output = on_output,
				     .event = on_event,
				     .accepted = on_accepted,
				     .now = on_now,
				     .random = on_random,
				     .isn = on_isn,
				     .log = on_log };
	return a->ops->create(&params, &a->host, &a->stack);
}

int alone_open(struct alone *a)
{
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	uint32_t ifindex = if_nametoindex(a->ifname);
	int r;

	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	r = ifindex ? open_network(a, ifindex) : -ENODEV;
	if (r == 0)
		r = open_io(a, ifindex);
	if (r == 0)
		r = open_stack(a);
	return r;
}

/* The rest ends with the process. */
void alone_close(struct alone *a)
{
	floor_bpf__destroy(a->xdp);
}

/* --- a turn --- */

static void sleep_until_work(struct alone *a)
{
	uint64_t idle = a->now - a->worked_at;
	struct pollfd fds[2] = { { .fd = mirror_fd(&a->mirror), .events = POLLIN } };
	struct timespec timeout;
	int fd;

	if (a->spin || idle < SPIN || a->tick_at <= a->now)
		return;
	timeout = (struct timespec){ .tv_nsec = DMM_MIN(a->tick_at - a->now, MAX_SLEEP) };
	a->link.io->ops->wait_fds(a->link.io, &fd, 1);
	fds[1] = (struct pollfd){ .fd = fd, .events = POLLIN };
	ppoll(fds, 2, &timeout, NULL);
}

void alone_receive(struct alone *a)
{
	sleep_until_work(a);
	a->now = a->link.now = dmm_now_ns();
	if (a->now >= a->upkeep_at) {
		mirror_run(&a->mirror);
		nexthop_tick(&a->nexthops, a->now);
		a->upkeep_at = a->now + UPKEEP;
	}
	if (link_receive(&a->link) > 0)
		a->worked_at = a->now;
}

void alone_send(struct alone *a)
{
	a->tick_at = a->ops->tick(a->stack, a->now);
	link_flush(&a->link);
}

/* --- addresses and bytes --- */

void alone_endpoint(const union address *addr, uint16_t port, struct dmm_endpoint *ret)
{
	ret->port = htons(port);
	if (addr->any.sa_family == AF_INET6)
		memcpy(ret->addr, &addr->v6.sin6_addr, 16);
	else
		addr_from_v4((const uint8_t *)&addr->v4.sin_addr, ret->addr);
}

void alone_local(const struct alone *a, const struct dmm_endpoint *remote, struct dmm_endpoint *ret)
{
	for (uint32_t i = a->mirror.own.n; i-- > 0;) /* the interface's own come first */
		if (addr_is_v4(a->mirror.own.list[i]) == addr_is_v4(remote->addr))
			memcpy(ret->addr, a->mirror.own.list[i], 16);
}

size_t alone_take(const struct alone *a, struct dmm_conn *conn, char *buf, size_t size)
{
	struct iovec iov[16];
	unsigned int n = a->ops->recv_peek(conn, iov, DMM_ARRAY_SIZE(iov));
	size_t len = 0;

	for (unsigned int i = 0; i < n && len + iov[i].iov_len <= size; i++) {
		memcpy(buf + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	if (len)
		a->ops->recv_done(conn, len);
	return len;
}

ssize_t alone_fill(const struct alone *a, struct dmm_conn *conn, const char *buf, size_t size)
{
	ssize_t n, sum = 0;

	do {
		n = a->ops->send(conn, buf, size);
		if (n < 0)
			return n;
		sum += n;
	} while (n == (ssize_t)size);
	return sum;
}
