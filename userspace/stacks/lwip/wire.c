// SPDX-License-Identifier: Apache-2.0
/* Between lwIP and the host: which packets lwIP gets to see, and how its own leave.
 *
 * lwIP has one interface here. It has no neighbours, so lwIP sends nothing of its own on it, and
 * all routes lead to it. Its addresses are not lwIP's business: a packet for any of ours finds
 * the interface having just that address. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lwip/ip.h>
#include <lwip/prot/ip4.h>
#include <lwip/prot/ip6.h>
#include <lwip/prot/tcp.h>

#include "base/util.h"
#include "stacks/lwip/internal.h"

/* Least path MTUs that are believed: Linux' min_pmtu and RFC 8200. */
#define MIN_PMTU4 552u
#define MIN_PMTU6 1280u

/* A mark of ours on lwIP's pbufs: has been sent once. */
#define PBUF_FLAG_SENT 0x80u

/* A received packet that is fit for lwIP. */
struct packet {
	const uint8_t *data;
	uint16_t len; /* as its IP header says */
	bool v4;
	struct dmm_endpoint local, remote;
	uint32_t seq;
	uint8_t tcp_flags;
};

static const uint8_t v4_prefix[12] = { [10] = 0xff, [11] = 0xff };

bool dmm_lwip_is_v4(const uint8_t addr[16])
{
	return memcmp(addr, v4_prefix, sizeof(v4_prefix)) == 0;
}

bool dmm_lwip_is_ours(const struct dmm_stack *stack, const uint8_t addr[16])
{
	uint32_t i;

	for (i = 0; i < stack->n_addrs; i++)
		if (memcmp(stack->addrs[i], addr, 16) == 0)
			return true;
	return false;
}

void dmm_lwip_addr(const struct dmm_stack *stack, const uint8_t addr[16], ip_addr_t *ret)
{
	ip_addr_t out = { 0 };

	if (dmm_lwip_is_v4(addr)) {
		memcpy(&ip_2_ip4(&out)->addr, addr + 12, 4);
		IP_SET_TYPE_VAL(out, IPADDR_TYPE_V4);
	} else {
		memcpy(ip_2_ip6(&out)->addr, addr, 16);
		IP_SET_TYPE_VAL(out, IPADDR_TYPE_V6);
		ip6_addr_assign_zone(ip_2_ip6(&out), IP6_UNKNOWN, &stack->netif);
	}
	*ret = out;
}

void dmm_lwip_endpoint(const ip_addr_t *addr, uint16_t port, struct dmm_endpoint *ret)
{
	if (IP_IS_V4(addr)) {
		memcpy(ret->addr, v4_prefix, sizeof(v4_prefix));
		memcpy(ret->addr + 12, &ip_2_ip4(addr)->addr, 4);
	} else {
		memcpy(ret->addr, ip_2_ip6(addr)->addr, 16);
	}
	ret->port = lwip_htons(port);
}

static bool pcb_is(const struct tcp_pcb *pcb, const struct dmm_endpoint *local,
		   const struct dmm_endpoint *remote)
{
	struct dmm_endpoint l, r;

	if (pcb->local_port != lwip_ntohs(local->port) ||
	    pcb->remote_port != lwip_ntohs(remote->port))
		return false;
	dmm_lwip_endpoint(&pcb->local_ip, pcb->local_port, &l);
	dmm_lwip_endpoint(&pcb->remote_ip, pcb->remote_port, &r);
	return memcmp(l.addr, local->addr, 16) == 0 && memcmp(r.addr, remote->addr, 16) == 0;
}

static struct tcp_pcb *find_pcb(struct tcp_pcb *list, const struct dmm_endpoint *local,
				const struct dmm_endpoint *remote)
{
	while (list && !pcb_is(list, local, remote))
		list = list->next;
	return list;
}

