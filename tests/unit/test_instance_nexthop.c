/* SPDX-License-Identifier: Apache-2.0 */
/* Next hops and the link layer against the kernel's real tables: a veth pair, addresses, routes and
 * neighbours in a network namespace of the test's own, made without privilege in a user namespace.
 * Frames go through the memory backend. */
#define _GNU_SOURCE
#include "instance/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <libmnl/libmnl.h>

#include "base/clock.h"
#include "base/hostsock.h"
#include "base/util.h"
#include "pktio/mem.h"

struct rig {
	struct mirror mirror;
	struct nexthops nexthops;
	struct link link;
	struct dmm_pktio *wire; /* the other end of the link's packet I/O */
	struct dmm_inst_shared *shared;
	unsigned int n_failed, n_interface;
	struct dmm_frame got[DMM_PKTIO_BATCH];
	uint8_t got_data[2048];
	unsigned int n_got, n_icmp;
};

static void on_neighbour(void *ctx, const struct mirror_neighbour *n)
{
	nexthop_on_neighbour(&((struct rig *)ctx)->nexthops, n);
}

static void on_routes(void *ctx)
{
	nexthop_on_routes(&((struct rig *)ctx)->nexthops);
}

static void on_interface(void *ctx)
{
	((struct rig *)ctx)->n_interface++;
}

static void on_lost(void *ctx)
{
	nexthop_on_lost(&((struct rig *)ctx)->nexthops);
}

static void on_resolved(void *ctx, struct neighbour *n)
{
	link_on_resolved(&((struct rig *)ctx)->link, n);
}

static void on_dropped(void *ctx, struct neighbour *n)
{
	link_on_dropped(&((struct rig *)ctx)->link, n);
}

static void on_failed(void *ctx, const struct neighbour *n)
{
	(void)n;
	((struct rig *)ctx)->n_failed++;
}

static void on_input(void *ctx, const struct dmm_frame *frames, unsigned int n)
{
	struct rig *rig = ctx;

	memcpy(rig->got, frames, n * sizeof(*frames));
	memcpy(rig->got_data, frames[0].data, frames[0].len);
	rig->n_got += n;
}

static void on_icmp(void *ctx, const struct icmp_error *error)
{
	(void)error;
	((struct rig *)ctx)->n_icmp++;
}

static int run(const char *command)
{
	return system(command);
}

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

/* Root in namespaces of our own. */
static bool enter_namespaces(void)
{
	char uid_map[64], gid_map[64];

	snprintf(uid_map, sizeof(uid_map), "0 %u 1", getuid());
	snprintf(gid_map, sizeof(gid_map), "0 %u 1", getgid());
	return unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 &&
	       write_file("/proc/self/setgroups", "deny") &&
	       write_file("/proc/self/uid_map", uid_map) &&
	       write_file("/proc/self/gid_map", gid_map);
}

static bool have_namespaces;

static int setup_group(void **state)
{
	(void)state;
	have_namespaces = enter_namespaces() && run("ip link set lo up") == 0;
	return 0;
}

