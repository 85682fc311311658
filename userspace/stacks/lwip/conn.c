// SPDX-License-Identifier: Apache-2.0
/* Connections of the lwIP plug-in: their life, their bytes, their buffers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "stacks/lwip/internal.h"

/* lwIP queues at most TCP_SND_QUEUELEN pbufs of one MSS each; two are kept for the FIN. */
#define MAX_QUEUE (TCP_SND_QUEUELEN - 2)
/* What a pbuf costs beside its payload: itself, headers, the allocator. */
#define PBUF_COST 128u
/* Segments below this are copied together when they wait, so that one byte does not hold a page. */
#define SMALL_SEGMENT 512u
#define GATHER_SIZE   2048u

/* SYNs as the kernel sends them: again after 1, 3, 7 ... 63 s, and no answer by 127 s is the end.
 * lwIP by itself would try for 21 s. In ticks of TCP_SLOW_INTERVAL. */
#define SYN_RETRIES   6u
#define SYN_RTO_TICKS 2
/* After a retransmitted SYN, RFC 6298; else the least that lwIP's estimator comes down to. */
#define RTO_TICKS      3
#define RTO_TICKS_LOSS 6
/* An orphan waits this long for its peer's FIN, as in the kernel. */
#define FIN_WAIT_TICKS (60000 / TCP_SLOW_INTERVAL)

struct dmm_conn *dmm_lwip_conn_new(struct dmm_stack *stack, void *user)
{
	struct dmm_conn *conn;

	if (stack->n_conns >= stack->max_conns)
		return NULL;
	conn = calloc(1, sizeof(*conn));
	if (!conn)
		return NULL;
	conn->stack = stack;
	conn->user = user;
	conn->next = stack->conns;
	if (conn->next)
		conn->next->prev = conn;
	stack->conns = conn;
	stack->n_conns++;
	return conn;
}

static void free_received(struct dmm_conn *conn)
{
	while (conn->rx_head) {
		struct pbuf *p = conn->rx_head;

		conn->rx_head = p->next;
		p->next = NULL;
		pbuf_free(p);
	}
	conn->rx_tail = NULL;
	conn->rx_bytes = conn->rx_held = conn->rx_room = 0;
}

void dmm_lwip_conn_free(struct dmm_conn *conn)
{
	free_received(conn);
	if (conn->prev)
		conn->prev->next = conn->next;
	else
		conn->stack->conns = conn->next;
	if (conn->next)
		conn->next->prev = conn->prev;
	conn->stack->n_conns--;
	free(conn);
}

void dmm_lwip_note(struct dmm_conn *conn, uint32_t events)
{
	struct dmm_stack *stack = conn->stack;

	conn->events |= events;
	if (conn->queued)
		return;
	conn->queued = true;
	conn->ready_next = NULL;
	*stack->ready_tail = conn;
	stack->ready_tail = &conn->ready_next;
}

void dmm_lwip_drop_pcb(struct dmm_conn *conn, bool reset)
{
	struct tcp_pcb *pcb = conn->pcb;

	if (!pcb)
		return;
	conn->pcb = NULL;
	tcp_arg(pcb, NULL);
	tcp_err(pcb, NULL);
	tcp_abandon(pcb, reset);
}

/* How much is held for @p, which once held @p->tot_len bytes. */
static uint32_t held_by(const struct pbuf *p)
{
	return p->tot_len + PBUF_COST;
}

static void append_pbuf(struct dmm_conn *conn, struct pbuf *p)
{
	if (conn->rx_tail)
		conn->rx_tail->next = p;
	else
		conn->rx_head = p;
	conn->rx_tail = p;
	conn->rx_held += held_by(p);
}

