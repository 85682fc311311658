// SPDX-License-Identifier: Apache-2.0
/* Chunks and parts of streams. Places are sequence numbers: they go around. */
#include "net/stream.h"

#include <string.h>

#include "net/seq.h"

#define BASE(at) ((at) & ~(NET_CHUNK - 1))

static uint32_t piece(uint32_t at, uint32_t len)
{
	const uint32_t room = NET_CHUNK - at % NET_CHUNK;

	return len < room ? len : room;
}

/* The last chunk at or before @base; NULL: there is none. */
static struct net_chunk *find(struct net_stream *stream, uint32_t base)
{
	struct net_chunk *chunk = stream->head;
	unsigned int i;

	if (!chunk || seq_gt(chunk->base, base))
		return NULL;
	if (seq_leq(stream->tail->base, base))
		return stream->tail;
	stream->turn = !stream->turn; /* unless one is near, that which was not used last moves */
	for (i = 0; i < 2; i++) {
		struct net_chunk *hint = stream->hint[i];

		if (hint && seq_leq(hint->base, base) && seq_leq(chunk->base, hint->base)) {
			chunk = hint;
			stream->turn = (uint8_t)i;
		}
	}
	while (chunk->next && seq_leq(chunk->next->base, base))
		chunk = chunk->next;
	stream->hint[stream->turn] = chunk;
	return chunk;
}

static void no_hint(struct net_stream *stream, const struct net_chunk *chunk)
{
	unsigned int i;

	for (i = 0; i < 2; i++)
		if (stream->hint[i] == chunk)
			stream->hint[i] = NULL;
}

static struct net_chunk *make(struct net_stream *stream, struct net_pool *pool, uint32_t base)
{
	struct net_chunk *before = find(stream, base), *chunk;

	if (before && before->base == base)
		return before;
	chunk = net_pool_get(pool);
	if (!chunk)
		return NULL;
	chunk->base = base;
	if (before) {
		chunk->next = before->next;
		before->next = chunk;
		if (stream->tail == before)
			stream->tail = chunk;
	} else {
		chunk->next = stream->head;
		if (!stream->head)
			stream->tail = chunk;
		stream->head = chunk;
	}
	return chunk;
}

uint32_t net_stream_room(struct net_stream *stream, struct net_pool *pool, uint32_t at,
			 uint32_t len, uint8_t **ret)
{
	struct net_chunk *chunk = make(stream, pool, BASE(at));

	if (!chunk)
		return 0;
	*ret = chunk->data + at % NET_CHUNK;
	return piece(at, len);
}

bool net_stream_put(struct net_stream *stream, struct net_pool *pool, uint32_t at, const void *data,
		    uint32_t len)
{
	const uint8_t *p = data;
	uint8_t *to;

	while (len) {
		const uint32_t n = net_stream_room(stream, pool, at, len, &to);

		if (!n)
			return false;
		memcpy(to, p, n);
		p += n;
		at += n;
		len -= n;
	}
	return true;
}

void net_stream_get(struct net_stream *stream, uint32_t at, void *ret, uint32_t len)
{
	const uint8_t *from;
	uint8_t *p = ret;

	while (len) {
		const uint32_t n = net_stream_peek(stream, at, len, &from);

		memcpy(p, from, n);
		p += n;
		at += n;
		len -= n;
	}
}

uint32_t net_stream_peek(struct net_stream *stream, uint32_t at, uint32_t len, const uint8_t **ret)
{
	struct net_chunk *chunk = find(stream, BASE(at));

	*ret = chunk->data + at % NET_CHUNK;
	return piece(at, len);
}

void net_stream_drop(struct net_stream *stream, struct net_pool *pool, uint32_t at)
{
	while (stream->head && seq_leq(stream->head->base + NET_CHUNK, at)) {
		struct net_chunk *chunk = stream->head;

		stream->head = chunk->next;
		no_hint(stream, chunk);
		net_pool_put(pool, chunk);
	}
}

void net_stream_cut(struct net_stream *stream, struct net_pool *pool, uint32_t at)
{
	struct net_chunk *last = find(stream, BASE(at - 1));
	struct net_chunk **link = last ? &last->next : &stream->head;

	while (*link) {
		struct net_chunk *chunk = *link;

		*link = chunk->next;
		no_hint(stream, chunk);
		net_pool_put(pool, chunk);
	}
	stream->tail = last;
}

void net_stream_clear(struct net_stream *stream, struct net_pool *pool)
{
	while (stream->head) {
		struct net_chunk *chunk = stream->head;

		stream->head = chunk->next;
		net_pool_put(pool, chunk);
	}
	*stream = (struct net_stream){ .head = NULL };
}

void net_ranges_pop(struct net_range **list, struct net_pool *pool)
{
	struct net_range *range = *list;

	*list = range->next;
	net_pool_put(pool, range);
}

bool net_ranges_add(struct net_range **list, struct net_pool *pool, uint32_t start, uint32_t end,
		    unsigned int max, struct net_range *ret)
{
	struct net_range *range;

	for (; *list && seq_lt((*list)->end, start); list = &(*list)->next)
		if (max)
			max--;
	range = *list;
	if (!range || seq_lt(end, range->start)) {
		const struct net_range *after = range;

		for (; after && max; after = after->next)
			max--;
		range = max ? net_pool_get(pool) : NULL;
		if (!range)
			return false;
		*range = (struct net_range){ .next = *list, .start = start, .end = end };
		*list = range;
	} else {
		range->start = seq_min(range->start, start);
		range->end = seq_max(range->end, end);
		while (range->next && seq_leq(range->next->start, range->end)) {
			range->end = seq_max(range->end, range->next->end);
			net_ranges_pop(&range->next, pool);
		}
	}
	*ret = *range;
	return true;
}

void net_ranges_clear(struct net_range **list, struct net_pool *pool)
{
	while (*list)
		net_ranges_pop(list, pool);
}
