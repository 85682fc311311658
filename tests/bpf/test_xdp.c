/* SPDX-License-Identifier: Apache-2.0 */
/* The flow door, frame by frame: verdict, reason and counters of the real program by test runs, each
 * frame also cut at every length, and a million mutated ones (LONG=1: a hundred) compared with a reference
 * parser.
 *   SEED=n  TRIALS=n */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/util.h"
#include "pktio/xsk.h"
#include "policy/policy.h"

#include "bpfenv.h"
#include "packets.h"
#include "xdpref.h"

#include "bpf/steer.skel.h"

#define LO 1 /* test runs come in by lo */

#define CLIENT4 "10.77.0.2"
#define OWN4	"10.77.0.1"
#define CLIENT6 "fd77::2"
#define OWN6	"fd77::1"
#define OWN	20000 /* a TCP and a UDP port of the live instance */

/* One owner of a TCP port for each thing that may be wrong with it. */
static const struct owner {
	uint16_t port;
	uint32_t id;
	enum dmm_inst_state state;
	uint32_t ifindex;
	enum dmm_reason data, syn; /* what becomes of a frame for it */
} owners[] = {
	{ OWN, 3, DMM_INST_READY, LO, DMM_REASON_XDP_REDIRECT, DMM_REASON_XDP_REDIRECT },
	{ 20101, 4, DMM_INST_DRAINING, LO, DMM_REASON_XDP_REDIRECT, DMM_REASON_XDP_REDIRECT },
	{ 20102, 5, DMM_INST_READY, LO, DMM_REASON_XDP_REDIRECT, DMM_REASON_XDP_INST_STALE },
	{ 20103, 6, DMM_INST_STARTING, LO, DMM_REASON_XDP_INST_DEAD, DMM_REASON_XDP_INST_DEAD },
	{ 20104, 7, DMM_INST_DEAD, LO, DMM_REASON_XDP_INST_DEAD, DMM_REASON_XDP_INST_DEAD },
	{ 20105, 8, DMM_INST_FREE, LO, DMM_REASON_XDP_INST_DEAD, DMM_REASON_XDP_INST_DEAD },
	{ 20106, 9, DMM_INST_READY, 99, DMM_REASON_XDP_WRONG_IF, DMM_REASON_XDP_WRONG_IF },
};
#define STALE_OWNER 2

static struct bpfenv env;
static int xsk;
static struct dmm_inst_shared *pages[DMM_ARRAY_SIZE(owners)];
static struct pkt corpus[400];
static unsigned int n_corpus;

/* --- the world, for the reference --- */

static enum dmm_reason world_port(enum dmm_proto proto, uint16_t port, bool syn)
{
	unsigned int i;

	if (proto == DMM_PROTO_UDP)
		return port == OWN ? DMM_REASON_XDP_REDIRECT : DMM_REASON_XDP_KERNEL_PORT;
	for (i = 0; i < DMM_ARRAY_SIZE(owners); i++)
		if (owners[i].port == port)
			return syn ? owners[i].syn : owners[i].data;
	return DMM_REASON_XDP_KERNEL_PORT;
}

static const char *const unicast[] = { OWN4, OWN6, "10.77.0.3" };
static const char *const other[] = { "10.77.0.255", "fd77::" };

static bool one_of(const uint8_t *addr, const char *const *list, size_t n)
{
	while (n-- > 0) {
		struct dmm_addr a = bpfenv_addr(list[n]);

		if (memcmp(addr, a.b, 16) == 0)
			return true;
	}
	return false;
}

static bool world_unicast(const uint8_t *addr)
{
	return one_of(addr, unicast, DMM_ARRAY_SIZE(unicast));
}

static bool world_local(const uint8_t *addr)
{
	return world_unicast(addr) || one_of(addr, other, DMM_ARRAY_SIZE(other));
}

static const struct xdpref_world world = {
	.port = world_port,
	.is_local = world_local,
	.is_unicast = world_unicast,
};

/* --- the same world, in the maps --- */

