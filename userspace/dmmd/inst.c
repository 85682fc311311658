/* SPDX-License-Identifier: Apache-2.0 */
/* The life of an instance, as in inst.h. How it is forked and what it is handed is in spawn.c, how one
 * that runs already is taken over in adopt.c. */
#define _GNU_SOURCE
#include "dmmd/inst.h"

#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/unixsock.h"
#include "base/util.h"
#include "dmmd/dmmd.h"
#include "dmmd/peers.h"
#include "dmmd/sockets.h"

#define READY_MS    10000 /* from start to READY */
#define BUSY_MS	    10000 /* how long a queue may stay with the process before */
#define BUSY_TRY_MS 50
#define END_MS	    2000 /* from STOP to SIGKILL */
#define AWAY_MS	    1000 /* how often to look for an interface that is gone or taken */

static void begin(struct dmmd_inst *inst, bool again);
static void died(struct dmmd_inst *inst, pid_t pid, int err);

const char *dmmd_life_word(enum dmmd_life life)
{
	static const char *const words[] = {
		[DMMD_STOPPED] = "stopped", [DMMD_STARTING] = "starting",
		[DMMD_READY] = "ready",	    [DMMD_DRAINING] = "draining",
		[DMMD_DEAD] = "restarting", [DMMD_FAILED] = "failed",
		[DMMD_ENDING] = "ending",
	};

	return words[life];
}

static void settle(struct dmmd_inst *inst, int err, const char *text)
{
	void (*settled)(void *, struct dmmd_inst *, int, const char *) = inst->settled;

	inst->settled = NULL;
	if (settled)
		settled(inst->settled_ctx, inst, err, text);
}

/* --- talking to it --- */

int dmmd_pidfd_open(pid_t pid)
{
	int fd = syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -errno : fd;
}

static void kill_it(struct dmmd_inst *inst)
{
	syscall(SYS_pidfd_send_signal, inst->process.fd, SIGKILL, NULL, 0);
}

