/* SPDX-License-Identifier: Apache-2.0 */
/* A whole dmm-stack process: handed everything over as dmmd would, with the real lwip plug-in, real
 * AF_XDP on a veth pair, and a kernel's TCP on the far end. In place of the socket door's programs an
 * nftables rule holds the relay's SYNs and a packet socket reads them off lo. */
#define _GNU_SOURCE
#include "pktio/xsk.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include <dmm/abi/maps.h>

#include "base/clock.h"
#include "base/hostsock.h"
#include "base/util.h"
#include "base/packet.h"
#include "policy/policy.h"

#define PORT_FIRST   20000
#define PORT_LAST    20999
#define MARK	     0x444d
#define ECHO_PORT    7001
#define REFUSED_PORT 7002
#define REJECT_PORT  7003 /* with an ICMP error */
#define PER_QUEUE    1024
#define NOBODY	     65534

struct rig {
	pid_t server;
	uint32_t ifindex;
	int xskmap, steer_prog;
	int event_map; /* array of one struct dmm_event, copied into the ring by feed_prog */
	int sniffer;
	pid_t instance; /* running; a failed test leaves it to the teardown */
};

struct instance {
	pid_t pid, *running; /* the rig's note of it */
	int line, relay4, ring, feed_prog;
	uint16_t relay_ports[2]; /* by family, network order */
	struct dmm_inst_shared *shared;
	char control[64]; /* abstract address */
	socklen_t control_len;
};

/* --- tiny programs --- */

#define LD_MAP(reg, fd)                                                                            \
	{ .code = BPF_LD | BPF_DW | BPF_IMM,                                                       \
	  .dst_reg = (reg),                                                                        \
	  .src_reg = BPF_PSEUDO_MAP_FD,                                                            \
	  .imm = (fd) },                                                                           \
	{                                                                                          \
		0                                                                                  \
	}
#define CALL(fn)                                                                                   \
	{                                                                                          \
		.code = BPF_JMP | BPF_CALL, .imm = (fn)                                            \
	}
#define EXIT                                                                                       \
	{                                                                                          \
		.code = BPF_JMP | BPF_EXIT                                                         \
	}
#define MOV_IMM(reg, value)                                                                        \
	{                                                                                          \
		.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = (reg), .imm = (value)              \
	}
#define MOV(to, from)                                                                              \
	{                                                                                          \
		.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = (to), .src_reg = (from)            \
	}

#define JUMP(op, value, skip)                                                                      \
	{                                                                                          \
		.code = BPF_JMP | (op) | BPF_K, .dst_reg = 5, .imm = (value), .off = (skip)        \
	}
#define LOAD(size, to, from, at)                                                                   \
	{                                                                                          \
		.code = BPF_LDX | BPF_MEM | (size), .dst_reg = (to), .src_reg = (from),            \
		.off = (at)                                                                        \
	}

/* TCP, and ICMP over IPv4, go to the queue's xsk, all else to the kernel. */
static int load_steer(int xskmap)
{
	struct bpf_insn insns[] = {
		LOAD(BPF_W, 2, 1, offsetof(struct xdp_md, data)),
		LOAD(BPF_W, 3, 1, offsetof(struct xdp_md, data_end)),
		MOV(4, 2),
		{ .code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = 4, .imm = 34 },
		{ .code = BPF_JMP | BPF_JGT | BPF_X, .dst_reg = 4, .src_reg = 3, .off = 14 },
		LOAD(BPF_H, 5, 2, 12),
		JUMP(BPF_JEQ, htons(ETH_P_IP), 4),
		JUMP(BPF_JNE, htons(ETH_P_IPV6), 11),
		LOAD(BPF_B, 5, 2, 20),
		JUMP(BPF_JEQ, IPPROTO_TCP, 4),
		{ .code = BPF_JMP | BPF_JA, .off = 8 },
		LOAD(BPF_B, 5, 2, 23), /* IPv4 */
		JUMP(BPF_JEQ, IPPROTO_TCP, 1),
		JUMP(BPF_JNE, IPPROTO_ICMP, 5),
		LOAD(BPF_W, 2, 1, offsetof(struct xdp_md, rx_queue_index)), /* redirect */
		LD_MAP(1, xskmap),
		MOV_IMM(3, XDP_PASS),
		{ .code = BPF_JMP | BPF_JA, .off = 2 },
		MOV_IMM(0, XDP_PASS), /* pass */
		EXIT,
		CALL(BPF_FUNC_redirect_map),
		EXIT,
	};

	return bpf_prog_load(BPF_PROG_TYPE_XDP, "test_steer", "GPL", insns, DMM_ARRAY_SIZE(insns),
			     NULL);
}

