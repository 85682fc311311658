/* SPDX-License-Identifier: Apache-2.0 */
/* Loads the BPF objects with one set of maps and fills those maps by hand. */
#define _GNU_SOURCE
#include "bpfenv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/ipv6.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/util.h"

#include "bpf/flows.skel.h"
#include "bpf/relay.skel.h"
#include "bpf/sock.skel.h"
#include "bpf/steer.skel.h"

#define STALE_MS 2000u

int bpfenv_share(const struct bpfenv *env, struct bpf_object *obj)
{
	struct bpf_map *map, *ours;

	bpf_object__for_each_map(map, obj)
	{
		ours = bpf_object__find_map_by_name(env->sock->obj, bpf_map__name(map));
		if (ours && !bpf_map__is_internal(map) &&
		    bpf_map__reuse_fd(map, bpf_map__fd(ours)) < 0)
			return -1;
	}
	return 0;
}

static int attach_iterator(struct bpfenv *env)
{
	union bpf_iter_link_info info = { .map.map_fd = bpf_map__fd(env->sock->maps.dmm_sock) };
	LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));

	env->iterator = bpf_program__attach_iter(env->flows->progs.dmm_flows, &opts);
	return env->iterator ? 0 : -1;
}

static int load(struct bpfenv *env)
{
	env->sock = sock_bpf__open();
	env->relay = relay_bpf__open();
	env->steer = steer_bpf__open();
	env->flows = flows_bpf__open();
	if (!env->sock || !env->relay || !env->steer || !env->flows)
		return -1;
	if (env->same_call_ns)
		env->sock->rodata->same_call_ns = env->same_call_ns;
	if (sock_bpf__load(env->sock) < 0)
		return -1;
	if (bpfenv_share(env, env->relay->obj) < 0 || bpfenv_share(env, env->steer->obj) < 0 ||
	    bpfenv_share(env, env->flows->obj) < 0)
		return -1;
	if (relay_bpf__load(env->relay) < 0 || steer_bpf__load(env->steer) < 0 ||
	    flows_bpf__load(env->flows) < 0)
		return -1;
	return attach_iterator(env);
}

static int netns_cookie(uint64_t *ret)
{
	dmm_autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, ret, &len);
}

int bpfenv_open(struct bpfenv *env)
{
	if (unshare(CLONE_NEWNET) < 0) {
		perror("unshare");
		return -1;
	}
	bpfenv_lo_addr(NULL);
	if (load(env) < 0) {
		fprintf(stderr, "the BPF objects do not load: %s\n", strerror(errno));
		return -1;
	}
	env->config = (struct dmm_config){
		.layout = DMM_ABI_LAYOUT,
		.max_level = 10,
		.stale_ms = STALE_MS,
	};
	if (netns_cookie((uint64_t *)&env->config.netns_cookie) < 0)
		return -1;
	bpfenv_set_config(env);
	return 0;
}

void bpfenv_close(struct bpfenv *env)
{
	bpf_link__destroy(env->iterator);
	flows_bpf__destroy(env->flows);
	steer_bpf__destroy(env->steer);
	relay_bpf__destroy(env->relay);
	sock_bpf__destroy(env->sock);
	memset(env, 0, sizeof(*env));
}

static pid_t running;

static void pass_on(int number)
{
	kill(running, number);
}

