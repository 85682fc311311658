/* SPDX-License-Identifier: Apache-2.0 */
/* The xsk backend on a real veth pair in a network namespace of its own: the privileged half makes
 * the sockets, an unprivileged child takes them over and echoes, an AF_PACKET socket on the peer
 * checks that every frame comes back once, in order, by both queues. */
#define _GNU_SOURCE
#include "pktio/xsk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include "base/util.h"
#include "policy/policy.h"

#define QUEUES	   2
#define PER_QUEUE  512
#define FRAMES	   100000u
#define WINDOW	   128u
#define TEST_PROTO 0x88b5 /* IEEE: for local experiments */

struct rig {
	uint32_t ifindex, peer;
	int map_fd, prog_fd;
	int packet_fd; /* on the peer */
};

struct test_frame {
	struct ethhdr eth;
	uint32_t queue, seq;
	uint8_t fill[40];
};

/* r0 = bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS) */
static int load_redirect(int map_fd)
{
	struct bpf_insn insns[] = {
		{ .code = BPF_LDX | BPF_MEM | BPF_W,
		  .dst_reg = 2,
		  .src_reg = 1,
		  .off = offsetof(struct xdp_md, rx_queue_index) },
		{ .code = BPF_LD | BPF_DW | BPF_IMM,
		  .dst_reg = 1,
		  .src_reg = BPF_PSEUDO_MAP_FD,
		  .imm = map_fd },
		{ 0 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 3, .imm = XDP_PASS },
		{ .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect_map },
		{ .code = BPF_JMP | BPF_EXIT },
	};

	return bpf_prog_load(BPF_PROG_TYPE_XDP, "test_redirect", "GPL", insns,
			     DMM_ARRAY_SIZE(insns), NULL);
}

static int open_packet(uint32_t ifindex)
{
	struct sockaddr_ll addr = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(TEST_PROTO),
		.sll_ifindex = ifindex,
	};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(TEST_PROTO));
	int size = 8 << 20, one = 1;

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)), 0);
	assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	*state = rig;
	if (!rig || unshare(CLONE_NEWNET) < 0)
		return -1;
	if (system("ip link add dmmx0 numrxqueues 2 numtxqueues 2 type veth"
		   "	peer name dmmx1 numrxqueues 2 numtxqueues 2 &&"
		   " sysctl -qw net.ipv6.conf.all.disable_ipv6=1 &&"
		   " ip link set dmmx0 up && ip link set dmmx1 up") != 0)
		return -1;
	rig->ifindex = if_nametoindex("dmmx0");
	rig->peer = if_nametoindex("dmmx1");
	rig->map_fd = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "test_xsks", 4, 4, QUEUES, NULL);
	rig->prog_fd = load_redirect(rig->map_fd);
	if (rig->map_fd < 0 || rig->prog_fd < 0)
		return -1;
	if (bpf_xdp_attach(rig->ifindex, rig->prog_fd, XDP_FLAGS_DRV_MODE, NULL) < 0)
		return -1;
	rig->packet_fd = open_packet(rig->peer);
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	bpf_xdp_detach(rig->ifindex, XDP_FLAGS_DRV_MODE, NULL);
	close(rig->packet_fd);
	close(rig->prog_fd);
	close(rig->map_fd);
	free(rig);
	return 0;
}

static struct dmm_xsk_request request_for(const struct rig *rig, int zerocopy)
{
	return (struct dmm_xsk_request){
		.ifindex = rig->ifindex,
		.n_queues = QUEUES,
		.zerocopy = zerocopy,
		.frame_size = 2048,
		.frames_per_queue = PER_QUEUE,
	};
}

struct created {
	uint32_t ifindex;
	int umem_fd, fds[QUEUES];
	uint64_t umem_size;
	struct dmm_handover_xsk descs[QUEUES];
};

static int create(const struct rig *rig, int zerocopy, struct created *ret)
{
	struct dmm_xsk_request request = request_for(rig, zerocopy);

	ret->ifindex = rig->ifindex;
	return dmm_xsk_create(&request, &ret->umem_fd, &ret->umem_size, ret->fds, ret->descs);
}

static struct dmm_pktio *open_created(const struct created *c)
{
	struct dmm_xsk_open args = {
		.umem_fd = c->umem_fd,
		.umem_size = c->umem_size,
		.frame_size = 2048,
		.n_frames = PER_QUEUE * QUEUES,
		.n_queues = QUEUES,
		.ifindex = c->ifindex,
		.mtu = 1500,
		.xsk_fds = c->fds,
		.descs = c->descs,
	};
	struct dmm_pktio *io;