/* Copies event_map[0] into the ring, as the tc program does with a held SYN. */
static int load_feed(int event_map, int ring)
{
	struct bpf_insn insns[] = {
		{ .code = BPF_ST | BPF_MEM | BPF_W, .dst_reg = 10, .off = -4 },
		MOV(2, 10),
		{ .code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = 2, .imm = -4 },
		LD_MAP(1, event_map),
		CALL(BPF_FUNC_map_lookup_elem),
		{ .code = BPF_JMP | BPF_JEQ | BPF_K, .dst_reg = 0, .off = 6 },
		MOV(2, 0),
		LD_MAP(1, ring),
		MOV_IMM(3, sizeof(struct dmm_event)),
		MOV_IMM(4, 0),
		CALL(BPF_FUNC_ringbuf_output),
		MOV_IMM(0, XDP_PASS),
		EXIT,
	};

	return bpf_prog_load(BPF_PROG_TYPE_XDP, "test_feed", "GPL", insns, DMM_ARRAY_SIZE(insns),
			     NULL);
}

/* --- the far end --- */

static void serve_one(int fd)
{
	char buf[1 << 16];
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
		if (send(fd, buf, n, MSG_NOSIGNAL) != n)
			break;
	close(fd);
}

static void run_server(int ready)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(ECHO_PORT) };
	char c;
	int fd;

	if (unshare(CLONE_NEWNET) < 0 || write(ready, "1", 1) != 1 || read(ready, &c, 1) != 1)
		_exit(1);
	if (system("ip addr add 10.78.0.1/24 dev dmmi1 && ip addr add fd78::1/64 dev dmmi1 nodad &&"
		   " ip link set dmmi1 up &&"
		   " ip link set lo up && ethtool -K dmmi1 tx off >/dev/null &&"
		   " nft 'table inet t { chain i { type filter hook input priority 0;"
		   " tcp dport 7003 reject with icmp type admin-prohibited; }; }'"))
		_exit(1);
	signal(SIGCHLD, SIG_IGN);			      /* only now: system() wants to wait */
	fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0); /* both families */
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)) < 0 || listen(fd, 64) < 0 ||
	    write(ready, "2", 1) != 1)
		_exit(1);
	for (;;) {
		int conn = accept(fd, NULL, NULL);

		if (fork() == 0) {
			close(fd);
			serve_one(conn);
			_exit(0);
		}
		close(conn);
	}
}

static int start_server(struct rig *rig)
{
	char command[128], c;
	int ready[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ready) < 0)
		return -1;
	rig->server = fork();
	if (rig->server == 0) {
		setpgid(0, 0);
		run_server(ready[1]);
	}
	close(ready[1]);
	snprintf(command, sizeof(command), "ip link set dmmi1 netns %d", rig->server);
	if (read(ready[0], &c, 1) != 1 || system(command) || write(ready[0], "g", 1) != 1 ||
	    read(ready[0], &c, 1) != 1)
		return -1;
	close(ready[0]);
	return 0;
}

static int open_sniffer(void)
{
	struct sockaddr_ll addr = { .sll_family = AF_PACKET,
				    .sll_protocol = htons(ETH_P_ALL),
				    .sll_ifindex = if_nametoindex("lo") };
	int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -1 : fd;
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	*state = rig;
	signal(SIGPIPE, SIG_IGN);
	if (unshare(CLONE_NEWNET) < 0 ||
	    system("ip link set lo up && ip link add dmmi0 type veth peer name dmmi1 &&"
		   " ip addr add 10.78.0.2/24 dev dmmi0 && ip addr add fd78::2/64 dev dmmi0 nodad &&"
		   " ip link set dmmi0 up &&"
		   " ethtool -K dmmi0 tx off >/dev/null &&"
		   " nft 'table inet t { chain i { type filter hook input priority 0;"
		   " iif lo tcp flags & (syn|ack) == syn mark != 0x444d drop; }; }'"))
		return -1;
	if (start_server(rig) < 0)
		return -1;
	rig->ifindex = if_nametoindex("dmmi0");
	rig->sniffer = open_sniffer();
	rig->xskmap = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "test_xsks", 4, 4, 1, NULL);
	rig->event_map = bpf_map_create(BPF_MAP_TYPE_ARRAY, "test_event", 4,
					sizeof(struct dmm_event), 1, NULL);
	rig->steer_prog = load_steer(rig->xskmap);
	return rig->steer_prog < 0 ||
	       bpf_xdp_attach(rig->ifindex, rig->steer_prog, XDP_FLAGS_DRV_MODE, NULL) < 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	bpf_xdp_detach(rig->ifindex, XDP_FLAGS_DRV_MODE, NULL);
	if (rig->server > 0) {
		kill(-rig->server, SIGKILL);
		waitpid(rig->server, NULL, 0);
	}
	free(rig);
	return 0;
}

