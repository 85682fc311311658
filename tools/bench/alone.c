/* SPDX-License-Identifier: Apache-2.0 */
/* A stack plug-in by itself: the same client as load.c, but linked with the instance's library and
 * calling the plug-in from its own loop. No socket door, no relay, no second process: what is left
 * is the stack and AF_XDP.
 *
 *   alone [-c connections] [-b bytes] [-t seconds] [-w warm-up seconds] [-s]
 *         PLUGIN INTERFACE MODE ADDRESS PORT
 *   -s: spin instead of sleeping;  MODE, the output, and what they mean: as in load.c
 *
 * Its local ports are ALONE_FIRST_PORT on. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#include "alone_stack.h"
#include "base/clock.h"
#include "base/util.h"

#define MAX_CONNS  1024
#define MAX_FAILED 1000

enum mode { RR, CRR, SEND, RECV };
static const char *const modes[] = { "rr", "crr", "send", "recv" };

/* A local port; its user pointer outlives the slot's interest in it. */
struct wire {
	struct slot *slot; /* NULL: closed by us, the stack ends it */
	bool used;
};

struct slot {
	struct dmm_conn *conn; /* NULL: gone */
	struct wire *wire;
	bool up;
	size_t got;
	uint64_t began;
};

static struct {
	enum mode mode;
	union address server;
	uint16_t port;
	unsigned int n_slots;
	size_t size;
	double seconds, warm_up;
	struct alone alone;
	struct dmm_endpoint local, remote;

	struct slot slot[MAX_CONNS];
	struct wire wire[ALONE_PORTS];
	unsigned int next_wire, alive, up;
	uint64_t start, end;
	uint64_t count, bytes, failed;
	struct histogram times;
} b = { .n_slots = 1, .size = 64, .seconds = 1, .warm_up = 0.3, .start = UINT64_MAX };

static char buf[1 << 17];

static const struct dmm_stack_ops *ops(void)
{
	return b.alone.ops;
}

/* --- the load --- */

static int open_slot(struct slot *slot)
{
	struct dmm_connect args = { .local = b.local, .remote = b.remote };
	unsigned int i;
	int r;

	for (i = 0; i < ALONE_PORTS && b.wire[b.next_wire].used; i++)
		b.next_wire = (b.next_wire + 1) % ALONE_PORTS;
	if (i == ALONE_PORTS)
		return -EADDRNOTAVAIL;
	*slot = (struct slot){ .wire = &b.wire[b.next_wire], .began = dmm_now_ns() };
	*slot->wire = (struct wire){ .slot = slot, .used = true };
	args.local.port = htons(ALONE_FIRST_PORT + b.next_wire);
	if (b.mode == CRR)
		args.remote.port = htons(b.port + (slot - b.slot));
	args.user = slot->wire;
	b.next_wire = (b.next_wire + 1) % ALONE_PORTS;
	r = ops()->connect(b.alone.stack, &args, &slot->conn);
	if (r < 0) {
		slot->wire->used = false;
		slot->conn = NULL;
		return r;
	}
	ops()->set_option(slot->conn, DMM_OPT_NODELAY, 1);
	b.alive++;
	return 0;
}

static void close_slot(struct slot *slot)
{
	slot->wire->slot = NULL;
	ops()->close(slot->conn);
	slot->conn = NULL;
	b.alive--;
}

static void fail_slot(struct slot *slot)
{
	b.failed++;
	if (slot->conn)
		close_slot(slot);
}

static void send_request(struct slot *slot)
{
	slot->got = 0;
	if (b.mode == RR)
		slot->began = dmm_now_ns();
	if (ops()->send(slot->conn, buf, b.size) != (ssize_t)b.size)
		fail_slot(slot);
}

static void respond(struct slot *slot)
{
	uint64_t now;

	if (slot->got < b.size)
		return;
	now = dmm_now_ns();
	if (now >= b.start) {
		b.count++;
		hist_add(&b.times, now - slot->began);
	}
	if (b.mode == RR)
		send_request(slot);
	else
		close_slot(slot); /* the loop opens the next one */
}

static size_t take(struct slot *slot)
{
	return alone_take(&b.alone, slot->conn, buf, sizeof(buf));
}

static void readable(struct slot *slot)
{
	size_t len = take(slot);

	if (b.mode == RECV) {
		for (; len; len = take(slot))
			if (b.alone.now >= b.start)
				b.bytes += len;
		return;
	}
	slot->got += len;
	respond(slot);
}

static void fill(struct slot *slot)
{
	ssize_t n = alone_fill(&b.alone, slot->conn, buf, sizeof(buf));

	if (n < 0)
		fail_slot(slot);
	else if (b.alone.now >= b.start)
		b.bytes += n;
}