/* True: @p's bytes were copied to those that wait, or into a new pbuf behind them. */
static bool gather(struct dmm_conn *conn, const struct pbuf *p)
{
	struct pbuf *to = conn->rx_tail;

	if (!to || p->len >= SMALL_SEGMENT)
		return false;
	if (conn->rx_room < p->len) {
		to = pbuf_alloc(PBUF_RAW, GATHER_SIZE, PBUF_RAM);
		if (!to)
			return false;
		to->len = 0;
		append_pbuf(conn, to);
		conn->rx_room = GATHER_SIZE;
	}
	memcpy((uint8_t *)to->payload + to->len, p->payload, p->len);
	to->len += p->len;
	conn->rx_room -= p->len;
	return true;
}

/* Takes over a chain of received pbufs. */
static void take_received(struct dmm_conn *conn, struct pbuf *chain)
{
	while (chain) {
		struct pbuf *p = chain;

		chain = p->next;
		p->next = NULL;
		conn->rx_bytes += p->len;
		if (!p->len || gather(conn, p)) {
			pbuf_free(p);
			continue;
		}
		p->tot_len = p->len;
		append_pbuf(conn, p);
		conn->rx_room = 0;
	}
}

static err_t on_recv(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
	struct dmm_conn *conn = arg;

	(void)err;
	if (!p) {
		dmm_lwip_note(conn, DMM_EV_EOF);
		return ERR_OK;
	}
	if (conn->closing) { /* nobody will ever read it: the peer has to know */
		pbuf_free(p);
		tcp_abort(pcb); /* on_error() does the rest */
		return ERR_ABRT;
	}
	/* Refused, lwIP keeps it and takes no more, and recv_done() fetches it. */
	if (conn->rx_held + p->tot_len + PBUF_COST > conn->stack->conn_memory && conn->rx_head)
		return ERR_MEM;
	take_received(conn, p);
	dmm_lwip_note(conn, DMM_EV_READABLE);
	return ERR_OK;
}

static void offer_space(struct dmm_conn *conn)
{
	if (conn->want_write && dmm_lwip_send_space(conn)) {
		conn->want_write = false;
		dmm_lwip_note(conn, DMM_EV_WRITABLE);
	}
}

static err_t on_sent(void *arg, struct tcp_pcb *pcb, u16_t len)
{
	(void)pcb;
	(void)len;
	offer_space(arg);
	return ERR_OK;
}

static int to_errno(const struct dmm_conn *conn, err_t err)
{
	switch (err) {
	case ERR_RST:
		return conn->connected ? ECONNRESET : ECONNREFUSED;
	case ERR_MEM:
		return ENOMEM;
	default: /* given up: retransmissions, SYNs, keepalives, zero window probes */
		return ETIMEDOUT;
	}
}

/* The pcb is gone. ERR_CLSD: both sides are done; the host may still read, then close. */
static void on_error(void *arg, err_t err)
{
	struct dmm_conn *conn = arg;

	conn->pcb = NULL;
	if (conn->closing) {
		dmm_lwip_note(conn, DMM_EV_CLOSED);
	} else if (err != ERR_CLSD) {
		conn->err = to_errno(conn, err);
		dmm_lwip_note(conn, DMM_EV_ERROR);
	}
}

/* Every TCP_SLOW_INTERVAL, after lwIP's own timers of this pcb. */
static err_t on_poll(void *arg, struct tcp_pcb *pcb)
{
	struct dmm_conn *conn = arg;
	bool give_up = false;

	/* where memory was short there may be nothing on its way whose ACK could */
	offer_space(conn);
	if (pcb->state == SYN_SENT) {
		if (pcb->nrtx) {
			conn->syn_tries += pcb->nrtx;
			pcb->nrtx = 0; /* else lwIP gives up on its own terms */
			pcb->rto = SYN_RTO_TICKS << DMM_MIN(conn->syn_tries, SYN_RETRIES);
		}
		give_up = conn->syn_tries >= SYN_RETRIES && pcb->rtime + 1 >= pcb->rto;
	} else if (pcb->state == FIN_WAIT_2 && conn->closing) {
		give_up = ++conn->fin_wait_ticks > FIN_WAIT_TICKS;
	}
	if (!give_up)
		return ERR_OK;
	tcp_abandon(pcb, 0);
	return ERR_ABRT;
}

