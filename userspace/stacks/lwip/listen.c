// SPDX-License-Identifier: Apache-2.0
/* Listeners of the lwIP plug-in. Debian's lwIP has no backlog: a SYN flood would grow its list of
 * pcbs, which every segment walks. Here half-open connections are counted and limited. */
#include <errno.h>

#include "base/util.h"
#include "stacks/lwip/internal.h"

#define MAX_HALF_OPEN 1024

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t err)
{
	struct dmm_conn *listener = arg, *conn;

	(void)err;
	tcp_err(pcb, NULL);
	listener->half_open--;
	conn = dmm_lwip_conn_new(listener->stack, listener->user);
	if (!conn)
		return ERR_MEM; /* lwIP resets it */
	dmm_lwip_attach(conn, pcb);
	dmm_lwip_established(conn);
	dmm_lwip_note(conn, LWIP_EV_ACCEPTED);
	return ERR_OK;
}

static void on_half_open_error(void *arg, err_t err)
{
	struct dmm_conn *listener = arg;

	(void)err;
	listener->half_open--;
}

int dmm_lwip_listen(struct dmm_stack *stack, const struct dmm_endpoint *local, int backlog,
		    void *user, struct dmm_conn **ret)
{
	struct dmm_conn *conn;
	struct tcp_pcb *pcb;
	ip_addr_t addr;
	err_t err;

	if (!dmm_lwip_is_ours(stack, local->addr))
		return -EADDRNOTAVAIL;
	dmm_lwip_addr(stack, local->addr, &addr);
	conn = dmm_lwip_conn_new(stack, user);
	if (!conn)
		return -ENOMEM;
	pcb = tcp_new_ip_type(IP_GET_TYPE(&addr));
	if (!pcb) {
		dmm_lwip_conn_free(conn);
		return -ENOMEM;
	}
	/* connections to this port stay where they are; a second listener is an error */
	ip_set_option(pcb, SOF_REUSEADDR);
	pcb->local_ip = addr;
	pcb->local_port = lwip_ntohs(local->port);
	TCP_REG(&tcp_bound_pcbs, pcb);

	conn->pcb = tcp_listen_with_backlog_and_err(pcb, 0, &err);
	if (!conn->pcb) {
		tcp_abandon(pcb, 0);
		dmm_lwip_conn_free(conn);
		return err == ERR_USE ? -EADDRINUSE : -ENOMEM;
	}
	conn->listening = true;
	conn->backlog = DMM_MIN((unsigned int)DMM_MAX(backlog, 1), MAX_HALF_OPEN);
	tcp_arg(conn->pcb, conn);
	tcp_accept(conn->pcb, on_accept);
	*ret = conn;
	return 0;
}

static struct tcp_pcb *half_open_of(const struct dmm_conn *listener)
{
	struct tcp_pcb *pcb;

	for (pcb = tcp_active_pcbs; pcb; pcb = pcb->next)
		if (pcb->state == SYN_RCVD && pcb->callback_arg == listener)
			return pcb;
	return NULL;
}

void dmm_lwip_unlisten(struct dmm_conn *conn)
{
	struct tcp_pcb *pcb;

	while ((pcb = half_open_of(conn)))
		tcp_abort(pcb);
	tcp_close(conn->pcb);
	conn->pcb = NULL;
}

bool dmm_lwip_may_open(const struct dmm_stack *stack, const struct dmm_endpoint *local)
{
	const struct tcp_pcb_listen *pcb;
	const uint16_t port = lwip_ntohs(local->port);
	ip_addr_t addr;

	dmm_lwip_addr(stack, local->addr, &addr);
	for (pcb = tcp_listen_pcbs.listen_pcbs; pcb; pcb = pcb->next) {
		const struct dmm_conn *listener = pcb->callback_arg;

		if (pcb->local_port == port && ip_addr_cmp(&pcb->local_ip, &addr))
			return listener->half_open < listener->backlog;
	}
	return true;
}

void dmm_lwip_count_half_open(struct tcp_pcb *pcb)
{
	struct dmm_conn *listener = pcb->callback_arg;

	if (pcb->state != SYN_RCVD || pcb->errf)
		return;
	tcp_err(pcb, on_half_open_error);
	listener->half_open++;
}
