/* SPDX-License-Identifier: Apache-2.0 */
/* Bringing an instance up and down, stage by stage. */
#include "instance/host.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <bpf/libbpf.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/util.h"
#include "instance/privs.h"
#include "instance/watch.h"
#include "pktio/xsk.h"

void host_set_last_words(struct host *host, const char *text)
{
	size_t room = sizeof(host->shared->last_words);

	if (host->shared)
		snprintf(host->shared->last_words, room, "%.*s", (int)room - 1, text);
}

int host_fail(struct host *host, int err, const char *format, ...)
{
	char text[sizeof(((struct dmm_msg_text *)0)->text)];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	dmm_error("%s", text);
	host_set_last_words(host, text);
	master_send_failed(host->master.fd >= 0 ? host->master.fd : host->handover_fd, text);
	return err;
}

/* --- handover --- */

int host_handover_up(struct host *host)
{
	char text[256];
	int r;

	host->master.fd = -1;
	r = master_send_started(host->handover_fd);
	if (r < 0)
		return host_fail(host, r, "line to dmmd: %s", strerror(-r));
	r = takeover_receive(host->handover_fd, &host->given, text, sizeof(text));
	if (r < 0)
		return host_fail(host, r, "%s", text);
	host->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (host->epoll_fd < 0)
		return host_fail(host, -errno, "epoll: %s", strerror(errno));
	r = master_open(&host->master, host->epoll_fd, host->handover_fd,
			host->given.fds[DMM_FD_CONTROL], 0);
	if (r < 0)
		return host_fail(host, r, "line to dmmd: %s", strerror(-r));
	host->handover_fd = -1;
	return 0;
}

void host_handover_down(struct host *host)
{
	master_close(&host->master);
	close(host->epoll_fd);
	takeover_close(&host->given);
}

/* --- shared page --- */

int host_shared_up(struct host *host)
{
	void *page = mmap(NULL, sizeof(*host->shared), PROT_READ | PROT_WRITE, MAP_SHARED,
			  host->given.fds[DMM_FD_SHARED], 0);

	if (page == MAP_FAILED)
		return host_fail(host, -errno, "shared page: %s", strerror(errno));
	host->shared = page;
	if (getrandom(host->shared->seed, sizeof(host->shared->seed), 0) < 0 ||
	    getrandom(&host->isn, sizeof(host->isn), 0) < 0)
		return host_fail(host, -errno, "random numbers: %s", strerror(errno));
	return 0;
}

void host_shared_down(struct host *host)
{
	munmap(host->shared, sizeof(*host->shared));
	host->shared = NULL;
}

/* --- addresses, routes, neighbours --- */

int host_network_up(struct host *host)
{
	const struct dmm_handover *h = &host->given.params;
	struct mirror_events mirror_events = host_mirror_events(host);
	struct nexthop_events nexthop_events = host_nexthop_events(host);
	struct epoll_event event = watch_event(EPOLLIN, WATCH_MIRROR, 0);
	int *fds = host->given.fds, r;

	r = mirror_open(&host->mirror, h->ifindex, DMM_TAKE_FD(fds[DMM_FD_QUERY]),
			DMM_TAKE_FD(fds[DMM_FD_WATCH]), &mirror_events);
	if (r == 0 &&
	    epoll_ctl(host->epoll_fd, EPOLL_CTL_ADD, mirror_fd(&host->mirror), &event) < 0) {
		r = -errno;
		mirror_close(&host->mirror);
	}
	if (r < 0)
		return host_fail(host, r, "netlink for %s: %s", h->ifname, strerror(-r));
	nexthop_open(&host->nexthops, &host->mirror, DMM_TAKE_FD(fds[DMM_FD_PROBE4]),
		     DMM_TAKE_FD(fds[DMM_FD_PROBE6]), &nexthop_events);
	return 0;
}

void host_network_down(struct host *host)
{
	nexthop_close(&host->nexthops);
	mirror_close(&host->mirror);
}

