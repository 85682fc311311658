/* SPDX-License-Identifier: Apache-2.0 */
/* The SYN hold on lo: connect() to a stack ends as the test, playing the instance, says. */
#define _GNU_SOURCE
#include "sockrig.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/libbpf.h>
#include <cmocka.h>

#include "base/util.h"
#include "instance/inject.h"

/* --- the ring --- */

struct events {
	struct ring_buffer *ring;
	struct dmm_event ev[16];
	unsigned int n;
};

static int take(void *ctx, void *data, size_t size)
{
	struct events *events = ctx;

	assert_int_equal(size, sizeof(struct dmm_event));
	if (events->n < DMM_ARRAY_SIZE(events->ev))
		memcpy(&events->ev[events->n++], data, size);
	return 0;
}

static void open_events(struct sockrig *rig, struct events *events)
{
	memset(events, 0, sizeof(*events));
	events->ring = ring_buffer__new(rig->ring_fd, take, events, NULL);
	assert_non_null(events->ring);
}

/* The next event, which must be of that kind. */
static struct dmm_event *expect_event(struct events *events, enum dmm_event_kind kind, int ms)
{
	unsigned int before = events->n;

	if (ring_buffer__poll(events->ring, ms) < 1)
		fail_msg("no event of kind %d", kind);
	assert_int_equal(events->ev[before].kind, kind);
	return &events->ev[before];
}

static void expect_nothing(struct events *events, int ms)
{
	assert_int_equal(ring_buffer__poll(events->ring, ms), 0);
}

/* --- what the instance does with a held SYN --- */

static void send_raw(const struct dmm_event *ev, const uint8_t *packet, size_t len)
{
	bool v4 = ev->family == DMM_FAMILY_V4;
	dmm_autoclose int fd =
		socket(v4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in sin = { .sin_family = AF_INET };

	assert_true(fd >= 0);
	memcpy(&sin.sin_addr, packet + 16, 4);
	memcpy(&sin6.sin6_addr, packet + 24, 16);
	assert_int_equal(sendto(fd, packet, len, 0,
				v4 ? (struct sockaddr *)&sin : (struct sockaddr *)&sin6,
				v4 ? sizeof(sin) : sizeof(sin6)),
			 len);
}

static struct held_syn held(const struct dmm_event *ev)
{
	struct held_syn syn;

	assert_true(inject_hold(ev->packet, ev->packet_len, &syn));
	return syn;
}

static void inject(const struct dmm_event *ev)
{
	struct held_syn syn = held(ev);

	send_raw(ev, syn.packet, syn.len);
}

static struct tcphdr *tcp_of(struct dmm_event *ev)
{
	return (struct tcphdr *)(ev->packet +
				 (ev->family == DMM_FAMILY_V4 ? (ev->packet[0] & 15) * 4 : 40));
}

static void refuse(const struct dmm_event *ev)
{
	struct held_syn syn = held(ev);
	uint8_t packet[INJECT_MAX];

	send_raw(ev, packet, inject_refusal(&syn, packet));
}

/* --- tests --- */

static const struct {
	int family;
	const char *far, *own, *relay;
	enum dmm_family wire;
} families[] = {
	{ AF_INET, RIG_FAR4, RIG_OWN4, "127.0.0.1", DMM_FAMILY_V4 },
	{ AF_INET6, RIG_FAR6, RIG_OWN6, "::1", DMM_FAMILY_V6 },
	{ AF_INET6, RIG_FAR4, RIG_OWN4, "127.0.0.1", DMM_FAMILY_V4 }, /* mapped */
};

static int start(unsigned int family)
{
	int fd = sockrig_socket(families[family].family, SOCK_STREAM, 0);

	assert_int_equal(sockrig_connect(fd, families[family].far, RIG_PORT_STACK), 0);
	return fd;
}

static void assert_nobody_connects(int listener)
{
	struct pollfd p = { .fd = listener, .events = POLLIN };

	assert_int_equal(poll(&p, 1, 50), 0);
}

static uint64_t cookie_of(int fd)
{
	socklen_t len = sizeof(uint64_t);
	uint64_t cookie = 0;

	getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len);
	return cookie;
}

