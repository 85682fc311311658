/* SPDX-License-Identifier: Apache-2.0 */
/* The mirror against the kernel: after each change of addresses, routes or links, what the two maps
 * say about many destinations is what `ip route get` says. */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>

#include <bpf/bpf.h>

#include <cmocka.h>

#include "base/util.h"
#include "steer/steer_internal.h"
#include "steerrig.h"

static struct dmm_mirror *mirror;
static int local_map, bits_map, routes_map;

static const char *const destinations[] = {
	"10.1.0.1",   "10.1.0.2",    "10.1.0.255",    "10.1.0.77",    "10.2.0.9",
	"10.2.0.1",   "10.3.0.1",    "10.3.1.1",      "10.3.1.77",    "10.3.2.5",
	"192.0.2.1",  "192.0.2.200", "198.51.100.7",  "203.0.113.9",  "8.8.8.8",
	"172.16.5.5", "100.64.0.1",  "127.0.0.1",     "127.5.5.5",    "1.2.3.4",
	"fd01::1",    "fd01::2",     "fd01::ffff",    "fd02::5",      "fd02::1",
	"fd03::1",    "2001:db8::1", "2001:db8:1::9", "2001:db8:2::", "2001:db8:2:3::1",
	"2600::1",    "fd77:1::1",   "2001:db8:9::1", "::1",
};

/* --- what the kernel says --- */

struct answer {
	bool reachable, local;
	uint32_t ifindex;
	uint8_t source[16];
};

static void parse_addr(const char *text, uint8_t ret[16])
{
	memset(ret, 0, 10);
	memset(ret + 10, 0xff, 2);
	if (inet_pton(AF_INET, text, ret + 12) != 1)
		assert_int_equal(inet_pton(AF_INET6, text, ret), 1);
}

static bool word_after(const char *line, const char *word, char ret[64])
{
	const char *at = strstr(line, word);

	return at && sscanf(at + strlen(word), "%63s", ret) == 1;
}

static struct answer ask_kernel(const char *addr)
{
	struct answer a = {};
	char line[512], word[64];

	steerrig_sh_line(line, sizeof(line), "ip route get %s 2>/dev/null", addr);
	if (!word_after(line, " dev ", word) || strstr(line, "unreachable") ||
	    strstr(line, "blackhole") || strstr(line, "prohibit"))
		return a;
	a.reachable = true;
	a.local = strncmp(line, "local ", 6) == 0 || strncmp(line, "broadcast ", 10) == 0 ||
		  strncmp(line, "anycast ", 8) == 0;
	a.ifindex = if_nametoindex(word);
	if (word_after(line, " src ", word))
		parse_addr(word, a.source);
	return a;
}

/* --- what the maps say --- */

static bool has_bit(const struct dmm_local_bits *bits, const void *addr)
{
	uint32_t n = DMM_LOCAL_BIT(addr);

	return bits->word[n / 64] >> (n % 64) & 1;
}

static struct dmm_local_bits read_bits(void)
{
	struct dmm_local_bits bits;
	uint32_t zero = 0;

	assert_int_equal(bpf_map_lookup_elem(bits_map, &zero, &bits), 0);
	return bits;
}

static struct answer ask_maps(const char *addr)
{
	struct dmm_local_bits bits = read_bits();
	struct dmm_route_key key = { .prefixlen = 128 };
	struct answer a = {};
	struct dmm_local local;
	struct dmm_route route;

	parse_addr(addr, key.addr);
	if (has_bit(&bits, key.addr) && bpf_map_lookup_elem(local_map, key.addr, &local) == 0) {
		a.reachable = a.local = true;
		return a;
	}
	if (bpf_map_lookup_elem(routes_map, &key, &route) < 0 || !route.ifindex)
		return a;
	a.reachable = true;
	a.ifindex = route.ifindex;
	a.local = route.ifindex == if_nametoindex("lo");
	memcpy(a.source, route.source, 16);
	return a;
}

/* No bit is set but those of the addresses: else the hash is asked for nothing. */
static void compare_bits(const char *when)
{
	struct dmm_local_bits bits = read_bits(), wanted = {};
	struct dmm_addr addr __attribute__((aligned(4)));
	bool first = true;

	while (bpf_map_get_next_key(local_map, first ? NULL : &addr, &addr) == 0) {
		uint32_t n = DMM_LOCAL_BIT(&addr);

		wanted.word[n / 64] |= 1ull << (n % 64);
		first = false;
	}
	if (memcmp(&bits, &wanted, sizeof(bits)) != 0)
		fail_msg("%s: other bits than those of the addresses", when);
}

