/* SPDX-License-Identifier: Apache-2.0 */
/* A hierarchical timer wheel: arm, cancel and expire in constant time, however many timers run.
 *
 * Time is cut into ticks of 2^16 ns (65 us). Level k has 64 slots of 64^k ticks each; a timer is
 * on the level of the highest group of 6 bits in which its tick differs from the present one, so
 * the earliest is always in the first occupied slot of the lowest occupied level. Eight levels
 * are all 64 bits of ns. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NET_WHEEL_LEVELS 8
#define NET_WHEEL_SLOTS	 64

struct net_timer {
	struct net_timer *next, **link; /* link: NULL while it does not run */
	uint64_t tick;
	uint8_t level, slot;
};

struct net_wheel {
	uint64_t tick; /* the present */
	struct net_timer *due;
	uint64_t occupied[NET_WHEEL_LEVELS]; /* bit per slot */
	struct net_timer *slots[NET_WHEEL_LEVELS][NET_WHEEL_SLOTS];
};

void net_wheel_init(struct net_wheel *wheel, uint64_t now);
/* Runs @timer until @at (ns), whether it ran before or not. It never expires before that. */
void net_wheel_set(struct net_wheel *wheel, struct net_timer *timer, uint64_t at);
void net_wheel_clear(struct net_wheel *wheel, struct net_timer *timer);
/* Takes one timer that is due at @now; NULL: there is none. */
struct net_timer *net_wheel_expire(struct net_wheel *wheel, uint64_t now);
/* Not after the earliest timer is due (ns); UINT64_MAX: none runs. */
uint64_t net_wheel_next(const struct net_wheel *wheel);

static inline bool net_timer_runs(const struct net_timer *timer)
{
	return timer->link != NULL;
}
