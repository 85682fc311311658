/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a stream by their place in it, with holes where nothing came yet: a list of chunks,
 * each for a part of the stream of one size, there only while it is needed. So a connection holds
 * what it uses, never more than its window and two chunks, whatever the segments were. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/pool.h"

#define NET_CHUNK 4096u

struct net_chunk {
	struct net_chunk *next;
	uint32_t base; /* place of the first byte, a multiple of NET_CHUNK */
	uint32_t pad;
	uint8_t data[NET_CHUNK];
};

struct net_stream {
	struct net_chunk *head, *tail; /* by place */
	/* where the last searches ended, or NULL: one for what goes on at the front, one for what
	 * is sent again behind it */
	struct net_chunk *hint[2];
	uint8_t turn; /* the hint that was used last */
};

/* False: out of chunks; some bytes may have been written. */
bool net_stream_put(struct net_stream *stream, struct net_pool *pool, uint32_t at, const void *data,
		    uint32_t len);
/* Room for bytes at @at that the caller writes himself: how many of @len in one piece, and where. 0: out
 * of chunks. */
uint32_t net_stream_room(struct net_stream *stream, struct net_pool *pool, uint32_t at,
			 uint32_t len, uint8_t **ret);
/* These read what was put there. */
void net_stream_get(struct net_stream *stream, uint32_t at, void *ret, uint32_t len);
/* How many of the @len bytes are in one piece, and where. */
uint32_t net_stream_peek(struct net_stream *stream, uint32_t at, uint32_t len, const uint8_t **ret);
/* Bytes before @at are no longer needed. */
void net_stream_drop(struct net_stream *stream, struct net_pool *pool, uint32_t at);
/* Nor are those from @at on. */
void net_stream_cut(struct net_stream *stream, struct net_pool *pool, uint32_t at);
void net_stream_clear(struct net_stream *stream, struct net_pool *pool);

/* Parts of a stream: disjoint, not touching, by place. */
struct net_range {
	struct net_range *next;
	uint32_t start, end;
};

/* Adds a part, merging it with what it overlaps or touches; stores the part it is in now. False:
 * out of ranges, or there would be more than @max. */
bool net_ranges_add(struct net_range **list, struct net_pool *pool, uint32_t start, uint32_t end,
		    unsigned int max, struct net_range *ret);
void net_ranges_clear(struct net_range **list, struct net_pool *pool);
void net_ranges_pop(struct net_range **list, struct net_pool *pool);
