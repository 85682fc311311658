/* SPDX-License-Identifier: Apache-2.0 */
/* Takes the picture: dumps of addresses and of the main and local routing tables. */
#include <errno.h>

#include <linux/if_addr.h>
#include <linux/rtnetlink.h>

#include "base/netlink.h"
#include "base/util.h"
#include "steer/mirror_internal.h"

#ifndef NETLINK_GET_STRICT_CHK
#define NETLINK_GET_STRICT_CHK 12
#endif

void dmm_mirror_picture_free(struct dmm_mirror_picture *picture)
{
	free(picture->addrs);
	free(picture->routes);
	free(picture->locals);
	memset(picture, 0, sizeof(*picture));
}

/* Room for one more at the end of a list, zeroed; NULL: no memory. */
#define APPEND(list, n)                                                                            \
	({                                                                                         \
		__typeof__(list) more_ = dmm_room_for_one(list, n, sizeof(*(list)));               \
		if (more_) {                                                                       \
			(list) = more_;                                                            \
			more_ += (n)++;                                                            \
			memset(more_, 0, sizeof(*more_));                                          \
		}                                                                                  \
		more_;                                                                             \
	})

static void map_v4(uint8_t ret[16], const void *v4)
{
	memset(ret, 0, 10);
	memset(ret + 10, 0xff, 2);
	memcpy(ret + 12, v4, 4);
}

static bool read_addr(const struct nlattr *attr, bool v6, uint8_t ret[16])
{
	if (mnl_attr_get_payload_len(attr) != (v6 ? 16 : 4))
		return false;
	if (v6)
		memcpy(ret, mnl_attr_get_payload(attr), 16);
	else
		map_v4(ret, mnl_attr_get_payload(attr));
	return true;
}

static bool known_family(unsigned int family)
{
	return family == AF_INET || family == AF_INET6;
}

/* --- addresses --- */

static int on_addr(const struct nlmsghdr *nlh, void *data)
{
	const struct ifaddrmsg *msg = mnl_nlmsg_get_payload(nlh);
	struct dmm_mirror_picture *picture = data;
	struct dmm_mirror_addr *a;
	const struct nlattr *attr;
	bool local = false, v6 = msg->ifa_family == AF_INET6, found = false;

	if (nlh->nlmsg_type != RTM_NEWADDR || !known_family(msg->ifa_family))
		return MNL_CB_OK;
	a = APPEND(picture->addrs, picture->n_addrs);
	if (!a)
		return MNL_CB_ERROR;
	a->v6 = v6;
	a->len = msg->ifa_prefixlen + (v6 ? 0 : 96);
	a->scope = msg->ifa_scope;
	a->flags = msg->ifa_flags;
	a->ifindex = msg->ifa_index;
	mnl_attr_for_each(attr, nlh, sizeof(*msg))
	{
		switch (mnl_attr_get_type(attr)) {
		case IFA_LOCAL: /* differs from IFA_ADDRESS, the peer's, on point-to-point links */
			local = found = read_addr(attr, v6, a->addr);
			break;
		case IFA_ADDRESS:
			if (!local)
				found = read_addr(attr, v6, a->addr);
			break;
		case IFA_FLAGS:
			a->flags = mnl_attr_get_u32(attr);
			break;
		}
	}
	if (!found)
		picture->n_addrs--;
	return MNL_CB_OK;
}

/* --- routes --- */

static bool usable_hop(unsigned int flags)
{
	return !(flags & RTNH_F_DEAD);
}

static void on_multipath(const struct nlattr *paths, struct dmm_mirror_route *r)
{
	struct rtnexthop *hop = mnl_attr_get_payload(paths);
	int left = mnl_attr_get_payload_len(paths);
	const struct nlattr *attr;

	for (; RTNH_OK(hop, left); left -= NLMSG_ALIGN(hop->rtnh_len), hop = RTNH_NEXT(hop)) {
		if (!usable_hop(hop->rtnh_flags))
			continue;
		r->ifindex = hop->rtnh_ifindex;
		mnl_attr_for_each_payload(
			(void *)RTNH_DATA(hop),
			hop->rtnh_len - sizeof(*hop)) if (mnl_attr_get_type(attr) == RTA_GATEWAY)
			r->has_gateway = read_addr(attr, r->v6, r->gateway);
		return;
	}
}

static void on_route_attr(const struct nlattr *attr, struct dmm_mirror_route *r)
{
	switch (mnl_attr_get_type(attr)) {
	case RTA_DST:
		read_addr(attr, r->v6, r->dst);
		break;
	case RTA_OIF:
		r->ifindex = mnl_attr_get_u32(attr);
		break;
	case RTA_GATEWAY:
		r->has_gateway = read_addr(attr, r->v6, r->gateway);
		break;
	case RTA_PREFSRC:
		r->has_prefsrc = read_addr(attr, r->v6, r->prefsrc);
		break;
	case RTA_PRIORITY:
		r->metric = mnl_attr_get_u32(attr);
		break;
	case RTA_MULTIPATH:
		on_multipath(attr, r);
		break;
	}
}