static int setup(void **state)
{
	struct mirror_events mirror_events = { NULL, on_neighbour, on_routes, on_interface,
					       on_lost };
	struct nexthop_events nexthop_events = { NULL, on_resolved, on_dropped, on_failed };
	struct dmm_mem_args mem = { .frame_size = 2048, .frames = 256, .mtu = 1500 };
	struct dmm_pktio *ends[2];
	struct rig *rig;

	if (!have_namespaces) {
		*state = NULL;
		return 0;
	}
	if (run("ip link add dmmn0 address 02:00:00:00:00:01 type veth peer name dmmn1 &&"
		" ip addr add 10.77.0.2/24 broadcast 10.77.0.255 dev dmmn0 &&"
		" ip addr add 2001:db8::2/64 dev dmmn0 nodad && ip link set dmmn1 up &&"
		" ip link set dmmn0 up && ip route add default via 10.77.0.1 &&"
		" ip neigh add 10.77.0.1 lladdr 02:00:00:00:00:99 nud reachable dev dmmn0 &&"
		" ip neigh add 2001:db8::1 lladdr 02:00:00:00:00:98 nud permanent dev dmmn0"))
		return -1;
	rig = calloc(1, sizeof(*rig));
	rig->shared = calloc(1, sizeof(*rig->shared));
	mirror_events.ctx = nexthop_events.ctx = rig;
	if (dmm_mem_pair(&mem, ends) < 0 ||
	    mirror_open(&rig->mirror, if_nametoindex("dmmn0"), dmm_hostsock_netlink(0),
			dmm_hostsock_netlink(1 << 20), &mirror_events) < 0)
		return -1;
	nexthop_open(&rig->nexthops, &rig->mirror, dmm_hostsock_probe(AF_INET, "dmmn0"),
		     dmm_hostsock_probe(AF_INET6, "dmmn0"), &nexthop_events);
	rig->link = (struct link){
		.io = ends[0],
		.mirror = &rig->mirror,
		.nexthops = &rig->nexthops,
		.shared = rig->shared,
		.events = { .ctx = rig, .input = on_input, .icmp = on_icmp },
		.now = dmm_now_ns(),
	};
	rig->wire = ends[1];
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	if (!rig)
		return 0;
	nexthop_forget(&rig->nexthops);
	link_close(&rig->link);
	assert_int_equal(dmm_mem_out(rig->link.io), 0); /* every frame came back */
	rig->link.io->ops->close(rig->link.io);
	rig->wire->ops->close(rig->wire);
	nexthop_close(&rig->nexthops);
	mirror_close(&rig->mirror);
	free(rig->shared);
	free(rig);
	return run("ip link del dmmn0");
}

/* Lets notifications come until @done; patient, for the kernel has its own pace. */
static bool wait_until(struct rig *rig, bool (*done)(struct rig *rig))
{
	uint64_t end = dmm_now_ns() + 8 * DMM_NS_PER_SEC;

	while (!done(rig) && dmm_now_ns() < end) {
		struct pollfd p = { .fd = mirror_fd(&rig->mirror), .events = POLLIN };

		if (poll(&p, 1, 100) == 1)
			mirror_run(&rig->mirror);
	}
	return done(rig);
}

static void addr(const char *text, uint8_t ret[16])
{
	uint8_t v4[4];

	if (inet_pton(AF_INET, text, v4) == 1)
		addr_from_v4(v4, ret);
	else
		assert_int_equal(inet_pton(AF_INET6, text, ret), 1);
}

static struct neighbour *find(struct rig *rig, const char *dst, int *err)
{
	uint8_t d[16], s[16];

	addr(dst, d);
	addr(addr_is_v4(d) ? "10.77.0.2" : "2001:db8::2", s);
	return nexthop_find(&rig->nexthops, d, s, rig->link.now, err);
}

/* Writes an IP packet of @payload bytes. */
static uint32_t write_packet(uint8_t *p, const char *src, const char *dst, uint32_t payload)
{
	uint8_t s[16], d[16];

	addr(src, s);
	addr(dst, d);
	memset(p, 0, 40 + payload);
	if (addr_is_v4(s)) {
		p[0] = 0x45;
		p[9] = IPPROTO_TCP;
		packet_put16(p + 2, 20 + payload);
		memcpy(p + 12, s + 12, 4);
		memcpy(p + 16, d + 12, 4);
		return 20 + payload;
	}
	p[0] = 0x60;
	p[6] = IPPROTO_TCP;
	packet_put16(p + 4, payload);
	memcpy(p + 8, s, 16);
	memcpy(p + 24, d, 16);
	return 40 + payload;
}

static void output(struct rig *rig, const char *src, const char *dst)
{
	struct dmm_frame f;

	assert_true(link_alloc(&rig->link, &f));
	f.len = write_packet(f.data, src, dst, 20);
	link_output(&rig->link, &f, 1);
	link_flush(&rig->link);
}

