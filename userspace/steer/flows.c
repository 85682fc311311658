/* SPDX-License-Identifier: Apache-2.0 */
/* Sweeps the flow list: entries closed for a while, and those whose socket went without a word (its
 * hooks were detached meanwhile). */
#include <errno.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>

#include "base/clock.h"
#include "base/util.h"
#include "steer/steer_internal.h"

struct cookies {
	uint64_t *items;
	size_t n;
};

static int add_cookie(struct cookies *list, uint64_t cookie)
{
	if ((list->n & (list->n - 1)) == 0) {
		uint64_t *more =
			reallocarray(list->items, list->n ? list->n * 2 : 1, sizeof(*more));

		if (!more)
			return -ENOMEM;
		list->items = more;
	}
	list->items[list->n++] = cookie;
	return 0;
}

static int compare_cookies(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static bool has_cookie(const struct cookies *list, uint64_t cookie)
{
	return list->n && bsearch(&cookie, list->items, list->n, sizeof(cookie), compare_cookies);
}

/* --- living sockets --- */

static int on_socket(const struct nlmsghdr *nlh, void *data)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	uint64_t cookie = (uint64_t)msg->id.idiag_cookie[1] << 32 | msg->id.idiag_cookie[0];

	return add_cookie(data, cookie) < 0 ? MNL_CB_ERROR : MNL_CB_OK;
}

static int dump_sockets(struct mnl_socket *nl, int family, struct cookies *ret)
{
	char buf[32768] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct inet_diag_req_v2 *req;
	int r = MNL_CB_OK;

	nlh->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	nlh->nlmsg_seq = family;
	req = mnl_nlmsg_put_extra_header(nlh, sizeof(*req));
	req->sdiag_family = family;
	req->sdiag_protocol = IPPROTO_TCP;
	req->idiag_states = UINT32_MAX;
	if (mnl_socket_sendto(nl, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	while (r > MNL_CB_STOP) {
		ssize_t n = mnl_socket_recvfrom(nl, buf, sizeof(buf));

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		errno = ENOMEM;
		r = mnl_cb_run(buf, n, family, mnl_socket_get_portid(nl), on_socket, ret);
	}
	return r < 0 ? -errno : 0;
}

static int living_sockets(struct cookies *ret)
{
	struct mnl_socket *nl = mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC);
	int r = 0;

	if (!nl)
		return -errno;
	if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0)
		r = -errno;
	if (r == 0)
		r = dump_sockets(nl, AF_INET, ret);
	if (r == 0)
		r = dump_sockets(nl, AF_INET6, ret);
	mnl_socket_close(nl);
	if (ret->n)
		qsort(ret->items, ret->n, sizeof(*ret->items), compare_cookies);
	return r;
}

/* --- the sweep --- */

struct sweep {
	uint64_t now, age;
	struct cookies closed, open; /* open: old enough for its socket to be looked for */
};

static int on_flow(void *ctx, const void *key, const void *value)
{
	const struct dmm_flow *flow = value;
	uint64_t cookie = *(const uint64_t *)key, since;
	struct sweep *s = ctx;

	since = flow->closed_ns ? flow->closed_ns : flow->opened_ns;
	if (since + s->age > s->now)
		return 0;
	if (flow->closed_ns)
		return add_cookie(&s->closed, cookie);
	return flow->proto == DMM_PROTO_TCP ? add_cookie(&s->open, cookie) : 0;
}

static void erase(struct dmm_steer *steer, uint64_t cookie)
{
	bpf_map_delete_elem(steer->map[DMM_MAP_flows], &cookie); /* may be gone by itself */
}

int dmm_steer_sweep_flows(struct dmm_steer *steer, uint64_t age_ns)
{
	struct sweep s = { .now = dmm_now_ns(), .age = age_ns };
	struct cookies living = {};
	size_t i;
	int r = dmm_map_each(steer->map[DMM_MAP_flows], sizeof(__u64), sizeof(struct dmm_flow),
			     on_flow, &s);

	for (i = 0; r == 0 && i < s.closed.n; i++)
		erase(steer, s.closed.items[i]);
	if (r == 0 && s.open.n)
		r = living_sockets(&living);
	for (i = 0; r == 0 && i < s.open.n; i++)
		if (!has_cookie(&living, s.open.items[i]))
			erase(steer, s.open.items[i]);
	free(s.closed.items);
	free(s.open.items);
	free(living.items);
	return r < 0 ? dmm_steer_fail(r, NULL, "cannot sweep the flow list") : 0;
}
