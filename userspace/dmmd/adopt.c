/* SPDX-License-Identifier: Apache-2.0 */
/* Adoption: the state file says what should run, pid and start time whether it still does, its control
 * socket whether it is one of ours. Flows notice nothing. */
#include "dmmd/adopt.h"

#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/unixsock.h"
#include "base/util.h"
#include "dmmd/dmmd.h"
#include "dmmd/inst.h"

/* The process, if it still is the one that was meant. */
static int find_process(pid_t pid, uint64_t start_time, int *ret_pidfd)
{
	dmm_autoclose int fd = pid > 0 ? dmmd_pidfd_open(pid) : -ESRCH;
	uint64_t now;

	if (fd < 0)
		return -ESRCH;
	/* with the pidfd held, the pid cannot become somebody else's between these two lines */
	if (dmm_proc_start_time(pid, &now) < 0 || now != start_time)
		return -ESRCH;
	/* dead already, and only not yet reaped by whoever became its parent */
	if (poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 0) > 0)
		return -ESRCH;
	*ret_pidfd = DMM_TAKE_FD(fd);
	return 0;
}

static int greet(struct dmmd_inst *inst, int *ret_fd)
{
	struct dmm_msg hello = { .kind = DMM_MSG_HELLO };
	dmm_autoclose int fd = -1;
	char path[PATH_MAX];
	int r = dmmd_inst_control_path(inst, path);

	if (r == 0)
		r = dmm_unix_connect(path, SOCK_SEQPACKET | SOCK_NONBLOCK, &fd);
	if (r < 0)
		return r;
	if (send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) < 0)
		return -errno;
	*ret_fd = DMM_TAKE_FD(fd);
	return 0;
}

static void look_at_interface(struct dmmd_inst *inst)
{
	struct dmm_instance slot = { 0 };

	if (dmm_view_instance(inst->d->view, inst->slot, &slot) == 0)
		inst->incarnation = DMM_MAX(inst->incarnation, slot.incarnation);
	if (dmmd_iface_query(inst->spec.interface, &inst->iface) < 0 ||
	    inst->iface.ifindex != slot.ifindex) {
		inst->iface.ifindex = slot.ifindex; /* the next tick sees that it is gone */
		return;
	}
	if (dmm_steer_attach_interface(inst->d->steer, inst->iface.ifindex, inst->spec.mode,
				       &inst->got) < 0)
		dmm_warning("%s: %s", inst->spec.interface, dmm_steer_reason());
	else
		inst->attached = true;
	if (inst->spec.index > 0 &&
	    dmm_steer_hop_make(inst->d->steer, inst->slot, inst->iface.ifindex, inst->iface.mtu,
			       &inst->hop) < 0)
		dmm_warning("%s: %s", inst->label, dmm_steer_reason());
}

int dmmd_inst_adopt(struct dmmd_inst *inst, pid_t pid, uint64_t start_time, bool draining)
{
	int pidfd, channel = -1, r = find_process(pid, start_time, &pidfd);

	if (r == 0) {
		if (greet(inst, &channel) < 0)
			dmm_warning("%s (pid %d) does not answer", inst->label, pid);
		r = dmmd_inst_watch(inst, pidfd, channel);
	}
	if (r < 0)
		return r;
	inst->pid = pid;
	inst->start_time = start_time;
	inst->life = draining ? DMMD_DRAINING : DMMD_READY;
	inst->ready_at = dmm_now_ns();
	look_at_interface(inst);
	dmm_info("%s (pid %d) adopted", inst->label, pid);
	return 0;
}

/* Started by a dmmd whose death came before READY: nobody knows how far it got. */
static bool half_started(struct dmmd *d, uint32_t slot)
{
	struct dmm_instance inst;

	return dmm_view_instance(d->view, slot, &inst) < 0 ||
	       (inst.state != DMM_INST_READY && inst.state != DMM_INST_DRAINING);
}

/* The maps are new: a teardown ended it, and there is nothing to complain about. */
static bool torn_down(struct dmmd *d, uint32_t slot)
{
	struct dmm_instance inst;

	return dmm_view_instance(d->view, slot, &inst) < 0 || inst.state == DMM_INST_FREE;
}

static void died_meanwhile(struct dmmd_inst *inst, pid_t pid)
{
	static const char why[] = "died while dmmd was away";

	snprintf(inst->last_death, sizeof(inst->last_death), "%s", why);
	dmm_warning("%s (pid %d) %s", inst->label, pid, why);
	dmm_steer_inst_state(inst->d->steer, inst->slot, DMM_INST_DEAD, 0);
	dmmd_inst_end(inst, DMMD_AFTER_RESTART, why);
}