static void assert_addr(const uint8_t *got, const char *want)
{
	struct dmm_addr addr = bpfenv_addr(want);

	assert_memory_equal(got, addr.b, 16);
}

static void syn_is_held_and_told(void **state)
{
	struct sockrig *rig = *state;
	struct events events;
	unsigned int i;

	open_events(rig, &events);
	for (i = 0; i < DMM_ARRAY_SIZE(families); i++) {
		uint64_t before = bpfenv_counter(&rig->env, DMM_REASON_SYN_HELD);
		int fd = start(i);
		struct dmm_event *ev = expect_event(&events, DMM_EVENT_SYN, 5000);
		struct dmm_sock st;

		assert_int_equal(ev->family, families[i].wire);
		assert_int_equal(ev->cookie, cookie_of(fd));
		assert_addr(ev->app, families[i].relay);
		assert_addr(ev->relay, families[i].relay);
		assert_addr(ev->local, families[i].own);
		assert_addr(ev->remote, families[i].far);
		assert_int_equal(ev->relay_port, rig->inst.relay_port[ev->family]);
		assert_int_equal(ev->remote_port, htons(RIG_PORT_STACK));
		assert_in_range(ntohs(ev->local_port), RIG_FIRST_PORT, RIG_LAST_PORT);
		assert_int_equal(ev->packet[0] >> 4, ev->family == DMM_FAMILY_V4 ? 4 : 6);
		assert_int_equal(tcp_of(ev)->source, ev->app_port);
		assert_int_equal(tcp_of(ev)->dest, ev->relay_port);
		assert_true(tcp_of(ev)->syn && !tcp_of(ev)->ack);
		assert_int_equal(bpfenv_counter(&rig->env, DMM_REASON_SYN_HELD), before + 1);
		assert_nobody_connects(rig->relay[ev->family]);
		assert_int_equal(sockrig_outcome(fd, 0), -ETIMEDOUT);
		/* the port is the instance's now */
		sockrig_state(rig, fd, &st);
		assert_int_equal(st.claim, 0);
		assert_true(rig->page->port[ntohs(ev->local_port) - RIG_FIRST_PORT] >
			    DMM_PORT_USED);
		close(fd);
		expect_event(&events, DMM_EVENT_CLOSED, 5000);
	}
	ring_buffer__free(events.ring);
}

static void injected_syn_connects(void **state)
{
	struct sockrig *rig = *state;
	struct events events;
	unsigned int i;
	char byte;

	open_events(rig, &events);
	for (i = 0; i < DMM_ARRAY_SIZE(families); i++) {
		int fd = start(i), peer;

		inject(expect_event(&events, DMM_EVENT_SYN, 5000));
		peer = sockrig_accept(rig->relay[families[i].wire]);
		assert_int_equal(sockrig_outcome(fd, 5000), 0);
		sockrig_assert_peer(fd, families[i].far, RIG_PORT_STACK);
		sockrig_assert_name(fd, families[i].own, RIG_FIRST_PORT, RIG_LAST_PORT);
		assert_int_equal(write(fd, "x", 1), 1);
		assert_int_equal(read(peer, &byte, 1), 1);
		close(fd);
		close(peer);
		expect_nothing(&events, 50);
	}
	ring_buffer__free(events.ring);
}

static void refusal_is_connection_refused(void **state)
{
	struct sockrig *rig = *state;
	struct events events;
	unsigned int i;

	open_events(rig, &events);
	for (i = 0; i < DMM_ARRAY_SIZE(families); i++) {
		int fd = start(i);

		refuse(expect_event(&events, DMM_EVENT_SYN, 5000));
		assert_int_equal(sockrig_outcome(fd, 5000), ECONNREFUSED);
		close(fd);
		/* it ended while held: the instance hears of it as well */
		expect_event(&events, DMM_EVENT_CLOSED, 5000);
	}
	ring_buffer__free(events.ring);
}

