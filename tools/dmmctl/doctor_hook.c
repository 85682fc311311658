/* SPDX-License-Identifier: Apache-2.0 */
/* The doctor's cgroup program: a connect4 hook that counts, in a cgroup made for it, seen firing. */
#include "doctor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <bpf/bpf.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mountinfo.h"

#define ROUNDS 20
#define CALLS  200

struct rig {
	char cgroup[PATH_MAX + 64];
	int cgroup_fd, map_fd, prog_fd, link_fd;
};

/* counter[0]++; allow */
static int load_hook(int map_fd, char *log, size_t log_size)
{
	const struct bpf_insn insns[] = {
		INSN(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -4, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, BPF_REG_10, 0, 0),
		INSN(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, -4),
		LOAD_MAP(BPF_REG_1, map_fd),
		CALL(BPF_FUNC_map_lookup_elem),
		INSN(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_0, 0, 2, 0),
		MOV_IMM(BPF_REG_1, 1),
		INSN(BPF_STX | BPF_ATOMIC | BPF_DW, BPF_REG_0, BPF_REG_1, 0, BPF_ADD),
		MOV_IMM(BPF_REG_0, 1),
		END(),
	};

	return load_program(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT, insns,
			    DMM_ARRAY_SIZE(insns), log, log_size);
}

/* A datagram socket's connect() passes the hook and sends nothing. */
static uint64_t time_connects(int fd)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
				   .sin_port = htons(9),
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	uint64_t start = dmm_now_ns();

	for (int i = 0; i < CALLS; i++)
		(void)!connect(fd, (struct sockaddr *)&sin, sizeof(sin));
	return (dmm_now_ns() - start) / CALLS;
}

struct times {
	int err;
	uint64_t without, with; /* ns per call, of the best round */
};

static void run_connects(void *ctx, void *ret)
{
	const struct rig *rig = ctx;
	struct times *times = ret;
	char procs[sizeof(rig->cgroup) + 16];
	int outside, inside;

	outside = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", rig->cgroup);
	times->err = dmm_file_put(procs, "0");
	inside =
		socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* hooks go by the socket's cgroup */
	times->without = times->with = UINT64_MAX;
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t without = time_connects(outside), with = time_connects(inside);

		times->without = DMM_MIN(times->without, without);
		times->with = DMM_MIN(times->with, with);
	}
}

static int count_of(const struct rig *rig, uint64_t *ret)
{
	uint32_t key = 0;

	return bpf_map_lookup_elem(rig->map_fd, &key, ret) < 0 ? -errno : 0;
}

static void close_rig(struct rig *rig)
{
	const int fds[] = { rig->link_fd, rig->prog_fd, rig->map_fd, rig->cgroup_fd };

	for (unsigned int i = 0; i < DMM_ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (rig->cgroup[0])
		rmdir(rig->cgroup);
}

/* The name of the step that failed, NULL when the hook is attached. */
static const char *open_rig(struct rig *rig, int *ret_err, char *log, size_t log_size)
{
	char mount[PATH_MAX];

	*rig = (struct rig){ .cgroup_fd = -1, .map_fd = -1, .prog_fd = -1, .link_fd = -1 };
	*ret_err = dmm_mount_find("cgroup2", mount, sizeof(mount));
	if (*ret_err < 0)
		return "finding cgroup2";
	snprintf(rig->cgroup, sizeof(rig->cgroup), "%s/dmm-doctor-%d", mount, getpid());
	if (mkdir(rig->cgroup, 0755) < 0) {
		*ret_err = -errno;
		rig->cgroup[0] = '\0';
		return "making a cgroup";
	}
	rig->cgroup_fd = open(rig->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rig->map_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "dmm_doctor", 4, 8, 1, NULL);
	if (rig->cgroup_fd < 0 || rig->map_fd < 0) {
		*ret_err = -errno;
		return "making a BPF map";
	}
	rig->prog_fd = load_hook(rig->map_fd, log, log_size);
	if (rig->prog_fd < 0) {
		*ret_err = rig->prog_fd;
		return "loading a connect4 program";
	}
	rig->link_fd =
		bpf_link_create(rig->prog_fd, rig->cgroup_fd, BPF_CGROUP_INET4_CONNECT, NULL);
	*ret_err = -errno;
	return rig->link_fd < 0 ? "attaching it to a cgroup" : NULL;
}

void doctor_hook(struct doctor *doctor)
{
	static const char check[] = "connect4 hook fires in a test cgroup";
	struct times times = { 0 };
	uint64_t count = 0;
	char log[256] = "";
	struct rig rig;
	int r;
	const char *step = open_rig(&rig, &r, log, sizeof(log));

	if (!step) {
		step = "connecting in it";
		r = run_in_child(run_connects, &rig, &times, sizeof(times));
		if (r == 0)
			r = times.err;
		if (r == 0)
			r = count_of(&rig, &count);
		if (r == 0)
			step = NULL;
	}
	close_rig(&rig);
	if (step)
		diagnose(doctor, HEALTH_ERROR, check, "root needs CAP_BPF and CAP_NET_ADMIN here",
			 "%s: %s%s%s", step, strerror(-r), *log ? ": " : "", log);
	else if (count != ROUNDS * CALLS)
		diagnose(doctor, HEALTH_ERROR, check,
			 "is this cgroup2 the one processes live in? see /proc/self/cgroup",
			 "%lu of %d connects seen", count, ROUNDS * CALLS);
	else
		diagnose(doctor, HEALTH_OK, check, NULL, "%lu ns/call",
			 times.with > times.without ? times.with - times.without : 0);
}
