/* SPDX-License-Identifier: Apache-2.0 */
/* Reads mountinfo: "36 35 98:0 /root /point opts optional... - type source superopts". */
#define _GNU_SOURCE
#include "base/mountinfo.h"

#include <errno.h>
#include <limits.h>

#include "base/file.h"
#include "base/util.h"

#define MOUNTINFO_MAX (16u << 20)

/* The kernel writes space, tab, newline and backslash as \ooo. */
static int unescape(const char *from, size_t len, char *ret, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		char c = from[i];

		if (c == '\\' && i + 3 < len) {
			c = (from[i + 1] - '0') << 6 | (from[i + 2] - '0') << 3 |
			    (from[i + 3] - '0');
			i += 3;
		}
		if (n + 1 >= size)
			return -ENAMETOOLONG;
		ret[n++] = c;
	}
	ret[n] = '\0';
	return 0;
}

/* The @index-th word of a line that ends at @end. */
static const char *word(const char *line, const char *end, unsigned int index, size_t *ret_len)
{
	const char *p = line;

	for (;;) {
		const char *space = memchr(p, ' ', end - p);

		if (index-- == 0) {
			*ret_len = (space ? space : end) - p;
			return p;
		}
		if (!space)
			return NULL;
		p = space + 1;
	}
}

static bool is_type(const char *line, const char *end, const char *fstype)
{
	const char *dash = memmem(line, end - line, " - ", 3);
	const char *type;
	size_t len;

	if (!dash)
		return false;
	type = word(dash + 3, end, 0, &len);
	return len == strlen(fstype) && memcmp(type, fstype, len) == 0;
}

static bool covers(const char *point, const char *path)
{
	size_t len = strlen(point);

	if (dmm_streq(point, "/"))
		return path[0] == '/';
	return strncmp(point, path, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

int dmm_mountinfo_covering(const char *mountinfo, const char *fstype, const char *path, char *ret,
			   size_t size)
{
	char best[PATH_MAX] = "", point[PATH_MAX];
	const char *line = mountinfo, *end;

	for (; *line; line = *end ? end + 1 : end) {
		const char *p;
		size_t len;

		end = strchrnul(line, '\n');
		p = word(line, end, 4, &len);
		if (!p || !is_type(line, end, fstype) || unescape(p, len, point, sizeof(point)) < 0)
			continue;
		if (path && !covers(point, path))
			continue;
		if (!best[0] || (path && strlen(point) > strlen(best)))
			memcpy(best, point, sizeof(best));
	}
	if (!best[0])
		return -ENOENT;
	if (strlen(best) >= size)
		return -ENAMETOOLONG;
	memcpy(ret, best, strlen(best) + 1);
	return 0;
}

int dmm_mountinfo_find(const char *mountinfo, const char *fstype, char *ret, size_t size)
{
	return dmm_mountinfo_covering(mountinfo, fstype, NULL, ret, size);
}

int dmm_mount_covering(const char *fstype, const char *path, char *ret, size_t size)
{
	dmm_autofree char *text = NULL;
	int r = dmm_file_read("/proc/self/mountinfo", MOUNTINFO_MAX, &text, NULL);

	return r < 0 ? r : dmm_mountinfo_covering(text, fstype, path, ret, size);
}

int dmm_mount_find(const char *fstype, char *ret, size_t size)
{
	return dmm_mount_covering(fstype, NULL, ret, size);
}
