/* SPDX-License-Identifier: Apache-2.0 */
/* The relay against a scripted stack: the applications, their sockets and the listener are real (on
 * loopback), the wire is a struct the test writes to, and what would be injected is caught. */
#define _GNU_SOURCE
#include "instance/relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/util.h"
#include "instance/packet.h"
#include "instance/watch.h"

#define PORT_FIRST 20000
#define PORT_LAST  20063
#define WIRE_ROOM  4096

/* --- the scripted stack --- */

struct dmm_conn {
	struct rig *rig;
	void *user;
	struct dmm_connect args;
	uint8_t sent[1 << 20]; /* by the application, as the wire would see it */
	size_t n_sent, space;
	uint8_t received[1 << 20]; /* from the wire, for the application */
	size_t n_received, taken;
	bool short_of_space, shut, closed, aborted;
};

struct injected {
	enum dmm_family family;
	uint8_t packet[512];
	size_t len;
};

struct rig {
	struct relay *relay;
	struct dmm_inst_shared *shared;
	int epoll_fd, listeners[2];
	struct dmm_conn *conns[16];
	unsigned int n_conns;
	int connect_error, route_error;
	unsigned int n_icmp;
	struct injected injected[16];
	unsigned int n_injected;
	uint64_t now;
};

static struct rig *current; /* struct dmm_stack has no other way to say whose it is */

static int fake_connect(struct dmm_stack *stack, const struct dmm_connect *args,
			struct dmm_conn **ret)
{
	struct dmm_conn *conn;

	(void)stack;
	if (current->connect_error)
		return current->connect_error;
	conn = calloc(1, sizeof(*conn));
	conn->rig = current;
	conn->user = args->user;
	conn->args = *args;
	conn->space = WIRE_ROOM;
	current->conns[current->n_conns++] = conn;
	*ret = conn;
	return 0;
}

static ssize_t fake_send(struct dmm_conn *conn, const void *buf, size_t len)
{
	size_t n = DMM_MIN(len, conn->space);

	assert_false(conn->closed || conn->aborted || conn->shut);
	memcpy(conn->sent + conn->n_sent, buf, n);
	conn->n_sent += n;
	conn->space -= n;
	conn->short_of_space = n < len;
	return n;
}

static size_t fake_send_space(struct dmm_conn *conn)
{
	return conn->space;
}

static unsigned int fake_recv_peek(struct dmm_conn *conn, struct iovec *iov, unsigned int n)
{
	size_t left = conn->n_received - conn->taken;

	assert_false(conn->closed || conn->aborted);
	if (left == 0 || n < 2)
		return 0;
	iov[0] = (struct iovec){ conn->received + conn->taken, left / 2 };
	iov[1] = (struct iovec){ conn->received + conn->taken + left / 2, left - left / 2 };
	return 2;
}

static void fake_recv_done(struct dmm_conn *conn, size_t len)
{
	conn->taken += len;
	assert_true(conn->taken <= conn->n_received);
}

static int fake_shutdown(struct dmm_conn *conn)
{
	assert_false(conn->shut);
	conn->shut = true;
	return 0;
}

static void fake_close(struct dmm_conn *conn)
{
	assert_false(conn->closed || conn->aborted);
	conn->closed = true;
}

static void fake_abort(struct dmm_conn *conn)
{
	assert_false(conn->aborted);
	conn->aborted = true;
}

static int fake_set_option(struct dmm_conn *conn, enum dmm_stack_option option, int value)
{
	(void)conn, (void)option, (void)value;
	return 0;
}

static void fake_icmp(struct dmm_stack *stack, const struct dmm_icmp *error)
{
	(void)stack, (void)error;
	current->n_icmp++;
}

static const struct dmm_stack_ops fake_ops = {
	.connect = fake_connect,
	.send = fake_send,
	.send_space = fake_send_space,
	.recv_peek = fake_recv_peek,
	.recv_done = fake_recv_done,
	.shutdown = fake_shutdown,
	.close = fake_close,
	.abort = fake_abort,
	.set_option = fake_set_option,
	.icmp = fake_icmp,
};

