// SPDX-License-Identifier: Apache-2.0
/* The plug-in `native`: our own engine (userspace/net, <dmm/net.h>) as a DMM stack. It only
 * passes on: packets from frames and into frames, events to the host, calls to the engine.
 *
 * From input() on, what is to be sent waits for the tick(): the host has then read what came,
 * and the window that this opens travels with the ACK. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#include <dmm/net.h>
#include <dmm/stack.h>

#define MAX_ADDRS     65536u /* more cost nothing until there are any */
#define ALIGN	      64
#define MOST_BUFFERS  (512ull << 20)
#define LEAST_BUFFERS (4ull << 20)
#define RETRY	      1000000 /* ns until frames are asked for again */

struct dmm_stack {
	struct dmm_host host;
	struct dmm_net *net;
	void *memory;
	struct dmm_frame out[DMM_PKTIO_BATCH];
	bool gathers; /* output waits for tick() */
	bool starved; /* the host had no frame */
	bool telling;
};

static struct dmm_net_conn *conn_of(struct dmm_conn *conn)
{
	return (void *)conn;
}

static struct dmm_stack *stack_of(struct dmm_conn *conn)
{
	return dmm_net_owner(conn_of(conn));
}

static uint64_t now(const struct dmm_stack *stack)
{
	return stack->host.now(stack->host.ctx);
}

/* --- out --- */

static void send_out(struct dmm_stack *stack)
{
	const struct dmm_host *host = &stack->host;
	struct dmm_frame *frame;
	unsigned int n = 0;

	stack->starved = false;
	while (dmm_net_has_output(stack->net)) {
		frame = &stack->out[n];
		if (!host->frame_alloc(host->ctx, frame)) {
			stack->starved = true;
			break;
		}
		frame->len = dmm_net_output(stack->net, frame->data, frame->room, now(stack));
		if (!frame->len) {
			host->frame_free(host->ctx, frame);
			break;
		}
		if (++n == DMM_ARRAY_SIZE(stack->out)) {
			host->output(host->ctx, stack->out, n);
			n = 0;
		}
	}
	if (n)
		host->output(host->ctx, stack->out, n);
}

static void tell_accepted(struct dmm_stack *stack, const struct dmm_net_event *ev)
{
	struct dmm_endpoint local, remote;
	void *user;

	dmm_net_endpoints(ev->conn, &local, &remote);
	user = stack->host.accepted(stack->host.ctx, ev->user, (void *)ev->conn, &local, &remote);
	if (user)
		dmm_net_set_user(ev->conn, user);
	else
		dmm_net_abort(ev->conn);
}

/* The host may call back from within: its events are told by the loop that runs already. */
static void tell(struct dmm_stack *stack)
{
	struct dmm_net_event ev;

	if (stack->telling)
		return;
	stack->telling = true;
	while (dmm_net_event(stack->net, &ev)) {
		if (ev.events == DMM_NET_ACCEPTED)
			tell_accepted(stack, &ev);
		else
			stack->host.event(stack->host.ctx, ev.user, ev.events, ev.err);
	}
	stack->telling = false;
}

static void after_call(struct dmm_stack *stack)
{
	if (!stack->gathers)
		send_out(stack);
}

/* --- life --- */

static int parse_options(const struct dmm_host *host, const char *options,
			 struct dmm_net_config *config)
{
	if (dmm_streq(options, "congestion=newreno")) {
		config->congestion = DMM_NET_NEWRENO;
	} else if (*options && !dmm_streq(options, "congestion=cubic")) {
		host->log(host->ctx, DMM_LOG_ERROR,
			  "plug-in native has the option congestion=cubic|newreno, got '%s'",
			  options);
		return -EINVAL;
	}
	return 0;
}

static void *aligned(void *memory)
{
	return (void *)(((uintptr_t)memory + ALIGN - 1) / ALIGN * ALIGN);
}

/* What all connections could use, but at most half of what there is: the rest of the process needs
 * some too. Until it is used it costs nothing. */
