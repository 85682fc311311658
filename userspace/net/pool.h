/* SPDX-License-Identifier: Apache-2.0 */
/* Pools of objects of one size in memory that somebody else owns. Memory that was never taken is
 * never touched. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct net_pool {
	uint8_t *memory;
	void *free;
	uint32_t size, count; /* bytes of one; how many */
	uint32_t fresh;	      /* those from here on were never taken */
	uint32_t used;
};

/* @size is a multiple of 8, @memory has @size * @count bytes. */
void net_pool_init(struct net_pool *pool, void *memory, uint32_t size, uint32_t count);
/* NULL: all are taken. What it held before is undefined. */
void *net_pool_get(struct net_pool *pool);
void net_pool_put(struct net_pool *pool, void *object);

static inline uint32_t net_pool_left(const struct net_pool *pool)
{
	return pool->count - pool->used;
}