static void on_inject(void *ctx, enum dmm_family family, const uint8_t dst[16],
		      const uint8_t *packet, size_t len)
{
	struct rig *rig = ctx;
	struct injected *in = &rig->injected[rig->n_injected++];

	(void)dst;
	in->family = family;
	in->len = len;
	memcpy(in->packet, packet, len);
}

static int on_route(void *ctx, const uint8_t remote[16], const uint8_t local[16])
{
	struct rig *rig = ctx;

	(void)remote, (void)local;
	return rig->route_error;
}

/* --- the rig --- */

static int listen_on(int family)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(family, SOCK_STREAM, 0), r;

	r = family == AF_INET ? bind(fd, (struct sockaddr *)&in, sizeof(in))
			      : bind(fd, (struct sockaddr *)&in6, sizeof(in6));
	if (r < 0) {
		close(fd);
		return -1; /* no IPv6 here */
	}
	assert_int_equal(listen(fd, 64), 0);
	return fd;
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct relay_args args = {
		.ops = &fake_ops,
		.port_first = PORT_FIRST,
		.port_last = PORT_LAST,
		.outside = { rig, on_inject, on_route },
	};

	rig->shared = calloc(1, sizeof(*rig->shared));
	rig->epoll_fd = epoll_create1(0);
	rig->listeners[0] = listen_on(AF_INET);
	rig->listeners[1] = listen_on(AF_INET6);
	rig->now = 1000 * DMM_NS_PER_SEC;
	args.shared = rig->shared;
	args.epoll_fd = rig->epoll_fd;
	memcpy(args.listeners, rig->listeners, sizeof(args.listeners));
	current = rig;
	*state = rig;
	return relay_open(&args, &rig->relay);
}

static int teardown(void **state)
{
	struct rig *rig = *state;
	unsigned int i;

	relay_close(rig->relay);
	for (i = 0; i <= PORT_LAST - PORT_FIRST; i++)
		assert_int_not_equal(rig->shared->port[i], DMM_PORT_USED);
	for (i = 0; i < rig->n_conns; i++)
		free(rig->conns[i]);
	for (i = 0; i < 2; i++)
		if (rig->listeners[i] >= 0)
			close(rig->listeners[i]);
	close(rig->epoll_fd);
	free(rig->shared);
	free(rig);
	return 0;
}

/* A few turns of the loop: everything that epoll has to say, acted upon. Returns the events seen. */
static unsigned int spin(struct rig *rig)
{
	struct epoll_event events[64];
	unsigned int total = 0;
	int n, i, turn;

	relay_set_now(rig->relay, rig->now);
	for (turn = 0; turn < 6; turn++) {
		n = epoll_wait(rig->epoll_fd, events, 64, turn < 2 ? 5 : 0);
		for (i = 0; i < n; i++) {
			if (watch_kind_of(&events[i]) == WATCH_LISTENER)
				relay_on_listener(rig->relay, watch_index_of(&events[i]));
			else
				relay_on_app(rig->relay, watch_index_of(&events[i]),
					     events[i].events);
		}
		total += n;
		relay_run(rig->relay);
	}
	return total;
}

static void stack_says(struct dmm_conn *conn, uint32_t events, int err)
{
	relay_on_stack(conn->rig->relay, conn->user, events, err);
	spin(conn->rig);
}

static void wire_sends(struct dmm_conn *conn, const void *data, size_t len)
{
	memcpy(conn->received + conn->n_received, data, len);
	conn->n_received += len;
	stack_says(conn, DMM_EV_READABLE, 0);
}

static void wire_acks(struct dmm_conn *conn)
{
	conn->space = WIRE_ROOM;
	if (conn->short_of_space) {
		conn->short_of_space = false;
		stack_says(conn, DMM_EV_WRITABLE, 0);
	}
}

/* --- an application --- */

struct app {
	int fd;
	int family;
	uint16_t port, relay_port; /* network order */
	uint32_t isn;
	uint16_t wire_port; /* host order */
	uint64_t cookie;
};

static uint16_t port_of(int fd)
{
	struct sockaddr_in6 addr;
	socklen_t len = sizeof(addr);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	return addr.sin6_port;
}