static int open_xsk(void)
{
	struct dmm_xsk_request request = {
		.ifindex = LO,
		.n_queues = 1,
		.zerocopy = DMM_ZC_OFF,
		.frame_size = 2048,
		.frames_per_queue = 64,
	};
	struct dmm_handover_xsk desc;
	int umem_fd, fd, r;
	uint64_t size;

	r = dmm_xsk_create(&request, &umem_fd, &size, &fd, &desc);
	if (r < 0)
		fprintf(stderr, "AF_XDP socket on lo: %s\n", strerror(-r));
	return r < 0 ? r : fd;
}

/* Frames are only redirected to a slot that holds a socket. */
static void fill_slot(uint32_t id)
{
	uint32_t key = id * DMM_MAX_QUEUES;

	assert_int_equal(bpf_map_update_elem(bpfenv_map(&env, "dmm_xsks"), &key, &xsk, BPF_ANY), 0);
}

static void make_owner(unsigned int i)
{
	struct dmm_instance inst = {
		.state = owners[i].state,
		.incarnation = 1,
		.ifindex = owners[i].ifindex,
		.n_queues = 1,
		.port_first = owners[i].port,
		.port_last = owners[i].port,
	};

	bpfenv_set_instance(&env, owners[i].id, &inst);
	bpfenv_set_port(&env, DMM_PROTO_TCP, owners[i].port, DMM_PORT_RANGE, owners[i].id);
	pages[i] = bpfenv_make_shared(&env, owners[i].id);
}

static int setup(void **state)
{
	unsigned int i;

	(void)state;
	if (bpfenv_open(&env) < 0)
		return -1;
	xsk = open_xsk();
	if (xsk < 0)
		return -1;
	for (i = 0; i < DMM_ARRAY_SIZE(owners); i++) {
		make_owner(i);
		fill_slot(owners[i].id);
	}
	bpfenv_beat(pages[STALE_OWNER], env.config.stale_ms + 500);
	bpfenv_set_port(&env, DMM_PROTO_UDP, OWN, DMM_PORT_RANGE, owners[0].id);
	for (i = 0; i < DMM_ARRAY_SIZE(unicast); i++)
		bpfenv_set_local(&env, unicast[i], LO, DMM_LOCAL_UNICAST);
	for (i = 0; i < DMM_ARRAY_SIZE(other); i++)
		bpfenv_set_local(&env, other[i], LO, DMM_LOCAL_OTHER);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bpfenv_close(&env);
	return 0;
}

/* --- running a frame --- */

static uint32_t run_on_queue(const void *frame, size_t len, uint32_t queue)
{
	struct xdp_md ctx = {
		.data_end = len,
		.ingress_ifindex = LO,
		.rx_queue_index = queue,
	};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = len, .ctx_in = &ctx,
		    .ctx_size_in = sizeof(ctx));

	if (bpf_prog_test_run_opts(bpf_program__fd(env.steer->progs.dmm_xdp), &opts) < 0)
		fail_msg("test run of %zu bytes: %s", len, strerror(errno));
	return opts.retval;
}

static bool redirects(enum dmm_reason reason)
{
	return reason == DMM_REASON_XDP_REDIRECT || reason == DMM_REASON_XDP_FIRST_FRAG;
}

static uint32_t verdict_of(enum dmm_reason reason)
{
	return redirects(reason) ? XDP_REDIRECT : XDP_PASS;
}

static void read_counters(uint64_t *ret)
{
	int reason;

	for (reason = 0; reason < DMM_NUM_REASONS; reason++)
		ret[reason] = bpfenv_counter(&env, reason);
}

static void dump(const uint8_t *frame, size_t len)
{
	char text[PKT_MAX * 2 + 1] = "";
	size_t i;

	for (i = 0; i < len; i++)
		snprintf(text + 2 * i, 3, "%02x", frame[i]);
	print_message("# frame: %s\n", text);
}

static uint64_t seen[DMM_NUM_REASONS];

