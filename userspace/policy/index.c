/* SPDX-License-Identifier: Apache-2.0 */
/* The compiler's hash tables and growing arrays. */
#include "policy/tables_internal.h"

#include <errno.h>

#include "base/util.h"

#define FIRST_SIZE 1024

uint64_t dmm_hash(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t h = len * 0x9e3779b97f4a7c15u, w;

	for (; len; p += sizeof(w)) {
		size_t n = DMM_MIN(len, sizeof(w));

		w = 0;
		memcpy(&w, p, n);
		len -= n;
		h = (h ^ w) * 0xff51afd7ed558ccdu;
		h ^= h >> 32;
	}
	return h;
}

size_t dmm_index_first(const struct dmm_index *index, uint64_t hash)
{
	return hash & (index->size - 1);
}

size_t dmm_index_next(const struct dmm_index *index, size_t slot)
{
	return (slot + 1) & (index->size - 1);
}

int dmm_index_reserve(struct dmm_index *index, uint64_t (*hash_of)(const void *ctx, uint32_t i),
		      const void *ctx)
{
	struct dmm_index bigger = { .used = index->used };
	size_t i, slot;

	if (index->used < index->size / 2)
		return 0;
	bigger.size = index->size ? index->size * 2 : FIRST_SIZE;
	bigger.slots = calloc(bigger.size, sizeof(*bigger.slots));
	if (!bigger.slots)
		return -ENOMEM;
	for (i = 0; i < index->size; i++) {
		if (!index->slots[i])
			continue;
		slot = dmm_index_first(&bigger, hash_of(ctx, index->slots[i] - 1));
		while (bigger.slots[slot])
			slot = dmm_index_next(&bigger, slot);
		bigger.slots[slot] = index->slots[i];
	}
	free(index->slots);
	*index = bigger;
	return 0;
}

int dmm_grow(void *array, size_t *room, size_t n, size_t more, size_t size)
{
	size_t wanted = *room ? *room : 16;
	void *bigger, *now;

	if (n + more <= *room)
		return 0;
	while (wanted < n + more)
		wanted *= 2;
	memcpy(&now, array, sizeof(now)); /* @array points at a pointer of whatever type */
	bigger = reallocarray(now, wanted, size);
	if (!bigger)
		return -ENOMEM;
	memcpy(array, &bigger, sizeof(bigger));
	*room = wanted;
	return 0;
}

static int by_number(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

void dmm_sort_numbers(uint32_t *numbers, size_t n)
{
	if (n)
		qsort(numbers, n, sizeof(*numbers), by_number);
}