static void app_bind(struct rig *rig, struct app *app, int family, uint16_t wire_port)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	*app = (struct app){ .family = family, .isn = 0x12345678, .wire_port = wire_port };
	app->cookie = wire_port;
	app->fd = socket(family, SOCK_STREAM, 0);
	if (family == AF_INET)
		assert_int_equal(bind(app->fd, (struct sockaddr *)&in, sizeof(in)), 0);
	else
		assert_int_equal(bind(app->fd, (struct sockaddr *)&in6, sizeof(in6)), 0);
	app->port = port_of(app->fd);
	app->relay_port = port_of(rig->listeners[family == AF_INET6]);
}

static void fill_addr(int family, uint8_t addr[16])
{
	static const uint8_t v4[4] = { 127, 0, 0, 1 };

	if (family == AF_INET)
		addr_from_v4(v4, addr);
	else
		memcpy(addr, &in6addr_loopback, 16);
}

static struct dmm_event event_of(const struct app *app, enum dmm_event_kind kind)
{
	static const uint8_t remote4[4] = { 10, 77, 0, 1 }, local4[4] = { 10, 77, 0, 2 };
	struct dmm_event e = { .kind = kind, .cookie = app->cookie };
	unsigned int header = app->family == AF_INET ? 20 : 40;
	uint8_t *tcp = e.packet + header;

	e.family = app->family == AF_INET ? DMM_FAMILY_V4 : DMM_FAMILY_V6;
	fill_addr(app->family, e.app);
	fill_addr(app->family, e.relay);
	e.app_port = app->port;
	e.relay_port = app->relay_port;
	addr_from_v4(local4, e.local);
	addr_from_v4(remote4, e.remote);
	e.local_port = htons(app->wire_port);
	e.remote_port = htons(80);
	if (app->family == AF_INET) {
		e.packet[0] = 0x45;
		packet_put16(e.packet + 2, 40);
		e.packet[9] = IPPROTO_TCP;
		memcpy(e.packet + 12, e.app + 12, 4);
		memcpy(e.packet + 16, e.relay + 12, 4);
	} else {
		e.packet[0] = 0x60;
		packet_put16(e.packet + 4, 20);
		e.packet[6] = IPPROTO_TCP;
		memcpy(e.packet + 8, e.app, 16);
		memcpy(e.packet + 24, e.relay, 16);
	}
	memcpy(tcp, &app->port, 2);
	memcpy(tcp + 2, &app->relay_port, 2);
	packet_put32(tcp + 4, app->isn);
	tcp[12] = 5 << 4;
	tcp[13] = 0x02;
	e.packet_len = header + 20;
	return e;
}

/* What the lo filter does with the first SYN, and with each of its retransmissions. */
static void syn_is_held(struct rig *rig, const struct app *app)
{
	struct dmm_event e = event_of(app, DMM_EVENT_SYN);

	relay_set_now(rig->relay, rig->now);
	relay_on_ring(rig->relay, &e);
	spin(rig);
}

/* What the injected SYN sets off. */
static void app_connects(struct rig *rig, struct app *app)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);

	getsockname(rig->listeners[app->family == AF_INET6], (struct sockaddr *)&addr, &len);
	assert_int_equal(connect(app->fd, (struct sockaddr *)&addr, len), 0);
	spin(rig);
}

static uint32_t *port_slot(struct rig *rig, const struct app *app)
{
	return &rig->shared->port[app->wire_port - PORT_FIRST];
}

static struct dmm_conn *open_flow_on(struct rig *rig, struct app *app, int family, uint16_t port)
{
	struct dmm_conn *conn;

	app_bind(rig, app, family, port);
	*port_slot(rig, app) = 1234; /* the hook's claim */
	syn_is_held(rig, app);
	conn = rig->conns[rig->n_conns - 1];
	stack_says(conn, DMM_EV_CONNECTED, 0);
	app_connects(rig, app);
	assert_int_equal(rig->shared->flows_opened, rig->n_conns);
	return conn;
}

static struct dmm_conn *open_flow(struct rig *rig, struct app *app)
{
	return open_flow_on(rig, app, AF_INET, PORT_FIRST + 5);
}

