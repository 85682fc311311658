/* SPDX-License-Identifier: Apache-2.0 */
/* What dmmd writes: generations, instance slots, reserved ports, and the list of ended flows. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <netinet/in.h>

#include <bpf/bpf.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/util.h"
#include "steer/view.h"
#include "steerrig.h"

#define RESERVED "/proc/sys/net/ipv4/ip_local_reserved_ports"

static struct dmm_steer *steer;
static struct dmm_view *view;

static int open_steer(void **state)
{
	(void)state;
	steer = steerrig_open();
	return dmm_view_open(RIG_BPFFS, &view);
}

static int close_steer(void **state)
{
	(void)state;
	dmm_view_close(view);
	dmm_steer_close(steer);
	return dmm_steer_teardown(RIG_BPFFS, NULL, NULL);
}

/* --- generations --- */

static void install(uint32_t generation, enum dmm_action action)
{
	struct dmm_tables tables = {};

	steerrig_make_tables(&tables, generation, action, 0);
	if (dmm_steer_install(steer, &tables) < 0)
		fail_msg("install: %s", dmm_steer_reason());
	steerrig_free_tables(&tables);
}

static uint32_t live_slot(void)
{
	dmm_autoclose int map = steerrig_pin("maps/dmm_live");
	struct dmm_live live;
	uint32_t zero = 0;

	assert_int_equal(bpf_map_lookup_elem(map, &zero, &live), 0);
	return live.slot;
}

/* A program that began before the swap may still read the old slot: it must not be refilled next. */
static void generations_in_turn(void **state)
{
	uint32_t first = live_slot();
	struct dmm_gen_meta meta;
	struct dmm_rule rule;
	uint64_t start;
	unsigned int i;

	(void)state;
	assert_int_equal(dmm_view_meta(view, &meta), 0);
	assert_int_equal(meta.generation, 0);
	assert_int_equal(dmm_view_rule(view, 0, &rule), -ENOENT);
	start = dmm_now_ns();
	for (i = 1; i <= 4 * DMM_GEN_SLOTS; i++) {
		install(i, i % 2 ? DMM_ACTION_REJECT : DMM_ACTION_KERNEL);
		assert_int_equal(dmm_view_meta(view, &meta), 0);
		assert_int_equal(meta.generation, i);
		assert_int_equal(live_slot(), (first + i) % DMM_GEN_SLOTS);
		assert_int_equal(dmm_view_rule(view, 0, &rule), 0);
		assert_int_equal(rule.action, i % 2 ? DMM_ACTION_REJECT : DMM_ACTION_KERNEL);
	}
	print_message("# %.0f swaps/s\n", i * 1e9 / (dmm_now_ns() - start));
	assert_int_equal(dmm_view_rule(view, 1, &rule), 0);
	assert_string_equal(rule.name, "default");
	assert_int_equal(rule.hits, 0);
	assert_int_equal(dmm_view_rule(view, 2, &rule), -ENOENT);
}

/* Big tables take several batches; each block must arrive in its place. */
static void large_tables_arrive_whole(void **state)
{
	enum { BLOCKS = 9000 };
	struct dmm_tables tables = {};
	struct dmm_rules_block *rules;
	struct dmm_gen_meta *meta;
	struct dmm_rule rule;
	uint32_t i;

	(void)state;
	steerrig_make_tables(&tables, 100, DMM_ACTION_KERNEL, 0);
	free(tables.blocks[DMM_TABLE_RULES]);
	rules = calloc(BLOCKS, sizeof(*rules));
	assert_non_null(rules);
	for (i = 0; i < BLOCKS * DMM_RULES_BLOCK; i++)
		rules[i / DMM_RULES_BLOCK].rule[i % DMM_RULES_BLOCK].line = i;
	tables.blocks[DMM_TABLE_RULES] = rules;
	tables.n_blocks[DMM_TABLE_RULES] = BLOCKS;
	meta = tables.blocks[DMM_TABLE_META];
	meta->n_rules = BLOCKS * DMM_RULES_BLOCK - 1;
	assert_int_equal(dmm_steer_install(steer, &tables), 0);
	steerrig_free_tables(&tables);
	for (i = 0; i < BLOCKS * DMM_RULES_BLOCK; i += 997) {
		assert_int_equal(dmm_view_rule(view, i, &rule), 0);
		assert_int_equal(rule.line, i);
	}
}

static void bpftool_prints_tables_readably(void **state)
{
	char line[512];

	(void)state;
	install(101, DMM_ACTION_REJECT);
	steerrig_sh_line(line, sizeof(line),
			 "bpftool map dump name dmm_meta | grep -m1 '\"policy\": \"by-hand-101\"'");
	assert_string_not_equal(line, "");
	steerrig_sh_line(line, sizeof(line),
			 "bpftool map dump name dmm_rules | grep -m1 DMM_ACTION_REJECT");
	assert_string_not_equal(line, "");
}

/* --- instances --- */

