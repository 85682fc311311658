/* SPDX-License-Identifier: Apache-2.0 */
/* Capabilities. The unit file has the same list (test_dmmd.py sees to that). */
#include "dmmd/caps.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "base/util.h"

static const int kept[] = {
	CAP_BPF,	     /* loads the BPF programs and maps */
	CAP_PERFMON,	     /* the programs follow pointers of the kernel's */
	CAP_NET_ADMIN,	     /* attaches to cgroups, interfaces and lo; reserves ports */
	CAP_NET_RAW,	     /* opens AF_XDP and raw sockets for the instances */
	CAP_SYS_ADMIN,	     /* opens maps by their id; enters network namespaces */
	CAP_KILL,	     /* ends instances, which run as another user */
	CAP_DAC_READ_SEARCH, /* opens cgroups by their id; SIGHUP reads a policy wherever it lies */
};

/* More where it forks its instances itself: then it was started by hand. With --stack-socket there is a
 * unit that does the same in other ways. */
static const int for_forks[] = {
	CAP_SETUID,	  /* instances become the user dmm */
	CAP_SETGID,	  /* and its group; the control socket is made as that of --group */
	CAP_SETPCAP,	  /* instances give up what they could get back */
	CAP_SYS_CHROOT,	  /* instances have an empty root */
	CAP_DAC_OVERRIDE, /* makes cgroups in the root's folder, which is nobody's to write */
};

static uint64_t set_of(const int *caps, size_t n)
{
	uint64_t mask = 0;

	for (size_t i = 0; i < n; i++)
		mask |= 1ull << caps[i];
	return mask;
}

static uint64_t wanted(const struct dmmd_options *o)
{
	uint64_t mask = set_of(kept, DMM_ARRAY_SIZE(kept));
	struct rlimit locked;

	if (!o->stack_socket)
		mask |= set_of(for_forks, DMM_ARRAY_SIZE(for_forks));
	/* AF_XDP locks memory; a unit has LimitMEMLOCK=infinity */
	if (getrlimit(RLIMIT_MEMLOCK, &locked) < 0 || locked.rlim_cur != RLIM_INFINITY)
		mask |= 1ull << CAP_IPC_LOCK;
	return mask;
}

static int drop_others_from_bounding_set(uint64_t keep)
{
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (!(keep & 1ull << cap) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return -errno;
	return 0;
}

int dmmd_caps_init(struct dmmd *d)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
	uint64_t keep = wanted(&d->options);
	int r;

	if (syscall(SYS_capget, &header, sets) < 0)
		return dmm_err(-errno, "capabilities");
	/* a root without CAP_SETPCAP keeps its bounding set: what it has not it cannot give */
	r = drop_others_from_bounding_set(keep);
	if (r < 0 && r != -EPERM)
		return dmm_err(r, "capabilities");
	for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		sets[i].permitted &= (uint32_t)(keep >> (32 * i));
		sets[i].effective = sets[i].permitted;
		sets[i].inheritable = 0;
	}
	if (syscall(SYS_capset, &header, sets) < 0)
		return dmm_err(-errno, "capabilities");
	return 0;
}
