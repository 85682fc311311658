// SPDX-License-Identifier: Apache-2.0
/* The native engine with a live connection, driven by a program of one-byte operations: segments
 * around what the connection expects, with right checksums; packets of any kind, mended or not;
 * fragments; ICMP; calls; time. Nothing may crash, and in the end all memory is given back. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "input.h"

struct world {
	struct input in;
	struct dmm_net *net;
	uint64_t now;
	bool v4;
	struct dmm_endpoint ours, theirs;
	struct dmm_net_conn *conn, *listener;
	struct dmm_net_udp *udp;
	uint32_t seq, ack; /* what the engine expects, as far as was seen */
};

/* A segment near what is expected. */
static uint32_t segment(struct world *w, uint8_t *p)
{
	uint8_t options[40], data[1400];
	const uint8_t flags = (uint8_t)take(&w->in, 1);
	const uint32_t seq = w->seq + (uint32_t)(int16_t)take(&w->in, 2);
	const uint32_t ack = w->ack + (uint32_t)(int16_t)take(&w->in, 2);
	const uint32_t window = take(&w->in, 2);
	const uint32_t n_options = take_bytes(&w->in, options, 40) / 4 * 4;
	const uint32_t n = take_bytes(&w->in, data, sizeof(data));
	const uint32_t at = ip_header(p, w->v4, &w->theirs, &w->ours, 6, 20 + n_options + n);
	uint8_t *tcp = p + at;

	memset(tcp, 0, 20);
	memcpy(tcp, &w->theirs.port, 2);
	memcpy(tcp + 2, &w->ours.port, 2);
	put32(tcp + 4, seq);
	put32(tcp + 8, ack);
	tcp[12] = (uint8_t)((20 + n_options) / 4 << 4);
	tcp[13] = flags;
	put16(tcp + 14, window);
	memcpy(tcp + 20, options, n_options);
	memcpy(tcp + 20 + n_options, data, n);
	mend(p, at + 20 + n_options + n);
	return at + 20 + n_options + n;
}

/* The same as an IPv4 or IPv6 fragment. */
static uint32_t fragment(struct world *w, uint8_t *p)
{
	uint8_t data[1400];
	const uint32_t offset = take(&w->in, 1) * 8, more = take(&w->in, 1) & 1,
		       id = take(&w->in, 1) & 3;
	const uint32_t n = take_bytes(&w->in, data, sizeof(data));
	uint32_t at =
		ip_header(p, w->v4, &w->theirs, &w->ours, w->v4 ? 6 : 44, n + (w->v4 ? 0 : 8));

	if (w->v4) {
		put16(p + 4, id);
		put16(p + 6, offset / 8 | more << 13);
		memcpy(p + at, data, n);
		mend_ip(p);
		return at + n;
	}
	put32(p + at, 6u << 24 | offset | more);
	put32(p + at + 4, id);
	at += 8;
	memcpy(p + at, data, n);
	return at + n;
}

static void learn(struct world *w, const uint8_t *p, uint32_t len)
{
	const uint8_t *tcp = p + (p[0] >> 4 == 4 ? 20 : 40);
	uint32_t seq, ack;

	if (p[p[0] >> 4 == 4 ? 9 : 6] != 6 || len < 40)
		return;
	memcpy(&seq, tcp + 4, 4);
	memcpy(&ack, tcp + 8, 4);
	w->ack = ntohl(seq) + len - (uint32_t)(tcp - p) - (tcp[12] >> 4) * 4u +
		 (tcp[13] & 3 ? 1 : 0);
	if (tcp[13] & 0x10)
		w->seq = ntohl(ack);
}

static void settle(struct world *w)
{
	struct dmm_net_event ev;
	uint8_t buf[MTU];
	uint32_t len;
	unsigned int n = 0;

	while (dmm_net_event(w->net, &ev)) {
		if (ev.events == DMM_NET_ACCEPTED) {
			if (w->conn)
				dmm_net_abort(ev.conn);
			else
				w->conn = ev.conn;
		} else if ((ev.events & (DMM_EV_ERROR | DMM_EV_CLOSED)) && ev.conn == w->conn) {
			w->conn = NULL;
		}
	}
	while ((len = dmm_net_output(w->net, buf, sizeof(buf), w->now))) {
		learn(w, buf, len);
		if (++n > 10000) /* it would never stop */
			abort();
	}
}