static struct dmm_port port_of(uint32_t proto, uint16_t port)
{
	dmm_autoclose int map = steerrig_pin("maps/dmm_ports");
	uint32_t key = proto << 16 | port;
	struct dmm_port value;

	assert_int_equal(bpf_map_lookup_elem(map, &key, &value), 0);
	return value;
}

static void assert_owner(uint16_t port, enum dmm_port_state state)
{
	assert_int_equal(port_of(DMM_PROTO_TCP, port).state, state);
	assert_int_equal(port_of(DMM_PROTO_UDP, port).state, DMM_PORT_KERNEL);
}

static struct dmm_inst_fds begin(uint32_t id, uint32_t incarnation, uint16_t first, uint16_t last)
{
	struct dmm_instance inst = {
		.incarnation = incarnation,
		.ifindex = 3,
		.n_queues = 1,
		.port_first = first,
		.port_last = last,
		.name = "fast#0",
		.stack = "fast",
	};
	struct dmm_inst_fds fds = { -1, -1 };

	if (dmm_steer_inst_begin(steer, id, &inst, &fds) < 0)
		fail_msg("%s", dmm_steer_reason());
	return fds;
}

static void instance_lives_and_dies(void **state)
{
	struct dmm_inst_fds fds = begin(2, 1, 20000, 20099);
	struct dmm_inst_shared *page, seen;
	struct dmm_instance inst;

	(void)state;
	assert_int_equal(dmm_view_instance(view, 2, &inst), 0);
	assert_int_equal(inst.state, DMM_INST_STARTING);
	assert_owner(20000, DMM_PORT_KERNEL);

	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fds.shared, 0);
	assert_ptr_not_equal(page, MAP_FAILED);
	page->flows = 42;
	page->port[7] = 9;
	assert_int_equal(dmm_view_shared(view, 2, &seen, true), 0);
	assert_int_equal(seen.flows, 42);
	assert_int_equal(seen.port[7], 9);
	munmap(page, sizeof(*page));

	assert_int_equal(dmm_steer_inst_state(steer, 2, DMM_INST_READY, 77), 0);
	assert_int_equal(dmm_view_instance(view, 2, &inst), 0);
	assert_int_equal(inst.state, DMM_INST_READY);
	assert_int_equal(inst.pid, 77);
	assert_owner(19999, DMM_PORT_KERNEL);
	assert_owner(20000, DMM_PORT_RANGE);
	assert_owner(20099, DMM_PORT_RANGE);
	assert_int_equal(port_of(0, 20099).instance, 2);
	assert_owner(20100, DMM_PORT_KERNEL);

	assert_int_equal(dmm_steer_inst_state(steer, 2, DMM_INST_DEAD, 0), 0);
	assert_owner(20050, DMM_PORT_RANGE);
	close(fds.shared);
	close(fds.ring);

	/* The next incarnation has other ports and a page of its own. */
	fds = begin(2, 2, 21000, 21000);
	assert_owner(20050, DMM_PORT_KERNEL);
	assert_int_equal(dmm_view_shared(view, 2, &seen, true), 0);
	assert_int_equal(seen.flows, 0);
	assert_int_equal(dmm_steer_inst_state(steer, 2, DMM_INST_READY, 78), 0);
	assert_owner(21000, DMM_PORT_RANGE);

	assert_int_equal(dmm_steer_inst_state(steer, 2, DMM_INST_FREE, 0), 0);
	assert_owner(21000, DMM_PORT_KERNEL);
	assert_int_equal(dmm_view_instance(view, 2, &inst), 0);
	assert_int_equal(inst.state, DMM_INST_FREE);
	assert_int_equal(inst.incarnation, 2);
	assert_int_equal(dmm_view_shared(view, 2, &seen, false), -ENOENT);
	close(fds.shared);
	close(fds.ring);
}

static void listener_is_marked(void **state)
{
	dmm_autoclose int map = steerrig_pin("maps/dmm_relay_mark");
	struct dmm_inst_fds fds = begin(3, 9, 0, 0);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct dmm_relay_mark mark;

	(void)state;
	assert_int_equal(dmm_steer_inst_mark(steer, 3, fd), 0);
	assert_int_equal(bpf_map_lookup_elem(map, &fd, &mark), 0);
	assert_int_equal(mark.instance, 3);
	assert_int_equal(mark.incarnation, 9);
	close(fd);
	close(fds.shared);
	close(fds.ring);
	assert_int_equal(dmm_steer_inst_state(steer, 3, DMM_INST_FREE, 0), 0);
}

static void slots_have_bounds(void **state)
{
	struct dmm_instance inst = {};
	struct dmm_inst_fds fds;

	(void)state;
	assert_int_equal(dmm_steer_inst_begin(steer, DMM_MAX_INSTANCES, &inst, &fds), -EINVAL);
	assert_int_equal(dmm_steer_inst_state(steer, DMM_MAX_INSTANCES, DMM_INST_DEAD, 0), -EINVAL);
	assert_int_equal(dmm_steer_inst_set_xsk(steer, 0, DMM_MAX_QUEUES, 0), -EINVAL);
}

