/* SPDX-License-Identifier: Apache-2.0 */
/* The read side on the real maps: step by step what explain will say. That the hooks say the same is
 * seen where a real connect() is compared with it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <net/if.h>
#include <netinet/in.h>

#include <bpf/bpf.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/util.h"
#include "steer/view.h"
#include "steerrig.h"

#define INSTANCE 4u

static struct dmm_steer *steer;
static struct dmm_view *view;
static struct dmm_inst_shared *page;
static uint32_t generation;

static void beat(uint64_t age_ms)
{
	page->beat_ns = dmm_clock_ns(CLOCK_MONOTONIC_COARSE) - age_ms * DMM_NS_PER_MS;
}

static void install(enum dmm_action action, enum dmm_unavailable otherwise)
{
	struct dmm_tables tables = {};
	struct dmm_rules_block *rules;

	steerrig_make_tables(&tables, ++generation, action, INSTANCE);
	rules = tables.blocks[DMM_TABLE_RULES];
	rules->rule[0].on_unavailable = otherwise;
	assert_int_equal(dmm_steer_install(steer, &tables), 0);
	steerrig_free_tables(&tables);
}

static void make_instance(void)
{
	struct dmm_instance inst = {
		.incarnation = 1,
		.ifindex = if_nametoindex("v0"),
		.port_first = 20000,
		.port_last = 20099,
		.name = "fast#0",
	};
	struct dmm_inst_fds fds;

	assert_int_equal(dmm_steer_inst_begin(steer, INSTANCE, &inst, &fds), 0);
	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fds.shared, 0);
	assert_ptr_not_equal(page, MAP_FAILED);
	close(fds.shared);
	close(fds.ring);
	assert_int_equal(dmm_steer_inst_state(steer, INSTANCE, DMM_INST_READY, 1), 0);
}

static int open_all(void **state)
{
	(void)state;
	steerrig_sh("ip link add v0 type veth peer name v1");
	steerrig_sh("ip link add w0 type veth peer name w1");
	steerrig_sh("for i in v0 v1 w0 w1; do ip link set $i up; done");
	steerrig_sh("ip addr add 10.1.0.1/24 dev v0 && ip addr add 10.2.0.1/24 dev w0");
	steerrig_sh("ip addr add fd01::1/64 dev v0 nodad");
	steer = steerrig_open();
	make_instance();
	return dmm_view_open(RIG_BPFFS, &view);
}

static int close_all(void **state)
{
	(void)state;
	dmm_view_close(view);
	dmm_steer_close(steer);
	return dmm_steer_teardown(RIG_BPFFS, NULL, NULL);
}

static struct dmm_decision decide(const char *addr, uint16_t port)
{
	uint8_t remote[16] = { [10] = 0xff, 0xff };
	struct dmm_decision d;

	if (inet_pton(AF_INET, addr, remote + 12) != 1)
		assert_int_equal(inet_pton(AF_INET6, addr, remote), 1);
	assert_int_equal(dmm_view_decide(view, 0, DMM_PROTO_TCP, remote, port, &d), 0);
	return d;
}

static void assert_decided(const char *addr, uint16_t port, enum dmm_verdict verdict,
			   enum dmm_reason reason)
{
	struct dmm_decision d = decide(addr, port);

	if (d.verdict != verdict || d.reason != reason)
		fail_msg("%s:%u: verdict %d, %s", addr, port, d.verdict, dmm_reason_word(d.reason));
}

static void without_a_policy(void **state)
{
	struct dmm_decision d = decide("10.1.0.2", 1500);

	(void)state;
	assert_int_equal(d.verdict, DMM_VERDICT_KERNEL);
	assert_int_equal(d.reason, DMM_REASON_NO_POLICY);
	assert_int_equal(d.generation, 0);
}

static void rule_and_default(void **state)
{
	struct dmm_decision d;

	(void)state;
	install(DMM_ACTION_REJECT, DMM_UNAVAILABLE_KERNEL);
	d = decide("10.1.0.2", 1500);
	assert_int_equal(d.verdict, DMM_VERDICT_REJECT);
	assert_int_equal(d.rule, 0);
	assert_string_equal(d.matched.name, "thousands");
	assert_int_equal(d.generation, generation);
	d = decide("fd01::2", 2000);
	assert_int_equal(d.verdict, DMM_VERDICT_KERNEL);
	assert_string_equal(d.matched.name, "default");
	assert_true(d.has_route);
	assert_int_equal(d.route.ifindex, if_nametoindex("v0"));
}

static void built_ins_come_first(void **state)
{
	(void)state;
	install(DMM_ACTION_REJECT, DMM_UNAVAILABLE_KERNEL);
	assert_decided("127.0.0.1", 1500, DMM_VERDICT_KERNEL, DMM_REASON_LOOPBACK);
	assert_decided("::1", 1500, DMM_VERDICT_KERNEL, DMM_REASON_LOOPBACK);
	assert_decided("10.2.0.1", 1500, DMM_VERDICT_KERNEL, DMM_REASON_OWN_ADDRESS);
	assert_decided("10.1.0.255", 1500, DMM_VERDICT_KERNEL, DMM_REASON_OWN_ADDRESS);
	assert_decided("224.0.0.1", 1500, DMM_VERDICT_KERNEL, DMM_REASON_MULTICAST);
	assert_decided("fe80::1", 1500, DMM_VERDICT_KERNEL, DMM_REASON_SCOPED);
	assert_decided("10.2.0.2", 1500, DMM_VERDICT_REJECT, DMM_REASON_RULE);
}

static void stack_needs_route_and_life(void **state)
{
	struct dmm_decision d;

	(void)state;
	install(DMM_ACTION_STACK, DMM_UNAVAILABLE_REJECT);
	beat(0);
	assert_decided("10.1.0.2", 1500, DMM_VERDICT_USERSPACE, DMM_REASON_RULE);
	assert_decided("fd01::2", 1500, DMM_VERDICT_USERSPACE, DMM_REASON_RULE);
	assert_decided("10.2.0.2", 1500, DMM_VERDICT_KERNEL, DMM_REASON_ROUTE);
	assert_decided("10.9.0.2", 1500, DMM_VERDICT_KERNEL, DMM_REASON_NO_ROUTE);
	d = decide("10.1.0.2", 1500);
	assert_int_equal(d.instance, INSTANCE);
	assert_true(d.beat_age_ns < 100 * DMM_NS_PER_SEC);

	beat(3000);
	assert_decided("10.1.0.2", 1500, DMM_VERDICT_REJECT, DMM_REASON_INST_STALE);
	beat(0);
	assert_int_equal(dmm_steer_inst_state(steer, INSTANCE, DMM_INST_DEAD, 0), 0);
	assert_decided("10.1.0.2", 1500, DMM_VERDICT_REJECT, DMM_REASON_INST_NOT_READY);
	install(DMM_ACTION_STACK, DMM_UNAVAILABLE_KERNEL);
	assert_decided("10.1.0.2", 1500, DMM_VERDICT_KERNEL, DMM_REASON_INST_NOT_READY);
	assert_int_equal(dmm_steer_inst_state(steer, INSTANCE, DMM_INST_READY, 1), 0);
}

static void routes_are_followed(void **state)
{
	(void)state;
	install(DMM_ACTION_STACK, DMM_UNAVAILABLE_REJECT);
	beat(0);
	steerrig_sh("ip route add 10.9.0.0/16 via 10.1.0.2");
	assert_int_equal(dmm_steer_mirror_run(steer), 0);
	assert_decided("10.9.0.2", 1500, DMM_VERDICT_USERSPACE, DMM_REASON_RULE);
	steerrig_sh("ip route del 10.9.0.0/16");
	assert_int_equal(dmm_steer_mirror_run(steer), 0);
	assert_decided("10.9.0.2", 1500, DMM_VERDICT_KERNEL, DMM_REASON_NO_ROUTE);
}

/* Explain reads the live maps: what somebody edits with bpftool shows. */
static void edited_entries_show(void **state)
{
	char line[128];

	(void)state;
	install(DMM_ACTION_REJECT, DMM_UNAVAILABLE_KERNEL);
	assert_decided("10.1.0.9", 1500, DMM_VERDICT_REJECT, DMM_REASON_RULE);
	steerrig_sh("bpftool map update pinned " RIG_BPFFS "/maps/dmm_local key "
		    "0 0 0 0 0 0 0 0 0 0 255 255 10 1 0 9 value 1 0 0 0 1 0 0 0");
	steerrig_sh_line(line, sizeof(line),
			 "bpftool map dump pinned " RIG_BPFFS "/maps/dmm_local | grep -c ifindex");
	assert_true(atoi(line) > 3);
	assert_decided("10.1.0.9", 1500, DMM_VERDICT_KERNEL, DMM_REASON_OWN_ADDRESS);
}

