/* SPDX-License-Identifier: Apache-2.0 */
/* Packet I/O: how an instance gets frames from and to its interface. Knows frames, queues and
 * rings, nothing of IP or TCP. One implementation = one struct dmm_pktio_ops (`xsk`, `mem`, later
 * `dpdk`). Single-threaded: all calls come from the instance's event loop.
 *
 * Frame ownership: a frame belongs to the packet I/O until rx_burst() or alloc() hands it out, to
 * the caller until tx_burst() takes it or free() gives it back. Every frame handed out comes back. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DMM_PKTIO_BATCH 64

/* One Ethernet frame. @data points at the Ethernet header within the frame's buffer; there are
 * at least @headroom bytes before and @room bytes from @data on. */
struct dmm_frame {
	uint8_t *data;
	uint32_t len;
	uint32_t room; /* bytes from data to the end of the buffer */
	uint16_t headroom;
	uint16_t queue;	 /* received on / to be sent on */
	uint64_t cookie; /* the packet I/O's own: which buffer this is */
};

struct dmm_pktio_caps {
	char mode[16]; /* what was got: "native", "generic", "memory" */
	char copy[16]; /* "zerocopy", "copy" */
	uint32_t queues;
	uint32_t mtu; /* L3 bytes */
	uint32_t frame_size;
	uint32_t frames; /* in all */
	bool need_wakeup;
};

struct dmm_pktio_stats {
	uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes;
	uint64_t rx_dropped; /* by the kernel: ring full or no fill frame */
	uint64_t tx_full;    /* tx_burst() took fewer than asked */
	uint64_t alloc_failed;
	uint64_t kicks; /* wake-up system calls */
};

struct dmm_pktio;

struct dmm_pktio_ops {
	const char *name;

	/* Up to @n received frames into @frames; returns how many. Never blocks. */
	unsigned int (*rx_burst)(struct dmm_pktio *io, struct dmm_frame *frames, unsigned int n);
	/* Queues frames for sending, in order; returns how many were taken (their ownership goes
	 * over); the rest stays the caller's. */
	unsigned int (*tx_burst)(struct dmm_pktio *io, const struct dmm_frame *frames,
				 unsigned int n);
	/* Makes sure that everything taken is on its way: once per loop turn. */
	void (*flush)(struct dmm_pktio *io);
	/* Empty frames for sending: data at the Ethernet header with room for an MTU-sized packet,
	 * len 0. Returns how many it could give. */
	unsigned int (*alloc)(struct dmm_pktio *io, struct dmm_frame *frames, unsigned int n);
	void (*free)(struct dmm_pktio *io, const struct dmm_frame *frames, unsigned int n);
	/* File descriptors that become readable when frames wait; returns how many. Those of
	 * packet I/O without any (memory) return 0. */
	unsigned int (*wait_fds)(struct dmm_pktio *io, int *fds, unsigned int n);
	void (*caps)(struct dmm_pktio *io, struct dmm_pktio_caps *ret);
	void (*stats)(struct dmm_pktio *io, struct dmm_pktio_stats *ret);
	void (*close)(struct dmm_pktio *io);
};

/* What every implementation's own struct begins with. */
struct dmm_pktio {
	const struct dmm_pktio_ops *ops;
};