/* Frames that arrived on the wire; the first one's destination MAC ends in *@ret_mac. */
static unsigned int on_wire(struct rig *rig, uint8_t *ret_mac)
{
	struct dmm_frame f[DMM_PKTIO_BATCH];
	unsigned int n = rig->wire->ops->rx_burst(rig->wire, f, DMM_PKTIO_BATCH);

	if (n > 0)
		*ret_mac = f[0].data[5];
	rig->wire->ops->free(rig->wire, f, n);
	return n;
}

#define NEED_NAMESPACES()                                                                          \
	do {                                                                                       \
		if (!*state)                                                                       \
			skip();                                                                    \
	} while (0)

/* --- next hops --- */

static void routes_are_the_kernels(void **state)
{
	struct rig *rig = *state;
	struct neighbour *n;
	int err;

	NEED_NAMESPACES();
	n = find(rig, "10.77.0.1", &err);
	assert_true(n && n->valid);
	assert_int_equal(n->mac[5], 0x99);
	assert_ptr_equal(find(rig, "192.0.2.1", &err), n); /* by the gateway */
	n = find(rig, "2001:db8::1", &err);
	assert_true(n && n->valid);
	assert_int_equal(n->mac[5], 0x98);
	assert_null(find(rig, "2001:db9::1", &err));
	assert_int_equal(err, -ENETUNREACH);
	assert_null(find(rig, "127.0.0.1", &err)); /* not by this interface */
}

/* Only what the kernel's tables say is remembered, not that it could not be asked. */
static void a_failed_question_is_asked_again(void **state)
{
	dmm_autoclose int saved = -1, nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct rig *rig = *state;
	int err = 0, fd;

	NEED_NAMESPACES();
	fd = mnl_socket_get_fd(rig->mirror.query);
	saved = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	assert_true(dup3(nothing, fd, O_CLOEXEC) == fd);
	assert_null(find(rig, "192.0.2.1", &err));
	assert_int_equal(err, -ENOTSOCK);
	assert_true(dup3(saved, fd, O_CLOEXEC) == fd);
	assert_non_null(find(rig, "192.0.2.1", &err));
}

static bool gateway_is(struct rig *rig, uint8_t mac)
{
	int err;
	struct neighbour *n = find(rig, "192.0.2.1", &err);

	return n && n->valid && n->mac[5] == mac;
}

static bool gateway_is_77(struct rig *rig)
{
	return gateway_is(rig, 0x77);
}

static bool gateway_is_78(struct rig *rig)
{
	return gateway_is(rig, 0x78);
}

static bool is_unreachable(struct rig *rig)
{
	int err = 0;

	return !find(rig, "192.0.2.1", &err) && err == -EHOSTUNREACH;
}

static void changes_are_followed(void **state)
{
	struct rig *rig = *state;
	int err;

	NEED_NAMESPACES();
	assert_non_null(find(rig, "192.0.2.1", &err)); /* remembered from here on */
	run("ip neigh add 10.77.0.7 lladdr 02:00:00:00:00:77 nud permanent dev dmmn0");
	run("ip route replace default via 10.77.0.7");
	assert_true(wait_until(rig, gateway_is_77));
	run("ip route add unreachable 192.0.2.0/24");
	assert_true(wait_until(rig, is_unreachable));
	run("ip route del unreachable 192.0.2.0/24");
	assert_true(wait_until(rig, gateway_is_77));
	run("ip neigh replace 10.77.0.7 lladdr 02:00:00:00:00:78 nud permanent dev dmmn0");
	assert_true(wait_until(rig, gateway_is_78));
}

static void frames_get_the_next_hops_address(void **state)
{
	struct rig *rig = *state;
	uint8_t mac;

	NEED_NAMESPACES();
	output(rig, "10.77.0.2", "192.0.2.1");
	assert_int_equal(on_wire(rig, &mac), 1);
	assert_int_equal(mac, 0x99);
	output(rig, "2001:db8::2", "2001:db8::1");
	assert_int_equal(on_wire(rig, &mac), 1);
	assert_int_equal(mac, 0x98);
	output(rig, "2001:db8::2", "2001:db9::1"); /* no route */
	assert_int_equal(on_wire(rig, &mac), 0);
	assert_int_equal(rig->shared->no_neighbour, 1);
}