int bpfenv_main(int (*run)(void), void (*clean)(void))
{
	int status = 0;

	running = fork();
	if (running == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		exit(run());
	}
	signal(SIGTERM, pass_on);
	signal(SIGINT, pass_on);
	while (waitpid(running, &status, 0) < 0 && errno == EINTR)
		;
	if (clean)
		clean();
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int bpfenv_map(const struct bpfenv *env, const char *name)
{
	int fd = bpf_object__find_map_fd_by_name(env->sock->obj, name);

	if (fd < 0)
		fail_msg("no map %s", name);
	return fd;
}

static void set(const struct bpfenv *env, const char *map, const void *key, const void *value)
{
	if (bpf_map_update_elem(bpfenv_map(env, map), key, value, BPF_ANY) < 0)
		fail_msg("%s: %s", map, strerror(errno));
}

void bpfenv_set_config(struct bpfenv *env)
{
	uint32_t zero = 0;

	set(env, "dmm_config", &zero, &env->config);
}

uint64_t bpfenv_counter(const struct bpfenv *env, enum dmm_reason reason)
{
	int i, cpus = libbpf_num_possible_cpus();
	uint64_t per_cpu[cpus], sum = 0;
	uint32_t key = reason;

	assert_int_equal(bpf_map_lookup_elem(bpfenv_map(env, "dmm_counters"), &key, per_cpu), 0);
	for (i = 0; i < cpus; i++)
		sum += per_cpu[i];
	return sum;
}

void bpfenv_inst_stats(const struct bpfenv *env, uint32_t id, struct dmm_inst_stats *ret)
{
	int i, cpus = libbpf_num_possible_cpus();
	struct dmm_inst_stats per_cpu[cpus];

	assert_int_equal(bpf_map_lookup_elem(bpfenv_map(env, "dmm_inst_stats"), &id, per_cpu), 0);
	memset(ret, 0, sizeof(*ret));
	for (i = 0; i < cpus; i++) {
		ret->packets += per_cpu[i].packets;
		ret->bytes += per_cpu[i].bytes;
		ret->connects += per_cpu[i].connects;
		ret->rejects += per_cpu[i].rejects;
	}
}

/* The open flow with this cookie; returns how many are open. */
static unsigned int read_open(const struct bpfenv *env, uint64_t cookie, struct dmm_flow *ret)
{
	dmm_autoclose int fd = bpf_iter_create(bpf_link__fd(env->iterator));
	struct dmm_flow flow;
	unsigned int n = 0;

	assert_true(fd >= 0);
	for (;;) {
		ssize_t got = read(fd, &flow, sizeof(flow));

		if (got == 0)
			return n;
		assert_int_equal(got, sizeof(flow));
		n++;
		if (flow.cookie == cookie)
			*ret = flow;
	}
}

static uint64_t count_closed(const struct bpfenv *env)
{
	uint32_t zero = 0;
	uint64_t n;

	assert_int_equal(bpf_map_lookup_elem(bpfenv_map(env, "dmm_n_closed"), &zero, &n), 0);
	return n;
}

bool bpfenv_find_flow(const struct bpfenv *env, uint64_t cookie, struct dmm_flow *ret)
{
	struct dmm_closed closed;
	uint64_t number;

	memset(ret, 0, sizeof(*ret));
	read_open(env, cookie, ret);
	for (number = count_closed(env); number > 0 && !ret->cookie; number--) {
		uint32_t at = (number - 1) % DMM_MAX_CLOSED;

		assert_int_equal(bpf_map_lookup_elem(bpfenv_map(env, "dmm_closed"), &at, &closed),
				 0);
		assert_int_equal(closed.number, number);
		if (closed.flow.cookie == cookie)
			*ret = closed.flow;
	}
	return ret->cookie != 0;
}

unsigned int bpfenv_count_flows(const struct bpfenv *env)
{
	struct dmm_flow flow;

	return read_open(env, 0, &flow) + count_closed(env);
}

struct dmm_addr bpfenv_addr(const char *text)
{
	struct dmm_addr addr = { .b = { [10] = 0xff, 0xff } };

	if (inet_pton(AF_INET, text, addr.b + 12) != 1 && inet_pton(AF_INET6, text, addr.b) != 1)
		fail_msg("no address: %s", text);
	return addr;
}

void bpfenv_set_local(const struct bpfenv *env, const char *addr, uint32_t ifindex, uint32_t flags)
{
	struct dmm_local local = { .ifindex = ifindex, .flags = flags };
	struct dmm_addr key __attribute__((aligned(4))) = bpfenv_addr(addr);
	struct dmm_local_bits bits;
	uint32_t zero = 0;

	assert_int_equal(bpf_map_lookup_elem(bpfenv_map(env, "dmm_local_bits"), &zero, &bits), 0);
	bits.word[DMM_LOCAL_BIT(&key) / 64] |= 1ull << (DMM_LOCAL_BIT(&key) % 64);
	set(env, "dmm_local_bits", &zero, &bits);
	set(env, "dmm_local", &key, &local);
}

void bpfenv_set_route(const struct bpfenv *env, const char *addr, uint32_t prefixlen,
		      uint32_t ifindex, const char *source)
{
	struct dmm_route route = { .ifindex = ifindex, .has_source = source != NULL };
	struct dmm_route_key key = { .prefixlen = prefixlen };
	struct dmm_addr a = bpfenv_addr(addr);

	memcpy(key.addr, a.b, sizeof(key.addr));
	if (source) {
		a = bpfenv_addr(source);
		memcpy(route.source, a.b, sizeof(route.source));
	}
	set(env, "dmm_routes", &key, &route);
}

void bpfenv_set_port(const struct bpfenv *env, enum dmm_proto proto, uint16_t port,
		     enum dmm_port_state state, uint32_t instance)
{
	struct dmm_port value = { .state = state, .instance = instance };
	uint32_t key = proto << 16 | port;

	set(env, "dmm_ports", &key, &value);
}

void bpfenv_set_instance(const struct bpfenv *env, uint32_t id, const struct dmm_instance *inst)
{
	set(env, "dmm_instances", &id, inst);
}

static size_t page_size(void)
{
	size_t page = sysconf(_SC_PAGESIZE);

	return (sizeof(struct dmm_inst_shared) + page - 1) / page * page;
}

/* An inner map as dmmd makes them: with a BTF type, or kernel 6.1 takes it for another kind of map. */
static int typed_map(const struct bpfenv *env, const char *name, const char *type, uint32_t size,
		     uint32_t n, uint32_t flags)
{
	const struct btf *btf = bpf_object__btf(env->sock->obj);
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = flags, .btf_fd = btf__fd(btf),
		    .btf_key_type_id = btf__find_by_name(btf, "__u32"),
		    .btf_value_type_id = btf__find_by_name_kind(btf, type, BTF_KIND_STRUCT));

	return bpf_map_create(BPF_MAP_TYPE_ARRAY, name, sizeof(uint32_t), size, n, &opts);
}

