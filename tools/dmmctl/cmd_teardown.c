/* SPDX-License-Identifier: Apache-2.0 */
/* teardown: off now, with or without a dmmd. First dmmd, lest it repair what is taken away; then
 * links, maps and the rest; instances last: nothing leads to them any more. */
#define _GNU_SOURCE
#include "dmmctl.h"

#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <dmm/abi/handover.h>

#include "base/file.h"
#include "base/unixsock.h"
#include "steer/steer.h"
#include "steer/view.h"

#define STOP_MS 10000

static int signal_pidfd(int pidfd, int sig)
{
	return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0);
}

/* Ends a process politely, then not; 0 once it is gone. */
static int stop_process(int pidfd, int timeout_ms)
{
	struct pollfd pfd = { .fd = pidfd, .events = POLLIN };

	if (signal_pidfd(pidfd, SIGTERM) < 0)
		return errno == ESRCH ? 0 : -errno;
	if (poll(&pfd, 1, timeout_ms) > 0)
		return 0;
	if (signal_pidfd(pidfd, SIGKILL) < 0)
		return errno == ESRCH ? 0 : -errno;
	return poll(&pfd, 1, STOP_MS) > 0 ? 0 : -ETIMEDOUT;
}

/* Who locks the directory: dmmd does as long as it runs, answering or not. 0: nobody that can be seen
 * from here. */
static pid_t find_holder(const char *bpffs)
{
	dmm_autofclose FILE *locks = fopen("/proc/locks", "re");
	char line[256];
	struct stat st;

	if (!locks || stat(bpffs, &st) < 0)
		return 0;
	while (fgets(line, sizeof(line), locks)) {
		unsigned int dev_major, dev_minor;
		unsigned long inode;
		pid_t pid;

		if (sscanf(line, "%*u: FLOCK %*s WRITE %d %x:%x:%lu", &pid, &dev_major, &dev_minor,
			   &inode) == 4 &&
		    inode == st.st_ino && dev_major == major(st.st_dev) &&
		    dev_minor == minor(st.st_dev))
			return DMM_MAX(pid, 0);
	}
	return 0;
}

/* Stops the dmmd of @ctl->bpffs, wherever its run-dir is. */
static int stop_daemon(const struct ctl *ctl, pid_t pid, bool *ret_stopped)
{
	dmm_autoclose int pidfd = pid ? syscall(SYS_pidfd_open, pid, 0) : -1;
	int r = pidfd < 0 ? -errno : 0;

	*ret_stopped = false;
	/* asked again, for the number may be another process's by now */
	if (!pid || r == -ESRCH || find_holder(ctl->bpffs) != pid)
		return CTL_OK;
	if (r == 0)
		r = stop_process(pidfd, STOP_MS);
	if (r < 0)
		return fail(ctl, exit_of(r), r, NULL, "stopping dmmd, pid %d", pid);
	*ret_stopped = true;
	return CTL_OK;
}

/* --- instances --- */

/* Is it (still) one of ours? A pid in a map may be somebody else by now. */
static bool is_instance(int pid)
{
	dmm_autofree char *comm = NULL;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	return dmm_file_read(path, 64, &comm, NULL) == 0 && strncmp(comm, "dmm-stack", 9) == 0;
}

/* Holds the running instances by pidfd; returns how many. */
static unsigned int find_instances(const struct ctl *ctl, int *pidfds)
{
	struct dmm_instance inst;
	struct dmm_view *view;
	unsigned int n = 0;

	if (dmm_view_open(ctl->bpffs, &view) < 0)
		return 0; /* no maps, or of another layout: stop_run_dir() does what it can */
	for (uint32_t id = 0; id < DMM_MAX_INSTANCES; id++) {
		int pidfd;

		if (dmm_view_instance(view, id, &inst) < 0 || !inst.pid)
			continue;
		pidfd = syscall(SYS_pidfd_open, inst.pid, 0);
		if (pidfd >= 0 && is_instance(inst.pid))
			pidfds[n++] = pidfd;
		else if (pidfd >= 0)
			close(pidfd);
	}
	dmm_view_close(view);
	return n;
}

