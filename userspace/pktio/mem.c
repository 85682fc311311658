/* SPDX-License-Identifier: Apache-2.0 */
/* Packet I/O in memory, for tests. */
#include "pktio/mem.h"

#include <errno.h>

#include "base/util.h"

#define SEND_HEADROOM 66u

/* Frames of one end, numbered 0..n-1: first half for receiving, second for sending. */
struct mem_end {
	struct dmm_pktio io; /* first */
	struct mem_pair *pair;
	unsigned int index;
	bool closed;
	uint8_t *buffers;
	uint32_t *idle[2]; /* stacks: receiving, sending */
	uint32_t n_idle[2];
	bool *is_out;
	uint32_t n_out;
	struct dmm_frame *arrived; /* ring of received frames */
	uint32_t first, n_arrived;
	struct dmm_pktio_stats stats;
};

struct mem_pair {
	struct dmm_mem_args args;
	struct mem_end ends[2];
};

static struct mem_end *to_end(struct dmm_pktio *io)
{
	return (struct mem_end *)io;
}

static struct dmm_frame make_frame(struct mem_end *e, uint32_t number)
{
	uint32_t size = e->pair->args.frame_size;

	return (struct dmm_frame){
		.data = e->buffers + (size_t)number * size + SEND_HEADROOM,
		.room = size - SEND_HEADROOM,
		.headroom = SEND_HEADROOM,
		.cookie = number,
	};
}

static unsigned int mem_rx_burst(struct dmm_pktio *io, struct dmm_frame *frames, unsigned int n)
{
	struct mem_end *e = to_end(io);
	unsigned int i;

	n = DMM_MIN(n, e->n_arrived);
	for (i = 0; i < n; i++) {
		frames[i] = e->arrived[e->first];
		e->first = (e->first + 1) % e->pair->args.frames;
		e->is_out[frames[i].cookie] = true;
		e->stats.rx_bytes += frames[i].len;
	}
	e->n_arrived -= n;
	e->n_out += n;
	e->stats.rx_packets += n;
	return n;
}

/* As on a wire: nothing tells the sender that the other end had no room. */
static void deliver(struct mem_end *to, const struct dmm_frame *frame)
{
	struct dmm_frame copy;
	uint32_t at;

	if (to->closed || to->n_idle[0] == 0) {
		to->stats.rx_dropped++;
		return;
	}
	copy = make_frame(to, to->idle[0][--to->n_idle[0]]);
	copy.len = frame->len;
	memcpy(copy.data, frame->data, frame->len);
	at = (to->first + to->n_arrived++) % to->pair->args.frames;
	to->arrived[at] = copy;
}

static void take_back(struct mem_end *e, const struct dmm_frame *frame)
{
	uint32_t number = frame->cookie;
	unsigned int kind = number >= e->pair->args.frames / 2;

	if (number >= e->pair->args.frames || !e->is_out[number])
		abort(); /* freed twice, or never ours: the test has found its bug */
	e->is_out[number] = false;
	e->n_out--;
	e->idle[kind][e->n_idle[kind]++] = number;
}

static unsigned int mem_tx_burst(struct dmm_pktio *io, const struct dmm_frame *frames,
				 unsigned int n)
{
	struct mem_end *e = to_end(io);
	const struct dmm_mem_args *args = &e->pair->args;
	unsigned int i;

	for (i = 0; i < n; i++) {
		struct dmm_frame f = frames[i];

		e->stats.tx_packets++;
		e->stats.tx_bytes += f.len;
		if (!args->drop || !args->drop(args->ctx, e->index, &f))
			deliver(&e->pair->ends[!e->index], &f);
		take_back(e, &frames[i]);
	}
	return n;
}

static void mem_flush(struct dmm_pktio *io)
{
	(void)io; /* what is taken has already arrived */
}

