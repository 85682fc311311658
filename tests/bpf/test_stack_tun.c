// SPDX-License-Identifier: Apache-2.0
/* The plug-ins `lwip` and `native` against the kernel's TCP: a TUN device in a network namespace of our own is
 * the wire, ordinary sockets in there are the peer. */
#define _GNU_SOURCE /* unshare, accept4 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "stackhost.h"

#define MEMORY	(256u * 1024)
#define LONG_MS 30000
#define BULK	(64u << 20)
#define LOSSY	(4u << 20)
#define OUR4	"10.9.0.1"
#define OUR6	"fd09::1"
#define KERNEL4 "10.9.0.2"
#define KERNEL6 "fd09::2"

static const struct target {
	const char *name;
	unsigned int scale;	 /* of the window it offers for MEMORY */
	unsigned int timestamps; /* bytes of each segment */
} targets[] = { { "lwip", 1, 0 }, { "native", 3, 12 } }, *target;

static const char *const kernel_addrs[] = { KERNEL4, KERNEL6 };

struct setup {
	struct stackhost *host;
	int tun;
};

static int open_tun(void)
{
	struct ifreq ifr = { .ifr_flags = IFF_TUN | IFF_NO_PI, .ifr_name = "wire0" };
	const int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
		close(fd);
		return -errno;
	}
	return fd;
}

static void run(const char *command)
{
	if (system(command) != 0)
		fail_msg("failed: %s", command);
}

static uint64_t bulk;

static int open_setup(void **state, unsigned int drop, unsigned int swap)
{
	struct stackhost_params params = { .mtu = 1500,
					   .max_conns = 1000,
					   .conn_memory = MEMORY,
					   .addrs = { OUR4, OUR6 },
					   .drop = drop,
					   .swap = swap,
					   .seed = 5 };
	static char path[PATH_MAX * 2];
	char self[PATH_MAX] = "";
	struct setup *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	assert_int_equal(unshare(CLONE_NEWNET), 0); /* the last test's goes with it */
	s->tun = open_tun();
	assert_true(s->tun >= 0);
	run("ip link set lo up && ip link set wire0 mtu 1500 txqueuelen 5000 up && "
	    "ip addr add " KERNEL4 "/24 dev wire0 && ip addr add " KERNEL6 "/64 dev wire0 nodad");
	assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	snprintf(path, sizeof(path), "%s/../../stacks/%s.so", dirname(self), target->name);
	params.plugin = path;
	params.wire = s->tun;
	assert_int_equal(stackhost_open(&params, &s->host), 0);
	*state = s;
	return 0;
}

static int setup(void **state)
{
	bulk = BULK;
	return open_setup(state, 0, 0);
}

/* What we send is lost and overtaken: 2 and 3 of 100. */
static int setup_lossy(void **state)
{
	bulk = LOSSY;
	return open_setup(state, 20, 30);
}

static int teardown(void **state)
{
	struct setup *s = *state;
	const unsigned int violations = stackhost_close(s->host);

	close(s->tun);
	free(s);
	return violations ? -1 : 0;
}

/* The kernel's side */

static socklen_t kernel_addr(const char *addr, uint16_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, addr, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		return sizeof(*v4);
	}
	assert_int_equal(inet_pton(AF_INET6, addr, &v6->sin6_addr), 1);
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(port);
	return sizeof(*v6);
}

static int kernel_listen(const char *addr, uint16_t port)
{
	struct sockaddr_storage sa;
	const socklen_t len = kernel_addr(addr, port, &sa);
	const int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
	assert_int_equal(listen(fd, 128), 0);
	return fd;
}

struct accepting {
	int listener, fd;
};

