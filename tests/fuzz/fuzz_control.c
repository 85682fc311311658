/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of a control client: lines come out whole however they were cut, and one is an object or
 * refused. */
#include <stdlib.h>

#include "base/util.h"
#include "ctl/frame.h"
#include "ctl/json.h"

#define LINE_MAX 512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void read_line(const char *line, size_t len)
{
	struct json_object *obj;
	uint64_t value = 7;

	if (len > LINE_MAX || line[len] != '\0' || memchr(line, '\n', len))
		abort();
	obj = dmm_json_parse(line, len);
	if (!obj)
		return;
	dmm_json_text(obj, "verb");
	dmm_json_text(dmm_json_object(obj, "args"), "policy");
	dmm_json_array(obj, "items");
	dmm_json_bool(obj, "dry_run");
	if (!dmm_json_u64(obj, "limit", 10000, &value) && value != 7)
		abort();
	if (value > 10000)
		abort();
	json_object_put(obj);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct dmm_ctl_frame frame;
	size_t piece = len ? data[0] % 61 + 1 : 1, at = 0, line_len;
	char *room, *line;

	dmm_ctl_frame_init(&frame, LINE_MAX);
	while (at < len) {
		size_t n;

		if (dmm_ctl_frame_room(&frame, &room, &n) < 0)
			break; /* the line is too long */
		n = DMM_MIN(DMM_MIN(n, piece), len - at);
		memcpy(room, data + at, n);
		dmm_ctl_frame_got(&frame, n);
		at += n;
		while ((line = dmm_ctl_frame_next(&frame, &line_len)))
			read_line(line, line_len);
	}
	if (dmm_ctl_frame_pending(&frame) > LINE_MAX + 1)
		abort();
	dmm_ctl_frame_free(&frame);
	return 0;
}
