/* SPDX-License-Identifier: Apache-2.0 */
/* Walks /run/netns and /proc; a namespace is known by its inode. */
#define _GNU_SOURCE
#include "base/netns.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/util.h"

struct walk {
	int (*fn)(void *ctx, int netns, const char *name);
	void *ctx;
	ino_t *seen;
	size_t n_seen;
};

/* 1: it is new and remembered. */
static int note(struct walk *w, ino_t ino)
{
	ino_t *more;

	for (size_t i = 0; i < w->n_seen; i++)
		if (w->seen[i] == ino)
			return 0;
	more = reallocarray(w->seen, w->n_seen + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	w->seen = more;
	w->seen[w->n_seen++] = ino;
	return 1;
}

static int visit(struct walk *w, const char *path, const char *name)
{
	dmm_autoclose int fd = -1;
	struct statfs fs;
	struct stat st;
	int r;

	/* ended meanwhile, not for us to see, or a name that `ip netns` never finished */
	if (stat(path, &st) < 0 || statfs(path, &fs) < 0 || fs.f_type != NSFS_MAGIC)
		return 0;
	r = note(w, st.st_ino);
	if (r <= 0)
		return r;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? 0 : w->fn(w->ctx, fd, name);
}

static int walk_folder(struct walk *w, const char *folder, bool pids)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	int r = 0;

	while (dir && r == 0 && (entry = readdir(dir))) {
		char path[320], name[NAME_MAX + 8];

		if (pids ? !isdigit((unsigned char)entry->d_name[0]) : entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s%s", folder, entry->d_name,
			 pids ? "/ns/net" : "");
		snprintf(name, sizeof(name), "%s%s", pids ? "pid " : "", entry->d_name);
		r = visit(w, path, name);
	}
	if (dir)
		closedir(dir);
	return r;
}

int dmm_netns_each(int (*fn)(void *ctx, int netns, const char *name), void *ctx)
{
	struct walk w = { .fn = fn, .ctx = ctx };
	struct stat own;
	int r = stat("/proc/thread-self/ns/net", &own) < 0 ? -errno : note(&w, own.st_ino);

	if (r >= 0)
		r = walk_folder(&w, "/run/netns", false);
	if (r == 0)
		r = walk_folder(&w, "/proc", true);
	free(w.seen);
	return r;
}

int dmm_netns_socket(int netns, int family, int type, int protocol)
{
	dmm_autoclose int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	int fd, err;

	if (home < 0 || setns(netns, CLONE_NEWNET) < 0)
		return -errno;
	fd = socket(family, type | SOCK_CLOEXEC, protocol);
	err = errno;
	if (setns(home, CLONE_NEWNET) < 0)
		abort(); /* going on would act on somebody else's network */
	return fd < 0 ? -err : fd;
}
