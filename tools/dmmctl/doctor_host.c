/* SPDX-License-Identifier: Apache-2.0 */
/* The doctor's look at the kernel and at what is mounted. */
#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/utsname.h>

#include "base/file.h"
#include "base/mountinfo.h"

static void check_kernel(struct doctor *doctor)
{
	unsigned int major = 0, minor = 0;
	struct utsname uts;

	uname(&uts);
	sscanf(uts.release, "%u.%u", &major, &minor);
	if (major < 6 || (major == 6 && minor < 1))
		diagnose(doctor, HEALTH_ERROR, "kernel", "Linux 6.1 or newer is needed", "%s",
			 uts.release);
	else
		diagnose(doctor, HEALTH_OK, "kernel", NULL, "%s (need 6.1)", uts.release);
}

static void check_btf(struct doctor *doctor)
{
	static const char path[] = "/sys/kernel/btf/vmlinux";

	if (access(path, R_OK) == 0)
		diagnose(doctor, HEALTH_OK, "kernel type information", NULL, "%s", path);
	else
		diagnose(doctor, HEALTH_ERROR, "kernel type information",
			 "the kernel must be built with CONFIG_DEBUG_INFO_BTF, and /sys be mounted",
			 "%s: %s", path, strerror(errno));
}

static void check_cgroup2(struct doctor *doctor)
{
	char mount[PATH_MAX];
	int r = dmm_mount_find("cgroup2", mount, sizeof(mount));

	if (r < 0)
		diagnose(doctor, HEALTH_ERROR, "cgroup2", "mount -t cgroup2 none /sys/fs/cgroup",
			 "not mounted");
	else
		diagnose(doctor, HEALTH_OK, "cgroup2", NULL, "%s (%s)", mount,
			 dmm_streq(mount, "/sys/fs/cgroup") ? "unified" : "hybrid");
}

static void check_bpffs(struct doctor *doctor)
{
	char mount[PATH_MAX];

	if (dmm_mount_covering("bpf", doctor->ctl->bpffs, mount, sizeof(mount)) == 0)
		diagnose(doctor, HEALTH_OK, "BPF file system", NULL, "%s", mount);
	else
		diagnose(doctor, HEALTH_LIMIT, "BPF file system",
			 "dmmd mounts one on /sys/fs/bpf; or: mount -t bpf bpf /sys/fs/bpf",
			 "none at %s", doctor->ctl->bpffs);
}

/* The ranges of the instances' ports are entered here. Writing what was read could undo what somebody
 * else writes meanwhile: opening it for writing must do. */
static void check_reserved_ports(struct doctor *doctor)
{
	static const char path[] = "/proc/sys/net/ipv4/ip_local_reserved_ports";
	dmm_autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		diagnose(doctor, HEALTH_ERROR, "reserved ports",
			 "a container may need /proc/sys writable", "%s: %s", path,
			 strerror(errno));
	else
		diagnose(doctor, HEALTH_OK, "reserved ports", NULL,
			 "ip_local_reserved_ports is writable");
}

static void check_congestion(struct doctor *doctor)
{
	dmm_autofree char *text = NULL;

	if (dmm_file_read("/proc/sys/net/ipv4/tcp_congestion_control", 64, &text, NULL) == 0)
		diagnose(doctor, HEALTH_OK, "kernel congestion control", NULL, "%.*s",
			 (int)strcspn(text, "\n"), text);
}

void doctor_host(struct doctor *doctor)
{
	check_kernel(doctor);
	check_btf(doctor);
	check_cgroup2(doctor);
	check_bpffs(doctor);
	check_reserved_ports(doctor);
	check_congestion(doctor);
}