/* Runs @n frames and compares verdicts and the sum of the counters with the reference. */
static void compare(const struct pkt *frames, unsigned int n)
{
	uint64_t before[DMM_NUM_REASONS], after[DMM_NUM_REASONS];
	unsigned int i;
	int r;

	read_counters(before);
	for (i = 0; i < n; i++) {
		struct xdpref_result want = xdpref(&world, frames[i].data, frames[i].len);
		uint32_t got = run_on_queue(frames[i].data, frames[i].len, 0);

		if (got != verdict_of(want.reason)) {
			dump(frames[i].data, frames[i].len);
			fail_msg("verdict %u, not %u (reason %d)", got, verdict_of(want.reason),
				 want.reason);
		}
		before[want.reason]++;
		seen[want.reason]++;
	}
	read_counters(after);
	for (r = 0; r < DMM_NUM_REASONS; r++) {
		if (before[r] == after[r])
			continue;
		for (i = 0; n > 1 && i < n; i++)
			compare(&frames[i], 1); /* which one? */
		dump(frames[0].data, frames[0].len);
		fail_msg("reason %d counted %" PRIu64 " times, not %" PRIu64, r, after[r],
			 before[r]);
	}
}

/* The frame cut at every length. */
static void cut_everywhere(const struct pkt *p)
{
	static struct pkt cut[PKT_MAX];
	unsigned int n = 0;
	size_t len;

	for (len = ETH_HLEN; len <= p->len; len++) {
		cut[n] = *p;
		cut[n++].len = len;
	}
	compare(cut, n);
}

/* The frame ends with that reason, and counts as it should. Destroys @p. */
static void expect(struct pkt *p, enum dmm_reason reason)
{
	uint64_t before = bpfenv_counter(&env, reason);
	struct xdpref_result ref;
	uint32_t verdict;

	pkt_end(p);
	verdict = run_on_queue(p->data, p->len, 0);
	if (bpfenv_counter(&env, reason) != before + 1 || verdict != verdict_of(reason)) {
		dump(p->data, p->len);
		fail_msg("verdict %u, or not reason %d", verdict, reason);
	}
	ref = xdpref(&world, p->data, p->len);
	assert_int_equal(ref.reason, reason);
	cut_everywhere(p);
	assert_true(n_corpus < DMM_ARRAY_SIZE(corpus));
	corpus[n_corpus++] = *p;
	*p = (struct pkt){ 0 };
}

/* --- frames --- */

static void tcp4(struct pkt *p, const char *source, const char *dest, uint16_t port, uint8_t flags)
{
	pkt_eth(p, ETH_P_IP);
	pkt_ipv4(p, source, dest, 0, 0);
	pkt_tcp(p, 80, port, flags);
}

static void tcp6(struct pkt *p, const char *source, const char *dest, uint16_t port, uint8_t flags)
{
	pkt_eth(p, ETH_P_IPV6);
	pkt_ipv6(p, source, dest);
	pkt_tcp(p, 80, port, flags);
}

static void ports_of_the_kernel_pass(void **state)
{
	struct pkt p = { 0 };

	(void)state;
	tcp4(&p, CLIENT4, OWN4, 22, PKT_SYN);
	expect(&p, DMM_REASON_XDP_KERNEL_PORT);
	tcp6(&p, CLIENT6, OWN6, 22, PKT_ACK);
	expect(&p, DMM_REASON_XDP_KERNEL_PORT);
	/* whoever it comes from */
	tcp4(&p, OWN4, OWN4, 22, PKT_SYN);
	expect(&p, DMM_REASON_XDP_KERNEL_PORT);
	pkt_eth(&p, ETH_P_IP);
	pkt_ipv4(&p, CLIENT4, OWN4, 0, 0);
	pkt_udp(&p, 53, 20101);
	expect(&p, DMM_REASON_XDP_KERNEL_PORT);
}