static err_t on_connected(void *arg, struct tcp_pcb *pcb, err_t err)
{
	struct dmm_conn *conn = arg;

	(void)err;
	dmm_lwip_established(conn);
	pcb->rto = conn->syn_tries ? RTO_TICKS_LOSS : RTO_TICKS;
	dmm_lwip_note(conn, DMM_EV_CONNECTED);
	return ERR_OK;
}

void dmm_lwip_attach(struct dmm_conn *conn, struct tcp_pcb *pcb)
{
	conn->pcb = pcb;
	tcp_arg(pcb, conn);
	tcp_recv(pcb, on_recv);
	tcp_sent(pcb, on_sent);
	tcp_err(pcb, on_error);
	tcp_poll(pcb, on_poll, 1);
	tcp_nagle_disable(pcb);
}

/* Buffers count payload; a quarter of what the host allows is left for what surrounds it. */
void dmm_lwip_established(struct dmm_conn *conn)
{
	struct tcp_pcb *pcb = conn->pcb;
	const uint32_t buffer = DMM_MAX(conn->stack->conn_memory / 4 * 3, 2u * TCP_MSS);
	const uint32_t largest = pcb->flags & TF_WND_SCALE ? 0xffffu << pcb->rcv_scale : 0xffffu;

	conn->connected = true;
	conn->window = DMM_MIN(buffer, largest);
	pcb->rcv_wnd = conn->window;
	pcb->rcv_ann_wnd = conn->window;
	pcb->snd_buf += DMM_MIN(buffer, (uint32_t)MAX_QUEUE * pcb->mss) - TCP_SND_BUF;
	pcb->ssthresh = DMM_MAX(buffer, pcb->ssthresh);
}

/* Without tcp_bind(): it walks through all connections to find a conflict, and the host has made
 * sure that there is none. */
static int start_connect(struct dmm_conn *conn, const struct dmm_connect *args)
{
	struct dmm_stack *stack = conn->stack;
	ip_addr_t remote;
	struct tcp_pcb *pcb;
	uint32_t ticks;
	err_t err;

	dmm_lwip_addr(stack, args->remote.addr, &remote);
	pcb = tcp_new_ip_type(IP_GET_TYPE(&remote));
	if (!pcb)
		return -ENOMEM;
	dmm_lwip_addr(stack, args->local.addr, &pcb->local_ip);
	pcb->local_port = lwip_ntohs(args->local.port);
	TCP_REG(&tcp_bound_pcbs, pcb);
	dmm_lwip_attach(conn, pcb);

	/* its SYN has the one before what lwIP calls its first */
	ticks = dmm_lwip_isn_begin(stack->host.isn(stack->host.ctx, &args->local, &args->remote) +
				   1);
	err = tcp_connect(pcb, &remote, lwip_ntohs(args->remote.port), on_connected);
	dmm_lwip_isn_end(ticks, pcb);
	if (err != ERR_OK) {
		dmm_lwip_drop_pcb(conn, false);
		return err == ERR_MEM ? -ENOMEM : -EHOSTUNREACH;
	}
	pcb->rto = SYN_RTO_TICKS;
	return 0;
}

int dmm_lwip_connect(struct dmm_stack *stack, const struct dmm_connect *args, struct dmm_conn **ret)
{
	struct dmm_conn *conn;
	int r;

	if (!dmm_lwip_is_ours(stack, args->local.addr))
		return -EADDRNOTAVAIL;
	if (dmm_lwip_is_v4(args->local.addr) != dmm_lwip_is_v4(args->remote.addr))
		return -EAFNOSUPPORT;
	if (dmm_lwip_is_ours(stack, args->remote.addr)) /* lwIP would talk to itself */
		return -EHOSTUNREACH;
	conn = dmm_lwip_conn_new(stack, args->user);
	if (!conn)
		return -ENOMEM;

	dmm_lwip_enter(stack);
	dmm_lwip_end_time_wait(&args->local, &args->remote);
	r = start_connect(conn, args);
	dmm_lwip_leave(stack);
	if (r < 0) {
		dmm_lwip_conn_free(conn);
		return r;
	}
	*ret = conn;
	return 0;
}