/* --- dmmd's part --- */

static void send_message(int fd, enum dmm_msg_kind kind, const void *body, uint32_t len,
			 const int *fds, unsigned int n)
{
	struct dmm_msg head = { kind, len };
	struct iovec iov[] = { { &head, sizeof(head) }, { (void *)body, len } };
	char control[CMSG_SPACE(sizeof(int) * DMM_NUM_HANDOVER_FDS)] = { 0 };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	struct cmsghdr *c;

	if (n) {
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n);
	}
	assert_int_equal(sendmsg(fd, &msg, 0), sizeof(head) + len);
}

/* The next message's kind but STARTED; its body, NUL-terminated, in @text. -1: the line is closed. */
static int receive_message(int fd, char text[600])
{
	struct {
		struct dmm_msg head;
		char body[600];
	} in = { 0 };
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (poll(&p, 1, 20000) != 1 || recv(fd, &in, sizeof(in), 0) <= 0)
		return -1;
	if (in.head.kind == DMM_MSG_STARTED)
		return receive_message(fd, text);
	memcpy(text, in.body, 600);
	return in.head.kind;
}

static int make_raw(int family)
{
	int fd = socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW), one = 1, mark = MARK;

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)), 0);
	if (family == AF_INET)
		setsockopt(fd, IPPROTO_IP, IP_HDRINCL, &one, sizeof(one));
	else
		setsockopt(fd, IPPROTO_IPV6, 36 /* IPV6_HDRINCL */, &one, sizeof(one));
	return fd;
}

static int make_listener(int family, uint16_t *ret_port)
{
	struct sockaddr_in6 addr = { .sin6_family = family };
	socklen_t len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(addr);
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (family == AF_INET)
		((struct sockaddr_in *)&addr)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		addr.sin6_addr = in6addr_loopback;
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(listen(fd, 128), 0);
	getsockname(fd, (struct sockaddr *)&addr, &len);
	*ret_port = addr.sin6_port;
	return fd;
}

static int make_control(struct instance *in)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(sa_family_t)), 0);
	assert_int_equal(listen(fd, 4), 0);
	in->control_len = sizeof(in->control);
	getsockname(fd, (struct sockaddr *)in->control, &in->control_len);
	return fd;
}

static void make_fds(struct instance *in, int fds[DMM_NUM_HANDOVER_FDS])
{
	LIBBPF_OPTS(bpf_map_create_opts, mmapable, .map_flags = BPF_F_MMAPABLE);

	fds[DMM_FD_SHARED] = bpf_map_create(BPF_MAP_TYPE_ARRAY, "test_shared", 4,
					    sizeof(struct dmm_inst_shared), 1, &mmapable);
	fds[DMM_FD_RING] = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "test_ring", 0, 0, 65536, NULL);
	fds[DMM_FD_RELAY4] = make_listener(AF_INET, &in->relay_ports[0]);
	fds[DMM_FD_RELAY6] = make_listener(AF_INET6, &in->relay_ports[1]);
	fds[DMM_FD_RAW4] = make_raw(AF_INET);
	fds[DMM_FD_RAW6] = make_raw(AF_INET6);
	fds[DMM_FD_CONTROL] = make_control(in);
	fds[DMM_FD_QUERY] = dmm_hostsock_netlink(0);
	fds[DMM_FD_WATCH] = dmm_hostsock_netlink(1 << 20);
	fds[DMM_FD_PROBE4] = dmm_hostsock_probe(AF_INET, "dmmi0");
	fds[DMM_FD_PROBE6] = dmm_hostsock_probe(AF_INET6, "dmmi0");
	fds[DMM_FD_ROOT] = open("/proc/self/fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	in->shared = mmap(NULL, sizeof(*in->shared), PROT_READ | PROT_WRITE, MAP_SHARED,
			  fds[DMM_FD_SHARED], 0);
	assert_ptr_not_equal(in->shared, MAP_FAILED);
	in->ring = dup(fds[DMM_FD_RING]);
}

