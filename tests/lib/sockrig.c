/* SPDX-License-Identifier: Apache-2.0 */
/* Cgroup, policy, listeners and sockets for tests of the socket door. */
#define _GNU_SOURCE
#include "sockrig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include "base/mountinfo.h"
#include "base/util.h"

#include "bpf/relay.skel.h"
#include "bpf/sock.skel.h"

static char mount_point[256], home[512], top[512], child[600];
static bool nested; /* applications are in the child */

/* --- cgroups --- */

/* Where this process is, so that it can go back; and where its cgroups will be. */
static int find_cgroups(void)
{
	char line[400] = "", where[300] = "";
	dmm_autofclose FILE *f = fopen("/proc/self/cgroup", "re");

	if (!f || dmm_mount_find("cgroup2", mount_point, sizeof(mount_point)) < 0)
		return -1;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "0::%299[^\n]", where) == 1)
			break;
	snprintf(home, sizeof(home), "%s%s", mount_point, where);
	snprintf(top, sizeof(top), "%s/dmm-door-%d", mount_point, getpid());
	snprintf(child, sizeof(child), "%s/inner", top);
	return 0;
}

static int move_to(const char *cgroup)
{
	char path[640];
	dmm_autoclose int fd = -1;

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd >= 0 && write(fd, "0", 1) == 1 ? 0 : -1;
}

static uint64_t cgroup_id(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_ino;
}

void sockrig_enter(void)
{
	assert_int_equal(move_to(nested ? child : top), 0);
}

void sockrig_enter_child(void)
{
	assert_int_equal(move_to(child), 0);
}

void sockrig_leave(void)
{
	assert_int_equal(move_to(home), 0);
}