static void compare_all(const char *when)
{
	size_t i;

	compare_bits(when);
	for (i = 0; i < DMM_ARRAY_SIZE(destinations); i++) {
		struct answer k = ask_kernel(destinations[i]), m = ask_maps(destinations[i]);

		if (k.reachable != m.reachable || k.local != m.local)
			fail_msg("%s: %s: kernel %d%d, mirror %d%d", when, destinations[i],
				 k.reachable, k.local, m.reachable, m.local);
		if (!k.reachable || k.local)
			continue;
		if (k.ifindex != m.ifindex)
			fail_msg("%s: %s leaves by %u, mirror says %u", when, destinations[i],
				 k.ifindex, m.ifindex);
		if (memcmp(k.source, m.source, 16) != 0) {
			char ks[64], ms[64];

			inet_ntop(AF_INET6, k.source, ks, sizeof(ks));
			inet_ntop(AF_INET6, m.source, ms, sizeof(ms));
			fail_msg("%s: %s from %s, mirror says %s", when, destinations[i], ks, ms);
		}
	}
}

/* Does @command, lets the mirror see it as dmmd would, and compares. */
static void after(const char *command)
{
	struct pollfd p = { .fd = dmm_mirror_fd(mirror), .events = POLLIN };

	steerrig_sh("%s", command);
	if (poll(&p, 1, 1000) != 1)
		fail_msg("no event after %s", command);
	if (dmm_mirror_run(mirror) < 0)
		fail_msg("%s: %s", command, dmm_steer_reason());
	compare_all(command);
}

/* --- tests --- */

static int make_maps(void **state)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_NO_PREALLOC);

	(void)state;
	local_map = bpf_map_create(BPF_MAP_TYPE_HASH, "t_local", sizeof(struct dmm_addr),
				   sizeof(struct dmm_local), 64, NULL);
	routes_map = bpf_map_create(BPF_MAP_TYPE_LPM_TRIE, "t_routes", sizeof(struct dmm_route_key),
				    sizeof(struct dmm_route), 512, &opts);
	bits_map = bpf_map_create(BPF_MAP_TYPE_ARRAY, "t_bits", sizeof(uint32_t),
				  sizeof(struct dmm_local_bits), 1, NULL);
	if (local_map < 0 || bits_map < 0 || routes_map < 0)
		return -1;
	steerrig_sh("sysctl -qw net.ipv6.conf.default.accept_dad=0");
	steerrig_sh("sysctl -qw net.ipv4.conf.default.rp_filter=0");
	steerrig_sh("ip link add a0 type veth peer name a1");
	steerrig_sh("ip link add b0 type veth peer name b1");
	steerrig_sh("for i in a0 a1 b0 b1; do ip link set $i up; done");
	steerrig_sh("ip addr add 10.1.0.1/24 dev a0 && ip addr add fd01::1/64 dev a0 nodad");
	steerrig_sh("ip addr add 10.2.0.1/24 dev b0 && ip addr add fd02::1/64 dev b0 nodad");
	return dmm_mirror_open(local_map, bits_map, routes_map, &mirror);
}

static int drop_maps(void **state)
{
	(void)state;
	dmm_mirror_close(mirror);
	close(local_map);
	close(bits_map);
	close(routes_map);
	steerrig_sh("ip link del a0 && ip link del b0");
	steerrig_sh("ip route flush table main && ip -6 route flush table main");
	return 0;
}

static void first_picture(void **state)
{
	(void)state;
	compare_all("at open");
}

static void follows_v4_routes(void **state)
{
	(void)state;
	after("ip route add default via 10.1.0.2");
	after("ip route add 10.3.0.0/16 via 10.2.0.9 metric 50");
	after("ip route add 10.3.0.0/16 via 10.1.0.2 metric 20");
	after("ip route del 10.3.0.0/16 metric 20");
	after("ip route add unreachable 10.3.1.0/24");
	after("ip route add blackhole 192.0.2.0/25");
	after("ip route add prohibit 198.51.100.0/24");
	after("ip route add 10.3.1.77/32 dev b0");
	after("ip route replace default via 10.2.0.9 dev b0");
	after("ip route add 203.0.113.0/24 via 10.2.0.9 src 10.1.0.1");
	after("ip route add 172.16.0.0/12 nexthop via 10.2.0.9 dev b0");
	after("ip route flush 10.3.0.0/16");
}

static void follows_v4_addresses(void **state)
{
	(void)state;
	after("ip addr add 10.1.0.77/24 dev a0");	      /* secondary */
	after("ip addr add 100.64.0.1/32 dev b0 scope host"); /* too narrow as a source */
	after("ip addr add 10.3.2.1/24 dev b0");
	after("ip route add 1.2.3.0/24 via 10.3.2.5");
	after("ip route add 198.51.100.0/24 via 172.30.0.1 dev b0 onlink"); /* in no subnet */
	after("ip route add 8.8.8.0/24 dev b0 scope link");
	after("ip addr del 10.2.0.1/24 dev b0"); /* takes routes away without saying so */
	after("ip addr add 10.2.0.1/24 dev b0");
	after("ip addr del 10.1.0.1/24 dev a0");
	after("ip addr add 10.1.0.1/24 dev a0");
}