void dmm_lwip_end_time_wait(const struct dmm_endpoint *local, const struct dmm_endpoint *remote)
{
	struct tcp_pcb *pcb = find_pcb(tcp_tw_pcbs, local, remote);

	if (pcb)
		tcp_abort(pcb);
}

/* Sending */

/* lwIP does not ask routers to say when a packet is too big; we hear them. */
static void set_dont_fragment(uint8_t *packet)
{
	struct ip_hdr *ip = (struct ip_hdr *)(void *)packet;
	uint32_t sum;

	IPH_OFFSET_SET(ip, IPH_OFFSET(ip) | PP_HTONS(IP_DF));
	sum = (uint32_t)IPH_CHKSUM(ip) + (uint16_t)~PP_HTONS(IP_DF);
	IPH_CHKSUM_SET(ip, (uint16_t)((sum & 0xffff) + (sum >> 16)));
}

/* In packets of ours. */
static uint32_t tcp_header_at(const uint8_t *packet)
{
	return IP_HDR_GET_VERSION(packet) == 4 ? IP_HLEN : IP6_HLEN;
}

static void count_sent(struct dmm_stack *stack, const uint8_t *packet, struct pbuf *p)
{
	const uint8_t *tcp = packet + tcp_header_at(packet);

	stack->segs_out++;
	stack->resets_sent += (tcp[13] & TCP_RST) != 0;
	stack->retransmits += (p->flags & PBUF_FLAG_SENT) != 0;
	p->flags |= PBUF_FLAG_SENT;
}

/* Says nothing but how far its side has got, and how much more it takes. */
static bool is_pure_ack(const uint8_t *packet, uint32_t len)
{
	const uint32_t at = tcp_header_at(packet);

	return len == at + TCP_HLEN && packet[at + 13] == TCP_ACK;
}

static bool is_same_flow(const uint8_t *a, const uint8_t *b)
{
	const uint32_t at = tcp_header_at(a), addrs = at == IP_HLEN ? 12 : 8;

	return tcp_header_at(b) == at && memcmp(a + addrs, b + addrs, at + 4 - addrs) == 0;
}

static uint32_t ack_of(const uint8_t *packet)
{
	uint32_t ack;

	memcpy(&ack, packet + tcp_header_at(packet) + 8, sizeof(ack));
	return lwip_ntohl(ack);
}

static bool is_same_window(const uint8_t *a, const uint8_t *b)
{
	return memcmp(a + tcp_header_at(a) + 14, b + tcp_header_at(b) + 14, 2) == 0;
}

/* May @newer, of the same flow, be sent in place of @older? Not where it is a duplicate: the peer
 * counts those. Nor where it opens the window only and @older may be a duplicate. */
static bool says_it_all(const uint8_t *newer, const uint8_t *older, bool older_is_news)
{
	const int32_t ahead = (int32_t)(ack_of(newer) - ack_of(older));

	return ahead > 0 || (ahead == 0 && older_is_news && !is_same_window(newer, older));
}

/* A pure ACK takes the place of an older one of its flow that still waits to be sent. A frame costs
 * most of what a bulk receiver pays, and a burst that came in one piece is answered as by a kernel
 * that merges what it receives: RFC 9293 (3.8.6.3) allows one ACK for it. */
static bool overtake(struct dmm_stack *stack, const struct pbuf *p)
{
	unsigned int i = stack->n_out;
	uint8_t *older;

	if (!is_pure_ack(p->payload, p->tot_len))
		return false;
	do {
		if (i-- == 0)
			return false;
		older = stack->out[i].data;
	} while (!is_same_flow(older, p->payload));
	if (!is_pure_ack(older, stack->out[i].len) ||
	    !says_it_all(p->payload, older, stack->out_is_news[i]))
		return false;
	stack->out_is_news[i] = true;
	pbuf_copy_partial(p, older, p->tot_len, 0);
	if (IP_HDR_GET_VERSION(older) == 4)
		set_dont_fragment(older);
	return true;
}

