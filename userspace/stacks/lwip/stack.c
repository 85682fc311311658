// SPDX-License-Identifier: Apache-2.0
/* The stack plug-in `lwip`: TCP over IPv4 and IPv6 on Debian's liblwip.
 *
 * What comes with lwIP and Debian's build of it:
 * - No SACK, no timestamps, MSS at most 1460 bytes, window scale 1: windows end at 128 KiB. The
 *   retransmission timer counts half seconds, so a lost last segment costs 1 to 1.5 s.
 * - Connections are lists: what a segment belongs to is found by a walk that starts at the last
 *   one used. Thousands of busy flows want another stack.
 * - TIME-WAIT would block a tuple for two minutes. Here EV_CLOSED comes, and the port is free, as
 *   soon as both FINs are acknowledged; lwIP goes on answering late segments of the last
 *   LWIP_MAX_TIME_WAIT connections, unless the tuple is used anew.
 * - Its TCP hears of no ICMP errors: the icmp op does it. Its own initial sequence
 *   numbers are guessable: isn.c. It forwards, and takes packets that RFC 1122 forbids, some to its death:
 *   wire.c lets in only TCP from others to our addresses.
 * - Bad checksums are dropped uncounted (its statistics are compiled out).
 *
 * lwIP keeps its state in globals: one stack at a time in a process. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lwip/init.h>

#include "base/util.h"
#include "stacks/lwip/internal.h"

#define TIMER_NS   (TCP_TMR_INTERVAL * 1000000ull)
#define STARVED_NS 1000000ull /* how soon to ask again for frames */

static struct dmm_stack *the_stack;

static void flush_frames(struct dmm_stack *stack)
{
	const unsigned int n = stack->n_out;

	stack->n_out = 0;
	if (n)
		stack->host.output(stack->host.ctx, stack->out, n);
}

void dmm_lwip_enter(struct dmm_stack *stack)
{
	stack->depth++;
}

void dmm_lwip_leave(struct dmm_stack *stack)
{
	if (--stack->depth == 0 && !stack->gathers)
		flush_frames(stack);
}

/* The connection entered TIME-WAIT or left the wire: nobody waits for it there any more. */
static void wire_done(struct dmm_conn *conn)
{
	conn->pcb = NULL;
	if (conn->closing)
		dmm_lwip_note(conn, DMM_EV_CLOSED);
}

/* New ones stand first in lwIP's list: they are cut off their conn, and the oldest let go. */
static void reap_time_wait(void)
{
	struct tcp_pcb *pcb, *next;
	unsigned int n = 0;

	if (!tcp_tw_pcbs || !tcp_tw_pcbs->callback_arg)
		return;
	for (pcb = tcp_tw_pcbs; pcb; pcb = next) {
		next = pcb->next;
		if (pcb->callback_arg) {
			wire_done(pcb->callback_arg);
			tcp_arg(pcb, NULL);
		}
		if (++n > LWIP_MAX_TIME_WAIT)
			tcp_abort(pcb);
	}
}

static void tell_accepted(struct dmm_conn *conn)
{
	struct dmm_stack *stack = conn->stack;
	struct dmm_endpoint local, remote;
	void *user;

	if (!conn->pcb) { /* gone before anyone knew of it */
		conn->dead = true;
		return;
	}
	dmm_lwip_endpoint(&conn->pcb->local_ip, conn->pcb->local_port, &local);
	dmm_lwip_endpoint(&conn->pcb->remote_ip, conn->pcb->remote_port, &remote);
	user = stack->host.accepted(stack->host.ctx, conn->user, conn, &local, &remote);
	if (!user)
		dmm_lwip_abort(conn);
	conn->user = user;
}

static void tell_one(struct dmm_conn *conn)
{
	const struct dmm_host *host = &conn->stack->host;
	uint32_t events = conn->events, last;

	conn->events = 0;
	if (!conn->dead && (events & LWIP_EV_ACCEPTED))
		tell_accepted(conn);

	/* What arrived before the end is the host's to read first. */
	last = events & (DMM_EV_ERROR | DMM_EV_CLOSED);
	events &= ~(last | LWIP_EV_ACCEPTED);
	if (!conn->dead && !conn->closing && events)
		host->event(host->ctx, conn->user, events, 0);
	if (!conn->dead && last)
		host->event(host->ctx, conn->user, conn->closing ? DMM_EV_CLOSED : DMM_EV_ERROR,
			    conn->closing ? 0 : conn->err);
	if (!conn->dead && !last)
		return;
	conn->dead = true;
	if (!conn->queued) /* else its turn comes again */
		dmm_lwip_conn_free(conn);
}

void dmm_lwip_tell(struct dmm_stack *stack)
{
	struct dmm_conn *conn;

	reap_time_wait();
	while ((conn = stack->ready)) {
		stack->ready = conn->ready_next;
		if (!stack->ready)
			stack->ready_tail = &stack->ready;
		conn->queued = false;
		tell_one(conn);
	}
}

static int stack_create(const struct dmm_stack_params *params, const struct dmm_host *host,
			struct dmm_stack **ret)
{
	static bool initialized;
	dmm_autofree struct dmm_stack *stack = NULL;
	int r;