size_t dmm_lwip_send_space(struct dmm_conn *conn)
{
	const struct tcp_pcb *pcb = conn->pcb;
	uint32_t queue;

	if (!pcb || !conn->connected || conn->shut || !pcb->snd_buf)
		return 0;
	/* a pbuf has room for a whole MSS, whatever is in it */
	queue = DMM_MIN(conn->stack->conn_memory / (pcb->mss + PBUF_COST), (uint32_t)MAX_QUEUE);
	queue = DMM_MAX(queue, 2u);
	if (pcb->snd_queuelen >= queue)
		return 0;
	/* one byte of sequence space is the FIN's */
	return DMM_MIN(pcb->snd_buf - 1, (queue - pcb->snd_queuelen) * pcb->mss);
}

ssize_t dmm_lwip_send(struct dmm_conn *conn, const void *buf, size_t len)
{
	struct tcp_pcb *pcb = conn->pcb;
	size_t taken = 0, want;

	if (conn->shut || conn->closing || (conn->connected && !pcb))
		return -EPIPE;
	if (!conn->connected)
		return -ENOTCONN;
	want = DMM_MIN(len, dmm_lwip_send_space(conn));
	while (taken < want) {
		const u16_t chunk = (u16_t)DMM_MIN(want - taken, 0xf000u);

		if (tcp_write(pcb, (const uint8_t *)buf + taken, chunk, TCP_WRITE_FLAG_COPY))
			break;
		taken += chunk;
	}
	conn->want_write = taken < len;
	if (taken) {
		dmm_lwip_enter(conn->stack);
		tcp_output(pcb);
		dmm_lwip_leave(conn->stack);
	}
	return (ssize_t)taken;
}

unsigned int dmm_lwip_recv_peek(struct dmm_conn *conn, struct iovec *iov, unsigned int n)
{
	const struct pbuf *p = conn->rx_head;
	unsigned int i = 0;

	for (; p && i < n; p = p->next)
		if (p->len)
			iov[i++] = (struct iovec){ p->payload, p->len };
	return i;
}

static void consume(struct dmm_conn *conn, size_t len)
{
	while (conn->rx_head) {
		struct pbuf *p = conn->rx_head;
		const u16_t n = (u16_t)DMM_MIN(len, p->len);

		p->payload = (uint8_t *)p->payload + n;
		p->len -= n;
		conn->rx_bytes -= n;
		len -= n;
		if (p->len)
			return;
		conn->rx_head = p->next;
		conn->rx_held -= held_by(p);
		p->next = NULL;
		pbuf_free(p);
	}
	conn->rx_tail = NULL;
	conn->rx_room = 0;
}

/* tcp_recved() would cut the window back to lwIP's default. */
static void open_window(struct dmm_conn *conn, size_t len)
{
	struct tcp_pcb *pcb = conn->pcb;

	pcb->rcv_wnd = DMM_MIN(pcb->rcv_wnd + len, conn->window);
	if (tcp_update_rcv_ann_wnd(pcb) >= DMM_MIN(conn->window / 4, 4u * TCP_MSS)) {
		tcp_ack_now(pcb);
		tcp_output(pcb);
	}
}

void dmm_lwip_recv_done(struct dmm_conn *conn, size_t len)
{
	len = DMM_MIN(len, conn->rx_bytes);
	consume(conn, len);
	if (!conn->pcb || !len)
		return;
	dmm_lwip_enter(conn->stack);
	open_window(conn, len);
	if (conn->pcb->refused_data)
		tcp_process_refused_data(conn->pcb);
	dmm_lwip_leave(conn->stack);
}

size_t dmm_lwip_unsent(struct dmm_conn *conn)
{
	const struct tcp_pcb *pcb = conn->pcb;
	uint32_t n;

	if (!pcb || !conn->connected)
		return 0;
	n = pcb->snd_lbb - pcb->lastack;
	return n && (pcb->flags & TF_FIN) ? n - 1 : n;
}

