/* SPDX-License-Identifier: Apache-2.0 */
/* What dmmd writes: generations, instance slots, reserved ports, and the sweep of the flow list. */
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
	uint32_t zero = 0, slot;

	assert_int_equal(bpf_map_lookup_elem(map, &zero, &slot), 0);
	return slot;
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

/* --- the sweep --- */

static void put_flow(uint64_t cookie, uint64_t opened, uint64_t closed)
{
	struct dmm_flow flow = {
		.verdict = DMM_VERDICT_KERNEL,
		.state = closed ? DMM_FLOW_CLOSED : DMM_FLOW_ESTABLISHED,
		.opened_ns = opened,
		.closed_ns = closed,
	};
	dmm_autoclose int map = steerrig_pin("maps/dmm_flows");

	assert_int_equal(bpf_map_update_elem(map, &cookie, &flow, BPF_ANY), 0);
}

static bool has_flow(uint64_t cookie)
{
	dmm_autoclose int map = steerrig_pin("maps/dmm_flows");
	struct dmm_flow flow;

	return bpf_map_lookup_elem(map, &cookie, &flow) == 0;
}

static int count_flow(void *ctx, uint64_t cookie, const struct dmm_flow *flow)
{
	(void)cookie;
	(void)flow;
	++*(unsigned int *)ctx;
	return 0;
}

static void sweep_takes_what_is_over(void **state)
{
	uint64_t now = dmm_now_ns(), second = DMM_NS_PER_SEC, living;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in any = { .sin_family = AF_INET };
	socklen_t len = sizeof(living);
	unsigned int flows = 0;

	(void)state;
	assert_int_equal(bind(fd, (struct sockaddr *)&any, sizeof(any)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &living, &len), 0);
	put_flow(living, now - 90 * second, 0);
	put_flow(1ull << 60 | 1, now - 90 * second, now - 70 * second);
	put_flow(1ull << 60 | 2, now - 90 * second, now - 50 * second);
	put_flow(1ull << 60 | 3, now - 90 * second, 0); /* its socket is gone */
	put_flow(1ull << 60 | 4, now - 1 * second, 0);	/* too young to be looked for */
	assert_int_equal(dmm_view_flows(view, count_flow, &flows), 0);
	assert_int_equal(flows, 5);

	assert_int_equal(dmm_steer_sweep_flows(steer, 60 * second), 0);
	assert_true(has_flow(living));
	assert_false(has_flow(1ull << 60 | 1));
	assert_true(has_flow(1ull << 60 | 2));
	assert_false(has_flow(1ull << 60 | 3));
	assert_true(has_flow(1ull << 60 | 4));
	close(fd);
	assert_int_equal(dmm_steer_sweep_flows(steer, 0), 0);
	flows = 0;
	assert_int_equal(dmm_view_flows(view, count_flow, &flows), 0);
	assert_int_equal(flows, 0);
}

/* A socket in a network namespace of its own, that of the child which holds it: its cookie. */
static uint64_t start_listening_elsewhere(pid_t *ret_pid)
{
	uint64_t cookie = 0;
	int pipes[2];

	assert_int_equal(pipe(pipes), 0);
	*ret_pid = fork();
	if (*ret_pid == 0) {
		socklen_t len = sizeof(cookie);
		int fd = unshare(CLONE_NEWNET) < 0 ? -1 : socket(AF_INET6, SOCK_STREAM, 0);

		if (listen(fd, 1) < 0 || getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) < 0)
			_exit(1);
		(void)!write(pipes[1], &cookie, sizeof(cookie));
		pause();
		_exit(0);
	}
	close(pipes[1]);
	assert_int_equal(read(pipes[0], &cookie, sizeof(cookie)), sizeof(cookie));
	close(pipes[0]);
	return cookie;
}

