// SPDX-License-Identifier: Apache-2.0
/* The timer wheel. */
#include "net/wheel.h"

#include <stddef.h>

#define TICK_SHIFT 16
#define BITS	   6

_Static_assert(BITS *NET_WHEEL_LEVELS + TICK_SHIFT == 64, "every time has its slot");

void net_wheel_init(struct net_wheel *wheel, uint64_t now)
{
	*wheel = (struct net_wheel){ .tick = now >> TICK_SHIFT };
}

static void put_first(struct net_timer **list, struct net_timer *timer)
{
	timer->next = *list;
	timer->link = list;
	if (timer->next)
		timer->next->link = &timer->next;
	*list = timer;
}

static void place(struct net_wheel *wheel, struct net_timer *timer)
{
	const uint64_t differs = timer->tick ^ wheel->tick;
	unsigned int level;

	timer->level = NET_WHEEL_LEVELS;
	if (timer->tick <= wheel->tick) {
		put_first(&wheel->due, timer);
		return;
	}
	level = (63u - (unsigned int)__builtin_clzll(differs)) / BITS;
	timer->level = (uint8_t)level;
	timer->slot = (timer->tick >> (BITS * level)) % NET_WHEEL_SLOTS;
	wheel->occupied[level] |= 1ull << timer->slot;
	put_first(&wheel->slots[level][timer->slot], timer);
}

void net_wheel_clear(struct net_wheel *wheel, struct net_timer *timer)
{
	if (!timer->link)
		return;
	*timer->link = timer->next;
	if (timer->next)
		timer->next->link = timer->link;
	timer->link = NULL;
	if (timer->level < NET_WHEEL_LEVELS && !wheel->slots[timer->level][timer->slot])
		wheel->occupied[timer->level] &= ~(1ull << timer->slot);
}

void net_wheel_set(struct net_wheel *wheel, struct net_timer *timer, uint64_t at)
{
	net_wheel_clear(wheel, timer);
	timer->tick = (at >> TICK_SHIFT) + ((at & ((1 << TICK_SHIFT) - 1)) != 0);
	place(wheel, timer);
}

/* The first tick of the earliest slot with timers; false: no slot has any. */
static bool earliest(const struct net_wheel *wheel, unsigned int *level, unsigned int *slot,
		     uint64_t *tick)
{
	unsigned int k;

	for (k = 0; k < NET_WHEEL_LEVELS && !wheel->occupied[k]; k++)
		;
	if (k == NET_WHEEL_LEVELS)
		return false;
	*level = k;
	*slot = (unsigned int)__builtin_ctzll(wheel->occupied[k]);
	*tick = (wheel->tick & ~((1ull << (BITS * (k + 1))) - 1)) | (uint64_t)*slot << (BITS * k);
	return true;
}

/* The present moves to @tick, the first of that slot: its timers go down a level or are due. */
static void cascade(struct net_wheel *wheel, unsigned int level, unsigned int slot, uint64_t tick)
{
	struct net_timer *timer = wheel->slots[level][slot], *next;

	wheel->slots[level][slot] = NULL;
	wheel->occupied[level] &= ~(1ull << slot);
	wheel->tick = tick;
	for (; timer; timer = next) {
		next = timer->next;
		place(wheel, timer);
	}
}

struct net_timer *net_wheel_expire(struct net_wheel *wheel, uint64_t now)
{
	const uint64_t tick = now >> TICK_SHIFT;
	struct net_timer *timer;
	unsigned int level, slot;
	uint64_t first;

	while (!wheel->due && earliest(wheel, &level, &slot, &first) && first <= tick)
		cascade(wheel, level, slot, first);
	timer = wheel->due;
	if (timer)
		net_wheel_clear(wheel, timer);
	else if (tick > wheel->tick)
		wheel->tick = tick;
	return timer;
}

uint64_t net_wheel_next(const struct net_wheel *wheel)
{
	unsigned int level, slot;
	uint64_t tick;

	if (wheel->due)
		return 0;
	return earliest(wheel, &level, &slot, &tick) ? tick << TICK_SHIFT : UINT64_MAX;
}