static void ports_of_an_instance_are_redirected(void **state)
{
	struct dmm_inst_stats before, after;
	struct pkt p = { 0 };
	size_t len;

	(void)state;
	tcp4(&p, CLIENT4, OWN4, OWN, PKT_ACK);
	pkt_bytes(&p, 100);
	pkt_end(&p);
	len = p.len;
	bpfenv_inst_stats(&env, owners[0].id, &before);
	assert_int_equal(run_on_queue(p.data, p.len, 0), XDP_REDIRECT);
	bpfenv_inst_stats(&env, owners[0].id, &after);
	assert_int_equal(after.packets, before.packets + 1);
	assert_int_equal(after.bytes, before.bytes + len);
	expect(&p, DMM_REASON_XDP_REDIRECT);

	tcp6(&p, CLIENT6, OWN6, OWN, PKT_ACK);
	expect(&p, DMM_REASON_XDP_REDIRECT);
	tcp4(&p, CLIENT4, "10.77.0.3", OWN, PKT_SYN);
	expect(&p, DMM_REASON_XDP_REDIRECT);
	pkt_eth(&p, ETH_P_IP);
	pkt_ipv4(&p, CLIENT4, OWN4, 40, 0);
	pkt_tcp(&p, 80, OWN, PKT_RST);
	expect(&p, DMM_REASON_XDP_REDIRECT);
	pkt_eth(&p, ETH_P_IPV6);
	pkt_ipv6(&p, CLIENT6, OWN6);
	pkt_udp(&p, 53, OWN);
	pkt_bytes(&p, 20);
	expect(&p, DMM_REASON_XDP_REDIRECT);
}

static void the_owners_state_decides(void **state)
{
	struct pkt p = { 0 };
	unsigned int i;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(owners); i++) {
		tcp4(&p, CLIENT4, OWN4, owners[i].port, PKT_SYN);
		expect(&p, owners[i].syn);
		tcp6(&p, CLIENT6, OWN6, owners[i].port, PKT_ACK);
		expect(&p, owners[i].data);
		/* only a bare SYN is a new flow */
		tcp4(&p, CLIENT4, OWN4, owners[i].port, PKT_SYN | PKT_ACK);
		expect(&p, owners[i].data);
		tcp4(&p, CLIENT4, OWN4, owners[i].port, PKT_RST);
		expect(&p, owners[i].data);
	}
}

static void a_slot_without_socket_passes(void **state)
{
	int xsks = bpfenv_map(&env, "dmm_xsks");
	uint32_t key = owners[0].id * DMM_MAX_QUEUES;
	uint64_t before = bpfenv_counter(&env, DMM_REASON_XDP_INST_DEAD);
	struct pkt p = { 0 };

	(void)state;
	assert_int_equal(bpf_map_delete_elem(xsks, &key), 0);
	tcp4(&p, CLIENT4, OWN4, OWN, PKT_ACK);
	pkt_end(&p);
	assert_int_equal(run_on_queue(p.data, p.len, 0), XDP_PASS);
	assert_int_equal(bpfenv_counter(&env, DMM_REASON_XDP_INST_DEAD), before + 1);
	fill_slot(owners[0].id);
	assert_int_equal(run_on_queue(p.data, p.len, 0), XDP_REDIRECT);
}

