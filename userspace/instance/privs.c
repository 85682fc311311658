/* SPDX-License-Identifier: Apache-2.0 */
/* Giving up privileges. */
#define _GNU_SOURCE /* setresuid() */
#include "instance/privs.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Nothing that is executed later could get them back. A root without CAP_SETPCAP may not; then
 * no_new_privs alone sees to that. */
static int drop_bounding_set(void)
{
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return errno == EPERM ? 0 : -errno;
	return 0;
}

static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
	    syscall(SYS_capset, &header, none) < 0)
		return -errno;
	return 0;
}

static int set_limits(void)
{
	struct rlimit none = { 0 }, files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return -errno;
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0 || setrlimit(RLIMIT_CORE, &none) < 0)
		return -errno;
	return 0;
}

int privs_drop(uid_t uid, gid_t gid)
{
	int r = set_limits();

	if (r == 0)
		r = drop_bounding_set();
	if (r < 0)
		return r;
	/* only root has groups it could and must shed */
	if (uid && geteuid() == 0 && setgroups(0, NULL) < 0)
		return -errno;
	if (gid && setresgid(gid, gid, gid) < 0)
		return -errno;
	if (uid && setresuid(uid, uid, uid) < 0)
		return -errno;
	r = drop_capabilities();
	if (r < 0)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	return 0;
}