static void closing_while_held_is_told(void **state)
{
	struct sockrig *rig = *state;
	struct events events;
	unsigned int i;

	open_events(rig, &events);
	for (i = 0; i < DMM_ARRAY_SIZE(families); i++) {
		int fd = start(i);
		struct dmm_event syn = *expect_event(&events, DMM_EVENT_SYN, 5000), *ev;

		close(fd);
		ev = expect_event(&events, DMM_EVENT_CLOSED, 5000);
		assert_int_equal(ev->cookie, syn.cookie);
		assert_int_equal(ev->family, syn.family);
		assert_memory_equal(ev->app, syn.app, 16);
		assert_memory_equal(ev->relay, syn.relay, 16);
		assert_int_equal(ev->app_port, syn.app_port);
		assert_int_equal(ev->relay_port, syn.relay_port);
		assert_memory_equal(ev->local, syn.local, 16);
		assert_memory_equal(ev->remote, syn.remote, 16);
		assert_int_equal(ev->local_port, syn.local_port);
		assert_int_equal(ev->remote_port, syn.remote_port);
	}
	ring_buffer__free(events.ring);
}

static void disconnecting_while_held_is_told(void **state)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	struct sockrig *rig = *state;
	struct events events;
	struct dmm_event syn, *ev;
	int fd;

	open_events(rig, &events);
	fd = start(0);
	syn = *expect_event(&events, DMM_EVENT_SYN, 5000);
	assert_int_equal(connect(fd, &none, sizeof(none)), 0);
	ev = expect_event(&events, DMM_EVENT_CLOSED, 5000);
	assert_int_equal(ev->cookie, syn.cookie);
	assert_int_equal(ev->app_port, syn.app_port);
	assert_memory_equal(ev->app, syn.app, 16);
	assert_int_equal(ev->local_port, syn.local_port);
	close(fd);
	ring_buffer__free(events.ring);
}

static void silence_is_a_timeout(void **state)
{
	struct sockrig *rig = *state;
	struct events events;
	int fd = sockrig_socket(AF_INET, SOCK_STREAM, 0), one = 1;
	struct dmm_event *ev = events.ev;
	unsigned int i;

	open_events(rig, &events);
	setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &one, sizeof(one));
	assert_int_equal(sockrig_connect(fd, RIG_FAR4, RIG_PORT_STACK), 0);
	assert_int_equal(sockrig_outcome(fd, 15000), ETIMEDOUT);
	/* the SYN, as often as it was sent, and the end */
	expect_event(&events, DMM_EVENT_SYN, 0);
	assert_true(events.n >= 3);
	for (i = 1; i < events.n - 1; i++) {
		assert_int_equal(ev[i].kind, DMM_EVENT_SYN);
		assert_int_equal(tcp_of(&ev[i])->seq, tcp_of(&ev[0])->seq);
		assert_int_equal(ev[i].cookie, ev[0].cookie);
	}
	assert_int_equal(ev[i].kind, DMM_EVENT_CLOSED);
	close(fd);
	ring_buffer__free(events.ring);
}

/* Between the verdict and a (re)transmitted SYN the instance may die. */
static void a_vanished_listener_refuses(void **state)
{
	struct sockrig *rig = *state;
	struct events events;
	unsigned int i;

	open_events(rig, &events);
	for (i = 0; i < 2; i++) {
		int fd = start(i);

		expect_event(&events, DMM_EVENT_SYN, 5000);
		close(rig->relay[families[i].wire]);
		rig->relay[families[i].wire] = -1;
		assert_int_equal(sockrig_outcome(fd, 5000), ECONNREFUSED);
		close(fd);
		sockrig_relisten(rig, families[i].wire, true);
		expect_event(&events, DMM_EVENT_CLOSED, 5000);
	}
	ring_buffer__free(events.ring);
}

static void a_foreign_listener_gets_nothing(void **state)
{
	struct sockrig *rig = *state;
	uint64_t before = bpfenv_counter(&rig->env, DMM_REASON_INST_NO_RELAY);
	struct events events;
	unsigned int i;
	int fd;

	open_events(rig, &events);
	fd = start(0);
	expect_event(&events, DMM_EVENT_SYN, 5000);
	sockrig_relisten(rig, DMM_FAMILY_V4, false);
	/* the SYN comes again, and is dropped */
	for (i = 0; i < 500 && bpfenv_counter(&rig->env, DMM_REASON_INST_NO_RELAY) == before; i++)
		usleep(20000);
	assert_true(i < 500);
	assert_nobody_connects(rig->relay[DMM_FAMILY_V4]);
	expect_nothing(&events, 0);
	close(fd);
	ring_buffer__free(events.ring);
}