/* --- what the application sees --- */

static void assert_app_reads(struct app *app, const void *data, size_t len)
{
	char buf[1 << 16];

	assert_true(len <= sizeof(buf));
	assert_int_equal(recv(app->fd, buf, len, MSG_WAITALL), len);
	assert_memory_equal(buf, data, len);
}

static void assert_app_eof(struct app *app)
{
	char c;

	assert_int_equal(recv(app->fd, &c, 1, 0), 0);
}

static void assert_app_reset(struct app *app)
{
	char c;

	assert_int_equal(recv(app->fd, &c, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
}

static void reset_by_app(struct app *app)
{
	struct linger reset = { .l_onoff = 1 };

	setsockopt(app->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(app->fd);
}

/* --- connecting --- */

static void held_syn_is_let_go_once_the_wire_stands(void **state)
{
	struct rig *rig = *state;
	struct dmm_conn *conn;
	struct packet p;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	*port_slot(rig, &app) = 1234;
	syn_is_held(rig, &app);
	assert_int_equal(rig->n_conns, 1);
	assert_int_equal(rig->n_injected, 0);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_USED);
	conn = rig->conns[0];
	assert_int_equal(conn->args.remote.port, htons(80));
	assert_int_equal(conn->args.local.port, htons(PORT_FIRST));

	syn_is_held(rig, &app); /* a retransmission changes nothing */
	assert_int_equal(rig->n_conns, 1);
	assert_int_equal(rig->n_injected, 0);

	stack_says(conn, DMM_EV_CONNECTED, 0);
	assert_int_equal(rig->n_injected, 1);
	assert_true(packet_parse(rig->injected[0].packet, rig->injected[0].len, &p));
	assert_int_equal(checksum_fold(checksum_add(0, rig->injected[0].packet, 20)), 0);
	assert_int_equal(checksum_transport(&p, rig->injected[0].packet + 20, 20), 0);

	syn_is_held(rig, &app); /* the injected one got lost */
	assert_int_equal(rig->n_injected, 2);

	app_connects(rig, &app);
	assert_int_equal(rig->shared->flows_opened, 1);
	assert_int_equal(rig->shared->strangers, 0);
	close(app.fd);
}

static void refused_is_told_as_rst(void **state)
{
	struct rig *rig = *state;
	const uint8_t *tcp = rig->injected[0].packet + 20;
	struct packet p;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	syn_is_held(rig, &app);
	stack_says(rig->conns[0], DMM_EV_ERROR, ECONNREFUSED);
	assert_int_equal(rig->n_injected, 1);
	assert_true(packet_parse(rig->injected[0].packet, rig->injected[0].len, &p));
	assert_int_equal(checksum_transport(&p, tcp, 20), 0);
	assert_int_equal(tcp[13], 0x14); /* RST|ACK */
	assert_int_equal(packet_get32(tcp + 4), 0);
	assert_int_equal(packet_get32(tcp + 8), app.isn + 1);
	assert_memory_equal(tcp + 2, &app.port, 2);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_FREE);
	assert_int_equal(rig->shared->flows_refused, 1);
	assert_int_equal(relay_active(rig->relay), 0);
	close(app.fd);
}

static void timed_out_is_not_told_and_a_new_syn_tries_again(void **state)
{
	struct rig *rig = *state;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	syn_is_held(rig, &app);
	stack_says(rig->conns[0], DMM_EV_ERROR, ETIMEDOUT);
	assert_int_equal(rig->n_injected, 0);
	assert_int_equal(rig->shared->flows_timed_out, 1);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_USED);
	syn_is_held(rig, &app);
	assert_int_equal(rig->n_conns, 2);
	stack_says(rig->conns[1], DMM_EV_CONNECTED, 0);
	assert_int_equal(rig->n_injected, 1);
	close(app.fd);
}

static void stack_without_memory_tries_again_with_the_next_syn(void **state)
{
	struct rig *rig = *state;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	rig->connect_error = -ENOMEM;
	syn_is_held(rig, &app);
	assert_int_equal(rig->n_injected, 0);
	rig->connect_error = 0;
	syn_is_held(rig, &app);
	assert_int_equal(rig->n_conns, 1);
	close(app.fd);
}