int sockrig_open_child(void)
{
	int fd = open(child, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* A process that has just died may still be in them. */
static void remove_cgroups(void)
{
	unsigned int i;

	for (i = 0; i < 50 && rmdir(child) < 0 && errno == EBUSY; i++)
		usleep(20000);
	for (i = 0; i < 50 && rmdir(top) < 0 && errno == EBUSY; i++)
		usleep(20000);
}

int sockrig_main(int (*run)(void))
{
	if (find_cgroups() < 0) {
		fprintf(stderr, "no cgroup2 file system is mounted\n");
		return 1;
	}
	return bpfenv_main(run, remove_cgroups);
}

/* --- policy --- */

static void add_rule(struct dmm_rules_block *rules, enum rig_rule index, const char *name,
		     enum dmm_action action, enum dmm_unavailable unavailable)
{
	struct dmm_rule *rule = &rules->rule[index];

	snprintf(rule->name, sizeof(rule->name), "%s", name);
	rule->action = action;
	rule->on_unavailable = unavailable;
	rule->instance = RIG_ID;
}

static void make_rules(struct dmm_rules_block *rules)
{
	add_rule(rules, RIG_RULE_STACK, "stack", DMM_ACTION_STACK, DMM_UNAVAILABLE_KERNEL);
	add_rule(rules, RIG_RULE_STRICT, "strict", DMM_ACTION_STACK, DMM_UNAVAILABLE_REJECT);
	add_rule(rules, RIG_RULE_REJECT, "reject", DMM_ACTION_REJECT, DMM_UNAVAILABLE_KERNEL);
	add_rule(rules, RIG_RULE_DEFAULT, "default", DMM_ACTION_KERNEL, DMM_UNAVAILABLE_KERNEL);
}

static void make_runs(struct dmm_runs_block *runs)
{
	/* at 0: the default for all ports; at 8: class 1; at 16: class 2 */
	static const struct dmm_run by_port[] = {
		{ 5, 0 },
		{ 0, RIG_RULE_DEFAULT },
		{ RIG_PORT_STACK, RIG_RULE_STACK },
		{ RIG_PORT_STRICT, RIG_RULE_STRICT },
		{ RIG_PORT_REJECT, RIG_RULE_REJECT },
		{ RIG_PORT_KERNEL, RIG_RULE_DEFAULT },
	};

	memcpy(&runs->run[8], by_port, sizeof(by_port));
	memcpy(&runs->run[16], by_port, sizeof(by_port));
	runs->run[18].rule = RIG_RULE_DEFAULT;
}

static void make_roots(struct dmm_roots_block *roots, bool child_known)
{
	uint32_t c, i;

	memset(roots, 0xff, sizeof(*roots)); /* DMM_REF_NONE */
	for (c = 0; c <= RIG_CHILD_CLASS; c++)
		for (i = 0; i < DMM_ROOTS_PER_CLASS; i++)
			roots->ref[c * DMM_ROOTS_PER_CLASS + i] =
				c == RIG_CHILD_CLASS && !child_known ? DMM_REF_NONE
				: !c ? (DMM_REF_LEAF | DMM_REF_RULE | RIG_RULE_DEFAULT)
				     : (DMM_REF_LEAF | c * 8);
}

void sockrig_next_generation(struct sockrig *rig, bool child_known)
{
	static struct dmm_roots_block roots;
	static struct dmm_node node;
	static struct dmm_runs_block runs;
	static struct dmm_rules_block rules;
	static struct dmm_gen_meta meta;
	struct dmm_tables tables = {
		.blocks = { &roots, &node, &runs, &rules, &meta },
		.n_blocks = { 1, 1, 1, 1, 1 },
	};

	make_roots(&roots, child_known);
	make_runs(&runs);
	make_rules(&rules);
	meta.generation = ++rig->generation;
	meta.n_rules = RIG_RULE_DEFAULT;
	meta.n_classes = RIG_CHILD_CLASS + 1;
	rig->slot = (rig->slot + 1) % DMM_GEN_SLOTS;
	bpfenv_install(&rig->env, rig->slot, &tables);
	bpfenv_go_live(&rig->env, rig->slot, rig->generation);
}

/* --- listeners --- */

static socklen_t to_sockaddr(int family, const char *text, uint16_t port,
			     struct sockaddr_storage *ret)
{
	struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)ret;
	struct sockaddr_in *sin = (struct sockaddr_in *)ret;
	struct dmm_addr addr = bpfenv_addr(text);

	memset(ret, 0, sizeof(*ret));
	ret->ss_family = family;
	if (family == AF_INET) {
		memcpy(&sin->sin_addr, addr.b + 12, 4);
		sin->sin_port = htons(port);
		return sizeof(*sin);
	}
	memcpy(&sin6->sin6_addr, addr.b, 16);
	sin6->sin6_port = htons(port);
	return sizeof(*sin6);
}

int sockrig_listen(const char *addr, uint16_t port)
{
	int family = strchr(addr, ':') ? AF_INET6 : AF_INET, one = 1;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_storage sa;
	socklen_t len = to_sockaddr(family, addr, port, &sa);

	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&sa, len) < 0 || listen(fd, 64) < 0)
		fail_msg("listen on %s:%u: %s", addr, port, strerror(errno));
	return fd;
}

static uint16_t port_of(int fd)
{
	struct sockaddr_in6 sin6;
	socklen_t len = sizeof(sin6);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin6, &len), 0);
	return ntohs(sin6.sin6_port); /* at the same place in sockaddr_in */
}

void sockrig_mark(struct sockrig *rig, int listener)
{
	struct dmm_relay_mark mark = { .instance = RIG_ID, .incarnation = rig->inst.incarnation };

	assert_int_equal(bpf_map_update_elem(bpfenv_map(&rig->env, "dmm_relay_mark"), &listener,
					     &mark, BPF_ANY),
			 0);
}

void sockrig_relisten(struct sockrig *rig, enum dmm_family family, bool mark)
{
	const char *addr = family == DMM_FAMILY_V4 ? "127.0.0.1" : "::1";

	if (rig->relay[family] >= 0)
		close(rig->relay[family]);
	rig->relay[family] = sockrig_listen(addr, ntohs(rig->inst.relay_port[family]));
	rig->inst.relay_port[family] = htons(port_of(rig->relay[family]));
	if (mark)
		sockrig_mark(rig, rig->relay[family]);
}

