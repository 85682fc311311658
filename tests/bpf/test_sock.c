/* SPDX-License-Identifier: Apache-2.0 */
/* The socket door's decisions on real sockets in a cgroup of the test's own: verdicts, reasons, the
 * claim of a wire port, classes, the port guard. */
#define _GNU_SOURCE
#include "sockrig.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <cmocka.h>

#include "base/util.h"

#include "tests/bpf/other_sockops.skel.h"

#define FRESH AF_INET, SOCK_STREAM, 0

static void assert_state(const struct sockrig *rig, int fd, enum dmm_verdict verdict,
			 enum dmm_reason reason)
{
	struct dmm_sock st;

	sockrig_state(rig, fd, &st);
	assert_int_equal(st.reason, reason);
	assert_int_equal(st.verdict, verdict);
}

/* Connects a fresh v4 socket, expects @err and what the door decided, closes it. */
static void expect(struct sockrig *rig, const char *addr, uint16_t port, int err,
		   enum dmm_verdict verdict, enum dmm_reason reason)
{
	uint64_t before = bpfenv_counter(&rig->env, reason);
	int fd = sockrig_socket(strchr(addr, ':') ? AF_INET6 : AF_INET, SOCK_STREAM, 0);

	assert_int_equal(sockrig_connect(fd, addr, port), err);
	assert_state(rig, fd, verdict, reason);
	assert_int_equal(bpfenv_counter(&rig->env, reason), before + 1);
	close(fd);
}

static void kernel_verdict_leaves_the_socket_alone(void **state)
{
	struct sockrig *rig = *state;
	int fd = sockrig_socket(FRESH), peer;
	struct dmm_sock st;

	assert_int_equal(sockrig_connect(fd, RIG_FAR4, RIG_PORT_KERNEL), 0);
	peer = sockrig_accept(rig->far[DMM_FAMILY_V4]);
	sockrig_state(rig, fd, &st);
	assert_int_equal(st.verdict, DMM_VERDICT_KERNEL);
	assert_int_equal(st.reason, DMM_REASON_RULE);
	assert_int_equal(st.rule, RIG_RULE_DEFAULT);
	assert_int_equal(st.generation, rig->generation);
	assert_int_equal(st.class_id, RIG_CLASS);
	sockrig_assert_peer(fd, RIG_FAR4, RIG_PORT_KERNEL);
	sockrig_assert_name(fd, RIG_FAR4, 32768, 60999);
	assert_int_equal(sockrig_claims(rig), 0);
	close(peer);
	close(fd);
}

static void userspace_verdict_leads_to_the_relay(void **state)
{
	static const struct {
		int family;
		const char *addr, *own;
		enum dmm_family wire;
	} cases[] = {
		{ AF_INET, RIG_FAR4, "::ffff:" RIG_OWN4, DMM_FAMILY_V4 },
		{ AF_INET6, RIG_FAR6, RIG_OWN6, DMM_FAMILY_V6 },
		{ AF_INET6, RIG_FAR4, "::ffff:" RIG_OWN4, DMM_FAMILY_V4 },
	};
	struct sockrig *rig = *state;
	unsigned int i;

	for (i = 0; i < DMM_ARRAY_SIZE(cases); i++) {
		int fd = sockrig_socket(cases[i].family, SOCK_STREAM, 0), peer;
		struct dmm_addr own = bpfenv_addr(cases[i].own);
		struct dmm_sock st;
		uint16_t port;

		assert_int_equal(sockrig_connect(fd, cases[i].addr, RIG_PORT_STACK), 0);
		peer = sockrig_accept(rig->relay[cases[i].wire]);
		sockrig_state(rig, fd, &st);
		assert_int_equal(st.verdict, DMM_VERDICT_USERSPACE);
		assert_int_equal(st.reason, DMM_REASON_RULE);
		assert_int_equal(st.rule, RIG_RULE_STACK);
		assert_int_equal(st.instance, RIG_ID);
		assert_int_equal(st.incarnation, rig->inst.incarnation);
		assert_int_equal(st.stage, DMM_SOCK_STARTED);
		assert_int_equal(st.remote_port, htons(RIG_PORT_STACK));
		assert_memory_equal(st.local, own.b, 16);
		port = ntohs(st.local_port);
		assert_in_range(port, RIG_FIRST_PORT, RIG_LAST_PORT);
		/* without the lo filter nobody takes the claim over */
		assert_true(st.claim > DMM_PORT_USED);
		assert_int_equal(rig->page->port[port - RIG_FIRST_PORT], st.claim);
		assert_int_equal(sockrig_claims(rig), i + 1);
		close(peer);
		close(fd);
	}
}

