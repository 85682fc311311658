/* SPDX-License-Identifier: Apache-2.0 */
/* getpeername() and getsockname() tell the application what it asked for, never the relay. */
#define _GNU_SOURCE
#include "sockrig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <cmocka.h>

#include "base/util.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

struct leg {
	int fd, peer; /* the application's end and the instance's */
};

static struct leg open_leg(struct sockrig *rig, int family, int protocol, const char *addr)
{
	enum dmm_family wire = strchr(addr, ':') ? DMM_FAMILY_V6 : DMM_FAMILY_V4;
	struct leg leg = { .fd = sockrig_socket(family, SOCK_STREAM, protocol) };

	assert_int_equal(sockrig_connect(leg.fd, addr, RIG_PORT_STACK), 0);
	leg.peer = sockrig_accept(rig->relay[wire]);
	assert_int_equal(sockrig_outcome(leg.fd, 5000), 0);
	return leg;
}

static void close_leg(struct leg *leg)
{
	close(leg->fd);
	close(leg->peer);
}

static void assert_truthful(int fd, const char *far, const char *own)
{
	sockrig_assert_peer(fd, far, RIG_PORT_STACK);
	sockrig_assert_name(fd, own, RIG_FIRST_PORT, RIG_LAST_PORT);
}

static void names_are_true_in_both_families(void **state)
{
	struct leg leg;

	leg = open_leg(*state, AF_INET, 0, RIG_FAR4);
	assert_truthful(leg.fd, RIG_FAR4, RIG_OWN4);
	close_leg(&leg);
	leg = open_leg(*state, AF_INET6, 0, RIG_FAR6);
	assert_truthful(leg.fd, RIG_FAR6, RIG_OWN6);
	close_leg(&leg);
	leg = open_leg(*state, AF_INET6, 0, RIG_FAR4); /* mapped */
	assert_truthful(leg.fd, RIG_FAR4, RIG_OWN4);
	close_leg(&leg);
}

static void names_do_not_depend_on_who_asks(void **state)
{
	struct leg leg = open_leg(*state, AF_INET, 0, RIG_FAR4);
	int copy = dup(leg.fd);

	/* asked above from outside the cgroup */
	sockrig_enter();
	assert_truthful(copy, RIG_FAR4, RIG_OWN4);
	sockrig_leave();
	close(leg.fd);
	leg.fd = copy;
	assert_truthful(leg.fd, RIG_FAR4, RIG_OWN4);
	close_leg(&leg);
}

static void the_instance_sees_its_own_leg(void **state)
{
	struct sockrig *rig = *state;
	struct leg leg = open_leg(rig, AF_INET, 0, RIG_FAR4);
	uint16_t relay = ntohs(rig->inst.relay_port[DMM_FAMILY_V4]);

	sockrig_assert_name(leg.peer, "127.0.0.1", relay, relay);
	close_leg(&leg);
}

static void names_outlive_the_connection(void **state)
{
	struct linger hard = { .l_onoff = 1 };
	struct leg leg = open_leg(*state, AF_INET, 0, RIG_FAR4);
	struct pollfd p = { .fd = leg.fd, .events = POLLIN };
	char byte;

	/* half-closed by the peer */
	assert_int_equal(shutdown(leg.peer, SHUT_WR), 0);
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(read(leg.fd, &byte, 1), 0);
	assert_truthful(leg.fd, RIG_FAR4, RIG_OWN4);
	/* reset: the kernel has no peer any more, but still the local name */
	assert_int_equal(write(leg.fd, "x", 1), 1);
	setsockopt(leg.peer, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	close(leg.peer);
	p.events = POLLERR;
	assert_int_equal(poll(&p, 1, 5000), 1);
	sockrig_assert_name(leg.fd, RIG_OWN4, RIG_FIRST_PORT, RIG_LAST_PORT);
	close(leg.fd);
}

static void names_are_the_kernels_after_disconnect(void **state)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	struct sockrig *rig = *state;
	struct leg leg = open_leg(rig, AF_INET, 0, RIG_FAR4);
	struct sockaddr_in sin;
	socklen_t len = sizeof(sin);

	assert_int_equal(connect(leg.fd, &none, sizeof(none)), 0);
	assert_int_equal(getpeername(leg.fd, (struct sockaddr *)&sin, &len), -1);
	sockrig_assert_name(leg.fd, "0.0.0.0", 0, 65535);
	close(leg.peer);
	assert_int_equal(sockrig_connect(leg.fd, RIG_FAR4, RIG_PORT_KERNEL), 0);
	leg.peer = sockrig_accept(rig->far[DMM_FAMILY_V4]);
	sockrig_assert_peer(leg.fd, RIG_FAR4, RIG_PORT_KERNEL);
	sockrig_assert_name(leg.fd, RIG_FAR4, 32768, 60999);
	close_leg(&leg);
}

