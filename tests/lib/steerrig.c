/* SPDX-License-Identifier: Apache-2.0 */
/* Makes and removes the place, and does the small things that all tests of steer need. */
#define _GNU_SOURCE
#include "steerrig.h"

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <cmocka.h>

#include "base/mountinfo.h"
#include "base/util.h"

static char root[256];

/* --- the place --- */

static void remove_cgroups(const char *path)
{
	char command[512];

	snprintf(command, sizeof(command), "find %s -depth -type d -exec rmdir {} + 2>/dev/null",
		 path);
	if (system(command) != 0)
		fprintf(stderr, "cgroup %s stays behind\n", path);
}

static int enter_place(void)
{
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL) < 0) {
		perror("cannot make a place for the test");
		return -1;
	}
	return system("ip link set lo up");
}

static pid_t running;

static void pass_on(int number)
{
	kill(running, number);
}

int steerrig_main(int (*run)(void))
{
	char mounted[200];
	int status = 0;

	if (dmm_mount_find("cgroup2", mounted, sizeof(mounted)) < 0) {
		fprintf(stderr, "no cgroup2 is mounted\n");
		return 1;
	}
	snprintf(root, sizeof(root), "%s/dmm-test-%d", mounted, getpid());
	if (mkdir(root, 0755) < 0) {
		perror(root);
		return 1;
	}
	running = fork();
	if (running == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		exit(enter_place() == 0 ? run() : 1);
	}
	signal(SIGTERM, pass_on);
	signal(SIGINT, pass_on);
	while (waitpid(running, &status, 0) < 0 && errno == EINTR)
		;
	remove_cgroups(root);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

const char *steerrig_cgroup_root(void)
{
	return root;
}

void steerrig_mkdir(const char *cgroup)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", root, cgroup);
	assert_int_equal(mkdir(path, 0755), 0);
}

void steerrig_rmdir(const char *cgroup)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", root, cgroup);
	assert_int_equal(rmdir(path), 0);
}

int steerrig_try_open(struct dmm_steer **ret)
{
	struct dmm_steer_options options = {
		.bpffs = RIG_BPFFS,
		.cgroup_root = root,
		.stale_ms = 2000,
	};

	return dmm_steer_open(&options, ret);
}

struct dmm_steer *steerrig_open(void)
{
	struct dmm_steer *steer = NULL;
	int r = steerrig_try_open(&steer);

	if (r < 0)
		fail_msg("open: %s (%s)", dmm_steer_reason(), strerror(-r));
	return steer;
}

int steerrig_repair(struct dmm_steer *steer)
{
	unsigned int changed;
	int r = dmm_steer_repair(steer, &changed);

	return r < 0 ? r : (int)changed;
}

/* --- shell --- */

bool steerrig_sh_ok(const char *format, ...)
{
	char command[1024];
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(command, sizeof(command) - 32, format, ap);
	va_end(ap);
	snprintf(command + n, sizeof(command) - n, " >/dev/null 2>&1");
	return system(command) == 0;
}

void steerrig_sh(const char *format, ...)
{
	char command[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(command, sizeof(command), format, ap);
	va_end(ap);
	if (system(command) != 0)
		fail_msg("%s", command);
}

void steerrig_sh_line(char *ret, size_t size, const char *format, ...)
{
	char command[1024];
	va_list ap;
	FILE *f;

	va_start(ap, format);
	vsnprintf(command, sizeof(command), format, ap);
	va_end(ap);
	f = popen(command, "re");
	assert_non_null(f);
	if (!fgets(ret, size, f))
		ret[0] = '\0';
	if (pclose(f) != 0)
		ret[0] = '\0';
}

/* --- pins --- */

int steerrig_pin(const char *name)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), RIG_BPFFS "/%s", name);
	fd = bpf_obj_get(path);
	if (fd < 0)
		fail_msg("%s: %s", path, strerror(-fd));
	return fd;
}

bool steerrig_has_pin(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), RIG_BPFFS "/%s", name);
	return access(path, F_OK) == 0;
}

uint32_t steerrig_link_prog(const char *name)
{
	dmm_autoclose int fd = steerrig_pin(name);
	struct bpf_link_info info = {};
	__u32 len = sizeof(info);

	assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &len), 0);
	return info.prog_id;
}

int steerrig_tiny_prog(int type, int attach_type, const char *name, int verdict)
{
	struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = verdict },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = attach_type);
	int fd = bpf_prog_load(type, name, "GPL", code, DMM_ARRAY_SIZE(code), &opts);

	if (fd < 0)
		fail_msg("tiny program: %s", strerror(-fd));
	return fd;
}

/* --- tables --- */

static void *blocks(struct dmm_tables *t, enum dmm_table table)
{
	t->n_blocks[table] = 1;
	t->blocks[table] = calloc(1, DMM_BLOCK);
	assert_non_null(t->blocks[table]);
	return t->blocks[table];
}

static void name_rule(struct dmm_rule *rule, const char *name, enum dmm_action action)
{
	snprintf(rule->name, sizeof(rule->name), "%s", name);
	rule->action = action;
}

void steerrig_make_tables(struct dmm_tables *ret, uint32_t generation, enum dmm_action action,
			  uint32_t instance)
{
	struct dmm_roots_block *roots = blocks(ret, DMM_TABLE_ROOTS);
	struct dmm_runs_block *runs = blocks(ret, DMM_TABLE_RUNS);
	struct dmm_rules_block *rules = blocks(ret, DMM_TABLE_RULES);
	struct dmm_gen_meta *meta = blocks(ret, DMM_TABLE_META);
	unsigned int i;

	blocks(ret, DMM_TABLE_NODES);
	for (i = 0; i < DMM_ROOTS_PER_CLASS; i++)
		roots->ref[i] = DMM_REF_LEAF | 0;
	runs->run[0] = (struct dmm_run){ .first = 3 };
	runs->run[1] = (struct dmm_run){ .first = 0, .rule = 1 };
	runs->run[2] = (struct dmm_run){ .first = 1000, .rule = 0 };
	runs->run[3] = (struct dmm_run){ .first = 2000, .rule = 1 };
	name_rule(&rules->rule[0], "thousands", action);
	rules->rule[0].instance = instance;
	name_rule(&rules->rule[1], "default", DMM_ACTION_KERNEL);
	meta->generation = generation;
	meta->n_rules = 1;
	meta->n_classes = 1;
	meta->n_runs = 4;
	meta->n_roots = DMM_ROOTS_PER_CLASS;
	snprintf(meta->policy, sizeof(meta->policy), "by-hand-%u", generation);
}

void steerrig_free_tables(struct dmm_tables *tables)
{
	unsigned int i;

	for (i = 0; i < DMM_NUM_TABLES; i++)
		free(tables->blocks[i]);
	memset(tables, 0, sizeof(*tables));
}