struct dmm_inst_shared *bpfenv_make_shared(const struct bpfenv *env, uint32_t id)
{
	dmm_autoclose int fd = typed_map(env, "test_shared", "dmm_inst_shared",
					 sizeof(struct dmm_inst_shared), 1, BPF_F_MMAPABLE);
	void *page;

	assert_true(fd >= 0);
	set(env, "dmm_shared", &id, &fd);
	page = mmap(NULL, page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(page, MAP_FAILED);
	bpfenv_beat(page, 0);
	return page;
}

int bpfenv_make_ring(const struct bpfenv *env, uint32_t id, uint32_t size)
{
	int fd = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "test_ring", 0, 0, size, NULL);

	assert_true(fd >= 0);
	set(env, "dmm_rings", &id, &fd);
	return fd;
}

void bpfenv_beat(struct dmm_inst_shared *page, uint64_t age_ms)
{
	uint64_t now = dmm_clock_ns(CLOCK_MONOTONIC_COARSE);

	/* however slow the machine is: a heartbeat of the future does not age */
	*(volatile __u64 *)&page->beat_ns = age_ms ? now - age_ms * DMM_NS_PER_MS
						   : now + 3600 * DMM_NS_PER_SEC;
}

static int make_table(const struct bpfenv *env, const void *blocks, uint32_t n)
{
	int fd = typed_map(env, "test_table", "dmm_node", DMM_BLOCK, DMM_MAX(n, 1u),
			   BPF_F_INNER_MAP);
	uint32_t i;

	assert_true(fd >= 0);
	for (i = 0; i < n; i++)
		assert_int_equal(bpf_map_update_elem(fd, &i, (const char *)blocks + i * DMM_BLOCK,
						     BPF_ANY),
				 0);
	return fd;
}

void bpfenv_install(const struct bpfenv *env, uint32_t slot, const struct dmm_tables *tables)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);
	uint32_t keys[DMM_NUM_TABLES], n = DMM_NUM_TABLES;
	int fds[DMM_NUM_TABLES];
	unsigned int t;

	for (t = 0; t < DMM_NUM_TABLES; t++) {
		keys[t] = slot * DMM_NUM_TABLES + t;
		fds[t] = make_table(env, tables->blocks[t], tables->n_blocks[t]);
	}
	assert_int_equal(bpf_map_update_batch(bpfenv_map(env, "dmm_tables"), keys, fds, &n, &opts),
			 0);
	for (t = 0; t < DMM_NUM_TABLES; t++)
		close(fds[t]);
}

void bpfenv_go_live(const struct bpfenv *env, uint32_t slot, uint32_t generation)
{
	struct dmm_live live = { .slot = slot, .generation = generation };
	uint32_t zero = 0;

	set(env, "dmm_live", &zero, &live);
}

static void lo_addr4(int fd, const struct dmm_addr *addr)
{
	static int alias;
	struct sockaddr_in sin = { .sin_family = AF_INET };
	struct ifreq ifr = { .ifr_name = "" };

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "lo:%d", ++alias);
	memcpy(&sin.sin_addr, addr->b + 12, 4);
	memcpy(&ifr.ifr_addr, &sin, sizeof(sin));
	assert_int_equal(ioctl(fd, SIOCSIFADDR, &ifr), 0);
}

static void lo_addr6(const struct dmm_addr *addr)
{
	dmm_autoclose int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct in6_ifreq ifr = { .ifr6_ifindex = 1, .ifr6_prefixlen = 128 };
	struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6 };
	unsigned int i;

	memcpy(&ifr.ifr6_addr, addr->b, 16);
	assert_int_equal(ioctl(fd, SIOCSIFADDR, &ifr), 0);
	/* tentative until a worker of the kernel has looked at it */
	memcpy(&sin6.sin6_addr, addr->b, 16);
	for (i = 0; i < 1000 && bind(fd, (struct sockaddr *)&sin6, sizeof(sin6)) < 0; i++)
		usleep(2000);
}

void bpfenv_lo_addr(const char *text)
{
	dmm_autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq up = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	struct dmm_addr addr;

	if (ioctl(fd, SIOCSIFFLAGS, &up) < 0)
		perror("lo up");
	if (!text)
		return;
	addr = bpfenv_addr(text);
	if (strchr(text, ':'))
		lo_addr6(&addr);
	else
		lo_addr4(fd, &addr);
}

void bpfenv_attach_lo(const struct bpfenv *env)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = 1, .attach_point = BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = bpf_program__fd(env->relay->progs.dmm_lo));

	assert_int_equal(bpf_tc_hook_create(&hook), 0);
	assert_int_equal(bpf_tc_attach(&hook, &opts), 0);
}
