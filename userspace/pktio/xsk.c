/* SPDX-License-Identifier: Apache-2.0 */
/* AF_XDP, the unprivileged half: maps the rings of sockets it was given and moves frames.
 *
 * Each queue's frames are divided in two: the first half is for receiving, the second for sending,
 * so neither direction can starve the other. A frame's way:
 *
 *   receiving  IDLE (in its queue's stack) -> KERNEL (fill ring, wire, rx ring) -> OUT -> IDLE
 *   sending    IDLE (in the one send stack) -> OUT -> KERNEL (tx, completion ring) -> IDLE
 *
 * Sending frames may leave by any queue: the UMEM is shared by all.
 * #syscalls close getsockopt munmap recvfrom sendto */
#include "pktio/xsk.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <xdp/xsk.h>

#include "base/util.h"
#include "pktio/xsk_internal.h"

/* So that the IP header of a frame to send is 16-byte aligned, with a cache line before it. */
#define SEND_HEADROOM 66u
#define ETH_OVERHEAD  14u
/* One sendto() in copy mode sends at most 32 frames; so many calls per flush drain any ring. */
#define MAX_KICKS 256

enum frame_state { FRAME_IDLE, FRAME_KERNEL, FRAME_OUT };

struct mapped_ring {
	void *base;
	size_t len;
};

struct xsk_queue {
	int fd;
	struct xsk_ring_prod fill, tx;
	struct xsk_ring_cons comp, rx;
	struct mapped_ring maps[4];
	uint32_t *idle; /* frames to fill the fill ring with */
	uint32_t n_idle;
	uint32_t tx_pending; /* given to the kernel, not yet completed */
	bool unkicked;	     /* something was put into tx since the last kick */
};

struct xsk {
	struct dmm_pktio io; /* first */
	struct xsk_queue *queues;
	uint32_t n_queues;
	int umem_fd;
	uint8_t *umem;
	uint64_t umem_size;
	uint32_t frame_size, n_frames, per_queue, mtu;
	uint32_t next_queue; /* where the next rx_burst() starts */
	uint32_t *idle;	     /* the send stack */
	uint32_t n_idle;
	uint8_t *state; /* enum frame_state of each frame */
	uint32_t errors;
	uint32_t flags; /* DMM_XSK_* */
	struct dmm_pktio_stats stats;
};

static struct xsk *to_xsk(struct dmm_pktio *io)
{
	return (struct xsk *)io;
}

static bool is_send_frame(const struct xsk *x, uint32_t frame)
{
	return frame % x->per_queue >= x->per_queue / 2;
}

/* Moves a frame from one state to the next. False, and counted: it is not where it should be, so
 * it must not be used again. */
static bool move_frame(struct xsk *x, uint64_t frame, enum frame_state from, enum frame_state to)
{
	if (frame >= x->n_frames || x->state[frame] != from) {
		x->errors++;
		return false;
	}
	x->state[frame] = to;
	return true;
}

static void put_idle(struct xsk *x, uint32_t frame)
{
	struct xsk_queue *q = &x->queues[frame / x->per_queue];

	if (is_send_frame(x, frame))
		x->idle[x->n_idle++] = frame;
	else
		q->idle[q->n_idle++] = frame;
}

