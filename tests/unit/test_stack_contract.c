// SPDX-License-Identifier: Apache-2.0
/* What <dmm/stack.h> promises of every plug-in. A new one is one more line in targets[]. */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "stackhost.h"

#define MEMORY	  (256u * 1024)
#define LONG_MS	  20000 /* for what has to happen */
#define QUIET_MS  60	/* for what must not */
#define PORT_ECHO 7
#define PORT_NONE 81

struct target {
	const char *name, *path; /* from the folder of this program */
	bool wire;		 /* talks to another of its kind, which listens and echoes */
};

static const struct target targets[] = {
	{ "lwip", "../../stacks/lwip.so", true },
	{ "native", "../../stacks/native.so", true },
	{ "echo", "../plugins/echo/echo.so", false },
};

static const struct target *target;

struct setup {
	struct stackhost *host;
	pid_t peer;
	int wire;
};

static const char *plugin_path(void)
{
	static char path[PATH_MAX * 2];
	char self[PATH_MAX] = "";

	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return target->path;
	snprintf(path, sizeof(path), "%s/%s", dirname(self), target->path);
	return path;
}

/* The peer: echoes all it gets, and closes when the other side has. */

static void echo_back(struct stackhost_conn *c)
{
	const struct dmm_stack_ops *ops = stackhost_ops(c->host);
	struct iovec iov;
	ssize_t n = 1;

	while (n > 0 && ops->recv_peek(c->conn, &iov, 1)) {
		n = stackhost_send(c, iov.iov_base, iov.iov_len);
		if (n > 0)
			ops->recv_done(c->conn, (size_t)n);
	}
	if ((c->seen & DMM_EV_EOF) && !ops->recv_peek(c->conn, &iov, 1))
		stackhost_close_conn(c);
}

static void echo_event(struct stackhost_conn *c, uint32_t events)
{
	(void)events;
	if (c->conn && !c->closing)
		echo_back(c);
}

static int serve(int wire)
{
	const struct stackhost_params params = { .plugin = plugin_path(),
						 .wire = wire,
						 .mtu = 1500,
						 .max_conns = 4000,
						 .conn_memory = MEMORY,
						 .addrs = { "10.9.0.2", "fd09::2" },
						 .seed = 2 };
	struct stackhost_listener v4 = { .on_event = echo_event }, v6 = v4;
	struct stackhost *host;

	if (stackhost_open(&params, &host) < 0 ||
	    stackhost_listen(host, "10.9.0.2", PORT_ECHO, 64, &v4) < 0 ||
	    stackhost_listen(host, "fd09::2", PORT_ECHO, 64, &v6) < 0)
		return 100;
	while (stackhost_alive(host))
		stackhost_turn(host, 100);
	return (int)stackhost_close(host);
}

static int open_setup(void **state, unsigned int drop, unsigned int swap)
{
	struct stackhost_params params = { .wire = -1,
					   .mtu = 1500,
					   .max_conns = 4000,
					   .conn_memory = MEMORY,
					   .addrs = { "10.9.0.1", "fd09::1" },
					   .drop = drop,
					   .swap = swap,
					   .seed = 1 };
	struct setup *s = calloc(1, sizeof(*s));
	int fds[2], size = 4 << 20;

	assert_non_null(s);
	params.plugin = plugin_path();
	s->wire = -1;
	if (target->wire) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
		setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		fflush(NULL);
		s->peer = fork();
		if (s->peer == 0) {
			close(fds[0]);
			_exit(serve(fds[1]));
		}
		close(fds[1]);
		params.wire = s->wire = fds[0];
	}
	assert_int_equal(stackhost_open(&params, &s->host), 0);
	*state = s;
	return 0;
}

static int setup(void **state)
{
	return open_setup(state, 0, 0);
}

static int setup_lossy(void **state)
{
	return open_setup(state, 15, 30);
}

static int teardown(void **state)
{
	struct setup *s = *state;
	unsigned int violations;
	int status = 0;

	violations = stackhost_close(s->host);
	if (s->wire >= 0) {
		close(s->wire);
		waitpid(s->peer, &status, 0);
	}
	free(s);
	if (violations || status)
		fprintf(stderr, "# %s: %u violations here, status 0x%x there\n", target->name,
			violations, (unsigned int)status);
	return violations || status ? -1 : 0;
}

static struct stackhost_conn *connected(struct setup *s, const char *addr)
{
	struct stackhost_conn *c = calloc(1, sizeof(*c));

