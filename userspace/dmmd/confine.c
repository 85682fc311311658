/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets in a cgroup of their own, as in confine.h. */
#define _GNU_SOURCE
#include "dmmd/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/file.h"
#include "base/util.h"
#include "dmmd/dmmd.h"

#define CHILD_STACK (64 * 1024)

struct job {
	char cgroup[PATH_MAX], procs[PATH_MAX + 16];
	int (*make)(void *ctx);
	void *ctx;
	int r;
};

/* A socket belongs to the cgroup of who makes it, so a child goes there. */
static int in_child(void *arg)
{
	struct job *job = arg;

	job->r = dmm_file_put(job->procs, "0");
	if (job->r == 0)
		job->r = job->make(job->ctx);
	return 0;
}

static int run_child(struct job *job)
{
	char stack[CHILD_STACK] __attribute__((aligned(16)));
	pid_t pid = clone(in_child, stack + sizeof(stack),
			  CLONE_VM | CLONE_FILES | CLONE_VFORK | SIGCHLD, job);

	if (pid < 0)
		return -errno;
	return waitpid(pid, NULL, 0) < 0 ? -errno : job->r;
}

static int make_in(struct job *job, int (*attach)(void *ctx, int cgroup_fd))
{
	dmm_autoclose int cgroup = open(job->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = cgroup < 0 ? -errno : attach(job->ctx, cgroup);

	return r < 0 ? r : run_child(job);
}

static int make_cgroup(struct dmmd *d, char ret[static PATH_MAX])
{
	char path[PATH_MAX];
	int r;

	if (snprintf(path, sizeof(path), "%s/.dmm-made-%d", d->options.run_cgroup, (int)getpid()) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	r = dmmd_cgroup_full(d, path, ret);
	if (r < 0)
		return r;
	return mkdir(ret, 0755) == 0 || errno == EEXIST ? 0 : -errno;
}

int dmmd_confined(struct dmmd *d, int (*attach)(void *ctx, int cgroup_fd), int (*make)(void *ctx),
		  void *ctx)
{
	struct job job = { .make = make, .ctx = ctx, .r = -ECHILD };
	int r = make_cgroup(d, job.cgroup);

	if (r < 0)
		return r;
	snprintf(job.procs, sizeof(job.procs), "%s/cgroup.procs", job.cgroup);
	r = make_in(&job, attach);
	if (rmdir(job.cgroup) < 0 && r == 0)
		r = -errno;
	return r;
}