/* A server in the cgroup: accept() passes through getpeername too. */
static void accepted_sockets_are_not_touched(void **state)
{
	struct sockaddr_in sin, client;
	socklen_t len = sizeof(sin);
	int server, fd, peer;

	(void)state;
	sockrig_enter();
	server = sockrig_listen("127.0.0.1", 0);
	sockrig_leave();
	assert_int_equal(getsockname(server, (struct sockaddr *)&sin, &len), 0);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	len = sizeof(client);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&client, &len), 0);
	peer = sockrig_accept(server);
	sockrig_assert_peer(peer, "127.0.0.1", ntohs(client.sin_port));
	sockrig_assert_name(peer, "127.0.0.1", ntohs(sin.sin_port), ntohs(sin.sin_port));
	close(fd);
	close(peer);
	close(server);
}

static void mptcp_sockets_are_truthful(void **state)
{
	struct sockrig *rig = *state;
	int probe = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
	struct leg leg;

	if (probe < 0) {
		print_message("# skip: no MPTCP sockets in this kernel\n");
		skip();
	}
	close(probe);
	leg = open_leg(rig, AF_INET, IPPROTO_MPTCP, RIG_FAR4);
	assert_truthful(leg.fd, RIG_FAR4, RIG_OWN4);
	close_leg(&leg);
	leg = open_leg(rig, AF_INET6, IPPROTO_MPTCP, RIG_FAR6);
	assert_truthful(leg.fd, RIG_FAR6, RIG_OWN6);
	close_leg(&leg);
	leg = open_leg(rig, AF_INET6, IPPROTO_MPTCP, RIG_FAR4);
	assert_truthful(leg.fd, RIG_FAR4, RIG_OWN4);
	close_leg(&leg);
}

/* Full of what nobody swept: that is counted, and others than MPTCP sockets do not need it. */
static void a_full_map_of_tuples_makes_no_lie(void **state)
{
	struct sockrig *rig = *state;
	int map = bpfenv_map(&rig->env, "dmm_tuples");
	struct dmm_tuple tuple = { .app = { 1 } };
	struct dmm_peer peer = {};
	struct leg leg;
	uint32_t n = 0;
	int r;

	while (memcpy(tuple.relay, &n, sizeof(n)),
	       (r = bpf_map_update_elem(map, &tuple, &peer, 0)) == 0)
		n++;
	print_message("# %u tuples, then %d\n", n, r);
	assert_int_equal(r, -E2BIG);
	leg = open_leg(rig, AF_INET, 0, RIG_FAR4);
	assert_truthful(leg.fd, RIG_FAR4, RIG_OWN4);
	assert_int_equal(bpfenv_counter(&rig->env, DMM_REASON_NO_MEMORY), 1);
	close_leg(&leg);
	while (n-- > 0) {
		memcpy(tuple.relay, &n, sizeof(n));
		assert_int_equal(bpf_map_delete_elem(map, &tuple), 0);
	}
	leg = open_leg(rig, AF_INET, 0, RIG_FAR4);
	assert_int_equal(bpfenv_counter(&rig->env, DMM_REASON_NO_MEMORY), 1);
	close_leg(&leg);
}

static int run(void)
{
#define TEST(f) cmocka_unit_test_setup(f, sockrig_reset)
	const struct CMUnitTest tests[] = {
		TEST(names_are_true_in_both_families),
		TEST(names_do_not_depend_on_who_asks),
		TEST(the_instance_sees_its_own_leg),
		TEST(names_outlive_the_connection),
		TEST(names_are_the_kernels_after_disconnect),
		TEST(accepted_sockets_are_not_touched),
		TEST(mptcp_sockets_are_truthful),
		TEST(a_full_map_of_tuples_makes_no_lie),
	};

	return cmocka_run_group_tests(tests, sockrig_setup, sockrig_teardown);
}

int main(void)
{
	return sockrig_main(run);
}