static void illegal_sources_pass(void **state)
{
	static const char *const bad4[] = {
		"0.0.0.0",   "0.1.2.3", "127.0.0.1", "224.0.0.1",   "239.255.255.255",
		"240.0.0.1", OWN4,	"10.77.0.3", "10.77.0.255", "255.255.255.255"
	};
	static const char *const bad6[] = { "::",	   "::1",     "::ffff:10.77.0.2",
					    "::10.77.0.2", "ff02::1", "ff0e::5",
					    OWN6,	   "fd77::" };
	static const char *const good4[] = { "1.0.0.0", "126.255.255.255", "128.0.0.1",
					     "223.255.255.255" };
	static const char *const good6[] = { "fe80::1", "::1:0:0:0", "::fffe:0:0", "fe00::" };
	struct pkt p = { 0 };
	unsigned int i;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(bad4); i++) {
		tcp4(&p, bad4[i], OWN4, OWN, PKT_SYN);
		expect(&p, DMM_REASON_XDP_BAD_SOURCE);
	}
	for (i = 0; i < DMM_ARRAY_SIZE(bad6); i++) {
		tcp6(&p, bad6[i], OWN6, OWN, PKT_SYN);
		expect(&p, DMM_REASON_XDP_BAD_SOURCE);
	}
	for (i = 0; i < DMM_ARRAY_SIZE(good4); i++) {
		tcp4(&p, good4[i], OWN4, OWN, PKT_SYN);
		expect(&p, DMM_REASON_XDP_REDIRECT);
	}
	for (i = 0; i < DMM_ARRAY_SIZE(good6); i++) {
		tcp6(&p, good6[i], OWN6, OWN, PKT_SYN);
		expect(&p, DMM_REASON_XDP_REDIRECT);
	}
}

static void what_is_not_for_us_passes(void **state)
{
	static const char *const not4[] = { CLIENT4, "10.77.0.255", "255.255.255.255", "224.0.0.1",
					    "127.0.0.1" };
	static const char *const not6[] = { CLIENT6, "fd77::", "ff02::1", "::1",
					    "::ffff:10.77.0.9" };
	struct pkt p = { 0 };
	unsigned int i;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(not4); i++) {
		tcp4(&p, "10.77.0.4", not4[i], OWN, PKT_ACK);
		expect(&p, DMM_REASON_XDP_NOT_OURS);
	}
	for (i = 0; i < DMM_ARRAY_SIZE(not6); i++) {
		tcp6(&p, "fd77::4", not6[i], OWN, PKT_ACK);
		expect(&p, DMM_REASON_XDP_NOT_OURS);
	}
}

static void other_ethertypes_pass(void **state)
{
	struct pkt p = { 0 };

	(void)state;
	pkt_eth(&p, ETH_P_ARP);
	pkt_bytes(&p, 28);
	expect(&p, DMM_REASON_XDP_NOT_IP);
	pkt_eth(&p, ETH_P_8021Q);
	pkt_vlan(&p, ETH_P_IP);
	pkt_ipv4(&p, CLIENT4, OWN4, 0, 0);
	pkt_tcp(&p, 80, OWN, PKT_ACK);
	expect(&p, DMM_REASON_XDP_VLAN);
	pkt_eth(&p, ETH_P_8021AD);
	pkt_vlan(&p, ETH_P_IPV6);
	pkt_ipv6(&p, CLIENT6, OWN6);
	pkt_tcp(&p, 80, OWN, PKT_ACK);
	expect(&p, DMM_REASON_XDP_VLAN);
	/* IP of the wrong version */
	pkt_eth(&p, ETH_P_IPV6);
	pkt_ipv4(&p, CLIENT4, OWN4, 20, 0);
	pkt_tcp(&p, 80, OWN, PKT_ACK);
	expect(&p, DMM_REASON_XDP_NOT_IP);
	pkt_eth(&p, ETH_P_IP);
	pkt_ipv6(&p, CLIENT6, OWN6);
	pkt_tcp(&p, 80, OWN, PKT_ACK);
	expect(&p, DMM_REASON_XDP_NOT_IP);
}

