/* SPDX-License-Identifier: Apache-2.0 */
/* How an instance is made: everything it may not open itself is opened here, handed over, and closed
 * again. A copy that stayed behind would keep a dead instance looking alive. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
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
#include "dmmd/parcel.h"
#include "pktio/xsk.h"

#define FLOW_MEMORY	   (128 * 1024)
#define FRAMES_FEW_QUEUES  4096
#define FRAMES_MANY_QUEUES 2048

int dmmd_inst_fail(int err, char *text, size_t size, const char *what)
{
	snprintf(text, size, "%s: %s", what, strerror(-err));
	return err;
}

static int fail_steer(int err, char *text, size_t size)
{
	snprintf(text, size, "%s", dmm_steer_reason());
	return err;
}

/* --- interface --- */

/* The first instance has the queues of the interface, the others a hop to it. */
static int make_hop(struct dmmd_inst *inst, char *text, size_t size)
{
	struct dmm_hop_ends ends = { 0 };
	int r = 0;

	if (inst->spec.index > 0)
		r = dmm_steer_hop_make(inst->d->steer, inst->slot, inst->iface.ifindex,
				       inst->iface.mtu, &ends);
	inst->hop = ends;
	return r < 0 ? fail_steer(r, text, size) : 0;
}

static int look_at_interface(struct dmmd_inst *inst, char *text, size_t size)
{
	struct dmmd_iface iface;
	int r = dmmd_iface_query(inst->spec.interface, &iface);

	if (r == -ENODEV) {
		snprintf(text, size, "no interface %s", inst->spec.interface);
		return r;
	}
	if (r < 0)
		return dmmd_inst_fail(r, text, size, inst->spec.interface);
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
		return make_hop(inst, text, size);
	r = dmm_steer_attach_interface(inst->d->steer, iface.ifindex, inst->spec.mode, &inst->got);
	if (r < 0)
		/* a busy hook does not get free by itself: not the EBUSY that is tried again */
		return fail_steer(r == -EBUSY ? -EADDRINUSE : r, text, size);
	inst->attached = true;
	if (dmm_steer_reason()[0])
		dmm_warning("%s: %s", inst->spec.interface, dmm_steer_reason());
	return make_hop(inst, text, size);
}

static uint32_t n_queues_of(const struct dmmd_inst *inst)
{
	return inst->hop.far_index ? 1 : inst->iface.queues;
}

static int open_xsks(struct dmmd_inst *inst, struct dmmd_parcel *parcel, char *text, size_t size)
{
	const struct dmmd_iface *iface = &inst->iface;
	const uint32_t n_queues = n_queues_of(inst);
	struct dmm_xsk_request request = {
		.ifindex = inst->hop.far_index ? inst->hop.far_index : iface->ifindex,
		.n_queues = n_queues,
		.zerocopy = inst->spec.zerocopy,
		.frame_size = dmmd_iface_frame_size(iface->mtu),
		.frames_per_queue = n_queues > 4 ? FRAMES_MANY_QUEUES : FRAMES_FEW_QUEUES,
	};
	struct dmm_handover *h = &parcel->handover;
	char what[96];
	int r = dmm_xsk_create(&request, &parcel->fds[DMM_FD_UMEM], (uint64_t *)&h->umem_size,
			       parcel->xsks, parcel->descs);

	if (r < 0) {
		snprintf(what, sizeof(what), "AF_XDP sockets on %s (%u queues, zerocopy %s)",
			 inst->spec.interface, n_queues, dmmd_zerocopy_word(inst->spec.zerocopy));
		return dmmd_inst_fail(r, text, size, what);
	}
	inst->zerocopy = true;
	for (uint32_t i = 0; i < n_queues; i++)
		inst->zerocopy &= (parcel->descs[i].flags & DMM_XSK_ZEROCOPY) != 0;
	h->frame_size = request.frame_size;
	h->n_frames = request.frames_per_queue * n_queues;
	return 0;
}

/* --- the slot --- */

static int enter_slot(struct dmmd_inst *inst, struct dmmd_parcel *parcel, char *text, size_t size)
{
	struct dmm_steer *steer = inst->d->steer;
	struct dmm_instance slot = {
		.state = DMM_INST_STARTING,
		.incarnation = inst->incarnation,
		.ifindex = inst->iface.ifindex,
		.n_queues = n_queues_of(inst),
		.hop_ifindex = inst->hop.near_index,
		.port_first = inst->spec.ports.first,
		.port_last = inst->spec.ports.last,
		.relay_port = { parcel->relay_port[0], parcel->relay_port[1] },
	};
	struct dmm_inst_fds fds;
	int r;

	memcpy(slot.name, inst->label, sizeof(slot.name));
	memcpy(slot.stack, inst->spec.name, sizeof(slot.stack));
	r = dmm_steer_inst_begin(steer, inst->slot, &slot, &fds);
	if (r < 0)
		return fail_steer(r, text, size);
	parcel->fds[DMM_FD_SHARED] = fds.shared;
	parcel->fds[DMM_FD_RING] = fds.ring;
	r = dmm_steer_inst_mark(steer, inst->slot, parcel->fds[DMM_FD_RELAY4]);
	if (r == 0 && parcel->fds[DMM_FD_RELAY6] >= 0)
		r = dmm_steer_inst_mark(steer, inst->slot, parcel->fds[DMM_FD_RELAY6]);
	for (uint32_t i = 0; i < n_queues_of(inst) && r == 0; i++)
		r = dmm_steer_inst_set_xsk(steer, inst->slot, parcel->descs[i].queue,
					   parcel->xsks[i]);
	return r < 0 ? fail_steer(r, text, size) : 0;
}

