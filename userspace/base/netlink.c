/* SPDX-License-Identifier: Apache-2.0 */
/* One question, one answer of any number of packets. */
#include "base/netlink.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>

int dmm_netlink_open(int bus, struct mnl_socket **ret)
{
	struct mnl_socket *nl = mnl_socket_open2(bus, SOCK_CLOEXEC);
	int r;

	if (!nl)
		return -errno;
	if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0) {
		r = -errno;
		mnl_socket_close(nl);
		return r;
	}
	*ret = nl;
	return 0;
}

int dmm_netlink_ask(struct mnl_socket *nl, struct nlmsghdr *request, mnl_cb_t cb, void *ctx)
{
	char buf[32768]
		__attribute__((aligned(8))); /* what the kernel fills a dump's packets up to */
	bool dump = request->nlmsg_flags & NLM_F_DUMP;
	unsigned int port = mnl_socket_get_portid(nl);
	static unsigned int seq;
	int r;

	request->nlmsg_seq = ++seq; /* tells this answer from what is left of an earlier one */
	if (mnl_socket_sendto(nl, request, request->nlmsg_len) < 0)
		return -errno;
	do {
		ssize_t n = mnl_socket_recvfrom(nl, buf, sizeof(buf));

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		errno = ENOMEM;
		r = mnl_cb_run(buf, n, seq, port, cb, ctx);
	} while (r > MNL_CB_STOP && dump);
	return r < 0 ? -errno : 0;
}

static int ask_for_sockets(struct mnl_socket *nl, int family, uint32_t states, mnl_cb_t cb,
			   void *ctx)
{
	char buf[MNL_NLMSG_HDRLEN + sizeof(struct inet_diag_req_v2)];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct inet_diag_req_v2 *req;

	nlh->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	req = mnl_nlmsg_put_extra_header(nlh, sizeof(*req));
	req->sdiag_family = family;
	req->sdiag_protocol = IPPROTO_TCP;
	req->idiag_states = states;
	return dmm_netlink_ask(nl, nlh, cb, ctx);
}

int dmm_netlink_tcp_sockets(uint32_t states, mnl_cb_t cb, void *ctx)
{
	struct mnl_socket *nl;
	int r = dmm_netlink_open(NETLINK_SOCK_DIAG, &nl);

	if (r < 0)
		return r;
	r = ask_for_sockets(nl, AF_INET, states, cb, ctx);
	if (r == 0)
		r = ask_for_sockets(nl, AF_INET6, states, cb, ctx);
	mnl_socket_close(nl);
	return r;
}

void dmm_netlink_addr(uint8_t ret[16], int family, const uint32_t addr[4])
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	if (family == AF_INET6) {
		memcpy(ret, addr, 16);
		return;
	}
	memcpy(ret, mapped, sizeof(mapped));
	memcpy(ret + sizeof(mapped), addr, 4);
}
