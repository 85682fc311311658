/* SPDX-License-Identifier: Apache-2.0 */
/* The filter that holds relay SYNs, on the way out of `lo`. It is a classic clsact filter, since links
 * for tc exist only from kernel 6.6 on: nothing owns it, so it is looked after by repair. Whose it is
 * is told by the maps that its program uses: that holds whenever a dmmd was killed, too. */
#include <errno.h>
#include <net/if.h>

#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>

#include "base/netlink.h"
#include "base/util.h"
#include "steer/steer_internal.h"

#define FILTER_HANDLE	0x646d6d /* "dmm" */
#define FILTER_PRIORITY 1
#define MAX_MAPS	64u /* that one program uses */

static int lo_hook(enum bpf_tc_attach_point point, struct bpf_tc_hook *ret)
{
	unsigned int ifindex = if_nametoindex("lo");

	if (!ifindex)
		return dmm_steer_fail(-errno, NULL, "there is no interface lo");
	*ret = (struct bpf_tc_hook){
		.sz = sizeof(*ret),
		.ifindex = ifindex,
		.attach_point = point,
	};
	return 0;
}

/* The id of the program in our place on lo; 0: none. */
static int query(const struct bpf_tc_hook *hook, uint32_t *ret_id)
{
	DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .handle = FILTER_HANDLE,
			    .priority = FILTER_PRIORITY);
	int r = bpf_tc_query(hook, &opts);

	if (r < 0 && r != -ENOENT && r != -EINVAL) /* EINVAL: no clsact */
		return dmm_steer_fail(r, NULL, "cannot read the filters of lo");
	*ret_id = r < 0 ? 0 : opts.prog_id;
	return 0;
}

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

int dmm_lo_attach(struct dmm_steer *steer)
{
	DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .handle = FILTER_HANDLE, .priority = FILTER_PRIORITY,
			    .prog_fd = steer->lo_prog.fd, .flags = BPF_TC_F_REPLACE);
	struct bpf_tc_hook hook;
	uint32_t id;
	int r = lo_hook(BPF_TC_EGRESS, &hook);

	if (r == 0)
		r = query(&hook, &id);
	if (r < 0)
		return r;
	if (id == steer->lo_prog.id)
		return 0;
	if (id && !uses_map(id, steer->map[DMM_MAP_rings]))
		return dmm_steer_refuse(-EBUSY, "stop it, or: tc filter del dev lo egress prio 1",
					"program id %u of another dmmd sits on lo in this network "
					"namespace",
					id);
	r = bpf_tc_hook_create(&hook);
	if (r < 0 && r != -EEXIST)
		return dmm_steer_fail(r, "kernel option NET_SCH_INGRESS is needed",
				      "cannot make the clsact qdisc on lo");
	if (r == 0) {
		r = dmm_undo_made_clsact(steer);
		if (r < 0)
			return r;
	}
	r = bpf_tc_attach(&hook, &opts);
	if (r < 0)
		return dmm_steer_fail(r, "kernel option NET_CLS_BPF is needed",
				      "cannot attach the filter to lo");
	return 1;
}

/* --- who else uses clsact --- */

static int count_filter(const struct nlmsghdr *nlh, void *data)
{
	if (nlh->nlmsg_type == RTM_NEWTFILTER)
		++*(unsigned int *)data;
	return MNL_CB_OK;
}

static int count_filters(struct mnl_socket *nl, unsigned int ifindex, uint32_t point,
			 unsigned int *count)
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
	return dmm_netlink_ask(nl, nlh, count_filter, count);
}

static bool clsact_is_used(unsigned int ifindex)
{
	struct mnl_socket *nl = NULL;
	unsigned int count = 0;
	int r = dmm_netlink_open(NETLINK_ROUTE, &nl);

	if (r < 0)
		return true; /* in doubt it stays */
	r = count_filters(nl, ifindex, TC_H_MIN_INGRESS, &count);
	if (r == 0)
		r = count_filters(nl, ifindex, TC_H_MIN_EGRESS, &count);
	mnl_socket_close(nl);
	return r < 0 || count > 0;
}

int dmm_lo_detach(int rings, bool qdisc)
{
	DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .handle = FILTER_HANDLE,
			    .priority = FILTER_PRIORITY);
	struct bpf_tc_hook hook;
	uint32_t id;
	int r = lo_hook(BPF_TC_EGRESS, &hook);

	if (r == 0)
		r = query(&hook, &id);
	if (r < 0)
		return r;
	if (id && uses_map(id, rings)) {
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
