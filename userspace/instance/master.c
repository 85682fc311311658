/* SPDX-License-Identifier: Apache-2.0 */
/* The line to dmmd.
 * #syscalls accept4 close epoll_ctl getsockopt recvmsg sendmsg */
#define _GNU_SOURCE /* struct ucred, accept4() */
#include "instance/master.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "instance/watch.h"

static int send_message(int fd, enum dmm_msg_kind kind, const void *body, size_t len)
{
	struct dmm_msg head = { .kind = kind, .len = len };
	struct iovec iov[] = { { &head, sizeof(head) }, { (void *)body, len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = DMM_ARRAY_SIZE(iov) };

	return sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

int master_send_started(int fd)
{
	union {
		char buffer[CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr cmsg;
	} control = { .cmsg = {
			      .cmsg_level = SOL_SOCKET,
			      .cmsg_type = SCM_CREDENTIALS,
			      .cmsg_len = CMSG_LEN(sizeof(struct ucred)),
		      } };
	struct ucred self = { getpid(), geteuid(), getegid() };
	struct dmm_msg head = { .kind = DMM_MSG_STARTED };
	struct iovec iov = { &head, sizeof(head) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };

	memcpy(CMSG_DATA(&control.cmsg), &self, sizeof(self));
	return sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

int master_send_failed(int fd, const char *text)
{
	struct dmm_msg_text body = { 0 };

	snprintf(body.text, sizeof(body.text), "%s", text);
	return send_message(fd, DMM_MSG_FAILED, &body, sizeof(body));
}

int master_send(struct master *m, enum dmm_msg_kind kind, const void *body, size_t len)
{
	return m->fd < 0 ? -ENOTCONN : send_message(m->fd, kind, body, len);
}

static int watch(struct master *m, int fd, enum watch_kind kind)
{
	struct epoll_event event = watch_event(EPOLLIN, kind, 0);

	return epoll_ctl(m->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static void unwatch(struct master *m, int fd)
{
	epoll_ctl(m->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

int master_open(struct master *m, int epoll_fd, int fd, int listen_fd, uid_t uid)
{
	int r;

	*m = (struct master){ -1, listen_fd, epoll_fd, uid };
	if (fcntl(listen_fd, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	r = watch(m, fd, WATCH_MASTER);
	if (r < 0)
		return r;
	m->fd = fd;
	return 0;
}

void master_close(struct master *m)
{
	if (m->fd >= 0)
		close(m->fd);
	m->fd = -1;
}

/* dmmd has gone: flows go on, and its successor is welcome. */
static void lose(struct master *m)
{
	unwatch(m, m->fd);
	master_close(m);
	watch(m, m->listen_fd, WATCH_ADOPT);
}

static unsigned int take_fds(struct msghdr *msg, int fds[static DMM_MAX_SOCKETS])
{
	struct cmsghdr *c = CMSG_FIRSTHDR(msg);
	unsigned int n;

	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return 0;
	n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(c), n * sizeof(int));
	return n;
}

int master_receive(struct master *m, struct master_sockets *sockets)
{
	union {
		char buffer[CMSG_SPACE(sizeof(int) * DMM_MAX_SOCKETS)];
		struct cmsghdr align;
	} control;
	struct dmm_msg head;
	struct iovec iov[] = { { &head, sizeof(head) }, { &sockets->list, sizeof(sockets->list) } };
	struct msghdr msg = {
		.msg_iov = iov,
		.msg_iovlen = DMM_ARRAY_SIZE(iov),
		.msg_control = &control,
		.msg_controllen = CMSG_LEN(sizeof(int) * DMM_MAX_SOCKETS),
	};
	unsigned int n_fds;
	ssize_t n;

	if (m->fd < 0)
		return -EAGAIN;
	n = recvmsg(m->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	if (n <= 0) {
		lose(m);
		return -EAGAIN;
	}
	n_fds = take_fds(&msg, sockets->fds);
	if (n == sizeof(head) && n_fds == 0)
		return head.kind;
	if (n == sizeof(head) + sizeof(sockets->list) && head.kind == DMM_MSG_SOCKETS &&
	    n_fds == sockets->list.n)
		return head.kind;
	while (n_fds > 0)
		close(sockets->fds[--n_fds]);
	return -EPROTO;
}

static bool is_allowed(const struct master *m, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == m->uid;
}

void master_adopt(struct master *m)
{
	dmm_autoclose int fd = accept4(m->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0 || !is_allowed(m, fd) || watch(m, fd, WATCH_MASTER) < 0)
		return;
	unwatch(m, m->listen_fd);
	m->fd = DMM_TAKE_FD(fd);
}