static err_t send_packet(struct netif *netif, struct pbuf *p)
{
	struct dmm_stack *stack = netif->state;
	const struct dmm_host *host = &stack->host;
	struct dmm_frame *frame = &stack->out[stack->n_out];

	if (overtake(stack, p))
		return ERR_OK;
	if (!host->frame_alloc(host->ctx, frame)) {
		stack->starved = true;
		return ERR_MEM;
	}
	if (p->tot_len > frame->room) {
		host->frame_free(host->ctx, frame);
		return ERR_BUF;
	}
	pbuf_copy_partial(p, frame->data, p->tot_len, 0);
	frame->len = p->tot_len;
	if (IP_HDR_GET_VERSION(frame->data) == 4)
		set_dont_fragment(frame->data);
	count_sent(stack, frame->data, p);
	stack->out_is_news[stack->n_out] = false;
	if (++stack->n_out == DMM_ARRAY_SIZE(stack->out)) {
		stack->n_out = 0;
		host->output(host->ctx, stack->out, DMM_ARRAY_SIZE(stack->out));
	}
	return ERR_OK;
}

static err_t send_v4(struct netif *netif, struct pbuf *p, const ip4_addr_t *to)
{
	(void)to;
	return send_packet(netif, p);
}

static err_t send_v6(struct netif *netif, struct pbuf *p, const ip6_addr_t *to)
{
	(void)to;
	return send_packet(netif, p);
}

/* The interface */

static err_t netif_ready(struct netif *netif)
{
	netif->name[0] = 'd';
	netif->name[1] = 'm';
	netif->output = send_v4;
	netif->output_ip6 = send_v6;
	return ERR_OK;
}

/* Without lwIP's functions for it: those would end connections, or announce the address. */
static void become(struct dmm_stack *stack, const uint8_t addr[16])
{
	struct netif *netif = &stack->netif;
	ip_addr_t ip;

	dmm_lwip_addr(stack, addr, &ip);
	if (IP_IS_V4_VAL(ip)) {
		netif->ip_addr = ip;
	} else {
		netif->ip6_addr[0] = ip;
		netif->ip6_addr_state[0] = IP6_ADDR_PREFERRED;
	}
}

int dmm_lwip_wire_set(struct dmm_stack *stack, const struct dmm_stack_params *params)
{
	uint8_t(*addrs)[16] = calloc(params->n_addrs + 1, sizeof(*addrs));
	struct tcp_pcb *pcb;
	uint32_t i;

	if (!addrs)
		return -ENOMEM;
	if (params->n_addrs)
		memcpy(addrs, params->addrs, params->n_addrs * sizeof(*addrs));
	free(stack->addrs);
	stack->addrs = addrs;
	stack->n_addrs = params->n_addrs;
	for (i = 0; i < stack->n_addrs; i++)
		become(stack, stack->addrs[i]);

	stack->netif.mtu = (u16_t)DMM_MIN(params->mtu, 0xffffu);
	stack->netif.mtu6 = stack->netif.mtu;
	for (pcb = tcp_active_pcbs; pcb; pcb = pcb->next)
		dmm_lwip_lower_mss(pcb, tcp_eff_send_mss_netif(pcb->mss, &stack->netif,
							       &pcb->remote_ip));
	return 0;
}

int dmm_lwip_wire_open(struct dmm_stack *stack, const struct dmm_stack_params *params)
{
	struct netif *netif = &stack->netif;

	if (!netif_add(netif, NULL, NULL, NULL, stack, netif_ready, ip_input))
		return -ENOMEM;
	/* a mask of 0: every destination is on this link */
	netif_set_default(netif);
	netif_set_link_up(netif);
	netif_set_up(netif);
	if (dmm_lwip_wire_set(stack, params) < 0) {
		netif_remove(netif);
		return -ENOMEM;
	}
	return 0;
}

void dmm_lwip_wire_close(struct dmm_stack *stack)
{
	netif_remove(&stack->netif);
	free(stack->addrs);
}

