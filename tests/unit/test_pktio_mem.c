/* SPDX-License-Identifier: Apache-2.0 */
/* The memory backend: frames arrive in order, are counted, and all come back. */
#include "pktio/mem.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define FRAMES 32

struct pair {
	struct dmm_pktio *ends[2];
	unsigned int lose; /* every so many-th frame */
	unsigned int seen;
};

static bool on_drop(void *ctx, unsigned int from, struct dmm_frame *frame)
{
	struct pair *pair = ctx;

	(void)frame;
	return from == 0 && pair->lose && ++pair->seen % pair->lose == 0;
}

static int setup(void **state)
{
	static struct pair pair;
	struct dmm_mem_args args = {
		.frame_size = 2048,
		.frames = FRAMES,
		.mtu = 1500,
		.drop = on_drop,
		.ctx = &pair,
	};

	memset(&pair, 0, sizeof(pair));
	*state = &pair;
	return dmm_mem_pair(&args, pair.ends);
}

static int teardown(void **state)
{
	struct pair *pair = *state;

	pair->ends[0]->ops->close(pair->ends[0]);
	pair->ends[1]->ops->close(pair->ends[1]);
	return 0;
}

static unsigned int send_numbered(struct dmm_pktio *io, unsigned int first, unsigned int n)
{
	struct dmm_frame f[FRAMES];
	unsigned int i, got = io->ops->alloc(io, f, n);

	for (i = 0; i < got; i++) {
		assert_true(f[i].room >= 1514);
		f[i].len = 64;
		memset(f[i].data, first + i, f[i].len);
	}
	return io->ops->tx_burst(io, f, got);
}

static void frames_arrive_in_order(void **state)
{
	struct pair *pair = *state;
	struct dmm_pktio *a = pair->ends[0], *b = pair->ends[1];
	struct dmm_frame f[FRAMES];
	unsigned int round, i;

	for (round = 0; round < 100; round++) {
		assert_int_equal(send_numbered(a, round, 3), 3);
		assert_int_equal(b->ops->rx_burst(b, f, 2), 2);
		assert_int_equal(b->ops->rx_burst(b, f + 2, 8), 1);
		for (i = 0; i < 3; i++) {
			assert_int_equal(f[i].len, 64);
			assert_int_equal(f[i].data[63], (uint8_t)(round + i));
		}
		assert_int_equal(dmm_mem_out(b), 3);
		b->ops->free(b, f, 3);
		assert_int_equal(dmm_mem_out(a) + dmm_mem_out(b), 0);
	}
}

static void a_full_receiver_drops_and_counts(void **state)
{
	struct pair *pair = *state;
	struct dmm_pktio *a = pair->ends[0], *b = pair->ends[1];
	struct dmm_pktio_stats stats;
	struct dmm_frame f[FRAMES];

	assert_int_equal(send_numbered(a, 0, FRAMES / 2), FRAMES / 2);
	assert_int_equal(send_numbered(a, 0, 4), 4);
	b->ops->stats(b, &stats);
	assert_int_equal(stats.rx_dropped, 4);
	assert_int_equal(b->ops->rx_burst(b, f, FRAMES), FRAMES / 2);
	b->ops->free(b, f, FRAMES / 2);
}

static void allocation_ends_and_is_counted(void **state)
{
	struct pair *pair = *state;
	struct dmm_pktio *a = pair->ends[0];
	struct dmm_pktio_stats stats;
	struct dmm_frame f[FRAMES];

	assert_int_equal(a->ops->alloc(a, f, FRAMES), FRAMES / 2);
	a->ops->stats(a, &stats);
	assert_int_equal(stats.alloc_failed, FRAMES / 2);
	a->ops->free(a, f, FRAMES / 2);
	assert_int_equal(dmm_mem_out(a), 0);
}

static void the_drop_hook_loses_frames(void **state)
{
	struct pair *pair = *state;
	struct dmm_pktio *a = pair->ends[0], *b = pair->ends[1];
	struct dmm_frame f[FRAMES];

	pair->lose = 3;
	assert_int_equal(send_numbered(a, 0, 9), 9);
	assert_int_equal(b->ops->rx_burst(b, f, FRAMES), 6);
	assert_int_equal(f[2].data[0], 3); /* 0 1 (2) 3 */
	b->ops->free(b, f, 6);
}

static void too_small_frames_are_refused(void **state)
{
	struct dmm_mem_args args = { .frame_size = 1500, .frames = 8, .mtu = 1500 };
	struct dmm_pktio *ends[2];

	(void)state;
	assert_int_equal(dmm_mem_pair(&args, ends), -EINVAL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(frames_arrive_in_order),
		TEST(a_full_receiver_drops_and_counts),
		TEST(allocation_ends_and_is_counted),
		TEST(the_drop_hook_loses_frames),
		cmocka_unit_test(too_small_frames_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
