/* SPDX-License-Identifier: Apache-2.0 */
/* The glue between the parts of an instance: struct dmm_host for the plug-in, and the callbacks of
 * link, next hops, netlink and relay.
 * #syscalls getrandom sendto */
#include "instance/host.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/util.h"

/* An answer of dmmd's that takes longer is lost. */
#define ANSWER_PATIENCE (5 * DMM_NS_PER_SEC)
/* Half a second of 64 Mbit/s, or 3 ms of 10 Gbit/s. */
#define FLOW_MEMORY_MOST (4u << 20)

/* --- for the plug-in --- */

static bool on_frame_alloc(void *ctx, struct dmm_frame *frame)
{
	struct host *host = ctx;

	return link_alloc(&host->link, frame);
}

static void on_frame_free(void *ctx, const struct dmm_frame *frame)
{
	struct host *host = ctx;

	link_free(&host->link, frame);
}

/* A SYN of the plug-in's. One of a connection of ours is noted: by its number an ICMP error about it is
 * told from a guess. True: the client has had it, with its cookie. */
static bool on_syn_out(struct host *host, const struct dmm_frame *f, const struct packet *p)
{
	const uint8_t *tcp = f->data + p->header;
	struct dmm_endpoint local, remote;

	memcpy(local.addr, p->src, 16);
	memcpy(remote.addr, p->dst, 16);
	memcpy(&local.port, tcp, 2);
	memcpy(&remote.port, tcp + 2, 2);
	if (tcp[13] & TCP_ACK)
		return relay_came_by_cookie(host->relay, &local, &remote, NULL);
	relay_on_wire_syn(host->relay, local.port, packet_get32(tcp + 4));
	return false;
}

static bool is_syn(const struct dmm_frame *f)
{
	const bool v4 = f->len >= 20 && f->data[0] >> 4 == 4;
	const uint32_t header = v4 ? (f->data[0] & 0xf) * 4u : 40;

	return f->len >= header + 20 && f->data[v4 ? 9 : 6] == IPPROTO_TCP &&
	       f->data[header + 13] & TCP_SYN;
}

static void on_output(void *ctx, const struct dmm_frame *frames, unsigned int n)
{
	struct host *host = ctx;
	unsigned int i;

	for (i = 0; i < n; i++) {
		struct packet p;

		if (host->relay && is_syn(&frames[i]) &&
		    packet_parse(frames[i].data, frames[i].len, &p) &&
		    on_syn_out(host, &frames[i], &p))
			link_free(&host->link, &frames[i]);
		else
			link_output(&host->link, &frames[i], 1);
	}
}

static void on_stack_event(void *ctx, void *user, uint32_t events, int err)
{
	struct host *host = ctx;

	if (user && host->relay)
		relay_on_stack(host->relay, user, events, err);
}

static void *on_accepted(void *ctx, void *listen_user, struct dmm_conn *conn,
			 const struct dmm_endpoint *local, const struct dmm_endpoint *remote)
{
	struct host *host = ctx;

	(void)listen_user;
	return relay_on_client(host->relay, conn, local, remote);
}

static uint64_t on_now(void *ctx)
{
	struct host *host = ctx;

	return host->now;
}

/* Sequence numbers want a few bytes each: drawn ahead, so that not each is a system call. */
static void on_random(void *ctx, void *buf, size_t len)
{
	struct host *host = ctx;
	uint8_t *to = buf;

	while (len > 0) {
		size_t n;

		if (host->n_random == 0) {
			if (getrandom(host->random, sizeof(host->random), 0) < 0)
				continue; /* interrupted, and nothing else: it is below 257 bytes */
			host->n_random = sizeof(host->random);
		}
		n = DMM_MIN(len, host->n_random);
		host->n_random -= n;
		memcpy(to, host->random + host->n_random, n);
		explicit_bzero(host->random + host->n_random, n);
		to += n;
		len -= n;
	}
}

static uint32_t on_isn(void *ctx, const struct dmm_endpoint *local,
		       const struct dmm_endpoint *remote)
{
	struct host *host = ctx;
	uint32_t isn;

	if (host->relay && relay_came_by_cookie(host->relay, local, remote, &isn))
		return isn;
	return isn_make(&host->isn, local, remote, host->now);
}

static void on_log(void *ctx, enum dmm_log_level level, const char *format, ...)
{
	va_list ap;

	(void)ctx;
	va_start(ap, format);
	dmm_vlog(level, format, ap);
	va_end(ap);
}

void host_fill_callbacks(struct host *host)
{
	host->callbacks = (struct dmm_host){
		.abi = DMM_STACK_ABI,
		.ctx = host,
		.frame_alloc = on_frame_alloc,
		.frame_free = on_frame_free,
		.output = on_output,
		.event = on_stack_event,
		.accepted = on_accepted,
		.now = on_now,
		.random = on_random,
		.isn = on_isn,
		.log = on_log,
	};
}

