/* SPDX-License-Identifier: Apache-2.0 */
#include "netpeer.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"

struct dmm_endpoint netpeer_endpoint(bool v4, uint8_t last, uint16_t port)
{
	struct dmm_endpoint ep = { .addr = { [0] = 0xfd, [15] = last }, .port = htons(port) };

	if (v4)
		ep = (struct dmm_endpoint){ .addr = { [10] = 0xff, 0xff, 10, 0, 0, last },
					    .port = htons(port) };
	return ep;
}

void netpeer_open_with(struct netpeer *r, bool v4, const char secret[32])
{
	struct dmm_net_config config = { .mtu = 1500,
					 .n_addrs = 1,
					 .max_addrs = NETPEER_ADDRS,
					 .max_conns = 200,
					 .max_time_wait = 100,
					 .send_buffer = 100000,
					 .receive_buffer = 100000,
					 .buffer_memory = 4 << 20 };

	*r = (struct netpeer){ .now = 12345 * NETPEER_SEC };
	r->ours = netpeer_endpoint(v4, 1, 80);
	r->theirs = netpeer_endpoint(v4, 2, 1234);
	memcpy(config.secret, secret, sizeof(config.secret));
	config.addrs = (const uint8_t(*)[16]) & r->ours.addr;
	r->memory = aligned_alloc(64, dmm_net_memory(&config));
	memset(r->memory, 0, dmm_net_memory(&config));
	assert_int_equal(dmm_net_create(&config, r->memory, r->now, &r->net), 0);
}

void netpeer_open(struct netpeer *r, bool v4)
{
	static const char secret[32] = "not so secret";

	netpeer_open_with(r, v4, secret);
}

void netpeer_settle(struct netpeer *r)
{
	struct dmm_net_event ev;
	uint8_t buf[1500];
	uint32_t len;

	while (dmm_net_event(r->net, &ev)) {
		if (ev.events == DMM_NET_ACCEPTED)
			r->conn = ev.conn;
		else
			r->events |= ev.events;
		if (ev.events & DMM_EV_ERROR)
			r->err = ev.err;
		if (ev.events & (DMM_EV_ERROR | DMM_EV_CLOSED))
			r->conn = NULL;
	}
	while ((len = dmm_net_output(r->net, buf, sizeof(buf), r->now))) {
		assert_true(r->n_out < NETPEER_OUT);
		segment_parse(buf, len, &r->out[r->n_out++]);
	}
}

void netpeer_close(struct netpeer *r)
{
	free(r->memory);
}

void netpeer_pass(struct netpeer *r, uint64_t ns)
{
	const uint64_t until = r->now + ns;

	for (;;) {
		netpeer_settle(r);
		if (dmm_net_deadline(r->net) > until)
			break;
		r->now = DMM_MAX(r->now, dmm_net_deadline(r->net));
		dmm_net_tick(r->net, r->now);
	}
	r->now = until;
	dmm_net_tick(r->net, r->now);
	netpeer_settle(r);
}

const struct segment *netpeer_last(struct netpeer *r)
{
	const unsigned int n = r->n_out;

	r->n_out = 0;
	return n ? &r->out[n - 1] : NULL;
}

struct segment netpeer_segment_of(struct netpeer *r, uint8_t flags, const void *data, uint32_t len)
{
	struct segment s = { .src = r->theirs,
			     .dst = r->ours,
			     .seq = r->seq,
			     .ack = r->ack,
			     .flags = flags,
			     .window = 60000,
			     .len = len,
			     .v4 = segment_is_v4(r->ours.addr) };

	if (len)
		memcpy(s.data, data, len);
	return s;
}

void netpeer_put(struct netpeer *r, const struct segment *s)
{
	uint8_t packet[2000];
	const size_t len = segment_build(s, packet);

	dmm_net_input(r->net, packet, (uint32_t)len, r->now);
	netpeer_settle(r);
}

void netpeer_sends(struct netpeer *r, uint8_t flags, const void *data, uint32_t len)
{
	const struct segment s = netpeer_segment_of(r, flags, data, len);

	netpeer_put(r, &s);
	r->seq += len + !!(flags & SYN) + !!(flags & FIN);
}

void netpeer_accept_with(struct netpeer *r, const uint8_t *options, uint32_t len)
{
	struct dmm_net_conn *listener;
	struct segment s;

	dmm_net_listen(r->net, &r->ours, 8, NULL, &listener);
	r->seq = NETPEER_ISN;
	s = netpeer_segment_of(r, SYN, NULL, 0);
	if (len)
		memcpy(s.options, options, len);
	s.options_len = len;
	netpeer_put(r, &s);
	r->seq++;
	assert_int_equal(r->n_out, 1);
	r->syn_ack = r->out[0];
	r->n_out = 0;
	assert_int_equal(r->syn_ack.flags, SYN | ACK);
	assert_int_equal(r->syn_ack.ack, r->seq);
	r->iss = r->syn_ack.seq;
	r->ack = r->iss + 1;
}

void netpeer_establish(struct netpeer *r, const uint8_t *options, uint32_t len)
{
	netpeer_accept_with(r, options, len);
	netpeer_sends(r, ACK, NULL, 0);
	assert_non_null(r->conn);
	r->n_out = 0;
}

struct dmm_net_stats netpeer_stats_of(struct netpeer *r)
{
	struct dmm_net_stats s;

	dmm_net_get_stats(r->net, &s);
	return s;
}