static bool is_resolved(struct rig *rig)
{
	int err;
	struct neighbour *n = find(rig, "10.77.0.9", &err);

	return n && n->valid;
}

static void frames_wait_for_resolution(void **state)
{
	struct rig *rig = *state;
	unsigned int i;
	uint8_t mac;

	NEED_NAMESPACES();
	for (i = 0; i < NEXTHOP_HELD + 3; i++)
		output(rig, "10.77.0.2", "10.77.0.9");
	assert_int_equal(on_wire(rig, &mac), 0);
	assert_int_equal(rig->shared->no_neighbour, 3); /* the oldest are dropped */
	run("ip neigh replace 10.77.0.9 lladdr 02:00:00:00:00:66 nud reachable dev dmmn0");
	assert_true(wait_until(rig, is_resolved));
	link_flush(&rig->link);
	assert_int_equal(on_wire(rig, &mac), NEXTHOP_HELD);
	assert_int_equal(mac, 0x66);
}

static bool has_failed(struct rig *rig)
{
	return rig->n_failed > 0;
}

/* Nobody answers the kernel's ARP requests on the peer: it gives up after three of them. */
static void silent_neighbours_fail(void **state)
{
	struct rig *rig = *state;
	uint8_t mac;

	NEED_NAMESPACES();
	write_file("/proc/sys/net/ipv4/neigh/dmmn0/retrans_time_ms", "50");
	write_file("/proc/sys/net/ipv4/conf/dmmn1/arp_ignore", "8");
	output(rig, "10.77.0.2", "10.77.0.200");
	assert_true(wait_until(rig, has_failed));
	assert_int_equal(on_wire(rig, &mac), 0);
	assert_int_equal(rig->shared->no_neighbour, 1);
	output(rig, "10.77.0.2", "10.77.0.200"); /* gets a new chance, and waits again */
	assert_int_equal(rig->shared->no_neighbour, 1);
	rig->link.now += 10 * DMM_NS_PER_SEC;
	nexthop_tick(&rig->nexthops, rig->link.now); /* in case the kernel never says */
	assert_int_equal(rig->shared->no_neighbour, 2);
}

/* --- receiving --- */

/* A frame from the wire to us. */
static void frame_arrives(struct rig *rig, const char *src, const char *dst, uint8_t mac,
			  uint32_t padding)
{
	struct dmm_frame f;
	bool v4 = strchr(src, ':') == NULL;

	assert_int_equal(rig->wire->ops->alloc(rig->wire, &f, 1), 1);
	memset(f.data, 0, 14);
	f.data[0] = 2;
	f.data[5] = mac;
	packet_put16(f.data + 12, v4 ? 0x0800 : 0x86dd);
	f.len = 14 + write_packet(f.data + 14, src, dst, 20) + padding;
	assert_int_equal(rig->wire->ops->tx_burst(rig->wire, &f, 1), 1);
	rig->n_got = 0;
	assert_int_equal(link_receive(&rig->link), 1);
}

static void packets_to_us_come_in(void **state)
{
	struct rig *rig = *state;

	NEED_NAMESPACES();
	frame_arrives(rig, "192.0.2.1", "10.77.0.2", 1, 6);
	assert_int_equal(rig->n_got, 1);
	assert_int_equal(rig->got[0].len, 40); /* padding is cut off */
	assert_int_equal(rig->got_data[0], 0x45);
	frame_arrives(rig, "2001:db8:7::1", "2001:db8::2", 1, 0);
	assert_int_equal(rig->n_got, 1);
	assert_int_equal(rig->got[0].len, 60);
}