static void no_route_is_told_as_icmp(void **state)
{
	struct rig *rig = *state;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	rig->route_error = -ENETUNREACH;
	syn_is_held(rig, &app);
	assert_int_equal(rig->n_conns, 0);
	assert_int_equal(rig->n_injected, 1);
	assert_int_equal(rig->injected[0].packet[9], IPPROTO_ICMP);
	assert_int_equal(rig->injected[0].packet[20], 3);
	assert_int_equal(rig->injected[0].packet[21], 0);
	close(app.fd);
}

static struct icmp_error icmp_about(const struct app *app, uint32_t seq, bool hard)
{
	struct dmm_event e = event_of(app, DMM_EVENT_SYN);
	struct icmp_error error = { .type = 3, .code = 1 };

	memcpy(error.about.local.addr, e.local, 16);
	memcpy(error.about.remote.addr, e.remote, 16);
	error.about.local.port = e.local_port;
	error.about.remote.port = e.remote_port;
	error.about.seq = seq;
	error.about.hard = hard;
	error.about.err = EHOSTUNREACH;
	return error;
}

static void icmp_error_ends_the_attempt_with_the_same_error(void **state)
{
	struct rig *rig = *state;
	struct icmp_error error;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	syn_is_held(rig, &app);
	relay_on_wire_syn(rig->relay, htons(PORT_FIRST), 77);

	error = icmp_about(&app, 78, true); /* a guessed one */
	relay_on_icmp(rig->relay, &error);
	assert_int_equal(rig->n_injected, 0);
	error = icmp_about(&app, 77, false); /* too big: for the stack alone */
	relay_on_icmp(rig->relay, &error);
	assert_int_equal(rig->n_icmp, 1);
	assert_int_equal(rig->n_injected, 0);

	error = icmp_about(&app, 77, true);
	relay_on_icmp(rig->relay, &error);
	assert_true(rig->conns[0]->aborted);
	assert_int_equal(rig->n_injected, 1);
	assert_int_equal(rig->injected[0].packet[20], 3);
	assert_int_equal(rig->injected[0].packet[21], 1);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_FREE);
	close(app.fd);
}

static void icmp_error_does_not_end_an_open_flow(void **state)
{
	struct rig *rig = *state;
	struct icmp_error error;
	struct dmm_conn *conn;
	struct app app;

	conn = open_flow(rig, &app);
	error = icmp_about(&app, 5, true);
	relay_on_icmp(rig->relay, &error);
	spin(rig);
	assert_false(conn->aborted);
	assert_int_equal(rig->n_icmp, 1);
	close(app.fd);
}

static bool is_any(void *ctx, const uint8_t remote[16], const uint8_t local[16])
{
	(void)remote, (void)local;
	return *(bool *)ctx;
}

static void lost_next_hop_ends_attempts_only(void **state)
{
	struct rig *rig = *state;
	struct app pending, open;
	struct dmm_conn *conn = open_flow(rig, &open);
	bool hit = false;

	app_bind(rig, &pending, AF_INET, PORT_FIRST + 1);
	syn_is_held(rig, &pending);
	rig->n_injected = 0;
	relay_on_unreachable(rig->relay, is_any, &hit);
	assert_int_equal(rig->n_injected, 0);
	hit = true;
	relay_on_unreachable(rig->relay, is_any, &hit);
	assert_int_equal(rig->n_injected, 1);
	assert_int_equal(rig->injected[0].packet[21], 1);
	assert_true(rig->conns[1]->aborted);
	assert_false(conn->aborted);
	close(pending.fd);
	close(open.fd);
}

static void app_that_gives_up_ends_the_wire(void **state)
{
	struct rig *rig = *state;
	struct dmm_event e;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	syn_is_held(rig, &app);
	e = event_of(&app, DMM_EVENT_CLOSED);
	e.cookie++; /* another socket that had the same port before */
	relay_on_ring(rig->relay, &e);
	assert_false(rig->conns[0]->aborted);
	e.cookie--;
	relay_on_ring(rig->relay, &e);
	assert_true(rig->conns[0]->aborted);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_FREE);
	close(app.fd);
}

