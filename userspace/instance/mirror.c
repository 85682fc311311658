/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's addresses, routes and neighbours, by libmnl.
 * #syscalls sendto recvmsg recvfrom */
#include "instance/mirror.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/util.h"
#include "base/packet.h"

#define BUFFER_SIZE 32768
#define MAX_ATTR    32
#define DUMP_TRIES  8

static int collect_attr(const struct nlattr *attr, void *data)
{
	const struct nlattr **tb = data;

	if (mnl_attr_get_type(attr) < MAX_ATTR)
		tb[mnl_attr_get_type(attr)] = attr;
	return MNL_CB_OK;
}

/* An address attribute of either family in the 16-byte form. */
static bool read_addr(const struct nlattr *attr, uint8_t ret[16])
{
	if (!attr)
		return false;
	if (mnl_attr_get_payload_len(attr) == 4)
		addr_from_v4(mnl_attr_get_payload(attr), ret);
	else if (mnl_attr_get_payload_len(attr) == 16)
		memcpy(ret, mnl_attr_get_payload(attr), 16);
	else
		return false;
	return true;
}

static void put_addr(struct nlmsghdr *nlh, uint16_t type, const uint8_t addr[16])
{
	if (addr_is_v4(addr))
		mnl_attr_put(nlh, type, 4, addr + 12);
	else
		mnl_attr_put(nlh, type, 16, addr);
}

static unsigned char family_of(const uint8_t addr[16])
{
	return addr_is_v4(addr) ? AF_INET : AF_INET6;
}

/* Sends @nlh and gives every answer to @cb. Negative errno: the kernel's own, or of the exchange. */
static int ask(struct mirror *m, struct nlmsghdr *nlh, mnl_cb_t cb, void *data)
{
	static uint32_t seq;
	char buffer[BUFFER_SIZE];
	unsigned int port = mnl_socket_get_portid(m->query);
	bool late; /* the answer to an earlier question that timed out */
	ssize_t n;
	int r;

	nlh->nlmsg_seq = ++seq;
	if (mnl_socket_sendto(m->query, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	do {
		n = mnl_socket_recvfrom(m->query, buffer, sizeof(buffer));
		if (n < 0)
			return -errno;
		late = ((struct nlmsghdr *)buffer)->nlmsg_seq != seq;
		r = late ? 0 : mnl_cb_run(buffer, n, seq, port, cb, data);
	} while (late || (r > 0 && nlh->nlmsg_flags & NLM_F_DUMP));
	return r < 0 ? -errno : 0;
}

/* --- the interface --- */

static int on_link(const struct nlmsghdr *nlh, void *data)
{
	const struct ifinfomsg *link = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *tb[MAX_ATTR] = { NULL };
	struct mirror *m = data;

	if ((uint32_t)link->ifi_index != m->ifindex)
		return MNL_CB_OK;
	if (nlh->nlmsg_type == RTM_DELLINK) {
		m->gone = true;
		return MNL_CB_OK;
	}
	mnl_attr_parse(nlh, sizeof(*link), collect_attr, tb);
	if (tb[IFLA_MTU])
		m->mtu = mnl_attr_get_u32(tb[IFLA_MTU]);
	if (tb[IFLA_ADDRESS] && mnl_attr_get_payload_len(tb[IFLA_ADDRESS]) == 6)
		memcpy(m->mac, mnl_attr_get_payload(tb[IFLA_ADDRESS]), 6);
	return MNL_CB_OK;
}

static int read_link(struct mirror *m)
{
	char buffer[256];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buffer);
	struct ifinfomsg *link;

	nlh->nlmsg_type = RTM_GETLINK;
	nlh->nlmsg_flags = NLM_F_REQUEST;
	link = mnl_nlmsg_put_extra_header(nlh, sizeof(*link));
	link->ifi_index = m->ifindex;
	return ask(m, nlh, on_link, m);
}

/* --- addresses --- */

struct addr_dump {
	struct mirror *m;
	bool first_pass; /* the interface's own, then the others */
};

static int remember_addr(struct mirror *m, const uint8_t addr[16])
{
	struct mirror_addrs *own = &m->own;

	if (addrset_find(&own->set, addr) == ADDR_OWN)
		return 0;
	if (own->n == own->room) {
		uint32_t room = own->room ? 2 * own->room : 16;
		void *larger = realloc(own->list, (size_t)room * 16);

		if (!larger)
			return -ENOMEM;
		own->list = larger;
		own->room = room;
	}
	memcpy(own->list[own->n++], addr, 16);
	return addrset_add(&own->set, addr, ADDR_OWN);
}

static int on_addr(const struct nlmsghdr *nlh, void *data)
{
	const struct ifaddrmsg *msg = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *tb[MAX_ATTR] = { NULL };
	struct addr_dump *dump = data;
	uint32_t flags = msg->ifa_flags;
	uint8_t addr[16];

	if ((msg->ifa_index == dump->m->ifindex) != dump->first_pass)
		return MNL_CB_OK;
	mnl_attr_parse(nlh, sizeof(*msg), collect_attr, tb);
	if (tb[IFA_FLAGS])
		flags = mnl_attr_get_u32(tb[IFA_FLAGS]);
	if (flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED) && !(flags & IFA_F_OPTIMISTIC))
		return MNL_CB_OK;
	if (read_addr(tb[IFA_BROADCAST], addr) &&
	    addrset_add(&dump->m->own.set, addr, ADDR_BROADCAST) < 0)
		return MNL_CB_ERROR;
	/* on point-to-point links IFA_ADDRESS is the peer's */
	if (!read_addr(tb[IFA_LOCAL] ? tb[IFA_LOCAL] : tb[IFA_ADDRESS], addr))
		return MNL_CB_OK;
	if (addr_is_illegal_source(addr))
		return MNL_CB_OK; /* loopback */
	return remember_addr(dump->m, addr) < 0 ? MNL_CB_ERROR : MNL_CB_OK;
}

