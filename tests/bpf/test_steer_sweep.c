/* SPDX-License-Identifier: Apache-2.0 */
/* What the sweep takes of the things that sockets leave behind, and what it must leave. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <netinet/in.h>

#include <bpf/bpf.h>

#include <cmocka.h>

#include <dmm/abi/wire.h>

#include "base/util.h"
#include "steerrig.h"

static struct dmm_steer *steer;

static int open_steer(void **state)
{
	(void)state;
	steer = steerrig_open();
	return 0;
}

static int close_steer(void **state)
{
	(void)state;
	dmm_steer_close(steer);
	return dmm_steer_teardown(RIG_BPFFS, NULL, NULL);
}

static void sweep(void)
{
	if (dmm_steer_sweep(steer) < 0)
		fail_msg("%s", dmm_steer_reason());
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

static int listen_on(int family, bool any)
{
	struct sockaddr_in6 sa6 = { .sin6_family = AF_INET6,
				    .sin6_addr = any ? in6addr_any : in6addr_loopback };
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(any ? INADDR_ANY : INADDR_LOOPBACK) };
	int fd = socket(family, SOCK_STREAM, 0);

	assert_int_equal(bind(fd,
			      family == AF_INET ? (struct sockaddr *)&sa : (struct sockaddr *)&sa6,
			      family == AF_INET ? sizeof(sa) : sizeof(sa6)),
			 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

/* --- relay legs --- */

/* Listens on loopback and connects to it, as an application to its relay. */
static int connect_relay_leg(int family, int *ret_listener, struct dmm_tuple *ret)
{
	struct sockaddr_storage to;
	socklen_t len = sizeof(to);
	int fd = socket(family, SOCK_STREAM, 0);

	*ret_listener = listen_on(family, false);
	assert_int_equal(getsockname(*ret_listener, (struct sockaddr *)&to, &len), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, len), 0);
	memset(ret, 0, sizeof(*ret));
	addr_of(fd, getsockname, ret->app, &ret->app_port);
	addr_of(fd, getpeername, ret->relay, &ret->relay_port);
	return fd;
}

static void tuples_without_a_socket(void **state)
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
		sweep();
		assert_int_equal(bpf_map_lookup_elem(map, &tuple, &peer), 0);
		assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
		close(fd);
		sweep();
		assert_int_equal(bpf_map_lookup_elem(map, &tuple, &peer), -ENOENT);
		close(listener);
	}
}

/* --- servers --- */

/* Also those that nobody counted down, since the hooks were gone when the server ended. */
static void listeners_that_are_gone(void **state)
{
	dmm_autoclose int map = steerrig_pin("maps/dmm_listeners");

	(void)state;
	for (int kind = 0; kind < 8; kind++) {
		int fd = listen_on(kind & 1 ? AF_INET : AF_INET6, kind & 2);
		struct dmm_listener listener = { .n = kind & 4 ? 1 : 0, .uid = 7 };
		struct dmm_listener_key key = {};

		addr_of(fd, getsockname, key.addr, &key.port);
		assert_int_equal(bpf_map_update_elem(map, &key, &listener, BPF_ANY), 0);
		sweep();
		assert_int_equal(bpf_map_lookup_elem(map, &key, &listener), 0);
		assert_int_equal(listener.n, kind & 4 ? 1 : 0);
		assert_int_equal(listener.uid, 7);
		close(fd);
		sweep();
		assert_int_equal(bpf_map_lookup_elem(map, &key, &listener), -ENOENT);
	}
}