/* The deepest cgroup whose class the live generation knows. */
static void class_is_the_deepest_known(void **state)
{
	const uint64_t ids[] = { 30, 20, 10 };
	struct dmm_tables tables = {};
	struct dmm_roots_block *roots;
	struct dmm_gen_meta *meta;
	uint32_t class_id = 99, i;

	(void)state;
	steerrig_make_tables(&tables, ++generation, DMM_ACTION_KERNEL, 0);
	roots = tables.blocks[DMM_TABLE_ROOTS];
	for (i = 0; i < DMM_ROOTS_PER_CLASS; i++) {
		roots->ref[DMM_ROOTS_PER_CLASS + i] = DMM_REF_NONE;
		roots->ref[2 * DMM_ROOTS_PER_CLASS + i] = DMM_REF_LEAF | 0;
	}
	meta = tables.blocks[DMM_TABLE_META];
	meta->n_classes = meta->n_cgroups = 3;
	assert_int_equal(dmm_steer_install(steer, &tables), 0);
	steerrig_free_tables(&tables);

	assert_int_equal(dmm_view_class(view, ids, 3, 0, "", &class_id), 0);
	assert_int_equal(class_id, 0);
	assert_int_equal(dmm_steer_set_class(steer, 10, 2, 1), 0);
	assert_int_equal(dmm_steer_set_class(steer, 20, 1, 2), 0); /* known no longer */
	assert_int_equal(dmm_steer_set_class(steer, 30, 7, 3), 0); /* not known yet */
	assert_int_equal(dmm_view_class(view, ids, 3, 0, "", &class_id), 0);
	assert_int_equal(class_id, 2);
	assert_int_equal(dmm_steer_unset_class(steer, 10), 0);
	assert_int_equal(dmm_steer_unset_class(steer, 10), 0);
	assert_int_equal(dmm_view_class(view, ids, 3, 0, "", &class_id), 0);
	assert_int_equal(class_id, 0);
}