static int dump_addrs(struct mirror *m)
{
	int pass, r = 0;

	for (pass = 0; pass < 2 && r == 0; pass++) {
		struct addr_dump dump = { m, pass == 0 };
		char buffer[256];
		struct nlmsghdr *nlh = mnl_nlmsg_put_header(buffer);

		nlh->nlmsg_type = RTM_GETADDR;
		nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
		mnl_nlmsg_put_extra_header(nlh, sizeof(struct ifaddrmsg));
		r = ask(m, nlh, on_addr, &dump);
	}
	return r;
}

static void free_addrs(struct mirror_addrs *addrs)
{
	addrset_clear(&addrs->set);
	free(addrs->list);
}

/* Where the kernel does not give all of them, even when asked again (a change in between makes it ask
 * for that), those known stay: without any, every packet would be foreign. */
static int read_addrs(struct mirror *m)
{
	struct mirror_addrs before = m->own;
	int tries = DUMP_TRIES, r;

	do {
		m->own = (struct mirror_addrs){ 0 };
		r = dump_addrs(m);
		if (r == 0) {
			free_addrs(&before);
			return 0;
		}
		free_addrs(&m->own);
	} while (r == -EINTR && --tries > 0);
	m->own = before;
	return r;
}

/* --- routes --- */

struct route_answer {
	uint32_t ifindex;
	unsigned char type;
	bool has_gateway;
	uint8_t gateway[16];
};

static int on_route(const struct nlmsghdr *nlh, void *data)
{
	const struct rtmsg *rt = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *tb[MAX_ATTR] = { NULL };
	struct route_answer *answer = data;

	mnl_attr_parse(nlh, sizeof(*rt), collect_attr, tb);
	answer->type = rt->rtm_type;
	if (tb[RTA_OIF])
		answer->ifindex = mnl_attr_get_u32(tb[RTA_OIF]);
	answer->has_gateway = read_addr(tb[RTA_GATEWAY], answer->gateway);
	/* an IPv4 route by an IPv6 neighbour: struct rtvia is a family, then the address */
	if (tb[RTA_VIA] && mnl_attr_get_payload_len(tb[RTA_VIA]) == 18) {
		memcpy(answer->gateway, (char *)mnl_attr_get_payload(tb[RTA_VIA]) + 2, 16);
		answer->has_gateway = true;
	}
	return MNL_CB_OK;
}

