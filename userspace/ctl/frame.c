/* SPDX-License-Identifier: Apache-2.0 */
/* Line framing: each byte is looked at once, memory grows with what was really sent. */
#include "ctl/frame.h"

#include <errno.h>

#include "base/util.h"

#define FRAME_MIN 4096

void dmm_ctl_frame_init(struct dmm_ctl_frame *frame, size_t max)
{
	*frame = (struct dmm_ctl_frame){ .max = max };
}

void dmm_ctl_frame_free(struct dmm_ctl_frame *frame)
{
	free(frame->buf);
	*frame = (struct dmm_ctl_frame){ .max = frame->max };
}

static void compact(struct dmm_ctl_frame *frame)
{
	if (frame->start == 0)
		return;
	memmove(frame->buf, frame->buf + frame->start, frame->end - frame->start);
	frame->end -= frame->start;
	frame->scanned -= frame->start;
	frame->start = 0;
	if (frame->end == 0 && frame->cap > FRAME_MIN) { /* after a big one */
		free(frame->buf);
		frame->buf = NULL;
		frame->cap = 0;
	}
}

int dmm_ctl_frame_room(struct dmm_ctl_frame *frame, char **ret, size_t *ret_len)
{
	compact(frame);
	if (frame->end > frame->max)
		return -EMSGSIZE;
	if (frame->end == frame->cap) {
		size_t cap = DMM_MIN(DMM_MAX(frame->cap * 2, (size_t)FRAME_MIN), frame->max + 1);
		char *buf = realloc(frame->buf, cap);

		if (!buf)
			return -ENOMEM;
		frame->buf = buf;
		frame->cap = cap;
	}
	*ret = frame->buf + frame->end;
	*ret_len = frame->cap - frame->end;
	return 0;
}

void dmm_ctl_frame_got(struct dmm_ctl_frame *frame, size_t n)
{
	frame->end += n;
}

char *dmm_ctl_frame_next(struct dmm_ctl_frame *frame, size_t *ret_len)
{
	char *line, *newline;

	if (frame->scanned == frame->end)
		return NULL;
	newline = memchr(frame->buf + frame->scanned, '\n', frame->end - frame->scanned);
	if (!newline) {
		frame->scanned = frame->end;
		return NULL;
	}
	*newline = '\0';
	line = frame->buf + frame->start;
	*ret_len = newline - line;
	frame->start = frame->scanned = newline + 1 - frame->buf;
	return line;
}

size_t dmm_ctl_frame_pending(const struct dmm_ctl_frame *frame)
{
	return frame->end - frame->start;
}