static const char *product(const char *name, char path[256])
{
	const char *folder = getenv("O");

	snprintf(path, 256, "%s/%s", folder && folder[0] ? folder : ".output", name);
	return path;
}

static void run_instance(int fd)
{
	char path[256], number[16];

	dup2(fd, 3); /* without CLOEXEC */
	snprintf(number, sizeof(number), "%d", 3);
	execl(product("dmm-stack", path), "dmm-stack", "--handover", number, NULL);
	_exit(127);
}

static void start_instance(struct rig *rig, struct instance *in, const char *plugin)
{
	struct dmm_xsk_request request = { rig->ifindex, 1, DMM_ZC_AUTO, 2048, PER_QUEUE };
	struct dmm_handover h = {
		.version = DMM_HANDOVER_VERSION,
		.fds = (1u << DMM_NUM_HANDOVER_FDS) - 1,
		.ifindex = rig->ifindex,
		.io_ifindex = rig->ifindex,
		.mtu = 1500,
		.n_queues = 1,
		.port_first = PORT_FIRST,
		.port_last = PORT_LAST,
		.uid = NOBODY,
		.gid = NOBODY,
		.frame_size = 2048,
		.n_frames = PER_QUEUE,
		.flow_memory = 128 << 10,
		.name = "test#0",
		.ifname = "dmmi0",
	};
	struct dmm_handover_xsk desc;
	uint64_t umem_size;
	int fds[DMM_NUM_HANDOVER_FDS], line[2], xsk, i, zero = 0;

	memset(in, 0, sizeof(*in));
	make_fds(in, fds);
	assert_int_equal(dmm_xsk_create(&request, &fds[DMM_FD_UMEM], &umem_size, &xsk, &desc), 0);
	h.umem_size = umem_size;
	assert_int_equal(bpf_map_update_elem(rig->xskmap, &zero, &xsk, BPF_ANY), 0);
	snprintf(h.plugin, sizeof(h.plugin), "%s", plugin);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, line), 0);
	in->pid = fork();
	if (in->pid == 0)
		run_instance(line[1]);
	rig->instance = in->pid;
	in->running = &rig->instance;
	close(line[1]);
	in->line = line[0];
	send_message(in->line, DMM_MSG_HANDOVER, &h, sizeof(h), fds, DMM_NUM_HANDOVER_FDS);
	send_message(in->line, DMM_MSG_XSK, &desc, sizeof(desc), &xsk, 1);
	send_message(in->line, DMM_MSG_START, NULL, 0, NULL, 0);
	in->feed_prog = load_feed(rig->event_map, in->ring);
	assert_true(in->feed_prog >= 0);
	for (i = 0; i < DMM_NUM_HANDOVER_FDS; i++)
		close(fds[i]);
	close(xsk);
}

static int wait_for_end(struct instance *in)
{
	int status;

	assert_int_equal(waitpid(in->pid, &status, 0), in->pid);
	*in->running = 0;
	close(in->line);
	close(in->ring);
	close(in->feed_prog);
	munmap(in->shared, sizeof(*in->shared));
	return status;
}

static void start_lwip(struct rig *rig, struct instance *in)
{
	char path[256], real[PATH_MAX], text[600];

	assert_non_null(realpath(product("stacks/lwip.so", path), real));
	start_instance(rig, in, real);
	if (receive_message(in->line, text) != DMM_MSG_READY)
		fail_msg("not ready: %s", text);
}