static unsigned int stop_instances(int *pidfds, unsigned int n)
{
	unsigned int stopped = 0;

	for (unsigned int i = 0; i < n; i++) {
		stopped += stop_process(pidfds[i], STOP_MS) == 0;
		close(pidfds[i]);
	}
	return stopped;
}

/* The process that listens on the control socket: no answer is needed from it. 0: none. */
static pid_t find_listener(const char *path)
{
	dmm_autoclose int fd = -1;
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);

	if (dmm_unix_connect(path, SOCK_STREAM | SOCK_NONBLOCK, &fd) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return 0;
	return cred.pid;
}

/* Are the run-dir and the bpffs of one dmmd? Where none is there to tell, they are when both are the
 * usual ones or neither is. */
static bool belong_together(const struct ctl *ctl, pid_t holder, pid_t listener)
{
	return listener ? listener == holder
			: dmm_streq(ctl->bpffs, CTL_BPFFS) == dmm_streq(ctl->run_dir, CTL_RUN_DIR);
}

/* Each instance listens for the next dmmd: reaches those, too, whose maps nobody here can read. */
static unsigned int ask_to_stop(const glob_t *sockets)
{
	struct dmm_msg stop = { .kind = DMM_MSG_STOP };
	struct pollfd pfd = { .events = POLLIN };
	unsigned int stopped = 0;

	for (size_t i = 0; i < sockets->gl_pathc; i++) {
		dmm_autoclose int fd = -1;

		if (dmm_unix_connect(sockets->gl_pathv[i], SOCK_SEQPACKET, &fd) < 0)
			continue;
		pfd.fd = fd;
		if (send(fd, &stop, sizeof(stop), MSG_NOSIGNAL) == sizeof(stop))
			stopped += poll(&pfd, 1, STOP_MS) > 0; /* it hangs up when it ends */
	}
	return stopped;
}

static unsigned int stop_run_dir(const struct ctl *ctl, bool ours, pid_t listener)
{
	char pattern[sizeof(ctl->run_dir) + 32];
	unsigned int stopped = 0;
	glob_t sockets = { 0 };

	snprintf(pattern, sizeof(pattern), "%s/instances/*.sock", ctl->run_dir);
	if (glob(pattern, 0, NULL, &sockets) == 0 && ours)
		stopped = ask_to_stop(&sockets);
	else if (!ours && (listener || sockets.gl_pathc))
		note(ctl, "left alone: dmmd and instances of %s, which are not known to be of %s",
		     ctl->run_dir, ctl->bpffs);
	globfree(&sockets);
	return stopped;
}

int cmd_teardown(struct ctl *ctl)
{
	unsigned int links = 0, maps = 0, n, stopped;
	int pidfds[DMM_MAX_INSTANCES], r, err;
	struct json_object *doc;
	pid_t holder, listener;
	bool daemon, ours;

	if (geteuid() != 0)
		return fail(ctl, CTL_NOT_PERMITTED, -EPERM, NULL, "teardown of %s", ctl->bpffs);
	holder = find_holder(ctl->bpffs);
	listener = find_listener(ctl->socket);
	ours = belong_together(ctl, holder, listener);
	r = stop_daemon(ctl, holder, &daemon);
	if (r != CTL_OK)
		return r;
	n = find_instances(ctl, pidfds);
	err = dmm_steer_teardown(ctl->bpffs, &links, &maps);
	stopped = stop_instances(pidfds, n);
	stopped += stop_run_dir(ctl, ours, listener);
	if (err < 0 && err != -ENOENT)
		return fail(ctl, exit_of(err), err, dmm_steer_reason(), "teardown of %s",
			    ctl->bpffs);
	doc = dmm_json_document("Teardown");
	dmm_json_set_u64(doc, "links", links);
	dmm_json_set_u64(doc, "maps", maps);
	dmm_json_set_u64(doc, "instances", stopped);
	dmm_json_set_bool(doc, "daemon_stopped", daemon);
	if (!is_json(ctl))
		printf("removed %u links, %u maps; stopped %u instance%s%s\n", links, maps, stopped,
		       stopped == 1 ? "" : "s", daemon ? " and dmmd" : "");
	print_document(ctl, doc);
	return CTL_OK;
}