/* Receiving */

static bool bad_v4_source(const uint8_t ip[4])
{
	return ip[0] == 0 || ip[0] == 127 || ip[0] >= 224;
}

/* Unspecified, loopback, multicast, and v4 addresses, which no wire carries in IPv6. */
static bool bad_v6_source(const uint8_t ip[16])
{
	static const uint8_t zero[15];

	return ip[0] == 0xff || memcmp(ip, zero, sizeof(zero)) == 0 || dmm_lwip_is_v4(ip);
}

/* Returns where TCP begins, 0 when this is no TCP segment in one piece. */
static uint32_t parse_v4(const uint8_t *data, uint32_t len, struct packet *ret)
{
	const struct ip_hdr *ip = (const struct ip_hdr *)(const void *)data;
	uint32_t total;

	if (len < IP_HLEN)
		return 0;
	total = lwip_ntohs(IPH_LEN(ip));
	if (IPH_HL_BYTES(ip) < IP_HLEN || total > len || IPH_PROTO(ip) != IP_PROTO_TCP ||
	    (IPH_OFFSET(ip) & PP_HTONS(IP_MF | IP_OFFMASK)) || bad_v4_source(data + 12))
		return 0;
	memcpy(ret->remote.addr, v4_prefix, sizeof(v4_prefix));
	memcpy(ret->remote.addr + 12, data + 12, 4);
	memcpy(ret->local.addr, v4_prefix, sizeof(v4_prefix));
	memcpy(ret->local.addr + 12, data + 16, 4);
	ret->v4 = true;
	ret->len = (uint16_t)total;
	return IPH_HL_BYTES(ip);
}

static uint32_t parse_v6(const uint8_t *data, uint32_t len, struct packet *ret)
{
	uint32_t total, at = IP6_HLEN;
	uint8_t next;

	if (len < IP6_HLEN)
		return 0;
	total = IP6_HLEN + (uint32_t)(data[4] << 8 | data[5]);
	if (total > len || total > 0xffff || bad_v6_source(data + 8))
		return 0;
	for (next = data[6]; next == IP6_NEXTH_HOPBYHOP || next == IP6_NEXTH_DESTOPTS;) {
		if (at + 8 > total)
			return 0;
		next = data[at];
		at += 8 + data[at + 1] * 8u;
	}
	if (next != IP6_NEXTH_TCP)
		return 0;
	memcpy(ret->remote.addr, data + 8, 16);
	memcpy(ret->local.addr, data + 24, 16);
	ret->v4 = false;
	ret->len = (uint16_t)total;
	return at;
}

static bool parse(const struct dmm_stack *stack, const struct dmm_frame *frame, struct packet *ret)
{
	const uint8_t *data = frame->data, *tcp;
	uint32_t at = 0;

	if (frame->len && data[0] >> 4 == 4)
		at = parse_v4(data, frame->len, ret);
	else if (frame->len && data[0] >> 4 == 6)
		at = parse_v6(data, frame->len, ret);
	if (!at || at + TCP_HLEN > ret->len)
		return false;
	tcp = data + at;
	ret->data = data;
	memcpy(&ret->remote.port, tcp, 2);
	memcpy(&ret->local.port, tcp + 2, 2);
	memcpy(&ret->seq, tcp + 4, 4);
	ret->seq = lwip_ntohl(ret->seq);
	ret->tcp_flags = tcp[13];
	return dmm_lwip_is_ours(stack, ret->local.addr) &&
	       !dmm_lwip_is_ours(stack, ret->remote.addr);
}

static void pass_up(struct dmm_stack *stack, const struct packet *packet)
{
	struct pbuf *p = pbuf_alloc(PBUF_RAW, packet->len, PBUF_RAM);

	if (!p)
		return; /* lost, as on a wire */
	memcpy(p->payload, packet->data, packet->len);
	become(stack, packet->local.addr);
	if (ip_input(p, &stack->netif) != ERR_OK)
		pbuf_free(p);
}

