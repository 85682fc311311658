// SPDX-License-Identifier: Apache-2.0
/* The native engine behind a line protocol, for conformance suites in any language. It is made with
 * <dmm/net.h> alone. The clock is the suite's, and the secret the same always.
 *
 *	adapter ADDR [MTU]	the engine has the address ADDR, IPv4 or IPv6
 *
 * Commands, one a line; an ID is the lowest number that is free, listeners have one too:
 *	packet HEX				an IP packet arrives
 *	advance NS				time passes; each timer runs when it is due
 *	listen PORT				result: an ID
 *	connect LOCAL_PORT ADDR PORT		result: an ID
 *	send ID HEX				result: how many bytes there was room for
 *	recv ID, shutdown ID, close ID, abort ID
 *	option ID NUMBER VALUE			one of enum dmm_net_option
 *
 * Each is answered by what happened, then "done RESULT", negative: the errno:
 *	time NS			it is so late now, since the start: what follows happened then
 *	packet HEX		an IP packet to be sent
 *	data HEX		to recv, any number
 *	event ID NAME...	connected, readable, writable, eof, error ERRNO, closed (after these
 *				two ID is free); of a listener: accepted ID, the connection's */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dmm/net.h>

#define MAX_CONNS 64

static struct dmm_net *net;
static uint64_t now;
static struct dmm_endpoint ours;
static struct dmm_net_conn *conns[MAX_CONNS]; /* by ID; the user pointer of each is its place */
static uint8_t packet[65535];

static bool read_end(const char *addr, const char *port, struct dmm_endpoint *ret)
{
	*ret = (struct dmm_endpoint){ .addr = { [10] = 0xff, 0xff },
				      .port = htons((uint16_t)atoi(port)) };
	return inet_pton(AF_INET, addr, ret->addr + 12) || inet_pton(AF_INET6, addr, ret->addr);
}

static void put_hex(const char *what, const uint8_t *p, size_t len)
{
	printf("%s ", what);
	while (len--)
		printf("%02x", *p++);
	printf("\n");
}

/* Into @packet. */
static uint32_t get_hex(const char *hex)
{
	uint32_t len = 0;

	while (len < sizeof(packet) && sscanf(hex + 2ul * len, "%2hhx", &packet[len]) == 1)
		len++;
	return len;
}

static struct dmm_net_conn **free_place(void)
{
	unsigned int i;

	for (i = 0; i < MAX_CONNS - 1 && conns[i]; i++)
		; /* the engine holds one less */
	return &conns[i];
}

static void tell_event(const struct dmm_net_event *ev)
{
	static const char *const names[] = { " connected", " readable", " writable", " eof" };
	struct dmm_net_conn **place = ev->user, **accepted = free_place();
	unsigned int i;

	printf("event %td", place - conns);
	if (ev->events == DMM_NET_ACCEPTED) {
		printf(" accepted %td\n", accepted - conns);
		dmm_net_set_user(*accepted = ev->conn, accepted);
		return;
	}
	for (i = 0; i < 4; i++)
		printf("%s", ev->events & 1u << i ? names[i] : "");
	if (ev->events & DMM_EV_ERROR)
		printf(" error %d", ev->err);
	printf("%s\n", ev->events & DMM_EV_CLOSED ? " closed" : "");
	if (ev->events & (DMM_EV_ERROR | DMM_EV_CLOSED))
		*place = NULL;
}

static void tell(void)
{
	struct dmm_net_event ev;
	uint32_t len;

	while (dmm_net_event(net, &ev))
		tell_event(&ev);
	while ((len = dmm_net_output(net, packet, sizeof(packet), now)))
		put_hex("packet", packet, len);
}

static void advance(uint64_t by)
{
	const uint64_t until = now + by;

	while (now < until) {
		const uint64_t due = dmm_net_deadline(net);

		now = due < now ? now : due < until ? due : until;
		printf("time %llu\n", (unsigned long long)now);
		dmm_net_tick(net, now);
		tell();
	}
}

static ssize_t open_conn(bool active, char **w)
{
	struct dmm_net_conn **place = free_place();
	struct dmm_endpoint local = ours, remote;
	int r = -EINVAL;

	local.port = htons((uint16_t)atoi(w[1]));
	if (!active)
		r = dmm_net_listen(net, &local, 16, place, place);
	else if (read_end(w[2], w[3], &remote))
		r = dmm_net_connect(net, &local, &remote, place, now, place);
	return r < 0 ? r : place - conns;
}

static ssize_t use(struct dmm_net_conn **place, char **w)
{
	struct iovec part;

	if (!strcmp(w[0], "send"))
		return dmm_net_send(*place, packet, get_hex(w[2]));
	if (!strcmp(w[0], "shutdown"))
		return dmm_net_shutdown(*place);
	if (!strcmp(w[0], "option"))
		return dmm_net_set_option(*place, (enum dmm_net_option)atoi(w[2]), atoi(w[3]));
	if (!strcmp(w[0], "recv")) {
		while (dmm_net_recv_peek(*place, &part, 1)) {
			put_hex("data", part.iov_base, part.iov_len);
			dmm_net_recv_done(*place, part.iov_len);
		}
	} else if (!strcmp(w[0], "close")) {
		dmm_net_close(*place);
	} else if (!strcmp(w[0], "abort")) {
		dmm_net_abort(*place);
		*place = NULL;
	} else {
		return -ENOSYS;
	}
	return 0;
}

static ssize_t command(char *line)
{
	unsigned int i;
	char *w[4];

	for (i = 0; i < 4; i++)
		w[i] = strtok(i ? NULL : line, " \n") ?: "";
	i = (unsigned int)atoi(w[1]);
	if (!strcmp(w[0], "listen") || !strcmp(w[0], "connect"))
		return open_conn(w[0][0] == 'c', w);
	if (!strcmp(w[0], "advance"))
		advance(strtoull(w[1], NULL, 0));
	else if (!strcmp(w[0], "packet"))
		dmm_net_input(net, packet, get_hex(w[1]), now);
	else
		return i < MAX_CONNS && conns[i] ? use(&conns[i], w) : -EBADF;
	return 0;
}

int main(int argc, char **argv)
{
	static _Alignas(64) uint8_t memory[96 << 20];
	static char line[2 * sizeof(packet) + 64];
	struct dmm_net_config config = { .n_addrs = 1, .max_addrs = 1 };
	ssize_t r;

	config.mtu = argc > 2 ? (uint32_t)atoi(argv[2]) : 1500;
	config.addrs = (const uint8_t(*)[16]) & ours.addr;
	config.max_conns = config.max_time_wait = MAX_CONNS - 1;
	config.send_buffer = config.receive_buffer = 1 << 20;
	config.buffer_memory = 64 << 20;
	if (argc < 2 || !read_end(argv[1], "0", &ours) ||
	    dmm_net_memory(&config) > sizeof(memory) || dmm_net_create(&config, memory, now, &net))
		return 2;
	while (fgets(line, sizeof(line), stdin)) {
		r = command(line);
		tell();
		printf("done %zd\n", r);
		fflush(stdout);
	}
	return 0;
}