	assert_non_null(c);
	assert_int_equal(stackhost_connect(s->host, addr, PORT_ECHO, 0, c), 0);
	assert_true(stackhost_wait(c, DMM_EV_CONNECTED, LONG_MS));
	return c;
}

static void closed(struct stackhost_conn *c)
{
	if (c->conn && !c->closing)
		stackhost_close_conn(c);
	assert_true(stackhost_wait(c, DMM_EV_CLOSED | DMM_EV_ERROR, LONG_MS));
	free(c);
}

static bool never(void *arg)
{
	(void)arg;
	return false;
}

static void quiet(struct setup *s)
{
	stackhost_until(s->host, never, NULL, QUIET_MS);
}

/* A stream whose every byte is known by its place. */
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

static void connects_and_closes(void **state)
{
	struct setup *s = *state;
	const char *addrs[] = { "10.9.0.2", "fd09::2" };
	size_t i;

	for (i = 0; i < DMM_ARRAY_SIZE(addrs); i++) {
		struct stackhost_conn *c = connected(s, addrs[i]);

		assert_int_equal(c->seen, DMM_EV_CONNECTED);
		quiet(s);
		assert_int_equal(c->told, 1);
		stackhost_close_conn(c);
		assert_true(stackhost_wait(c, DMM_EV_CLOSED, LONG_MS));
		assert_int_equal(c->told, 2);
		quiet(s);
		assert_int_equal(c->told, 2);
		free(c);
	}
}

/* Sends @total bytes and gets them back, in pieces of all sizes. */
static void echo_all(struct stackhost_conn *c, uint64_t total)
{
	static uint8_t buf[70000];
	unsigned int piece = 1, turns = 0;

	while (c->received < total) {
		const uint64_t sent = c->sent, received = c->received;
		size_t want = DMM_MIN((uint64_t)(piece * 977u % sizeof(buf)), total - sent), n;

		piece++;
		fill(buf, want, sent);
		if (want && !c->sends_short)
			assert_true(stackhost_send(c, buf, want) >= 0);
		n = stackhost_recv(c, buf, piece * 1231u % sizeof(buf));
		check(buf, n, received);
		if (c->sent == sent && c->received == received) {
			assert_true(++turns < 100000);
			assert_false(c->seen & (DMM_EV_ERROR | DMM_EV_EOF));
		}
		stackhost_turn(c->host, 20);
	}
}

static void returns_every_byte(void **state)
{
	const char *addrs[] = { "10.9.0.2", "fd09::2" };
	size_t i;

	for (i = 0; i < DMM_ARRAY_SIZE(addrs); i++) {
		struct stackhost_conn *c = connected(*state, addrs[i]);

		echo_all(c, 6 << 20);
		assert_int_equal(stackhost_recv(c, &(char){ 0 }, 1), 0);
		closed(c);
	}
}

static void returns_every_byte_when_packets_are_lost(void **state)
{
	struct stackhost_conn *c = connected(*state, "10.9.0.2");

	echo_all(c, 200 << 10);
	closed(c);
}

static void peeked_bytes_stay(void **state)
{
	struct stackhost_conn *c = connected(*state, "10.9.0.2");
	const struct dmm_stack_ops *ops = stackhost_ops(c->host);
	struct iovec first, again;
	char buf[8];

	assert_int_equal(stackhost_send(c, "abcd", 4), 4);
	assert_true(stackhost_wait(c, DMM_EV_READABLE, LONG_MS));
	assert_int_equal(ops->recv_peek(c->conn, &first, 1), 1);
	assert_int_equal(ops->recv_peek(c->conn, &again, 1), 1);
	assert_ptr_equal(first.iov_base, again.iov_base);
	assert_int_equal(first.iov_len, again.iov_len);
	assert_int_equal(ops->recv_peek(c->conn, &again, 0), 0);
	ops->recv_done(c->conn, 1);
	assert_int_equal(stackhost_recv(c, buf, sizeof(buf)), 3);
	assert_memory_equal(buf, "bcd", 3);
	closed(c);
}

static bool is_stuck(void *arg)
{
	struct stackhost_conn *c = arg;
	static uint8_t buf[65536];

	fill(buf, sizeof(buf), c->sent);
	if (!c->sends_short)
		stackhost_send(c, buf, sizeof(buf));
	return false;
}

