// SPDX-License-Identifier: Apache-2.0
/* Pools of objects of one size. */
#include "net/pool.h"

#include <string.h>

void net_pool_init(struct net_pool *pool, void *memory, uint32_t size, uint32_t count)
{
	*pool = (struct net_pool){ .memory = memory, .size = size, .count = count };
}

void *net_pool_get(struct net_pool *pool)
{
	void *object = pool->free;

	if (object)
		memcpy(&pool->free, object, sizeof(pool->free));
	else if (pool->fresh < pool->count)
		object = pool->memory + (size_t)pool->size * pool->fresh++;
	else
		return NULL;
	pool->used++;
	return object;
}

void net_pool_put(struct net_pool *pool, void *object)
{
	memcpy(object, &pool->free, sizeof(pool->free));
	pool->free = object;
	pool->used--;
}