static void wake_receiver(struct xsk *x, struct xsk_queue *q)
{
	if (!xsk_ring_prod__needs_wakeup(&q->fill))
		return;
	(void)!recvfrom(q->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
	x->stats.kicks++;
}

static void refill(struct xsk *x, struct xsk_queue *q)
{
	uint32_t n = DMM_MIN(q->n_idle, xsk_prod_nb_free(&q->fill, q->n_idle));
	uint32_t at, i;

	if (n == 0 || xsk_ring_prod__reserve(&q->fill, n, &at) == 0)
		return;
	for (i = 0; i < n; i++) {
		uint32_t frame = q->idle[--q->n_idle];

		move_frame(x, frame, FRAME_IDLE, FRAME_KERNEL);
		*xsk_ring_prod__fill_addr(&q->fill, at + i) = (uint64_t)frame * x->frame_size;
	}
	xsk_ring_prod__submit(&q->fill, n);
}

static void reap(struct xsk *x, struct xsk_queue *q)
{
	uint32_t at, n, i;

	if (q->tx_pending == 0)
		return;
	n = xsk_ring_cons__peek(&q->comp, q->comp.size, &at);
	for (i = 0; i < n; i++) {
		uint64_t frame = *xsk_ring_cons__comp_addr(&q->comp, at + i) / x->frame_size;

		if (move_frame(x, frame, FRAME_KERNEL, FRAME_IDLE))
			put_idle(x, frame);
	}
	if (n > 0)
		xsk_ring_cons__release(&q->comp, n);
	q->tx_pending -= n;
}

static unsigned int receive(struct xsk *x, uint32_t queue, struct dmm_frame *frames, unsigned int n)
{
	struct xsk_queue *q = &x->queues[queue];
	uint32_t at, got, i;
	unsigned int kept = 0;

	got = xsk_ring_cons__peek(&q->rx, n, &at);
	for (i = 0; i < got; i++) {
		const struct xdp_desc *desc = xsk_ring_cons__rx_desc(&q->rx, at + i);
		uint64_t frame = desc->addr / x->frame_size;
		uint32_t offset = desc->addr % x->frame_size;

		if (!move_frame(x, frame, FRAME_KERNEL, FRAME_OUT))
			continue;
		frames[kept++] = (struct dmm_frame){
			.data = x->umem + desc->addr,
			.len = desc->len,
			.room = x->frame_size - offset,
			.headroom = offset,
			.queue = queue,
			.cookie = frame,
		};
		x->stats.rx_bytes += desc->len;
	}
	if (got > 0)
		xsk_ring_cons__release(&q->rx, got);
	x->stats.rx_packets += kept;
	return kept;
}

static unsigned int xsk_rx_burst(struct dmm_pktio *io, struct dmm_frame *frames, unsigned int n)
{
	struct xsk *x = to_xsk(io);
	unsigned int got = 0;
	uint32_t i;

	for (i = 0; i < x->n_queues; i++) {
		uint32_t queue = (x->next_queue + i) % x->n_queues;
		struct xsk_queue *q = &x->queues[queue];

		refill(x, q);
		got += receive(x, queue, frames + got, n - got);
		wake_receiver(x, q);
	}
	x->next_queue = (x->next_queue + 1) % x->n_queues;
	return got;
}

/* Frames of one queue, as many as its ring takes. */
static unsigned int send_run(struct xsk *x, struct xsk_queue *q, const struct dmm_frame *frames,
			     unsigned int n)
{
	uint32_t at, i;

	reap(x, q);
	n = DMM_MIN(n, xsk_prod_nb_free(&q->tx, n));
	/* the kernel needs a completion slot for each */
	n = DMM_MIN(n, q->comp.size - q->tx_pending);
	if (n == 0 || xsk_ring_prod__reserve(&q->tx, n, &at) == 0)
		return 0;
	for (i = 0; i < n; i++) {
		const struct dmm_frame *f = &frames[i];
		struct xdp_desc *desc = xsk_ring_prod__tx_desc(&q->tx, at + i);

		move_frame(x, f->cookie, FRAME_OUT, FRAME_KERNEL);
		*desc = (struct xdp_desc){ .addr = f->data - x->umem, .len = f->len };
		x->stats.tx_bytes += f->len;
	}
	xsk_ring_prod__submit(&q->tx, n);
	q->tx_pending += n;
	q->unkicked = true;
	x->stats.tx_packets += n;
	return n;
}

static unsigned int xsk_tx_burst(struct dmm_pktio *io, const struct dmm_frame *frames,
				 unsigned int n)
{
	struct xsk *x = to_xsk(io);
	unsigned int done = 0;

	while (done < n) {
		uint16_t queue = frames[done].queue;
		unsigned int run = 1, taken;

		while (done + run < n && frames[done + run].queue == queue)
			run++;
		taken = queue < x->n_queues ? send_run(x, &x->queues[queue], frames + done, run)
					    : 0;
		done += taken;
		if (taken < run) {
			x->stats.tx_full++;
			break;
		}
	}
	return done;
}

/* EAGAIN: the kernel stopped at its budget, and EBUSY: after reaping a full completion ring; both
 * mean once more. ENOBUFS and ENETDOWN lie with the device: the next flush tries again. */
static void kick(struct xsk *x, struct xsk_queue *q)
{
	int tries;

	q->unkicked = false;
	for (tries = 0; tries < MAX_KICKS; tries++) {
		if (!xsk_ring_prod__needs_wakeup(&q->tx))
			return;
		x->stats.kicks++;
		if (sendto(q->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0)
			return;
		if (errno != EAGAIN && errno != EBUSY) {
			q->unkicked = true;
			return;
		}
		reap(x, q);
	}
	q->unkicked = true;
}

static void xsk_flush(struct dmm_pktio *io)
{
	struct xsk *x = to_xsk(io);
	uint32_t i;

	for (i = 0; i < x->n_queues; i++) {
		struct xsk_queue *q = &x->queues[i];

		if (q->unkicked)
			kick(x, q);
		reap(x, q);
	}
}

static unsigned int xsk_alloc(struct dmm_pktio *io, struct dmm_frame *frames, unsigned int n)
{
	struct xsk *x = to_xsk(io);
	uint32_t queue;
	unsigned int i;

	for (queue = 0; x->n_idle < n && queue < x->n_queues; queue++)
		reap(x, &x->queues[queue]);
	if (x->n_idle < n) {
		x->stats.alloc_failed += n - x->n_idle;
		n = x->n_idle;
	}
	for (i = 0; i < n; i++) {
		uint32_t frame = x->idle[--x->n_idle];

		move_frame(x, frame, FRAME_IDLE, FRAME_OUT);
		frames[i] = (struct dmm_frame){
			.data = x->umem + (uint64_t)frame * x->frame_size + SEND_HEADROOM,
			.room = x->frame_size - SEND_HEADROOM,
			.headroom = SEND_HEADROOM,
			.cookie = frame,
		};
	}
	return n;
}

static void xsk_free(struct dmm_pktio *io, const struct dmm_frame *frames, unsigned int n)
{
	struct xsk *x = to_xsk(io);
	unsigned int i;

	for (i = 0; i < n; i++)
		if (move_frame(x, frames[i].cookie, FRAME_OUT, FRAME_IDLE))
			put_idle(x, frames[i].cookie);
}

static unsigned int xsk_wait_fds(struct dmm_pktio *io, int *fds, unsigned int n)
{
	struct xsk *x = to_xsk(io);
	unsigned int i;

	for (i = 0; i < x->n_queues && i < n; i++)
		fds[i] = x->queues[i].fd;
	return i;
}

static void xsk_caps(struct dmm_pktio *io, struct dmm_pktio_caps *ret)
{
	struct xsk *x = to_xsk(io);

	*ret = (struct dmm_pktio_caps){
		.queues = x->n_queues,
		.mtu = x->mtu,
		.frame_size = x->frame_size,
		.frames = x->n_frames,
		.need_wakeup = x->flags & DMM_XSK_NEED_WAKEUP,
	};
	strcpy(ret->mode, x->flags & DMM_XSK_NATIVE ? "native" : "generic");
	strcpy(ret->copy, x->flags & DMM_XSK_ZEROCOPY ? "zerocopy" : "copy");
}

static void xsk_stats(struct dmm_pktio *io, struct dmm_pktio_stats *ret)
{
	struct xsk *x = to_xsk(io);
	uint32_t i;

	x->stats.rx_dropped = 0;
	for (i = 0; i < x->n_queues; i++) {
		struct xdp_statistics s = { 0 };
		socklen_t len = sizeof(s);

		if (getsockopt(x->queues[i].fd, SOL_XDP, XDP_STATISTICS, &s, &len) == 0)
			x->stats.rx_dropped += s.rx_dropped + s.rx_ring_full;
	}
	*ret = x->stats;
}

static void xsk_close(struct dmm_pktio *io)
{
	struct xsk *x = to_xsk(io);
	uint32_t i, m;

	for (i = 0; i < x->n_queues; i++) {
		struct xsk_queue *q = &x->queues[i];

		for (m = 0; m < DMM_ARRAY_SIZE(q->maps); m++)
			if (q->maps[m].base)
				munmap(q->maps[m].base, q->maps[m].len);
		if (q->fd >= 0)
			close(q->fd);
		free(q->idle);
	}
	if (x->umem)
		munmap(x->umem, x->umem_size);
	if (x->umem_fd >= 0)
		close(x->umem_fd);
	free(x->idle);
	free(x->state);
	free(x->queues);
	free(x);
}

static const struct dmm_pktio_ops xsk_ops = {
	.name = "xsk",
	.rx_burst = xsk_rx_burst,
	.tx_burst = xsk_tx_burst,
	.flush = xsk_flush,
	.alloc = xsk_alloc,
	.free = xsk_free,
	.wait_fds = xsk_wait_fds,
	.caps = xsk_caps,
	.stats = xsk_stats,
	.close = xsk_close,
};

static int map_ring(int fd, const struct xdp_ring_offset *off, uint32_t size, size_t entry,
		    off_t page, struct mapped_ring *ret)
{
	size_t len = off->desc + size * entry;
	void *base = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, page);

	if (base == MAP_FAILED)
		return -errno;
	*ret = (struct mapped_ring){ base, len };
	return 0;
}

/* xsk_ring_prod and xsk_ring_cons have the same fields under two names. */
#define SET_RING(r, map, off, n)                                                                   \
	do {                                                                                       \
		(r)->mask = (n)-1;                                                                 \
		(r)->size = (n);                                                                   \
		(r)->producer = (void *)((char *)(map).base + (off).producer);                     \
		(r)->consumer = (void *)((char *)(map).base + (off).consumer);                     \
		(r)->flags = (void *)((char *)(map).base + (off).flags);                           \
		(r)->ring = (char *)(map).base + (off).desc;                                       \
		(r)->cached_prod = *(r)->producer;                                                 \
		(r)->cached_cons = *(r)->consumer;                                                 \
	} while (0)

static int map_queue(struct xsk_queue *q, const struct dmm_handover_xsk *desc)
{
	struct xdp_mmap_offsets off;
	socklen_t len = sizeof(off);
	int r;

	if (getsockopt(q->fd, SOL_XDP, XDP_MMAP_OFFSETS, &off, &len) < 0)
		return -errno;
	if (len != sizeof(off))
		return -EPROTO;
	r = map_ring(q->fd, &off.rx, desc->rx_size, sizeof(struct xdp_desc), XDP_PGOFF_RX_RING,
		     &q->maps[0]);
	if (!r)
		r = map_ring(q->fd, &off.tx, desc->tx_size, sizeof(struct xdp_desc),
			     XDP_PGOFF_TX_RING, &q->maps[1]);
	if (!r)
		r = map_ring(q->fd, &off.fr, desc->fill_size, sizeof(uint64_t),
			     XDP_UMEM_PGOFF_FILL_RING, &q->maps[2]);
	if (!r)
		r = map_ring(q->fd, &off.cr, desc->comp_size, sizeof(uint64_t),
			     XDP_UMEM_PGOFF_COMPLETION_RING, &q->maps[3]);
	if (r < 0)
		return r;
	SET_RING(&q->rx, q->maps[0], off.rx, desc->rx_size);
	SET_RING(&q->tx, q->maps[1], off.tx, desc->tx_size);
	SET_RING(&q->fill, q->maps[2], off.fr, desc->fill_size);
	SET_RING(&q->comp, q->maps[3], off.cr, desc->comp_size);
	/* libxdp's convention, see xsk_prod_nb_free() */
	q->tx.cached_cons += q->tx.size;
	q->fill.cached_cons += q->fill.size;
	return 0;
}

static bool is_ring_size(uint32_t n)
{
	return n > 0 && n <= 1u << 20 && (n & (n - 1)) == 0;
}

static bool is_valid(const struct dmm_xsk_open *args)
{
	uint32_t i;

	if (args->n_queues == 0 || args->n_queues > DMM_MAX_QUEUES ||
	    (args->frame_size != 2048 && args->frame_size != 4096) ||
	    args->n_frames < 2 * args->n_queues || args->n_frames % (2 * args->n_queues) ||
	    args->umem_size != (uint64_t)args->frame_size * args->n_frames ||
	    args->mtu + ETH_OVERHEAD + SEND_HEADROOM > args->frame_size)
		return false;
	for (i = 0; i < args->n_queues; i++) {
		const struct dmm_handover_xsk *d = &args->descs[i];

		if (!is_ring_size(d->rx_size) || !is_ring_size(d->tx_size) ||
		    !is_ring_size(d->fill_size) || !is_ring_size(d->comp_size))
			return false;
	}
	return true;
}

static int allocate(struct xsk *x)
{
	uint32_t i;

	x->queues = calloc(x->n_queues, sizeof(*x->queues));
	if (!x->queues) {
		x->n_queues = 0;
		return -ENOMEM;
	}
	for (i = 0; i < x->n_queues; i++)
		x->queues[i].fd = -1;
	x->idle = calloc(x->n_frames, sizeof(*x->idle));
	x->state = calloc(x->n_frames, sizeof(*x->state));
	if (!x->idle || !x->state)
		return -ENOMEM;
	for (i = 0; i < x->n_queues; i++) {
		x->queues[i].idle = calloc(x->per_queue, sizeof(*x->queues[i].idle));
		if (!x->queues[i].idle)
			return -ENOMEM;
	}
	return 0;
}

/* As the sockets were bound that create() tried. */
static int bind_queue(const struct dmm_xsk_open *args, uint32_t i)
{
	const struct dmm_handover_xsk *desc = &args->descs[i];

	return dmm_xsk_bind(args->xsk_fds[i], args->ifindex, desc->queue, i ? args->xsk_fds[0] : -1,
			    desc->flags & DMM_XSK_ZEROCOPY ? XDP_ZEROCOPY : XDP_COPY);
}

static int map_all(struct xsk *x, const struct dmm_xsk_open *args)
{
	uint32_t i;
	void *umem;
	int r;

	umem = mmap(NULL, x->umem_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
		    args->umem_fd, 0);
	if (umem == MAP_FAILED)
		return -errno;
	x->umem = umem;
	for (i = 0; i < x->n_queues; i++) {
		x->queues[i].fd = args->xsk_fds[i];
		r = map_queue(&x->queues[i], &args->descs[i]);
		if (!r && (args->descs[i].flags & DMM_XSK_UNBOUND))
			r = bind_queue(args, i);
		if (r < 0)
			return r;
	}
	return 0;
}

int dmm_xsk_open(const struct dmm_xsk_open *args, struct dmm_pktio **ret)
{
	struct xsk *x;
	uint32_t i;
	int r;

	if (!is_valid(args))
		return -EINVAL;
	x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->io.ops = &xsk_ops;
	x->n_queues = args->n_queues;
	x->umem_fd = -1;
	x->umem_size = args->umem_size;
	x->frame_size = args->frame_size;
	x->n_frames = args->n_frames;
	x->per_queue = args->n_frames / args->n_queues;
	x->mtu = args->mtu;
	x->flags = args->descs[0].flags;

	r = allocate(x);
	if (!r)
		r = map_all(x, args);
	if (r < 0) {
		/* the descriptors are still the caller's */
		for (i = 0; i < x->n_queues; i++)
			x->queues[i].fd = -1;
		xsk_close(&x->io);
		return r;
	}
	x->umem_fd = args->umem_fd;
	for (i = x->n_frames; i > 0; i--)
		put_idle(x, i - 1);
	for (i = 0; i < x->n_queues; i++)
		refill(x, &x->queues[i]);
	*ret = &x->io;
	return 0;
}

void dmm_xsk_census(struct dmm_pktio *io, struct dmm_xsk_census *ret)
{
	struct xsk *x = to_xsk(io);
	struct dmm_xsk_census c = { .errors = x->errors };
	uint32_t i;

	for (i = 0; i < x->n_frames; i++) {
		c.idle += x->state[i] == FRAME_IDLE;
		c.kernel += x->state[i] == FRAME_KERNEL;
		c.out += x->state[i] == FRAME_OUT;
	}
	*ret = c;
}
