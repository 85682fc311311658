/* SPDX-License-Identifier: Apache-2.0 */
/* Processes and cgroups as the hooks see them: ids of a cgroup and of all above it, deepest first. */
#define _GNU_SOURCE
#include "dmmctl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mountinfo.h"
#include "base/proc.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

static int find_mount(const struct ctl *ctl, char *buf, size_t size)
{
	int r = dmm_mount_find("cgroup2", buf, size);

	if (r < 0)
		return fail(ctl, CTL_FAILED, r, "mount -t cgroup2 none /sys/fs/cgroup",
			    "no cgroup2 file system");
	return CTL_OK;
}

/* What --cgroup names, as a full path. An exit code. */
static int find_cgroup(const struct ctl *ctl, const char *name, char *buf, size_t size)
{
	const char *root = ctl->opt[OPT_CGROUP_ROOT];
	char mount[PATH_MAX];
	struct stat st;
	int r = find_mount(ctl, mount, sizeof(mount));

	if (r != CTL_OK)
		return r;
	if (strncmp(name, mount, strlen(mount)) == 0 && strchr("/", name[strlen(mount)]))
		snprintf(buf, size, "%s", name);
	else
		snprintf(buf, size, "%s%s%s", root ? root : mount, name[0] == '/' ? "" : "/", name);
	for (size_t n = strlen(buf); n > 1 && buf[n - 1] == '/'; n--)
		buf[n - 1] = '\0';
	if (stat(buf, &st) < 0)
		return fail(ctl, exit_of(-errno), -errno,
			    "it has a class once it exists; paths start from the cgroup root "
			    "(--cgroup-root)",
			    "cgroup %s", buf);
	return CTL_OK;
}

/* A kernfs inode number is the cgroup's id on 64-bit machines. */
static int collect_ids(const struct ctl *ctl, const char *mount, const char *full,
		       struct caller *ret)
{
	char path[2 * PATH_MAX];
	size_t base = strlen(mount);
	struct stat st;

	snprintf(path, sizeof(path), "%s", full);
	for (;;) {
		char *slash;

		if (stat(path, &st) < 0)
			return fail(ctl, exit_of(-errno), -errno, NULL, "cgroup %s", path);
		if (ret->n_ids < DMM_ARRAY_SIZE(ret->ids))
			ret->ids[ret->n_ids++] = st.st_ino;
		slash = strrchr(path, '/');
		if (strlen(path) <= base || !slash)
			return CTL_OK;
		*slash = '\0';
	}
}

uint64_t own_netns(void)
{
	dmm_autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) < 0)
		return 0;
	return cookie;
}

/* The cookie of a process' network namespace, 0 where it cannot be had. */
static uint64_t netns_cookie(int pid)
{
	dmm_autoclose int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	dmm_autoclose int netns = -1;
	uint64_t cookie;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	netns = open(path, O_RDONLY | O_CLOEXEC);
	if (home < 0 || netns < 0 || setns(netns, CLONE_NEWNET) < 0)
		return 0;
	cookie = own_netns();
	if (setns(home, CLONE_NEWNET) < 0)
		abort(); /* going on would speak of another network */
	return cookie;
}

static int find_process(const struct ctl *ctl, const char *text, struct caller *ret)
{
	dmm_autofree char *comm = NULL;
	char path[64], *end;
	long pid = strtol(text, &end, 10);
	struct stat st;
	int r;

	if (*end || pid <= 0 || pid > INT_MAX)
		return usage(ctl, "--pid takes a process id");
	snprintf(path, sizeof(path), "/proc/%ld", pid);
	if (stat(path, &st) < 0)
		return fail(ctl, CTL_FAILED, -ESRCH, NULL, "process %ld", pid);
	ret->pid = pid;
	ret->uid = st.st_uid;
	snprintf(path, sizeof(path), "/proc/%ld/comm", pid);
	if (dmm_file_read(path, 64, &comm, NULL) == 0)
		snprintf(ret->comm, sizeof(ret->comm), "%.*s", (int)strcspn(comm, "\n"), comm);
	r = dmm_proc_cgroup(pid, ret->cgroup, sizeof(ret->cgroup));
	if (r < 0)
		return fail(ctl, exit_of(r), r, NULL, "cgroup of process %ld", pid);
	ret->netns = netns_cookie(pid);
	return CTL_OK;
}

/* --uid and --comm, also in place of what --pid says. */
static int set_names(const struct ctl *ctl, struct caller *ret)
{
	const char *uid = ctl->opt[OPT_UID], *comm = ctl->opt[OPT_COMM];
	char *end;

	if (uid) {
		unsigned long n = strtoul(uid, &end, 10);

		if (!*uid || *end || *uid == '-' || n > UINT32_MAX)
			return usage(ctl, "--uid takes the number of a user");
		ret->uid = n;
	}
	if (comm) {
		memset(ret->comm, 0, sizeof(ret->comm));
		snprintf(ret->comm, sizeof(ret->comm), "%s", comm);
	}
	return CTL_OK;
}

int find_caller(const struct ctl *ctl, struct caller *ret)
{
	char mount[PATH_MAX], full[2 * PATH_MAX];
	int r;

	memset(ret, 0, sizeof(*ret));
	if (ctl->opt[OPT_PID] && ctl->opt[OPT_CGROUP])
		return usage(ctl, "--pid or --cgroup, not both");
	r = find_mount(ctl, mount, sizeof(mount));
	if (r != CTL_OK)
		return r;
	if (ctl->opt[OPT_PID]) {
		r = find_process(ctl, ctl->opt[OPT_PID], ret);
		snprintf(full, sizeof(full), "%s%s", mount,
			 dmm_streq(ret->cgroup, "/") ? "" : ret->cgroup);
	} else if (ctl->opt[OPT_CGROUP]) {
		r = find_cgroup(ctl, ctl->opt[OPT_CGROUP], full, sizeof(full));
	} else {
		snprintf(full, sizeof(full), "%s", mount);
	}
	if (r != CTL_OK)
		return r;
	snprintf(ret->cgroup, sizeof(ret->cgroup), "%s",
		 full[strlen(mount)] ? full + strlen(mount) : "/");
	r = set_names(ctl, ret);
	return r == CTL_OK ? collect_ids(ctl, mount, full, ret) : r;
}