static unsigned int mem_alloc(struct dmm_pktio *io, struct dmm_frame *frames, unsigned int n)
{
	struct mem_end *e = to_end(io);
	unsigned int i;

	if (n > e->n_idle[1]) {
		e->stats.alloc_failed += n - e->n_idle[1];
		n = e->n_idle[1];
	}
	for (i = 0; i < n; i++) {
		frames[i] = make_frame(e, e->idle[1][--e->n_idle[1]]);
		e->is_out[frames[i].cookie] = true;
	}
	e->n_out += n;
	return n;
}

static void mem_free(struct dmm_pktio *io, const struct dmm_frame *frames, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		take_back(to_end(io), &frames[i]);
}

static unsigned int mem_wait_fds(struct dmm_pktio *io, int *fds, unsigned int n)
{
	(void)io, (void)fds, (void)n;
	return 0;
}

static void mem_caps(struct dmm_pktio *io, struct dmm_pktio_caps *ret)
{
	const struct dmm_mem_args *args = &to_end(io)->pair->args;

	*ret = (struct dmm_pktio_caps){
		.mode = "memory",
		.copy = "copy",
		.queues = 1,
		.mtu = args->mtu,
		.frame_size = args->frame_size,
		.frames = args->frames,
	};
}

static void mem_stats(struct dmm_pktio *io, struct dmm_pktio_stats *ret)
{
	*ret = to_end(io)->stats;
}

static void free_end(struct mem_end *e)
{
	free(e->buffers);
	free(e->idle[0]);
	free(e->idle[1]);
	free(e->is_out);
	free(e->arrived);
}

static void mem_close(struct dmm_pktio *io)
{
	struct mem_pair *pair = to_end(io)->pair;

	to_end(io)->closed = true;
	if (!pair->ends[0].closed || !pair->ends[1].closed)
		return;
	free_end(&pair->ends[0]);
	free_end(&pair->ends[1]);
	free(pair);
}

static const struct dmm_pktio_ops mem_ops = {
	.name = "mem",
	.rx_burst = mem_rx_burst,
	.tx_burst = mem_tx_burst,
	.flush = mem_flush,
	.alloc = mem_alloc,
	.free = mem_free,
	.wait_fds = mem_wait_fds,
	.caps = mem_caps,
	.stats = mem_stats,
	.close = mem_close,
};

static int init_end(struct mem_pair *pair, unsigned int index)
{
	struct mem_end *e = &pair->ends[index];
	uint32_t n = pair->args.frames, i;

	e->io.ops = &mem_ops;
	e->pair = pair;
	e->index = index;
	e->buffers = calloc(n, pair->args.frame_size);
	e->idle[0] = calloc(n, sizeof(*e->idle[0]));
	e->idle[1] = calloc(n, sizeof(*e->idle[1]));
	e->is_out = calloc(n, sizeof(*e->is_out));
	e->arrived = calloc(n, sizeof(*e->arrived));
	if (!e->buffers || !e->idle[0] || !e->idle[1] || !e->is_out || !e->arrived)
		return -ENOMEM;
	for (i = n; i > 0; i--) {
		unsigned int kind = i - 1 >= n / 2;

		e->idle[kind][e->n_idle[kind]++] = i - 1;
	}
	return 0;
}

int dmm_mem_pair(const struct dmm_mem_args *args, struct dmm_pktio *ret_ends[2])
{
	struct mem_pair *pair;

	if (args->frames < 2 || args->frame_size < SEND_HEADROOM + 14 + args->mtu)
		return -EINVAL;
	pair = calloc(1, sizeof(*pair));
	if (!pair)
		return -ENOMEM;
	pair->args = *args;
	if (init_end(pair, 0) < 0 || init_end(pair, 1) < 0) {
		free_end(&pair->ends[0]);
		free_end(&pair->ends[1]);
		free(pair);
		return -ENOMEM;
	}
	ret_ends[0] = &pair->ends[0].io;
	ret_ends[1] = &pair->ends[1].io;
	return 0;
}

uint32_t dmm_mem_out(struct dmm_pktio *io)
{
	return to_end(io)->n_out;
}