static void a_slow_reader_stops_the_sender(void **state)
{
	struct stackhost_conn *c = connected(*state, "10.9.0.2");
	static uint8_t buf[100000];
	size_t n;

	/* nothing is read: what fits into buffers on both sides is all that goes */
	stackhost_until(c->host, is_stuck, c, 500);
	assert_true(c->sends_short);
	assert_in_range(c->sent, 10000, 4 * MEMORY);
	assert_int_equal(stackhost_ops(c->host)->send(c->conn, buf, 1), 0);
	c->seen = 0;

	while (c->received < c->sent) {
		n = stackhost_recv(c, buf, sizeof(buf));
		check(buf, n, c->received - n);
		if (n)
			continue;
		c->seen &= ~DMM_EV_READABLE;
		assert_true(stackhost_wait(c, DMM_EV_READABLE, LONG_MS));
	}
	assert_true(stackhost_wait(c, DMM_EV_WRITABLE, LONG_MS));
	assert_true(stackhost_ops(c->host)->send_space(c->conn) > 0);
	closed(c);
}

/* Room to write to in place: as much as there is, and only what is said to be there is sent. */
static void reserved_room_is_sent(void **state)
{
	struct stackhost_conn *c = connected(*state, "fd09::2");
	const struct dmm_stack_ops *ops = stackhost_ops(c->host);
	static const size_t asks[] = { 1, 10000, 4096, 20000, 5 };
	static uint8_t buf[40000];
	struct iovec iov[8];
	size_t got = 0;

	assert_int_equal(!ops->send_reserve, !ops->send_done);
	if (!ops->send_reserve) { /* it need not */
		closed(c);
		return;
	}
	for (unsigned int i = 0; i < DMM_ARRAY_SIZE(asks); i++) {
		const size_t space = ops->send_space(c->conn);
		const unsigned int n =
			ops->send_reserve(c->conn, asks[i], iov, DMM_ARRAY_SIZE(iov));
		size_t put = 0, room = 0;

		assert_in_range(n, 1, DMM_ARRAY_SIZE(iov));
		for (unsigned int k = 0; k < n; k++) {
			const size_t part = i % 2 ? iov[k].iov_len / 2 : iov[k].iov_len;

			room += iov[k].iov_len;
			if (put == room - iov[k].iov_len) { /* no hole */
				fill(iov[k].iov_base, part, c->sent + put);
				put += part;
			}
		}
		assert_true(room <= asks[i] && room <= space);
		ops->send_done(c->conn, put);
		c->sent += put;
		assert_int_equal(ops->send_space(c->conn), space - put);
		if (i == 2) { /* nothing after all */
			assert_true(ops->send_reserve(c->conn, 3000, iov, 8) > 0);
			ops->send_done(c->conn, 0);
		}
	}
	while (got < c->sent) {
		const size_t n = stackhost_recv(c, buf, sizeof(buf));

		check(buf, n, got);
		got += n;
		if (!n)
			stackhost_turn(c->host, 20);
		assert_false(c->seen & DMM_EV_ERROR);
	}
	closed(c);
}

static void half_close_delivers_everything(void **state)
{
	struct stackhost_conn *c = connected(*state, "fd09::2");
	const struct dmm_stack_ops *ops = stackhost_ops(c->host);
	static uint8_t buf[60000];
	size_t n, got = 0;

	fill(buf, sizeof(buf), 0);
	assert_int_equal(stackhost_send(c, buf, sizeof(buf)), sizeof(buf));
	assert_int_equal(ops->shutdown(c->conn), 0);
	assert_int_equal(ops->shutdown(c->conn), 0);
	assert_int_equal(ops->send(c->conn, buf, 1), -EPIPE);
	while (got < sizeof(buf)) {
		n = stackhost_recv(c, buf, sizeof(buf));
		check(buf, n, got);
		got += n;
		if (!n)
			stackhost_turn(c->host, 20);
		assert_false(c->seen & DMM_EV_ERROR);
	}
	assert_true(stackhost_wait(c, DMM_EV_EOF, LONG_MS));
	assert_int_equal(ops->unsent(c->conn), 0);
	quiet(*state); /* both FINs are done; the handle is ours until we close it */
	assert_non_null(c->conn);
	assert_int_equal(ops->send(c->conn, buf, 1), -EPIPE);
	closed(c);
}

