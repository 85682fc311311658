// SPDX-License-Identifier: Apache-2.0
/* ICMP errors about a connection with data on its way, or one that is being opened. What does not
 * quote something on its way changes nothing; what does may lower the MTU, within bounds, but never
 * ends an established connection (RFC 5927, RFC 9293 MUST-54 to 57). */
#include <stdlib.h>

#include "base/util.h"
#include "input.h"

struct world {
	struct input in;
	struct dmm_net *net;
	uint64_t now;
	bool v4, opening;
	struct dmm_endpoint ours, theirs;
	struct dmm_net_conn *conn;
	bool gone;
	uint32_t seq, ack; /* of the peer */
};

static uint32_t tcp(const struct world *w, uint8_t *p, uint8_t flags)
{
	const uint32_t at = ip_header(p, w->v4, &w->theirs, &w->ours, 6, 24);

	memset(p + at, 0, 24);
	memcpy(p + at, &w->theirs.port, 2);
	memcpy(p + at + 2, &w->ours.port, 2);
	put32(p + at + 4, w->seq);
	put32(p + at + 8, w->ack);
	p[at + 12] = 6 << 4;
	p[at + 13] = flags;
	put16(p + at + 14, 0xffff);
	put32(p + at + 20, 0x02040000u + MTU - at - 20); /* MSS */
	mend(p, at + 24);
	return at + 24;
}

static void settle(struct world *w)
{
	struct dmm_net_event ev;
	uint8_t buf[MTU];

	while (dmm_net_event(w->net, &ev))
		w->gone |= (ev.events & DMM_EV_ERROR) != 0;
	while (dmm_net_output(w->net, buf, sizeof(buf), w->now)) {
		const uint8_t *h = buf + (w->v4 ? 20 : 40);

		if (h[13] & 2)
			w->ack = get32(h + 4) + 1;
	}
}

/* Everything of it that an ICMP error could change. */
static void look(const struct world *w, struct dmm_net_info *ret)
{
	if (!w->gone)
		dmm_net_get_info(w->conn, ret);
}

static bool is_same(const struct dmm_net_info *a, const struct dmm_net_info *b)
{
	return !strcmp(a->state, b->state) && a->cwnd == b->cwnd && a->ssthresh == b->ssthresh &&
	       a->in_flight == b->in_flight && a->mss == b->mss && a->snd_una == b->snd_una &&
	       a->snd_nxt == b->snd_nxt && a->snd_edge == b->snd_edge && a->rto == b->rto;
}

/* Whether the quoted packet is one that is on its way. */
enum about { ABOUT_NOTHING, ABOUT_UNSURE, ABOUT_US };

static enum about quote(struct world *w, uint8_t *p, uint32_t *ret_len)
{
	const uint32_t how = take(&w->in, 1), header = w->v4 ? 20 : 40;
	struct dmm_net_info info = { .snd_una = 0 };
	uint32_t seq, at;

	look(w, &info);
	seq = info.snd_una + take(&w->in, 2) - (how & 1 ? take(&w->in, 4) : 0);
	ip_header(p, w->v4, &w->ours, &w->theirs, 6, 20 + take(&w->in, 2) % 1400);
	memcpy(p + header, &w->ours.port, 2);
	memcpy(p + header + 2, &w->theirs.port, 2);
	put32(p + header + 4, seq);
	*ret_len = header + 8;
	if (how & 4) {
		*ret_len = take(&w->in, 1) % *ret_len;
		return ABOUT_NOTHING;
	}
	if ((int32_t)(seq - info.snd_una) < 0 || (int32_t)(seq - info.snd_nxt) >= 0)
		return how & 2 ? ABOUT_UNSURE : ABOUT_NOTHING;
	if (!(how & 2))
		return ABOUT_US;
	at = take(&w->in, 1) % *ret_len; /* a bit is another */
	p[at] ^= (uint8_t)(1u << take(&w->in, 1) % 8);
	/* addresses and ports */
	return at >= (w->v4 ? 12 : 8) && at < header + 4 ? ABOUT_NOTHING : ABOUT_UNSURE;
}

static bool is_hard(const struct world *w, uint8_t type, uint8_t code)
{
	return w->v4 ? type == 3 && (code == 2 || code == 3)
		     : type == 1 && (code == 1 || code == 4);
}

static uint32_t mss_for(const struct world *w, uint32_t mtu)
{
	const uint32_t least = w->v4 ? 576 : 1280, headers = w->v4 ? 40 : 60;

	mtu = w->v4 ? mtu & 0xffff : mtu;
	return DMM_MAX(mtu, least) - headers;
}

