/* SPDX-License-Identifier: Apache-2.0 */
/* The first segments of clients. While few are half open they go to the plug-in. When many are, SYNs
 * are answered here and forgotten: the answer's sequence number is a SYN cookie. A client that comes
 * back with one is given to the plug-in from its SYN on. What a SYN says beside the MSS, cookies
 * forget: such connections go without window scale and SACK. */
#include "instance/host.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/util.h"

#define COOKIE_LIFE (128 * DMM_NS_PER_SEC)
#define SAY_EVERY   (60 * DMM_NS_PER_SEC)
#define DEFAULT_MSS 536 /* RFC 9293, 3.7.1 */
#define OPT_END	    0
#define OPT_NOP	    1
#define OPT_MSS	    2

struct segment {
	struct dmm_endpoint local, remote;
	const uint8_t *tcp;
	uint32_t len;
};

static struct segment read_segment(const struct packet *p, const struct dmm_frame *f)
{
	struct segment s = { .tcp = f->data + p->header, .len = p->len - p->header };

	memcpy(s.local.addr, p->dst, 16);
	memcpy(s.remote.addr, p->src, 16);
	memcpy(&s.remote.port, s.tcp, 2);
	memcpy(&s.local.port, s.tcp + 2, 2);
	return s;
}

static uint16_t mss_option(const struct segment *s)
{
	const uint32_t end = DMM_MIN((s->tcp[12] >> 4) * 4u, s->len);
	uint32_t at = 20;

	while (at + 1 < end && s->tcp[at] != OPT_END) {
		const uint8_t kind = s->tcp[at], len = kind == OPT_NOP ? 1 : s->tcp[at + 1];

		if (kind == OPT_MSS && len == 4 && at + 4 <= end)
			return packet_get16(s->tcp + at + 2);
		if (kind != OPT_NOP && len < 2)
			break;
		at += len;
	}
	return DEFAULT_MSS;
}

static struct packet from_to(const struct packet *p, const uint8_t *src, const uint8_t *dst)
{
	struct packet ret = { .family = p->family, .proto = p->proto };

	memcpy(ret.src, src, 16);
	memcpy(ret.dst, dst, 16);
	return ret;
}

static void say_flood(struct host *host, const struct segment *s)
{
	if (host->cookies_said_at && host->now - host->cookies_said_at < SAY_EVERY)
		return;
	host->cookies_said_at = host->now;
	dmm_warning("%s: many clients of port %u are half open (a SYN flood?): "
		    "answering with SYN cookies",
		    host->given.params.name, packet_get16((const uint8_t *)&s->local.port));
}

static void answer_with_cookie(struct host *host, const struct packet *p, const struct segment *s,
			       const struct dmm_frame *syn)
{
	const struct packet back = from_to(p, p->dst, p->src);
	const struct isn_syn about = { .local = &s->local,
				       .remote = &s->remote,
				       .seq = packet_get32(s->tcp + 4),
				       .mss = mss_option(s) };
	const struct tcp_header tcp = {
		.src_port = s->local.port,
		.dst_port = s->remote.port,
		.seq = isn_make_cookie(&host->isn, &about, host->now),
		.ack = about.seq + 1,
		.flags = TCP_SYN | TCP_ACK,
		.window = DMM_MIN(host->given.params.flow_memory, 0xffffu),
		.mss = DMM_MIN(host->link.mirror->mtu - (p->family == DMM_FAMILY_V4 ? 40u : 60u),
			       0xffffu),
	};
	struct dmm_frame answer;

	/* whoever is dropped here comes again; the last ACK of one that was answered does not */
	if (link_is_behind(&host->link)) {
		host->shared->clients_dropped++;
		return;
	}
	/* a plug-in checks what it answers; here that is ours to do */
	if (checksum_transport(p, s->tcp, s->len) != 0 || !link_alloc(&host->link, &answer))
		return;
	answer.len = packet_write_tcp(&back, &tcp, answer.data);
	link_answer(&host->link, syn, &answer);
	host->shared->cookies_sent++;
	host->cookies_until = host->now + COOKIE_LIFE;
	host->link.asks_acks = true;
	say_flood(host, s);
}

bool host_on_client_syn(void *ctx, const struct packet *p, const struct dmm_frame *frame)
{
	const struct segment s = read_segment(p, frame);
	struct host *host = ctx;

	if (host->draining)
		return false;
	switch (relay_on_client_syn(host->relay, &s.local, &s.remote)) {
	case RELAY_SYN_PASS:
		return true;
	case RELAY_SYN_COOKIE:
		answer_with_cookie(host, p, &s, frame);
		return false;
	default:
		return false;
	}
}

/* The plug-in gets the SYN that it has not seen; its answer the client has had (on_output). */
static void show_syn(struct host *host, const struct packet *p, const struct isn_syn *syn)
{
	const struct packet there = from_to(p, p->src, p->dst);
	const struct tcp_header tcp = { .src_port = syn->remote->port,
					.dst_port = syn->local->port,
					.seq = syn->seq,
					.flags = TCP_SYN,
					.window = 0xffff,
					.mss = syn->mss };
	uint8_t packet[PACKET_TCP_MAX];
	struct dmm_frame frame = { .data = packet, .room = sizeof(packet) };

	frame.len = packet_write_tcp(&there, &tcp, packet);
	host->plugin.ops->input(host->stack, &frame, 1);
}

bool host_on_client_ack(void *ctx, const struct packet *p, const struct dmm_frame *frame)
{
	const struct segment s = read_segment(p, frame);
	struct isn_syn syn = { .local = &s.local,
			       .remote = &s.remote,
			       .seq = packet_get32(s.tcp + 4) - 1 };
	const uint32_t cookie = packet_get32(s.tcp + 8) - 1;
	struct host *host = ctx;

	host->link.asks_acks = host->now < host->cookies_until;
	if (host->draining || !relay_is_unknown(host->relay, &s.local, &s.remote) ||
	    !isn_check_cookie(&host->isn, cookie, &syn, host->now) ||
	    checksum_transport(p, s.tcp, s.len) != 0)
		return true;
	if (!relay_on_client_cookie(host->relay, &s.local, &s.remote, cookie))
		return false; /* it sends that again */
	show_syn(host, p, &syn);
	return true;
}
