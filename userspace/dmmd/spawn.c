/* SPDX-License-Identifier: Apache-2.0 */
/* How an instance is made: everything it may not open itself is opened here, handed over, and closed
 * again. A copy that stayed behind would keep a dead instance looking alive. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/proc.h"
#include "base/unixsock.h"
#include "base/util.h"
#include "dmmd/dmmd.h"
#include "dmmd/inst.h"
#include "dmmd/rawsock.h"
#include "pktio/xsk.h"

#define RELAY_BACKLOG 4096
/* Of an accepted relay socket, each way; the kernel doubles it for its own overhead. With the stack's
 * buffers a flow stays below 1 MiB. */
#define RELAY_BUFFER (128 * 1024)
#define FLOW_MEMORY  (128 * 1024)
/* All flows together, and what a plug-in has besides: beyond it allocations fail, and flows with them.
 * Frames do not count. */
#define INSTANCE_MEMORY_MIB 1024
#define FRAMES_FEW_QUEUES   4096
#define FRAMES_MANY_QUEUES  2048

/* All that is on its way to the instance. */
struct parcel {
	int fds[DMM_NUM_HANDOVER_FDS];
	int xsks[DMM_MAX_QUEUES];
	struct dmm_handover_xsk descs[DMM_MAX_QUEUES];
	struct dmm_handover handover;
	uint16_t relay_port[DMM_NUM_FAMILIES]; /* network order */
	int ours, theirs;		       /* socketpair */
};