static void follows_v6(void **state)
{
	(void)state;
	after("ip -6 route add default via fd01::2 dev a0");
	after("ip addr add 2001:db8:1::1/64 dev a0 nodad");
	after("ip addr add 2001:db8:2::1/64 dev b0 nodad");
	after("ip -6 route add 2001:db8:2:3::/64 via fd02::5 dev b0");
	after("ip -6 route add unreachable fd77:1::/48");
	after("ip -6 route add 2001:db8:9::/48 via fd02::5 dev b0 metric 100");
	after("ip -6 route add 2001:db8:9::/48 via fd01::2 dev a0 metric 50");
	after("ip addr change 2001:db8:2::1/64 dev b0 preferred_lft 0");
	after("ip addr add 2001:db8:2::7/64 dev b0 nodad");
	after("ip addr add fd01::50/64 dev a0 nodad"); /* newest, but not for global ones */
	after("ip -6 route del default");
	after("ip addr del 2001:db8:1::1/64 dev a0");
}

static void follows_links(void **state)
{
	(void)state;
	after("ip link set b0 down");
	after("ip link set b0 up");
	after("ip route add 10.3.0.0/16 via 10.2.0.9");
	after("ip link add c0 type veth peer name c1");
	after("ip addr add 192.0.2.1/24 dev c0 && ip link set c1 up && ip link set c0 up");
	after("ip link del c0");
	/* kernels before 6.2 rename no interface that is up */
	after("ip link set b0 name bb 2>/dev/null || "
	      "(ip link set b0 down && ip link set b0 name bb && ip link set bb up)");
	after("ip link set bb name b0 2>/dev/null || "
	      "(ip link set bb down && ip link set bb name b0 && ip link set b0 up)");
}

/* A burst larger than the socket's buffer: the overrun must not lose the outcome. */
static void survives_an_overrun(void **state)
{
	(void)state;
	after("for i in $(seq 1 250); do echo route add 10.9.$i.0/24 via 10.1.0.2; "
	      "done | ip -batch - && ip route add 10.3.1.0/24 via 10.1.0.2");
	after("for j in $(seq 1 12); do for i in $(seq 1 250); do "
	      "echo route replace 10.9.$i.0/24 via 10.1.0.$((2 + j)); done; done | ip -batch - && "
	      "ip route del 10.3.1.0/24");
	after("for i in $(seq 1 250); do echo route del 10.9.$i.0/24; done | ip -batch -");
}

/* The next dmmd finds the maps filled, and entries that are true no longer. */
static void adopts_filled_maps(void **state)
{
	struct dmm_addr stale = { .b = { [10] = 0xff, 0xff, 1, 2, 3, 4 } };
	struct dmm_local local = { .ifindex = 9, .flags = DMM_LOCAL_UNICAST };

	(void)state;
	dmm_mirror_close(mirror);
	mirror = NULL;
	assert_int_equal(bpf_map_update_elem(local_map, &stale, &local, BPF_ANY), 0);
	steerrig_sh("ip route add 10.3.1.0/24 via 10.1.0.2");
	assert_int_equal(dmm_mirror_open(local_map, bits_map, routes_map, &mirror), 0);
	compare_all("after adoption");
	steerrig_sh("ip route del 10.3.1.0/24");
}

/* A part of the routes would be wrong for the rest of the world: none is better. */
static void too_many_routes_are_told_and_none_is_kept(void **state)
{
	struct dmm_route_key key;

	(void)state;
	steerrig_sh("for i in $(seq 1 250); do echo route add 10.9.$i.0/24 via 10.1.0.2; "
		    "echo route add 10.8.$i.0/24 via 10.1.0.2; "
		    "echo route add 10.7.$i.0/24 via 10.1.0.2; done | ip -batch -");
	assert_int_equal(dmm_mirror_run(mirror), -E2BIG);
	assert_non_null(strstr(dmm_mirror_problem(mirror), "routes"));
	assert_int_equal(bpf_map_get_next_key(routes_map, NULL, &key), -ENOENT);
	assert_int_equal(dmm_mirror_run(mirror), -E2BIG); /* still */
	/* the next dmmd meets it at its start */
	dmm_mirror_close(mirror);
	assert_int_equal(dmm_mirror_open(local_map, bits_map, routes_map, &mirror), 0);
	assert_true(dmm_mirror_problem(mirror)[0]);
	after("for i in $(seq 1 250); do echo route del 10.9.$i.0/24; "
	      "echo route del 10.8.$i.0/24; echo route del 10.7.$i.0/24; done | ip -batch -");
	assert_string_equal(dmm_mirror_problem(mirror), "");
}

static int run(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(first_picture, make_maps, drop_maps),
		cmocka_unit_test_setup_teardown(follows_v4_routes, make_maps, drop_maps),
		cmocka_unit_test_setup_teardown(follows_v4_addresses, make_maps, drop_maps),
		cmocka_unit_test_setup_teardown(follows_v6, make_maps, drop_maps),
		cmocka_unit_test_setup_teardown(follows_links, make_maps, drop_maps),
		cmocka_unit_test_setup_teardown(survives_an_overrun, make_maps, drop_maps),
		cmocka_unit_test_setup_teardown(adopts_filled_maps, make_maps, drop_maps),
		cmocka_unit_test_setup_teardown(too_many_routes_are_told_and_none_is_kept,
						make_maps, drop_maps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
	return steerrig_main(run);
}