static void bytes_outlive_the_wire(void **state)
{
	struct stackhost_conn *c = connected(*state, "10.9.0.2");
	char buf[8];

	assert_int_equal(stackhost_send(c, "last", 4), 4);
	assert_int_equal(stackhost_ops(c->host)->shutdown(c->conn), 0);
	assert_true(stackhost_wait(c, DMM_EV_EOF, LONG_MS));
	quiet(*state);
	assert_int_equal(stackhost_recv(c, buf, sizeof(buf)), 4);
	assert_memory_equal(buf, "last", 4);
	closed(c);
}

static void close_throws_away_what_was_not_read(void **state)
{
	struct stackhost_conn *c = connected(*state, "10.9.0.2");
	const uint32_t told = c->told;

	assert_int_equal(stackhost_send(c, "unread", 6), 6);
	assert_true(stackhost_wait(c, DMM_EV_READABLE, LONG_MS));
	assert_true(c->told > told);
	stackhost_close_conn(c);
	assert_true(stackhost_wait(c, DMM_EV_CLOSED, LONG_MS));
	free(c);
}

static void closes_with_bytes_still_to_send(void **state)
{
	static uint8_t buf[200000];
	struct stackhost_conn *c = connected(*state, "10.9.0.2");

	assert_true(stackhost_send(c, buf, sizeof(buf)) > 0);
	closed(c);
}

static void abort_is_silent(void **state)
{
	struct stackhost_conn *c = connected(*state, "10.9.0.2");
	const uint32_t told = c->told;

	assert_int_equal(stackhost_send(c, "gone", 4), 4);
	stackhost_abort(c);
	quiet(*state);
	assert_int_equal(c->told, told);
	free(c);

	c = calloc(1, sizeof(*c));
	assert_non_null(c);
	assert_int_equal(
		stackhost_connect(((struct setup *)*state)->host, "10.9.0.2", PORT_ECHO, 0, c), 0);
	stackhost_abort(c); /* before it was connected */
	quiet(*state);
	assert_int_equal(c->told, 0);
	free(c);
}

static void closes_before_it_is_connected(void **state)
{
	struct setup *s = *state;
	struct stackhost_conn c = { 0 };

	assert_int_equal(stackhost_connect(s->host, "10.9.0.2", PORT_ECHO, 0, &c), 0);
	stackhost_close_conn(&c);
	assert_true(stackhost_wait(&c, DMM_EV_CLOSED, LONG_MS));
	assert_int_equal(c.told, 1);
}

static void events_go_to_the_new_user(void **state)
{
	struct stackhost_conn *c = connected(*state, "10.9.0.2"), other = *c;

	stackhost_ops(c->host)->set_user(c->conn, &other);
	stackhost_close_conn(&other);
	assert_true(stackhost_wait(&other, DMM_EV_CLOSED, LONG_MS));
	assert_int_equal(c->told, 1);
	free(c);
}

static void close_in_event(struct stackhost_conn *c, uint32_t events)
{
	char buf[16];

	if (events & DMM_EV_CONNECTED)
		stackhost_send(c, "hello", 5);
	if (events & DMM_EV_READABLE) {
		stackhost_recv(c, buf, sizeof(buf));
		if (!c->closing)
			stackhost_close_conn(c);
	}
}

static void abort_in_event(struct stackhost_conn *c, uint32_t events)
{
	if (events & DMM_EV_CONNECTED)
		stackhost_send(c, "hello", 5);
	if (events & DMM_EV_READABLE)
		stackhost_abort(c);
}

static bool is_gone(void *arg)
{
	return !((struct stackhost_conn *)arg)->conn;
}

static void events_may_call_back(void **state)
{
	struct setup *s = *state;
	struct stackhost_conn c = { .on_event = close_in_event };

	assert_int_equal(stackhost_connect(s->host, "10.9.0.2", PORT_ECHO, 0, &c), 0);
	assert_true(stackhost_wait(&c, DMM_EV_CLOSED, LONG_MS));
	assert_int_equal(c.received, 5);

	c = (struct stackhost_conn){ .on_event = abort_in_event };
	assert_int_equal(stackhost_connect(s->host, "fd09::2", PORT_ECHO, 0, &c), 0);
	assert_true(stackhost_until(s->host, is_gone, &c, LONG_MS));
	quiet(s);
	assert_int_equal(c.told, 2);
}