static void error(struct world *w)
{
	struct dmm_net_info before = { .state = "" }, after;
	uint8_t p[400];
	uint32_t at = ip_header(p, w->v4, &w->theirs, &w->ours, w->v4 ? 1 : 58, 0), len;
	const uint8_t type = (uint8_t)take(&w->in, 1) % 6, code = (uint8_t)take(&w->in, 1) % 8;
	const uint32_t mtu = take(&w->in, 1) % 4 ? take(&w->in, 2) % 2000 : take(&w->in, 4);
	const bool too_big = w->v4 ? type == 3 && code == 4 : type == 2 && mtu >= 1280;
	enum about about;

	look(w, &before);
	p[at] = type;
	p[at + 1] = code;
	put32(p + at + 4, mtu);
	about = quote(w, p + at + 8, &len);
	len += 8;
	put16(p + (w->v4 ? 2 : 4), w->v4 ? at + len : len);
	mend(p, at + len);
	if (take(&w->in, 1) % 8 == 0) {
		p[at + 2] ^= 1;
		about = ABOUT_NOTHING;
	}
	dmm_net_input(w->net, p, at + len, w->now);
	settle(w);
	if (w->opening && is_hard(w, type, code) && about != ABOUT_UNSURE)
		must(w->gone == (about == ABOUT_US));
	if (w->gone) {
		must(w->opening && is_hard(w, type, code));
		return;
	}
	look(w, &after);
	must(after.sound && after.mss >= mss_for(w, 0));
	if (about == ABOUT_NOTHING || !too_big)
		must(is_same(&before, &after));
	else
		must(after.mss == before.mss || after.mss == mss_for(w, mtu));
	if (about == ABOUT_US && too_big)
		must(after.mss == DMM_MIN(before.mss, mss_for(w, mtu)));
}

/* ICMP of any kind. */
static void anything(struct world *w)
{
	uint8_t p[400], body[300];
	const uint32_t n = take_bytes(&w->in, body, sizeof(body));
	const uint32_t at = ip_header(p, w->v4, &w->theirs, &w->ours, w->v4 ? 1 : 58, n);

	memcpy(p + at, body, n);
	mend(p, at + n);
	dmm_net_input(w->net, p, at + n, w->now);
	settle(w);
}

static void open_conn(struct world *w)
{
	uint8_t p[100], bytes[20000] = { 0 };

	must(dmm_net_connect(w->net, &w->ours, &w->theirs, NULL, w->now, &w->conn) == 0);
	settle(w);
	if (w->opening)
		return;
	dmm_net_input(w->net, p, tcp(w, p, 0x12), w->now);
	w->seq++;
	settle(w);
	must(dmm_net_send(w->conn, bytes, sizeof(bytes)) > 0);
	settle(w);
}

static void step(struct world *w)
{
	struct dmm_net_info info;
	uint8_t p[100];

	switch (take(&w->in, 1) % 8) {
	case 0:
		anything(w);
		break;
	case 1: /* some of it arrived */
		look(w, &info);
		w->ack += take(&w->in, 2) % (info.snd_nxt - w->ack + 1);
		if (w->opening)
			break;
		dmm_net_input(w->net, p, tcp(w, p, 0x10), w->now);
		settle(w);
		break;
	case 2:
		w->now += take(&w->in, 1) * 10 * MS;
		dmm_net_tick(w->net, w->now);
		settle(w);
		break;
	default:
		error(w);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void *memory;
	struct world w = { .in = { data, size }, .now = 1000 * MS, .seq = 5000 };
	const uint32_t first = take(&w.in, 1);
	struct dmm_net_config config = { .mtu = MTU,
					 .n_addrs = 1,
					 .max_addrs = 1,
					 .max_conns = 1,
					 .send_buffer = 50000,
					 .receive_buffer = 50000,
					 .buffer_memory = 300000 };
	const size_t len = dmm_net_memory(&config);

	w.v4 = first & 1;
	w.opening = first & 2;
	w.ours = endpoint(w.v4, 1, 40000);
	w.theirs = endpoint(w.v4, 2, 80);
	config.addrs = (const uint8_t(*)[16]) & w.ours.addr;
	if (!memory && !(memory = aligned_alloc(64, len)))
		return 0;
	must(dmm_net_create(&config, memory, w.now, &w.net) == 0);
	open_conn(&w);
	while (w.in.left && !w.gone)
		step(&w);
	return 0;
}
