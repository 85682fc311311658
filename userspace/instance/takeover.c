/* SPDX-License-Identifier: Apache-2.0 */
/* The handover, received. */
#include "instance/takeover.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/util.h"

#define MAX_FDS DMM_NUM_HANDOVER_FDS

struct message {
	struct dmm_msg head;
	union {
		struct dmm_handover handover;
		struct dmm_handover_xsk xsk;
	};
};

struct received {
	struct message message;
	int fds[MAX_FDS];
	unsigned int n_fds;
};

static void collect_fds(struct msghdr *msg, struct received *ret)
{
	struct cmsghdr *c;

	for (c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		ret->n_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(ret->fds, CMSG_DATA(c), ret->n_fds * sizeof(int));
	}
}

static void close_fds(int *fds, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* One message with its descriptors. -EPROTO: cut, or not as long as it says. */
static int receive(int fd, struct received *ret)
{
	union {
		struct cmsghdr align;
		char buffer[CMSG_SPACE(sizeof(int) * MAX_FDS)];
	} control;
	struct iovec iov = { &ret->message, sizeof(ret->message) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen =
			CMSG_LEN(sizeof(int) * MAX_FDS), /* CMSG_SPACE has room for more */
	};
	ssize_t n;

	memset(ret, 0, sizeof(*ret));
	do
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n == 0)
		return -ECONNRESET;
	collect_fds(&msg, ret);
	if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || (size_t)n < sizeof(struct dmm_msg) ||
	    n - sizeof(struct dmm_msg) != ret->message.head.len) {
		close_fds(ret->fds, ret->n_fds);
		return -EPROTO;
	}
	return 0;
}

static bool is_text(const char *s, size_t room)
{
	return memchr(s, '\0', room) != NULL;
}

#define REFUSE(...)                                                                                \
	do {                                                                                       \
		snprintf(text, len, __VA_ARGS__);                                                  \
		return -EPROTO;                                                                    \
	} while (0)

static int judge(const struct dmm_handover *h, char *text, size_t len)
{
	if (h->version != DMM_HANDOVER_VERSION)
		REFUSE("handover version %u, this dmm-stack knows %u", h->version,
		       DMM_HANDOVER_VERSION);
	if ((h->fds | DMM_FDS_OPTIONAL) != (1u << DMM_NUM_HANDOVER_FDS) - 1)
		REFUSE("handover with descriptors %#x", h->fds);
	if (h->n_queues == 0 || h->n_queues > DMM_MAX_QUEUES)
		REFUSE("handover with %u queues", h->n_queues);
	if (h->port_first == 0 || h->port_last > 65535 || h->port_first > h->port_last ||
	    h->port_last - h->port_first >= DMM_MAX_PORTS)
		REFUSE("handover with ports %u-%u", h->port_first, h->port_last);
	if (h->mtu < 576 || h->mtu > 65535)
		REFUSE("handover with an MTU of %u", h->mtu);
	if (h->umem_size != (uint64_t)h->frame_size * h->n_frames)
		REFUSE("handover of %u frames of %u bytes in %llu bytes", h->n_frames,
		       h->frame_size, (unsigned long long)h->umem_size);
	if (h->poll != DMM_POLL_ADAPTIVE && h->poll != DMM_POLL_BUSY)
		REFUSE("handover with poll mode %u", h->poll);
	if (h->flow_memory == 0)
		REFUSE("handover with no memory for flows");
	if (!is_text(h->plugin, sizeof(h->plugin)) || !is_text(h->name, sizeof(h->name)) ||
	    !is_text(h->ifname, sizeof(h->ifname)))
		REFUSE("handover with a text that does not end");
	return 0;
}

static int take_handover(struct received *in, struct takeover *t, char *text, size_t len)
{
	const struct dmm_handover *h = &in->message.handover;
	unsigned int expected;
	int r;

	if (in->message.head.len != sizeof(*h) || t->params.version)
		REFUSE("handover message of %u bytes, or a second one", in->message.head.len);
	r = judge(h, text, len);
	if (r < 0)
		return r;
	expected = __builtin_popcount(h->fds);
	if (in->n_fds != expected)
		REFUSE("handover with %u descriptors instead of %u", in->n_fds, expected);
	t->params = *h;
	for (unsigned int i = 0, next = 0; i < DMM_NUM_HANDOVER_FDS; i++)
		if (h->fds & 1u << i)
			t->fds[i] = in->fds[next++];
	in->n_fds = 0;
	return 0;
}

static int take_xsk(struct received *in, struct takeover *t, char *text, size_t len)
{
	const struct dmm_handover_xsk *xsk = &in->message.xsk;

	if (in->message.head.len != sizeof(*xsk) || in->n_fds != 1)
		REFUSE("xsk message of %u bytes with %u descriptors", in->message.head.len,
		       in->n_fds);
	if (xsk->queue != t->n_queues || xsk->queue >= t->params.n_queues)
		REFUSE("xsk of queue %u out of order", xsk->queue);
	t->xsks[t->n_queues] = *xsk;
	t->xsk_fds[t->n_queues++] = in->fds[0];
	in->n_fds = 0;
	return 0;
}

static int take(struct received *in, struct takeover *t, char *text, size_t len)
{
	switch (in->message.head.kind) {
	case DMM_MSG_HANDOVER:
		return take_handover(in, t, text, len);
	case DMM_MSG_XSK:
		return take_xsk(in, t, text, len);
	case DMM_MSG_START:
		if (!t->params.version || t->n_queues != t->params.n_queues)
			REFUSE("start after %u of %u queues", t->n_queues, t->params.n_queues);
		return 1;
	default:
		REFUSE("message %u during the handover", in->message.head.kind);
	}
}

int takeover_receive(int fd, struct takeover *ret, char *reterr_text, size_t text_len)
{
	struct takeover t = { 0 };
	struct received in;
	int r = 0;

	memset(t.fds, 0xff, sizeof(t.fds));
	memset(t.xsk_fds, 0xff, sizeof(t.xsk_fds));
	while (r == 0) {
		r = receive(fd, &in);
		if (r < 0) {
			snprintf(reterr_text, text_len, "handover: %s", strerror(-r));
			break;
		}
		r = take(&in, &t, reterr_text, text_len);
		close_fds(in.fds, in.n_fds);
	}
	if (r < 0) {
		takeover_close(&t);
		return r;
	}
	*ret = t;
	return 0;
}

void takeover_close(struct takeover *takeover)
{
	close_fds(takeover->fds, DMM_NUM_HANDOVER_FDS);
	close_fds(takeover->xsk_fds, DMM_MAX_QUEUES);
	memset(takeover->fds, 0xff, sizeof(takeover->fds));
	memset(takeover->xsk_fds, 0xff, sizeof(takeover->xsk_fds));
}