static void many_at_a_time(void **state)
{
	struct setup *s = *state;
	static struct stackhost_conn conns[100];
	size_t i, round;

	for (round = 0; round < 4; round++) {
		for (i = 0; i < DMM_ARRAY_SIZE(conns); i++) {
			conns[i] = (struct stackhost_conn){ .on_event = close_in_event };
			assert_int_equal(stackhost_connect(s->host, i & 1 ? "10.9.0.2" : "fd09::2",
							   PORT_ECHO, 0, &conns[i]),
					 0);
		}
		for (i = 0; i < DMM_ARRAY_SIZE(conns); i++)
			assert_true(stackhost_wait(&conns[i], DMM_EV_CLOSED, LONG_MS));
	}
}

static void knows_its_options(void **state)
{
	struct stackhost_conn *c = connected(*state, "10.9.0.2");
	const struct dmm_stack_ops *ops = stackhost_ops(c->host);

	assert_int_equal(ops->set_option(c->conn, DMM_OPT_NODELAY, 0), 0);
	assert_int_equal(ops->set_option(c->conn, DMM_OPT_NODELAY, 1), 0);
	assert_int_equal(ops->set_option(c->conn, DMM_OPT_KEEPALIVE, 60), 0);
	assert_int_equal(ops->set_option(c->conn, DMM_OPT_KEEPALIVE, 0), 0);
	assert_int_equal(ops->set_option(c->conn, (enum dmm_stack_option)99, 1), -ENOPROTOOPT);
	closed(c);
}

static void destroy_takes_open_connections(void **state)
{
	static struct stackhost_conn open, used, half; /* outlive the host */
	struct setup *s = *state;

	open = used = half = (struct stackhost_conn){ 0 }; /* of the target before */
	assert_int_equal(stackhost_connect(s->host, "10.9.0.2", PORT_ECHO, 0, &open), 0);
	assert_int_equal(stackhost_connect(s->host, "fd09::2", PORT_ECHO, 0, &used), 0);
	assert_true(stackhost_wait(&used, DMM_EV_CONNECTED, LONG_MS));
	assert_int_equal(stackhost_send(&used, "bytes", 5), 5);
	assert_true(stackhost_wait(&used, DMM_EV_READABLE, LONG_MS));
	assert_int_equal(stackhost_connect(s->host, "10.9.0.2", PORT_ECHO, 0, &half), 0);
}

static void a_closed_port_refuses(void **state)
{
	struct setup *s = *state;
	const char *addrs[] = { "10.9.0.2", "fd09::2" };
	size_t i;

	for (i = 0; i < DMM_ARRAY_SIZE(addrs); i++) {
		struct stackhost_conn c = { 0 };

		assert_int_equal(stackhost_connect(s->host, addrs[i], PORT_NONE, 0, &c), 0);
		assert_true(stackhost_wait(&c, DMM_EV_ERROR, LONG_MS));
		assert_int_equal(c.err, ECONNREFUSED);
		assert_int_equal(c.told, 1);
	}
}

int main(void)
{
#define CONTRACT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest all[] = {
		CONTRACT(connects_and_closes),
		CONTRACT(returns_every_byte),
		CONTRACT(peeked_bytes_stay),
		CONTRACT(a_slow_reader_stops_the_sender),
		CONTRACT(reserved_room_is_sent),
		CONTRACT(half_close_delivers_everything),
		CONTRACT(bytes_outlive_the_wire),
		CONTRACT(close_throws_away_what_was_not_read),
		CONTRACT(closes_with_bytes_still_to_send),
		CONTRACT(abort_is_silent),
		CONTRACT(closes_before_it_is_connected),
		CONTRACT(events_go_to_the_new_user),
		CONTRACT(events_may_call_back),
		CONTRACT(many_at_a_time),
		CONTRACT(knows_its_options),
		CONTRACT(destroy_takes_open_connections),
	};
	const struct CMUnitTest with_wire[] = {
		CONTRACT(a_closed_port_refuses),
		cmocka_unit_test_setup_teardown(returns_every_byte_when_packets_are_lost,
						setup_lossy, teardown),
	};
	int failed = 0;

	signal(SIGPIPE, SIG_IGN);
	for (target = targets; target < targets + DMM_ARRAY_SIZE(targets); target++) {
		failed += cmocka_run_group_tests_name(target->name, all, NULL, NULL);
		if (target->wire)
			failed += cmocka_run_group_tests_name(target->name, with_wire, NULL, NULL);
	}
	return failed;
}