int mirror_route(struct mirror *m, const uint8_t dst[16], const uint8_t src[16],
		 uint8_t ret_hop[16])
{
	struct route_answer answer = { 0 };
	char buffer[256];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buffer);
	struct rtmsg *rt;
	int r;

	nlh->nlmsg_type = RTM_GETROUTE;
	nlh->nlmsg_flags = NLM_F_REQUEST;
	rt = mnl_nlmsg_put_extra_header(nlh, sizeof(*rt));
	rt->rtm_family = family_of(dst);
	rt->rtm_dst_len = rt->rtm_src_len = addr_is_v4(dst) ? 32 : 128;
	put_addr(nlh, RTA_DST, dst);
	put_addr(nlh, RTA_SRC, src);
	r = ask(m, nlh, on_route, &answer);
	if (r < 0)
		return r;
	if (answer.type == RTN_UNREACHABLE)
		return -EHOSTUNREACH;
	if (answer.type != RTN_UNICAST || answer.ifindex != m->ifindex)
		return -ENETUNREACH;
	memcpy(ret_hop, answer.has_gateway ? answer.gateway : dst, 16);
	return 0;
}

/* --- neighbours --- */

static enum mirror_reach reach_of(uint16_t state, bool has_mac)
{
	if (state & NUD_FAILED)
		return MIRROR_FAILED;
	if (!has_mac)
		return MIRROR_UNKNOWN;
	if (state & (NUD_REACHABLE | NUD_PERMANENT | NUD_NOARP | NUD_DELAY | NUD_PROBE))
		return MIRROR_FRESH;
	return state & NUD_STALE ? MIRROR_STALE : MIRROR_UNKNOWN;
}

/* False: none of our interface's. */
static bool read_neighbour(const struct nlmsghdr *nlh, uint32_t ifindex,
			   struct mirror_neighbour *ret)
{
	const struct ndmsg *nd = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *tb[MAX_ATTR] = { NULL };
	bool has_mac;

	if ((uint32_t)nd->ndm_ifindex != ifindex ||
	    (nd->ndm_family != AF_INET && nd->ndm_family != AF_INET6))
		return false;
	mnl_attr_parse(nlh, sizeof(*nd), collect_attr, tb);
	if (!read_addr(tb[NDA_DST], ret->addr))
		return false;
	has_mac = tb[NDA_LLADDR] && mnl_attr_get_payload_len(tb[NDA_LLADDR]) == 6;
	if (has_mac)
		memcpy(ret->mac, mnl_attr_get_payload(tb[NDA_LLADDR]), 6);
	ret->reach = nlh->nlmsg_type == RTM_DELNEIGH ? MIRROR_UNKNOWN
						     : reach_of(nd->ndm_state, has_mac);
	return true;
}

struct neighbour_answer {
	uint32_t ifindex;
	struct mirror_neighbour n;
};

static int on_neighbour(const struct nlmsghdr *nlh, void *data)
{
	struct neighbour_answer *answer = data;

	read_neighbour(nlh, answer->ifindex, &answer->n);
	return MNL_CB_OK;
}

void mirror_neighbour(struct mirror *m, const uint8_t addr[16], struct mirror_neighbour *ret)
{
	struct neighbour_answer answer = { .ifindex = m->ifindex };
	char buffer[256];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buffer);
	struct ndmsg *nd;

	memcpy(answer.n.addr, addr, 16);
	nlh->nlmsg_type = RTM_GETNEIGH;
	nlh->nlmsg_flags = NLM_F_REQUEST;
	nd = mnl_nlmsg_put_extra_header(nlh, sizeof(*nd));
	nd->ndm_family = family_of(addr);
	nd->ndm_ifindex = m->ifindex;
	put_addr(nlh, NDA_DST, addr);
	ask(m, nlh, on_neighbour, &answer); /* none yet: MIRROR_UNKNOWN */
	*ret = answer.n;
}

/* --- notifications --- */

struct changes {
	struct mirror *m;
	bool addrs, routes, link;
};