static void stop(struct instance *in)
{
	int status;

	send_message(in->line, DMM_MSG_STOP, NULL, 0, NULL, 0);
	status = wait_for_end(in);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- the socket door's part --- */

struct target {
	enum dmm_family family;
	uint8_t host; /* last byte of its address; ours ends in 2 */
	uint16_t port;
};

static void fill_addr(enum dmm_family family, uint8_t host, uint8_t addr[16])
{
	const uint8_t v4[4] = { 10, 78, 0, host }, v6[16] = { 0xfd, 0x78, [15] = host };

	if (family == DMM_FAMILY_V4)
		addr_from_v4(v4, addr);
	else
		memcpy(addr, v6, sizeof(v6));
}

/* Reads the held SYN off lo and gives it to the instance. */
static void hold_syn(struct rig *rig, struct instance *in, uint16_t app_port, uint16_t wire_port,
		     const struct target *to)
{
	struct dmm_event e = { .kind = DMM_EVENT_SYN, .family = to->family };
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = e.packet, .data_size_in = 64, .repeat = 1);
	struct packet p;
	uint32_t zero = 0;
	ssize_t n;

	do
		n = recv(rig->sniffer, e.packet, sizeof(e.packet), 0);
	while (n < 0 || !packet_parse(e.packet, n, &p) || p.proto != IPPROTO_TCP ||
	       e.packet[p.header + 13] != 0x02 || memcmp(e.packet + p.header, &app_port, 2));
	e.packet_len = n;
	memcpy(e.app, p.src, 16);
	memcpy(e.relay, p.dst, 16);
	fill_addr(to->family, 2, e.local);
	fill_addr(to->family, to->host, e.remote);
	e.app_port = app_port;
	e.relay_port = in->relay_ports[to->family];
	e.local_port = htons(wire_port);
	e.remote_port = htons(to->port);
	in->shared->port[wire_port - PORT_FIRST] = 1234;
	assert_int_equal(bpf_map_update_elem(rig->event_map, &zero, &e, BPF_ANY), 0);
	assert_int_equal(bpf_prog_test_run_opts(in->feed_prog, &run), 0);
}

static socklen_t relay_addr(const struct instance *in, enum dmm_family family,
			    struct sockaddr_storage *ret)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6,
				    .sin6_addr = in6addr_loopback,
				    .sin6_port = in->relay_ports[1] };
	struct sockaddr_in in4 = { .sin_family = AF_INET,
				   .sin_port = in->relay_ports[0],
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	if (family == DMM_FAMILY_V4)
		memcpy(ret, &in4, sizeof(in4));
	else
		memcpy(ret, &in6, sizeof(in6));
	return family == DMM_FAMILY_V4 ? sizeof(in4) : sizeof(in6);
}

/* An application's connect(); returns the errno it ends with, the socket in *ret_fd. */
static int app_connect(struct rig *rig, struct instance *in, uint16_t wire_port, struct target to,
		       int *ret_fd)
{
	struct sockaddr_storage relay;
	socklen_t len = relay_addr(in, to.family, &relay);
	int fd = socket(relay.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err = -1;
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	struct sockaddr_in6 own;

	*ret_fd = fd;
	connect(fd, (struct sockaddr *)&relay, len);
	len = sizeof(own);
	getsockname(fd, (struct sockaddr *)&own, &len);
	hold_syn(rig, in, own.sin6_port, wire_port, &to);
	if (poll(&p, 1, 10000) != 1)
		return ETIMEDOUT;
	len = sizeof(err);
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	fcntl(fd, F_SETFL, 0);
	return err;
}

static const struct target echo4 = { DMM_FAMILY_V4, 1, ECHO_PORT };
static const struct target echo6 = { DMM_FAMILY_V6, 1, ECHO_PORT };
static const struct target refused4 = { DMM_FAMILY_V4, 1, REFUSED_PORT };
static const struct target refused6 = { DMM_FAMILY_V6, 1, REFUSED_PORT };
static const struct target rejected = { DMM_FAMILY_V4, 1, REJECT_PORT };
static const struct target nobody4 = { DMM_FAMILY_V4, 99, ECHO_PORT };
static const struct target nobody6 = { DMM_FAMILY_V6, 99, ECHO_PORT };

/* --- tests --- */

static bool status_says(pid_t pid, const char *line)
{
	char path[64], text[4096];
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "r");
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = '\0';
	fclose(f);
	return strstr(text, line) != NULL;
}

