/* SPDX-License-Identifier: Apache-2.0 */
/* The relay's registrations: any order of held SYNs, givings-up, answers of the stack, ICMP errors and
 * time. No plug-in connection is used after its end or ended twice, none is forgotten, and no port
 * stays in use. An input is a list of steps of a few bytes each. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/util.h"
#include "base/packet.h"
#include "instance/relay.h"

#define PORT_FIRST 20000u
#define N_PORTS	   8u
#define MAX_CONNS  256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct dmm_conn {
	void *user;
	bool over;
};

static struct dmm_conn conns[MAX_CONNS];
static unsigned int n_conns;
static int connect_error, route_error;

static void want(bool condition)
{
	if (!condition)
		abort();
}

/* --- a stack that does as it is told --- */

static int fake_connect(struct dmm_stack *stack, const struct dmm_connect *args,
			struct dmm_conn **ret)
{
	(void)stack;
	if (connect_error || n_conns == MAX_CONNS)
		return connect_error ? connect_error : -ENOMEM;
	conns[n_conns] = (struct dmm_conn){ .user = args->user };
	*ret = &conns[n_conns++];
	return 0;
}

static void fake_end(struct dmm_conn *conn)
{
	want(!conn->over);
	conn->over = true;
}

static int fake_option(struct dmm_conn *conn, enum dmm_stack_option option, int value)
{
	(void)option, (void)value;
	want(!conn->over);
	return 0;
}

static void fake_icmp(struct dmm_stack *stack, const struct dmm_icmp *error)
{
	(void)stack, (void)error;
}

static const struct dmm_stack_ops ops = {
	.connect = fake_connect,
	.close = fake_end,
	.abort = fake_end,
	.set_option = fake_option,
	.icmp = fake_icmp,
};

static void on_inject(void *ctx, enum dmm_family family, const uint8_t dst[16],
		      const uint8_t *packet, size_t len)
{
	struct packet p;

	(void)ctx, (void)dst;
	want(packet_parse(packet, len, &p) && p.family == family);
}

static void on_want_sockets(void *ctx, enum dmm_family family)
{
	(void)ctx, (void)family;
}

static int on_route(void *ctx, const uint8_t remote[16], const uint8_t local[16])
{
	(void)ctx, (void)remote, (void)local;
	return route_error;
}

/* --- steps --- */

struct input {
	const uint8_t *at, *end;
};