/* --- events of the BPF programs --- */

static int on_ring(void *ctx, void *data, size_t len)
{
	struct host *host = ctx;

	if (len >= sizeof(struct dmm_event))
		relay_on_ring(host->relay, data);
	return 0;
}

int host_ring_up(struct host *host)
{
	struct epoll_event event = watch_event(EPOLLIN, WATCH_RING, 0);
	int r = 0;

	host->ring = ring_buffer__new(host->given.fds[DMM_FD_RING], on_ring, host, NULL);
	if (!host->ring)
		r = -errno;
	else if (epoll_ctl(host->epoll_fd, EPOLL_CTL_ADD, ring_buffer__epoll_fd(host->ring),
			   &event) < 0)
		r = -errno;
	return r < 0 ? host_fail(host, r, "ring buffer: %s", strerror(-r)) : 0;
}

void host_ring_down(struct host *host)
{
	ring_buffer__free(host->ring);
	host->ring = NULL;
}

/* --- plug-in --- */

int host_plugin_up(struct host *host)
{
	char text[512];
	int r;

	/* should it crash, this is what dmmd finds */
	snprintf(text, sizeof(text), "loading plug-in %s", host->given.params.plugin);
	host_set_last_words(host, text);
	r = plugin_load(host->given.params.plugin, &host->plugin, text, sizeof(text));
	if (r < 0)
		return host_fail(host, r, "%s", text);
	host_set_last_words(host, "");
	return 0;
}

void host_plugin_down(struct host *host)
{
	plugin_unload(&host->plugin);
}

/* --- privileges --- */

int host_privileges_up(struct host *host)
{
	const struct dmm_handover *h = &host->given.params;
	int r = privs_lower(h->uid, h->gid);

	return r < 0 ? host_fail(host, r, "lowering privileges: %s", strerror(-r)) : 0;
}

/* --- empty root --- */

int host_root_up(struct host *host)
{
	const struct dmm_handover *h = &host->given.params;
	int r = privs_raise();

	if (r == 0)
		r = sandbox_empty_root(host->given.fds[DMM_FD_ROOT]);
	host->empty_root = r == 0;
	close(DMM_TAKE_FD(host->given.fds[DMM_FD_ROOT])); /* the way out, if any */
	if (r < 0)
		dmm_warning("%s keeps its root folder: %s", h->name, strerror(-r));
	r = privs_drop();
	if (r < 0)
		return host_fail(host, r, "dropping privileges: %s", strerror(-r));
	r = sandbox_limit_memory((uint64_t)h->memory_mib << 20);
	return r < 0 ? host_fail(host, r, "limiting memory: %s", strerror(-r)) : 0;
}

/* --- packet I/O --- */

static int watch_io(struct host *host)
{
	int fds[DMM_MAX_QUEUES];
	unsigned int n = host->link.io->ops->wait_fds(host->link.io, fds, DMM_MAX_QUEUES), i;

	for (i = 0; i < n; i++) {
		struct epoll_event event = watch_event(EPOLLIN, WATCH_IO, i);

		if (epoll_ctl(host->epoll_fd, EPOLL_CTL_ADD, fds[i], &event) < 0)
			return -errno;
	}
	return 0;
}

int host_pktio_up(struct host *host)
{
	const struct dmm_handover *h = &host->given.params;
	struct dmm_xsk_open args = {
		.umem_fd = host->given.fds[DMM_FD_UMEM],
		.umem_size = h->umem_size,
		.frame_size = h->frame_size,
		.n_frames = h->n_frames,
		.n_queues = h->n_queues,
		.ifindex = h->io_ifindex,
		.mtu = h->mtu,
		.xsk_fds = host->given.xsk_fds,
		.descs = host->given.xsks,
	};
	struct dmm_pktio *io;
	int r;

	r = dmm_xsk_open(&args, &io);
	if (r < 0)
		return host_fail(host, r, "packet I/O of %s: %s", h->ifname, strerror(-r));
	host->given.fds[DMM_FD_UMEM] = -1;
	memset(host->given.xsk_fds, 0xff, sizeof(host->given.xsk_fds));
	host->link = (struct link){
		.io = io,
		.mirror = &host->mirror,
		.nexthops = &host->nexthops,
		.shared = host->shared,
		.events = host_link_events(host),
	};
	r = watch_io(host);
	if (r < 0) {
		io->ops->close(io);
		return host_fail(host, r, "packet I/O of %s: %s", h->ifname, strerror(-r));
	}
	return 0;
}