static void join(const char *cgroup)
{
	char path[512], pid[32];
	int fd;

	snprintf(path, sizeof(path), "%s%s/cgroup.procs", steerrig_cgroup_root(), cgroup);
	snprintf(pid, sizeof(pid), "%d", getpid());
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0 && write(fd, pid, strlen(pid)) > 0);
	close(fd);
}

static int connect_to(const char *addr, uint16_t port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), r;

	inet_pton(AF_INET, addr, &to.sin_addr);
	r = connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 ? -errno : 0;
	close(fd);
	return r;
}

/* Attached programs, installed tables: a real connect() is judged, counted, and seen here. */
static void hooks_agree_and_count(void **state)
{
	uint64_t before, after;
	struct dmm_rule rule;

	(void)state;
	install(DMM_ACTION_REJECT, DMM_UNAVAILABLE_KERNEL);
	steerrig_mkdir("app");
	assert_int_equal(dmm_steer_attach_cgroup(steer, "app", NULL), 0);
	join("/app");
	assert_int_equal(dmm_view_counter(view, DMM_REASON_RULE, &before), 0);
	assert_int_equal(connect_to("10.1.0.2", 1500), -EPERM);
	assert_int_equal(connect_to("10.1.0.2", 2500), -EINPROGRESS);
	assert_int_equal(dmm_view_counter(view, DMM_REASON_RULE, &after), 0);
	assert_int_equal(after - before, 2);
	assert_int_equal(dmm_view_rule(view, 0, &rule), 0);
	assert_int_equal(rule.hits, 1);
	assert_true(rule.last_hit_ns != 0);
	assert_decided("10.1.0.2", 1500, DMM_VERDICT_REJECT, DMM_REASON_RULE);
	assert_decided("10.1.0.2", 2500, DMM_VERDICT_KERNEL, DMM_REASON_RULE);

	assert_int_equal(dmm_steer_detach_cgroup(steer, "app"), 0);
	assert_int_equal(connect_to("10.1.0.2", 1500), -EINPROGRESS);
	join("");
	steerrig_rmdir("app");
}

static void reasons_have_words(void **state)
{
	(void)state;
	assert_string_equal(dmm_reason_word(DMM_REASON_OWN_ADDRESS), "builtin-own");
	assert_string_equal(dmm_reason_word(DMM_NUM_REASONS), "unknown");
	assert_non_null(dmm_reason_text(DMM_NUM_REASONS));
}

static void nothing_pinned(void **state)
{
	struct dmm_view *none;

	(void)state;
	assert_int_equal(dmm_view_open("/sys/fs/bpf/dmm-not-there", &none), -ENOENT);
	assert_non_null(strstr(dmm_steer_reason(), "dmmd has not run here"));
}

static int run(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_policy),
		cmocka_unit_test(rule_and_default),
		cmocka_unit_test(built_ins_come_first),
		cmocka_unit_test(stack_needs_route_and_life),
		cmocka_unit_test(routes_are_followed),
		cmocka_unit_test(edited_entries_show),
		cmocka_unit_test(class_is_the_deepest_known),
		cmocka_unit_test(hooks_agree_and_count),
		cmocka_unit_test(reasons_have_words),
		cmocka_unit_test(nothing_pinned),
	};

	return cmocka_run_group_tests(tests, open_all, close_all);
}

int main(void)
{
	return steerrig_main(run);
}