	return dmm_xsk_open(&args, &io) == 0 ? io : NULL;
}

static void close_created(struct created *c)
{
	int i;

	close(c->umem_fd);
	for (i = 0; i < QUEUES; i++)
		close(c->fds[i]);
}

static unsigned int count_fds(void)
{
	unsigned int n = 0;
	int fd;

	for (fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void queue_has_one_owner(void **state)
{
	struct created first, second;
	struct dmm_pktio *io;
	unsigned int before;

	assert_int_equal(create(*state, DMM_ZC_AUTO, &first), 0);
	io = open_created(&first); /* only now bound, where the kernel is old */
	assert_non_null(io);
	before = count_fds();
	assert_int_equal(create(*state, DMM_ZC_AUTO, &second), -EBUSY);
	assert_int_equal(count_fds(), before);
	io->ops->close(io);
}

static void zerocopy_required_but_absent_is_an_error(void **state)
{
	unsigned int before = count_fds();
	struct created c;

	/* veth has no zero-copy */
	assert_int_equal(create(*state, DMM_ZC_REQUIRE, &c), -EOPNOTSUPP);
	assert_int_equal(count_fds(), before);
}

static void modes_got_are_told(void **state)
{
	struct dmm_pktio_caps caps;
	struct dmm_pktio *io;
	struct created c;
	int i;

	assert_int_equal(create(*state, DMM_ZC_AUTO, &c), 0);
	for (i = 0; i < QUEUES; i++)
		assert_int_equal(c.descs[i].flags & ~DMM_XSK_UNBOUND,
				 DMM_XSK_NEED_WAKEUP | DMM_XSK_NATIVE);
	/* sealed: the holder cannot shrink it under the kernel */
	assert_int_equal(ftruncate(c.umem_fd, 4096), -1);
	io = open_created(&c);
	assert_non_null(io);
	io->ops->caps(io, &caps);
	assert_string_equal(caps.mode, "native");
	assert_string_equal(caps.copy, "copy");
	assert_int_equal(caps.queues, QUEUES);
	io->ops->close(io);
}

static void wrong_arguments_leave_the_descriptors_alone(void **state)
{
	struct created c;

	assert_int_equal(create(*state, DMM_ZC_OFF, &c), 0);
	c.descs[1].rx_size = 3;
	assert_null(open_created(&c));
	c.descs[1].rx_size = 1 << 19; /* larger than the ring that is there */
	assert_null(open_created(&c));
	assert_true(fcntl(c.fds[1], F_GETFD) >= 0);
	close_created(&c);
}

/* --- the unprivileged child --- */

static void become_nobody(void)
{
	if (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		_exit(90);
}

static void echo_batch(struct dmm_pktio *io, const struct dmm_frame *in, unsigned int n)
{
	struct dmm_frame out[DMM_PKTIO_BATCH];
	unsigned int i, got, sent;

	got = io->ops->alloc(io, out, n);
	for (i = 0; i < got; i++) {
		memcpy(out[i].data, in[i].data, in[i].len);
		out[i].len = in[i].len;
		out[i].queue = in[i].queue;
		((struct test_frame *)out[i].data)->queue = in[i].queue;
	}
	sent = io->ops->tx_burst(io, out, got);
	io->ops->free(io, out + sent, got - sent);
	io->ops->free(io, in, n);
}

/* Everything the kernel still holds is in the fill rings, once the rest has been reaped. */
static int judge(struct dmm_pktio *io)
{
	struct dmm_xsk_census c;
	int i;

	for (i = 0; i < 100; i++) {
		struct dmm_frame in[DMM_PKTIO_BATCH];
		unsigned int n = io->ops->rx_burst(io, in, DMM_PKTIO_BATCH);

		io->ops->free(io, in, n);
		io->ops->flush(io);
		dmm_xsk_census(io, &c);
		if (c.kernel == QUEUES * PER_QUEUE / 2)
			break;
		usleep(10000);
	}
	if (c.errors)
		return 91;
	if (c.out)
		return 92;
	return c.kernel == QUEUES * PER_QUEUE / 2 && c.idle == QUEUES * PER_QUEUE / 2 ? 0 : 93;
}

static void run_echo(const struct created *c, int stop_fd)
{
	struct dmm_frame in[DMM_PKTIO_BATCH];
	struct pollfd fds[QUEUES + 1];
	struct dmm_pktio *io;
	int i, raw[QUEUES];

	become_nobody();
	io = open_created(c);
	if (!io || io->ops->wait_fds(io, raw, QUEUES) != QUEUES)
		_exit(94);
	if (write(stop_fd, "r", 1) != 1)
		_exit(95);
	for (i = 0; i < QUEUES; i++)
		fds[i] = (struct pollfd){ .fd = raw[i], .events = POLLIN };
	fds[QUEUES] = (struct pollfd){ .fd = stop_fd, .events = POLLIN };
	while (!(fds[QUEUES].revents & (POLLIN | POLLHUP))) {
		unsigned int n = io->ops->rx_burst(io, in, DMM_PKTIO_BATCH);

		if (n > 0)
			echo_batch(io, in, n);
		io->ops->flush(io);
		poll(fds, QUEUES + 1, n > 0 ? 0 : 100);
	}
	_exit(judge(io));
}

/* --- the peer --- */

static void pin_to_cpu(unsigned int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	(void)!sched_setaffinity(0, sizeof(set), &set);
}

static void send_frame(const struct rig *rig, uint32_t seq)
{
	struct test_frame f = { .eth.h_proto = htons(TEST_PROTO), .queue = 99, .seq = seq };
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = rig->peer };

	memset(f.eth.h_dest, 0xff, sizeof(f.eth.h_dest));
	while (sendto(rig->packet_fd, &f, sizeof(f), 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		assert_int_equal(errno, ENOBUFS);
}

struct seen {
	uint32_t total, by_queue[QUEUES];
	uint32_t next; /* a queue keeps order, and one CPU sends by one queue */
};

static bool take_echo(const struct rig *rig, struct seen *seen)
{
	struct pollfd p = { .fd = rig->packet_fd, .events = POLLIN };
	struct sockaddr_ll from;
	socklen_t len = sizeof(from);
	struct test_frame f;

	if (poll(&p, 1, 5000) != 1)
		return false;
	assert_int_equal(recvfrom(rig->packet_fd, &f, sizeof(f), 0, (struct sockaddr *)&from, &len),
			 sizeof(f));
	if (from.sll_pkttype == PACKET_OUTGOING)
		return true;
	assert_int_equal(f.seq, seen->next);
	assert_in_range(f.queue, 0, QUEUES - 1);
	seen->next++;
	seen->total++;
	seen->by_queue[f.queue]++;
	return true;
}

/* PACKET_QDISC_BYPASS sends by the queue of the CPU, so each half of the frames takes one queue. */
static void exchange(const struct rig *rig, struct seen *seen)
{
	uint32_t sent = 0;
	unsigned int half;

	for (half = 0; half < 2; half++) {
		uint32_t until = FRAMES / 2 * (half + 1);

		pin_to_cpu(half);
		while (seen->total < until) {
			while (sent < until && sent - seen->total < WINDOW)
				send_frame(rig, sent++);
			if (!take_echo(rig, seen))
				fail_msg("%u sent, only %u came back", sent, seen->total);
		}
	}
}

static void every_frame_comes_back_once(void **state)
{
	struct rig *rig = *state;
	struct seen seen = { 0 };
	struct created c;
	int stop[2], status;
	char ready;
	uint32_t i;
	pid_t pid;

	assert_int_equal(create(rig, DMM_ZC_AUTO, &c), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, stop), 0);
	for (i = 0; i < QUEUES; i++)
		assert_int_equal(bpf_map_update_elem(rig->map_fd, &i, &c.fds[i], BPF_ANY), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(stop[1]);
		run_echo(&c, stop[0]);
	}
	close_created(&c); /* as dmmd does: the child lives on its own copies */
	close(stop[0]);
	assert_int_equal(read(stop[1], &ready, 1), 1); /* its fill rings are full */
	exchange(rig, &seen);
	close(stop[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_int_equal(seen.total, FRAMES);
	if (sysconf(_SC_NPROCESSORS_ONLN) > 1)
		for (i = 0; i < QUEUES; i++)
			assert_true(seen.by_queue[i] > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(queue_has_one_owner),
		cmocka_unit_test(zerocopy_required_but_absent_is_an_error),
		cmocka_unit_test(modes_got_are_told),
		cmocka_unit_test(wrong_arguments_leave_the_descriptors_alone),
		cmocka_unit_test(every_frame_comes_back_once),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