	if (host->abi != DMM_STACK_ABI)
		return -EPROTO;
	if (the_stack)
		return -EBUSY;
	if (*params->options) {
		host->log(host->ctx, DMM_LOG_ERROR, "plug-in lwip has no options, got '%s'",
			  params->options);
		return -EINVAL;
	}
	stack = calloc(1, sizeof(*stack));
	if (!stack)
		return -ENOMEM;
	stack->host = *host;
	stack->max_conns = params->max_conns;
	stack->conn_memory = params->conn_memory;
	stack->ready_tail = &stack->ready;

	if (!initialized)
		lwip_init();
	initialized = true;
	r = dmm_lwip_wire_open(stack, params);
	if (r < 0)
		return r;
	the_stack = stack;
	*ret = DMM_TAKE_PTR(stack);
	return 0;
}

/* Connections that are open get a RST. */
static void stack_destroy(struct dmm_stack *stack)
{
	stack->gathers = false;
	dmm_lwip_enter(stack);
	while (stack->conns) {
		struct dmm_conn *conn = stack->conns;

		if (conn->listening)
			dmm_lwip_unlisten(conn);
		dmm_lwip_drop_pcb(conn, true);
		dmm_lwip_conn_free(conn);
	}
	while (tcp_tw_pcbs)
		tcp_abort(tcp_tw_pcbs);
	dmm_lwip_leave(stack);
	dmm_lwip_wire_close(stack);
	the_stack = NULL;
	free(stack);
}

static void stack_configure(struct dmm_stack *stack, const struct dmm_stack_params *params)
{
	dmm_lwip_enter(stack);
	stack->max_conns = params->max_conns;
	if (dmm_lwip_wire_set(stack, params) < 0)
		stack->host.log(stack->host.ctx, DMM_LOG_WARNING,
				"out of memory: the interface's old addresses stay in use");
	dmm_lwip_leave(stack);
}

/* When lwIP's timer is due next; it stands still while there is no connection. */
static uint64_t run_timer(struct dmm_stack *stack, uint64_t now)
{
	if (!tcp_active_pcbs && !tcp_tw_pcbs) {
		stack->next_timer = 0;
		return UINT64_MAX;
	}
	if (!stack->next_timer)
		stack->next_timer = now + TIMER_NS;
	if (now >= stack->next_timer) {
		tcp_tmr();
		/* Turns that we slept through are not caught up on: the peers' answers wait in
		 * our queues. */
		stack->next_timer += TIMER_NS;
		if (stack->next_timer <= now)
			stack->next_timer = now + TIMER_NS;
	}
	return stack->next_timer;
}

static uint64_t stack_tick(struct dmm_stack *stack, uint64_t now)
{
	uint64_t next;

	stack->gathers = false;
	dmm_lwip_enter(stack);
	if (stack->starved) {
		stack->starved = false;
		tcp_txnow();
	}
	run_timer(stack, now);
	dmm_lwip_tell(stack);
	next = run_timer(stack, now); /* the host may have opened a connection */
	dmm_lwip_leave(stack);
	return stack->starved ? now + STARVED_NS : next;
}

static void stack_stats(struct dmm_stack *stack, struct dmm_stack_stats *ret)
{
	const struct dmm_conn *conn;
	const struct tcp_pcb *pcb;

	*ret = (struct dmm_stack_stats){
		.conns = stack->n_conns,
		.segs_in = stack->segs_in,
		.segs_out = stack->segs_out,
		.retransmits = stack->retransmits,
		.resets_sent = stack->resets_sent,
	};
	for (pcb = tcp_tw_pcbs; pcb; pcb = pcb->next)
		ret->time_wait++;
	for (pcb = tcp_active_pcbs; pcb; pcb = pcb->next)
		ret->memory += sizeof(*pcb) + (uint64_t)pcb->snd_queuelen * pcb->mss +
			       dmm_lwip_out_of_order(pcb);
	for (conn = stack->conns; conn; conn = conn->next)
		ret->memory += sizeof(*conn) + conn->rx_held;
}

__attribute__((visibility("default"))) extern const struct dmm_stack_ops dmm_stack_plugin;

const struct dmm_stack_ops dmm_stack_plugin = {
	.abi = DMM_STACK_ABI,
	.size = sizeof(struct dmm_stack_ops),
	.name = "lwip",
	.version = LWIP_VERSION_STRING,
	.create = stack_create,
	.destroy = stack_destroy,
	.configure = stack_configure,
	.input = dmm_lwip_input,
	.tick = stack_tick,
	.icmp = dmm_lwip_icmp,
	.connect = dmm_lwip_connect,
	.listen = dmm_lwip_listen,
	.send = dmm_lwip_send,
	.send_space = dmm_lwip_send_space,
	.recv_peek = dmm_lwip_recv_peek,
	.recv_done = dmm_lwip_recv_done,
	.unsent = dmm_lwip_unsent,
	.shutdown = dmm_lwip_shutdown,
	.close = dmm_lwip_close,
	.abort = dmm_lwip_abort,
	.set_option = dmm_lwip_set_option,
	.set_user = dmm_lwip_set_user,
	.stats = stack_stats,
};
