/* SPDX-License-Identifier: Apache-2.0 */
/* A bad link: carries what comes to one interface out by the other, both ways, at a rate and with a delay,
 * and loses, repeats, damages and holds back some of the frames. The n-th frame of a way meets the same fate
 * in each run with the same seed, whoever has sent it. Other than a queueing discipline it lies behind the
 * sender's checksums, AF_XDP sockets included.
 *
 *   badlink [-r Mbit/s] [-d delay] [-q queue] [-l lost] [-u repeated] [-c damaged] [-o late] [-s seed] A B
 *   delay, of each way, and queue, the longest wait for the link to be free: microseconds
 *   lost, repeated, damaged (a bit of it, none of the Ethernet header), late (by as much again as the
 *   delay, so that others overtake it): so many of a million
 *
 * Says "ready" on stdout; at SIGTERM it prints what it has done, one line of JSON for each way. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/util.h"

#define BATCH	  64
#define FRAME	  4096
#define SLOTS	  4096
#define NEVER	  UINT64_MAX
#define RECV_ROOM (32 << 20)

struct packet {
	uint64_t due;
	uint32_t len;
	uint8_t data[FRAME];
};

/* In the order of time, as what enters one has a constant delay. */
struct fifo {
	struct packet *slots;
	unsigned int head, n;
};

struct counts {
	uint64_t frames, lost, repeated, damaged, late, overflowed, refused;
};

struct way {
	int in, out;
	uint64_t random;
	uint64_t free_at; /* the link has then sent all that is queued */
	struct fifo usual, late;
	struct counts counts;
};

static struct {
	uint64_t rate, delay, queue; /* bytes per second, ns, ns */
	uint32_t lost, repeated, damaged, late;
	uint64_t seed;
	struct way ways[2];
} b = { .rate = 1000000000 / 8, .queue = 10 * DMM_NS_PER_MS, .seed = 1 };

static volatile sig_atomic_t stopped;

static struct packet came[BATCH];

static uint32_t draw(struct way *way)
{
	uint64_t z = way->random += 0x9e3779b97f4a7c15; /* splitmix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z >> 32;
}

static bool happens(struct way *way, uint32_t of_a_million)
{
	return draw(way) % 1000000 < of_a_million;
}

/* --- in --- */

static void put(struct way *way, struct fifo *fifo, const struct packet *p, uint64_t due)
{
	struct packet *slot;

	if (fifo->n == SLOTS) {
		way->counts.overflowed++;
		return;
	}
	slot = &fifo->slots[(fifo->head + fifo->n++) % SLOTS];
	slot->due = due;
	slot->len = p->len;
	memcpy(slot->data, p->data, p->len);
}

static void queue(struct way *way, const struct packet *p, uint64_t now, bool late)
{
	const uint64_t start = DMM_MAX(now, way->free_at);

	if (start - now > b.queue) {
		way->counts.overflowed++;
		return;
	}
	way->free_at = start + p->len * DMM_NS_PER_SEC / b.rate;
	if (late)
		put(way, &way->late, p, way->free_at + 2 * b.delay);
	else
		put(way, &way->usual, p, way->free_at + b.delay);
}

static void enter(struct way *way, struct packet *p, uint64_t now)
{
	/* always as many draws, so that what one frame meets moves no other's fate */
	const bool lost = happens(way, b.lost), repeated = happens(way, b.repeated),
		   damaged = happens(way, b.damaged), late = happens(way, b.late);
	const uint32_t bit = draw(way);

	way->counts.frames++;
	if (lost) {
		way->counts.lost++;
		return;
	}
	if (damaged && p->len > ETH_HLEN) {
		p->data[ETH_HLEN + bit / 8 % (p->len - ETH_HLEN)] ^= 1u << bit % 8;
		way->counts.damaged++;
	}
	way->counts.late += late;
	queue(way, p, now, late);
	if (repeated) {
		way->counts.repeated++;
		queue(way, p, now, false);
	}
}

static void receive(struct way *way, uint64_t now)
{
	static struct iovec iov[BATCH];
	static struct mmsghdr msgs[BATCH];
	int n;

	for (unsigned int i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){ came[i].data, FRAME };
		msgs[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1 };
	}
	n = recvmmsg(way->in, msgs, BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n; i++) {
		came[i].len = msgs[i].msg_len;
		enter(way, &came[i], now);
	}
}

/* --- out --- */

static uint64_t due(const struct fifo *fifo, unsigned int i)
{
	return i < fifo->n ? fifo->slots[(fifo->head + i) % SLOTS].due : NEVER;
}

static void drop(struct fifo *fifo, unsigned int n)
{
	fifo->head = (fifo->head + n) % SLOTS;
	fifo->n -= n;
}

