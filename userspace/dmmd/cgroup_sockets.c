/* SPDX-License-Identifier: Apache-2.0 */
/* Counts the TCP connections that an attach comes too late for. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/util.h"
#include "dmmd/cgroups.h"

#define LISTEN	  10
#define BUDGET_NS (300 * DMM_NS_PER_MS) /* the event loop waits meanwhile */
#define MAX_DEPTH 32

struct count {
	uint64_t *inodes; /* sorted; of this namespace's connected TCP sockets */
	bool *seen;
	size_t n, cap;
	uint64_t found;
	uint64_t deadline;
	bool complete;
};

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int add_inode(struct count *count, uint64_t inode)
{
	if (count->n == count->cap) {
		size_t cap = count->cap ? count->cap * 2 : 256;
		uint64_t *more = realloc(count->inodes, cap * sizeof(more[0]));

		if (!more)
			return -ENOMEM;
		count->inodes = more;
		count->cap = cap;
	}
	count->inodes[count->n++] = inode;
	return 0;
}

static int read_table(struct count *count, const char *path)
{
	dmm_autofree char *text = NULL;
	int r = dmm_file_read(path, 256u << 20, &text, NULL);
	const char *line = r == 0 ? strchr(text, '\n') : NULL;

	for (; line && line[1] && r == 0; line = strchr(line + 1, '\n')) {
		unsigned int state;
		uint64_t inode;

		if (sscanf(line + 1, " %*u: %*s %*s %x %*s %*s %*s %*u %*u %" SCNu64, &state,
			   &inode) == 2 &&
		    state != LISTEN && inode)
			r = add_inode(count, inode);
	}
	return r == -ENOENT ? 0 : r;
}

static void check_fd(struct count *count, int dir, const char *name)
{
	char target[64];
	ssize_t n = readlinkat(dir, name, target, sizeof(target) - 1);
	uint64_t inode, *hit;

	if (n < 0)
		return;
	target[n] = '\0';
	if (sscanf(target, "socket:[%" SCNu64, &inode) != 1)
		return;
	hit = bsearch(&inode, count->inodes, count->n, sizeof(inode), compare);
	if (hit && !count->seen[hit - count->inodes]) {
		count->seen[hit - count->inodes] = true;
		count->found++;
	}
}

static void look_at_process(struct count *count, int pid)
{
	char path[64];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	if (!dir) {
		count->complete &= errno == ENOENT; /* it has ended */
		return;
	}
	while ((entry = readdir(dir)))
		check_fd(count, dirfd(dir), entry->d_name);
	closedir(dir);
}

static void look_at_cgroup(struct count *count, const char *full, unsigned int depth)
{
	dmm_autofree char *text = NULL;
	char path[PATH_MAX + 256];
	struct dirent *entry;
	char *save = NULL;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/cgroup.procs", full);
	if (dmm_file_read(path, 64u << 20, &text, NULL) < 0) {
		count->complete = false;
		return;
	}
	for (char *p = strtok_r(text, "\n", &save); p; p = strtok_r(NULL, "\n", &save)) {
		if (dmm_now_ns() > count->deadline) {
			count->complete = false;
			return;
		}
		look_at_process(count, strtol(p, NULL, 10));
	}
	dir = depth < MAX_DEPTH ? opendir(full) : NULL;
	if (!dir) {
		count->complete = false;
		return;
	}
	while ((entry = readdir(dir))) {
		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", full, entry->d_name);
		look_at_cgroup(count, path, depth + 1);
	}
	closedir(dir);
}

bool dmmd_cgroup_count_sockets(struct dmmd *d, const char *path, uint64_t *ret)
{
	struct count count = { .deadline = dmm_now_ns() + BUDGET_NS };
	char full[PATH_MAX];

	if (dmmd_cgroup_full(d, path, full) == 0 && read_table(&count, "/proc/net/tcp") == 0 &&
	    read_table(&count, "/proc/net/tcp6") == 0) {
		count.seen = calloc(count.n + 1, sizeof(bool));
		count.complete = count.seen != NULL;
		if (count.n && count.seen) {
			qsort(count.inodes, count.n, sizeof(count.inodes[0]), compare);
			look_at_cgroup(&count, full, 0);
		}
	}
	free(count.inodes);
	free(count.seen);
	*ret = count.found;
	return count.complete;
}
