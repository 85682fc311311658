/* SPDX-License-Identifier: Apache-2.0 */
/* How much open flows have carried: the kernel keeps count while a socket lives, and tells by sock_diag. */
#include "ctl/report.h"

#include <errno.h>

#include <linux/inet_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/netlink.h"
#include "base/util.h"
#include "ctl/json.h"

#define OPEN (1u << 1 | 1u << 2 | 1u << 4 | 1u << 5 | 1u << 8 | 1u << 9 | 1u << 11)
/* TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_CLOSING: the peer's FIN is counted as a byte */
#define FIN_CAME (1u << 8 | 1u << 9 | 1u << 11)

struct bytes {
	uint64_t cookie, sent, received;
};

struct table {
	struct bytes *items;
	size_t n;
};

static int by_cookie(const void *a, const void *b)
{
	const struct bytes *x = a, *y = b;

	return x->cookie < y->cookie ? -1 : x->cookie > y->cookie;
}

static int add(struct table *table, const struct bytes *bytes)
{
	if ((table->n & (table->n - 1)) == 0) { /* room is always the next power of two */
		struct bytes *more =
			reallocarray(table->items, table->n ? table->n * 2 : 1, sizeof(*more));

		if (!more)
			return -ENOMEM;
		table->items = more;
	}
	table->items[table->n++] = *bytes;
	return 0;
}

static int on_socket(const struct nlmsghdr *nlh, void *ctx)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	struct bytes bytes = { .cookie = (uint64_t)msg->id.idiag_cookie[1] << 32 |
					 msg->id.idiag_cookie[0] };
	const struct nlattr *attr;

	mnl_attr_for_each(attr, nlh, sizeof(*msg))
	{
		struct tcp_info info = { 0 };

		if (mnl_attr_get_type(attr) != INET_DIAG_INFO)
			continue;
		memcpy(&info, mnl_attr_get_payload(attr),
		       DMM_MIN((size_t)mnl_attr_get_payload_len(attr), sizeof(info)));
		bytes.sent = info.tcpi_bytes_sent - info.tcpi_bytes_retrans;
		bytes.received = info.tcpi_bytes_received;
		if (bytes.received && FIN_CAME & 1u << msg->idiag_state)
			bytes.received--;
		return add(ctx, &bytes) < 0 ? MNL_CB_ERROR : MNL_CB_OK;
	}
	return MNL_CB_OK;
}

static int read_sockets(struct table *table)
{
	const uint8_t info = 1u << (INET_DIAG_INFO - 1);
	struct mnl_socket *nl;
	int r = dmm_netlink_open(NETLINK_SOCK_DIAG, &nl);

	if (r < 0)
		return r;
	r = dmm_netlink_tcp_sockets(nl, AF_INET, OPEN, info, on_socket, table);
	if (r == 0)
		r = dmm_netlink_tcp_sockets(nl, AF_INET6, OPEN, info, on_socket, table);
	mnl_socket_close(nl);
	if (table->n)
		qsort(table->items, table->n, sizeof(*table->items), by_cookie);
	return r;
}

static void set_bytes(struct json_object *flow, const struct table *table)
{
	struct json_object *closed, *cookie;
	struct bytes key, *found;

	if (!json_object_object_get_ex(flow, "cookie", &cookie) ||
	    (json_object_object_get_ex(flow, "closed_ms", &closed) && closed))
		return;
	key.cookie = json_object_get_uint64(cookie);
	found = bsearch(&key, table->items, table->n, sizeof(key), by_cookie);
	if (!found)
		return;
	dmm_json_set_u64(flow, "bytes_sent", found->sent);
	dmm_json_set_u64(flow, "bytes_received", found->received);
}

int dmm_report_live_bytes(struct json_object *flows)
{
	struct table table = { 0 };
	int r = read_sockets(&table);

	for (size_t i = 0; r == 0 && table.n && i < json_object_array_length(flows); i++)
		set_bytes(json_object_array_get_idx(flows, i), &table);
	free(table.items);
	return r;
}