static void classes_of_cgroups_that_are_gone(void **state)
{
	dmm_autoclose int map = steerrig_pin("maps/dmm_serv_class");
	struct dmm_server_key key = { .slot = 1 };
	uint32_t class_id = 5;
	char path[512];
	struct stat st;

	(void)state;
	steerrig_mkdir("/server");
	snprintf(path, sizeof(path), "%s/server", steerrig_cgroup_root());
	assert_int_equal(stat(path, &st), 0);
	key.cgroup = st.st_ino;
	assert_int_equal(bpf_map_update_elem(map, &key, &class_id, BPF_ANY), 0);
	sweep();
	assert_int_equal(bpf_map_lookup_elem(map, &key, &class_id), 0);
	assert_int_equal(class_id, 5);
	steerrig_rmdir("/server");
	sweep();
	assert_int_equal(bpf_map_lookup_elem(map, &key, &class_id), -ENOENT);
}

static struct dmm_inst_shared *begin(uint32_t id)
{
	struct dmm_instance inst = {
		.incarnation = 1,
		.ifindex = 3,
		.n_queues = 1,
		.port_first = 20000,
		.port_last = 20099,
		.name = "fast#0",
		.stack = "fast",
	};
	struct dmm_inst_fds fds = { -1, -1 };
	void *page;

	if (dmm_steer_inst_begin(steer, id, &inst, &fds) < 0)
		fail_msg("%s", dmm_steer_reason());
	page = mmap(NULL, sizeof(struct dmm_inst_shared), PROT_READ | PROT_WRITE, MAP_SHARED,
		    fds.shared, 0);
	assert_ptr_not_equal(page, MAP_FAILED);
	close(fds.shared);
	close(fds.ring);
	return page;
}

/* A client that came to @port, in a chain behind another one. */
static void enter_wire(struct dmm_inst_shared *page, uint32_t at, uint16_t port, uint32_t head)
{
	page->wire[at].local_port = htons(port);
	page->wire[at].next = page->head[head];
	page->head[head] = at + 1;
}

static uint64_t served(int map, uint16_t port, uint64_t now)
{
	struct dmm_port value = { .state = DMM_PORT_SERVED, .served = now };
	uint32_t key = DMM_PROTO_TCP << 16 | port;

	assert_int_equal(bpf_map_update_elem(map, &key, &value, BPF_ANY), 0);
	sweep();
	assert_int_equal(bpf_map_lookup_elem(map, &key, &value), 0);
	assert_int_equal(value.state, DMM_PORT_SERVED);
	return value.served;
}

/* Bytes of served: an id + 1. Of instance 9 nothing is known. */
static void instances_without_flows_of_a_port(void **state)
{
	dmm_autoclose int map = steerrig_pin("maps/dmm_ports");
	struct dmm_inst_shared *two = begin(2), *four = begin(4);

	(void)state;
	enter_wire(two, 7, 8080, 5);
	enter_wire(two, 8, 8081, 5);
	enter_wire(four, 0, 8080, DMM_WIRE_HEADS - 1);
	assert_true(served(map, 8080, 0x0a0503) == 0x0503); /* 2, 4 and 9 */
	assert_true(served(map, 8081, 0x0a0503) == 0x03);
	assert_true(served(map, 8082, 0x0a0503) == 0);
	two->head[5] = 8; /* 8081's went */
	assert_true(served(map, 8081, 0x0503) == 0);
	assert_true(served(map, 8080, 0x0503) == 0x0503);
	two->head[5] = 0;
	assert_true(served(map, 8080, 0x0503) == 0x05);
	/* what an instance writes there may be nonsense */
	four->head[3] = UINT32_MAX;
	two->head[3] = 1;
	two->wire[0].next = 1;
	assert_true(served(map, 8080, 0x0503) == 0x05);
	munmap(two, sizeof(*two));
	munmap(four, sizeof(*four));
}

static int run(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tuples_without_a_socket),
		cmocka_unit_test(listeners_that_are_gone),
		cmocka_unit_test(classes_of_cgroups_that_are_gone),
		cmocka_unit_test(instances_without_flows_of_a_port),
	};

	return cmocka_run_group_tests(tests, open_steer, close_steer);
}

int main(void)
{
	return steerrig_main(run);
}