static void parcel_init(struct parcel *parcel)
{
	memset(parcel, 0, sizeof(*parcel));
	for (size_t i = 0; i < DMM_ARRAY_SIZE(parcel->fds); i++)
		parcel->fds[i] = -1;
	for (size_t i = 0; i < DMM_ARRAY_SIZE(parcel->xsks); i++)
		parcel->xsks[i] = -1;
	parcel->ours = parcel->theirs = -1;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void parcel_close(struct parcel *parcel)
{
	for (size_t i = 0; i < DMM_ARRAY_SIZE(parcel->fds); i++)
		close_fd(&parcel->fds[i]);
	for (size_t i = 0; i < DMM_ARRAY_SIZE(parcel->xsks); i++)
		close_fd(&parcel->xsks[i]);
	close_fd(&parcel->ours);
	close_fd(&parcel->theirs);
}

static int fail(int err, char *text, size_t size, const char *what)
{
	snprintf(text, size, "%s: %s", what, strerror(-err));
	return err;
}

static int fail_steer(int err, char *text, size_t size)
{
	snprintf(text, size, "%s", dmm_steer_reason());
	return err;
}

static int set_int(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

/* --- sockets --- */

static int relay_bind(int fd, int family, uint16_t *ret_port)
{
	struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in sin = { .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr *sa = family == AF_INET ? (struct sockaddr *)&sin
						: (struct sockaddr *)&sin6;
	socklen_t len = family == AF_INET ? sizeof(sin) : sizeof(sin6);

	if (bind(fd, sa, len) < 0 || getsockname(fd, sa, &len) < 0)
		return -errno;
	*ret_port = family == AF_INET ? sin.sin_port : sin6.sin6_port;
	return 0;
}

static int relay_listen(int family, int *ret_fd, uint16_t *ret_port)
{
	dmm_autoclose int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	uint16_t port = 0;
	int r;

	if (fd < 0)
		return -errno;
	r = set_int(fd, SOL_SOCKET, SO_RCVBUF, RELAY_BUFFER);
	if (r == 0)
		r = set_int(fd, SOL_SOCKET, SO_SNDBUF, RELAY_BUFFER);
	if (r == 0 && family == AF_INET6)
		r = set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (r == 0 && family == AF_INET6) /* ::1 may be switched off: then nobody connects */
		r = set_int(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1);
	if (r == 0)
		r = relay_bind(fd, family, &port);
	if (r == 0 && listen(fd, RELAY_BACKLOG) < 0)
		r = -errno;
	if (r < 0)
		return r;
	*ret_port = port;
	*ret_fd = DMM_TAKE_FD(fd);
	return 0;
}

static int open_sockets(struct dmmd_inst *inst, struct parcel *parcel, char *text, size_t size)
{
	char path[PATH_MAX];
	int pair[2], raw[DMM_NUM_FAMILIES];
	int r = relay_listen(AF_INET, &parcel->fds[DMM_FD_RELAY4],
			     &parcel->relay_port[DMM_FAMILY_V4]);

	if (r == 0)
		r = relay_listen(AF_INET6, &parcel->fds[DMM_FD_RELAY6],
				 &parcel->relay_port[DMM_FAMILY_V6]);
	if (r < 0 && r != -EAFNOSUPPORT) /* a kernel without IPv6: no application asks for it */
		return fail(r, text, size, "relay listener");
	r = dmmd_raw_open(inst->d, raw);
	if (r < 0)
		return fail(r, text, size, "raw sockets");
	parcel->fds[DMM_FD_RAW4] = raw[DMM_FAMILY_V4];
	parcel->fds[DMM_FD_RAW6] = raw[DMM_FAMILY_V6];
	r = dmmd_inst_control_path(inst, path);
	if (r == 0)
		r = dmm_unix_listen(path, SOCK_SEQPACKET | SOCK_NONBLOCK, 0600,
				    &parcel->fds[DMM_FD_CONTROL]);
	if (r < 0)
		return fail(r, text, size, path);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return fail(-errno, text, size, "socketpair");
	parcel->ours = pair[0];
	parcel->theirs = pair[1];
	return 0;
}

/* --- interface --- */

static int look_at_interface(struct dmmd_inst *inst, char *text, size_t size)
{
	struct dmmd_iface iface;
	int r = dmmd_iface_query(inst->spec.interface, &iface);

	if (r == -ENODEV) {
		snprintf(text, size, "no interface %s", inst->spec.interface);
		return r;
	}
	if (r < 0)
		return fail(r, text, size, inst->spec.interface);
	if (iface.queues > DMM_MAX_QUEUES) { /* what comes in by the others would not be served */
		snprintf(text, size,
			 "%s has %u queues, at most %d can be served\nethtool -L %s combined %d",
			 inst->spec.interface, iface.queues, DMM_MAX_QUEUES, inst->spec.interface,
			 DMM_MAX_QUEUES);
		return -E2BIG;
	}
	if (inst->attached && inst->iface.ifindex != iface.ifindex)
		inst->attached = false; /* it went with the interface it was on */
	inst->iface = iface;
	if (!dmmd_iface_frame_size(iface.mtu)) {
		snprintf(text, size, "%s: MTU %u is too large for AF_XDP frames",
			 inst->spec.interface, iface.mtu);
		return -EMSGSIZE;
	}
	if (inst->attached)
		return 0;
	r = dmm_steer_attach_interface(inst->d->steer, iface.ifindex, inst->spec.mode, &inst->got);
	if (r < 0)
		/* a busy hook does not get free by itself: not the EBUSY that is tried again */
		return fail_steer(r == -EBUSY ? -EADDRINUSE : r, text, size);
	inst->attached = true;
	if (dmm_steer_reason()[0])
		dmm_warning("%s: %s", inst->spec.interface, dmm_steer_reason());
	return 0;
}

static int open_xsks(struct dmmd_inst *inst, struct parcel *parcel, char *text, size_t size)
{
	const struct dmmd_iface *iface = &inst->iface;
	struct dmm_xsk_request request = {
		.ifindex = iface->ifindex,
		.n_queues = iface->queues,
		.zerocopy = inst->spec.zerocopy,
		.frame_size = dmmd_iface_frame_size(iface->mtu),
		.frames_per_queue = iface->queues > 4 ? FRAMES_MANY_QUEUES : FRAMES_FEW_QUEUES,
	};
	struct dmm_handover *h = &parcel->handover;
	char what[96];
	int r = dmm_xsk_create(&request, &parcel->fds[DMM_FD_UMEM], (uint64_t *)&h->umem_size,
			       parcel->xsks, parcel->descs);

	if (r < 0) {
		snprintf(what, sizeof(what), "AF_XDP sockets on %s (%u queues, zerocopy %s)",
			 inst->spec.interface, iface->queues,
			 dmmd_zerocopy_word(inst->spec.zerocopy));
		return fail(r, text, size, what);
	}
	inst->zerocopy = true;
	for (uint32_t i = 0; i < iface->queues; i++)
		inst->zerocopy &= (parcel->descs[i].flags & DMM_XSK_ZEROCOPY) != 0;
	h->frame_size = request.frame_size;
	h->n_frames = request.frames_per_queue * iface->queues;
	return 0;
}

/* --- the slot --- */

static int enter_slot(struct dmmd_inst *inst, struct parcel *parcel, char *text, size_t size)
{
	struct dmm_steer *steer = inst->d->steer;
	struct dmm_instance slot = {
		.state = DMM_INST_STARTING,
		.incarnation = inst->incarnation,
		.ifindex = inst->iface.ifindex,
		.n_queues = inst->iface.queues,
		.port_first = inst->spec.ports.first,
		.port_last = inst->spec.ports.last,
		.relay_port = { parcel->relay_port[0], parcel->relay_port[1] },
	};
	struct dmm_inst_fds fds;
	int r;

	snprintf(slot.name, sizeof(slot.name), "%s#0", inst->spec.name);
	memcpy(slot.stack, inst->spec.name, sizeof(slot.stack));
	r = dmm_steer_inst_begin(steer, inst->slot, &slot, &fds);
	if (r < 0)
		return fail_steer(r, text, size);
	parcel->fds[DMM_FD_SHARED] = fds.shared;
	parcel->fds[DMM_FD_RING] = fds.ring;
	r = dmm_steer_inst_mark(steer, inst->slot, parcel->fds[DMM_FD_RELAY4]);
	if (r == 0 && parcel->fds[DMM_FD_RELAY6] >= 0)
		r = dmm_steer_inst_mark(steer, inst->slot, parcel->fds[DMM_FD_RELAY6]);
	for (uint32_t i = 0; i < inst->iface.queues && r == 0; i++)
		r = dmm_steer_inst_set_xsk(steer, inst->slot, parcel->descs[i].queue,
					   parcel->xsks[i]);
	return r < 0 ? fail_steer(r, text, size) : 0;
}

static int fill_handover(struct dmmd_inst *inst, struct parcel *parcel, char *text, size_t size)
{
	struct dmmd_options *o = &inst->d->options;
	struct dmm_handover *h = &parcel->handover;
	int n = snprintf(h->plugin, sizeof(h->plugin), "%s/%s.so", o->stacks_dir,
			 inst->spec.plugin);

	if (n >= (int)sizeof(h->plugin))
		return fail(-ENAMETOOLONG, text, size, o->stacks_dir);
	h->version = DMM_HANDOVER_VERSION;
	h->ifindex = inst->iface.ifindex;
	h->mtu = inst->iface.mtu;
	h->n_queues = inst->iface.queues;
	h->port_first = inst->spec.ports.first;
	h->port_last = inst->spec.ports.last;
	h->poll = inst->spec.poll;
	h->uid = o->uid;
	h->gid = o->gid;
	h->flow_memory = FLOW_MEMORY;
	h->memory_mib = INSTANCE_MEMORY_MIB;
	snprintf(h->name, sizeof(h->name), "%s#0", inst->spec.name);
	memcpy(h->ifname, inst->spec.interface, sizeof(h->ifname));
	return 0;
}

/* --- the process --- */

/* Between fork and exec: only what is async-signal-safe. The environment is dmmd's own business
 * (NOTIFY_SOCKET): none of it goes along. */
static void become_instance(const char *program, int fd, bool debug)
{
	char number[16];
	char *const argv[] = { (char *)program, (char *)"--handover", number, NULL };
	char *const envp[] = { debug ? (char *)"DMM_DEBUG=1" : NULL, NULL };
	struct rlimit files;
	sigset_t none;
	int null = open("/dev/null", O_RDWR);

	snprintf(number, sizeof(number), "%d", fd);
	setsid(); /* a ^C for dmmd is none for its instances */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		if (null > STDERR_FILENO) /* else dmmd was started without that one */
			close(null);
	}
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (chdir("/") == 0 && fcntl(fd, F_SETFD, 0) == 0)
		execve(program, argv, envp);
	_exit(127);
}

static int fork_instance(struct dmmd_inst *inst, struct parcel *parcel, int *ret_pidfd, char *text,
			 size_t size)
{
	char program[PATH_MAX];
	pid_t pid;
	int pidfd;

	snprintf(program, sizeof(program), "%s/dmm-stack", inst->d->options.libexec);
	if (access(program, X_OK) < 0)
		return fail(-errno, text, size, program);
	pid = fork();
	if (pid < 0)
		return fail(-errno, text, size, "fork");
	if (pid == 0)
		become_instance(program, parcel->theirs,
				inst->d->options.log_level == DMM_LOG_DEBUG);
	pidfd = dmmd_pidfd_open(pid);
	if (pidfd < 0 || dmm_proc_start_time(pid, &inst->start_time) < 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		close_fd(&pidfd);
		return fail(-ESRCH, text, size, program);
	}
	close_fd(&parcel->theirs);
	inst->pid = pid;
	*ret_pidfd = pidfd;
	return 0;
}

static int send_message(int fd, enum dmm_msg_kind kind, const void *body, size_t len,
			const int *fds, unsigned int n)
{
	struct dmm_msg msg = { .kind = kind, .len = len };
	struct iovec iov[] = { { &msg, sizeof(msg) }, { (void *)body, len } };
	union {
		char buf[CMSG_SPACE(sizeof(int) * DMM_NUM_HANDOVER_FDS)];
		struct cmsghdr align;
	} control = { 0 };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = len ? 2 : 1 };

	if (n > 0) {
		struct cmsghdr *cmsg = &control.align;

		mh.msg_control = control.buf;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * n);
		memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * n);
	}
	return sendmsg(fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* Sends those descriptors that there are, and says which. */
static int send_handover(struct parcel *parcel)
{
	int fds[DMM_NUM_HANDOVER_FDS];
	unsigned int n = 0;

	for (unsigned int i = 0; i < DMM_NUM_HANDOVER_FDS; i++)
		if (parcel->fds[i] >= 0) {
			fds[n++] = parcel->fds[i];
			parcel->handover.fds |= 1u << i;
		}
	return send_message(parcel->ours, DMM_MSG_HANDOVER, &parcel->handover,
			    sizeof(parcel->handover), fds, n);
}

static int hand_over(struct dmmd_inst *inst, struct parcel *parcel)
{
	int r = send_handover(parcel);

	for (uint32_t i = 0; i < inst->iface.queues && r == 0; i++)
		r = send_message(parcel->ours, DMM_MSG_XSK, &parcel->descs[i],
				 sizeof(parcel->descs[i]), &parcel->xsks[i], 1);
	return r < 0 ? r : send_message(parcel->ours, DMM_MSG_START, NULL, 0, NULL, 0);
}

static int start_process(struct dmmd_inst *inst, struct parcel *parcel, char *text, size_t size)
{
	int pidfd = -1, r = fork_instance(inst, parcel, &pidfd, text, size);

	if (r < 0)
		return r;
	r = hand_over(inst, parcel);
	if (r == 0)
		r = dmmd_inst_watch(inst, pidfd, DMM_TAKE_FD(parcel->ours));
	else
		close(pidfd);
	if (r < 0) {
		kill(inst->pid, SIGKILL);
		waitpid(inst->pid, NULL, 0);
		inst->pid = 0;
		return fail(r, text, size, "handing over to the instance");
	}
	return 0;
}

int dmmd_spawn(struct dmmd_inst *inst, char *text, size_t size)
{
	struct parcel parcel;
	bool entered = false;
	int r;

	parcel_init(&parcel);
	if (access(inst->d->options.bpffs, F_OK) < 0) /* torn down: maps that nobody looks at */
		return fail(-errno, text, size, inst->d->options.bpffs);
	inst->incarnation++;
	r = look_at_interface(inst, text, size);
	if (r == 0)
		r = fill_handover(inst, &parcel, text, size);
	if (r == 0)
		r = open_sockets(inst, &parcel, text, size);
	if (r == 0)
		r = open_xsks(inst, &parcel, text, size);
	if (r == 0) {
		entered = true;
		r = enter_slot(inst, &parcel, text, size);
	}
	if (r == 0)
		r = start_process(inst, &parcel, text, size);
	if (r < 0 && entered)
		dmm_steer_inst_state(inst->d->steer, inst->slot, DMM_INST_DEAD, 0);
	parcel_close(&parcel);
	return r;
}
