/* SPDX-License-Identifier: Apache-2.0 */
/* What an instance is given: made here with privilege and in dmmd's network namespace. */
#define _GNU_SOURCE
#include "dmmd/parcel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/hostsock.h"
#include "base/unixsock.h"
#include "base/sockopt.h"
#include "base/util.h"
#include "dmmd/dmmd.h"
#include "dmmd/inst.h"
#include "dmmd/rawsock.h"

#define RELAY_BACKLOG 4096
/* Of changes of addresses, routes and neighbours. */
#define WATCH_RCVBUF (1 << 20)

void dmmd_parcel_init(struct dmmd_parcel *parcel)
{
	memset(parcel, 0, sizeof(*parcel));
	for (size_t i = 0; i < DMM_ARRAY_SIZE(parcel->fds); i++)
		parcel->fds[i] = -1;
	for (size_t i = 0; i < DMM_ARRAY_SIZE(parcel->xsks); i++)
		parcel->xsks[i] = -1;
}

static void close_fds(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

void dmmd_parcel_close(struct dmmd_parcel *parcel)
{
	close_fds(parcel->fds, DMM_ARRAY_SIZE(parcel->fds));
	close_fds(parcel->xsks, DMM_ARRAY_SIZE(parcel->xsks));
}

/* --- the relay's listeners --- */

static int relay_bind(int fd, int family, uint16_t *ret_port)
{
	struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in sin = { .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr *sa = family == AF_INET ? (struct sockaddr *)&sin
						: (struct sockaddr *)&sin6;
	socklen_t len = family == AF_INET ? sizeof(sin) : sizeof(sin6);

	if (bind(fd, sa, len) < 0 || getsockname(fd, sa, &len) < 0)
		return -errno;
	*ret_port = family == AF_INET ? sin.sin_port : sin6.sin6_port;
	return 0;
}

static int relay_listen(int family, int *ret_fd, uint16_t *ret_port)
{
	dmm_autoclose int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	uint16_t port = 0;
	int r;

	if (fd < 0)
		return -errno;
	r = dmm_set_sockopt(fd, SOL_SOCKET, SO_RCVBUF, DMMD_RELAY_BUFFER);
	if (r == 0)
		r = dmm_set_sockopt(fd, SOL_SOCKET, SO_SNDBUF, DMMD_RELAY_BUFFER);
	if (r == 0 && family == AF_INET6)
		r = dmm_set_sockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (r == 0 && family == AF_INET6) /* ::1 may be switched off: then nobody connects */
		r = dmm_set_sockopt(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1);
	if (r == 0)
		r = relay_bind(fd, family, &port);
	if (r == 0 && listen(fd, RELAY_BACKLOG) < 0)
		r = -errno;
	if (r < 0)
		return r;
	*ret_port = port;
	*ret_fd = DMM_TAKE_FD(fd);
	return 0;
}

static int open_relay(struct dmmd_parcel *parcel)
{
	int r = relay_listen(AF_INET, &parcel->fds[DMM_FD_RELAY4],
			     &parcel->relay_port[DMM_FAMILY_V4]);

	if (r == 0)
		r = relay_listen(AF_INET6, &parcel->fds[DMM_FD_RELAY6],
				 &parcel->relay_port[DMM_FAMILY_V6]);
	return r == -EAFNOSUPPORT ? 0 : r; /* without IPv6 no application asks for it */
}

/* --- the rest --- */

static int open_raw(struct dmmd *d, struct dmmd_parcel *parcel)
{
	int raw[DMM_NUM_FAMILIES], r = dmmd_raw_open(d, raw);

	if (r < 0)
		return r;
	parcel->fds[DMM_FD_RAW4] = raw[DMM_FAMILY_V4];
	parcel->fds[DMM_FD_RAW6] = raw[DMM_FAMILY_V6];
	return 0;
}

static int open_hostsocks(const char *ifname, struct dmmd_parcel *parcel)
{
	int *fds = parcel->fds;

	fds[DMM_FD_QUERY] = dmm_hostsock_netlink(0);
	fds[DMM_FD_WATCH] = dmm_hostsock_netlink(WATCH_RCVBUF);
	fds[DMM_FD_PROBE4] = dmm_hostsock_probe(AF_INET, ifname);
	fds[DMM_FD_PROBE6] = dmm_hostsock_probe(AF_INET6, ifname);
	for (int i = DMM_FD_QUERY; i <= DMM_FD_PROBE6; i++)
		if (fds[i] < 0 && !(i == DMM_FD_PROBE6 && fds[i] == -EAFNOSUPPORT))
			return fds[i];
	return 0;
}

/* A folder that is removed already: there will never be anything in it. */
static int open_root(struct dmmd *d, int *ret_fd)
{
	dmm_autoclose int fd = -1;
	char path[PATH_MAX];
	int r = 0;

	if (snprintf(path, sizeof(path), "%s/instances/root", d->options.run_dir) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return -errno;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fchmod(fd, 0555) < 0)
		r = -errno;
	if (rmdir(path) < 0 && r == 0)
		r = -errno;
	if (r == 0)
		*ret_fd = DMM_TAKE_FD(fd);
	return r;
}

int dmmd_parcel_fill(struct dmmd_parcel *parcel, struct dmmd_inst *inst, char *text, size_t size)
{
	char path[PATH_MAX];
	int r = open_relay(parcel);

	if (r < 0)
		return dmmd_inst_fail(r, text, size, "relay listener");
	r = open_raw(inst->d, parcel);
	if (r < 0)
		return dmmd_inst_fail(r, text, size, "raw sockets");
	r = open_hostsocks(inst->spec.interface, parcel);
	if (r < 0)
		return dmmd_inst_fail(r, text, size, "sockets for routes and neighbours");
	r = open_root(inst->d, &parcel->fds[DMM_FD_ROOT]);
	if (r < 0)
		return dmmd_inst_fail(r, text, size, "empty root");
	r = dmmd_inst_control_path(inst, path);
	if (r == 0)
		r = dmm_unix_listen(path, SOCK_SEQPACKET | SOCK_NONBLOCK, 0600,
				    &parcel->fds[DMM_FD_CONTROL]);
	return r < 0 ? dmmd_inst_fail(r, text, size, path) : 0;
}

/* --- on its way --- */

int dmmd_send_message(int fd, enum dmm_msg_kind kind, const void *body, size_t len, const int *fds,
		      unsigned int n)
{
	struct dmm_msg msg = { .kind = kind, .len = len };
	struct iovec iov[] = { { &msg, sizeof(msg) }, { (void *)body, len } };
	union {
		char buf[CMSG_SPACE(sizeof(int) * DMM_MAX_SOCKETS)];
		struct cmsghdr align;
	} control = { 0 };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = len ? 2 : 1 };

	if (n > 0) {
		struct cmsghdr *cmsg = &control.align;

		mh.msg_control = control.buf;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * n);
		memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * n);
	}
	return sendmsg(fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* Sends those descriptors that there are, and says which. */
static int send_handover(int fd, struct dmmd_parcel *parcel)
{
	int fds[DMM_NUM_HANDOVER_FDS];
	unsigned int n = 0;

	for (unsigned int i = 0; i < DMM_NUM_HANDOVER_FDS; i++)
		if (parcel->fds[i] >= 0) {
			fds[n++] = parcel->fds[i];
			parcel->handover.fds |= 1u << i;
		}
	return dmmd_send_message(fd, DMM_MSG_HANDOVER, &parcel->handover, sizeof(parcel->handover),
				 fds, n);
}

int dmmd_parcel_send(struct dmmd_parcel *parcel, int fd)
{
	int r = send_handover(fd, parcel);

	for (uint32_t i = 0; i < parcel->handover.n_queues && r == 0; i++)
		r = dmmd_send_message(fd, DMM_MSG_XSK, &parcel->descs[i], sizeof(parcel->descs[i]),
				      &parcel->xsks[i], 1);
	return r < 0 ? r : dmmd_send_message(fd, DMM_MSG_START, NULL, 0, NULL, 0);
}