/* A new connection for a listener. A peer may use a tuple again that we still hold in TIME-WAIT
 * (RFC 1122, 4.2.2.13); lwIP would keep it out. */
static void pass_syn(struct dmm_stack *stack, const struct packet *packet)
{
	struct tcp_pcb *old = find_pcb(tcp_tw_pcbs, &packet->local, &packet->remote);
	uint32_t ticks;

	if (!dmm_lwip_may_open(stack, &packet->local))
		return;
	if (old && TCP_SEQ_GT(packet->seq, old->rcv_nxt))
		tcp_abort(old);
	ticks = dmm_lwip_isn_begin(
		stack->host.isn(stack->host.ctx, &packet->local, &packet->remote));
	pass_up(stack, packet);
	dmm_lwip_isn_end(ticks, tcp_active_pcbs);
	if (tcp_active_pcbs)
		dmm_lwip_count_half_open(tcp_active_pcbs);
}

uint64_t dmm_lwip_out_of_order(const struct tcp_pcb *pcb)
{
	const struct tcp_seg *seg;
	uint64_t held = 0;

	for (seg = pcb->ooseq; seg; seg = seg->next)
		held += sizeof(*seg) + sizeof(*seg->p) + TCP_HLEN + IP6_HLEN + seg->len;
	return held;
}

/* lwIP would keep them without limit; here they may cost what a connection may hold. The pcb that
 * lwIP used last stands first. */
static void limit_out_of_order(const struct dmm_stack *stack)
{
	struct tcp_pcb *pcb = tcp_active_pcbs;

	if (pcb && pcb->ooseq && dmm_lwip_out_of_order(pcb) > stack->conn_memory)
		tcp_free_ooseq(pcb);
}

void dmm_lwip_input(struct dmm_stack *stack, const struct dmm_frame *frames, unsigned int n)
{
	struct packet packet;
	unsigned int i;

	stack->gathers = true;
	dmm_lwip_enter(stack);
	for (i = 0; i < n; i++) {
		if (!parse(stack, &frames[i], &packet))
			continue;
		stack->segs_in++;
		if ((packet.tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN &&
		    tcp_listen_pcbs.pcbs)
			pass_syn(stack, &packet);
		else
			pass_up(stack, &packet);
		limit_out_of_order(stack);
	}
	dmm_lwip_tell(stack);
	dmm_lwip_leave(stack);
}

static uint16_t mss_for_path(const struct tcp_pcb *pcb, uint32_t mtu)
{
	if (IP_IS_V4(&pcb->remote_ip))
		mtu = DMM_MAX(mtu, MIN_PMTU4) - IP_HLEN;
	else
		mtu = DMM_MAX(mtu, MIN_PMTU6) - IP6_HLEN;
	return (uint16_t)DMM_MIN(mtu - TCP_HLEN, 0xffffu);
}

void dmm_lwip_icmp(struct dmm_stack *stack, const struct dmm_icmp *error)
{
	struct tcp_pcb *pcb = find_pcb(tcp_active_pcbs, &error->local, &error->remote);
	struct dmm_conn *conn;

	/* RFC 5927: only about something that is on its way */
	if (!pcb || pcb->state == SYN_RCVD ||
	    !TCP_SEQ_BETWEEN(error->seq, pcb->lastack, pcb->snd_nxt))
		return;
	conn = pcb->callback_arg;
	dmm_lwip_enter(stack);
	if (error->mtu) {
		dmm_lwip_lower_mss(pcb, mss_for_path(pcb, error->mtu));
	} else if (pcb->state == SYN_SENT && error->hard) {
		dmm_lwip_drop_pcb(conn, false);
		conn->err = error->err;
		dmm_lwip_note(conn, DMM_EV_ERROR);
		dmm_lwip_tell(stack);
	}
	dmm_lwip_leave(stack);
}
