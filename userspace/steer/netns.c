/* SPDX-License-Identifier: Apache-2.0 */
/* Network namespaces by cookie: which one is this, and how to do something in another. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/util.h"
#include "steer/steer_internal.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

int dmm_netns_cookie(uint64_t *ret)
{
	dmm_autoclose int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) < 0)
		return dmm_steer_fail(-errno, "kernel 5.14 or newer is needed",
				      "cannot ask for the network namespace's cookie");
	*ret = cookie;
	return 0;
}

struct search {
	uint64_t cookie;
	int (*fn)(void *ctx);
	void *ctx;
	ino_t *seen;
	size_t n_seen;
};

static bool seen_before(struct search *s, ino_t ino)
{
	ino_t *more;
	size_t i;

	for (i = 0; i < s->n_seen; i++)
		if (s->seen[i] == ino)
			return true;
	more = reallocarray(s->seen, s->n_seen + 1, sizeof(*more));
	if (more) {
		s->seen = more;
		s->seen[s->n_seen++] = ino;
	}
	return false;
}

enum { CHILD_OK, CHILD_ELSEWHERE, CHILD_FAILED };

static int in_child(struct search *s, int ns)
{
	uint64_t cookie;

	if (setns(ns, CLONE_NEWNET) < 0 || dmm_netns_cookie(&cookie) < 0 || cookie != s->cookie)
		return CHILD_ELSEWHERE;
	return s->fn(s->ctx) < 0 ? CHILD_FAILED : CHILD_OK;
}

/* 1: it was this namespace and @fn has run there. */
static int try_namespace(struct search *s, const char *path)
{
	dmm_autoclose int ns = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	int status;
	pid_t pid;

	if (ns < 0 || fstat(ns, &st) < 0 || seen_before(s, st.st_ino))
		return 0;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(in_child(s, ns));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (!WIFEXITED(status) || WEXITSTATUS(status) == CHILD_FAILED)
		return dmm_steer_refuse(-EIO, NULL, "could not undo everything in %s", path);
	return WEXITSTATUS(status) == CHILD_OK;
}

static int search_folder(struct search *s, const char *folder, const char *suffix)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	int r = 0;

	if (!dir)
		return 0;
	while (r == 0 && (entry = readdir(dir))) {
		char path[512];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s%s", folder, entry->d_name, suffix);
		r = try_namespace(s, path);
	}
	closedir(dir);
	return r;
}

int dmm_netns_run(uint64_t cookie, int (*fn)(void *ctx), void *ctx)
{
	struct search s = { .cookie = cookie, .fn = fn, .ctx = ctx };
	uint64_t own;
	int r = dmm_netns_cookie(&own);

	if (r < 0)
		return r;
	if (own == cookie)
		return fn(ctx);
	r = search_folder(&s, "/run/netns", "");
	if (r == 0)
		r = search_folder(&s, "/proc", "/ns/net");
	free(s.seen);
	if (r < 0)
		return r;
	return r ? 0 : -ENOENT;
}