static uint8_t next(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

/* A SYN of one of few applications, well-formed but where the input says otherwise. */
static void fill_event(struct input *in, enum dmm_event_kind kind, struct dmm_event *e)
{
	uint8_t who = next(in), port = next(in), odd = next(in);
	uint8_t *ip = e->packet;

	memset(e, 0, sizeof(*e));
	e->kind = kind;
	e->family = DMM_FAMILY_V4;
	e->cookie = who;
	addr_from_v4((const uint8_t[]){ 127, 0, 0, 1 }, e->app);
	addr_from_v4((const uint8_t[]){ 127, 0, 0, 1 }, e->relay);
	addr_from_v4((const uint8_t[]){ 10, 0, 0, 1 }, e->local);
	addr_from_v4((const uint8_t[]){ 10, 0, 0, 2 }, e->remote);
	packet_put16((uint8_t *)&e->app_port, 40000 + who % 8);
	packet_put16((uint8_t *)&e->relay_port, 7000);
	packet_put16((uint8_t *)&e->local_port, PORT_FIRST + port % (N_PORTS + 2));
	packet_put16((uint8_t *)&e->remote_port, 80);
	ip[0] = 0x45;
	ip[3] = 40;
	ip[8] = 64;
	ip[9] = 6;
	memcpy(ip + 12, e->app + 12, 4);
	memcpy(ip + 16, e->relay + 12, 4);
	memcpy(ip + 20, &e->app_port, 2);
	memcpy(ip + 22, &e->relay_port, 2);
	packet_put32(ip + 24, port); /* its sequence number */
	ip[32] = 0x50;
	ip[33] = 0x02;
	e->packet_len = 40;
	if (odd & 0x80)
		ip[odd % 40] ^= next(in);
	if (odd & 0x40)
		e->packet_len = next(in);
	if (odd & 0x20)
		e->family = next(in) % 2;
}

static void stack_says(struct input *in, struct relay *relay)
{
	static const uint32_t all[] = { DMM_EV_CONNECTED, DMM_EV_ERROR, DMM_EV_CLOSED,
					DMM_EV_CONNECTED | DMM_EV_ERROR };
	static const int errors[] = { ECONNREFUSED, ETIMEDOUT, ENOMEM, EHOSTUNREACH, ECONNRESET };
	uint32_t events = all[next(in) % DMM_ARRAY_SIZE(all)];
	struct dmm_conn *conn;

	if (n_conns == 0)
		return;
	conn = &conns[next(in) % n_conns];
	if (conn->over)
		return;
	if (events & (DMM_EV_ERROR | DMM_EV_CLOSED))
		conn->over = true;
	relay_on_stack(relay, conn->user, events, errors[next(in) % DMM_ARRAY_SIZE(errors)]);
}

static void icmp_comes(struct input *in, struct relay *relay)
{
	struct icmp_error error;
	uint16_t port = htons(PORT_FIRST + next(in) % (N_PORTS + 1));

	icmp_unreachable(DMM_FAMILY_V4, next(in) % 2, &error);
	addr_from_v4((const uint8_t[]){ 10, 0, 0, 1 }, error.about.local.addr);
	addr_from_v4((const uint8_t[]){ 10, 0, 0, 2 }, error.about.remote.addr);
	error.about.local.port = port;
	error.about.remote.port = htons(80);
	error.about.seq = next(in);
	relay_on_icmp(relay, &error);
}

static void step(struct input *in, struct relay *relay, uint64_t *now)
{
	struct dmm_event event;

	switch (next(in) % 8) {
	case 0:
	case 1:
		fill_event(in, DMM_EVENT_SYN, &event);
		relay_on_ring(relay, &event);
		break;
	case 2:
		fill_event(in, DMM_EVENT_CLOSED, &event);
		relay_on_ring(relay, &event);
		break;
	case 3:
		stack_says(in, relay);
		break;
	case 4:
		icmp_comes(in, relay);
		break;
	case 5:
		relay_on_wire_syn(relay, htons(PORT_FIRST + next(in) % (N_PORTS + 1)), next(in));
		break;
	case 6:
		*now += next(in) * DMM_NS_PER_SEC;
		relay_set_now(relay, *now);
		break;
	default:
		connect_error = next(in) % 4 ? 0 : -ENOMEM;
		route_error = next(in) % 4 ? 0 : -ENETUNREACH;
	}
}

static void check_ports(const struct dmm_inst_shared *shared, unsigned int active)
{
	unsigned int used = 0;

	for (unsigned int i = 0; i < N_PORTS; i++)
		used += shared->port[i] == DMM_PORT_USED;
	want(used == active);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct dmm_inst_shared shared;
	struct relay_args args = { .ops = &ops,
				   .shared = &shared,
				   .port_first = PORT_FIRST,
				   .port_last = PORT_FIRST + N_PORTS - 1,
				   .listeners = { -1, -1 },
				   .epoll_fd = -1,
				   .outside = { NULL, on_inject, on_want_sockets, on_route } };
	struct input in = { data, data + len };
	struct relay *relay;
	uint64_t now = DMM_NS_PER_SEC;

	memset(&shared, 0, sizeof(shared));
	n_conns = 0;
	connect_error = route_error = 0;
	want(relay_open(&args, &relay) == 0);
	relay_set_now(relay, now);
	while (in.at < in.end) {
		step(&in, relay, &now);
		relay_run(relay);
		check_ports(&shared, relay_active(relay) + relay_closing(relay));
	}
	relay_close(relay);
	check_ports(&shared, 0);
	for (unsigned int i = 0; i < n_conns; i++)
		want(conns[i].over);
	return 0;
}