/* Sends what is due, at most a batch; returns when the next is. */
static uint64_t deliver(struct way *way, uint64_t now)
{
	static struct iovec iov[BATCH];
	static struct mmsghdr msgs[BATCH];
	unsigned int n = 0, usual = 0, late = 0;

	for (; n < BATCH && DMM_MIN(due(&way->usual, usual), due(&way->late, late)) <= now; n++) {
		const bool first = due(&way->usual, usual) <= due(&way->late, late);
		const struct fifo *fifo = first ? &way->usual : &way->late;
		unsigned int *at = first ? &usual : &late;
		struct packet *p = &fifo->slots[(fifo->head + (*at)++) % SLOTS];

		iov[n] = (struct iovec){ p->data, p->len };
		msgs[n].msg_hdr = (struct msghdr){ .msg_iov = &iov[n], .msg_iovlen = 1 };
	}
	for (unsigned int sent = 0; sent < n;) {
		const int r = sendmmsg(way->out, msgs + sent, n - sent, 0);

		way->counts.refused += r <= 0; /* the first of them */
		sent += DMM_MAX(r, 1);
	}
	drop(&way->usual, usual);
	drop(&way->late, late);
	return DMM_MIN(due(&way->usual, 0), due(&way->late, 0));
}

/* --- life --- */

static int open_interface(const char *name)
{
	struct sockaddr_ll addr = { .sll_family = AF_PACKET,
				    .sll_protocol = htons(ETH_P_ALL),
				    .sll_ifindex = if_nametoindex(name) };
	const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), one = 1, room = RECV_ROOM;

	if (!addr.sll_ifindex || fd < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0 ||
	    bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		perror(name);
		exit(1);
	}
	return fd;
}

static void open_way(struct way *way, int in, int out, uint64_t seed)
{
	way->in = in;
	way->out = out;
	way->random = seed;
	way->usual.slots = calloc(SLOTS, sizeof(struct packet));
	way->late.slots = calloc(SLOTS, sizeof(struct packet));
	if (!way->usual.slots || !way->late.slots)
		abort();
}

static void on_term(int number)
{
	(void)number;
	stopped = 1;
}

static void carry(const sigset_t *waiting)
{
	struct pollfd fds[2] = { { .fd = b.ways[0].in, .events = POLLIN },
				 { .fd = b.ways[1].in, .events = POLLIN } };

	while (!stopped) {
		uint64_t now = dmm_now_ns();
		const uint64_t next = DMM_MIN(deliver(&b.ways[0], now), deliver(&b.ways[1], now));
		struct timespec wait = { 0 };

		now = dmm_now_ns();
		if (next > now)
			wait.tv_nsec = DMM_MIN(next - now, DMM_NS_PER_SEC - 1);
		if (ppoll(fds, 2, &wait, waiting) <= 0)
			continue;
		now = dmm_now_ns();
		for (unsigned int i = 0; i < 2; i++)
			if (fds[i].revents)
				receive(&b.ways[i], now);
	}
}

static void print_counts(const struct way *way)
{
	const struct counts *c = &way->counts;
	struct tpacket_stats stats = { 0 };
	socklen_t len = sizeof(stats);

	getsockopt(way->in, SOL_PACKET, PACKET_STATISTICS, &stats, &len);
	printf("{\"frames\": %lu, \"lost\": %lu, \"repeated\": %lu, \"damaged\": %lu, \"late\": %lu, "
	       "\"overflowed\": %lu, \"refused\": %lu, \"missed\": %u}\n",
	       c->frames, c->lost, c->repeated, c->damaged, c->late, c->overflowed, c->refused,
	       stats.tp_drops);
}

static bool parse(int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "r:d:q:l:u:c:o:s:")) > 0) {
		const uint64_t value = strtoull(optarg ? optarg : "", NULL, 10);

		switch (option) {
		case 'r':
			b.rate = value * 1000000 / 8;
			break;
		case 'd':
			b.delay = value * 1000;
			break;
		case 'q':
			b.queue = value * 1000;
			break;
		case 'l':
			b.lost = value;
			break;
		case 'u':
			b.repeated = value;
			break;
		case 'c':
			b.damaged = value;
			break;
		case 'o':
			b.late = value;
			break;
		case 's':
			b.seed = value;
			break;
		default:
			return false;
		}
	}
	return optind == argc - 2 && b.rate > 0;
}

int main(int argc, char **argv)
{
	sigset_t term, waiting;
	int ends[2];

	if (!parse(argc, argv)) {
		fprintf(stderr, "usage: badlink [-r Mbit/s] [-d us] [-q us] [-l N] [-u N] [-c N] "
				"[-o N] [-s seed] A B\n");
		return 2;
	}
	for (unsigned int i = 0; i < 2; i++)
		ends[i] = open_interface(argv[optind + i]);
	for (unsigned int i = 0; i < 2; i++)
		open_way(&b.ways[i], ends[i], ends[!i], b.seed * 2 + i);
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, &waiting); /* but in ppoll() */
	signal(SIGTERM, on_term);
	prctl(PR_SET_TIMERSLACK, 1);
	printf("ready\n");
	fflush(stdout);
	carry(&waiting);
	for (unsigned int i = 0; i < 2; i++)
		print_counts(&b.ways[i]);
	return 0;
}