static void fragments(void **state)
{
	struct pkt p = { 0 };

	(void)state;
	pkt_eth(&p, ETH_P_IP);
	pkt_ipv4(&p, CLIENT4, OWN4, 0, 0x2000);
	pkt_tcp(&p, 80, OWN, PKT_ACK);
	pkt_bytes(&p, 4);
	expect(&p, DMM_REASON_XDP_FIRST_FRAG);
	/* so small that the TCP header is cut: still ours, the instance drops it */
	pkt_eth(&p, ETH_P_IP);
	pkt_ipv4(&p, CLIENT4, OWN4, 0, 0x2000);
	pkt_udp(&p, 80, OWN);
	expect(&p, DMM_REASON_XDP_FIRST_FRAG);
	pkt_eth(&p, ETH_P_IP);
	pkt_ipv4(&p, CLIENT4, OWN4, 4, 0x2000 | 185);
	pkt_tcp(&p, 80, OWN, PKT_ACK);
	expect(&p, DMM_REASON_XDP_FRAGMENT);
	pkt_eth(&p, ETH_P_IP);
	pkt_ipv4(&p, CLIENT4, OWN4, 0, 1);
	pkt_tcp(&p, 80, OWN, PKT_ACK);
	expect(&p, DMM_REASON_XDP_FRAGMENT);
	/* don't fragment is no fragment */
	pkt_eth(&p, ETH_P_IP);
	pkt_ipv4(&p, CLIENT4, OWN4, 0, 0x4000);
	pkt_tcp(&p, 80, OWN, PKT_ACK);
	expect(&p, DMM_REASON_XDP_REDIRECT);

	pkt_eth(&p, ETH_P_IPV6);
	pkt_ipv6(&p, CLIENT6, OWN6);
	pkt_fragment(&p, 0, 1);
	pkt_tcp(&p, 80, OWN, PKT_ACK);
	expect(&p, DMM_REASON_XDP_FIRST_FRAG);
	pkt_eth(&p, ETH_P_IPV6);
	pkt_ipv6(&p, CLIENT6, OWN6);
	pkt_fragment(&p, 0, 0); /* atomic */
	pkt_tcp(&p, 80, OWN, PKT_ACK);
	expect(&p, DMM_REASON_XDP_REDIRECT);
	pkt_eth(&p, ETH_P_IPV6);
	pkt_ipv6(&p, CLIENT6, OWN6);
	pkt_fragment(&p, 1, 0);
	pkt_tcp(&p, 80, OWN, PKT_ACK);
	expect(&p, DMM_REASON_XDP_FRAGMENT);
}

/* Chains of extension headers: each order of the five kinds, then up to and beyond the limit. */
static const uint8_t kinds[] = { IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_FRAGMENT, IPPROTO_AH,
				 IPPROTO_DSTOPTS };
#define KINDS DMM_ARRAY_SIZE(kinds)

static void add_kind(struct pkt *p, unsigned int kind)
{
	if (kinds[kind] == IPPROTO_FRAGMENT)
		pkt_fragment(p, 0, 0);
	else
		pkt_ext(p, kinds[kind], kinds[kind] == IPPROTO_AH ? 12 : 16);
}

static void extension_headers_in_every_order(void **state)
{
	unsigned int order, i;
	struct pkt p = { 0 };

	(void)state;
	for (order = 0; order < 120; order++) {
		unsigned int left[KINDS] = { 0, 1, 2, 3, 4 }, rest = order;

		pkt_eth(&p, ETH_P_IPV6);
		pkt_ipv6(&p, CLIENT6, OWN6);
		for (i = KINDS; i > 0; rest /= i, i--) {
			unsigned int pick = rest % i;

			add_kind(&p, left[pick]);
			left[pick] = left[i - 1];
		}
		pkt_tcp(&p, 80, OWN, PKT_ACK);
		expect(&p, DMM_REASON_XDP_REDIRECT);
	}
}

static void extension_headers_up_to_the_limit(void **state)
{
	unsigned int n, i, kind;
	struct pkt p = { 0 };

	(void)state;
	for (kind = 0; kind < KINDS; kind++) {
		for (n = 0; n <= 8; n++) {
			pkt_eth(&p, ETH_P_IPV6);
			pkt_ipv6(&p, CLIENT6, OWN6);
			for (i = 0; i < n; i++)
				add_kind(&p, kind);
			pkt_tcp(&p, 80, OWN, PKT_ACK);
			expect(&p, n <= 6 ? DMM_REASON_XDP_REDIRECT : DMM_REASON_XDP_EXT_HEADER);
		}
	}
}

/* --- ICMP --- */