static int fill_handover(struct dmmd_inst *inst, struct dmmd_parcel *parcel, char *text,
			 size_t size)
{
	struct dmmd_options *o = &inst->d->options;
	struct dmm_handover *h = &parcel->handover;
	int n = snprintf(h->plugin, sizeof(h->plugin), "%s/%s.so", o->stacks_dir,
			 inst->spec.plugin);

	if (n >= (int)sizeof(h->plugin))
		return dmmd_inst_fail(-ENAMETOOLONG, text, size, o->stacks_dir);
	h->version = DMM_HANDOVER_VERSION;
	h->ifindex = inst->iface.ifindex;
	h->mtu = inst->iface.mtu;
	h->io_ifindex = inst->hop.far_index ? inst->hop.far_index : h->ifindex;
	h->n_queues = n_queues_of(inst);
	h->port_first = inst->spec.ports.first;
	h->port_last = inst->spec.ports.last;
	h->poll = inst->spec.poll;
	h->uid = o->stack_socket ? 0 : o->uid; /* the service manager chose one */
	h->gid = o->stack_socket ? 0 : o->gid;
	h->flow_memory = FLOW_MEMORY;
	h->memory_mib = inst->spec.memory_mib;
	memcpy(h->name, inst->label, sizeof(h->name));
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
		if (null > STDERR_FILENO) /* else dmmd was started without that one */
			close(null);
	}
	dup2(STDERR_FILENO, STDOUT_FILENO);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (chdir("/") == 0 && fcntl(fd, F_SETFD, 0) == 0)
		execve(program, argv, envp);
	_exit(127);
}

/* Our child, or -errno. @theirs is its end of the line. */
static pid_t fork_instance(struct dmmd_inst *inst, int theirs)
{
	const struct dmmd_options *o = &inst->d->options;
	char program[PATH_MAX];
	pid_t pid;

	snprintf(program, sizeof(program), "%s/dmm-stack", o->libexec);
	if (access(program, X_OK) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		become_instance(program, theirs, o->log_level == DMM_LOG_DEBUG);
	return pid < 0 ? -errno : pid;
}

static int start_child(struct dmmd_inst *inst, struct dmmd_parcel *parcel)
{
	int pair[2], pidfd, r;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	pid = fork_instance(inst, pair[1]);
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return pid;
	}
	r = pidfd = dmmd_pidfd_open(pid);
	if (r >= 0)
		r = dmm_proc_start_time(pid, &inst->start_time);
	if (r >= 0)
		r = dmmd_parcel_send(parcel, pair[0]);
	r = r < 0 ? r : dmmd_inst_watch(inst, DMM_TAKE_FD(pidfd), DMM_TAKE_FD(pair[0]));
	if (r < 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		if (pidfd >= 0)
			close(pidfd);
		if (pair[0] >= 0)
			close(pair[0]);
		return r;
	}
	inst->pid = pid;
	return 0;
}

/* The service manager makes an instance of each connection; which process that is, its first message
 * says. */
static int start_by_manager(struct dmmd_inst *inst, struct dmmd_parcel *parcel)
{
	dmm_autoclose int fd = -1;
	int one = 1;
	int r = dmm_unix_connect(inst->d->options.stack_socket, SOCK_SEQPACKET | SOCK_NONBLOCK,
				 &fd);

	if (r == 0 && setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)) < 0)
		r = -errno;
	if (r == 0)
		r = dmmd_parcel_send(parcel, fd);
	if (r == -EPIPE) /* hung up on already: that shows when it is watched */
		r = 0;
	return r < 0 ? r : dmmd_inst_watch(inst, -1, DMM_TAKE_FD(fd));
}

int dmmd_spawn(struct dmmd_inst *inst, char *text, size_t size)
{
	const struct dmmd_options *o = &inst->d->options;
	struct dmmd_parcel parcel;
	bool entered = false;
	int r;

	dmmd_parcel_init(&parcel);
	if (access(o->bpffs, F_OK) < 0) /* torn down: maps that nobody looks at */
		return dmmd_inst_fail(-errno, text, size, o->bpffs);
	inst->incarnation++;
	r = look_at_interface(inst, text, size);
	if (r == 0)
		r = fill_handover(inst, &parcel, text, size);
	if (r == 0)
		r = dmmd_parcel_fill(&parcel, inst, text, size);
	if (r == 0)
		r = open_xsks(inst, &parcel, text, size);
	if (r == 0) {
		entered = true;
		r = enter_slot(inst, &parcel, text, size);
	}
	if (r == 0 && o->stack_socket) {
		r = start_by_manager(inst, &parcel);
		if (r < 0)
			dmmd_inst_fail(r, text, size, o->stack_socket);
	} else if (r == 0) {
		r = start_child(inst, &parcel);
		if (r < 0)
			dmmd_inst_fail(r, text, size, "starting dmm-stack");
	}
	if (r < 0 && entered)
		dmm_steer_inst_state(inst->d->steer, inst->slot, DMM_INST_DEAD, 0);
	dmmd_parcel_close(&parcel);
	return r;
}
