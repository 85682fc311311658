/* SPDX-License-Identifier: Apache-2.0 */
/* The line between dmmd and an instance, from dmmd's end: handovers good and bad, control messages,
 * adoption by the next dmmd; and what is left of a process that dropped its privileges. */
#define _GNU_SOURCE
#include "instance/master.h"
#include "instance/privs.h"
#include "instance/takeover.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/util.h"
#include "instance/watch.h"

struct line {
	int ends[2]; /* dmmd's, the instance's */
};

static struct master_sockets sockets;

static int setup(void **state)
{
	static struct line line;

	*state = &line;
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, line.ends);
}

static int teardown(void **state)
{
	struct line *line = *state;
	int i;

	for (i = 0; i < 2; i++)
		if (line->ends[i] >= 0)
			close(line->ends[i]);
	return 0;
}

static void send_with_fds(int fd, enum dmm_msg_kind kind, const void *body, uint32_t len,
			  unsigned int n_fds)
{
	struct dmm_msg head = { kind, len };
	struct iovec iov[] = { { &head, sizeof(head) }, { (void *)body, len } };
	char control[CMSG_SPACE(sizeof(int) * 16)] = { 0 };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct cmsghdr *c;
	unsigned int i;

	if (n_fds) {
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		for (i = 0; i < n_fds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &null, sizeof(int));
	}
	assert_int_equal(sendmsg(fd, &msg, 0), sizeof(head) + len);
	close(null);
}

static struct dmm_handover good_handover(void)
{
	return (struct dmm_handover){
		.version = DMM_HANDOVER_VERSION,
		.fds = (1u << DMM_NUM_HANDOVER_FDS) - 1,
		.n_queues = 2,
		.mtu = 1500,
		.port_first = 20000,
		.port_last = 20999,
		.frame_size = 2048,
		.n_frames = 512,
		.umem_size = 512 * 2048,
		.flow_memory = 65536,
		.plugin = "/x/lwip.so",
		.name = "fast#0",
		.ifname = "eth9",
	};
}

static void send_xsk(int fd, uint32_t queue)
{
	struct dmm_handover_xsk xsk = { .queue = queue };

	send_with_fds(fd, DMM_MSG_XSK, &xsk, sizeof(xsk), 1);
}

