/* SPDX-License-Identifier: Apache-2.0 */
/* The scripted stack, and applications as the socket door would lead them to the relay. */
#include "relayrig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/util.h"
#include "base/packet.h"
#include "instance/watch.h"

/* --- the scripted stack --- */

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

static int fake_listen(struct dmm_stack *stack, const struct dmm_endpoint *local, int backlog,
		       void *user, struct dmm_conn **ret)
{
	struct dmm_conn *conn = &current->plugin_listeners[current->n_plugin_listeners++];

	(void)stack, (void)backlog;
	*conn = (struct dmm_conn){ .rig = current, .user = user };
	conn->args.local = *local;
	*ret = conn;
	return 0;
}

static void fake_set_user(struct dmm_conn *conn, void *user)
{
	conn->user = user;
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
	.listen = fake_listen,
	.set_user = fake_set_user,
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

static void on_want_sockets(void *ctx, enum dmm_family family)
{
	((struct rig *)ctx)->wanted[family]++;
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
	int fd = socket(family, SOCK_STREAM, 0), buffer = 128 << 10, r; /* as dmmd makes it */

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
	r = family == AF_INET ? bind(fd, (struct sockaddr *)&in, sizeof(in))
			      : bind(fd, (struct sockaddr *)&in6, sizeof(in6));
	if (r < 0) {
		close(fd);
		return -1; /* no IPv6 here */
	}
	assert_int_equal(listen(fd, 64), 0);
	return fd;
}

int relay_rig_setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct relay_args args = {
		.ops = &fake_ops,
		.port_first = PORT_FIRST,
		.port_last = PORT_LAST,
		.outside = { .ctx = rig,
			     .inject = on_inject,
			     .want_sockets = on_want_sockets,
			     .route = on_route },
	};

	rig->shared = calloc(1, sizeof(*rig->shared));
	rig->plugin_listeners = calloc(RIG_LISTENERS, sizeof(*rig->plugin_listeners));
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

int relay_rig_teardown(void **state)
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
	free(rig->plugin_listeners);
	free(rig->shared);
	free(rig);
	return 0;
}

unsigned int spin(struct rig *rig)
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

void stack_says(struct dmm_conn *conn, uint32_t events, int err)
{
	relay_on_stack(conn->rig->relay, conn->user, events, err);
	spin(conn->rig);
}

void wire_sends(struct dmm_conn *conn, const void *data, size_t len)
{
	memcpy(conn->received + conn->n_received, data, len);
	conn->n_received += len;
	stack_says(conn, DMM_EV_READABLE, 0);
}

void wire_acks(struct dmm_conn *conn)
{
	conn->space = WIRE_ROOM;
	if (conn->short_of_space) {
		conn->short_of_space = false;
		stack_says(conn, DMM_EV_WRITABLE, 0);
	}
}

/* --- an application --- */

static uint16_t port_of(int fd)
{
	struct sockaddr_in6 addr;
	socklen_t len = sizeof(addr);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	return addr.sin6_port;
}

void app_bind(struct rig *rig, struct app *app, int family, uint16_t wire_port)
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

struct dmm_event event_of(const struct app *app, enum dmm_event_kind kind)
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

void syn_is_held(struct rig *rig, const struct app *app)
{
	struct dmm_event e = event_of(app, DMM_EVENT_SYN);

	relay_set_now(rig->relay, rig->now);
	relay_on_ring(rig->relay, &e);
	spin(rig);
}

void app_connects(struct rig *rig, struct app *app)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);

	getsockname(rig->listeners[app->family == AF_INET6], (struct sockaddr *)&addr, &len);
	assert_int_equal(connect(app->fd, (struct sockaddr *)&addr, len), 0);
	spin(rig);
}

uint32_t *port_slot(struct rig *rig, const struct app *app)
{
	return &rig->shared->port[app->wire_port - PORT_FIRST];
}

struct dmm_conn *open_flow_on(struct rig *rig, struct app *app, int family, uint16_t port)
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

struct dmm_conn *open_flow(struct rig *rig, struct app *app)
{
	return open_flow_on(rig, app, AF_INET, PORT_FIRST + 5);
}

/* --- what the application sees --- */

void assert_app_reads(struct app *app, const void *data, size_t len)
{
	char buf[1 << 16];

	assert_true(len <= sizeof(buf));
	assert_int_equal(recv(app->fd, buf, len, MSG_WAITALL), len);
	assert_memory_equal(buf, data, len);
}

void assert_app_eof(struct app *app)
{
	char c;

	assert_int_equal(recv(app->fd, &c, 1, 0), 0);
}

void assert_app_reset(struct app *app)
{
	char c;

	assert_int_equal(recv(app->fd, &c, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
}

void reset_by_app(struct app *app)
{
	struct linger reset = { .l_onoff = 1 };

	setsockopt(app->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(app->fd);
}
