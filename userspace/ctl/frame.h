/* SPDX-License-Identifier: Apache-2.0 */
/* Lines out of a byte stream: a buffer with a cap. Bytes go in at room(), lines come out of next(). */
#pragma once

#include <stddef.h>

struct dmm_ctl_frame {
	char *buf;
	size_t cap;
	size_t start, end; /* bytes not yet handed out */
	size_t scanned;	   /* no newline before it */
	size_t max;	   /* longest line, newline not counted */
};

void dmm_ctl_frame_init(struct dmm_ctl_frame *frame, size_t max);
void dmm_ctl_frame_free(struct dmm_ctl_frame *frame);

/* Where to put received bytes, at least one. -EMSGSIZE: the line is over its cap. Lines from next()
 * are invalid afterwards. Call next() until it has none first. */
int dmm_ctl_frame_room(struct dmm_ctl_frame *frame, char **ret, size_t *ret_len);
void dmm_ctl_frame_got(struct dmm_ctl_frame *frame, size_t n);

/* The next complete line, NUL in the place of its newline, or NULL. */
char *dmm_ctl_frame_next(struct dmm_ctl_frame *frame, size_t *ret_len);

/* Bytes of a line that has begun and not ended. */
size_t dmm_ctl_frame_pending(const struct dmm_ctl_frame *frame);
