/* SPDX-License-Identifier: Apache-2.0 */
/* The doctor starts steering as dmmd does: every map and program of this build (socket storage, ring
 * buffers, maps of maps, sockops ...), the filter on lo, the links of a cgroup and of an interface. In
 * a network namespace and on a BPF file system that end with the child they are made in, and a
 * cgroup that is removed. */
#define _GNU_SOURCE
#include "doctor.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/mountinfo.h"
#include "policy/policy.h"
#include "steer/steer.h"

#define BPFFS	 "/sys/fs/bpf" /* a folder for it is there wherever the kernel knows BPF */
#define STALE_MS 2000
#define LOOPBACK 1 /* the index of lo, in every namespace */

struct outcome {
	int err;
	char step[64], reason[512], hint[256];
};

/* --- the steps, in the child --- */

struct rig {
	char cgroup[PATH_MAX + 64];
	struct dmm_steer *steer;
};

static int make_place(struct rig *rig)
{
	(void)rig;
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("bpf", BPFFS, "bpf", 0, "mode=0700") < 0)
		return -errno;
	return 0;
}

static int open_steer(struct rig *rig)
{
	const struct dmm_steer_options options = { .bpffs = BPFFS "/doctor",
						   .cgroup_root = rig->cgroup,
						   .stale_ms = STALE_MS };

	return dmm_steer_open(&options, &rig->steer);
}

static int attach_cgroup(struct rig *rig)
{
	return dmm_steer_attach_cgroup(rig->steer, "/", NULL);
}

static int attach_interface(struct rig *rig)
{
	struct dmm_xdp_got got;

	return dmm_steer_attach_interface(rig->steer, LOOPBACK, DMM_XDP_GENERIC, &got);
}

static int begin_instance(struct rig *rig)
{
	const struct dmm_instance inst = { .incarnation = 1, .name = "doctor#0" };
	struct dmm_inst_fds fds;

	return dmm_steer_inst_begin(rig->steer, 0, &inst, &fds);
}

/* The first line says what failed, the last what to do or what the kernel said last. */
static void take_reason(const char *reason, struct outcome *outcome)
{
	const char *last = strrchr(reason, '\n');

	snprintf(outcome->reason, sizeof(outcome->reason), "%.*s", (int)strcspn(reason, "\n"),
		 reason);
	snprintf(outcome->hint, sizeof(outcome->hint), "%s", last ? last + 1 : "");
}

static void run_steps(void *ctx, void *ret)
{
	static const struct {
		const char *what;
		int (*run)(struct rig *rig);
	} steps[] = {
		{ "making a network and a mount namespace", make_place },
		{ "starting", open_steer },
		{ "attaching to a cgroup", attach_cgroup },
		{ "attaching to an interface", attach_interface },
		{ "making an instance's maps", begin_instance },
	};
	struct outcome *outcome = ret;

	for (unsigned int i = 0; i < DMM_ARRAY_SIZE(steps) && outcome->err == 0; i++) {
		outcome->err = steps[i].run(ctx);
		snprintf(outcome->step, sizeof(outcome->step), "%s", steps[i].what);
	}
	take_reason(dmm_steer_reason(), outcome);
}

/* --- */

static int make_cgroup(struct rig *rig)
{
	char mount[PATH_MAX];
	int r = dmm_mount_find("cgroup2", mount, sizeof(mount));

	if (r < 0)
		return r;
	snprintf(rig->cgroup, sizeof(rig->cgroup), "%s/dmm-doctor-steer-%d", mount, getpid());
	return mkdir(rig->cgroup, 0755) < 0 ? -errno : 0;
}

void doctor_steer(struct doctor *doctor)
{
	static const char check[] = "all programs load and attach";
	struct outcome outcome = { 0 };
	struct rig rig = { 0 };
	int r = make_cgroup(&rig);

	if (r == 0) {
		r = run_in_child(run_steps, &rig, &outcome, sizeof(outcome));
		rmdir(rig.cgroup);
	}
	if (r < 0)
		diagnose(doctor, HEALTH_ERROR, check, NULL, "the trial itself: %s", strerror(-r));
	else if (outcome.err < 0)
		diagnose(doctor, HEALTH_ERROR, check, outcome.hint, "%s: %s", outcome.step,
			 *outcome.reason ? outcome.reason : strerror(-outcome.err));
	else
		diagnose(doctor, HEALTH_OK, check, NULL, "as dmmd does it, in a trial place");
}