static void icmp4(struct pkt *p, uint8_t type, const char *quoted, uint16_t port)
{
	pkt_eth(p, ETH_P_IP);
	pkt_ipv4(p, "10.9.9.9", OWN4, 0, 0); /* a router */
	pkt_icmp(p, type, 0);
	pkt_ipv4(p, quoted, CLIENT4, 4, 0);
	pkt_tcp(p, port, 80, PKT_ACK);
}

static void icmp6(struct pkt *p, uint8_t type, const char *quoted, uint16_t port)
{
	pkt_eth(p, ETH_P_IPV6);
	pkt_ipv6(p, "fd99::9", OWN6);
	pkt_icmpv6(p, type, 0);
	pkt_ipv6(p, quoted, CLIENT6);
	pkt_ext(p, IPPROTO_DSTOPTS, 8);
	pkt_tcp(p, port, 80, PKT_ACK);
}

static void icmp_errors_follow_the_quoted_port(void **state)
{
	struct pkt p = { 0 };
	unsigned int type;

	(void)state;
	for (type = 0; type <= 20; type++) {
		bool error = type == 3 || type == 11 || type == 12;

		icmp4(&p, type, OWN4, OWN);
		expect(&p, error ? DMM_REASON_XDP_REDIRECT : DMM_REASON_XDP_NOT_TRANSPORT);
	}
	for (type = 0; type <= 5; type++) {
		icmp6(&p, type, OWN6, OWN);
		expect(&p, type ? DMM_REASON_XDP_REDIRECT : DMM_REASON_XDP_NOT_TRANSPORT);
	}
	for (type = 127; type <= 137; type++) {
		icmp6(&p, type, OWN6, OWN);
		expect(&p, type < 128 ? DMM_REASON_XDP_REDIRECT : DMM_REASON_XDP_NOT_TRANSPORT);
	}
	/* stale heartbeats turn away new flows only */
	icmp4(&p, 3, OWN4, owners[STALE_OWNER].port);
	expect(&p, DMM_REASON_XDP_REDIRECT);
}

static void icmp_errors_about_others_pass(void **state)
{
	struct pkt p = { 0 };

	(void)state;
	icmp4(&p, 3, OWN4, 40000);
	expect(&p, DMM_REASON_XDP_KERNEL_PORT);
	icmp6(&p, 1, OWN6, 40000);
	expect(&p, DMM_REASON_XDP_KERNEL_PORT);
	/* a packet that we did not send, or could not have */
	icmp4(&p, 3, CLIENT4, OWN);
	expect(&p, DMM_REASON_XDP_NOT_OURS);
	icmp4(&p, 3, "10.77.0.255", OWN);
	expect(&p, DMM_REASON_XDP_NOT_OURS);
	icmp6(&p, 1, CLIENT6, OWN);
	expect(&p, DMM_REASON_XDP_NOT_OURS);
	/* the port of the other side does not count */
	pkt_eth(&p, ETH_P_IP);
	pkt_ipv4(&p, "10.9.9.9", OWN4, 0, 0);
	pkt_icmp(&p, 3, 1);
	pkt_ipv4(&p, OWN4, CLIENT4, 0, 0);
	pkt_tcp(&p, 80, OWN, PKT_ACK);
	expect(&p, DMM_REASON_XDP_KERNEL_PORT);
	/* a later fragment has no port */
	pkt_eth(&p, ETH_P_IP);
	pkt_ipv4(&p, "10.9.9.9", OWN4, 0, 0);
	pkt_icmp(&p, 3, 1);
	pkt_ipv4(&p, OWN4, CLIENT4, 0, 9);
	pkt_tcp(&p, OWN, 80, PKT_ACK);
	expect(&p, DMM_REASON_XDP_FRAGMENT);
	/* an error about an error, another transport, v6 in v4 */
	pkt_eth(&p, ETH_P_IP);
	pkt_ipv4(&p, "10.9.9.9", OWN4, 0, 0);
	pkt_icmp(&p, 3, 1);
	pkt_ipv4(&p, OWN4, CLIENT4, 0, 0);
	pkt_icmp(&p, 3, 1);
	pkt_bytes(&p, 20);
	expect(&p, DMM_REASON_XDP_NOT_TRANSPORT);
	pkt_eth(&p, ETH_P_IP);
	pkt_ipv4(&p, "10.9.9.9", OWN4, 0, 0);
	pkt_proto(&p, IPPROTO_SCTP, 20);
	expect(&p, DMM_REASON_XDP_NOT_TRANSPORT);
	pkt_eth(&p, ETH_P_IP);
	pkt_ipv4(&p, "10.9.9.9", OWN4, 0, 0);
	pkt_proto(&p, IPPROTO_ICMPV6, 60);
	expect(&p, DMM_REASON_XDP_NOT_TRANSPORT);
}