void host_fill_params(const struct host *host, struct dmm_stack_params *ret)
{
	const struct dmm_handover *h = &host->given.params;
	struct dmm_pktio_caps caps;

	host->link.io->ops->caps(host->link.io, &caps);
	*ret = (struct dmm_stack_params){
		/* a frame cannot become longer than it was made for */
		.mtu = DMM_MIN(host->mirror.mtu, caps.mtu),
		.max_conns = h->port_last - h->port_first + 1,
		.conn_memory = h->flow_memory,
		.conn_memory_most = FLOW_MEMORY_MOST,
		.addrs = (const uint8_t(*)[16])host->mirror.own.list,
		.n_addrs = host->mirror.own.n,
		.options = "",
	};
}

/* --- for the link --- */

static void on_input(void *ctx, const struct dmm_frame *frames, unsigned int n)
{
	struct host *host = ctx;

	host->plugin.ops->input(host->stack, frames, n);
}

static void on_icmp(void *ctx, const struct icmp_error *error)
{
	struct host *host = ctx;

	relay_on_icmp(host->relay, error);
}

struct link_events host_link_events(struct host *host)
{
	return (struct link_events){ host, host_on_client_syn, host_on_client_ack, on_input,
				     on_icmp };
}

/* --- for the next hops --- */

static void on_resolved(void *ctx, struct neighbour *n)
{
	struct host *host = ctx;

	link_on_resolved(&host->link, n);
}

static void on_dropped(void *ctx, struct neighbour *n)
{
	struct host *host = ctx;

	link_on_dropped(&host->link, n);
}

struct lost_hop {
	struct host *host;
	const struct neighbour *n;
};

static bool goes_by(void *ctx, const uint8_t remote[16], const uint8_t local[16])
{
	struct lost_hop *lost = ctx;
	int err;

	return nexthop_find(&lost->host->nexthops, remote, local, lost->host->now, &err) == lost->n;
}

static void on_failed(void *ctx, const struct neighbour *n)
{
	struct host *host = ctx;
	struct lost_hop lost = { host, n };

	if (host->relay)
		relay_on_unreachable(host->relay, goes_by, &lost);
}

struct nexthop_events host_nexthop_events(struct host *host)
{
	return (struct nexthop_events){ host, on_resolved, on_dropped, on_failed };
}

/* --- for netlink --- */

static void on_neighbour(void *ctx, const struct mirror_neighbour *n)
{
	struct host *host = ctx;

	nexthop_on_neighbour(&host->nexthops, n);
}

static void on_routes(void *ctx)
{
	struct host *host = ctx;

	nexthop_on_routes(&host->nexthops);
}

static void on_lost(void *ctx)
{
	struct host *host = ctx;

	nexthop_on_lost(&host->nexthops);
}

static void on_interface(void *ctx)
{
	struct host *host = ctx;
	struct dmm_stack_params params;

	if (host->mirror.gone) {
		host->error = host_fail(host, -ENODEV, "interface %s was removed",
					host->given.params.ifname);
		return;
	}
	if (host->stack && host->plugin.ops->configure) {
		host_fill_params(host, &params);
		host->plugin.ops->configure(host->stack, &params);
	}
}

struct mirror_events host_mirror_events(struct host *host)
{
	return (struct mirror_events){ host, on_neighbour, on_routes, on_interface, on_lost };
}

/* --- for the relay --- */

/* Loopback takes it or not; an application that does not hear sends its SYN again. */
static void on_inject(void *ctx, enum dmm_family family, const uint8_t dst[16],
		      const uint8_t *packet, size_t len)
{
	struct host *host = ctx;
	struct sockaddr_in6 to6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in to4 = { .sin_family = AF_INET };

	if (family == DMM_FAMILY_V4) {
		memcpy(&to4.sin_addr, dst + 12, 4);
		(void)!sendto(host->given.fds[DMM_FD_RAW4], packet, len, MSG_DONTWAIT,
			      (struct sockaddr *)&to4, sizeof(to4));
	} else {
		memcpy(&to6.sin6_addr, dst, 16);
		(void)!sendto(host->given.fds[DMM_FD_RAW6], packet, len, MSG_DONTWAIT,
			      (struct sockaddr *)&to6, sizeof(to6));
	}
}

static void on_want_sockets(void *ctx, enum dmm_family family)
{
	struct dmm_msg_want want = { family };
	struct host *host = ctx;

	if (host->now < host->ask_for_sockets_at[family])
		return;
	host->ask_for_sockets_at[family] = host->now + ANSWER_PATIENCE;
	(void)master_send(&host->master, DMM_MSG_WANT, &want, sizeof(want));
}

static int on_route(void *ctx, const uint8_t remote[16], const uint8_t local[16])
{
	struct host *host = ctx;
	int err = 0;

	return nexthop_find(&host->nexthops, remote, local, host->now, &err) ? 0 : err;
}

struct relay_outside host_relay_outside(struct host *host)
{
	return (struct relay_outside){ host, on_inject, on_want_sockets, on_route };
}
