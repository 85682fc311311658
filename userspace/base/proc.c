/* SPDX-License-Identifier: Apache-2.0 */
/* Reads /proc/PID. */
#include "base/proc.h"

#include <errno.h>
#include <inttypes.h>

#include "base/file.h"
#include "base/util.h"

int dmm_proc_parse_stat(const char *stat, uint64_t *ret_start_time)
{
	/* the name in parentheses may hold anything, parentheses too: the last one ends it */
	const char *p = strrchr(stat, ')');
	uint64_t start;

	for (int field = 2; p && field < 22; field++) {
		p = strchr(p, ' ');
		if (p)
			p++;
	}
	if (!p || sscanf(p, "%" SCNu64, &start) != 1)
		return -EBADMSG;
	*ret_start_time = start;
	return 0;
}

int dmm_proc_start_time(pid_t pid, uint64_t *ret)
{
	dmm_autofree char *text = NULL;
	char path[64];
	int r;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	r = dmm_file_read(path, 65536, &text, NULL);
	if (r < 0)
		return r == -ENOENT ? -ESRCH : r;
	return dmm_proc_parse_stat(text, ret);
}

int dmm_proc_cgroup(pid_t pid, char *ret, size_t size)
{
	dmm_autofree char *text = NULL;
	char path[64];
	const char *line;
	size_t len;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	r = dmm_file_read(path, 1u << 20, &text, NULL);
	if (r < 0)
		return r == -ENOENT ? -ESRCH : r;
	line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
	if (!line)
		return -ENOENT;
	line += line[0] == '\n' ? 4 : 3;
	len = strcspn(line, "\n");
	if (len >= size)
		return -ENAMETOOLONG;
	memcpy(ret, line, len);
	ret[len] = '\0';
	return 0;
}

int dmm_proc_boot_id(char ret[static DMM_BOOT_ID_LEN])
{
	dmm_autofree char *text = NULL;
	size_t len;
	int r = dmm_file_read("/proc/sys/kernel/random/boot_id", 4096, &text, &len);

	if (r < 0)
		return r;
	if (len < DMM_BOOT_ID_LEN - 1)
		return -EBADMSG;
	memcpy(ret, text, DMM_BOOT_ID_LEN - 1);
	ret[DMM_BOOT_ID_LEN - 1] = '\0';
	return 0;
}