/* With options set before, it would have stayed in the kernel: here TCP sends the SYN again. */
static void a_syn_with_ip_options_is_held_too(void **state)
{
	static const uint8_t nops[4] = { 1, 1, 1, 1 };
	struct sockrig *rig = *state;
	struct dmm_event *ev;
	struct events events;
	int fd = sockrig_socket(AF_INET, SOCK_STREAM, 0);

	open_events(rig, &events);
	assert_int_equal(sockrig_connect(fd, RIG_FAR4, RIG_PORT_STACK), 0);
	ev = expect_event(&events, DMM_EVENT_SYN, 5000);
	assert_int_equal(ev->packet[0], 0x45);
	assert_int_equal(setsockopt(fd, IPPROTO_IP, IP_OPTIONS, nops, sizeof(nops)), 0);
	ev = expect_event(&events, DMM_EVENT_SYN, 5000);
	assert_int_equal(ev->packet[0], 0x46);
	assert_int_equal(tcp_of(ev)->source, ev->app_port);
	inject(ev);
	close(sockrig_accept(rig->relay[DMM_FAMILY_V4]));
	close(fd);
	ring_buffer__free(events.ring);
}

/* The same for IPv6, where the kernel asks for CAP_NET_RAW. */
static void a_syn_with_extension_headers_is_held_too(void **state)
{
	static const uint8_t padding[8] = { 0, 0, 1, 4 };
	struct sockrig *rig = *state;
	struct dmm_event *ev;
	struct events events;
	int fd;

	open_events(rig, &events);
	fd = start(1);
	ev = expect_event(&events, DMM_EVENT_SYN, 5000);
	assert_int_equal(setsockopt(fd, IPPROTO_IPV6, IPV6_DSTOPTS, padding, sizeof(padding)), 0);
	ev = expect_event(&events, DMM_EVENT_SYN, 5000);
	assert_int_equal(ev->packet[6], IPPROTO_DSTOPTS);
	assert_nobody_connects(rig->relay[DMM_FAMILY_V6]);
	inject(ev);
	close(sockrig_accept(rig->relay[DMM_FAMILY_V6]));
	close(fd);
	ring_buffer__free(events.ring);
}

/* TCP Fast Open: of the data as much is copied as there is room, and the instance injects none of
 * it; TCP sends it when connected. */
static void a_syn_with_data_is_cut(void **state)
{
	struct sockrig *rig = *state;
	char data[1000], got[sizeof(data)];
	struct events events;
	unsigned int i;
	int one = 1;

	memset(data, 'x', sizeof(data));
	open_events(rig, &events);
	for (i = 0; i < DMM_ARRAY_SIZE(families); i++) {
		int fd = sockrig_socket(families[i].family, SOCK_STREAM, 0), peer;
		const struct dmm_event *ev;

		assert_int_equal(
			setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, &one, sizeof(one)), 0);
		assert_int_equal(
			setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, sizeof(one)), 0);
		assert_int_equal(sockrig_connect(fd, families[i].far, RIG_PORT_STACK), 0);
		expect_nothing(&events, 0); /* the SYN waits for the data */
		assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
		ev = expect_event(&events, DMM_EVENT_SYN, 5000);
		assert_int_equal(ev->packet_len, DMM_HELD_SYN_MAX);
		assert_int_equal(ev->packet[DMM_HELD_SYN_MAX - 1], 'x');
		assert_nobody_connects(rig->relay[families[i].wire]);
		inject(ev);
		peer = sockrig_accept(rig->relay[families[i].wire]);
		assert_int_equal(sockrig_outcome(fd, 5000), 0);
		assert_int_equal(recv(peer, got, sizeof(got), MSG_WAITALL), sizeof(got));
		assert_memory_equal(got, data, sizeof(got));
		close(fd);
		close(peer);
	}
	ring_buffer__free(events.ring);
}

/* The SYN of that socket, whatever else comes before it. */
static struct dmm_event *expect_syn_of(struct events *events, int fd)
{
	uint64_t cookie = cookie_of(fd);

