/* SPDX-License-Identifier: Apache-2.0 */
/* Raw sockets confined to loopback. SO_BINDTODEVICE alone does not do that: an IP_PKTINFO that comes
 * with a packet overrules it. So they are made in a cgroup of their own whose egress program passes
 * nothing else. The cgroup is removed at once: its sockets keep it, and the program on it, alive. */
#define _GNU_SOURCE
#include "dmmd/rawsock.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/file.h"
#include "base/util.h"
#include "dmmd/dmmd.h"

#define LOOPBACK_IFINDEX 1 /* in every network namespace */
#define CHILD_STACK	 (64 * 1024)

/* return skb->ifindex == LOOPBACK_IFINDEX; */
static int load_program(void)
{
	static const struct bpf_insn insns[] = {
		{ .code = BPF_LDX | BPF_MEM | BPF_W,
		  .dst_reg = BPF_REG_1,
		  .src_reg = BPF_REG_1,
		  .off = offsetof(struct __sk_buff, ifindex) },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 1 },
		{ .code = BPF_JMP | BPF_JEQ | BPF_K,
		  .dst_reg = BPF_REG_1,
		  .off = 1,
		  .imm = LOOPBACK_IFINDEX },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_CGROUP_INET_EGRESS);

	return bpf_prog_load(BPF_PROG_TYPE_CGROUP_SKB, "dmm_raw_lo", "Dual BSD/GPL", insns,
			     DMM_ARRAY_SIZE(insns), &opts);
}

static int set_on(int fd, int level, int name)
{
	int one = 1;

	return setsockopt(fd, level, name, &one, sizeof(one)) < 0 ? -errno : 0;
}

static int open_one(int family, int *ret_fd)
{
	dmm_autoclose int fd = socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW);
	int r;

	if (fd < 0)
		return -errno;
	r = family == AF_INET ? set_on(fd, IPPROTO_IP, IP_HDRINCL)
			      : set_on(fd, IPPROTO_IPV6, IPV6_HDRINCL);
	if (r == 0 && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) < 0)
		r = -errno;
	if (r == 0)
		*ret_fd = DMM_TAKE_FD(fd);
	return r;
}

/* --- in a cgroup --- */

struct job {
	char cgroup[PATH_MAX], procs[PATH_MAX + 16];
	int fds[DMM_NUM_FAMILIES];
	int r;
};

/* A socket belongs to the cgroup of who makes it, so a child goes there; it shares our memory and our
 * descriptors, and we wait. */
static int in_child(void *arg)
{
	struct job *job = arg;

	job->r = dmm_file_put(job->procs, "0");
	if (job->r == 0)
		job->r = open_one(AF_INET, &job->fds[DMM_FAMILY_V4]);
	if (job->r == 0)
		job->r = open_one(AF_INET6, &job->fds[DMM_FAMILY_V6]);
	if (job->r == -EAFNOSUPPORT && job->fds[DMM_FAMILY_V4] >= 0)
		job->r = 0;
	return 0;
}

static int run_child(struct job *job)
{
	char stack[CHILD_STACK] __attribute__((aligned(16)));
	pid_t pid = clone(in_child, stack + sizeof(stack),
			  CLONE_VM | CLONE_FILES | CLONE_VFORK | SIGCHLD, job);

	if (pid < 0)
		return -errno;
	return waitpid(pid, NULL, 0) < 0 ? -errno : job->r;
}

static int open_in(struct job *job)
{
	dmm_autoclose int cgroup = open(job->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dmm_autoclose int prog = -1;
	int r;

	if (cgroup < 0)
		return -errno;
	prog = load_program();
	if (prog < 0)
		return prog;
	/* no link: that would take the program away when it is closed */
	r = bpf_prog_attach(prog, cgroup, BPF_CGROUP_INET_EGRESS, BPF_F_ALLOW_MULTI);
	return r < 0 ? r : run_child(job);
}

static int make_cgroup(struct dmmd *d, char ret[static PATH_MAX])
{
	char path[PATH_MAX];
	int r;

	if (snprintf(path, sizeof(path), "%s/.dmm-raw-%d", d->options.run_cgroup, (int)getpid()) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	r = dmmd_cgroup_full(d, path, ret);
	if (r < 0)
		return r;
	return mkdir(ret, 0755) == 0 || errno == EEXIST ? 0 : -errno;
}

int dmmd_raw_open(struct dmmd *d, int ret_fds[static DMM_NUM_FAMILIES])
{
	struct job job = { .fds = { -1, -1 }, .r = -ECHILD };
	int r = make_cgroup(d, job.cgroup);

	if (r < 0)
		return r;
	snprintf(job.procs, sizeof(job.procs), "%s/cgroup.procs", job.cgroup);
	r = open_in(&job);
	if (rmdir(job.cgroup) < 0 && r == 0)
		r = -errno;
	for (int i = 0; i < DMM_NUM_FAMILIES; i++) {
		if (r == 0)
			ret_fds[i] = job.fds[i];
		else if (job.fds[i] >= 0)
			close(job.fds[i]);
	}
	return r;
}
