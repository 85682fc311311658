/* SPDX-License-Identifier: Apache-2.0 */
/* Giving up privileges. */
#define _GNU_SOURCE /* setresuid() */
#include "instance/privs.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What sandbox_empty_root() needs. */
#define IN_RESERVE (1u << CAP_SYS_CHROOT)

/* Nothing that is executed later could get them back. A root without CAP_SETPCAP may not; then
 * no_new_privs alone sees to that. */
static int drop_bounding_set(void)
{
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return errno == EPERM ? 0 : -errno;
	return 0;
}

/* Of what it has now it keeps @reserve, of that in effect @effective. */
static int set_capabilities(uint32_t reserve, uint32_t effective)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &header, sets) < 0)
		return -errno;
	sets[0] = (struct __user_cap_data_struct){ sets[0].permitted & effective,
						   sets[0].permitted & reserve, 0 };
	sets[1] = (struct __user_cap_data_struct){ 0 };
	return syscall(SYS_capset, &header, sets) < 0 ? -errno : 0;
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

int privs_lower(uid_t uid, gid_t gid)
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
	if (uid && (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || setresuid(uid, uid, uid) < 0))
		return -errno;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return -errno;
	r = set_capabilities(IN_RESERVE, 0);
	if (r < 0)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

int privs_raise(void)
{
	return set_capabilities(IN_RESERVE, IN_RESERVE);
}

int privs_drop(void)
{
	return set_capabilities(0, 0);
}