static uint64_t cookie_of(int fd)
{
	socklen_t len = sizeof(uint64_t);
	uint64_t cookie = 0;

	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len), 0);
	return cookie;
}

static void read_flow(const struct sockrig *rig, uint64_t cookie, struct dmm_flow *ret)
{
	assert_true(bpfenv_find_flow(&rig->env, cookie, ret));
}

static void expect_end(const struct sockrig *rig, uint64_t cookie, enum dmm_flow_state state)
{
	struct dmm_flow flow = { 0 };
	unsigned int i;

	for (i = 0; i < 250 && !flow.closed_ns; i++) {
		usleep(i ? 20000 : 0);
		read_flow(rig, cookie, &flow);
	}
	assert_int_equal(flow.state, state);
	assert_true(flow.closed_ns >= flow.opened_ns); /* the coarse clock */
}

static void flows_are_listed(void **state)
{
	struct sockrig *rig = *state;
	int fd = sockrig_socket(FRESH), peer;
	uint64_t cookie = cookie_of(fd);
	struct dmm_flow flow;
	char buf[8];

	assert_int_equal(sockrig_connect(fd, RIG_FAR4, RIG_PORT_STACK), 0);
	peer = sockrig_accept(rig->relay[DMM_FAMILY_V4]);
	read_flow(rig, cookie, &flow);
	assert_int_equal(flow.state, DMM_FLOW_ESTABLISHED);
	assert_int_equal(flow.verdict, DMM_VERDICT_USERSPACE);
	assert_int_equal(flow.pid, getpid());
	assert_string_equal(flow.rule, "stack");
	assert_int_equal(flow.remote_port, htons(RIG_PORT_STACK));
	assert_in_range(ntohs(flow.local_port), RIG_FIRST_PORT, RIG_LAST_PORT);
	assert_int_equal(flow.relay_port, rig->inst.relay_port[DMM_FAMILY_V4]);

	assert_int_equal(write(fd, "12345", 5), 5);
	assert_int_equal(read(peer, buf, 5), 5);
	assert_int_equal(write(peer, "123", 3), 3);
	assert_int_equal(read(fd, buf, 3), 3);
	close(fd);
	close(peer);
	expect_end(rig, cookie, DMM_FLOW_CLOSED);
	read_flow(rig, cookie, &flow);
	assert_int_equal(flow.bytes_sent, 5);
	assert_int_equal(flow.bytes_received, 3);
}