static void an_instance_serves_without_privilege(void **state)
{
	struct instance in;
	uint64_t beat;
	char text[600];

	start_lwip(*state, &in);
	assert_true(status_says(in.pid, "Uid:\t65534\t65534\t65534\t65534"));
	assert_true(status_says(in.pid, "Groups:\t \n"));
	assert_true(status_says(in.pid, "CapPrm:\t0000000000000000"));
	assert_true(status_says(in.pid, "CapEff:\t0000000000000000"));
	assert_true(status_says(in.pid, "NoNewPrivs:\t1"));
	assert_string_equal(in.shared->last_words, "");
	beat = in.shared->beat_ns;
	while (in.shared->beat_ns == beat) /* the runner's timeout is the bound */
		usleep(10000);
	send_message(in.line, DMM_MSG_HELLO, NULL, 0, NULL, 0);
	assert_int_equal(receive_message(in.line, text), DMM_MSG_READY);
	stop(&in);
}

static void exchange(int fd, size_t total)
{
	uint8_t out[65536], back[65536];
	size_t sent = 0, got = 0, i;

	for (i = 0; i < sizeof(out); i++)
		out[i] = i * 31 + (i >> 7);
	while (got < total) {
		struct pollfd p = { .fd = fd, .events = POLLIN | (sent < total ? POLLOUT : 0) };
		size_t at = sent % sizeof(out);
		ssize_t n;

		if (poll(&p, 1, 20000) != 1)
			fail_msg("stuck after %zu sent, %zu back", sent, got);
		if (p.revents & POLLOUT) {
			n = send(fd, out + at, DMM_MIN(sizeof(out) - at, total - sent),
				 MSG_DONTWAIT | MSG_NOSIGNAL);
			sent += n > 0 ? n : 0;
		}
		n = recv(fd, back, sizeof(back), MSG_DONTWAIT);
		for (i = 0; n > 0 && i < (size_t)n; i++)
			if (back[i] != out[(got + i) % sizeof(out)])
				fail_msg("byte %zu is wrong", got + i);
		if (n == 0)
			fail_msg("end after %zu of %zu bytes", got, total);
		got += n > 0 ? n : 0;
	}
}

static void talk(struct rig *rig, struct target to)
{
	struct instance in;
	char c;
	int fd;

	start_lwip(rig, &in);
	assert_int_equal(app_connect(rig, &in, PORT_FIRST + 7, to, &fd), 0);
	assert_int_equal(in.shared->flows, 1);
	exchange(fd, 8 << 20);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	assert_int_equal(recv(fd, &c, 1, 0), 0); /* the far end's FIN, in answer to ours */
	close(fd);
	assert_int_equal(in.shared->flows_opened, 1);
	assert_int_equal(in.shared->flows_reset, 0);
	assert_true(in.shared->tx_packets > 5000);
	stop(&in);
}

static void an_application_talks_through_it(void **state)
{
	talk(*state, echo4);
}

static void an_application_talks_over_ipv6(void **state)
{
	talk(*state, echo6);
}

static void refused_is_refused(void **state)
{
	struct instance in;
	int fd;

	start_lwip(*state, &in);
	assert_int_equal(app_connect(*state, &in, PORT_FIRST, refused4, &fd), ECONNREFUSED);
	close(fd);
	assert_int_equal(in.shared->port[0], DMM_PORT_FREE);
	assert_int_equal(in.shared->flows_refused, 1);
	assert_int_equal(app_connect(*state, &in, PORT_FIRST, refused6, &fd), ECONNREFUSED);
	close(fd);
	stop(&in);
}

static void unreachable_is_unreachable(void **state)
{
	struct instance in;
	int fd;

	start_lwip(*state, &in);
	assert_int_equal(app_connect(*state, &in, PORT_FIRST, rejected, &fd), EHOSTUNREACH);
	close(fd);
	/* nobody has these addresses: the kernel's ARP and ND find that out */
	assert_int_equal(app_connect(*state, &in, PORT_FIRST, nobody4, &fd), EHOSTUNREACH);
	close(fd);
	assert_int_equal(app_connect(*state, &in, PORT_FIRST, nobody6, &fd), EHOSTUNREACH);
	close(fd);
	assert_int_equal(in.shared->flows, 0);
	stop(&in);
}

