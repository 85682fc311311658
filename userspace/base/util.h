/* SPDX-License-Identifier: Apache-2.0 */
/* Small things everyone needs: ownership of locals, array sizes, string checks. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DMM_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define DMM_MIN(a, b)	  ((a) < (b) ? (a) : (b))
#define DMM_MAX(a, b)	  ((a) > (b) ? (a) : (b))

/* A local that owns: released when it goes out of scope, unless taken. */
static inline void dmm_autoclose_fn(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void dmm_autofree_fn(void *p)
{
	free(*(void **)p);
}

static inline void dmm_autofclose_fn(FILE **f)
{
	if (*f)
		fclose(*f);
}

#define dmm_autoclose  __attribute__((cleanup(dmm_autoclose_fn)))
#define dmm_autofree   __attribute__((cleanup(dmm_autofree_fn)))
#define dmm_autofclose __attribute__((cleanup(dmm_autofclose_fn)))

#define DMM_TAKE_FD(fd)                                                                            \
	({                                                                                         \
		int taken_ = (fd);                                                                 \
		(fd) = -1;                                                                         \
		taken_;                                                                            \
	})

#define DMM_TAKE_PTR(p)                                                                            \
	({                                                                                         \
		__typeof__(p) taken_ = (p);                                                        \
		(p) = NULL;                                                                        \
		taken_;                                                                            \
	})

/* Room for one more behind the @n items of a list that only grows by this: the list, which may have moved.
 * NULL: no memory, and the list is as it was. */
static inline void *dmm_room_for_one(void *items, size_t n, size_t size)
{
	if (n & (n - 1)) /* room is always the next power of two */
		return items;
	return reallocarray(items, n ? n * 2 : 1, size);
}

static inline bool dmm_streq(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}
