/* SPDX-License-Identifier: Apache-2.0 */
/* The filter on lo, segment by segment, by test runs of the real program: what is a steered SYN is for
 * test_sock_hold.c, since the sender of a test run is a dummy; here, that everything else passes, cut
 * at every length too, and which resets do not. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include "base/util.h"

#include "bpfenv.h"
#include "packets.h"

#include "bpf/relay.skel.h"

#define TC_ACT_UNSPEC UINT32_MAX
#define TC_ACT_SHOT   2
#define PKT_FIN	      0x01

static const char *const loopback[] = { "127.0.0.1", "::1" };

static struct bpfenv env;

/* A connection over loopback, as a relay leg is one: the listener's side and the application's. */
struct leg {
	bool v6;
	int relay, app;
	uint16_t relay_port, app_port;
};

static uint16_t port_of(int fd)
{
	struct sockaddr_in6 sin6;
	socklen_t len = sizeof(sin6);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin6, &len), 0);
	return ntohs(sin6.sin6_port); /* at the same place in sockaddr_in */
}

static struct leg make_leg(bool v6)
{
	int family = v6 ? AF_INET6 : AF_INET, listener = socket(family, SOCK_STREAM, 0);
	struct sockaddr_storage sa = { .ss_family = family };
	socklen_t len = sizeof(sa);
	struct leg leg = { .v6 = v6, .app = socket(family, SOCK_STREAM, 0) };

	inet_pton(family, loopback[v6],
		  v6 ? (void *)&((struct sockaddr_in6 *)&sa)->sin6_addr
		     : (void *)&((struct sockaddr_in *)&sa)->sin_addr);
	assert_int_equal(bind(listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&sa, &len), 0);
	assert_int_equal(connect(leg.app, (struct sockaddr *)&sa, len), 0);
	leg.relay = accept(listener, NULL, NULL);
	assert_true(leg.relay >= 0);
	close(listener);
	leg.relay_port = port_of(leg.relay);
	leg.app_port = port_of(leg.app);
	return leg;
}

static void close_leg(struct leg *leg)
{
	close(leg->relay);
	close(leg->app);
}

/* What the sockops program does for a steered connect(). */
static void enter_tuple(const struct leg *leg)
{
	struct dmm_addr addr = bpfenv_addr(loopback[leg->v6]);
	struct dmm_tuple key = { .app_port = htons(leg->app_port),
				 .relay_port = htons(leg->relay_port) };
	struct dmm_peer peer = { 0 };

	memcpy(key.app, addr.b, 16);
	memcpy(key.relay, addr.b, 16);
	assert_int_equal(bpf_map_update_elem(bpfenv_map(&env, "dmm_tuples"), &key, &peer, BPF_ANY),
			 0);
}

/* --- segments --- */

static void make_segment(struct pkt *p, bool v6, size_t options, uint16_t source, uint16_t dest,
			 uint8_t flags)
{
	*p = (struct pkt){ 0 };
	pkt_eth(p, v6 ? ETH_P_IPV6 : ETH_P_IP);
	if (v6)
		pkt_ipv6(p, loopback[1], loopback[1]);
	else
		pkt_ipv4(p, loopback[0], loopback[0], options, 0);
	pkt_tcp(p, source, dest, flags);
	pkt_end(p);
}

/* A SYN behind the extension headers that the filter looks behind, and more of them. */
static void make_syn_behind(struct pkt *p, unsigned int n, size_t len)
{
	*p = (struct pkt){ 0 };
	pkt_eth(p, ETH_P_IPV6);
	pkt_ipv6(p, loopback[1], loopback[1]);
	for (unsigned int i = 0; i < n; i++)
		pkt_ext(p, i ? IPPROTO_DSTOPTS : IPPROTO_HOPOPTS, len);
	pkt_tcp(p, 4000, 5000, PKT_SYN);
	pkt_end(p);
}

/* A segment of the listener's side. */
static void from_relay(struct pkt *p, const struct leg *leg, size_t options, uint8_t flags)
{
	make_segment(p, leg->v6, options, leg->relay_port, leg->app_port, flags);
}

static uint32_t run(const struct pkt *p, size_t len)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = p->data, .data_size_in = len);

	if (bpf_prog_test_run_opts(bpf_program__fd(env.relay->progs.dmm_lo), &opts) < 0)
		fail_msg("test run of %zu bytes: %s", len, strerror(errno));
	return opts.retval;
}

static uint64_t all_counters(void)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < DMM_NUM_REASONS; i++)
		sum += bpfenv_counter(&env, i);
	return sum;
}

