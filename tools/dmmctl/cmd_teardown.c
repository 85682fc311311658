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
#include <sys/syscall.h>

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

/* The process that listens on the control socket: no answer is needed from it. */
static int listener_pidfd(const char *path, int *ret)
{
	dmm_autoclose int fd = -1;
	socklen_t len;
	struct ucred cred;
	int pidfd, r = dmm_unix_connect(path, SOCK_STREAM, &fd);

	if (r < 0)
		return r;
	len = sizeof(cred);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	pidfd = syscall(SYS_pidfd_open, cred.pid, 0);
	if (pidfd < 0)
		return -errno;
	*ret = pidfd;
	return 0;
}

static int stop_daemon(const struct ctl *ctl, bool *ret_stopped)
{
	dmm_autoclose int pidfd = -1;
	int r = listener_pidfd(ctl->socket, &pidfd);

	*ret_stopped = false;
	if (r == -ENOENT || r == -ECONNREFUSED || r == -ESRCH)
		return CTL_OK;
	if (r == 0)
		r = stop_process(pidfd, STOP_MS);
	if (r < 0)
		return fail(ctl, exit_of(r), r, NULL, "stopping dmmd (%s)", ctl->socket);
	*ret_stopped = true;
	return CTL_OK;
}

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
		return 0; /* no maps, or of another layout: ask_instances_to_stop() does what it can */
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

/* Each instance listens for the next dmmd: reaches those, too, whose maps nobody here can read. */
static unsigned int ask_instances_to_stop(const struct ctl *ctl)
{
	unsigned int stopped = 0;
	struct dmm_msg stop = { .kind = DMM_MSG_STOP };
	char pattern[sizeof(ctl->run_dir) + 32];
	struct pollfd pfd = { .events = POLLIN };
	glob_t found = { 0 };

	snprintf(pattern, sizeof(pattern), "%s/instances/*.sock", ctl->run_dir);
	if (glob(pattern, 0, NULL, &found) == 0) {
		for (size_t i = 0; i < found.gl_pathc; i++) {
			dmm_autoclose int fd = -1;

			if (dmm_unix_connect(found.gl_pathv[i], SOCK_SEQPACKET, &fd) < 0)
				continue;
			pfd.fd = fd;
			if (send(fd, &stop, sizeof(stop), MSG_NOSIGNAL) == sizeof(stop))
				stopped += poll(&pfd, 1, STOP_MS) >
					   0; /* it hangs up when it ends */
		}
	}
	globfree(&found);
	return stopped;
}

int cmd_teardown(struct ctl *ctl)
{
	unsigned int links = 0, maps = 0, n, stopped;
	int pidfds[DMM_MAX_INSTANCES], r, err;
	struct json_object *doc;
	bool daemon;

	if (geteuid() != 0)
		return fail(ctl, CTL_NOT_PERMITTED, -EPERM, NULL, "teardown of %s", ctl->bpffs);
	r = stop_daemon(ctl, &daemon);
	if (r != CTL_OK)
		return r;
	n = find_instances(ctl, pidfds);
	err = dmm_steer_teardown(ctl->bpffs, &links, &maps);
	stopped = stop_instances(pidfds, n);
	stopped += ask_instances_to_stop(ctl);
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