static void flows_end_as_they_ended(void **state)
{
	struct linger hard = { .l_onoff = 1 };
	struct sockrig *rig = *state;
	int fd = sockrig_socket(FRESH), peer;
	uint64_t cookie = cookie_of(fd);

	assert_int_equal(sockrig_connect(fd, RIG_FAR4, RIG_PORT_STACK), 0);
	peer = sockrig_accept(rig->relay[DMM_FAMILY_V4]);
	setsockopt(peer, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	close(peer);
	expect_end(rig, cookie, DMM_FLOW_RESET);
	close(fd);

	fd = sockrig_socket(FRESH);
	cookie = cookie_of(fd);
	sockrig_connect(fd, RIG_FAR4, 1); /* nobody there */
	expect_end(rig, cookie, DMM_FLOW_FAILED);
	close(fd);
}

static void rules_and_builtins_decide(void **state)
{
	struct sockrig *rig = *state;

	expect(rig, RIG_FAR4, RIG_PORT_REJECT, -EPERM, DMM_VERDICT_REJECT, DMM_REASON_RULE);
	expect(rig, RIG_FAR6, RIG_PORT_REJECT, -EPERM, DMM_VERDICT_REJECT, DMM_REASON_RULE);
	expect(rig, "127.0.0.1", RIG_PORT_REJECT, 0, DMM_VERDICT_KERNEL, DMM_REASON_LOOPBACK);
	expect(rig, "0.0.0.0", RIG_PORT_REJECT, 0, DMM_VERDICT_KERNEL, DMM_REASON_LOOPBACK);
	expect(rig, RIG_OWN4, RIG_PORT_REJECT, 0, DMM_VERDICT_KERNEL, DMM_REASON_OWN_ADDRESS);
	expect(rig, "239.1.1.1", RIG_PORT_STACK, -ENETUNREACH, DMM_VERDICT_KERNEL,
	       DMM_REASON_MULTICAST);
	expect(rig, "10.55.1.1", RIG_PORT_STACK, 0, DMM_VERDICT_KERNEL, DMM_REASON_ROUTE);
	expect(rig, "10.56.1.1", RIG_PORT_STACK, 0, DMM_VERDICT_KERNEL, DMM_REASON_NO_ROUTE);
}

static void scoped_destinations_stay(void **state)
{
	struct sockrig *rig = *state;
	int fd = sockrig_socket(AF_INET6, SOCK_STREAM, 0);
	struct sockaddr_in6 sin6 = {
		.sin6_family = AF_INET6,
		.sin6_port = htons(RIG_PORT_STACK),
		.sin6_scope_id = 1,
	};
	struct dmm_addr addr = bpfenv_addr("fe80::1");

	memcpy(&sin6.sin6_addr, addr.b, 16);
	(void)!connect(fd, (struct sockaddr *)&sin6, sizeof(sin6));
	assert_state(rig, fd, DMM_VERDICT_KERNEL, DMM_REASON_SCOPED);
	close(fd);
}

/* --- what a relay cannot carry --- */

static void bind_device(int fd)
{
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3), 0);
}

static void bind_to(int fd, const char *addr, uint16_t port)
{
	struct dmm_addr a = bpfenv_addr(addr);
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(port) };
	int one = 1;

	setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &one, sizeof(one));
	if (!port)
		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	memcpy(&sin.sin_addr, a.b + 12, 4);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
}

static void bind_port(int fd)
{
	bind_to(fd, "0.0.0.0", 4567);
}

static void bind_foreign_address(int fd)
{
	bind_to(fd, RIG_FAR4, 0);
}

static void make_transparent(int fd)
{
	int one = 1;

	assert_int_equal(setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &one, sizeof(one)), 0);
}

static void sign_with_md5(int fd)
{
	struct sockaddr_in peer = { .sin_family = AF_INET };
	struct tcp_md5sig md5 = { .tcpm_keylen = 3, .tcpm_key = "key" };
	struct dmm_addr a = bpfenv_addr(RIG_FAR4);

	memcpy(&peer.sin_addr, a.b + 12, 4);
	memcpy(&md5.tcpm_addr, &peer, sizeof(peer));
	assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_MD5SIG, &md5, sizeof(md5)), 0);
}

static void expect_not_carried(struct sockrig *rig, int server)
{
	static const struct {
		void (*prepare)(int fd);
		enum dmm_reason reason;
		bool answered; /* the server has no MD5 key */
	} cases[] = {
		{ bind_device, DMM_REASON_BOUND_DEVICE, true },
		{ bind_port, DMM_REASON_BOUND_PORT, true },
		{ bind_foreign_address, DMM_REASON_BOUND_ADDRESS, true },
		{ make_transparent, DMM_REASON_TRANSPARENT, true },
		{ sign_with_md5, DMM_REASON_TCP_MD5, false },
	};
	unsigned int i;

	for (i = 0; i < DMM_ARRAY_SIZE(cases); i++) {
		int fd = sockrig_socket(FRESH);

		cases[i].prepare(fd);
		sockrig_connect(fd, RIG_FAR4, RIG_PORT_STRICT);
		assert_state(rig, fd, DMM_VERDICT_KERNEL, cases[i].reason);
		if (cases[i].answered) {
			close(sockrig_accept(server));
			sockrig_assert_peer(fd, RIG_FAR4, RIG_PORT_STRICT);
		}
		close(fd);
	}
	assert_int_equal(sockrig_claims(rig), 0);
}

