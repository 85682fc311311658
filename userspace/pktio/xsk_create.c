/* SPDX-License-Identifier: Apache-2.0 */
/* AF_XDP, the privileged half: a sealed memfd as UMEM and one bound socket per queue. libxdp's
 * setup calls keep the rings to themselves, so the sockets are made by the plain system calls. */
#define _GNU_SOURCE /* memfd_create() */
#include "pktio/xsk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <xdp/xsk.h>

#include "base/util.h"
#include "pktio/xsk_internal.h"
#include "policy/policy.h"

#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#define SO_BUSY_POLL_BUDGET 70
#endif

#define BUSY_POLL_USEC	 20
#define BUSY_POLL_BUDGET 64
#define BIND_TRIES	 50
#define BIND_PAUSE_USEC	 5000

static uint32_t round_up_pow2(uint32_t n)
{
	uint32_t p = 1;

	while (p < n)
		p *= 2;
	return p;
}

/* Sealed, so that whoever holds it later cannot take the pages from under the kernel's UMEM. */
static int make_umem(uint64_t size)
{
	dmm_autoclose int fd = memfd_create("dmm-umem", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, size) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	return DMM_TAKE_FD(fd);
}

static int set_ring(int fd, int option, uint32_t size)
{
	return setsockopt(fd, SOL_XDP, option, &size, sizeof(size)) < 0 ? -errno : 0;
}

static int set_rings(int fd, const struct dmm_handover_xsk *desc)
{
	int r;

	r = set_ring(fd, XDP_UMEM_FILL_RING, desc->fill_size);
	if (!r)
		r = set_ring(fd, XDP_UMEM_COMPLETION_RING, desc->comp_size);
	if (!r)
		r = set_ring(fd, XDP_RX_RING, desc->rx_size);
	if (!r)
		r = set_ring(fd, XDP_TX_RING, desc->tx_size);
	return r;
}

/* Drivers and kernels that lack it go on with interrupts, so failure is not an error. */
static void prefer_busy_poll(int fd)
{
	int on = 1, usec = BUSY_POLL_USEC, budget = BUSY_POLL_BUDGET;

	if (setsockopt(fd, SOL_SOCKET, SO_PREFER_BUSY_POLL, &on, sizeof(on)) < 0)
		return;
	(void)!setsockopt(fd, SOL_SOCKET, SO_BUSY_POLL, &usec, sizeof(usec));
	(void)!setsockopt(fd, SOL_SOCKET, SO_BUSY_POLL_BUDGET, &budget, sizeof(budget));
}

static bool is_zerocopy(int fd)
{
	struct xdp_options options = { 0 };
	socklen_t len = sizeof(options);

	return getsockopt(fd, SOL_XDP, XDP_OPTIONS, &options, &len) == 0 &&
	       (options.flags & XDP_OPTIONS_ZEROCOPY);
}

/* The kernel frees the queue of a closed socket from a work item, some milliseconds later: without
 * patience a restarted instance would find its own predecessor there. */
int dmm_xsk_bind(int fd, uint32_t ifindex, uint32_t queue, int owner_fd, uint16_t mode)
{
	struct sockaddr_xdp addr = {
		.sxdp_family = AF_XDP,
		.sxdp_flags = owner_fd < 0 ? XDP_USE_NEED_WAKEUP | mode : XDP_SHARED_UMEM,
		.sxdp_ifindex = ifindex,
		.sxdp_queue_id = queue,
		.sxdp_shared_umem_fd = owner_fd < 0 ? 0 : owner_fd,
	};
	int tries;

	for (tries = 0; tries < BIND_TRIES; tries++) {
		if (bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0)
			return 0;
		if (errno != EBUSY)
			return -errno;
		usleep(BIND_PAUSE_USEC);
	}
	return -EBUSY;
}

/* One socket, bound unless @desc says otherwise. The first one (@owner_fd -1) registers the UMEM and
 * chooses the copy mode; the others share the UMEM and, as the kernel has it, inherit the mode. */
static int make_socket(const struct dmm_xsk_request *request, void *umem, uint64_t umem_size,
		       int owner_fd, uint16_t mode, struct dmm_handover_xsk *desc)
{
	struct xdp_umem_reg reg = {
		.addr = (uintptr_t)umem,
		.len = umem_size,
		.chunk_size = request->frame_size,
	};
	dmm_autoclose int fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return -errno;
	if (owner_fd < 0 && setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &reg, sizeof(reg)) < 0)
		return -errno;
	r = set_rings(fd, desc);
	if (r < 0)
		return r;
	prefer_busy_poll(fd);
	if (desc->flags & DMM_XSK_UNBOUND)
		return DMM_TAKE_FD(fd);
	r = dmm_xsk_bind(fd, request->ifindex, desc->queue, owner_fd, mode);
	if (r < 0)
		return r;
	desc->flags = DMM_XSK_NEED_WAKEUP | (is_zerocopy(fd) ? DMM_XSK_ZEROCOPY : 0);
	return DMM_TAKE_FD(fd);
}