void host_pktio_down(struct host *host)
{
	nexthop_forget(&host->nexthops); /* gives the frames it holds back */
	link_close(&host->link);
	host->link.io->ops->close(host->link.io);
}

/* --- sandbox --- */

int host_sandbox_up(struct host *host)
{
	struct dmm_inst_shared *shared = host->shared;
	int r = sandbox_enter(shared->last_words, sizeof(shared->last_words), &host->sandbox);

	return r < 0 ? host_fail(host, r, "sandbox: %s", strerror(-r)) : 0;
}

/* --- stack --- */

int host_stack_up(struct host *host)
{
	struct dmm_stack_params params;
	char text[512];
	int r;

	host->now = dmm_now_ns();
	host_fill_callbacks(host);
	host_fill_params(host, &params);
	snprintf(text, sizeof(text), "in create of plug-in '%s'", host->plugin.ops->name);
	host_set_last_words(host, text);
	r = host->plugin.ops->create(&params, &host->callbacks, &host->stack);
	if (r < 0)
		return host_fail(host, r, "plug-in '%s' refused to start: %s",
				 host->plugin.ops->name, strerror(-r));
	if (r > 0 || !host->stack) /* each later call would be given what is not there */
		return host_fail(host, -EPROTO, "plug-in '%s' returned %d and %s stack from create",
				 host->plugin.ops->name, r, host->stack ? "a" : "no");
	host_set_last_words(host, "");
	return 0;
}

void host_stack_down(struct host *host)
{
	host->plugin.ops->destroy(host->stack);
	host->stack = NULL;
}

/* --- relay --- */

int host_relay_up(struct host *host)
{
	const struct dmm_handover *h = &host->given.params;
	struct relay_args args = {
		.ops = host->plugin.ops,
		.stack = host->stack,
		.shared = host->shared,
		.port_first = h->port_first,
		.port_last = h->port_last,
		.listeners = { host->given.fds[DMM_FD_RELAY4], host->given.fds[DMM_FD_RELAY6] },
		.epoll_fd = host->epoll_fd,
		.outside = host_relay_outside(host),
	};
	int r = relay_open(&args, &host->relay);

	return r < 0 ? host_fail(host, r, "relay: %s", strerror(-r)) : 0;
}

/* Flows that are left are reset, and their RSTs sent. */
void host_relay_down(struct host *host)
{
	relay_close(host->relay);
	host->relay = NULL;
	link_flush(&host->link);
}

/* --- ready --- */

int host_ready_up(struct host *host)
{
	struct dmm_pktio_caps caps;
	int r;

	host->shared->beat_ns = dmm_clock_ns(CLOCK_MONOTONIC_COARSE);
	r = master_send(&host->master, DMM_MSG_READY, NULL, 0);
	if (r < 0)
		return host_fail(host, r, "telling dmmd: %s", strerror(-r));
	host->link.io->ops->caps(host->link.io, &caps);
	dmm_info(
		"%s: plug-in %s %s on %s, %u queues, %s, %s; sandbox: %u system calls, Landlock %d, %s",
		host->given.params.name, host->plugin.ops->name, host->plugin.ops->version,
		host->given.params.ifname, caps.queues, caps.mode, caps.copy,
		host->sandbox.syscalls, host->sandbox.landlock,
		host->empty_root ? "empty root" : "no root of its own");
	return 0;
}