/* Whether or not the instance is there: onUnavailable is not asked, a strict rule cuts nobody off. */
static void what_a_relay_cannot_carry_stays(void **state)
{
	dmm_autoclose int server = sockrig_listen(RIG_FAR4, RIG_PORT_STRICT);
	struct sockrig *rig = *state;

	expect_not_carried(rig, server);
	rig->inst.state = DMM_INST_DEAD;
	bpfenv_set_instance(&rig->env, RIG_ID, &rig->inst);
	expect_not_carried(rig, server);
}

static void an_own_address_that_was_bound_is_kept(void **state)
{
	struct sockrig *rig = *state;
	int fd = sockrig_socket(FRESH);
	struct dmm_addr own = bpfenv_addr("10.77.0.9");
	struct dmm_sock st;

	bpfenv_set_local(&rig->env, "10.77.0.9", RIG_IFINDEX, DMM_LOCAL_UNICAST);
	bind_to(fd, "10.77.0.9", 0);
	sockrig_connect(fd, RIG_FAR4, RIG_PORT_STACK);
	sockrig_state(rig, fd, &st);
	assert_int_equal(st.verdict, DMM_VERDICT_USERSPACE);
	assert_memory_equal(st.local, own.b, 16);
	close(fd);
}

static void sockets_of_another_namespace_stay(void **state)
{
	dmm_autoclose int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	struct sockrig *rig = *state;
	int fd;

	assert_int_equal(unshare(CLONE_NEWNET), 0);
	fd = sockrig_socket(FRESH);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	sockrig_connect(fd, RIG_FAR4, RIG_PORT_STACK);
	assert_state(rig, fd, DMM_VERDICT_KERNEL, DMM_REASON_OTHER_NETNS);
	close(fd);
}

/* --- when there is no instance to be had --- */

/* onUnavailable: kernel for one rule, reject for the other. */
static void expect_unavailable(struct sockrig *rig, enum dmm_reason reason)
{
	struct dmm_inst_stats before, after;

	bpfenv_inst_stats(&rig->env, RIG_ID, &before);
	expect(rig, RIG_FAR4, RIG_PORT_STACK, 0, DMM_VERDICT_KERNEL, reason);
	expect(rig, RIG_FAR6, RIG_PORT_STACK, 0, DMM_VERDICT_KERNEL, reason);
	expect(rig, RIG_FAR4, RIG_PORT_STRICT, -EPERM, DMM_VERDICT_REJECT, reason);
	expect(rig, RIG_FAR6, RIG_PORT_STRICT, -EPERM, DMM_VERDICT_REJECT, reason);
	bpfenv_inst_stats(&rig->env, RIG_ID, &after);
	assert_int_equal(after.rejects, before.rejects + 4);
	assert_int_equal(after.connects, before.connects);
	assert_int_equal(sockrig_claims(rig), 0);
}

static void instance_not_ready_is_unavailable(void **state)
{
	static const enum dmm_inst_state states[] = { DMM_INST_FREE, DMM_INST_STARTING,
						      DMM_INST_DRAINING, DMM_INST_DEAD };
	struct sockrig *rig = *state;
	unsigned int i;

	for (i = 0; i < DMM_ARRAY_SIZE(states); i++) {
		rig->inst.state = states[i];
		bpfenv_set_instance(&rig->env, RIG_ID, &rig->inst);
		expect_unavailable(rig, DMM_REASON_INST_NOT_READY);
	}
}

