// SPDX-License-Identifier: Apache-2.0
/* The least that a stack plug-in is: every connect succeeds, and what is sent comes back. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <dmm/stack.h>

struct dmm_conn {
	struct dmm_stack *stack;
	struct dmm_conn *next;
	void *user;
	uint32_t events; /* to be told at the next tick */
	bool shut, closing, dead, want_write;
	size_t len; /* what waits to be received */
	uint8_t data[];
};

struct dmm_stack {
	struct dmm_host host;
	size_t memory;
	struct dmm_conn *conns;
};

static int echo_create(const struct dmm_stack_params *params, const struct dmm_host *host,
		       struct dmm_stack **ret)
{
	struct dmm_stack *stack = calloc(1, sizeof(*stack));

	if (!stack)
		return -ENOMEM;
	*stack = (struct dmm_stack){ .host = *host, .memory = params->conn_memory };
	*ret = stack;
	return 0;
}

static void echo_destroy(struct dmm_stack *stack)
{
	for (struct dmm_conn *conn = stack->conns; conn; conn = stack->conns) {
		stack->conns = conn->next;
		free(conn);
	}
	free(stack);
}

static void echo_input(struct dmm_stack *stack, const struct dmm_frame *frames, unsigned int n)
{
	(void)stack, (void)frames, (void)n; /* nobody is out there */
}

static uint64_t echo_tick(struct dmm_stack *stack, uint64_t now)
{
	struct dmm_conn *conn, **link = &stack->conns;
	uint64_t next = UINT64_MAX;

	while ((conn = *link)) {
		const uint32_t events = conn->closing ? DMM_EV_CLOSED : conn->events;

		if (conn->dead) {
			*link = conn->next;
			free(conn);
			continue;
		}
		link = &conn->next;
		conn->events = 0;
		conn->dead = events == DMM_EV_CLOSED;
		if (events)
			stack->host.event(stack->host.ctx, conn->user, events, 0);
		next = conn->events || conn->closing ? now : next;
	}
	return next;
}

static int echo_connect(struct dmm_stack *stack, const struct dmm_connect *args,
			struct dmm_conn **ret)
{
	struct dmm_conn *conn = calloc(1, sizeof(*conn) + stack->memory);

	if (!conn)
		return -ENOMEM;
	*conn = (struct dmm_conn){ stack, stack->conns, args->user, .events = DMM_EV_CONNECTED };
	*ret = stack->conns = conn;
	return 0;
}

static size_t echo_send_space(struct dmm_conn *conn)
{
	return conn->shut ? 0 : conn->stack->memory - conn->len;
}

static ssize_t echo_send(struct dmm_conn *conn, const void *buf, size_t len)
{
	const size_t space = echo_send_space(conn), n = len < space ? len : space;

	if (conn->shut)
		return -EPIPE;
	memcpy(conn->data + conn->len, buf, n);
	conn->len += n;
	conn->want_write = n < len;
	conn->events |= n ? DMM_EV_READABLE : 0;
	return (ssize_t)n;
}

static unsigned int echo_recv_peek(struct dmm_conn *conn, struct iovec *iov, unsigned int n)
{
	if (n)
		*iov = (struct iovec){ conn->data, conn->len };
	return n && conn->len;
}

static void echo_recv_done(struct dmm_conn *conn, size_t len)
{
	conn->len -= len;
	memmove(conn->data, conn->data + len, conn->len);
	conn->events |= conn->want_write ? DMM_EV_WRITABLE : 0;
	conn->want_write = false;
}

static int echo_shutdown(struct dmm_conn *conn)
{
	conn->events |= conn->shut ? 0 : DMM_EV_EOF;
	conn->shut = true;
	conn->want_write = false;
	return 0;
}

static int echo_set_option(struct dmm_conn *conn, enum dmm_stack_option option, int value)
{
	(void)conn, (void)value;
	return option > DMM_OPT_KEEPALIVE ? -ENOPROTOOPT : 0;
}

/* clang-format off */
static size_t echo_unsent(struct dmm_conn *conn) { (void)conn; return 0; }
static void echo_close(struct dmm_conn *conn) { conn->closing = conn->shut = true; }
static void echo_abort(struct dmm_conn *conn) { conn->dead = true; }
static void echo_set_user(struct dmm_conn *conn, void *user) { conn->user = user; }

const struct dmm_stack_ops dmm_stack_plugin = {
	DMM_STACK_ABI, sizeof(dmm_stack_plugin), "echo", "1",
	.create = echo_create, .destroy = echo_destroy, .input = echo_input, .tick = echo_tick,
	.connect = echo_connect, .send = echo_send, .send_space = echo_send_space,
	.recv_peek = echo_recv_peek, .recv_done = echo_recv_done, .unsent = echo_unsent,
	.shutdown = echo_shutdown, .close = echo_close, .abort = echo_abort,
	.set_option = echo_set_option, .set_user = echo_set_user,
};