static void injected_syn_that_nobody_answers_expires(void **state)
{
	struct rig *rig = *state;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	syn_is_held(rig, &app);
	stack_says(rig->conns[0], DMM_EV_CONNECTED, 0);
	rig->now += 9 * DMM_NS_PER_SEC;
	spin(rig);
	assert_false(rig->conns[0]->aborted);
	rig->now += 2 * DMM_NS_PER_SEC;
	spin(rig);
	assert_true(rig->conns[0]->aborted);
	assert_int_equal(relay_active(rig->relay), 0);
	close(app.fd);
}

static void port_reused_by_app_replaces_the_older_attempt(void **state)
{
	struct rig *rig = *state;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	syn_is_held(rig, &app);
	app.wire_port++; /* a new socket from the same port: the older one's end got lost */
	app.isn++;
	syn_is_held(rig, &app);
	assert_true(rig->conns[0]->aborted);
	assert_int_equal(rig->n_conns, 2);
	assert_int_equal(rig->shared->port[0], DMM_PORT_FREE);
	assert_int_equal(rig->shared->port[1], DMM_PORT_USED);
	assert_int_equal(relay_active(rig->relay), 1);
	close(app.fd);
}

static void stranger_is_reset(void **state)
{
	struct rig *rig = *state;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	app_connects(rig, &app);
	assert_app_reset(&app);
	assert_int_equal(rig->shared->strangers, 1);
	close(app.fd);

	/* also while its wire connection is still being made */
	app_bind(rig, &app, AF_INET, PORT_FIRST);
	syn_is_held(rig, &app);
	app_connects(rig, &app);
	assert_app_reset(&app);
	assert_int_equal(rig->shared->strangers, 2);
	close(app.fd);
}

static void nonsense_events_are_ignored(void **state)
{
	struct rig *rig = *state;
	struct dmm_event e;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_LAST + 1); /* not ours */
	syn_is_held(rig, &app);
	app.wire_port = PORT_FIRST;
	e = event_of(&app, DMM_EVENT_SYN);
	e.packet_len = 30; /* cut within the TCP header */
	relay_on_ring(rig->relay, &e);
	e.packet_len = sizeof(e.packet) + 1;
	relay_on_ring(rig->relay, &e);
	assert_int_equal(rig->n_conns, 0);
	assert_int_equal(relay_active(rig->relay), 0);
	close(app.fd);
}

/* --- bytes --- */

static void carry_both_ways_on(struct rig *rig, int family)
{
	struct dmm_conn *conn;
	struct app app;

	conn = open_flow_on(rig, &app, family, PORT_FIRST + 9);
	assert_int_equal(send(app.fd, "hello", 5, 0), 5);
	spin(rig);
	assert_int_equal(conn->n_sent, 5);
	assert_memory_equal(conn->sent, "hello", 5);
	wire_sends(conn, "world!", 6);
	assert_app_reads(&app, "world!", 6);
	assert_int_equal(conn->taken, 6);

	shutdown(app.fd, SHUT_WR); /* half-close: the answer still comes */
	spin(rig);
	assert_true(conn->shut);
	wire_sends(conn, "more", 4);
	assert_app_reads(&app, "more", 4);
	assert_false(conn->closed);
	stack_says(conn, DMM_EV_EOF, 0);
	assert_app_eof(&app);
	assert_true(conn->closed);
	assert_false(conn->aborted);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_USED); /* TIME-WAIT */
	assert_int_equal(relay_active(rig->relay), 0);
	assert_int_equal(relay_closing(rig->relay), 1);
	stack_says(conn, DMM_EV_CLOSED, 0);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_FREE);
	close(app.fd);
}

static void bytes_go_both_ways_and_end_orderly(void **state)
{
	carry_both_ways_on(*state, AF_INET);
}

static void bytes_go_both_ways_over_ipv6(void **state)
{
	struct rig *rig = *state;

	if (rig->listeners[1] < 0)
		skip();
	carry_both_ways_on(rig, AF_INET6);
}

