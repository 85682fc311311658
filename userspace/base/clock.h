/* SPDX-License-Identifier: Apache-2.0 */
/* Clocks in nanoseconds. */
#pragma once

#include <stdint.h>
#include <time.h>

#define DMM_NS_PER_MS  1000000ull
#define DMM_NS_PER_SEC 1000000000ull

static inline uint64_t dmm_clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * DMM_NS_PER_SEC + ts.tv_nsec;
}

static inline uint64_t dmm_now_ns(void)
{
	return dmm_clock_ns(CLOCK_MONOTONIC);
}