/* It passes, however much of it is there, and nothing is counted. */
static void expect_pass(const struct pkt *p, size_t from, size_t to)
{
	uint64_t before = all_counters();

	for (size_t len = from; len <= to; len++)
		if (run(p, len) != TC_ACT_UNSPEC)
			fail_msg("%zu of %zu bytes did not pass", len, p->len);
	assert_int_equal(all_counters(), before);
}

/* The kernel's test run wants the Ethernet and, of the two IP versions, the IP header whole. */
static size_t least(bool v6)
{
	return ETH_HLEN + (v6 ? 40 : 20);
}

static void expect_dropped(const struct pkt *p)
{
	uint64_t before = bpfenv_counter(&env, DMM_REASON_FALSE_RESET), all = all_counters();

	assert_int_equal(run(p, p->len), TC_ACT_SHOT);
	assert_int_equal(bpfenv_counter(&env, DMM_REASON_FALSE_RESET), before + 1);
	assert_int_equal(all_counters(), all + 1);
}

/* --- tests --- */

static void segments_of_others_pass(void **state)
{
	static const uint8_t flags[] = { PKT_SYN,	    PKT_SYN | PKT_ACK, PKT_ACK,
					 PKT_FIN | PKT_ACK, PKT_RST,	       PKT_RST | PKT_ACK };
	static const size_t options[] = { 0, 4, 40 };
	struct pkt p;

	(void)state;
	for (unsigned int i = 0; i < DMM_ARRAY_SIZE(flags); i++) {
		for (unsigned int k = 0; k < DMM_ARRAY_SIZE(options); k++) {
			make_segment(&p, false, options[k], 4000, 5000, flags[i]);
			expect_pass(&p, least(false), p.len);
		}
		make_segment(&p, true, 0, 4000, 5000, flags[i]);
		expect_pass(&p, least(true), p.len);
	}
	for (unsigned int n = 1; n < 6; n++) {
		make_syn_behind(&p, n, n & 1 ? 8 : 24);
		expect_pass(&p, least(true), p.len);
	}
}

static void what_is_not_tcp_passes(void **state)
{
	struct pkt p = { 0 };

	(void)state;
	pkt_eth(&p, ETH_P_ARP);
	pkt_bytes(&p, 60);
	expect_pass(&p, ETH_HLEN, p.len);
	p = (struct pkt){ 0 };
	pkt_eth(&p, ETH_P_IP);
	pkt_ipv4(&p, loopback[0], loopback[0], 0, 0);
	pkt_udp(&p, 53, 53);
	pkt_bytes(&p, 40);
	pkt_end(&p);
	expect_pass(&p, least(false), p.len);
	p = (struct pkt){ 0 };
	pkt_eth(&p, ETH_P_IPV6);
	pkt_ipv6(&p, loopback[1], loopback[1]);
	pkt_icmpv6(&p, 128, 0);
	pkt_bytes(&p, 40);
	pkt_end(&p);
	expect_pass(&p, least(true), p.len);
}

/* --- on lo itself, where frames may be shorter than a test run takes them --- */

static int open_packet(uint16_t protocol)
{
	struct sockaddr_ll lo = { .sll_family = AF_PACKET,
				  .sll_protocol = htons(protocol),
				  .sll_ifindex = 1 };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), one = 1;

	assert_true(fd >= 0);
	setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one));
	assert_int_equal(bind(fd, (struct sockaddr *)&lo, sizeof(lo)), 0);
	return fd;
}

/* 0, or the error of a frame that was dropped. */
static int send_frame(int fd, const struct pkt *p, size_t len)
{
	struct sockaddr_ll lo = { .sll_family = AF_PACKET, .sll_ifindex = 1 };

	memcpy(&lo.sll_protocol, p->data + 12, 2);
	return sendto(fd, p->data, len, 0, (struct sockaddr *)&lo, sizeof(lo)) < 0 ? errno : 0;
}

/* It arrives, whatever else does. */
static void expect_frame(int fd, const struct pkt *p, size_t len)
{
	struct pollfd in = { .fd = fd, .events = POLLIN };
	uint8_t got[PKT_MAX];

	while (poll(&in, 1, 5000) == 1)
		if (recv(fd, got, sizeof(got), 0) == (ssize_t)len && !memcmp(got, p->data, len))
			return;
	fail_msg("%zu of %zu bytes did not pass", len, p->len);
}