static void call(struct world *w)
{
	struct dmm_endpoint from, to;
	struct iovec iov[4];
	uint8_t buf[3000];

	if (w->udp && take(&w->in, 1) & 1)
		dmm_net_udp_recv(w->udp, buf, sizeof(buf), &from, &to);
	if (!w->conn) {
		if (take(&w->in, 1) & 1)
			dmm_net_connect(w->net, &w->ours, &w->theirs, NULL, w->now, &w->conn);
		return;
	}
	memset(buf, 7, sizeof(buf));
	switch (take(&w->in, 1) % 8) {
	case 0:
	case 1:
		dmm_net_send(w->conn, buf, take(&w->in, 2) % sizeof(buf));
		break;
	case 2:
	case 3:
		if (dmm_net_recv_peek(w->conn, iov, 4))
			dmm_net_recv_done(w->conn, take(&w->in, 2));
		break;
	case 4:
		dmm_net_shutdown(w->conn);
		break;
	case 5:
		dmm_net_close(w->conn);
		w->conn = NULL; /* only its events come from now on */
		break;
	case 6:
		dmm_net_abort(w->conn);
		w->conn = NULL;
		break;
	case 7:
		dmm_net_set_option(w->conn, (enum dmm_net_option)(take(&w->in, 1) % 5),
				   (int)take(&w->in, 1));
		break;
	}
}

static void step(struct world *w)
{
	struct dmm_icmp icmp = { .local = w->ours, .remote = w->theirs, .err = 113 };
	uint8_t p[2100];
	uint32_t len;

	switch (take(&w->in, 1) % 8) {
	case 0:
		len = take_bytes(&w->in, p, 2000);
		dmm_net_input(w->net, p, len, w->now);
		break;
	case 1:
		len = take_bytes(&w->in, p, 2000);
		mend(p, len);
		dmm_net_input(w->net, p, len, w->now);
		break;
	case 2:
	case 3:
		len = segment(w, p);
		dmm_net_input(w->net, p, len, w->now);
		break;
	case 4:
		w->now += take(&w->in, 2) * (uint64_t)(take(&w->in, 1) & 1 ? MS * 100 : MS / 10);
		dmm_net_tick(w->net, w->now);
		break;
	case 5:
		call(w);
		break;
	case 6:
		icmp.seq = w->ack - take(&w->in, 2);
		icmp.mtu = take(&w->in, 2);
		icmp.hard = icmp.mtu & 1;
		dmm_net_icmp(w->net, &icmp, w->now);
		break;
	case 7:
		len = fragment(w, p);
		dmm_net_input(w->net, p, len, w->now);
		break;
	}
	settle(w);
}

static void end(struct world *w)
{
	struct dmm_net_stats stats;

	if (w->conn)
		dmm_net_abort(w->conn);
	dmm_net_close(w->listener);
	dmm_net_udp_close(w->udp);
	w->conn = NULL;
	settle(w);
	/* orphans and fragments end in time */
	for (unsigned int i = 0; i < 40; i++) {
		w->now += 100000 * MS;
		dmm_net_tick(w->net, w->now);
		settle(w);
	}
	dmm_net_get_stats(w->net, &stats);
	if (stats.conns || stats.half_open || stats.time_wait || stats.listeners || stats.memory)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void *memory;
	struct world w = { .in = { data, size }, .now = 1000 * MS };
	const uint8_t first = (uint8_t)take(&w.in, 1);
	struct dmm_net_config config = { .mtu = MTU,
					 .n_addrs = 1,
					 .max_addrs = 1,
					 .max_conns = 6,
					 .max_time_wait = 2,
					 .max_udp = 2,
					 .send_buffer = 20000,
					 .receive_buffer = first & 2 ? 70000 : 9000,
					 .buffer_memory = 150000,
					 .congestion = first & 4 ? DMM_NET_CUBIC : DMM_NET_NEWRENO,
					 .delay_small = first & 8 };
	const size_t len = dmm_net_memory(&config);

	w.v4 = first & 1;
	w.ours = endpoint(w.v4, 1, 80);
	w.theirs = endpoint(w.v4, 2, 1234);
	config.addrs = (const uint8_t(*)[16]) & w.ours.addr;
	if (!memory && !(memory = aligned_alloc(64, len)))
		return 0;
	if (dmm_net_create(&config, memory, w.now, &w.net) < 0)
		abort();
	dmm_net_listen(w.net, &w.ours, first & 16 ? 1 : 4, NULL, &w.listener);
	dmm_net_udp_open(w.net, &w.ours, NULL, NULL, &w.udp);
	while (w.in.left)
		step(&w);
	end(&w);
	return 0;
}