static int adopt_stack(struct dmmd *d, const struct dmmd_stack_record *record, bool same_boot)
{
	struct dmmd_inst *inst;
	int r = dmmd_inst_new(d, &record->spec, record->slot, &inst);

	if (r < 0)
		return r;
	inst->incarnation = DMM_MAX(inst->incarnation, record->incarnation);
	inst->restarts = record->restarts;
	inst->removed = record->removed;
	inst->zerocopy = record->zerocopy;
	inst->held = record->stopped;
	r = same_boot ? dmmd_inst_adopt(inst, record->pid, record->start_time, record->draining)
		      : -ESRCH;
	if (r == 0 && half_started(d, record->slot))
		dmmd_inst_end(inst, record->removed ? DMMD_AFTER_FREE : DMMD_AFTER_RESTART,
			      "was not ready when dmmd ended");
	else if (r == 0 && record->draining)
		dmmd_inst_drain(inst, record->removed);
	else if (r < 0 && record->removed)
		dmmd_inst_free(inst);
	else if (r < 0 && !record->stopped && same_boot && record->pid &&
		 !torn_down(d, record->slot))
		died_meanwhile(inst, record->pid);
	else if (r < 0)
		dmm_steer_inst_state(d->steer, record->slot, DMM_INST_DEAD, 0);
	return 0;
}

/* An instance that the state file does not know: asked to end by its control socket, which nobody
 * else answers. */
static void dismiss(struct dmmd *d, uint32_t slot, const struct dmm_instance *inst)
{
	struct dmm_msg stop = { .kind = DMM_MSG_STOP };
	dmm_autoclose int fd = -1;
	char path[PATH_MAX];

	dmm_warning("slot %u: unknown instance %.*s stopped", slot, (int)sizeof(inst->name),
		    inst->name);
	if (snprintf(path, sizeof(path), "%s/instances/%.*s.sock", d->options.run_dir,
		     (int)sizeof(inst->name), inst->name) < (int)sizeof(path) &&
	    !strchr(inst->name, '/') &&
	    dmm_unix_connect(path, SOCK_SEQPACKET | SOCK_NONBLOCK, &fd) == 0)
		send(fd, &stop, sizeof(stop), MSG_NOSIGNAL);
	dmm_steer_inst_state(d->steer, slot, DMM_INST_DEAD, 0);
	dmm_steer_inst_state(d->steer, slot, DMM_INST_FREE, 0);
}

static void dismiss_unknown(struct dmmd *d)
{
	struct dmm_instance inst;

	for (uint32_t slot = 0; slot < DMM_MAX_INSTANCES; slot++)
		if (!d->inst[slot] && dmm_view_instance(d->view, slot, &inst) == 0 &&
		    inst.state != DMM_INST_FREE)
			dismiss(d, slot, &inst);
}

static int load(struct dmmd *d)
{
	struct dmm_gen_meta meta;
	int r;

	dmmd_state_init(&d->state);
	r = dmmd_state_load(d->options.state_dir, &d->state);
	if (r == -EBADMSG) {
		dmm_warning(
			"%s/state.json is damaged: set aside as state.json.bad, starting with the "
			"pins alone",
			d->options.state_dir);
		r = dmmd_state_set_aside(d->options.state_dir);
	}
	if (r < 0 && r != -ENOENT)
		return dmm_err(r, "%s/state.json", d->options.state_dir);
	if (dmm_view_meta(d->view, &meta) < 0)
		return 0;
	/* generations never go back, even where the state is lost */
	d->state.generation = DMM_MAX(d->state.generation, meta.generation);
	r = dmmd_state_settle_policy(d->options.state_dir, meta.generation);
	if (r < 0)
		return dmm_err(r, "policies in %s", d->options.state_dir);
	if (r > 0) { /* killed in an apply, after it had gone live */
		free(d->state.policy_file);
		d->state.policy_file = strdup(meta.source);
		d->state.applied_at = meta.applied_at;
	}
	return 0;
}

static void want_cgroups(struct dmmd *d, char *const *paths, size_t n, uint32_t by)
{
	for (size_t i = 0; i < n; i++)
		if (dmmd_cgroups_want(d, paths[i], by, 0) < 0)
			dmm_warning("cgroup %s: %s", paths[i], dmm_steer_reason());
}

int dmmd_adopt(struct dmmd *d)
{
	char boot_id[DMM_BOOT_ID_LEN];
	struct dmmd_stack_record *stacks;
	bool same_boot;
	size_t n;
	int r = load(d);

	if (r == 0)
		r = dmm_proc_boot_id(boot_id);
	if (r < 0)
		return r;
	same_boot = dmm_streq(boot_id, d->state.boot_id);
	memcpy(d->state.boot_id, boot_id, sizeof(boot_id));
	n = d->state.n_stacks; /* saving on the way writes what is adopted so far: read a copy */
	stacks = calloc(n + 1, sizeof(stacks[0]));
	if (!stacks)
		return -ENOMEM;
	memcpy(stacks, d->state.stacks, n * sizeof(stacks[0]));
	for (size_t i = 0; i < n && r == 0; i++)
		r = adopt_stack(d, &stacks[i], same_boot);
	free(stacks);
	if (r < 0)
		return r;
	dismiss_unknown(d);
	want_cgroups(d, d->state.attached, d->state.n_attached, DMMD_BY_HAND);
	want_cgroups(d, d->state.made, d->state.n_made, DMMD_BY_RUN);
	for (size_t i = 0; i < d->state.n_retired && r == 0; i++)
		r = dmmd_cgroups_adopt_retired(d, d->state.retired[i]);
	return r < 0 ? r : dmmd_insts_reserve(d);
}