int dmmd_inst_control_path(struct dmmd_inst *inst, char ret[static PATH_MAX])
{
	int n = snprintf(ret, PATH_MAX, "%s/instances/%s.sock", inst->d->options.run_dir,
			 inst->label);

	return n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

int dmmd_inst_send(struct dmmd_inst *inst, enum dmm_msg_kind kind)
{
	struct dmm_msg msg = { .kind = kind };

	if (inst->channel.fd < 0)
		return -ENOTCONN;
	if (send(inst->channel.fd, &msg, sizeof(msg), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return -errno;
	return 0;
}

static void became_ready(struct dmmd_inst *inst)
{
	int r;

	if (inst->life != DMMD_STARTING)
		return; /* the answer to HELLO */
	r = dmm_steer_inst_state(inst->d->steer, inst->slot, DMM_INST_READY, inst->pid);
	if (r < 0) {
		snprintf(inst->said, sizeof(inst->said), "%s", dmm_steer_reason());
		kill_it(inst);
		return;
	}
	inst->life = DMMD_READY;
	inst->ready_at = dmm_now_ns();
	dmmd_timer_set(&inst->timer, 0);
	dmm_info("%s ready: pid %d on %s, ports %u-%u", inst->label, inst->pid,
		 inst->spec.interface, inst->spec.ports.first, inst->spec.ports.last);
	dmmd_save(inst->d);
	dmmd_sockets_begin(inst);
	settle(inst, 0, "");
}

/* What an instance says is not to be trusted with a terminal. */
static void copy_printable(char *to, size_t size, const char *from, size_t len)
{
	size_t n = 0;

	for (; n + 1 < size && n < len && from[n]; n++)
		to[n] = isprint((unsigned char)from[n]) ? from[n] : '?';
	to[n] = '\0';
}

struct message {
	struct dmm_msg msg;
	union {
		struct dmm_msg_text body;
		struct dmm_msg_want want;
	};
};

static void close_all(struct cmsghdr *cmsg)
{
	size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

	for (size_t i = 0; i < n; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(fd), sizeof(fd));
		close(fd);
	}
}

/* *ret_pid: of the sender as the kernel vouches for, 0: not told. */
static ssize_t receive(int fd, struct message *ret, pid_t *ret_pid)
{
	union {
		char buf[CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { ret, sizeof(*ret) };
	struct msghdr mh = { .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *cmsg;

	/* it went without having read all of ours: that is told once, and before what it said */
	if (n < 0 && errno == ECONNRESET)
		n = recvmsg(fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	cmsg = n > 0 ? CMSG_FIRSTHDR(&mh) : NULL;
	*ret_pid = 0;
	if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS)
		close_all(cmsg); /* nobody asked for any */
	else if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_CREDENTIALS)
		*ret_pid = ((struct ucred *)CMSG_DATA(cmsg))->pid;
	return n;
}

/* Asked for, and nobody came, or not as it should. */
static void never_came(struct dmmd_inst *inst, const char *why)
{
	struct dmmd *d = inst->d; /* who asked for it may free it */

	dmmd_source_remove(&d->loop, &inst->channel);
	dmmd_timer_set(&inst->timer, 0);
	dmm_steer_inst_state(d->steer, inst->slot, DMM_INST_DEAD, 0);
	snprintf(inst->last_death, sizeof(inst->last_death),
		 "%s: %s (journalctl -u 'dmm-stack*')%s%s", d->options.stack_socket, why,
		 inst->said[0] ? "; its last words: " : "", inst->said);
	died(inst, 0, -EIO);
	dmmd_save(d);
}

/* One that the service manager started says who it is. As long as it holds its end of the line, the pid
 * is nobody else's; one that has let go is not met, but may have left word. */
static void meet(struct dmmd_inst *inst, pid_t pid)
{
	struct pollfd line = { .fd = inst->channel.fd };
	dmm_autoclose int pidfd = pid > 0 ? dmmd_pidfd_open(pid) : -ESRCH;

	if (pidfd < 0 || dmm_proc_start_time(pid, &inst->start_time) < 0 || poll(&line, 1, 0) < 0 ||
	    line.revents & (POLLHUP | POLLERR))
		return;
	if (dmmd_inst_watch(inst, DMM_TAKE_FD(pidfd), -1) < 0) {
		never_came(inst, "it cannot be watched");
		return;
	}
	inst->pid = pid;
	dmmd_save(inst->d);
}

static void channel_ready(struct dmmd_source *source, uint32_t events)
{
	struct dmmd_inst *inst = dmmd_container(source, struct dmmd_inst, channel);
	struct message in;
	pid_t pid;
	ssize_t n = receive(source->fd, &in, &pid);

	(void)events;
	if (n < 0 && errno == EAGAIN)
		return;
	if (n < (ssize_t)sizeof(in.msg)) { /* closed; its pidfd says more, if there is one */
		if (inst->pid)
			dmmd_source_remove(&inst->d->loop, source);
		else
			never_came(inst, "no instance stayed that it started");
		return;
	}
	if (in.msg.kind == DMM_MSG_STARTED && !inst->pid)
		meet(inst, pid);
	else if (in.msg.kind == DMM_MSG_READY && inst->pid)
		became_ready(inst);
	else if (in.msg.kind == DMM_MSG_WANT && inst->pid && n == sizeof(in.msg) + sizeof(in.want))
		dmmd_sockets_give(inst, in.want.family);
	else if (in.msg.kind == DMM_MSG_FAILED)
		copy_printable(inst->said, sizeof(inst->said), in.body.text, n - sizeof(in.msg));
}

void dmmd_inst_shared(struct dmmd_inst *inst, struct dmm_inst_shared *ret)
{
	if (dmm_view_shared(inst->d->view, inst->slot, ret, false) < 0)
		memset(ret, 0, sizeof(*ret));
}

/* --- its death --- */

/* "killed by SIGSEGV", "exited with 1", ... True: an orderly exit. */
static bool reap(struct dmmd_inst *inst, char *ret, size_t size)
{
	siginfo_t info = { 0 };

	if (waitid(P_PIDFD, inst->process.fd, &info, WEXITED | WNOHANG) < 0) {
		snprintf(ret, size, "exited, status unknown (not our child%s)",
			 inst->d->options.stack_socket ? ": journalctl -u 'dmm-stack*'" : "");
		return inst->life == DMMD_DRAINING || inst->life == DMMD_ENDING;
	}
	if (info.si_code == CLD_EXITED) {
		snprintf(ret, size, "exited with %d", info.si_status);
		return info.si_status == 0;
	}
	snprintf(ret, size, "killed by SIG%s%s", sigabbrev_np(info.si_status),
		 info.si_code == CLD_DUMPED ? " (core dumped)" : "");
	return false;
}

static void last_words(struct dmmd_inst *inst, char *ret, size_t size)
{
	struct dmm_inst_shared shared;

	if (inst->said[0]) {
		copy_printable(ret, size, inst->said, sizeof(inst->said));
		return;
	}
	dmmd_inst_shared(inst, &shared);
	copy_printable(ret, size, shared.last_words, sizeof(shared.last_words));
}

/* Why and how it ended, in inst->last_death. True: an orderly exit. */
static bool describe_death(struct dmmd_inst *inst)
{
	char how[96], words[480];
	bool orderly = reap(inst, how, sizeof(how));

	last_words(inst, words, sizeof(words));
	snprintf(inst->last_death, sizeof(inst->last_death), "%s%s%s%s%s", inst->why,
		 inst->why[0] ? ": " : "", how, words[0] ? "; its last words: " : "", words);
	return orderly;
}

static void let_go_of_interface(struct dmmd_inst *inst)
{
	struct dmmd *d = inst->d;

	if (inst->hop.near_index)
		dmm_steer_hop_remove(d->steer, inst->slot);
	inst->hop = (struct dmm_hop_ends){ 0 };
	if (!inst->attached)
		return;
	inst->attached = false;
	for (unsigned int i = 0; i < DMM_MAX_INSTANCES; i++)
		if (d->inst[i] && d->inst[i]->attached &&
		    d->inst[i]->iface.ifindex == inst->iface.ifindex)
			return;
	if (dmm_steer_detach_interface(d->steer, inst->iface.ifindex) < 0)
		dmm_warning("%s: %s", inst->spec.interface, dmm_steer_reason());
}

static void stay_stopped(struct dmmd_inst *inst)
{
	inst->life = DMMD_STOPPED;
	dmm_steer_inst_state(inst->d->steer, inst->slot, DMM_INST_DEAD, 0);
	let_go_of_interface(inst);
}

static void start_again_in(struct dmmd_inst *inst, uint64_t ms)
{
	inst->life = DMMD_DEAD;
	inst->retry_at = dmm_now_ns() + ms * DMM_NS_PER_MS;
	dmmd_timer_set(&inst->timer, ms);
}

/* A life (or, without @pid, an attempt to start one) ended without anybody wanting it. */
static void died(struct dmmd_inst *inst, pid_t pid, int err)
{
	uint64_t ready_ms = 0;
	char what[DMM_INST_NAME_LEN + 32];
	int delay;

	if (pid)
		snprintf(what, sizeof(what), "%s (pid %d) died", inst->label, pid);
	else
		snprintf(what, sizeof(what), "%s could not be started", inst->label);

	if (inst->settled) { /* whoever asked decides what now */
		dmm_warning("%s: %s", what, inst->last_death);
		stay_stopped(inst);
		settle(inst, err, inst->last_death);
		return;
	}
	if (inst->ready_at)
		ready_ms = (dmm_now_ns() - inst->ready_at) / DMM_NS_PER_MS;
	delay = dmmd_backoff_died(&inst->backoff, ready_ms);
	if (delay >= 0) {
		dmm_warning("%s: %s; next try in %d.%d s", what, inst->last_death, delay / 1000,
			    delay % 1000 / 100);
		start_again_in(inst, delay);
		return;
	}
	inst->life = DMMD_FAILED;
	let_go_of_interface(inst);
	dmm_error("%s: %s; %u times in a row: given up (dmmctl stacks restart %s)", what,
		  inst->last_death, inst->backoff.deaths, inst->spec.name);
}

static void after_end(struct dmmd_inst *inst)
{
	struct dmmd *d = inst->d;

	switch (inst->after) {
	case DMMD_AFTER_START:
		if (!dmm_streq(inst->spec.interface, inst->next.interface) ||
		    inst->spec.mode != inst->next.mode)
			let_go_of_interface(inst);
		inst->spec = inst->next;
		begin(inst, false);
		break;
	case DMMD_AFTER_STAY:
		stay_stopped(inst);
		break;
	case DMMD_AFTER_FREE:
		dmmd_inst_free(inst);
		break;
	case DMMD_AFTER_RESTART:
		start_again_in(inst, DMMD_BACKOFF_FIRST_MS);
		break;
	}
	dmmd_insts_reserve(d);
	dmmd_save(d);
}

static void process_ready(struct dmmd_source *source, uint32_t events)
{
	struct dmmd_inst *inst = dmmd_container(source, struct dmmd_inst, process);
	struct dmmd *d = inst->d;
	pid_t pid = inst->pid;
	bool orderly, wanted;

	(void)events;
	if (inst->channel.fd >= 0) /* a FAILED may wait there */
		channel_ready(&inst->channel, EPOLLIN);
	orderly = describe_death(inst);
	wanted = inst->life == DMMD_ENDING || (inst->life == DMMD_DRAINING && orderly);
	dmm_steer_inst_state(d->steer, inst->slot, DMM_INST_DEAD, 0);
	dmmd_tell_peers(inst);
	dmmd_source_remove(&d->loop, &inst->channel);
	dmmd_source_remove(&d->loop, &inst->process);
	dmmd_timer_set(&inst->timer, 0);
	if (wanted)
		dmm_info("%s (pid %d) ended: %s", inst->label, pid, inst->last_death);
	inst->pid = 0;
	inst->why[0] = '\0';
	if (wanted || inst->removed) {
		after_end(inst);
		return;
	}
	died(inst, pid, -EIO);
	dmmd_save(d);
}

int dmmd_inst_watch(struct dmmd_inst *inst, int pidfd, int channel)
{
	struct dmmd_loop *loop = &inst->d->loop;
	dmm_autoclose int process = pidfd, conn = channel;
	int r = 0;

	if (process >= 0)
		r = dmmd_source_add(loop, &inst->process, process, EPOLLIN, process_ready);
	if (r < 0)
		return r;
	process = -1;
	if (conn < 0)
		return 0;
	r = dmmd_source_add(loop, &inst->channel, conn, EPOLLIN, channel_ready);
	if (r < 0) {
		dmmd_source_remove(loop, &inst->process);
		return r;
	}
	conn = -1;
	return 0;
}

/* --- starting --- */

static void try_spawn(struct dmmd_inst *inst)
{
	uint64_t waited = (dmm_now_ns() - inst->begun_at) / DMM_NS_PER_MS;
	char text[400] = "";
	int r = dmmd_spawn(inst, text, sizeof(text));

	if (r == 0) {
		if (inst->again)
			inst->restarts++;
		dmmd_timer_set(&inst->timer, READY_MS);
		dmmd_save(inst->d);
		return;
	}
	if (r == -EBUSY && waited < BUSY_MS) {
		dmmd_timer_set(&inst->timer, BUSY_TRY_MS);
		return;
	}
	snprintf(inst->last_death, sizeof(inst->last_death), "%s", text);
	if ((r == -ENODEV || r == -EADDRINUSE) && !inst->settled) {
		start_again_in(inst, AWAY_MS);
		return;
	}
	died(inst, 0, r);
}

static void begin(struct dmmd_inst *inst, bool again)
{
	inst->life = DMMD_STARTING;
	inst->again = again;
	inst->after = DMMD_AFTER_RESTART;
	inst->begun_at = dmm_now_ns();
	inst->ready_at = 0;
	inst->next_socket = 0;
	memset(inst->given, 0, sizeof(inst->given));
	inst->said[0] = inst->why[0] = '\0';
	try_spawn(inst);
}

static void timer_fired(struct dmmd_timer *timer)
{
	struct dmmd_inst *inst = dmmd_container(timer, struct dmmd_inst, timer);

	switch (inst->life) {
	case DMMD_DEAD:
		begin(inst, true);
		break;
	case DMMD_STARTING:
		if (!inst->pid && inst->channel.fd >= 0) {
			never_came(inst, "no instance came that it started");
			break;
		}
		if (!inst->pid) {
			try_spawn(inst);
			break;
		}
		snprintf(inst->why, sizeof(inst->why), "not ready within %d s", READY_MS / 1000);
		kill_it(inst);
		break;
	case DMMD_ENDING:
		kill_it(inst);
		break;
	default:
		break;
	}
}

void dmmd_inst_start(struct dmmd_inst *inst, const struct dmmd_spec *spec, const char *why,
		     void (*settled)(void *ctx, struct dmmd_inst *inst, int err, const char *text),
		     void *ctx)
{
	settle(inst, -ECANCELED, "started anew by another command");
	inst->settled = settled;
	inst->settled_ctx = ctx;
	inst->backoff.deaths = 0;
	inst->removed = inst->held = false;
	inst->next = *spec;
	dmmd_inst_end(inst, DMMD_AFTER_START, why);
}

void dmmd_inst_end(struct dmmd_inst *inst, enum dmmd_after after, const char *why)
{
	inst->after = after;
	if (after != DMMD_AFTER_START)
		settle(inst, -ECANCELED, why);
	if (!inst->pid) {
		dmmd_source_remove(&inst->d->loop, &inst->channel); /* who comes finds nobody */
		dmmd_timer_set(&inst->timer, 0);
		after_end(inst);
		return;
	}
	if (inst->life == DMMD_ENDING)
		return;
	snprintf(inst->why, sizeof(inst->why), "%s", why);
	if (inst->life == DMMD_STARTING || dmmd_inst_send(inst, DMM_MSG_STOP) < 0)
		kill_it(inst);
	inst->life = DMMD_ENDING;
	dmm_steer_inst_state(inst->d->steer, inst->slot, DMM_INST_DRAINING, inst->pid);
	dmmd_timer_set(&inst->timer, END_MS);
}

void dmmd_inst_drain(struct dmmd_inst *inst, bool remove)
{
	inst->removed = remove;
	if (inst->life != DMMD_READY && inst->life != DMMD_DRAINING) {
		dmmd_inst_end(inst, remove ? DMMD_AFTER_FREE : DMMD_AFTER_STAY, "drained");
		return;
	}
	inst->after = remove ? DMMD_AFTER_FREE : DMMD_AFTER_STAY;
	inst->life = DMMD_DRAINING;
	dmm_steer_inst_state(inst->d->steer, inst->slot, DMM_INST_DRAINING, inst->pid);
	if (dmmd_inst_send(inst, DMM_MSG_DRAIN) < 0)
		dmmd_inst_end(inst, inst->after, "cannot be told to drain");
}

void dmmd_inst_again(struct dmmd_inst *inst)
{
	inst->removed = inst->held = false;
	inst->next = inst->spec;
	inst->after = DMMD_AFTER_START;
}

/* --- making and freeing --- */

int dmmd_inst_new(struct dmmd *d, const struct dmmd_spec *spec, uint32_t slot,
		  struct dmmd_inst **ret)
{
	struct dmmd_inst *inst = calloc(1, sizeof(*inst));
	struct dmm_instance before;
	int r;

	if (!inst)
		return -ENOMEM;
	inst->d = d;
	inst->spec = *spec;
	snprintf(inst->label, sizeof(inst->label), "%s#%u", spec->name, spec->index);
	inst->slot = slot;
	inst->process.fd = inst->channel.fd = -1;
	r = dmmd_timer_init(&d->loop, &inst->timer, timer_fired);
	if (r < 0) {
		free(inst);
		return r;
	}
	if (dmm_view_instance(d->view, slot, &before) == 0)
		inst->incarnation = before.incarnation;
	d->inst[slot] = inst;
	*ret = inst;
	return 0;
}

void dmmd_inst_leave(struct dmmd_inst *inst)
{
	struct dmmd *d = inst->d;

	settle(inst, -ECANCELED, "dmmd is ending");
	dmmd_source_remove(&d->loop, &inst->channel);
	dmmd_source_remove(&d->loop, &inst->process);
	dmmd_timer_exit(&d->loop, &inst->timer);
	d->inst[inst->slot] = NULL;
	free(inst);
}

void dmmd_inst_free(struct dmmd_inst *inst)
{
	char path[PATH_MAX];

	settle(inst, -ECANCELED, "removed");
	let_go_of_interface(inst);
	dmm_steer_inst_state(inst->d->steer, inst->slot, DMM_INST_FREE, 0);
	if (dmmd_inst_control_path(inst, path) == 0)
		unlink(path);
	dmmd_inst_leave(inst);
}

struct dmmd_inst *dmmd_inst_find(struct dmmd *d, const char *name)
{
	for (unsigned int i = 0; i < DMM_MAX_INSTANCES; i++)
		if (d->inst[i] && dmm_streq(d->inst[i]->label, name))
			return d->inst[i];
	return dmmd_inst_find_nth(d, name, 0);
}

struct dmmd_inst *dmmd_inst_find_nth(struct dmmd *d, const char *stack, uint32_t index)
{
	for (unsigned int i = 0; i < DMM_MAX_INSTANCES; i++)
		if (d->inst[i] && d->inst[i]->spec.index == index &&
		    dmm_streq(d->inst[i]->spec.name, stack))
			return d->inst[i];
	return NULL;
}

/* --- upkeep --- */

int dmmd_insts_reserve(struct dmmd *d)
{
	struct dmm_port_range ranges[2 * DMM_MAX_INSTANCES];
	unsigned int n = 0;

	for (unsigned int i = 0; i < DMM_MAX_INSTANCES; i++)
		if (d->inst[i])
			ranges[n++] = d->inst[i]->spec.ports;
	for (unsigned int i = 0; i < d->n_pending_ports; i++)
		ranges[n++] = d->pending_ports[i];
	return dmm_steer_reserve_ports(d->steer, ranges, n);
}

static void check_heartbeat(struct dmmd_inst *inst, uint64_t now)
{
	struct dmm_inst_shared shared;
	uint64_t seen, limit = inst->d->options.dead_after_ms * DMM_NS_PER_MS;

	if (dmm_view_shared(inst->d->view, inst->slot, &shared, false) < 0)
		return; /* it was not asked, so its silence says nothing */
	seen = DMM_MAX(shared.beat_ns, inst->ready_at);
	if (seen >= now || now - seen < limit)
		return;
	snprintf(inst->why, sizeof(inst->why), "no heartbeat for %llu s",
		 (unsigned long long)((now - seen) / DMM_NS_PER_SEC));
	kill_it(inst);
}

/* One that cannot be asked for, as dmmd is out of descriptors, is there. */
static bool hop_is_gone(const struct dmmd_inst *inst)
{
	char name[IF_NAMESIZE];

	return inst->hop.far_index && !if_indextoname(inst->hop.far_index, name) && errno == ENXIO;
}

static bool interface_is_gone(const struct dmmd_inst *inst)
{
	unsigned int ifindex = if_nametoindex(inst->spec.interface);

	return ifindex ? ifindex != inst->iface.ifindex : errno == ENODEV;
}

/* Ends one that lost its interface, hop or XDP hook; one that drains stays ended, another comes back. With
 * somebody else's program at the hook nothing that the peers send gets here any more; new flows follow the
 * rule until the hook is free. */
static bool end_without_way(struct dmmd *d, struct dmmd_inst *inst)
{
	char why[2 * IF_NAMESIZE + 32];

	if (interface_is_gone(inst)) {
		snprintf(why, sizeof(why), "interface %s is gone", inst->spec.interface);
	} else if (hop_is_gone(inst)) {
		snprintf(why, sizeof(why), "its hop to interface %s is gone", inst->spec.interface);
	} else if (inst->attached && !dmm_steer_has_interface(d->steer, inst->iface.ifindex)) {
		snprintf(why, sizeof(why), "the XDP hook of %s was taken away",
			 inst->spec.interface);
		inst->attached = false;
	} else {
		return false;
	}
	dmm_warning("%s: %s", inst->label, why);
	dmmd_inst_end(inst, inst->life == DMMD_DRAINING ? inst->after : DMMD_AFTER_RESTART, why);
	return true;
}

void dmmd_insts_tick(struct dmmd *d)
{
	static uint64_t last;
	uint64_t now = dmm_now_ns();
	/* if we did not run ourselves, nobody may have: give them a turn first */
	bool late = now - (last ? last : d->started_mono) > 3 * DMM_NS_PER_SEC;

	last = now;
	for (unsigned int i = 0; i < DMM_MAX_INSTANCES; i++) {
		struct dmmd_inst *inst = d->inst[i];

		if (!inst || (inst->life != DMMD_READY && inst->life != DMMD_DRAINING))
			continue;
		if (!end_without_way(d, inst) && !late)
			check_heartbeat(inst, now);
	}
}
