/* SPDX-License-Identifier: Apache-2.0 */
/* The filter that holds relay SYNs, on the way out of `lo`. It is a classic clsact filter, since links
 * for tc exist only from kernel 6.6 on: nothing owns it, so it is looked after by repair. Its place is
 * told by its handle, and whose it is by the maps that its program uses: that holds whenever a dmmd was
 * killed, too. */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>

#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>

#include "base/netlink.h"
#include "base/util.h"
#include "steer/steer_internal.h"

#define FILTER_HANDLE 0x646d6d /* "dmm" */
#define LO_PROGRAM    "dmm_lo"
#define MAX_PRIORITY  32u /* that is looked at for a place */
#define MAX_MAPS      64u /* that one program uses */

static int lo_hook(enum bpf_tc_attach_point point, struct bpf_tc_hook *ret)
{
	unsigned int ifindex = if_nametoindex("lo");

	*ret = (struct bpf_tc_hook){};
	if (!ifindex)
		return dmm_steer_fail(-errno, NULL, "there is no interface lo");
	*ret = (struct bpf_tc_hook){
		.sz = sizeof(*ret),
		.ifindex = ifindex,
		.attach_point = point,
	};
	return 0;
}

/* --- the filters that are there --- */

struct walk {
	void (*fn)(void *ctx, const struct dmm_lo_filter *filter);
	void *ctx;
};

static void read_options(const struct nlattr *options, struct dmm_lo_filter *ret)
{
	const struct nlattr *attr;

	mnl_attr_for_each_nested(attr, options)
	{
		if (mnl_attr_get_type(attr) == TCA_BPF_ID)
			ret->prog_id = mnl_attr_get_u32(attr);
		else if (mnl_attr_get_type(attr) == TCA_BPF_NAME)
			snprintf(ret->name, sizeof(ret->name), "%s", mnl_attr_get_str(attr));
	}
}

static int read_filter(const struct nlmsghdr *nlh, void *ctx)
{
	const struct tcmsg *tcm = mnl_nlmsg_get_payload(nlh);
	struct dmm_lo_filter filter = {
		.priority = TC_H_MAJ(tcm->tcm_info) >> 16,
		.every_protocol = TC_H_MIN(tcm->tcm_info) == htons(ETH_P_ALL),
		.handle = tcm->tcm_handle,
	};
	const struct nlattr *attr, *options = NULL;
	struct walk *walk = ctx;

	if (nlh->nlmsg_type != RTM_NEWTFILTER || !tcm->tcm_handle) /* 0: the header of a group */
		return MNL_CB_OK;
	mnl_attr_for_each(attr, nlh, sizeof(*tcm))
	{
		if (mnl_attr_get_type(attr) == TCA_KIND)
			snprintf(filter.kind, sizeof(filter.kind), "%s", mnl_attr_get_str(attr));
		else if (mnl_attr_get_type(attr) == TCA_OPTIONS)
			options = attr;
	}
	filter.is_bpf = dmm_streq(filter.kind, "bpf");
	if (filter.is_bpf && options)
		read_options(options, &filter);
	walk->fn(walk->ctx, &filter);
	return MNL_CB_OK;
}

static int ask(struct mnl_socket *nl, unsigned int ifindex, uint32_t point, struct walk *walk)
{
	char buf[MNL_NLMSG_HDRLEN + sizeof(struct tcmsg)];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct tcmsg *tc;

	nlh->nlmsg_type = RTM_GETTFILTER;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	tc = mnl_nlmsg_put_extra_header(nlh, sizeof(*tc));
	tc->tcm_family = AF_UNSPEC;
	tc->tcm_ifindex = ifindex;
	tc->tcm_parent = TC_H_MAKE(TC_H_CLSACT, point);
	return dmm_netlink_ask(nl, nlh, read_filter, walk);
}

static int each_filter(unsigned int ifindex, uint32_t point, struct walk *walk)
{
	struct mnl_socket *nl;
	int r = dmm_netlink_open(NETLINK_ROUTE, &nl);

	if (r < 0)
		return r;
	r = ask(nl, ifindex, point, walk);
	mnl_socket_close(nl);
	return r == -EINVAL ? 0 : r; /* no clsact */
}

int dmm_lo_each(bool ingress, void (*fn)(void *ctx, const struct dmm_lo_filter *filter), void *ctx)
{
	struct walk walk = { fn, ctx };
	struct bpf_tc_hook hook;
	int r = lo_hook(ingress ? BPF_TC_INGRESS : BPF_TC_EGRESS, &hook);

	return r < 0 ? r
		     : each_filter(hook.ifindex, ingress ? TC_H_MIN_INGRESS : TC_H_MIN_EGRESS,
				   &walk);
}

bool dmm_lo_is_our_place(const struct dmm_lo_filter *filter)
{
	return filter->is_bpf && filter->every_protocol && filter->handle == FILTER_HANDLE;
}

struct search {
	struct dmm_lo_filter found; /* in our place; handle 0: none */
	uint64_t taken; /* a bit for each priority that our kind of filter cannot have */
};

static void search(void *ctx, const struct dmm_lo_filter *filter)
{
	struct search *s = ctx;

	if (dmm_lo_is_our_place(filter) && !s->found.handle)
		s->found = *filter;
	if (filter->priority <= MAX_PRIORITY && !(filter->is_bpf && filter->every_protocol))
		s->taken |= 1ull << filter->priority;
}