/* --- mutations --- */

static uint64_t rng;

static uint32_t random32(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng >> 16;
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

/* A few bytes changed, mostly in the headers, often to values that mean something there. */
static void mutate(struct pkt *p)
{
	static const uint8_t telling[] = { 0,	 1,    6,    17,	43,	  44,	51,
					   58,	 60,   0x40, 0x45,	0x4f,	  0x60, 0x02,
					   0x12, 0x7f, 0xff, 0x20,	0x80,	  0x81, 0x00,
					   0x08, 0x86, 0xdd, OWN / 256, OWN % 256 };
	unsigned int n = random32() % 4;

	while (n-- > 0) {
		size_t at = random32() % 3 ? 12 + random32() % 60 : random32() % p->len;

		if (at >= p->len)
			continue;
		if (random32() % 2)
			p->data[at] = telling[random32() % sizeof(telling)];
		else
			p->data[at] = random32();
	}
	if (random32() % 4 == 0)
		p->len = ETH_HLEN + random32() % (p->len - ETH_HLEN + 1);
}

static void mutated_frames_match_the_reference(void **state)
{
	uint64_t trials = number_of("TRIALS", number_of("LONG", 0) ? 100000000 : 1000000), done;
	uint64_t seed = number_of("SEED", 1);
	static struct pkt batch[1000];
	uint64_t start = dmm_now_ns();
	unsigned int i;

	(void)state;
	assert_true(n_corpus > 200);
	memset(seen, 0, sizeof(seen));
	rng = seed * 2654435761u + 1;
	for (done = 0; done < trials; done += DMM_ARRAY_SIZE(batch)) {
		for (i = 0; i < DMM_ARRAY_SIZE(batch); i++) {
			batch[i] = corpus[random32() % n_corpus];
			mutate(&batch[i]);
		}
		compare(batch, DMM_ARRAY_SIZE(batch));
	}
	/* a mutation that only ever gives one answer would prove nothing */
	for (i = DMM_REASON_XDP_NOT_IP; i <= DMM_REASON_XDP_FIRST_FRAG; i++)
		assert_true(seen[i] > done / 20000);
	print_message("# %" PRIu64 " frames from seed %" PRIu64 " compared in %.1f s\n", done, seed,
		      (dmm_now_ns() - start) / 1e9);
}

static int run(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ports_of_the_kernel_pass),
		cmocka_unit_test(ports_of_an_instance_are_redirected),
		cmocka_unit_test(the_owners_state_decides),
		cmocka_unit_test(a_slot_without_socket_passes),
		cmocka_unit_test(illegal_sources_pass),
		cmocka_unit_test(what_is_not_for_us_passes),
		cmocka_unit_test(other_ethertypes_pass),
		cmocka_unit_test(fragments),
		cmocka_unit_test(extension_headers_in_every_order),
		cmocka_unit_test(extension_headers_up_to_the_limit),
		cmocka_unit_test(icmp_errors_follow_the_quoted_port),
		cmocka_unit_test(icmp_errors_about_others_pass),
		/* last: it mutates the frames of the others */
		cmocka_unit_test(mutated_frames_match_the_reference),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

int main(void)
{
	return bpfenv_main(run, NULL);
}