static void connected(struct slot *slot)
{
	slot->up = true;
	b.up++;
	if (b.mode == CRR)
		send_request(slot);
	else if (b.mode == SEND)
		fill(slot);
}

static void on_event(void *user, uint32_t events)
{
	struct wire *wire = user;
	struct slot *slot = wire->slot;

	if (events & (DMM_EV_CLOSED | DMM_EV_ERROR))
		wire->used = false;
	if (!slot)
		return;
	if (events & DMM_EV_ERROR) {
		slot->conn = NULL; /* dead already */
		b.alive--;
		fail_slot(slot);
		return;
	}
	if (events & DMM_EV_CONNECTED)
		connected(slot);
	if (slot->conn && events & DMM_EV_READABLE)
		readable(slot);
	if (slot->conn && events & DMM_EV_WRITABLE && b.mode == SEND)
		fill(slot);
	if (slot->conn && events & DMM_EV_EOF)
		fail_slot(slot);
}

/* --- the loop --- */

static void turn(void)
{
	alone_receive(&b.alone);
	for (unsigned int i = 0; b.mode == CRR && i < b.n_slots; i++)
		if (!b.slot[i].conn && open_slot(&b.slot[i]) < 0)
			b.failed++;
	alone_send(&b.alone);
}

static int run(void)
{
	alone_endpoint(&b.server, b.port, &b.remote);
	alone_local(&b.alone, &b.remote, &b.local);
	for (unsigned int i = 0; i < b.n_slots; i++) {
		int r = open_slot(&b.slot[i]);

		if (r < 0)
			return r;
	}
	while (b.mode != CRR && b.up < b.n_slots && !b.failed)
		turn();
	b.start = dmm_now_ns() + b.warm_up * DMM_NS_PER_SEC;
	b.end = b.start + b.seconds * DMM_NS_PER_SEC;
	for (unsigned int i = 0; b.mode == RR && i < b.n_slots; i++)
		if (b.slot[i].conn)
			send_request(&b.slot[i]);
	while (b.alone.now < b.end && b.alive > 0 && b.failed < MAX_FAILED)
		turn();
	return 0;
}

static void print_result(void)
{
	double seconds = (double)(dmm_now_ns() - b.start) / DMM_NS_PER_SEC;

	printf("{\"mode\": \"%s\", \"connections\": %u, \"failed\": %lu", modes[b.mode], b.n_slots,
	       b.failed);
	if (b.alone.now < b.end)
		printf(", \"error\": \"gave up early\"");
	else if (b.times.n > 0)
		printf(", \"per_second\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f",
		       b.count / seconds, hist_percentile(&b.times, 0.5) / 1e3,
		       hist_percentile(&b.times, 0.99) / 1e3);
	else if (b.bytes)
		printf(", \"gbps\": %.4f", b.bytes * 8 / seconds / 1e9);
	else
		printf(", \"error\": \"nothing came through\"");
	printf("}\n");
}

static bool parse(int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "c:b:t:w:s")) > 0) {
		switch (option) {
		case 'c':
			b.n_slots = atoi(optarg);
			break;
		case 'b':
			b.size = atoi(optarg);
			break;
		case 't':
			b.seconds = atof(optarg);
			break;
		case 'w':
			b.warm_up = atof(optarg);
			break;
		case 's':
			b.alone.spin = true;
			break;
		default:
			return false;
		}
	}
	if (optind != argc - 5)
		return false;
	b.alone.plugin_path = argv[optind];
	b.alone.ifname = argv[optind + 1];
	while (b.mode < RECV && !dmm_streq(modes[b.mode], argv[optind + 2]))
		b.mode++;
	b.port = atoi(argv[optind + 4]);
	return dmm_streq(modes[b.mode], argv[optind + 2]) && b.n_slots >= 1 &&
	       b.n_slots <= MAX_CONNS && b.size >= 1 && b.size <= sizeof(buf) &&
	       address_parse(argv[optind + 3], b.port, &b.server);
}

int main(int argc, char **argv)
{
	int r;

	if (!parse(argc, argv)) {
		fprintf(stderr,
			"usage: alone [-c connections] [-b bytes] [-t seconds] [-w seconds] "
			"[-s] PLUGIN INTERFACE rr|crr|send|recv ADDRESS PORT\n");
		return 2;
	}
	alarm(b.seconds + b.warm_up + 20); /* a hang ends by SIGALRM */
	b.alone.event = on_event;
	r = alone_open(&b.alone);
	if (r == 0)
		r = run();
	if (r < 0)
		fprintf(stderr, "alone: %s\n", strerror(-r));
	else
		print_result();
	alone_close(&b.alone);
	return r < 0;
}