static void *get_memory(struct dmm_net_config *config)
{
	for (; config->buffer_memory >= LEAST_BUFFERS; config->buffer_memory /= 2) {
		const size_t size = dmm_net_memory(config) + ALIGN;
		void *probe = calloc(2, size);

		free(probe);
		if (probe)
			return calloc(1, size);
	}
	return NULL;
}

static uint32_t on_isn(void *owner, const struct dmm_endpoint *local,
		       const struct dmm_endpoint *remote)
{
	const struct dmm_stack *stack = owner;

	return stack->host.isn(stack->host.ctx, local, remote);
}

static int create(const struct dmm_stack_params *params, const struct dmm_host *host,
		  struct dmm_stack **ret)
{
	const uint64_t all = 2ull * params->conn_memory * params->max_conns;
	const uint32_t most = DMM_MAX(params->conn_memory, params->conn_memory_most);
	struct dmm_net_config config = {
		.mtu = params->mtu,
		.addrs = params->addrs,
		.n_addrs = DMM_MIN(params->n_addrs, MAX_ADDRS),
		.max_addrs = MAX_ADDRS,
		.max_conns = params->max_conns,
		.max_time_wait = DMM_MIN(params->max_conns, 4096u),
		.send_buffer = most,
		.receive_buffer = most,
		.buffer_memory = DMM_MAX(DMM_MIN(all, MOST_BUFFERS), LEAST_BUFFERS),
	};
	dmm_autofree struct dmm_stack *stack = NULL;
	int r;

	if (host->abi != DMM_STACK_ABI)
		return -EPROTO;
	r = parse_options(host, params->options, &config);
	if (r < 0)
		return r;
	if (!dmm_net_memory(&config))
		return -EINVAL;
	stack = calloc(1, sizeof(*stack));
	if (!stack)
		return -ENOMEM;
	stack->host = *host;
	config.owner = stack;
	config.isn = on_isn;
	host->random(host->ctx, config.secret, sizeof(config.secret));
	stack->memory = get_memory(&config);
	if (!stack->memory)
		return -ENOMEM;
	r = dmm_net_create(&config, aligned(stack->memory), now(stack), &stack->net);
	explicit_bzero(config.secret, sizeof(config.secret));
	if (r < 0) {
		free(stack->memory);
		return r;
	}
	*ret = DMM_TAKE_PTR(stack);
	return 0;
}

static void destroy(struct dmm_stack *stack)
{
	free(stack->memory);
	free(stack);
}

static void configure(struct dmm_stack *stack, const struct dmm_stack_params *params)
{
	if (dmm_net_configure(stack->net, params->mtu, params->addrs,
			      DMM_MIN(params->n_addrs, MAX_ADDRS)) < 0)
		stack->host.log(stack->host.ctx, DMM_LOG_WARNING,
				"plug-in native cannot take an MTU of %u", params->mtu);
}

/* --- in --- */

static void input(struct dmm_stack *stack, const struct dmm_frame *frames, unsigned int n)
{
	const uint64_t at = now(stack);
	unsigned int i;

	stack->gathers = true;
	for (i = 0; i < n; i++)
		dmm_net_input(stack->net, frames[i].data, frames[i].len, at);
	tell(stack);
}

static uint64_t tick(struct dmm_stack *stack, uint64_t at)
{
	stack->gathers = true;
	dmm_net_tick(stack->net, at);
	tell(stack);
	stack->gathers = false;
	send_out(stack);
	return stack->starved ? at + RETRY : dmm_net_deadline(stack->net);
}

static void icmp(struct dmm_stack *stack, const struct dmm_icmp *error)
{
	dmm_net_icmp(stack->net, error, now(stack));
	tell(stack);
	after_call(stack);
}

/* --- connections --- */

static int do_connect(struct dmm_stack *stack, const struct dmm_connect *args,
		      struct dmm_conn **ret)
{
	struct dmm_net_conn *conn;
	const int r = dmm_net_connect(stack->net, &args->local, &args->remote, args->user,
				      now(stack), &conn);

	if (r < 0)
		return r;
	*ret = (void *)conn;
	after_call(stack);
	return 0;
}