static unsigned int count_fds(void)
{
	unsigned int n = 0;
	int fd;

	for (fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void a_handover_is_received(void **state)
{
	struct line *line = *state;
	struct dmm_handover h = good_handover();
	unsigned int before = count_fds();
	struct takeover t;
	char text[256];

	send_with_fds(line->ends[0], DMM_MSG_HANDOVER, &h, sizeof(h), DMM_NUM_HANDOVER_FDS);
	send_xsk(line->ends[0], 0);
	send_xsk(line->ends[0], 1);
	send_with_fds(line->ends[0], DMM_MSG_START, NULL, 0, 0);
	assert_int_equal(takeover_receive(line->ends[1], &t, text, sizeof(text)), 0);
	assert_string_equal(t.params.name, "fast#0");
	assert_int_equal(count_fds(), before + DMM_NUM_HANDOVER_FDS + 2);
	assert_int_equal(fcntl(t.xsk_fds[1], F_GETFD), FD_CLOEXEC);
	takeover_close(&t);
	assert_int_equal(count_fds(), before);
}

static void a_kernel_without_ipv6_hands_over_less(void **state)
{
	struct line *line = *state;
	struct dmm_handover h = good_handover();
	struct takeover t;
	char text[256];

	h.n_queues = 1;
	h.fds &= ~DMM_FDS_OPTIONAL;
	send_with_fds(line->ends[0], DMM_MSG_HANDOVER, &h, sizeof(h), DMM_NUM_HANDOVER_FDS - 3);
	send_xsk(line->ends[0], 0);
	send_with_fds(line->ends[0], DMM_MSG_START, NULL, 0, 0);
	assert_int_equal(takeover_receive(line->ends[1], &t, text, sizeof(text)), 0);
	for (int i = 0; i < DMM_NUM_HANDOVER_FDS; i++)
		assert_true((t.fds[i] >= 0) == !(DMM_FDS_OPTIONAL & 1u << i));
	takeover_close(&t);
}

/* Sends what the test has prepared, expects refusal with this word, and that nothing leaks. */
static void assert_refused(struct line *line, unsigned int before, const char *word)
{
	struct takeover t;
	char text[256] = "";

	assert_true(takeover_receive(line->ends[1], &t, text, sizeof(text)) < 0);
	if (!strstr(text, word))
		fail_msg("'%s' does not mention '%s'", text, word);
	assert_int_equal(count_fds(), before);
}

#define REFUSED(change, word)                                                                      \
	do {                                                                                       \
		struct dmm_handover h = good_handover();                                           \
		change;                                                                            \
		send_with_fds(line->ends[0], DMM_MSG_HANDOVER, &h, sizeof(h),                      \
			      DMM_NUM_HANDOVER_FDS);                                               \
		assert_refused(line, before, word);                                                \
	} while (0)

static void wrong_values_are_refused_by_name(void **state)
{
	struct line *line = *state;
	unsigned int before = count_fds();

	REFUSED(h.version = 7, "version 7");
	REFUSED(h.fds &= ~(1u << DMM_FD_RAW4), "descriptors 0x1fdf");
	REFUSED(h.fds |= 1u << DMM_NUM_HANDOVER_FDS, "descriptors 0x3fff");
	REFUSED(h.fds &= ~DMM_FDS_OPTIONAL, "13 descriptors instead of 10");
	REFUSED(h.n_queues = 0, "0 queues");
	REFUSED(h.n_queues = DMM_MAX_QUEUES + 1, "65 queues");
	REFUSED(h.port_first = 0, "ports 0-");
	REFUSED(h.port_last = 70000, "70000");
	REFUSED(h.port_last = h.port_first - 1, "ports");
	REFUSED(h.port_first = 1000, "ports 1000-"); /* more than DMM_MAX_PORTS */
	REFUSED(h.mtu = 68, "MTU of 68");
	REFUSED(h.umem_size++, "frames");
	REFUSED(h.poll = 9, "poll mode 9");
	REFUSED(h.flow_memory = 0, "memory");
	REFUSED(memset(h.plugin, 'x', sizeof(h.plugin)), "text");
}

static void wrong_messages_are_refused(void **state)
{
	struct line *line = *state;
	unsigned int before = count_fds();
	struct dmm_handover h = good_handover();

	send_with_fds(line->ends[0], DMM_MSG_HANDOVER, &h, sizeof(h), 3);
	assert_refused(line, before, "3 descriptors");
	send_with_fds(line->ends[0], DMM_MSG_HANDOVER, &h, sizeof(h) - 1, DMM_NUM_HANDOVER_FDS);
	assert_refused(line, before, "bytes");
	send_xsk(line->ends[0], 0); /* before the handover */
	assert_refused(line, before, "out of order");
	send_with_fds(line->ends[0], DMM_MSG_START, NULL, 0, 0);
	assert_refused(line, before, "start after 0");
	send_with_fds(line->ends[0], DMM_MSG_DRAIN, NULL, 0, 0);
	assert_refused(line, before, "during the handover");
	send_with_fds(line->ends[0], DMM_MSG_HANDOVER, &h, sizeof(h), DMM_NUM_HANDOVER_FDS);
	send_xsk(line->ends[0], 1);
	assert_refused(line, before, "queue 1");
	send_with_fds(line->ends[0], DMM_MSG_START, &h, sizeof(h), 14); /* more than it can hold */
	assert_refused(line, before, "rotocol");
	close(DMM_TAKE_FD(line->ends[0]));
	assert_refused(line, before - 1, "reset");
}

/* --- the line afterwards --- */

static int listen_somewhere(struct sockaddr_un *addr, socklen_t *len)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	*len = sizeof(sa_family_t);
	assert_int_equal(bind(fd, (struct sockaddr *)addr, *len), 0); /* abstract, by the kernel */
	*len = sizeof(*addr);
	assert_int_equal(getsockname(fd, (struct sockaddr *)addr, len), 0);
	assert_int_equal(listen(fd, 4), 0);
	return fd;
}

static enum watch_kind next_watch(int epoll_fd)
{
	struct epoll_event event;

	assert_int_equal(epoll_wait(epoll_fd, &event, 1, 1000), 1);
	return watch_kind_of(&event);
}

static int connect_to(const struct sockaddr_un *addr, socklen_t len)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	assert_int_equal(connect(fd, (const struct sockaddr *)addr, len), 0);
	return fd;
}