/* --- reserved ports --- */

static void assert_reserved(const char *expected)
{
	char line[256];

	steerrig_sh_line(line, sizeof(line), "cat " RESERVED);
	line[strcspn(line, "\n")] = '\0';
	assert_string_equal(line, expected);
}

static void reserved_ports_are_merged_and_given_back(void **state)
{
	struct dmm_port_range ranges[] = { { 20000, 20999 }, { 8080, 8081 } };

	steerrig_sh("echo 8080,9000-9002 > " RESERVED);
	assert_int_equal(dmm_steer_reserve_ports(steer, ranges, 2), 0);
	assert_reserved("8080-8081,9000-9002,20000-20999");
	ranges[0].last = 20099;
	assert_int_equal(dmm_steer_reserve_ports(steer, ranges, 2), 0);
	assert_reserved("8080-8081,9000-9002,20000-20099");
	/* somebody else adds one meanwhile */
	steerrig_sh("echo 8080-8081,9000-9002,20000-20099,30000 > " RESERVED);
	assert_int_equal(dmm_steer_reserve_ports(steer, ranges, 1), 0);
	assert_reserved("8080,9000-9002,20000-20099,30000");
	/* teardown gives back without a daemon */
	assert_int_equal(close_steer(state), 0);
	assert_reserved("8080,9000-9002,30000");
	steerrig_sh("echo > " RESERVED);
	assert_int_equal(open_steer(state), 0);
}

/* --- flows that ended --- */

static void put_closed(uint64_t number, uint64_t closed_ns)
{
	dmm_autoclose int ring = steerrig_pin("maps/dmm_closed");
	dmm_autoclose int count = steerrig_pin("maps/dmm_n_closed");
	struct dmm_closed entry = {
		.number = number,
		.flow = {
			.cookie = number,
			.verdict = DMM_VERDICT_KERNEL,
			.state = DMM_FLOW_CLOSED,
			.opened_ns = 1,
			.closed_ns = closed_ns,
		},
	};
	uint32_t at = (number - 1) % DMM_MAX_CLOSED, zero = 0;

	assert_int_equal(bpf_map_update_elem(ring, &at, &entry, BPF_ANY), 0);
	assert_int_equal(bpf_map_update_elem(count, &zero, &number, BPF_ANY), 0);
}

struct seen {
	uint64_t last; /* the flow before, which has the next number */
	unsigned int n;
};

static int see_flow(void *ctx, const struct dmm_flow *flow)
{
	struct seen *seen = ctx;

	assert_true(seen->n == 0 || flow->cookie < seen->last);
	seen->last = flow->cookie;
	seen->n++;
	return 0;
}

static struct seen see_flows(void)
{
	struct seen seen = {};

	assert_int_equal(dmm_view_flows(view, see_flow, &seen), 0);
	return seen;
}

static void ended_flows_are_listed_for_a_minute(void **state)
{
	uint64_t now = dmm_now_ns(), second = DMM_NS_PER_SEC;
	dmm_autoclose int ring = steerrig_pin("maps/dmm_closed");
	uint32_t at = 2;
	struct dmm_closed entry;

	(void)state;
	assert_int_equal(see_flows().n, 0);
	put_closed(1, now - 70 * second);
	put_closed(2, now - 50 * second);
	put_closed(3, now - 40 * second);
	put_closed(4, now);
	assert_int_equal(see_flows().n, 3);
	assert_int_equal(see_flows().last, 2);
	/* one that a hook is about to write again */
	assert_int_equal(bpf_map_lookup_elem(ring, &at, &entry), 0);
	entry.number = 0;
	assert_int_equal(bpf_map_update_elem(ring, &at, &entry, BPF_ANY), 0);
	assert_int_equal(see_flows().n, 2);
	assert_int_equal(see_flows().last, 2);
}

/* More than there is room for within a minute: the oldest are given up. */
static void the_latest_flows_are_kept(void **state)
{
	uint64_t now = dmm_now_ns();
	unsigned int i;

	(void)state;
	for (i = 5; i <= DMM_MAX_CLOSED + 7; i++)
		put_closed(i, now);
	assert_int_equal(see_flows().n, DMM_MAX_CLOSED);
	assert_int_equal(see_flows().last, 8);
}

static int run(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(generations_in_turn),
		cmocka_unit_test(large_tables_arrive_whole),
		cmocka_unit_test(bpftool_prints_tables_readably),
		cmocka_unit_test(instance_lives_and_dies),
		cmocka_unit_test(listener_is_marked),
		cmocka_unit_test(slots_have_bounds),
		cmocka_unit_test(reserved_ports_are_merged_and_given_back),
		cmocka_unit_test(ended_flows_are_listed_for_a_minute),
		cmocka_unit_test(the_latest_flows_are_kept),
	};

	return cmocka_run_group_tests(tests, open_steer, close_steer);
}

int main(void)
{
	return steerrig_main(run);
}
