/* SPDX-License-Identifier: Apache-2.0 */
/* Carrying bytes between an application's socket and its wire connection.
 *
 * Nothing is buffered here. What the stack has no room for stays in the application's socket (where the
 * stack lends no room to read into, it is peeked, and consumed only once taken); what the application's socket does not take stays in the
 * stack, whose receive window closes. Edge-triggered: can_read and can_write remember what epoll
 * said, so that a direction that is stopped by the other side costs nothing.
 * #syscalls recvfrom recvmsg sendmsg shutdown setsockopt getsockopt epoll_ctl close */
#include "instance/relay_internal.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "instance/watch.h"

#define IOVECS	   64
#define READ_LEAST (4u << 10) /* a request */
#define READ_MOST  (64u << 10)

/* RST from the application, or its kernel: the wire gets one too. */
static void reset_wire(struct relay *relay, struct flow *flow)
{
	relay->args.shared->flows_reset++;
	relay_free_flow(relay, flow);
}

/* --- application -> wire --- */

/* The next bytes, without consuming them. One more than @space: a stack that is offered more than
 * it has room for says when there is room again. */
static ssize_t peek_app(struct relay *relay, struct flow *flow, size_t space, size_t *ret_asked)
{
	ssize_t n;

	*ret_asked = DMM_MIN(space + 1, RELAY_SCRATCH);
	do
		n = recv(flow->app_fd, relay->scratch, *ret_asked, MSG_PEEK | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* Bytes that were peeked can be taken: this cannot come up short. */
static void consume_app(struct flow *flow, size_t len)
{
	while (len > 0) {
		ssize_t n = recv(flow->app_fd, NULL, len, MSG_TRUNC | MSG_DONTWAIT);

		if (n <= 0 && !(n < 0 && errno == EINTR))
			return;
		if (n > 0)
			len -= n;
	}
}

static void pass_on_app_eof(struct relay *relay, struct flow *flow)
{
	flow->app_eof = true;
	flow->can_read = false;
	if (relay->args.ops->shutdown(flow->conn) < 0) {
		reset_wire(relay, flow);
		return;
	}
	flow->wire_shut = true;
}

/* Both return how many of @ret_asked bytes went to the stack; 0: the application's FIN, -EAGAIN: it has
 * said nothing, -ENOBUFS: the stack has no room, EV_WRITABLE will come; another errno: it is over. */

static ssize_t copy_to_wire(struct relay *relay, struct flow *flow, size_t *ret_asked)
{
	const struct dmm_stack_ops *ops = relay->args.ops;
	ssize_t n = peek_app(relay, flow, ops->send_space(flow->conn), ret_asked), taken;

	if (n <= 0)
		return n;
	taken = ops->send(flow->conn, relay->scratch, n);
	if (taken < 0)
		return taken;
	consume_app(flow, taken);
	return taken < n ? -ENOBUFS : n;
}

static ssize_t read_to_wire(struct relay *relay, struct flow *flow, size_t len, size_t *ret_asked)
{
	const struct dmm_stack_ops *ops = relay->args.ops;
	struct iovec iov[IOVECS];
	struct msghdr msg = { .msg_iov = iov };
	ssize_t n;

	msg.msg_iovlen = ops->send_reserve(flow->conn, len, iov, IOVECS);
	if (msg.msg_iovlen == 0)
		return -ENOBUFS;
	*ret_asked = 0;
	for (size_t i = 0; i < msg.msg_iovlen; i++)
		*ret_asked += iov[i].iov_len;
	do
		n = recvmsg(flow->app_fd, &msg, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	n = n < 0 ? -errno : n;
	ops->send_done(flow->conn, DMM_MAX(n, 0));
	return n;
}

/* Moves what can be moved; the flow may be free afterwards. */
static void pump_to_wire(struct relay *relay, struct flow *flow)
{
	size_t len = READ_LEAST, asked;
	ssize_t n;

	while (flow->state == FLOW_OPEN && flow->conn && flow->can_read && !flow->app_eof) {
		n = relay->args.ops->send_reserve ? read_to_wire(relay, flow, len, &asked)
						  : copy_to_wire(relay, flow, &asked);
		if (n == -ENOBUFS)
			return;
		if (n == -EAGAIN) {
			flow->can_read = false;
			return;
		}
		if (n < 0) {
			if (flow->conn) /* else EV_ERROR has been noted and says why */
				reset_wire(relay, flow);
			return;
		}
		if (n == 0) {
			pass_on_app_eof(relay, flow);
			return;
		}
		if ((size_t)n < asked && !flow->greedy) {
			flow->can_read = false; /* drained; more is a new edge */
			return;
		}
		len = READ_MOST; /* there may be much */
	}
}

/* --- wire -> application --- */

static void pass_on_wire_eof(struct flow *flow)
{
	shutdown(flow->app_fd, SHUT_WR);
	flow->app_shut = true;
}

static void pump_to_app(struct relay *relay, struct flow *flow)
{
	const struct dmm_stack_ops *ops = relay->args.ops;

	while (flow->state == FLOW_OPEN && flow->conn && flow->can_write && !flow->app_shut) {
		struct iovec iov[IOVECS];
		struct msghdr msg = { .msg_iov = iov };
		ssize_t n;

		msg.msg_iovlen = ops->recv_peek(flow->conn, iov, IOVECS);
		if (msg.msg_iovlen == 0) {
			if (flow->wire_eof)
				pass_on_wire_eof(flow);
			return;
		}
		n = sendmsg(flow->app_fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0)
			ops->recv_done(flow->conn, n);
		else if (errno == EAGAIN)
			flow->can_write = false;
		else if (errno != EINTR)
			reset_wire(relay, flow);
	}
}

/* --- both --- */

/* FIN went both ways and every byte before it: the application's socket may now be closed without a
 * reset, and its kernel delivers what is still queued. */
static void finish(struct relay *relay, struct flow *flow)
{
	struct linger off = { 0 };

	if (!flow->is_client) {
		setsockopt(flow->app_fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
		close(flow->app_fd);
		flow->app_fd = -1;
	}
	relay_enter_closing(relay, flow);
	if (flow->conn)
		relay->args.ops->close(flow->conn);
}

static void pump(struct relay *relay, struct flow *flow)
{
	pump_to_app(relay, flow);
	pump_to_wire(relay, flow);
	if (flow->state == FLOW_OPEN && flow->wire_shut && flow->app_shut)
		finish(relay, flow);
}

void bytes_begin(struct relay *relay, struct flow *flow)
{
	struct epoll_event event = watch_event(EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET,
					       WATCH_APP, relay_index(relay, flow));

	if (epoll_ctl(relay->args.epoll_fd, flow->is_client ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
		      flow->app_fd, &event) < 0) {
		relay_free_flow(relay, flow);
		return;
	}
	flow->can_read = flow->can_write = true;
	relay_note(relay, flow);
}

void bytes_on_app(struct relay *relay, struct flow *flow, uint32_t epoll_events)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (epoll_events & EPOLLERR &&
	    getsockopt(flow->app_fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && err) {
		/* at once, even where nothing is being read from it or written to it */
		reset_wire(relay, flow);
		return;
	}
	if (epoll_events & (EPOLLRDHUP | EPOLLHUP | EPOLLPRI))
		flow->greedy = true;
	if (epoll_events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLPRI))
		flow->can_read = true;
	if (epoll_events & EPOLLOUT)
		flow->can_write = true;
	pump(relay, flow);
}

void bytes_run(struct relay *relay, struct flow *flow)
{
	uint32_t events = flow->events;

	flow->events = 0;
	if (events & DMM_EV_ERROR) {
		/* closing the application's socket resets it */
		relay->args.shared->flows_reset++;
		relay_free_flow(relay, flow);
		return;
	}
	if (events & DMM_EV_EOF)
		flow->wire_eof = true;
	pump(relay, flow);
}
