/* SPDX-License-Identifier: Apache-2.0 */
/* Where the other end of a veth is, and whether it computes checksums. */
#define _GNU_SOURCE
#include "base/bypass_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/netns.h"
#include "base/util.h"

struct link {
	bool veth;
	bool elsewhere;
	uint32_t peer;
	int32_t nsid;
};

static int note_link(const struct nlmsghdr *nlh, void *ctx)
{
	const struct nlattr *attr, *info;
	struct link *link = ctx;

	mnl_attr_for_each(attr, nlh, sizeof(struct ifinfomsg))
	{
		switch (mnl_attr_get_type(attr)) {
		case IFLA_LINK:
			link->peer = mnl_attr_get_u32(attr);
			break;
		case IFLA_LINK_NETNSID:
			link->elsewhere = true;
			link->nsid = mnl_attr_get_u32(attr);
			break;
		case IFLA_LINKINFO:
			mnl_attr_for_each_nested(info, attr) if (mnl_attr_get_type(info) ==
								 IFLA_INFO_KIND)
				link->veth = dmm_streq(mnl_attr_get_str(info), "veth");
			break;
		}
	}
	return MNL_CB_STOP;
}

static int get_link(uint32_t ifindex, struct link *ret)
{
	char buf[MNL_NLMSG_HDRLEN + sizeof(struct ifinfomsg)];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct ifinfomsg *ifi;

	nlh->nlmsg_type = RTM_GETLINK;
	nlh->nlmsg_flags = NLM_F_REQUEST;
	ifi = mnl_nlmsg_put_extra_header(nlh, sizeof(*ifi));
	ifi->ifi_index = ifindex;
	return dmm_bypass_ask(NETLINK_ROUTE, nlh, note_link, ret);
}

static int note_nsid(const struct nlmsghdr *nlh, void *ctx)
{
	const struct nlattr *attr;

	mnl_attr_for_each(attr, nlh,
			  sizeof(struct rtgenmsg)) if (mnl_attr_get_type(attr) == NETNSA_NSID) *
		(int32_t *)ctx = mnl_attr_get_u32(attr);
	return MNL_CB_STOP;
}

/* Is @netns the namespace that ours calls @nsid? */
static bool is_nsid(int netns, int32_t nsid)
{
	char buf[MNL_NLMSG_HDRLEN + 64];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct rtgenmsg *gen;
	int32_t got = NETNSA_NSID_NOT_ASSIGNED;

	nlh->nlmsg_type = RTM_GETNSID;
	nlh->nlmsg_flags = NLM_F_REQUEST;
	gen = mnl_nlmsg_put_extra_header(nlh, sizeof(*gen));
	gen->rtgen_family = AF_UNSPEC;
	mnl_attr_put_u32(nlh, NETNSA_FD, netns);
	return dmm_bypass_ask(NETLINK_ROUTE, nlh, note_nsid, &got) == 0 && got == nsid;
}

struct search {
	int32_t nsid;
	int netns; /* -1: not found */
	char *name;
	size_t size;
};

static int try_namespace(void *ctx, int netns, const char *name)
{
	struct search *s = ctx;

	if (!is_nsid(netns, s->nsid))
		return 0;
	s->netns = fcntl(netns, F_DUPFD_CLOEXEC, 0);
	snprintf(s->name, s->size, "%s", name);
	return 1;
}

/* A descriptor of the namespace that ours calls @nsid. */
static int find_namespace(int32_t nsid, char *ret_name, size_t size)
{
	struct search s = { .nsid = nsid, .netns = -1, .name = ret_name, .size = size };

	dmm_netns_each(try_namespace, &s);
	return s.netns;
}

static int ask_device(int fd, uint32_t ifindex, struct dmm_veth_peer *ret)
{
	struct ethtool_value value = { .cmd = ETHTOOL_GTXCSUM };
	struct ifreq ifr = { .ifr_ifindex = ifindex };

	if (ioctl(fd, SIOCGIFNAME, &ifr) < 0)
		return -errno;
	snprintf(ret->ifname, sizeof(ret->ifname), "%.15s", ifr.ifr_name);
	ifr.ifr_data = (void *)&value;
	if (ioctl(fd, SIOCETHTOOL, &ifr) < 0)
		return -errno;
	ret->tx_csum = value.data;
	return 0;
}

int dmm_veth_peer(uint32_t ifindex, struct dmm_veth_peer *ret)
{
	struct dmm_veth_peer peer = { 0 };
	dmm_autoclose int netns = -1, fd = -1;
	struct link link = { 0 };
	int r = get_link(ifindex, &link);

	if (r < 0)
		return r;
	if (!link.veth || !link.peer)
		return -ENOENT;
	if (link.elsewhere) {
		netns = find_namespace(link.nsid, peer.netns, sizeof(peer.netns));
		if (netns < 0)
			return -ENOENT;
		fd = dmm_netns_socket(netns, AF_INET, SOCK_DGRAM, 0);
	} else {
		fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	}
	if (fd < 0)
		return link.elsewhere ? fd : -errno;
	r = ask_device(fd, link.peer, &peer);
	if (r == 0)
		*ret = peer;
	return r;
}
