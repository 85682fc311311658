/* SPDX-License-Identifier: Apache-2.0 */
/* AF_XDP. Two halves: dmmd, privileged, makes and binds the sockets over a sealed memfd; the
 * instance, unprivileged, maps their rings from the descriptors it was given. */
#pragma once

#include <stdint.h>

#include <dmm/abi/handover.h>
#include <dmm/pktio.h>

struct dmm_xsk_request {
	uint32_t ifindex;
	uint32_t n_queues;
	int zerocopy;	     /* DMM_ZC_AUTO, _REQUIRE, _OFF of policy.h */
	uint32_t frame_size; /* 2048 or 4096 */
	uint32_t frames_per_queue;
};

/* The privileged half. Before 6.4 the kernel lets nobody map the rings of a bound socket: there the
 * sockets are bound once, to learn what can be had, and those handed out are left for dmm_xsk_open()
 * to bind (DMM_XSK_UNBOUND). On success @ret_umem_fd and @xsk_fds[n_queues] (array of the caller) are the
 * caller's, @descs describes each. -EBUSY: a queue already has a socket. Nothing is left open on
 * failure. The caller's mapping of the UMEM is not kept. */
int dmm_xsk_create(const struct dmm_xsk_request *request, int *ret_umem_fd, uint64_t *ret_umem_size,
		   int *xsk_fds, struct dmm_handover_xsk *descs);

/* The unprivileged half: takes over the descriptors on success. @n_frames in all, shared evenly by
 * the queues: queue i owns frames [i * n / queues, (i + 1) * n / queues). */
struct dmm_xsk_open {
	int umem_fd;
	uint64_t umem_size;
	uint32_t frame_size, n_frames;
	uint32_t n_queues;
	uint32_t ifindex; /* of what create() was asked for */
	uint32_t mtu;
	const int *xsk_fds;
	const struct dmm_handover_xsk *descs;
};
int dmm_xsk_open(const struct dmm_xsk_open *args, struct dmm_pktio **ret);

/* Where the frames are, counted one by one: for tests and for debugging a leak. The sum is
 * n_frames; @errors counts frames that came back twice or never were out. */
struct dmm_xsk_census {
	uint32_t idle;	 /* waiting in user space */
	uint32_t kernel; /* in a ring */
	uint32_t out;	 /* handed out by rx_burst() or alloc() */
	uint32_t errors;
};
void dmm_xsk_census(struct dmm_pktio *io, struct dmm_xsk_census *ret);