static void a_killed_instance_is_a_reset(void **state)
{
	struct instance in;
	char c;
	int fd;

	start_lwip(*state, &in);
	assert_int_equal(app_connect(*state, &in, PORT_FIRST, echo4, &fd), 0);
	exchange(fd, 100000);
	kill(in.pid, SIGKILL);
	wait_for_end(&in);
	assert_int_equal(recv(fd, &c, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	close(fd);
}

static void flows_outlive_dmmd_and_a_drain_waits_for_them(void **state)
{
	struct instance in;
	char text[600], c;
	int fd, status;

	start_lwip(*state, &in);
	assert_int_equal(app_connect(*state, &in, PORT_FIRST, echo4, &fd), 0);
	close(in.line); /* dmmd dies */
	exchange(fd, 100000);
	in.line = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(in.line, (struct sockaddr *)in.control, in.control_len), 0);
	send_message(in.line, DMM_MSG_HELLO, NULL, 0, NULL, 0);
	assert_int_equal(receive_message(in.line, text), DMM_MSG_READY);
	send_message(in.line, DMM_MSG_DRAIN, NULL, 0, NULL, 0);
	exchange(fd, 100000);
	assert_int_equal(waitpid(in.pid, &status, WNOHANG), 0);
	shutdown(fd, SHUT_WR);
	assert_int_equal(recv(fd, &c, 1, 0), 0);
	close(fd);
	status = wait_for_end(&in);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void a_missing_plugin_is_named(void **state)
{
	struct instance in;
	char text[600];
	int status;

	start_instance(*state, &in, "/nonexistent/none.so");
	assert_int_equal(receive_message(in.line, text), DMM_MSG_FAILED);
	assert_non_null(strstr(text, "/nonexistent/none.so"));
	assert_non_null(strstr(in.shared->last_words, "/nonexistent/none.so"));
	status = wait_for_end(&in);
	assert_int_equal(WEXITSTATUS(status), 1);
}

static const char crashing[] = "\
#include <stdlib.h>\n#include <dmm/stack.h>\n\
static void never(void) { }\n\
static int create(const struct dmm_stack_params *p, const struct dmm_host *h,\n\
	struct dmm_stack **ret) { (void)p; (void)h; (void)ret; abort(); }\n\
#define F (void *)never\n\
const struct dmm_stack_ops dmm_stack_plugin = {\n\
	.abi = DMM_STACK_ABI, .size = sizeof(struct dmm_stack_ops),\n\
	.name = \"crasher\", .version = \"1\", .create = create, .destroy = F, .input = F,\n\
	.tick = F, .connect = F, .send = F, .send_space = F, .recv_peek = F, .recv_done = F,\n\
	.unsent = F, .shutdown = F, .close = F, .abort = F, .set_option = F, .set_user = F,\n\
};\n";

static void a_crash_in_create_leaves_last_words(void **state)
{
	char folder[] = "/tmp/dmm-crash-XXXXXX", command[256], path[64], text[600], words[256];
	struct instance in;
	int status;
	FILE *f;

	assert_non_null(mkdtemp(folder));
	assert_int_equal(chmod(folder, 0755), 0); /* it is loaded by nobody */
	snprintf(path, sizeof(path), "%s/crash.so", folder);
	snprintf(command, sizeof(command), "cc -shared -fPIC -Iinclude -x c - -o %s", path);
	f = popen(command, "w");
	fputs(crashing, f);
	assert_int_equal(pclose(f), 0);
	start_instance(*state, &in, path);
	assert_int_equal(receive_message(in.line, text), -1);
	memcpy(words, in.shared->last_words, sizeof(words));
	status = wait_for_end(&in);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	assert_string_equal(words, "in create of plug-in 'crasher'");
	snprintf(command, sizeof(command), "rm -r %s", folder);
	assert_int_equal(system(command), 0);
}

static int kill_instance(void **state)
{
	struct rig *rig = *state;

	if (rig->instance > 0 && kill(rig->instance, SIGKILL) == 0)
		waitpid(rig->instance, NULL, 0);
	rig->instance = 0;
	return 0;
}

#define TEST(name) cmocka_unit_test_teardown(name, kill_instance)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_instance_serves_without_privilege),
		TEST(an_application_talks_through_it),
		TEST(an_application_talks_over_ipv6),
		TEST(refused_is_refused),
		TEST(unreachable_is_unreachable),
		TEST(a_killed_instance_is_a_reset),
		TEST(flows_outlive_dmmd_and_a_drain_waits_for_them),
		TEST(a_missing_plugin_is_named),
		TEST(a_crash_in_create_leaves_last_words),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