static int do_listen(struct dmm_stack *stack, const struct dmm_endpoint *local, int backlog,
		     void *user, struct dmm_conn **ret)
{
	struct dmm_net_conn *conn;
	const int r = dmm_net_listen(stack->net, local, backlog, user, &conn);

	if (r == 0)
		*ret = (void *)conn;
	return r;
}

static ssize_t do_send(struct dmm_conn *conn, const void *buf, size_t len)
{
	const ssize_t n = dmm_net_send(conn_of(conn), buf, len);

	after_call(stack_of(conn));
	return n;
}

static unsigned int send_reserve(struct dmm_conn *conn, size_t len, struct iovec *iov,
				 unsigned int n)
{
	return dmm_net_send_reserve(conn_of(conn), len, iov, n);
}

static void send_done(struct dmm_conn *conn, size_t len)
{
	dmm_net_send_done(conn_of(conn), len);
	if (len)
		after_call(stack_of(conn));
}

static size_t send_space(struct dmm_conn *conn)
{
	return dmm_net_send_space(conn_of(conn));
}

static unsigned int recv_peek(struct dmm_conn *conn, struct iovec *iov, unsigned int n)
{
	return dmm_net_recv_peek(conn_of(conn), iov, n);
}

static void recv_done(struct dmm_conn *conn, size_t len)
{
	dmm_net_recv_done(conn_of(conn), len);
	after_call(stack_of(conn));
}

static size_t unsent(struct dmm_conn *conn)
{
	return dmm_net_unsent(conn_of(conn));
}

static int do_shutdown(struct dmm_conn *conn)
{
	const int r = dmm_net_shutdown(conn_of(conn));

	after_call(stack_of(conn));
	return r;
}

static void do_close(struct dmm_conn *conn)
{
	struct dmm_stack *stack = stack_of(conn);

	dmm_net_close(conn_of(conn));
	after_call(stack);
}

static void do_abort(struct dmm_conn *conn)
{
	struct dmm_stack *stack = stack_of(conn);

	dmm_net_abort(conn_of(conn));
	after_call(stack);
}

static int set_option(struct dmm_conn *conn, enum dmm_stack_option option, int value)
{
	switch (option) {
	case DMM_OPT_NODELAY:
		return dmm_net_set_option(conn_of(conn), DMM_NET_NODELAY, value);
	case DMM_OPT_KEEPALIVE:
		return dmm_net_set_option(conn_of(conn), DMM_NET_KEEPALIVE, value);
	default:
		return -ENOPROTOOPT;
	}
}

static void set_user(struct dmm_conn *conn, void *user)
{
	dmm_net_set_user(conn_of(conn), user);
}

static void stats(struct dmm_stack *stack, struct dmm_stack_stats *ret)
{
	struct dmm_net_stats s;

	dmm_net_get_stats(stack->net, &s);
	*ret = (struct dmm_stack_stats){ .conns = s.conns - s.time_wait,
					 .time_wait = s.time_wait,
					 .segs_in = s.segs_in,
					 .segs_out = s.segs_out,
					 .retransmits = s.retransmits,
					 .resets_sent = s.resets_out,
					 .memory = s.memory };
}

__attribute__((visibility("default"))) const struct dmm_stack_ops dmm_stack_plugin = {
	.abi = DMM_STACK_ABI,
	.size = sizeof(struct dmm_stack_ops),
	.name = "native",
	.version = DMM_VERSION,
	.create = create,
	.destroy = destroy,
	.configure = configure,
	.input = input,
	.tick = tick,
	.icmp = icmp,
	.connect = do_connect,
	.listen = do_listen,
	.send = do_send,
	.send_space = send_space,
	.send_reserve = send_reserve,
	.send_done = send_done,
	.recv_peek = recv_peek,
	.recv_done = recv_done,
	.unsent = unsent,
	.shutdown = do_shutdown,
	.close = do_close,
	.abort = do_abort,
	.set_option = set_option,
	.set_user = set_user,
	.stats = stats,
};