static bool accept_one(void *arg)
{
	struct accepting *a = arg;

	if (a->fd < 0)
		a->fd = accept4(a->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	return a->fd >= 0;
}

/* A connection from the plug-in to a kernel socket; returns that. */
static int kernel_connected(struct setup *s, const char *addr, struct stackhost_conn *c)
{
	struct accepting a = { kernel_listen(addr, 80), -1 };

	assert_int_equal(stackhost_connect(s->host, addr, 80, 0, c), 0);
	assert_true(stackhost_wait(c, DMM_EV_CONNECTED | DMM_EV_ERROR, LONG_MS));
	assert_int_equal(c->err, 0);
	assert_true(stackhost_until(s->host, accept_one, &a, LONG_MS));
	close(a.listener);
	return a.fd;
}

static void turns(struct setup *s, unsigned int n)
{
	while (n--)
		stackhost_turn(s->host, 5);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void fill(uint8_t *buf, size_t len, uint64_t at)
{
	for (; len--; at++)
		*buf++ = (uint8_t)((at * 2654435761u) >> 13 ^ at >> 7);
}

static void check(const uint8_t *buf, size_t len, uint64_t at)
{
	for (; len--; at++, buf++)
		if (*buf != (uint8_t)((at * 2654435761u) >> 13 ^ at >> 7))
			fail_msg("byte %llu is another", (unsigned long long)at);
}

static void the_kernel_likes_our_options(void **state)
{
	static const uint32_t mss[] = { 1460, 1440 };
	size_t i;

	for (i = 0; i < 2; i++) {
		struct stackhost_conn c = { 0 };
		const int fd = kernel_connected(*state, kernel_addrs[i], &c);
		struct tcp_info info = { 0 };
		socklen_t len = sizeof(info);

		assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
		assert_int_equal(info.tcpi_snd_mss, mss[i] - target->timestamps);
		assert_true(info.tcpi_options & TCPI_OPT_WSCALE);
		assert_int_equal(info.tcpi_snd_wscale, target->scale);
		close(fd);
		assert_true(stackhost_wait(&c, DMM_EV_EOF, LONG_MS));
		stackhost_close_conn(&c);
		assert_true(stackhost_wait(&c, DMM_EV_CLOSED, LONG_MS));
	}
}

static void sends_every_byte(void **state)
{
	static uint8_t buf[1 << 18];
	struct setup *s = *state;
	size_t i;

	for (i = 0; i < 2; i++) {
		struct stackhost_conn c = { 0 };
		const int fd = kernel_connected(s, kernel_addrs[i], &c);
		const uint64_t began = now_ms();
		uint64_t got = 0;
		ssize_t n = 1;

		while (n != 0) {
			const size_t want = DMM_MIN(sizeof(buf), bulk - c.sent);

			if (want && !c.sends_short) {
				fill(buf, want, c.sent);
				assert_true(stackhost_send(&c, buf, want) >= 0);
				if (c.sent == bulk)
					stackhost_ops(s->host)->shutdown(c.conn);
			}
			stackhost_turn(s->host, 1);
			while ((n = read(fd, buf, sizeof(buf))) > 0) {
				check(buf, (size_t)n, got);
				got += (uint64_t)n;
			}
			assert_true(now_ms() - began < LONG_MS * 2);
		}
		assert_int_equal(got, bulk);
		print_message("# %s: %llu MiB to the kernel in %llu ms\n", kernel_addrs[i],
			      (unsigned long long)bulk >> 20,
			      (unsigned long long)(now_ms() - began));
		close(fd);
		stackhost_close_conn(&c);
		assert_true(stackhost_wait(&c, DMM_EV_CLOSED, LONG_MS));
	}
}

static void receives_every_byte(void **state)
{
	static uint8_t buf[1 << 18];
	struct setup *s = *state;
	size_t i;

	for (i = 0; i < 2; i++) {
		struct stackhost_conn c = { 0 };
		const int fd = kernel_connected(s, kernel_addrs[i], &c);
		const uint64_t began = now_ms();
		uint64_t sent = 0, got;
		ssize_t n;

		while (!(c.seen & DMM_EV_EOF) || c.received < sent) {
			const size_t want = DMM_MIN(sizeof(buf), bulk - sent);

			if (want) {
				fill(buf, want, sent);
				n = write(fd, buf, want);
				sent += n > 0 ? (uint64_t)n : 0;
				if (sent == bulk)
					shutdown(fd, SHUT_WR);
			}
			stackhost_turn(s->host, 1);
			got = c.received;
			n = (ssize_t)stackhost_recv(&c, buf, sizeof(buf));
			check(buf, (size_t)n, got);
			assert_true(now_ms() - began < LONG_MS * 2);
		}
		assert_int_equal(c.received, bulk);
		print_message("# %s: %llu MiB from the kernel in %llu ms\n", kernel_addrs[i],
			      (unsigned long long)bulk >> 20,
			      (unsigned long long)(now_ms() - began));
		stackhost_close_conn(&c);
		assert_true(stackhost_wait(&c, DMM_EV_CLOSED, LONG_MS));
		assert_int_equal(read(fd, buf, 1), 0);
		close(fd);
	}
}

static void is_refused(void **state)
{
	struct setup *s = *state;
	size_t i;

	for (i = 0; i < 2; i++) {
		struct stackhost_conn c = { 0 };

		assert_int_equal(stackhost_connect(s->host, kernel_addrs[i], 81, 0, &c), 0);
		assert_true(stackhost_wait(&c, DMM_EV_ERROR, LONG_MS));
		assert_int_equal(c.err, ECONNREFUSED);
	}
}

static void resets_go_both_ways(void **state)
{
	struct setup *s = *state;
	size_t i;

	for (i = 0; i < 2; i++) {
		const struct linger now = { .l_onoff = 1 };
		struct stackhost_conn c = { 0 };
		char byte;
		int fd = kernel_connected(s, kernel_addrs[i], &c);

		setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		close(fd);
		assert_true(stackhost_wait(&c, DMM_EV_ERROR, LONG_MS));
		assert_int_equal(c.err, ECONNRESET);

		c = (struct stackhost_conn){ 0 };
		fd = kernel_connected(s, kernel_addrs[i], &c);
		stackhost_abort(&c);
		turns(s, 3);
		assert_int_equal(read(fd, &byte, 1), -1);
		assert_int_equal(errno, ECONNRESET);
		close(fd);

		/* close() with bytes unread says so, too */
		c = (struct stackhost_conn){ 0 };
		fd = kernel_connected(s, kernel_addrs[i], &c);
		assert_int_equal(write(fd, "unread", 6), 6);
		assert_true(stackhost_wait(&c, DMM_EV_READABLE, LONG_MS));
		stackhost_close_conn(&c);
		assert_true(stackhost_wait(&c, DMM_EV_CLOSED, LONG_MS));
		turns(s, 3);
		assert_int_equal(read(fd, &byte, 1), -1);
		assert_int_equal(errno, ECONNRESET);
		close(fd);
	}
}

static void half_close_keeps_the_other_half(void **state)
{
	struct setup *s = *state;
	struct stackhost_conn c = { 0 };
	int fd = kernel_connected(s, KERNEL4, &c);
	char buf[16];

	assert_int_equal(stackhost_ops(s->host)->shutdown(c.conn), 0);
	turns(s, 3);
	assert_int_equal(read(fd, buf, 1), 0);
	assert_int_equal(write(fd, "still", 5), 5);
	assert_true(stackhost_wait(&c, DMM_EV_READABLE, LONG_MS));
	assert_int_equal(stackhost_recv(&c, buf, sizeof(buf)), 5);
	close(fd);
	assert_true(stackhost_wait(&c, DMM_EV_EOF, LONG_MS));
	stackhost_close_conn(&c);
	assert_true(stackhost_wait(&c, DMM_EV_CLOSED, LONG_MS));

	c = (struct stackhost_conn){ 0 };
	fd = kernel_connected(s, KERNEL6, &c);
	shutdown(fd, SHUT_WR);
	assert_true(stackhost_wait(&c, DMM_EV_EOF, LONG_MS));
	assert_int_equal(stackhost_send(&c, "still", 5), 5);
	turns(s, 3);
	assert_int_equal(read(fd, buf, sizeof(buf)), 5);
	stackhost_close_conn(&c);
	assert_true(stackhost_wait(&c, DMM_EV_CLOSED, LONG_MS));
	assert_int_equal(read(fd, buf, 1), 0);
	close(fd);
}

static void full_buffers_stop_either_side(void **state)
{
	static uint8_t buf[1 << 18];
	struct setup *s = *state;
	struct stackhost_conn c = { 0 };
	const int fd = kernel_connected(s, KERNEL4, &c);
	struct dmm_stack_stats stats;
	uint64_t sent = 0, got = 0;
	unsigned int i;
	ssize_t n;

	/* nobody reads, both send */
	for (i = 0; i < 200; i++) {
		fill(buf, sizeof(buf), c.sent);
		if (!c.sends_short)
			stackhost_send(&c, buf, sizeof(buf));
		fill(buf, sizeof(buf), sent);
		n = write(fd, buf, sizeof(buf));
		sent += n > 0 ? (uint64_t)n : 0;
		stackhost_turn(s->host, 1);
	}
	assert_true(c.sends_short);
	stackhost_ops(s->host)->stats(stackhost_stack(s->host), &stats);
	assert_in_range(stats.memory, MEMORY / 2, 2 * MEMORY + 4 * 4096);

	/* then all of it arrives, after a while of zero windows */
	turns(s, 200);
	for (i = 0; (c.received < sent || got < c.sent) && i < 20000; i++) {
		n = (ssize_t)stackhost_recv(&c, buf, sizeof(buf));
		check(buf, (size_t)n, c.received - (uint64_t)n);
		while ((n = read(fd, buf, sizeof(buf))) > 0) {
			check(buf, (size_t)n, got);
			got += (uint64_t)n;
		}
		stackhost_turn(s->host, 1);
	}
	assert_int_equal(c.received, sent);
	assert_int_equal(got, c.sent);
	stackhost_abort(&c);
	close(fd);
}

static void ten_thousand_in_a_row(void **state)
{
	struct setup *s = *state;
	const int listener = kernel_listen(KERNEL4, 80);
	const uint64_t began = now_ms();
	struct dmm_stack_stats stats;
	unsigned int i;

	for (i = 0; i < 10000; i++) {
		struct accepting a = { listener, -1 };
		struct stackhost_conn c = { 0 };
		char byte;

		assert_int_equal(stackhost_connect(s->host, KERNEL4, 80, 0, &c), 0);
		assert_true(stackhost_until(s->host, accept_one, &a, LONG_MS));
		assert_true(stackhost_wait(&c, DMM_EV_CONNECTED, LONG_MS));
		assert_int_equal(stackhost_send(&c, "x", 1), 1);
		/* we close first: TIME-WAIT is ours */
		stackhost_close_conn(&c);
		while (read(a.fd, &byte, 1) != 0)
			stackhost_turn(s->host, 1);
		close(a.fd);
		assert_true(stackhost_wait(&c, DMM_EV_CLOSED, LONG_MS));
		assert_int_equal(c.seen & DMM_EV_ERROR, 0);
	}
	print_message("# 10000 connections in a row: %llu ms\n",
		      (unsigned long long)(now_ms() - began));
	stackhost_ops(s->host)->stats(stackhost_stack(s->host), &stats);
	assert_int_equal(stats.conns, 0);
	assert_int_equal(stats.resets_sent, 0);
	close(listener);
}

static void answer_event(struct stackhost_conn *c, uint32_t events)
{
	char buf[64];
	size_t n;

	if (events & DMM_EV_READABLE) {
		n = stackhost_recv(c, buf, sizeof(buf));
		stackhost_send(c, buf, n);
	}
	if ((events & DMM_EV_EOF) && !c->closing)
		stackhost_close_conn(c);
}

static void the_kernel_connects_to_us(void **state)
{
	static const char *const ours[] = { OUR4, OUR6 };
	struct setup *s = *state;
	size_t i;

	for (i = 0; i < 2; i++) {
		struct stackhost_listener l = { .on_event = answer_event };
		struct sockaddr_storage sa;
		const socklen_t len = kernel_addr(ours[i], 90, &sa);
		unsigned int round;

		assert_int_equal(stackhost_listen(s->host, ours[i], 90, 16, &l), 0);
		for (round = 0; round < 50; round++) {
			const int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
			char buf[8] = "";

			connect(fd, (struct sockaddr *)&sa, len);
			turns(s, 2);
			assert_int_equal(write(fd, "hello", 5), 5);
			turns(s, 2);
			assert_int_equal(read(fd, buf, sizeof(buf)), 5);
			assert_string_equal(buf, "hello");
			shutdown(fd, SHUT_WR);
			turns(s, 2);
			assert_int_equal(read(fd, buf, sizeof(buf)), 0);
			close(fd);
		}
		assert_int_equal(l.accepted, 50);
	}
}

int main(void)
{
#define ON_TUN(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		ON_TUN(the_kernel_likes_our_options),
		ON_TUN(sends_every_byte),
		ON_TUN(receives_every_byte),
		ON_TUN(is_refused),
		ON_TUN(resets_go_both_ways),
		ON_TUN(half_close_keeps_the_other_half),
		ON_TUN(full_buffers_stop_either_side),
		ON_TUN(ten_thousand_in_a_row),
		ON_TUN(the_kernel_connects_to_us),
		cmocka_unit_test_setup_teardown(sends_every_byte, setup_lossy, teardown),
		cmocka_unit_test_setup_teardown(receives_every_byte, setup_lossy, teardown),
	};

	int failed = 0;

	for (target = targets; target < targets + DMM_ARRAY_SIZE(targets); target++)
		failed += cmocka_run_group_tests_name(target->name, tests, NULL, NULL);
	return failed;
}
