/* SPDX-License-Identifier: Apache-2.0 */
/* Capabilities. The unit file has the same list (test_dmmd.py sees to that). */
#include "dmmd/caps.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "base/util.h"

static const int kept[] = {
	CAP_BPF,	     /* loads the BPF programs and maps */
	CAP_PERFMON,	     /* the programs follow pointers of the kernel's */
	CAP_NET_ADMIN,	     /* attaches to cgroups, interfaces and lo; reserves ports */
	CAP_NET_RAW,	     /* opens AF_XDP and raw sockets for the instances */
	CAP_IPC_LOCK,	     /* memory of AF_XDP is locked */
	CAP_SYS_ADMIN,	     /* enters network namespaces; gives instances an empty root */
	CAP_SETUID,	     /* instances become the user dmm */
	CAP_SETGID,	     /* instances become the group dmm */
	CAP_SETPCAP,	     /* instances give up what they could get back */
	CAP_KILL,	     /* ends instances, which run as another user */
	CAP_DAC_READ_SEARCH, /* SIGHUP reads a policy wherever it lies */
};

static uint64_t wanted(void)
{
	uint64_t mask = 0;

	for (size_t i = 0; i < DMM_ARRAY_SIZE(kept); i++)
		mask |= 1ull << kept[i];
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
	uint64_t keep = wanted();
	int r;

	(void)d;
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