static void close_all(int *fds, uint32_t n)
{
	while (n > 0)
		close(fds[--n]);
}

static int make_sockets(const struct dmm_xsk_request *request, void *umem, uint64_t umem_size,
			uint16_t mode, int *fds, struct dmm_handover_xsk *descs)
{
	uint32_t i;

	for (i = 0; i < request->n_queues; i++) {
		fds[i] = make_socket(request, umem, umem_size, i ? fds[0] : -1, mode, &descs[i]);
		if (fds[i] < 0) {
			int err = fds[i];

			close_all(fds, i);
			return err;
		}
	}
	return 0;
}

/* With no mode named the kernel takes zero-copy where the first queue's driver offers it. A later
 * queue may still refuse, so `auto` has a second step: all of them by copy. */
static int make_sockets_by_ladder(const struct dmm_xsk_request *request, void *umem,
				  uint64_t umem_size, int *fds, struct dmm_handover_xsk *descs)
{
	int r;

	switch (request->zerocopy) {
	case DMM_ZC_REQUIRE:
		return make_sockets(request, umem, umem_size, XDP_ZEROCOPY, fds, descs);
	case DMM_ZC_OFF:
		return make_sockets(request, umem, umem_size, XDP_COPY, fds, descs);
	default:
		r = make_sockets(request, umem, umem_size, 0, fds, descs);
		if (r < 0 && r != -EBUSY)
			r = make_sockets(request, umem, umem_size, XDP_COPY, fds, descs);
		return r;
	}
}

static bool maps_when_bound(int fd)
{
	void *ring = mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, XDP_UMEM_PGOFF_FILL_RING);

	if (ring == MAP_FAILED)
		return errno != EBUSY;
	munmap(ring, 1);
	return true;
}

/* Others in place of the bound ones, which have shown what can be had. */
static int make_unbound(const struct dmm_xsk_request *request, void *umem, uint64_t umem_size,
			int *fds, struct dmm_handover_xsk *descs)
{
	uint32_t i;

	close_all(fds, request->n_queues);
	for (i = 0; i < request->n_queues; i++)
		descs[i].flags |= DMM_XSK_UNBOUND;
	return make_sockets(request, umem, umem_size, 0, fds, descs);
}

static bool is_native(uint32_t ifindex)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);

	return bpf_xdp_query(ifindex, 0, &query) == 0 &&
	       (query.attach_mode == XDP_ATTACHED_DRV || query.attach_mode == XDP_ATTACHED_HW);
}

static bool is_valid(const struct dmm_xsk_request *request)
{
	return request->n_queues > 0 && request->n_queues <= DMM_MAX_QUEUES &&
	       (request->frame_size == 2048 || request->frame_size == 4096) &&
	       request->frames_per_queue >= 64 && request->frames_per_queue <= 1u << 20 &&
	       request->frames_per_queue % 2 == 0;
}

int dmm_xsk_create(const struct dmm_xsk_request *request, int *ret_umem_fd, uint64_t *ret_umem_size,
		   int *xsk_fds, struct dmm_handover_xsk *descs)
{
	struct dmm_handover_xsk made[DMM_MAX_QUEUES] = { 0 };
	dmm_autoclose int umem_fd = -1;
	int fds[DMM_MAX_QUEUES];
	uint32_t ring, i;
	uint64_t size;
	void *umem;
	int r;

	if (!is_valid(request))
		return -EINVAL;
	size = (uint64_t)request->frame_size * request->frames_per_queue * request->n_queues;
	ring = round_up_pow2(request->frames_per_queue / 2);
	for (i = 0; i < request->n_queues; i++)
		made[i] = (struct dmm_handover_xsk){ i, ring, ring, ring, ring, 0 };

	umem_fd = make_umem(size);
	if (umem_fd < 0)
		return umem_fd;
	umem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, umem_fd, 0);
	if (umem == MAP_FAILED)
		return -errno;
	r = make_sockets_by_ladder(request, umem, size, fds, made);
	if (!r && !maps_when_bound(fds[0]))
		r = make_unbound(request, umem, size, fds, made);
	munmap(umem, size); /* the kernel has pinned the pages */
	if (r < 0)
		return r;

	for (i = 0; i < request->n_queues; i++) {
		made[i].flags |= is_native(request->ifindex) ? DMM_XSK_NATIVE : 0;
		descs[i] = made[i];
		xsk_fds[i] = fds[i];
	}
	*ret_umem_fd = DMM_TAKE_FD(umem_fd);
	*ret_umem_size = size;
	return 0;
}
