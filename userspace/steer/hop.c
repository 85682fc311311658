/* SPDX-License-Identifier: Apache-2.0 */
/* Hops: a pair of veths for each further instance on an interface (struct dmm_hop). Both ends stay in our
 * network namespace, without addresses. What they run goes with them, so nothing is pinned; which ones
 * there are, dmm_hops says. */
#include <errno.h>
#include <net/if.h>

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>

#include "base/netlink.h"
#include "base/util.h"
#include "steer/steer_internal.h"

struct ends {
	char near[IF_NAMESIZE], far[IF_NAMESIZE];
	uint32_t near_index, far_index;
};

static void name_ends(uint32_t id, struct ends *ret)
{
	*ret = (struct ends){ 0 };
	snprintf(ret->near, sizeof(ret->near), DMM_HOP_NAME "%u", id % DMM_MAX_INSTANCES);
	snprintf(ret->far, sizeof(ret->far), DMM_HOP_NAME "%u-far", id % DMM_MAX_INSTANCES);
}

static bool find_ends(struct ends *ends)
{
	ends->near_index = if_nametoindex(ends->near);
	ends->far_index = if_nametoindex(ends->far);
	return ends->near_index && ends->far_index;
}

/* --- links --- */

static int on_answer(const struct nlmsghdr *nlh, void *ctx)
{
	(void)nlh;
	(void)ctx;
	return MNL_CB_STOP;
}

static int tell(struct nlmsghdr *nlh)
{
	struct mnl_socket *nl;
	int r = dmm_netlink_open(NETLINK_ROUTE, &nl);

	if (r < 0)
		return r;
	nlh->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	r = dmm_netlink_ask(nl, nlh, on_answer, NULL);
	mnl_socket_close(nl);
	return r;
}

static struct nlmsghdr *begin(char *buf, uint16_t type, uint32_t ifindex, struct ifinfomsg **ret)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);

	nlh->nlmsg_type = type;
	*ret = mnl_nlmsg_put_extra_header(nlh, sizeof(**ret));
	(*ret)->ifi_index = ifindex;
	return nlh;
}

static int make_pair(const struct ends *ends, uint32_t mtu)
{
	struct nlattr *info, *data, *peer;
	struct ifinfomsg *link;
	char buf[512];
	struct nlmsghdr *nlh = begin(buf, RTM_NEWLINK, 0, &link);

	nlh->nlmsg_flags = NLM_F_CREATE | NLM_F_EXCL;
	mnl_attr_put_strz(nlh, IFLA_IFNAME, ends->near);
	mnl_attr_put_u32(nlh, IFLA_MTU, mtu);
	info = mnl_attr_nest_start(nlh, IFLA_LINKINFO);
	mnl_attr_put_strz(nlh, IFLA_INFO_KIND, "veth");
	data = mnl_attr_nest_start(nlh, IFLA_INFO_DATA);
	peer = mnl_attr_nest_start(nlh, VETH_INFO_PEER);
	mnl_nlmsg_put_extra_header(nlh, sizeof(*link));
	mnl_attr_put_strz(nlh, IFLA_IFNAME, ends->far);
	mnl_attr_put_u32(nlh, IFLA_MTU, mtu);
	mnl_attr_nest_end(nlh, peer);
	mnl_attr_nest_end(nlh, data);
	mnl_attr_nest_end(nlh, info);
	return tell(nlh);
}

/* Up, and without an IPv6 address that the kernel would speak from. */
static int bring_up(uint32_t ifindex, uint32_t mtu)
{
	struct nlattr *spec, *v6;
	struct ifinfomsg *link;
	char buf[256];
	struct nlmsghdr *nlh = begin(buf, RTM_SETLINK, ifindex, &link);
	int r;

	mnl_attr_put_u32(nlh, IFLA_MTU, mtu);
	spec = mnl_attr_nest_start(nlh, IFLA_AF_SPEC);
	v6 = mnl_attr_nest_start(nlh, AF_INET6);
	mnl_attr_put_u8(nlh, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
	mnl_attr_nest_end(nlh, v6);
	mnl_attr_nest_end(nlh, spec);
	r = tell(nlh);
	if (r < 0 && r != -EAFNOSUPPORT) /* a kernel without IPv6 */
		return r;
	nlh = begin(buf, RTM_SETLINK, ifindex, &link);
	link->ifi_flags = link->ifi_change = IFF_UP;
	return tell(nlh);
}

static int remove_link(uint32_t ifindex)
{
	struct ifinfomsg *link;
	char buf[128];
	int r = tell(begin(buf, RTM_DELLINK, ifindex, &link));

	return r == -ENODEV ? 0 : r;
}

/* --- what runs there --- */

static int run_programs(struct dmm_steer *steer, const struct ends *ends)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ends->near_index, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = steer->hop_out_prog.fd, .handle = 1,
		    .priority = 1, .flags = BPF_TC_F_REPLACE);
	int r = bpf_xdp_attach(ends->far_index, steer->hop_prog.fd, XDP_FLAGS_DRV_MODE, NULL);

	if (r == 0) {
		r = bpf_tc_hook_create(&hook);
		r = r == -EEXIST ? 0 : r;
	}
	return r < 0 ? r : bpf_tc_attach(&hook, &opts);
}

static int enter(struct dmm_steer *steer, uint32_t id, uint32_t ifindex, const struct ends *ends)
{
	struct dmm_hop hop = { id, ifindex };
	int hops = steer->map[DMM_MAP_hops];
	int r = bpf_map_update_elem(hops, &ends->near_index, &hop, BPF_ANY);

	return r < 0 ? r : bpf_map_update_elem(hops, &ends->far_index, &hop, BPF_ANY);
}

int dmm_steer_hop_make(struct dmm_steer *steer, uint32_t id, uint32_t ifindex, uint32_t mtu,
		       struct dmm_hop_ends *ret)
{
	struct ends ends;
	int r = 0;

	name_ends(id, &ends);
	if (!find_ends(&ends)) {
		r = make_pair(&ends, mtu);
		if (r == 0 && !find_ends(&ends))
			r = -ENODEV;
	}
	if (r == 0)
		r = run_programs(steer, &ends);
	if (r == 0)
		r = enter(steer, id, ifindex, &ends);
	if (r == 0)
		r = bring_up(ends.near_index, mtu);
	if (r == 0)
		r = bring_up(ends.far_index, mtu);
	if (r < 0) {
		dmm_steer_hop_remove(steer, id);
		return dmm_steer_fail(r, NULL, "cannot make the veth pair %s", ends.near);
	}
	ret->near_index = ends.near_index;
	ret->far_index = ends.far_index;
	return 0;
}

void dmm_steer_hop_remove(struct dmm_steer *steer, uint32_t id)
{
	struct ends ends;

	name_ends(id, &ends);
	find_ends(&ends);
	bpf_map_delete_elem(steer->map[DMM_MAP_hops], &ends.near_index);
	bpf_map_delete_elem(steer->map[DMM_MAP_hops], &ends.far_index);
	if (ends.near_index)
		remove_link(ends.near_index); /* the far end goes with it */
}

/* --- teardown --- */

static int remove_end(void *ctx, const void *key, const void *value)
{
	int *err = ctx, r = remove_link(*(const __u32 *)key);

	(void)value;
	*err = *err ? *err : r;
	return 0;
}

int dmm_hops_remove(int hops)
{
	int err = 0, r;

	if (hops < 0)
		return 0;
	r = dmm_map_each(hops, sizeof(__u32), sizeof(struct dmm_hop), remove_end, &err);
	return r < 0 ? r : err;
}
