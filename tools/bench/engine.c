/* SPDX-License-Identifier: Apache-2.0 */
/* The native engine by itself: two of them in one process, one sends to the other, packets are handed
 * over in memory. What it costs for each segment with data, by what is done with it; the caches are
 * warm.
 *
 *   engine SEGMENTS
 *
 * Prints one line of JSON, ns for each segment with data, the median of turns of 32: "send" is the
 * sender's user and its copy into the engine, "output" and "input" those of the segment, "read" the
 * receiver's user, "ack" output and input of what it acknowledges (of every second segment). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/util.h"
#include "measure.h"

#include <dmm/net.h>

#define BATCH 32
#define MTU   1500
#define TURN  10000 /* ns of the engines' clock */

enum step { SEND, OUTPUT, INPUT, READ, ACK, NUM_STEPS };

static const char *const names[] = { "send", "output", "input", "read", "ack" };

struct side {
	struct dmm_net *net;
	struct dmm_net_conn *conn;
};

struct batch {
	unsigned int n;
	uint32_t len[BATCH];
	uint8_t data[BATCH][2048];
};

static struct dmm_endpoint endpoint(uint8_t last, uint16_t port)
{
	return (struct dmm_endpoint){ .addr = { [10] = 0xff, 0xff, 10, 0, 0, last },
				      .port = htons(port) };
}

static int open_side(struct side *s, uint8_t last)
{
	const struct dmm_endpoint ep = endpoint(last, 0);
	const struct dmm_net_config config = { .mtu = MTU,
					       .addrs = (const uint8_t(*)[16]) & ep.addr,
					       .n_addrs = 1,
					       .max_addrs = 1,
					       .max_conns = 4,
					       .send_buffer = 256 << 10,
					       .receive_buffer = 256 << 10,
					       .buffer_memory = 8 << 20,
					       .secret = "of a bench" };
	const size_t size = dmm_net_memory(&config);
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? -errno : dmm_net_create(&config, memory, 1, &s->net);
}

static void take_output(struct side *s, struct batch *b, uint64_t now)
{
	for (b->n = 0; b->n < BATCH; b->n++) {
		b->len[b->n] = dmm_net_output(s->net, b->data[b->n], sizeof(b->data[0]), now);
		if (!b->len[b->n])
			break;
	}
}

static void give_input(struct side *s, const struct batch *b, uint64_t now)
{
	struct dmm_net_event ev;
	unsigned int i;

	for (i = 0; i < b->n; i++)
		dmm_net_input(s->net, b->data[i], b->len[i], now);
	while (dmm_net_event(s->net, &ev))
		if (ev.events == DMM_NET_ACCEPTED)
			s->conn = ev.conn;
}

static void read_all(struct side *s)
{
	struct iovec iov[4];
	unsigned int n;

	while (s->conn && (n = dmm_net_recv_peek(s->conn, iov, 4))) {
		size_t got = 0;

		while (n)
			got += iov[--n].iov_len;
		dmm_net_recv_done(s->conn, got);
	}
}

/* One turn of both; returns how many segments with data went over. */
static unsigned int turn(struct side *a, struct side *b, uint64_t now,
			 struct histogram took[NUM_STEPS])
{
	static uint8_t bytes[65536];
	static struct batch there, back;
	uint64_t at[NUM_STEPS + 1];
	unsigned int i;

	at[SEND] = dmm_now_ns();
	while (dmm_net_send(a->conn, bytes, sizeof(bytes)) == sizeof(bytes))
		;
	at[OUTPUT] = dmm_now_ns();
	take_output(a, &there, now);
	at[INPUT] = dmm_now_ns();
	give_input(b, &there, now);
	at[READ] = dmm_now_ns();
	read_all(b);
	at[ACK] = dmm_now_ns();
	take_output(b, &back, now + TURN / 2);
	give_input(a, &back, now + TURN / 2);
	at[NUM_STEPS] = dmm_now_ns();
	for (i = 0; i < NUM_STEPS && there.n == BATCH; i++)
		hist_add(&took[i], at[i + 1] - at[i]);
	if (dmm_net_deadline(a->net) <= now)
		dmm_net_tick(a->net, now);
	if (dmm_net_deadline(b->net) <= now)
		dmm_net_tick(b->net, now);
	return there.n;
}

int main(int argc, char **argv)
{
	const uint64_t n = argc == 2 ? strtoull(argv[1], NULL, 0) : 0;
	const struct dmm_endpoint from = endpoint(1, 1000), to = endpoint(2, 2000);
	static struct histogram took[NUM_STEPS];
	uint64_t done = 0, now = 1;
	struct side a = { 0 }, b = { 0 };
	struct dmm_net_conn *listener;
	unsigned int i;

	if (!n) {
		fprintf(stderr, "usage: engine SEGMENTS\n");
		return 2;
	}
	if (open_side(&a, 1) < 0 || open_side(&b, 2) < 0 ||
	    dmm_net_listen(b.net, &to, 1, NULL, &listener) < 0 ||
	    dmm_net_connect(a.net, &from, &to, NULL, now, &a.conn) < 0) {
		fprintf(stderr, "engine: the engines do not begin\n");
		return 1;
	}
	for (i = 0; i < 1000; i++, now += TURN) /* until windows are large */
		turn(&a, &b, now, took);
	memset(took, 0, sizeof(took));
	for (; done < n; now += TURN)
		done += turn(&a, &b, now, took);
	printf("{\"segments\": %lu", done);
	for (i = 0; i < NUM_STEPS; i++)
		printf(", \"%s\": %.1f", names[i], hist_percentile(&took[i], 0.5) / BATCH);
	printf("}\n");
	return 0;
}