int sockrig_accept(int listener)
{
	struct pollfd p = { .fd = listener, .events = POLLIN };
	int fd;

	if (poll(&p, 1, 5000) != 1)
		fail_msg("nobody connected");
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

/* --- attaching --- */

static int attach(struct sockrig *rig, struct bpf_program *prog, int cgroup_fd)
{
	struct bpf_link *link = bpf_program__attach_cgroup(prog, cgroup_fd);

	if (!link) {
		fprintf(stderr, "attach %s: %s\n", bpf_program__name(prog), strerror(errno));
		return -1;
	}
	rig->links[rig->n_links++] = link;
	return 0;
}

static int attach_all(struct sockrig *rig, const char *cgroup)
{
	dmm_autoclose int fd = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct bpf_program *prog;

	bpf_object__for_each_program(prog, rig->env.sock->obj)
	{
		/* those are for sockets of instances */
		if (strncmp(bpf_program__name(prog), "dmm_server", 10) == 0)
			continue;
		if (attach(rig, prog, fd) < 0)
			return -1;
	}
	return attach(rig, rig->env.relay->progs.dmm_sockops, fd);
}

/* --- life --- */

static void set_class(struct sockrig *rig, const char *path, uint32_t class_id)
{
	uint64_t id = cgroup_id(path);

	assert_int_equal(bpf_map_update_elem(bpfenv_map(&rig->env, "dmm_cgroups"), &id, &class_id,
					     BPF_ANY),
			 0);
}

static void make_host(struct sockrig *rig)
{
	struct bpfenv *env = &rig->env;

	bpfenv_lo_addr(RIG_FAR4);
	bpfenv_lo_addr(RIG_FAR6);
	bpfenv_set_local(env, RIG_OWN4, RIG_IFINDEX, DMM_LOCAL_UNICAST);
	bpfenv_set_local(env, RIG_OWN6, RIG_IFINDEX, DMM_LOCAL_UNICAST);
	bpfenv_set_route(env, "0.0.0.0", 96, RIG_IFINDEX, RIG_OWN4);
	bpfenv_set_route(env, "::", 0, RIG_IFINDEX, RIG_OWN6);
	bpfenv_set_route(env, "10.55.0.0", 96 + 16, RIG_IFINDEX + 1, RIG_OWN4);
	bpfenv_set_route(env, "10.56.0.0", 96 + 16, 0, NULL);
	rig->far[DMM_FAMILY_V4] = sockrig_listen(RIG_FAR4, RIG_PORT_KERNEL);
	rig->far[DMM_FAMILY_V6] = sockrig_listen(RIG_FAR6, RIG_PORT_KERNEL);
	set_class(rig, top, RIG_CLASS);
	set_class(rig, child, RIG_CHILD_CLASS);
}

static int setup(void **state, uint64_t same_call_ns)
{
	struct sockrig *rig = calloc(1, sizeof(*rig));

	*state = rig;
	if (!rig)
		return -1;
	rig->env.same_call_ns = same_call_ns;
	if (bpfenv_open(&rig->env) < 0)
		return -1;
	if (mkdir(top, 0755) < 0 || mkdir(child, 0755) < 0) {
		perror(child);
		return -1;
	}
	rig->relay[0] = rig->relay[1] = rig->ring_fd = -1;
	make_host(rig);
	return attach_all(rig, top);
}

int sockrig_setup(void **state)
{
	return setup(state, 0);
}

int sockrig_setup_nested(void **state)
{
	nested = true;
	return setup(state, 60000000000ull) < 0 ? -1 : attach_all(*state, child);
}

int sockrig_reset(void **state)
{
	struct sockrig *rig = *state;

	sockrig_leave();
	memset(&rig->inst, 0, sizeof(rig->inst));
	rig->inst = (struct dmm_instance){
		.state = DMM_INST_READY,
		.incarnation = 7,
		.ifindex = RIG_IFINDEX,
		.n_queues = 1,
		.port_first = RIG_FIRST_PORT,
		.port_last = RIG_LAST_PORT,
		.name = "fast#0",
		.stack = "fast",
	};
	sockrig_relisten(rig, DMM_FAMILY_V4, true);
	sockrig_relisten(rig, DMM_FAMILY_V6, true);
	if (rig->page)
		munmap(rig->page, sizeof(*rig->page));
	if (rig->ring_fd >= 0)
		close(rig->ring_fd);
	rig->page = bpfenv_make_shared(&rig->env, RIG_ID);
	rig->ring_fd = bpfenv_make_ring(&rig->env, RIG_ID, 256 * 1024);
	bpfenv_set_instance(&rig->env, RIG_ID, &rig->inst);
	sockrig_next_generation(rig, true);
	return 0;
}

int sockrig_teardown(void **state)
{
	struct sockrig *rig = *state;

	move_to(home);
	while (rig->n_links)
		bpf_link__destroy(rig->links[--rig->n_links]);
	bpfenv_close(&rig->env);
	free(rig);
	return 0;
}

/* --- the application --- */

int sockrig_socket(int family, int type, int protocol)
{
	int fd;

	sockrig_enter();
	fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
	sockrig_leave();
	assert_true(fd >= 0);
	return fd;
}

int sockrig_connect(int fd, const char *addr, uint16_t port)
{
	struct sockaddr_storage sa;
	socklen_t len;
	int family;

	len = sizeof(family);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len), 0);
	len = to_sockaddr(family, addr, port, &sa);
	sockrig_enter();
	errno = 0;
	if (connect(fd, (struct sockaddr *)&sa, len) < 0 && errno == EINPROGRESS)
		errno = 0;
	len = errno;
	sockrig_leave();
	return -(int)len;
}

