/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, adopting, attaching, repairing and tearing down, with real programs in a real kernel. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cmocka.h>

#include "base/util.h"
#include "steerrig.h"

#define LO_FILTER "tc filter show dev lo egress | grep -q dmm_lo"
#define CLSACT	  "tc qdisc show dev lo | grep -q clsact"

static int nothing_left(void **state)
{
	(void)state;
	if (dmm_steer_teardown(RIG_BPFFS, NULL, NULL) < 0)
		fprintf(stderr, "teardown: %s\n", dmm_steer_reason());
	return access(RIG_BPFFS, F_OK) == 0;
}

static void assert_torn_down(void)
{
	assert_int_not_equal(access(RIG_BPFFS, F_OK), 0);
	assert_false(steerrig_sh_ok(LO_FILTER));
	assert_false(steerrig_sh_ok(CLSACT));
}

static const char *link_of(uint64_t id, const char *hook)
{
	static char name[128];

	snprintf(name, sizeof(name), "links/cgroup-%lu-%s", (unsigned long)id, hook);
	return name;
}

static uint32_t pinned_prog(const char *name)
{
	dmm_autoclose int fd = steerrig_pin(name);
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &len), 0);
	return info.id;
}

static void assert_reason(const char *part)
{
	if (!strstr(dmm_steer_reason(), part))
		fail_msg("'%s' does not say '%s'", dmm_steer_reason(), part);
}

/* --- life --- */