static void stale_heartbeat_is_unavailable(void **state)
{
	struct sockrig *rig = *state;

	uint32_t stale_ms = rig->env.config.stale_ms;

	bpfenv_beat(rig->page, stale_ms + 500);
	expect_unavailable(rig, DMM_REASON_INST_STALE);
	rig->page->beat_ns = 0;
	expect_unavailable(rig, DMM_REASON_INST_STALE);
	/* what is stale is for the configuration to say */
	bpfenv_beat(rig->page, stale_ms + 500);
	rig->env.config.stale_ms = 3600000;
	bpfenv_set_config(&rig->env);
	expect(rig, RIG_FAR4, RIG_PORT_STRICT, 0, DMM_VERDICT_USERSPACE, DMM_REASON_RULE);
	rig->env.config.stale_ms = stale_ms;
	bpfenv_set_config(&rig->env);
}

static void nobody_squats_on_the_relay_port(void **state)
{
	struct sockrig *rig = *state;

	/* a listener that dmmd did not mark */
	sockrig_relisten(rig, DMM_FAMILY_V4, false);
	sockrig_relisten(rig, DMM_FAMILY_V6, false);
	expect_unavailable(rig, DMM_REASON_INST_NO_RELAY);
	/* one of an earlier life */
	sockrig_mark(rig, rig->relay[DMM_FAMILY_V4]);
	sockrig_mark(rig, rig->relay[DMM_FAMILY_V6]);
	rig->inst.incarnation++;
	bpfenv_set_instance(&rig->env, RIG_ID, &rig->inst);
	expect_unavailable(rig, DMM_REASON_INST_NO_RELAY);
	/* none */
	rig->inst.incarnation--;
	rig->inst.relay_port[0] = rig->inst.relay_port[1] = htons(9);
	bpfenv_set_instance(&rig->env, RIG_ID, &rig->inst);
	expect_unavailable(rig, DMM_REASON_INST_NO_RELAY);
}

static void no_free_port_is_unavailable(void **state)
{
	struct sockrig *rig = *state;
	unsigned int i;

	for (i = 0; i <= RIG_LAST_PORT - RIG_FIRST_PORT; i++)
		rig->page->port[i] = DMM_PORT_USED;
	expect(rig, RIG_FAR4, RIG_PORT_STRICT, -EPERM, DMM_VERDICT_REJECT, DMM_REASON_NO_PORT);
	expect(rig, RIG_FAR6, RIG_PORT_STACK, 0, DMM_VERDICT_KERNEL, DMM_REASON_NO_PORT);
	for (i = 0; i <= RIG_LAST_PORT - RIG_FIRST_PORT; i++)
		assert_int_equal(rig->page->port[i], DMM_PORT_USED);
	assert_int_equal(rig->page->port[RIG_LAST_PORT - RIG_FIRST_PORT + 1], DMM_PORT_FREE);
}