static void wire_eof_first_leaves_the_app_writing(void **state)
{
	struct rig *rig = *state;
	struct dmm_conn *conn;
	struct app app;

	conn = open_flow(rig, &app);
	memcpy(conn->received, "bye", 3);
	conn->n_received = 3;
	stack_says(conn, DMM_EV_READABLE | DMM_EV_EOF, 0);
	assert_app_reads(&app, "bye", 3);
	assert_app_eof(&app);
	assert_int_equal(send(app.fd, "last", 4, MSG_NOSIGNAL), 4);
	spin(rig);
	assert_memory_equal(conn->sent, "last", 4);
	assert_false(conn->shut);
	close(app.fd);
	spin(rig);
	assert_true(conn->shut && conn->closed);
	assert_false(conn->aborted);
}

static void app_bytes_before_its_fin_all_arrive(void **state)
{
	struct rig *rig = *state;
	uint8_t data[40000];
	struct dmm_conn *conn;
	struct app app;
	size_t i;

	for (i = 0; i < sizeof(data); i++)
		data[i] = i * 7 + (i >> 8);
	conn = open_flow(rig, &app);
	assert_int_equal(send(app.fd, data, sizeof(data), 0), sizeof(data));
	shutdown(app.fd, SHUT_WR);
	spin(rig);
	/* the stack is full: the rest waits in the socket, and nobody spins about it */
	assert_int_equal(conn->n_sent, WIRE_ROOM);
	assert_false(conn->shut);
	assert_int_equal(spin(rig), 0);
	for (i = 0; i < 20; i++)
		wire_acks(conn);
	assert_int_equal(conn->n_sent, sizeof(data));
	assert_memory_equal(conn->sent, data, sizeof(data));
	assert_true(conn->shut);
	close(app.fd);
}

static void app_that_does_not_read_closes_the_window(void **state)
{
	static uint8_t data[1 << 20], back[1 << 20];
	struct rig *rig = *state;
	struct dmm_conn *conn;
	size_t got = 0, i;
	struct app app;
	int small = 4096;

	for (i = 0; i < sizeof(data); i++)
		data[i] = i * 13 + (i >> 9);
	conn = open_flow(rig, &app);
	setsockopt(app.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	wire_sends(conn, data, sizeof(data));
	assert_true(conn->taken < sizeof(data) * 3 / 4);
	i = conn->taken;
	assert_int_equal(spin(rig), 0);
	assert_int_equal(conn->taken, i);
	while (got < sizeof(data)) {
		ssize_t n = recv(app.fd, back + got, sizeof(back) - got, MSG_DONTWAIT);

		if (n > 0)
			got += n;
		spin(rig);
	}
	assert_memory_equal(back, data, sizeof(data));
	close(app.fd);
}

static void urgent_bytes_do_not_stop_the_rest(void **state)
{
	struct rig *rig = *state;
	struct dmm_conn *conn;
	struct app app;

	conn = open_flow(rig, &app);
	assert_int_equal(send(app.fd, "before", 6, 0), 6);
	assert_int_equal(send(app.fd, "!", 1, MSG_OOB), 1);
	assert_int_equal(send(app.fd, "after", 5, 0), 5);
	spin(rig);
	assert_int_equal(conn->n_sent, 11);
	assert_memory_equal(conn->sent, "beforeafter", 11);
	close(app.fd);
}

/* --- resets --- */

static void reset_from_the_wire_resets_the_app(void **state)
{
	struct rig *rig = *state;
	struct dmm_conn *conn;
	struct app app;

	conn = open_flow(rig, &app);
	stack_says(conn, DMM_EV_ERROR, ECONNRESET);
	assert_app_reset(&app);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_FREE);
	assert_int_equal(rig->shared->flows_reset, 1);
	close(app.fd);
}

static void reset_from_the_app_resets_the_wire(void **state)
{
	struct rig *rig = *state;
	struct dmm_conn *conn;
	struct app app;

	conn = open_flow(rig, &app);
	reset_by_app(&app);
	spin(rig);
	assert_true(conn->aborted);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_FREE);
}