static void a_frame_of_any_length_passes(void **state)
{
	int from = open_packet(0), to = open_packet(ETH_P_ALL);
	uint64_t before = all_counters();
	struct pkt p;

	(void)state;
	bpfenv_attach_lo(&env);
	for (int v6 = 0; v6 < 2; v6++) {
		struct leg leg = make_leg(v6);

		enter_tuple(&leg);
		for (unsigned int flags = PKT_FIN; flags <= PKT_ACK; flags <<= 1) {
			from_relay(&p, &leg, 0, flags);
			for (size_t len = ETH_HLEN; len < p.len; len++) {
				assert_int_equal(send_frame(from, &p, len), 0);
				expect_frame(to, &p, len);
			}
		}
		assert_int_equal(all_counters(), before);
		/* the filter has seen them: it drops the whole one */
		from_relay(&p, &leg, 0, PKT_RST);
		assert_int_equal(send_frame(from, &p, p.len), ENOBUFS);
		assert_int_equal(all_counters(), ++before);
		close_leg(&leg);
	}
	close(from);
	close(to);
}

/* The listener reset what stands: dropped, so that TCP goes on. A cut one is no such reset. */
static void a_false_reset_is_dropped(void **state)
{
	static const size_t options[] = { 0, 4, 40 };
	struct pkt p;

	(void)state;
	for (int v6 = 0; v6 < 2; v6++) {
		struct leg leg = make_leg(v6);

		enter_tuple(&leg);
		for (unsigned int i = 0; i < (v6 ? 1 : DMM_ARRAY_SIZE(options)); i++) {
			from_relay(&p, &leg, options[i], PKT_RST);
			expect_dropped(&p);
			expect_pass(&p, least(v6), p.len - 1);
			from_relay(&p, &leg, options[i], PKT_RST | PKT_ACK);
			expect_dropped(&p);
			/* everything else that this side sends */
			from_relay(&p, &leg, options[i], PKT_ACK);
			expect_pass(&p, least(v6), p.len);
			from_relay(&p, &leg, options[i], PKT_FIN | PKT_ACK);
			expect_pass(&p, least(v6), p.len);
		}
		/* the application's own reset is none of the listener's */
		make_segment(&p, v6, 0, leg.app_port, leg.relay_port, PKT_RST);
		expect_pass(&p, p.len, p.len);
		close_leg(&leg);
	}
}

static void a_reset_of_an_unknown_leg_passes(void **state)
{
	struct pkt p;

	(void)state;
	for (int v6 = 0; v6 < 2; v6++) {
		struct leg leg = make_leg(v6);

		from_relay(&p, &leg, 0, PKT_RST);
		expect_pass(&p, p.len, p.len);
		close_leg(&leg);
	}
}

static void await_state(int fd, uint8_t want)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	for (unsigned int i = 0; i < 500 && info.tcpi_state != want; i++) {
		usleep(i ? 10000 : 0);
		assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	}
	assert_int_equal(info.tcpi_state, want);
}

/* One side has said goodbye, by FIN or by leaving: its resets are meant. */
static void a_true_reset_passes(void **state)
{
	struct pkt p;

	(void)state;
	for (int v6 = 0; v6 < 2; v6++) {
		struct linger reset = { .l_onoff = 1 };
		struct leg leg = make_leg(v6);

		enter_tuple(&leg);
		from_relay(&p, &leg, 0, PKT_RST);
		assert_int_equal(shutdown(leg.app, SHUT_WR), 0);
		await_state(leg.relay, TCP_CLOSE_WAIT);
		expect_pass(&p, p.len, p.len);
		close_leg(&leg);

		leg = make_leg(v6);
		enter_tuple(&leg);
		from_relay(&p, &leg, 0, PKT_RST);
		assert_int_equal(shutdown(leg.relay, SHUT_WR), 0);
		await_state(leg.relay, TCP_FIN_WAIT2);
		expect_pass(&p, p.len, p.len);
		setsockopt(leg.relay, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(leg.relay);
		expect_pass(&p, p.len, p.len); /* gone */
		close(leg.app);
	}
}

static int open_env(void **state)
{
	(void)state;
	return bpfenv_open(&env);
}

static int close_env(void **state)
{
	(void)state;
	bpfenv_close(&env);
	return 0;
}

static int run_all(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(segments_of_others_pass),
		cmocka_unit_test(what_is_not_tcp_passes),
		cmocka_unit_test(a_false_reset_is_dropped),
		cmocka_unit_test(a_reset_of_an_unknown_leg_passes),
		cmocka_unit_test(a_true_reset_passes),
		cmocka_unit_test(a_frame_of_any_length_passes), /* attaches: the last */
	};

	return cmocka_run_group_tests(tests, open_env, close_env);
}

int main(void)
{
	return bpfenv_main(run_all, NULL);
}