static void each_connect_claims_its_own_port(void **state)
{
	struct sockrig *rig = *state;
	int fds[16];
	unsigned int i;

	for (i = 0; i < DMM_ARRAY_SIZE(fds); i++) {
		fds[i] = sockrig_socket(FRESH);
		assert_int_equal(sockrig_connect(fds[i], RIG_FAR4, RIG_PORT_STACK), 0);
		assert_state(rig, fds[i], DMM_VERDICT_USERSPACE, DMM_REASON_RULE);
		assert_int_equal(sockrig_claims(rig), i + 1);
	}
	for (i = 0; i < DMM_ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

/* However unlucky the rotor. */
static void the_last_free_port_is_found(void **state)
{
	struct sockrig *rig = *state;
	struct dmm_sock st;
	unsigned int i;

	rig->inst.port_last = RIG_FIRST_PORT + DMM_MAX_PORTS - 1;
	bpfenv_set_instance(&rig->env, RIG_ID, &rig->inst);
	for (i = 0; i < DMM_MAX_PORTS; i++)
		rig->page->port[i] = DMM_PORT_USED;
	for (i = 0; i < 8; i++) {
		unsigned int last = i == 0 ? DMM_MAX_PORTS - 1 : i * 2003;
		int fd = sockrig_socket(FRESH);

		rig->page->port[last] = DMM_PORT_FREE;
		assert_int_equal(sockrig_connect(fd, RIG_FAR4, RIG_PORT_STRICT), 0);
		sockrig_state(rig, fd, &st);
		assert_int_equal(ntohs(st.local_port), RIG_FIRST_PORT + last);
		assert_int_equal(rig->page->port[last], st.claim);
		close(fd);
		rig->page->port[last] = DMM_PORT_USED;
	}
	expect(rig, RIG_FAR4, RIG_PORT_STRICT, -EPERM, DMM_VERDICT_REJECT, DMM_REASON_NO_PORT);
}

static void reconnecting_releases_the_claim(void **state)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	struct sockrig *rig = *state;
	int fd = sockrig_socket(FRESH);

	assert_int_equal(sockrig_connect(fd, RIG_FAR4, RIG_PORT_STACK), 0);
	assert_int_equal(sockrig_claims(rig), 1);
	assert_int_equal(connect(fd, &none, sizeof(none)), 0);
	assert_int_equal(sockrig_connect(fd, RIG_FAR4, RIG_PORT_STACK), 0);
	assert_int_equal(sockrig_claims(rig), 1);
	assert_int_equal(connect(fd, &none, sizeof(none)), 0);
	assert_int_equal(sockrig_connect(fd, RIG_FAR4, RIG_PORT_KERNEL), 0);
	assert_int_equal(sockrig_claims(rig), 0);
	assert_state(rig, fd, DMM_VERDICT_KERNEL, DMM_REASON_RULE);
	sockrig_assert_peer(fd, RIG_FAR4, RIG_PORT_KERNEL);
	close(fd);
}

/* --- guard --- */

static int try_bind(int type, const char *addr, uint16_t port)
{
	int family = strchr(addr, ':') ? AF_INET6 : AF_INET;
	struct dmm_addr a = bpfenv_addr(addr);
	struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = sockrig_socket(family, type, 0), r;

	memcpy(&sin6.sin6_addr, a.b, 16);
	memcpy(&sin.sin_addr, a.b + 12, 4);
	r = family == AF_INET ? bind(fd, (struct sockaddr *)&sin, sizeof(sin))
			      : bind(fd, (struct sockaddr *)&sin6, sizeof(sin6));
	r = r < 0 ? -errno : 0;
	close(fd);
	return r;
}

static void ports_of_instances_cannot_be_bound(void **state)
{
	struct sockrig *rig = *state;
	uint64_t before = bpfenv_counter(&rig->env, DMM_REASON_PORT_OWNED);

	bpfenv_set_port(&rig->env, DMM_PROTO_TCP, 20005, DMM_PORT_RANGE, RIG_ID);
	assert_int_equal(try_bind(SOCK_STREAM, "0.0.0.0", 20005), -EADDRINUSE);
	assert_int_equal(try_bind(SOCK_STREAM, "127.0.0.1", 20005), -EADDRINUSE);
	assert_int_equal(try_bind(SOCK_STREAM, "::", 20005), -EADDRINUSE);
	assert_int_equal(bpfenv_counter(&rig->env, DMM_REASON_PORT_OWNED), before + 3);
	assert_int_equal(try_bind(SOCK_STREAM, "0.0.0.0", 20006), 0);
	assert_int_equal(try_bind(SOCK_STREAM, "0.0.0.0", 0), 0);
	assert_int_equal(try_bind(SOCK_DGRAM, "0.0.0.0", 20005), 0);
	bpfenv_set_port(&rig->env, DMM_PROTO_UDP, 20005, DMM_PORT_RANGE, RIG_ID);
	assert_int_equal(try_bind(SOCK_DGRAM, "::", 20005), -EADDRINUSE);
	bpfenv_set_port(&rig->env, DMM_PROTO_UDP, 20005, DMM_PORT_KERNEL, 0);

	/* other namespaces have ports of their own */
	rig->env.config.netns_cookie ^= 1;
	bpfenv_set_config(&rig->env);
	assert_int_equal(try_bind(SOCK_STREAM, "0.0.0.0", 20005), 0);
	rig->env.config.netns_cookie ^= 1;
	bpfenv_set_config(&rig->env);
	bpfenv_set_port(&rig->env, DMM_PROTO_TCP, 20005, DMM_PORT_KERNEL, 0);
}

static void udp_is_not_touched(void **state)
{
	struct sockrig *rig = *state;
	uint64_t before = bpfenv_counter(&rig->env, DMM_REASON_NOT_STREAM);
	int fd = sockrig_socket(AF_INET, SOCK_DGRAM, 0);
	struct dmm_sock st;

	assert_int_equal(sockrig_connect(fd, RIG_FAR4, RIG_PORT_STRICT), 0);
	assert_int_equal(bpfenv_counter(&rig->env, DMM_REASON_NOT_STREAM), before + 1);
	sockrig_assert_peer(fd, RIG_FAR4, RIG_PORT_STRICT);
	sockrig_state(rig, fd, &st);
	assert_int_equal(st.verdict, DMM_VERDICT_NONE);
	close(fd);
}

/* --- when a table or the memory ends --- */

/* A filter of @n instructions in place of the one it has. */
static int attach_filter(int fd, unsigned int n)
{
	static struct sock_filter insns[BPF_MAXINSNS];
	struct sock_fprog fprog = { .filter = insns, .len = n };

	for (unsigned int i = 0; i + 1 < n; i++)
		insns[i] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0);
	insns[n - 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0xffff);
	setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &fprog, sizeof(int)); /* of any value */
	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &fprog, sizeof(fprog));
}