/* What is in our place on lo, or the place that we could have: the foremost one. */
static int look(struct search *ret)
{
	int r;

	*ret = (struct search){};
	r = dmm_lo_each(false, search, ret);
	if (r < 0)
		return dmm_steer_fail(r, NULL, "cannot read the filters of lo");
	if (ret->found.handle)
		return 0;
	ret->found.priority = 1;
	while (ret->taken & 1ull << ret->found.priority)
		ret->found.priority++;
	return 0;
}

/* --- whose --- */

static uint32_t map_id_of(int fd)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &len) < 0 ? 0 : info.id;
}

/* A dmm_lo of these pins, of whichever dmmd? */
static bool uses_map(uint32_t prog_id, int map_fd)
{
	dmm_autoclose int fd = bpf_prog_get_fd_by_id(prog_id);
	__u32 ids[MAX_MAPS], wanted = map_id_of(map_fd), i;
	struct bpf_prog_info info = { .nr_map_ids = MAX_MAPS,
				      .map_ids = (__u64)(unsigned long)ids };
	__u32 len = sizeof(info);

	if (fd < 0 || !wanted || bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return false;
	for (i = 0; i < DMM_MIN(info.nr_map_ids, MAX_MAPS); i++)
		if (ids[i] == wanted)
			return true;
	return false;
}

static bool is_of_another_dmmd(const struct dmm_lo_filter *filter, int rings)
{
	dmm_autoclose int fd = bpf_prog_get_fd_by_id(filter->prog_id);
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	return fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &len) == 0 &&
	       dmm_streq(info.name, LO_PROGRAM) && !uses_map(filter->prog_id, rings);
}

/* --- attaching --- */

static int make_clsact(struct dmm_steer *steer, struct bpf_tc_hook *hook)
{
	int r = bpf_tc_hook_create(hook);

	if (r == -EEXIST)
		return 0;
	if (r < 0)
		return dmm_steer_fail(r, "kernel option NET_SCH_INGRESS is needed",
				      "cannot make the clsact qdisc on lo");
	return dmm_undo_made_clsact(steer);
}

static int refuse_another(const struct dmm_lo_filter *filter)
{
	char hint[96];

	snprintf(hint, sizeof(hint), "stop it, or: tc filter del dev lo egress prio %u",
		 filter->priority);
	return dmm_steer_refuse(
		-EBUSY, hint, "program id %u of another dmmd sits on lo in this network namespace",
		filter->prog_id);
}

int dmm_lo_attach(struct dmm_steer *steer)
{
	DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .handle = FILTER_HANDLE,
			    .prog_fd = steer->lo_prog.fd, .flags = BPF_TC_F_REPLACE);
	struct bpf_tc_hook hook;
	struct search seen;
	int r = lo_hook(BPF_TC_EGRESS, &hook);

	if (r == 0)
		r = look(&seen);
	if (r < 0)
		return r;
	if (seen.found.handle && seen.found.prog_id == steer->lo_prog.id)
		return 0;
	if (seen.found.handle && is_of_another_dmmd(&seen.found, steer->map[DMM_MAP_rings]))
		return refuse_another(&seen.found);
	r = make_clsact(steer, &hook);
	if (r < 0)
		return r;
	opts.priority = seen.found.priority;
	r = bpf_tc_attach(&hook, &opts);
	if (r < 0)
		return dmm_steer_fail(
			r,
			"kernel option NET_CLS_BPF is needed, and the place of the clsact qdisc: "
			"an `ingress` one on lo must go (tc qdisc del dev lo ingress)",
			"cannot attach the filter to lo");
	return 1;
}

/* --- detaching --- */

static void count_filter(void *ctx, const struct dmm_lo_filter *filter)
{
	(void)filter;
	++*(unsigned int *)ctx;
}

static bool clsact_is_used(unsigned int ifindex)
{
	unsigned int count = 0;
	struct walk walk = { count_filter, &count };
	int r = each_filter(ifindex, TC_H_MIN_INGRESS, &walk);

	if (r == 0)
		r = each_filter(ifindex, TC_H_MIN_EGRESS, &walk);
	return r < 0 || count > 0; /* in doubt it stays */
}

int dmm_lo_detach(int rings, bool qdisc)
{
	DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .handle = FILTER_HANDLE);
	struct bpf_tc_hook hook;
	struct search seen;
	int r = lo_hook(BPF_TC_EGRESS, &hook);

	if (r == 0)
		r = look(&seen);
	if (r < 0)
		return r;
	if (seen.found.handle && uses_map(seen.found.prog_id, rings)) {
		opts.priority = seen.found.priority;
		r = bpf_tc_detach(&hook, &opts);
		if (r < 0 && r != -ENOENT)
			return dmm_steer_fail(r, NULL, "cannot remove the filter of lo");
	}
	if (!qdisc || clsact_is_used(hook.ifindex))
		return 0;
	hook.attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS;
	r = bpf_tc_hook_destroy(&hook);
	return r < 0 && r != -ENOENT && r != -EINVAL
		       ? dmm_steer_fail(r, NULL, "cannot remove the clsact qdisc of lo")
		       : 0;
}