static void sweep_looks_into_other_namespaces(void **state)
{
	uint64_t now = dmm_now_ns(), cookie, gone = 1ull << 60 | 5;
	pid_t pid;

	(void)state;
	cookie = start_listening_elsewhere(&pid);
	put_flow(cookie, now - 90 * DMM_NS_PER_SEC, 0);
	put_flow(gone, now - 90 * DMM_NS_PER_SEC, 0);
	assert_int_equal(dmm_steer_sweep_flows(steer, 0), 0);
	assert_true(has_flow(cookie));
	assert_false(has_flow(gone));

	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(dmm_steer_sweep_flows(steer, 0), 0);
	assert_false(has_flow(cookie));
}

static void addr_of(int fd, int (*ask)(int, struct sockaddr *, socklen_t *), __u8 *ret_addr,
		    __be16 *ret_port)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);

	assert_int_equal(ask(fd, (struct sockaddr *)&ss, &len), 0);
	if (ss.ss_family == AF_INET) {
		memset(ret_addr + 10, 0xff, 2);
		memcpy(ret_addr + 12, &((struct sockaddr_in *)&ss)->sin_addr, 4);
	} else {
		memcpy(ret_addr, &((struct sockaddr_in6 *)&ss)->sin6_addr, 16);
	}
	*ret_port = ((struct sockaddr_in *)&ss)->sin_port; /* in the same place */
}

/* Listens on loopback and connects to it, as an application to its relay. */
static int connect_relay_leg(int family, int *ret_listener, struct dmm_tuple *ret)
{
	struct sockaddr_in6 sa6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr *to = family == AF_INET ? (void *)&sa : (void *)&sa6;
	socklen_t len = family == AF_INET ? sizeof(sa) : sizeof(sa6);
	int fd = socket(family, SOCK_STREAM, 0);

	*ret_listener = socket(family, SOCK_STREAM, 0);
	assert_int_equal(bind(*ret_listener, to, len), 0);
	assert_int_equal(listen(*ret_listener, 1), 0);
	assert_int_equal(getsockname(*ret_listener, to, &len), 0);
	assert_int_equal(connect(fd, to, len), 0);
	memset(ret, 0, sizeof(*ret));
	addr_of(fd, getsockname, ret->app, &ret->app_port);
	addr_of(fd, getpeername, ret->relay, &ret->relay_port);
	return fd;
}

static void sweep_takes_tuples_without_a_socket(void **state)
{
	static const int families[] = { AF_INET, AF_INET6 };
	dmm_autoclose int map = steerrig_pin("maps/dmm_tuples");
	struct dmm_peer peer = {};

	(void)state;
	for (unsigned int i = 0; i < DMM_ARRAY_SIZE(families); i++) {
		struct linger reset = { 1, 0 };
		struct dmm_tuple tuple;
		int listener, fd = connect_relay_leg(families[i], &listener, &tuple);

		assert_int_equal(bpf_map_update_elem(map, &tuple, &peer, BPF_ANY), 0);
		assert_int_equal(dmm_steer_sweep_flows(steer, 0), 0);
		assert_int_equal(bpf_map_lookup_elem(map, &tuple, &peer), 0);
		assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
		close(fd);
		assert_int_equal(dmm_steer_sweep_flows(steer, 0), 0);
		assert_int_equal(bpf_map_lookup_elem(map, &tuple, &peer), -ENOENT);
		close(listener);
	}
}

static void all_flows_are_seen_once(void **state)
{
	unsigned int i, flows = 0;

	(void)state;
	for (i = 1; i <= 3000; i++)
		put_flow(i, 1, 1);
	assert_int_equal(dmm_view_flows(view, count_flow, &flows), 0);
	assert_int_equal(flows, 3000);
	assert_int_equal(dmm_steer_sweep_flows(steer, 0), 0);
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
		cmocka_unit_test(sweep_takes_what_is_over),
		cmocka_unit_test(sweep_looks_into_other_namespaces),
		cmocka_unit_test(sweep_takes_tuples_without_a_socket),
		cmocka_unit_test(all_flows_are_seen_once),
	};

	return cmocka_run_group_tests(tests, open_steer, close_steer);
}

int main(void)
{
	return steerrig_main(run);
}