static void close_lets_steering_go_on(void **state)
{
	struct dmm_steer *steer = steerrig_open();
	struct stat st;

	(void)state;
	dmm_steer_close(steer);
	assert_true(steerrig_has_pin("iters/dmm_flows"));
	assert_true(steerrig_has_pin("links/guard-bind4"));
	assert_true(steerrig_sh_ok(LO_FILTER));
	assert_int_equal(stat(RIG_BPFFS, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
}

static void adopts_maps_and_updates_links(void **state)
{
	struct dmm_steer *steer = steerrig_open();
	uint32_t zero = 0, before, after;
	struct dmm_config config;
	dmm_autoclose int map = -1;
	uint64_t id, found;

	(void)state;
	steerrig_mkdir("web");
	assert_int_equal(dmm_steer_attach_cgroup(steer, "/web", &id), 0);
	assert_int_equal(dmm_steer_set_class(steer, id, 5, 7), 0);
	before = steerrig_link_prog(link_of(id, "connect4"));
	dmm_steer_close(steer);

	steer = steerrig_open();
	after = steerrig_link_prog(link_of(id, "connect4"));
	assert_int_not_equal(before, after);
	assert_int_equal(after, pinned_prog("progs/dmm_connect4"));
	assert_int_equal(steerrig_link_prog("links/guard-bind6"), pinned_prog("progs/dmm_bind6"));
	assert_int_equal(dmm_steer_cgroups(steer, &found, 1), 1);
	assert_true(found == id);
	map = steerrig_pin("maps/dmm_config");
	assert_int_equal(bpf_map_lookup_elem(map, &zero, &config), 0);
	assert_int_equal(config.max_level, 7);
	assert_int_equal(config.stale_ms, 2000);
	assert_int_equal(steerrig_repair(steer), 0);
	dmm_steer_close(steer);
	steerrig_rmdir("web");
}

/* The hook for clients that are turned away is there while it is wanted, and where it is wanted. */
static void ingress_comes_and_goes(void **state)
{
	struct dmm_steer *steer = steerrig_open();
	uint64_t old, retired, late;

	(void)state;
	steerrig_mkdir("old");
	steerrig_mkdir("retired");
	steerrig_mkdir("late");
	assert_int_equal(dmm_steer_attach_cgroup(steer, "old", &old), 0);
	assert_int_equal(dmm_steer_attach_cgroup(steer, "retired", &retired), 0);
	assert_int_equal(dmm_steer_retire_cgroup(steer, "retired"), 0);
	assert_false(steerrig_has_pin(link_of(old, "ingress")));
	assert_int_equal(dmm_steer_turn_away(steer, true), 0);
	assert_int_equal(dmm_steer_attach_cgroup(steer, "late", &late), 0);
	assert_true(steerrig_has_pin(link_of(old, "ingress")));
	assert_true(steerrig_has_pin(link_of(late, "ingress")));
	assert_false(steerrig_has_pin(link_of(retired, "ingress")));
	/* the next process keeps it, and puts it right */
	dmm_steer_close(steer);
	steer = steerrig_open();
	assert_int_equal(steerrig_repair(steer), 0);
	assert_true(steerrig_has_pin(link_of(old, "ingress")));
	assert_int_equal(dmm_steer_retire_cgroup(steer, "late"), 0);
	assert_false(steerrig_has_pin(link_of(late, "ingress")));
	assert_int_equal(dmm_steer_turn_away(steer, false), 0);
	assert_false(steerrig_has_pin(link_of(old, "ingress")));
	assert_int_equal(steerrig_repair(steer), 0);
	assert_true(steerrig_has_pin(link_of(old, "connect4")));
	dmm_steer_close(steer);
	assert_int_equal(dmm_steer_teardown(RIG_BPFFS, NULL, NULL), 0);
	steerrig_rmdir("old");
	steerrig_rmdir("retired");
	steerrig_rmdir("late");
}

static void teardown_leaves_nothing(void **state)
{
	struct dmm_steer *steer = steerrig_open();
	unsigned int links, maps;

	(void)state;
	steerrig_mkdir("web");
	assert_int_equal(dmm_steer_attach_cgroup(steer, "web", NULL), 0);
	dmm_steer_close(steer);
	assert_int_equal(dmm_steer_teardown(RIG_BPFFS, &links, &maps), 0);
	assert_int_equal(links, 8 + 2);
	assert_true(maps > 15);
	assert_torn_down();
	assert_int_equal(dmm_steer_teardown(RIG_BPFFS, &links, &maps), 0);
	assert_int_equal(links, 0);
	steerrig_rmdir("web");
}

static void teardown_under_a_running_dmmd(void **state)
{
	struct dmm_steer *steer = steerrig_open();
	dmm_autoclose int link = -1;
	struct bpf_link_info info = {};
	__u32 len = sizeof(info);
	uint64_t id;

	(void)state;
	steerrig_mkdir("web");
	assert_int_equal(dmm_steer_attach_cgroup(steer, "web", &id), 0);
	link = steerrig_pin(link_of(id, "connect4")); /* held: unpinning alone would not do */
	assert_int_equal(dmm_steer_teardown(RIG_BPFFS, NULL, NULL), 0);
	assert_torn_down();
	assert_int_equal(bpf_obj_get_info_by_fd(link, &info, &len), 0);
	assert_int_equal(info.cgroup.cgroup_id, 0);
	assert_int_equal(steerrig_repair(steer), -ESTALE);
	assert_torn_down();
	dmm_steer_close(steer);
	steerrig_rmdir("web");
}

static int in_other_namespace(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(unshare(CLONE_NEWNET) < 0 ? 99 : fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
}

static int teardown_here(void)
{
	return -dmm_steer_teardown(RIG_BPFFS, NULL, NULL);
}

static int open_here(void)
{
	struct dmm_steer *steer;

	return -steerrig_try_open(&steer);
}

static void teardown_from_another_namespace(void **state)
{
	(void)state;
	dmm_steer_close(steerrig_open());
	assert_int_equal(in_other_namespace(teardown_here), 0);
	assert_torn_down();
}

static void pins_of_another_namespace_are_refused(void **state)
{
	(void)state;
	dmm_steer_close(steerrig_open());
	assert_int_equal(in_other_namespace(open_here), ESTALE);
	assert_true(steerrig_sh_ok(LO_FILTER));
}

/* --- refusals --- */

static void second_open_is_refused(void **state)
{
	struct dmm_steer *steer = steerrig_open(), *second;

	(void)state;
	assert_int_equal(steerrig_try_open(&second), -EBUSY);
	assert_reason("another dmmd");
	assert_int_equal(steerrig_repair(steer), 0);
	dmm_steer_close(steer);
}

static void set_layout(uint32_t layout)
{
	dmm_autoclose int map = steerrig_pin("maps/dmm_config");
	struct dmm_config config;
	uint32_t zero = 0;

	assert_int_equal(bpf_map_lookup_elem(map, &zero, &config), 0);
	config.layout = layout;
	assert_int_equal(bpf_map_update_elem(map, &zero, &config, BPF_ANY), 0);
}

static void foreign_layout_is_refused(void **state)
{
	struct dmm_steer *steer;
	uint32_t before;

	(void)state;
	dmm_steer_close(steerrig_open());
	before = pinned_prog("progs/dmm_connect4");
	set_layout(DMM_ABI_LAYOUT + 8);
	assert_int_equal(steerrig_try_open(&steer), -ESTALE);
	assert_reason("layout");
	assert_reason("dmmctl teardown");
	assert_int_equal(pinned_prog("progs/dmm_connect4"), before);
	assert_int_equal(dmm_steer_teardown(RIG_BPFFS, NULL, NULL), 0);
	assert_torn_down();
}

static void foreign_shape_is_refused(void **state)
{
	struct dmm_steer *steer;
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "dmm_ports", 4, 64, 9, NULL);

	(void)state;
	dmm_steer_close(steerrig_open());
	assert_int_equal(unlink(RIG_BPFFS "/maps/dmm_ports"), 0);
	assert_int_equal(bpf_obj_pin(fd, RIG_BPFFS "/maps/dmm_ports"), 0);
	close(fd);
	assert_int_equal(steerrig_try_open(&steer), -ESTALE);
	assert_reason("dmm_ports");
}

static void half_made_pins_are_started_over(void **state)
{
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "dmm_ports", 4, 64, 9, NULL);

	(void)state;
	assert_int_equal(mkdir(RIG_BPFFS, 0700), 0);
	assert_int_equal(mkdir(RIG_BPFFS "/maps", 0700), 0);
	assert_int_equal(bpf_obj_pin(fd, RIG_BPFFS "/maps/dmm_ports"), 0);
	close(fd);
	dmm_steer_close(steerrig_open());
}

static void bad_directories_are_refused(void **state)
{
	struct dmm_steer_options options = { .cgroup_root = steerrig_cgroup_root() };
	struct dmm_steer *steer;

	(void)state;
	options.bpffs = "/tmp/dmm-no-bpffs";
	assert_int_equal(dmm_steer_open(&options, &steer), -ENOTSUP);
	assert_reason("not on a BPF file system");
	assert_int_not_equal(access(options.bpffs, F_OK), 0);

	options.bpffs = RIG_BPFFS;
	assert_int_equal(mkdir(RIG_BPFFS, 0755), 0);
	assert_int_equal(dmm_steer_open(&options, &steer), -EPERM);
	assert_reason("0700");
	assert_int_equal(rmdir(RIG_BPFFS), 0);

	assert_int_equal(mkdir(RIG_BPFFS "-real", 0700), 0);
	assert_int_equal(symlink(RIG_BPFFS "-real", RIG_BPFFS), 0);
	assert_int_equal(dmm_steer_open(&options, &steer), -ENOTDIR);
	assert_int_equal(unlink(RIG_BPFFS), 0);
	assert_int_equal(rmdir(RIG_BPFFS "-real"), 0);

	options.cgroup_root = "/tmp";
	assert_int_equal(dmm_steer_open(&options, &steer), -EINVAL);
	assert_reason("not a cgroup v2");
}

static void failed_open_leaves_nothing(void **state)
{
	struct dmm_steer *steer;

	(void)state;
	/* Another dmmd's filter: ours has no place, so all of ours must go again. */
	dmm_steer_close(steerrig_open());
	assert_int_equal(rename(RIG_BPFFS, RIG_BPFFS "-other"), 0);
	assert_int_equal(steerrig_try_open(&steer), -EBUSY);
	assert_reason("another dmmd sits on lo");
	assert_int_not_equal(access(RIG_BPFFS, F_OK), 0);
	assert_true(steerrig_sh_ok(LO_FILTER));
	assert_int_equal(dmm_steer_teardown(RIG_BPFFS "-other", NULL, NULL), 0);
	assert_torn_down();
}

/* --- cgroups --- */

static void attach_and_detach(void **state)
{
	struct dmm_steer *steer = steerrig_open();
	uint64_t id, again;
	char path[512];

	(void)state;
	assert_int_equal(dmm_steer_attach_cgroup(steer, "/nowhere", &id), -ENOENT);
	assert_reason("nowhere");
	steerrig_mkdir("web");
	assert_int_equal(dmm_steer_attach_cgroup(steer, "/web", &id), 0);
	snprintf(path, sizeof(path), "%s/web", steerrig_cgroup_root());
	assert_int_equal(dmm_steer_attach_cgroup(steer, path, &again), 0);
	assert_true(id == again);
	assert_true(steerrig_has_pin(link_of(id, "connect6")));
	assert_int_equal(dmm_steer_detach_cgroup(steer, path), 0);
	assert_false(steerrig_has_pin(link_of(id, "connect6")));
	assert_false(steerrig_has_pin(link_of(id, "sock_create")));
	assert_int_equal(dmm_steer_cgroups(steer, NULL, 0), 0);
	dmm_steer_close(steer);
	steerrig_rmdir("web");
}

static void failed_attach_leaves_nothing(void **state)
{
	struct dmm_steer *steer = steerrig_open();
	int prog = steerrig_tiny_prog(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET6_CONNECT,
				      "selfish", 1);
	char path[512];
	int cgroup;

	(void)state;
	steerrig_mkdir("taken");
	snprintf(path, sizeof(path), "%s/taken", steerrig_cgroup_root());
	cgroup = open(path, O_RDONLY | O_DIRECTORY);
	assert_int_equal(bpf_prog_attach(prog, cgroup, BPF_CGROUP_INET6_CONNECT, 0), 0);
	assert_int_equal(dmm_steer_attach_cgroup(steer, "taken", NULL), -EPERM);
	assert_reason("dmm_connect6");
	assert_int_equal(dmm_steer_cgroups(steer, NULL, 0), 0);
	close(cgroup);
	close(prog);
	dmm_steer_close(steer);
	steerrig_rmdir("taken");
}

static void repair_reattaches_and_forgets(void **state)
{
	struct dmm_steer *steer = steerrig_open();
	uint64_t web, gone;
	int link;

	(void)state;
	steerrig_mkdir("web");
	steerrig_mkdir("gone");
	assert_int_equal(dmm_steer_attach_cgroup(steer, "web", &web), 0);
	assert_int_equal(dmm_steer_attach_cgroup(steer, "gone", &gone), 0);
	link = steerrig_pin(link_of(web, "sockops"));
	assert_int_equal(bpf_link_detach(link), 0);
	close(link);
	link = steerrig_pin("links/guard-bind4");
	assert_int_equal(bpf_link_detach(link), 0);
	close(link);
	steerrig_sh("tc qdisc del dev lo clsact");
	steerrig_rmdir("gone");

	/* sockops, bind4, the filter; the cgroup that is gone took its hooks along */
	assert_int_equal(steerrig_repair(steer), 3);
	assert_int_equal(steerrig_repair(steer), 0);
	assert_true(steerrig_sh_ok(LO_FILTER));
	assert_false(steerrig_has_pin(link_of(gone, "connect4")));
	assert_int_equal(dmm_steer_cgroups(steer, NULL, 0), 1);
	assert_int_equal(steerrig_link_prog(link_of(web, "sockops")),
			 pinned_prog("progs/dmm_sockops"));
	dmm_steer_close(steer);
	steerrig_rmdir("web");
}

static void take_connect6_of(uint64_t id, const char *cgroup)
{
	int prog = steerrig_tiny_prog(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET6_CONNECT,
				      "selfish", 1);
	int link = steerrig_pin(link_of(id, "connect6")), fd;
	char path[512];

	assert_int_equal(bpf_link_detach(link), 0);
	snprintf(path, sizeof(path), "%s/%s", steerrig_cgroup_root(), cgroup);
	fd = open(path, O_RDONLY | O_DIRECTORY);
	assert_int_equal(bpf_prog_attach(prog, fd, BPF_CGROUP_INET6_CONNECT, 0), 0);
	close(fd);
	close(link);
	close(prog);
}

/* Two things that cannot be put right: the others are, and the first is what is told. */
static void repair_goes_on_after_a_failure(void **state)
{
	DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = if_nametoindex("lo"),
			    .attach_point = BPF_TC_EGRESS);
	DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 0x646d6d, .priority = 1,
			    .flags = BPF_TC_F_REPLACE,
			    .prog_fd = steerrig_tiny_prog(BPF_PROG_TYPE_SCHED_CLS, 0, "dmm_lo", 0));
	struct dmm_steer *steer = steerrig_open();
	uint64_t taken, web;
	int link;

	(void)state;
	steerrig_mkdir("taken");
	steerrig_mkdir("web");
	assert_int_equal(dmm_steer_attach_cgroup(steer, "taken", &taken), 0);
	assert_int_equal(dmm_steer_attach_cgroup(steer, "web", &web), 0);
	assert_int_equal(bpf_tc_attach(&hook, &opts), 0);
	close(opts.prog_fd);
	take_connect6_of(taken, "taken");
	link = steerrig_pin(link_of(web, "sockops"));
	assert_int_equal(bpf_link_detach(link), 0);
	close(link);

	assert_int_equal(steerrig_repair(steer), -EBUSY);
	assert_reason("sits on lo");
	assert_int_equal(steerrig_link_prog(link_of(web, "sockops")),
			 pinned_prog("progs/dmm_sockops"));
	steerrig_sh("tc qdisc del dev lo clsact");
	assert_int_equal(steerrig_repair(steer), -EPERM);
	assert_reason("dmm_connect6");
	assert_true(steerrig_sh_ok(LO_FILTER));
	dmm_steer_close(steer);
	steerrig_rmdir("taken");
	steerrig_rmdir("web");
}

