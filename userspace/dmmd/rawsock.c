/* SPDX-License-Identifier: Apache-2.0 */
/* Raw sockets confined to loopback. SO_BINDTODEVICE alone does not do that: an IP_PKTINFO that comes
 * with a packet overrules it. So the egress program of their cgroup passes nothing else. */
#include "dmmd/rawsock.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

#include "base/util.h"
#include "dmmd/confine.h"

#define LOOPBACK_IFINDEX 1 /* in every network namespace */

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

static int attach(void *ctx, int cgroup_fd)
{
	dmm_autoclose int prog = load_program();

	(void)ctx;
	if (prog < 0)
		return prog;
	/* no link: that would take the program away when it is closed */
	return bpf_prog_attach(prog, cgroup_fd, BPF_CGROUP_INET_EGRESS, BPF_F_ALLOW_MULTI);
}

static int make(void *ctx)
{
	int *fds = ctx, r = open_one(AF_INET, &fds[DMM_FAMILY_V4]);

	if (r == 0)
		r = open_one(AF_INET6, &fds[DMM_FAMILY_V6]);
	return r == -EAFNOSUPPORT && fds[DMM_FAMILY_V4] >= 0 ? 0 : r;
}

int dmmd_raw_open(struct dmmd *d, int ret_fds[static DMM_NUM_FAMILIES])
{
	int fds[DMM_NUM_FAMILIES] = { -1, -1 };
	int r = dmmd_confined(d, attach, make, fds);

	for (int i = 0; i < DMM_NUM_FAMILIES; i++) {
		if (r == 0)
			ret_fds[i] = fds[i];
		else if (fds[i] >= 0)
			close(fds[i]);
	}
	return r;
}