/* Takes the option memory of a socket (net.core.optmem_max), where its state would lie, by the
 * largest filter that fits. */
static void exhaust_options(int fd)
{
	unsigned int fits = 1, too_large = BPF_MAXINSNS;

	assert_int_equal(attach_filter(fd, too_large), -1);
	assert_int_equal(errno, ENOMEM);
	while (too_large - fits > 1) {
		unsigned int n = (fits + too_large) / 2;

		if (attach_filter(fd, n) == 0)
			fits = n;
		else
			too_large = n;
	}
	assert_int_equal(attach_filter(fd, fits), 0);
}

static void without_memory_it_stays_in_the_kernel(void **state)
{
	struct sockrig *rig = *state;
	uint64_t before = bpfenv_counter(&rig->env, DMM_REASON_NO_MEMORY);
	int fd = sockrig_socket(FRESH);
	struct dmm_sock st;

	assert_int_equal(bpf_map_delete_elem(bpfenv_map(&rig->env, "dmm_sock"), &fd), 0);
	exhaust_options(fd);
	assert_int_equal(sockrig_connect(fd, RIG_FAR4, RIG_PORT_KERNEL), 0);
	assert_int_equal(bpfenv_counter(&rig->env, DMM_REASON_NO_MEMORY), before + 1);
	close(sockrig_accept(rig->far[DMM_FAMILY_V4]));
	sockrig_assert_peer(fd, RIG_FAR4, RIG_PORT_KERNEL);
	sockrig_state(rig, fd, &st);
	assert_int_equal(st.verdict, DMM_VERDICT_NONE);
	close(fd);
}

/* --- classes and nesting --- */

static int socket_in_child(void)
{
	int fd;

	sockrig_enter_child();
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	sockrig_leave();
	assert_true(fd >= 0);
	return fd;
}