static void everything_else_stays_out(void **state)
{
	static const char *const wrong[][2] = {
		{ "10.77.0.2", "10.77.0.2" }, /* LAND */
		{ "10.77.0.2", "10.77.0.9" },	  { "192.0.2.1", "10.77.0.9" },
		{ "127.0.0.1", "10.77.0.2" },	  { "224.0.0.1", "10.77.0.2" },
		{ "0.0.0.0", "10.77.0.2" },	  { "255.255.255.255", "10.77.0.2" },
		{ "10.77.0.255", "10.77.0.2" },	  { "192.0.2.1", "10.77.0.255" },
		{ "192.0.2.1", "224.0.0.1" },	  { "192.0.2.1", "127.0.0.1" },
		{ "2001:db8::2", "2001:db8::2" }, { "::1", "2001:db8::2" },
		{ "::", "2001:db8::2" },	  { "ff02::1", "2001:db8::2" },
		{ "2001:db8:7::1", "ff02::1" },
	};
	struct rig *rig = *state;
	size_t i;

	NEED_NAMESPACES();
	for (i = 0; i < DMM_ARRAY_SIZE(wrong); i++) {
		frame_arrives(rig, wrong[i][0], wrong[i][1], 1, 0);
		if (rig->n_got)
			fail_msg("%s -> %s came in", wrong[i][0], wrong[i][1]);
	}
	frame_arrives(rig, "192.0.2.1", "10.77.0.2", 9, 0); /* another host's MAC */
	assert_int_equal(rig->n_got, 0);
	assert_int_equal(rig->shared->rx_dropped, DMM_ARRAY_SIZE(wrong) + 1);
}

static bool has_new_address(struct rig *rig)
{
	uint8_t a[16];

	addr("10.77.0.50", a);
	return addrset_find(&rig->mirror.own.set, a) == ADDR_OWN;
}

static bool has_heard(struct rig *rig)
{
	return rig->n_interface > 0;
}

/* A reading that fails takes nothing away: packets to the addresses known come in. */
static void addresses_outlive_a_failed_reading(void **state)
{
	dmm_autoclose int saved = -1, nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct rig *rig = *state;
	int fd;

	NEED_NAMESPACES();
	fd = mnl_socket_get_fd(rig->mirror.query);
	saved = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	assert_true(dup3(nothing, fd, O_CLOEXEC) == fd);
	rig->n_interface = 0;
	run("ip addr add 10.77.0.50/24 dev dmmn0");
	assert_true(wait_until(rig, has_heard));
	assert_false(has_new_address(rig));
	frame_arrives(rig, "192.0.2.1", "10.77.0.2", 1, 0);
	assert_int_equal(rig->n_got, 1);
	assert_true(dup3(saved, fd, O_CLOEXEC) == fd);
	run("ip addr add 10.77.0.51/24 dev dmmn0"); /* the next one brings both */
	assert_true(wait_until(rig, has_new_address));
}

static bool has_mtu_1400(struct rig *rig)
{
	return rig->mirror.mtu == 1400;
}

static bool is_gone(struct rig *rig)
{
	return rig->mirror.gone;
}

static void interface_changes_are_followed(void **state)
{
	struct rig *rig = *state;

	NEED_NAMESPACES();
	assert_int_equal(rig->mirror.mtu, 1500);
	assert_int_equal(rig->mirror.mac[5], 1);
	run("ip addr add 10.77.0.50/24 dev dmmn0");
	assert_true(wait_until(rig, has_new_address));
	assert_true(rig->n_interface > 0);
	frame_arrives(rig, "192.0.2.1", "10.77.0.50", 1, 0);
	assert_int_equal(rig->n_got, 1);
	run("ip link set dmmn0 mtu 1400");
	assert_true(wait_until(rig, has_mtu_1400));
	run("ip link del dmmn0");
	assert_true(wait_until(rig, is_gone));
	run("ip link add dmmn0 type veth peer name dmmn1"); /* for the teardown */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(routes_are_the_kernels),
		TEST(a_failed_question_is_asked_again),
		TEST(changes_are_followed),
		TEST(frames_get_the_next_hops_address),
		TEST(frames_wait_for_resolution),
		TEST(silent_neighbours_fail),
		TEST(packets_to_us_come_in),
		TEST(everything_else_stays_out),
		TEST(addresses_outlive_a_failed_reading),
		TEST(interface_changes_are_followed),
	};

	return cmocka_run_group_tests(tests, setup_group, NULL);
}