static void filters_of_others_stay(void **state)
{
	DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = if_nametoindex("lo"),
			    .attach_point = BPF_TC_EGRESS);
	DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 1, .priority = 1,
			    .prog_fd = steerrig_tiny_prog(BPF_PROG_TYPE_SCHED_CLS, 0, "theirs", 0));

	(void)state;
	dmm_steer_close(steerrig_open());
	assert_int_equal(bpf_tc_attach(&hook, &opts), 0);
	close(opts.prog_fd);
	assert_int_equal(dmm_steer_teardown(RIG_BPFFS, NULL, NULL), 0);
	assert_false(steerrig_sh_ok(LO_FILTER));
	assert_true(steerrig_sh_ok("tc filter show dev lo egress | grep -q theirs"));
	steerrig_sh("tc qdisc del dev lo clsact");

	/* A qdisc that was there before us stays, too. */
	steerrig_sh("tc qdisc add dev lo clsact");
	dmm_steer_close(steerrig_open());
	assert_int_equal(dmm_steer_teardown(RIG_BPFFS, NULL, NULL), 0);
	assert_true(steerrig_sh_ok(CLSACT));
	steerrig_sh("tc qdisc del dev lo clsact");
}

static int run(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(close_lets_steering_go_on, nothing_left),
		cmocka_unit_test_teardown(adopts_maps_and_updates_links, nothing_left),
		cmocka_unit_test_teardown(ingress_comes_and_goes, nothing_left),
		cmocka_unit_test_teardown(teardown_leaves_nothing, nothing_left),
		cmocka_unit_test_teardown(teardown_under_a_running_dmmd, nothing_left),
		cmocka_unit_test_teardown(teardown_from_another_namespace, nothing_left),
		cmocka_unit_test_teardown(pins_of_another_namespace_are_refused, nothing_left),
		cmocka_unit_test_teardown(second_open_is_refused, nothing_left),
		cmocka_unit_test_teardown(foreign_layout_is_refused, nothing_left),
		cmocka_unit_test_teardown(foreign_shape_is_refused, nothing_left),
		cmocka_unit_test_teardown(half_made_pins_are_started_over, nothing_left),
		cmocka_unit_test_teardown(bad_directories_are_refused, nothing_left),
		cmocka_unit_test_teardown(failed_open_leaves_nothing, nothing_left),
		cmocka_unit_test_teardown(attach_and_detach, nothing_left),
		cmocka_unit_test_teardown(failed_attach_leaves_nothing, nothing_left),
		cmocka_unit_test_teardown(repair_reattaches_and_forgets, nothing_left),
		cmocka_unit_test_teardown(repair_goes_on_after_a_failure, nothing_left),
		cmocka_unit_test_teardown(filters_of_others_stay, nothing_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
	return steerrig_main(run);
}