static void reset_is_seen_while_the_stack_is_full(void **state)
{
	static uint8_t data[20000];
	struct rig *rig = *state;
	struct dmm_conn *conn;
	struct app app;

	conn = open_flow(rig, &app);
	assert_int_equal(send(app.fd, data, sizeof(data), 0), sizeof(data));
	spin(rig);
	assert_int_equal(conn->space, 0);
	reset_by_app(&app);
	spin(rig);
	assert_true(conn->aborted);
	assert_int_equal(relay_active(rig->relay), 0);
}

static void dying_instance_shows_as_a_reset(void **state)
{
	struct rig *rig = *state;
	struct dmm_conn *conn;
	struct app app;

	conn = open_flow(rig, &app);
	wire_sends(conn, "part of", 7);
	stack_says(conn, DMM_EV_EOF, 0); /* half-closed: still no clean end */
	shutdown(app.fd, SHUT_WR);
	relay_reset_all(rig->relay);
	assert_app_reads(&app, "part of", 7);
	close(app.fd);

	conn = open_flow_on(rig, &app, AF_INET, PORT_FIRST + 6);
	relay_reset_all(rig->relay);
	assert_app_reset(&app);
	assert_true(conn->aborted);
	close(app.fd);
}

/* --- upkeep --- */

static void stale_claims_are_swept(void **state)
{
	struct rig *rig = *state;
	uint32_t now = dmm_clock_ns(CLOCK_MONOTONIC_COARSE) >> 20;

	rig->shared->port[0] = (now - DMM_PORT_CLAIM_MS - 100) | 2;
	rig->shared->port[1] = (now - 1000) | 2;
	rig->shared->port[2] = (now + 1) | 2; /* the stamp's low bits are not the clock's */
	spin(rig);
	assert_int_equal(rig->shared->port[0], DMM_PORT_FREE);
	assert_int_not_equal(rig->shared->port[1], DMM_PORT_FREE);
	assert_int_not_equal(rig->shared->port[2], DMM_PORT_FREE);
}

static void no_descriptor_left_waits_without_spinning(void **state)
{
	struct rig *rig = *state;
	struct rlimit old, low;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	syn_is_held(rig, &app);
	stack_says(rig->conns[0], DMM_EV_CONNECTED, 0);
	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = app.fd + 1;
	setrlimit(RLIMIT_NOFILE, &low);
	app_connects(rig, &app);
	assert_int_equal(rig->shared->flows_opened, 0);
	assert_int_equal(spin(rig), 0);
	setrlimit(RLIMIT_NOFILE, &old);
	rig->now += DMM_NS_PER_SEC;
	spin(rig);
	assert_int_equal(rig->shared->flows_opened, 1);
	close(app.fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(held_syn_is_let_go_once_the_wire_stands),
		TEST(refused_is_told_as_rst),
		TEST(timed_out_is_not_told_and_a_new_syn_tries_again),
		TEST(stack_without_memory_tries_again_with_the_next_syn),
		TEST(no_route_is_told_as_icmp),
		TEST(icmp_error_ends_the_attempt_with_the_same_error),
		TEST(icmp_error_does_not_end_an_open_flow),
		TEST(lost_next_hop_ends_attempts_only),
		TEST(app_that_gives_up_ends_the_wire),
		TEST(injected_syn_that_nobody_answers_expires),
		TEST(port_reused_by_app_replaces_the_older_attempt),
		TEST(stranger_is_reset),
		TEST(nonsense_events_are_ignored),
		TEST(bytes_go_both_ways_and_end_orderly),
		TEST(bytes_go_both_ways_over_ipv6),
		TEST(wire_eof_first_leaves_the_app_writing),
		TEST(app_bytes_before_its_fin_all_arrive),
		TEST(app_that_does_not_read_closes_the_window),
		TEST(urgent_bytes_do_not_stop_the_rest),
		TEST(reset_from_the_wire_resets_the_app),
		TEST(reset_from_the_app_resets_the_wire),
		TEST(reset_is_seen_while_the_stack_is_full),
		TEST(dying_instance_shows_as_a_reset),
		TEST(stale_claims_are_swept),
		TEST(no_descriptor_left_waits_without_spinning),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