static int connect_in_child(int fd, uint16_t port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct dmm_addr a = bpfenv_addr(RIG_FAR4);
	int r;

	memcpy(&sin.sin_addr, a.b + 12, 4);
	sockrig_enter_child();
	r = connect(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0 ? -errno : 0;
	sockrig_leave();
	return r;
}

static void the_deepest_known_class_decides(void **state)
{
	struct sockrig *rig = *state;
	int fd = socket_in_child(), old = socket_in_child();
	struct dmm_sock st;

	sockrig_state(rig, fd, &st);
	assert_int_equal(st.class_id, RIG_CHILD_CLASS);
	connect_in_child(fd, RIG_PORT_STACK);
	assert_state(rig, fd, DMM_VERDICT_KERNEL, DMM_REASON_RULE);
	close(fd);

	/* a generation that does not know the inner cgroup: the outer's class, also for a socket
	 * that is older than the generation */
	sockrig_next_generation(rig, false);
	fd = socket_in_child();
	sockrig_state(rig, fd, &st);
	assert_int_equal(st.class_id, RIG_CLASS);
	assert_int_equal(connect_in_child(fd, RIG_PORT_STACK), -EINPROGRESS);
	assert_state(rig, fd, DMM_VERDICT_USERSPACE, DMM_REASON_RULE);
	assert_int_equal(connect_in_child(old, RIG_PORT_STACK), -EINPROGRESS);
	sockrig_state(rig, old, &st);
	assert_int_equal(st.class_id, RIG_CLASS);
	assert_int_equal(st.verdict, DMM_VERDICT_USERSPACE);
	close(fd);
	close(old);
}

static void other_sockops_programs_keep_their_callbacks(void **state)
{
	dmm_autoclose int cgroup = sockrig_open_child();
	struct other_sockops_bpf *other = other_sockops_bpf__open_and_load();
	struct sockrig *rig = *state;
	struct bpf_link *link;
	int fd;

	assert_non_null(other);
	link = bpf_program__attach_cgroup(other->progs.other_sockops, cgroup);
	assert_non_null(link);
	fd = socket_in_child();
	assert_int_equal(connect_in_child(fd, RIG_PORT_KERNEL), -EINPROGRESS);
	close(sockrig_accept(rig->far[DMM_FAMILY_V4]));
	assert_int_equal(sockrig_outcome(fd, 5000), 0);
	close(fd);
	assert_int_equal(other->bss->flags_seen,
			 BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG);
	bpf_link__destroy(link);
	other_sockops_bpf__destroy(other);
}

static void a_class_is_that_of_the_socket(void **state)
{
	struct sockrig *rig = *state;
	int fd = socket_in_child();
	struct dmm_sock st;

	/* connected by a task of the outer cgroup */
	sockrig_connect(fd, RIG_FAR4, RIG_PORT_STACK);
	sockrig_state(rig, fd, &st);
	assert_int_equal(st.class_id, RIG_CHILD_CLASS);
	assert_int_equal(st.verdict, DMM_VERDICT_KERNEL);
	close(fd);
}

static int run(void)
{
#define TEST(f) cmocka_unit_test_setup(f, sockrig_reset)
	const struct CMUnitTest tests[] = {
		TEST(kernel_verdict_leaves_the_socket_alone),
		TEST(userspace_verdict_leads_to_the_relay),
		TEST(flows_are_listed),
		TEST(flows_end_as_they_ended),
		TEST(rules_and_builtins_decide),
		TEST(scoped_destinations_stay),
		TEST(what_a_relay_cannot_carry_stays),
		TEST(an_own_address_that_was_bound_is_kept),
		TEST(sockets_of_another_namespace_stay),
		TEST(instance_not_ready_is_unavailable),
		TEST(stale_heartbeat_is_unavailable),
		TEST(nobody_squats_on_the_relay_port),
		TEST(no_free_port_is_unavailable),
		TEST(each_connect_claims_its_own_port),
		TEST(the_last_free_port_is_found),
		TEST(reconnecting_releases_the_claim),
		TEST(ports_of_instances_cannot_be_bound),
		TEST(udp_is_not_touched),
		TEST(without_memory_it_stays_in_the_kernel),
		TEST(the_deepest_known_class_decides),
		TEST(a_class_is_that_of_the_socket),
		TEST(other_sockops_programs_keep_their_callbacks),
	};

	return cmocka_run_group_tests(tests, sockrig_setup, sockrig_teardown);
}

int main(void)
{
	return sockrig_main(run);
}