int dmm_lwip_shutdown(struct dmm_conn *conn)
{
	if (!conn->connected)
		return -ENOTCONN;
	if (conn->shut)
		return 0;
	conn->shut = true;
	conn->want_write = false;
	if (!conn->pcb)
		return 0;
	dmm_lwip_enter(conn->stack);
	tcp_shutdown(conn->pcb, 0, 1);
	dmm_lwip_leave(conn->stack);
	return 0;
}

/* Not tcp_close(): that one frees the pcb later without a word. The end of one that is only shut
 * down is told by on_error() or seen in lwIP's TIME-WAIT list. */
void dmm_lwip_close(struct dmm_conn *conn)
{
	struct dmm_stack *stack = conn->stack;
	const bool unread = conn->rx_head ||
			    (conn->pcb && !conn->listening && conn->pcb->refused_data);

	conn->closing = true;
	dmm_lwip_enter(stack);
	if (conn->listening)
		dmm_lwip_unlisten(conn);
	else if (!conn->connected || unread) /* RFC 1122: a RST says that bytes are lost */
		dmm_lwip_drop_pcb(conn, conn->connected);
	else
		dmm_lwip_shutdown(conn);
	free_received(conn);
	if (!conn->pcb)
		dmm_lwip_note(conn, DMM_EV_CLOSED);
	dmm_lwip_leave(stack);
}

void dmm_lwip_abort(struct dmm_conn *conn)
{
	dmm_lwip_enter(conn->stack);
	if (conn->listening)
		dmm_lwip_unlisten(conn);
	dmm_lwip_drop_pcb(conn, conn->connected);
	free_received(conn);
	conn->dead = true;
	dmm_lwip_note(conn, 0); /* to be freed */
	dmm_lwip_leave(conn->stack);
}

int dmm_lwip_set_option(struct dmm_conn *conn, enum dmm_stack_option option, int value)
{
	struct tcp_pcb *pcb = conn->pcb;

	if (!pcb || conn->listening)
		return -ENOTCONN;
	switch (option) {
	case DMM_OPT_NODELAY:
		if (value)
			tcp_nagle_disable(pcb);
		else
			tcp_nagle_enable(pcb);
		return 0;
	case DMM_OPT_KEEPALIVE:
		if (value < 0)
			return -EINVAL;
		if (!value) {
			ip_reset_option(pcb, SOF_KEEPALIVE);
			return 0;
		}
		pcb->keep_idle = (u32_t)value * 1000;
		ip_set_option(pcb, SOF_KEEPALIVE);
		return 0;
	default:
		return -ENOPROTOOPT;
	}
}

void dmm_lwip_set_user(struct dmm_conn *conn, void *user)
{
	conn->user = user;
}

/* lwIP can cut the first segment that was not sent. So all become unsent, and each in turn the
 * first. */
void dmm_lwip_lower_mss(struct tcp_pcb *pcb, uint16_t mss)
{
	struct tcp_seg *done = NULL, **tail = &done;
	const uint8_t nrtx = pcb->nrtx;

	if (mss >= pcb->mss)
		return;
	pcb->mss = mss;
	if (pcb->state < ESTABLISHED)
		return;
	if (pcb->unacked && tcp_rexmit_rto_prepare(pcb) != ERR_OK)
		return;
	while (pcb->unsent) {
		struct tcp_seg *seg = pcb->unsent;

		if (seg->len > mss && tcp_split_unsent_seg(pcb, mss) != ERR_OK)
			break;
		pcb->unsent = seg->next;
		seg->next = NULL;
		*tail = seg;
		tail = &seg->next;
	}
	*tail = pcb->unsent;
	pcb->unsent = done;
	pcb->unsent_oversize = 0; /* its room was measured by the old size */
	tcp_rexmit_rto_commit(pcb);
	pcb->nrtx = nrtx; /* nothing was lost */
}
