/* SPDX-License-Identifier: Apache-2.0 */
/* The instance's line to dmmd: the socketpair it was started with, and after that dmmd's death
 * whoever connects to its control socket next, one at a time. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include <dmm/abi/handover.h>

struct master {
	int fd;	       /* -1: dmmd is gone */
	int listen_fd; /* borrowed */
	int epoll_fd;
	uid_t uid; /* who may be dmmd, beside the one who started us */
};

/* Takes @fd over on success. */
int master_open(struct master *m, int epoll_fd, int fd, int listen_fd, uid_t uid);
void master_close(struct master *m);

int master_send(struct master *m, enum dmm_msg_kind kind, const void *body, size_t len);
/* Before master_open(): who this is, for a dmmd that did not fork it. */
int master_send_started(int fd);
int master_send_failed(int fd, const char *text);
struct master_sockets {
	struct dmm_msg_sockets list;
	int fds[DMM_MAX_SOCKETS];
};

/* The next message from dmmd: its kind, or negative errno; -EAGAIN: none, or dmmd has gone. With
 * DMM_MSG_SOCKETS the descriptors of @sockets are the caller's. */
int master_receive(struct master *m, struct master_sockets *sockets);
/* Somebody connected. */
void master_adopt(struct master *m);