static void the_next_dmmd_is_served(void **state)
{
	struct line *line = *state;
	struct sockaddr_un addr;
	struct dmm_msg hello = { .kind = DMM_MSG_HELLO }, answer;
	struct epoll_event event;
	struct master m;
	int epoll_fd = epoll_create1(0), listen_fd, first, second;
	socklen_t len;

	listen_fd = listen_somewhere(&addr, &len);
	assert_int_equal(master_open(&m, epoll_fd, line->ends[1], listen_fd, getuid()), 0);
	line->ends[1] = -1;
	first = connect_to(&addr, len); /* waits while the old one is there */
	assert_int_equal(epoll_wait(epoll_fd, &event, 1, 0), 0);

	close(DMM_TAKE_FD(line->ends[0])); /* dmmd dies */
	assert_int_equal(next_watch(epoll_fd), WATCH_MASTER);
	assert_int_equal(master_receive(&m, &sockets), -EAGAIN);
	assert_int_equal(master_send(&m, DMM_MSG_READY, NULL, 0), -ENOTCONN);
	assert_int_equal(next_watch(epoll_fd), WATCH_ADOPT);
	master_adopt(&m);
	second = connect_to(&addr, len);
	assert_int_equal(epoll_wait(epoll_fd, &event, 1, 0), 0); /* one at a time */

	assert_int_equal(send(first, &hello, sizeof(hello), 0), sizeof(hello));
	assert_int_equal(next_watch(epoll_fd), WATCH_MASTER);
	assert_int_equal(master_receive(&m, &sockets), DMM_MSG_HELLO);
	assert_int_equal(master_send(&m, DMM_MSG_READY, NULL, 0), 0);
	assert_int_equal(recv(first, &answer, sizeof(answer), 0), sizeof(answer));
	assert_int_equal(answer.kind, DMM_MSG_READY);
	assert_int_equal(send(first, "x", 1, 0), 1);
	assert_int_equal(master_receive(&m, &sockets), -EPROTO);
	close(first);
	close(second);
	master_close(&m);
	close(listen_fd);
	close(epoll_fd);
}

static void strangers_are_not_served(void **state)
{
	struct line *line = *state;
	struct sockaddr_un addr;
	struct master m;
	int epoll_fd = epoll_create1(0), listen_fd, fd;
	socklen_t len;
	char c;

	listen_fd = listen_somewhere(&addr, &len);
	assert_int_equal(master_open(&m, epoll_fd, line->ends[1], listen_fd, getuid() + 1), 0);
	line->ends[1] = -1;
	close(DMM_TAKE_FD(line->ends[0]));
	assert_int_equal(master_receive(&m, &sockets), -EAGAIN);
	fd = connect_to(&addr, len);
	assert_int_equal(next_watch(epoll_fd), WATCH_ADOPT);
	master_adopt(&m);
	assert_int_equal(recv(fd, &c, 1, 0), 0);
	assert_int_equal(m.fd, -1);
	close(fd);
	close(listen_fd);
	close(epoll_fd);
}

/* --- privileges --- */

static int try_as_dropped(void)
{
	struct rlimit core;

	if (privs_lower(0, 0) < 0 || privs_drop() < 0)
		return 1;
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1 || prctl(PR_GET_DUMPABLE) != 0)
		return 2;
	if (getrlimit(RLIMIT_CORE, &core) < 0 || core.rlim_max != 0)
		return 3;
	if (socket(AF_INET, SOCK_RAW, IPPROTO_RAW) >= 0) /* needs CAP_NET_RAW */
		return 4;
	return 0;
}

static void privileges_are_gone(void **state)
{
	pid_t pid = fork();
	int status;

	(void)state;
	if (pid == 0)
		_exit(try_as_dropped());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_handover_is_received),		TEST(a_kernel_without_ipv6_hands_over_less),
		TEST(wrong_values_are_refused_by_name), TEST(wrong_messages_are_refused),
		TEST(the_next_dmmd_is_served),		TEST(strangers_are_not_served),
		cmocka_unit_test(privileges_are_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