static uint32_t table_of(const struct nlmsghdr *nlh, const struct rtmsg *msg)
{
	const struct nlattr *attr;

	mnl_attr_for_each(attr, nlh, sizeof(*msg)) if (mnl_attr_get_type(attr) ==
						       RTA_TABLE) return mnl_attr_get_u32(attr);
	return msg->rtm_table;
}

static int on_route(const struct nlmsghdr *nlh, void *data)
{
	const struct rtmsg *msg = mnl_nlmsg_get_payload(nlh);
	struct dmm_mirror_picture *picture = data;
	uint32_t table = table_of(nlh, msg);
	struct dmm_mirror_route *r;
	const struct nlattr *attr;

	if (nlh->nlmsg_type != RTM_NEWROUTE || !known_family(msg->rtm_family) ||
	    (msg->rtm_flags & RTM_F_CLONED) || msg->rtm_tos || msg->rtm_src_len)
		return MNL_CB_OK;
	if (table == RT_TABLE_LOCAL)
		r = APPEND(picture->locals, picture->n_locals);
	else if (table == RT_TABLE_MAIN)
		r = APPEND(picture->routes, picture->n_routes);
	else
		return MNL_CB_OK;
	if (!r)
		return MNL_CB_ERROR;
	r->v6 = msg->rtm_family == AF_INET6;
	r->len = msg->rtm_dst_len + (r->v6 ? 0 : 96);
	r->type = msg->rtm_type;
	r->scope = msg->rtm_scope;
	if (!r->v6)
		map_v4(r->dst, "\0\0\0\0");
	mnl_attr_for_each(attr, nlh, sizeof(*msg)) on_route_attr(attr, r);
	if (!usable_hop(msg->rtm_flags) && table == RT_TABLE_MAIN)
		picture->n_routes--; /* the kernel goes on to the next route, too */
	return MNL_CB_OK;
}

/* --- dumps --- */

struct dump {
	int type, family;
	uint32_t table; /* 0: not for routes */
	mnl_cb_t fn;
};

static void put_request(struct nlmsghdr *nlh, const struct dump *d)
{
	nlh->nlmsg_type = d->type;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	if (d->table) {
		struct rtmsg *msg = mnl_nlmsg_put_extra_header(nlh, sizeof(*msg));

		msg->rtm_family = d->family;
		mnl_attr_put_u32(nlh, RTA_TABLE, d->table);
	} else {
		struct ifaddrmsg *msg = mnl_nlmsg_put_extra_header(nlh, sizeof(*msg));

		msg->ifa_family = d->family;
	}
}

static int run_dump(struct mnl_socket *nl, const struct dump *d, struct dmm_mirror_picture *ret)
{
	char buf[MNL_NLMSG_HDRLEN + 64];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	int r;

	put_request(nlh, d);
	r = dmm_netlink_ask(nl, nlh, d->fn, ret);
	if (r == -EINTR)
		return -EAGAIN;
	/* A table that never had a route does not exist; nor does a family that is compiled out. */
	return r == -ENOENT || r == -EAFNOSUPPORT || r == -EOPNOTSUPP ? 0 : r;
}

static int run_dumps(struct mnl_socket *nl, struct dmm_mirror_picture *ret)
{
	static const struct dump dumps[] = {
		{ RTM_GETADDR, AF_INET, 0, on_addr },
		{ RTM_GETADDR, AF_INET6, 0, on_addr },
		{ RTM_GETROUTE, AF_INET, RT_TABLE_LOCAL, on_route },
		{ RTM_GETROUTE, AF_INET6, RT_TABLE_LOCAL, on_route },
		{ RTM_GETROUTE, AF_INET, RT_TABLE_MAIN, on_route },
		{ RTM_GETROUTE, AF_INET6, RT_TABLE_MAIN, on_route },
	};
	size_t i;
	int r = 0;

	for (i = 0; i < DMM_ARRAY_SIZE(dumps) && r == 0; i++)
		r = run_dump(nl, &dumps[i], ret);
	return r;
}

int dmm_mirror_picture_take(struct dmm_mirror_picture *ret)
{
	struct dmm_mirror_picture picture = {};
	struct mnl_socket *nl = NULL;
	int one = 1, r = dmm_netlink_open(NETLINK_ROUTE, &nl);

	if (r < 0)
		return r;
	/* Strict: the kernel then filters by table instead of sending all of them. */
	mnl_socket_setsockopt(nl, NETLINK_GET_STRICT_CHK, &one, sizeof(one));
	r = run_dumps(nl, &picture);
	mnl_socket_close(nl);
	if (r < 0)
		dmm_mirror_picture_free(&picture);
	else
		*ret = picture;
	return r;
}