static int on_change(const struct nlmsghdr *nlh, void *data)
{
	struct changes *changes = data;
	struct mirror *m = changes->m;
	struct mirror_neighbour n = { 0 };

	switch (nlh->nlmsg_type) {
	case RTM_NEWNEIGH:
	case RTM_DELNEIGH:
		if (read_neighbour(nlh, m->ifindex, &n))
			m->events.neighbour(m->events.ctx, &n);
		break;
	case RTM_NEWADDR:
	case RTM_DELADDR:
		changes->addrs = true;
		break;
	case RTM_NEWLINK:
	case RTM_DELLINK:
		on_link(nlh, m);
		changes->link = true;
		break;
	default: /* routes, rules, next hop objects */
		changes->routes = true;
		break;
	}
	return MNL_CB_OK;
}

static void tell(struct mirror *m, const struct changes *changes)
{
	if (changes->addrs && !m->gone)
		read_addrs(m);
	/* routes of an interface that goes down vanish without a notification of their own */
	if (changes->routes || changes->addrs || changes->link)
		m->events.routes(m->events.ctx);
	if (changes->addrs || changes->link)
		m->events.interface(m->events.ctx);
}

void mirror_run(struct mirror *m)
{
	struct changes changes = { .m = m };
	char buffer[BUFFER_SIZE];
	ssize_t n;

	for (;;) {
		n = recv(mnl_socket_get_fd(m->watch), buffer, sizeof(buffer), MSG_DONTWAIT);
		if (n > 0) {
			mnl_cb_run(buffer, n, 0, 0, on_change, &changes);
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == ENOBUFS) {
			changes.addrs = changes.link = true;
			read_link(m);
			m->events.lost(m->events.ctx);
			continue;
		}
		break;
	}
	tell(m, &changes);
}

/* --- life --- */

static struct mnl_socket *take_socket(int fd)
{
	struct mnl_socket *socket = mnl_socket_fdopen(fd);

	if (!socket)
		close(fd);
	return socket;
}

static int open_query(struct mirror *m)
{
	/* the kernel answers at once; this is against waiting for ever should it not */
	struct timeval patience = { .tv_sec = 1 };

	if (mnl_socket_bind(m->query, 0, MNL_SOCKET_AUTOPID) < 0 ||
	    setsockopt(mnl_socket_get_fd(m->query), SOL_SOCKET, SO_RCVTIMEO, &patience,
		       sizeof(patience)) < 0)
		return -errno;
	return 0;
}

static int open_watch(struct mirror *m)
{
	static const int groups[] = {
		RTNLGRP_LINK,	     RTNLGRP_NEIGH,	 RTNLGRP_IPV4_IFADDR,
		RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE,
		RTNLGRP_IPV4_RULE,   RTNLGRP_IPV6_RULE,	 RTNLGRP_NEXTHOP,
	};
	size_t i;

	if (mnl_socket_bind(m->watch, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	for (i = 0; i < DMM_ARRAY_SIZE(groups); i++) {
		int group = groups[i];

		if (mnl_socket_setsockopt(m->watch, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) <
		    0)
			return -errno;
	}
	return 0;
}

int mirror_open(struct mirror *m, uint32_t ifindex, int query, int watch,
		const struct mirror_events *events)
{
	int r;

	*m = (struct mirror){
		.query = take_socket(query),
		.watch = take_socket(watch),
		.ifindex = ifindex,
		.events = *events,
	};
	r = m->query && m->watch ? open_query(m) : -ENOMEM;
	if (!r)
		r = open_watch(m); /* before the first reading, so that no change falls between */
	if (!r)
		r = read_link(m);
	if (!r)
		r = read_addrs(m);
	if (r < 0)
		mirror_close(m);
	return r;
}

void mirror_close(struct mirror *m)
{
	if (m->query)
		mnl_socket_close(m->query);
	if (m->watch)
		mnl_socket_close(m->watch);
	m->query = m->watch = NULL;
	free_addrs(&m->own);
	m->own = (struct mirror_addrs){ 0 };
}

int mirror_fd(const struct mirror *m)
{
	return mnl_socket_get_fd(m->watch);
}