int sockrig_outcome(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	socklen_t len = sizeof(int);
	int err;

	if (poll(&p, 1, ms) != 1)
		return -ETIMEDOUT;
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len), 0);
	return err;
}

void sockrig_state(const struct sockrig *rig, int fd, struct dmm_sock *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (bpf_map_lookup_elem(bpfenv_map(&rig->env, "dmm_sock"), &fd, ret) < 0)
		assert_int_equal(errno, ENOENT);
}

static void assert_is(const struct sockaddr_storage *got, const char *addr, uint16_t first,
		      uint16_t last)
{
	struct sockaddr_storage want;
	char text[INET6_ADDRSTRLEN];
	const void *a, *b;
	size_t len;

	to_sockaddr(got->ss_family, addr, first, &want);
	if (got->ss_family == AF_INET) {
		a = &((const struct sockaddr_in *)got)->sin_addr;
		b = &((struct sockaddr_in *)&want)->sin_addr;
		len = 4;
	} else {
		a = &((const struct sockaddr_in6 *)got)->sin6_addr;
		b = &((struct sockaddr_in6 *)&want)->sin6_addr;
		len = 16;
	}
	if (memcmp(a, b, len) != 0)
		fail_msg("the address is %s, not %s",
			 inet_ntop(got->ss_family, a, text, sizeof(text)), addr);
	assert_in_range(ntohs(((const struct sockaddr_in *)got)->sin_port), first, last);
}

void sockrig_assert_peer(int fd, const char *addr, uint16_t port)
{
	struct sockaddr_storage got;
	socklen_t len = sizeof(got);

	if (getpeername(fd, (struct sockaddr *)&got, &len) < 0)
		fail_msg("getpeername: %s", strerror(errno));
	assert_is(&got, addr, port, port);
}

void sockrig_assert_name(int fd, const char *addr, uint16_t first, uint16_t last)
{
	struct sockaddr_storage got;
	socklen_t len = sizeof(got);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&got, &len), 0);
	assert_is(&got, addr, first, last);
}

unsigned int sockrig_claims(const struct sockrig *rig)
{
	unsigned int i, n = 0;

	for (i = 0; i < DMM_MAX_PORTS; i++)
		n += rig->page->port[i] != DMM_PORT_FREE;
	return n;
}