	for (unsigned int i = 0; i < 100; i++) {
		events->n = 0;
		expect_event(events, DMM_EVENT_SYN, 15000);
		for (unsigned int k = 0; k < events->n; k++)
			if (events->ev[k].cookie == cookie)
				return &events->ev[k];
	}
	fail_msg("its SYN does not come");
	return NULL;
}

static void a_syn_without_room_comes_again(void **state)
{
	enum { ROOM = 4096, FIT = (ROOM - 1) / (sizeof(struct dmm_event) + BPF_RINGBUF_HDR_SZ) };
	struct sockrig *rig = *state;
	uint64_t held = bpfenv_counter(&rig->env, DMM_REASON_SYN_HELD), full;
	struct events events;
	int fds[FIT + 1], fd, i;

	close(rig->ring_fd);
	rig->ring_fd = bpfenv_make_ring(&rig->env, RIG_ID, ROOM);
	open_events(rig, &events);
	for (i = 0; i < FIT; i++)
		fds[i] = start(0);
	full = bpfenv_counter(&rig->env, DMM_REASON_SYN_RING_FULL);
	fd = fds[FIT] = start(0);
	assert_true(bpfenv_counter(&rig->env, DMM_REASON_SYN_RING_FULL) > full);
	/* nor can it be told that somebody gave up */
	full = bpfenv_counter(&rig->env, DMM_REASON_SYN_RING_FULL);
	close(fds[0]);
	assert_true(bpfenv_counter(&rig->env, DMM_REASON_SYN_RING_FULL) > full);

	assert_int_equal(bpfenv_counter(&rig->env, DMM_REASON_SYN_HELD), held + FIT);
	assert_nobody_connects(rig->relay[DMM_FAMILY_V4]);
	assert_int_equal(ring_buffer__consume(events.ring), FIT);
	inject(expect_syn_of(&events, fd));
	assert_int_equal(sockrig_outcome(fd, 5000), 0);
	close(sockrig_accept(rig->relay[DMM_FAMILY_V4]));
	ring_buffer__free(events.ring);
	for (i = 1; i <= FIT; i++)
		close(fds[i]);
}

static void everybody_else_passes(void **state)
{
	struct sockrig *rig = *state;
	uint64_t before = bpfenv_counter(&rig->env, DMM_REASON_SYN_HELD);
	struct sockaddr_in relay = { .sin_family = AF_INET,
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				     .sin_port = rig->inst.relay_port[DMM_FAMILY_V4] };
	int fd = sockrig_socket(AF_INET, SOCK_STREAM, 0), stranger;

	/* a kernel verdict */
	assert_int_equal(sockrig_connect(fd, RIG_FAR4, RIG_PORT_KERNEL), 0);
	close(sockrig_accept(rig->far[DMM_FAMILY_V4]));
	close(fd);
	/* a stranger who knocks at the relay port itself: the instance resets it, it gets there */
	stranger = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	connect(stranger, (struct sockaddr *)&relay, sizeof(relay));
	close(sockrig_accept(rig->relay[DMM_FAMILY_V4]));
	close(stranger);
	assert_int_equal(bpfenv_counter(&rig->env, DMM_REASON_SYN_HELD), before);
}

static int setup_with_lo(void **state)
{
	if (sockrig_setup(state) < 0)
		return -1;
	bpfenv_attach_lo(&((struct sockrig *)*state)->env);
	return 0;
}

static int run(void)
{
#define TEST(f) cmocka_unit_test_setup(f, sockrig_reset)
	const struct CMUnitTest tests[] = {
		TEST(syn_is_held_and_told),
		TEST(injected_syn_connects),
		TEST(refusal_is_connection_refused),
		TEST(closing_while_held_is_told),
		TEST(disconnecting_while_held_is_told),
		TEST(silence_is_a_timeout),
		TEST(a_vanished_listener_refuses),
		TEST(a_foreign_listener_gets_nothing),
		TEST(a_syn_with_ip_options_is_held_too),
		TEST(a_syn_with_extension_headers_is_held_too),
		TEST(a_syn_with_data_is_cut),
		TEST(a_syn_without_room_comes_again),
		TEST(everybody_else_passes),
	};

	return cmocka_run_group_tests(tests, setup_with_lo, sockrig_teardown);
}

int main(void)
{
	return sockrig_main(run);
}
