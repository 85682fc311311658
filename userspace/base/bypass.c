/* SPDX-License-Identifier: Apache-2.0 */
/* The bypass scan: netlink questions about routing policy, IPsec and traffic control; nftables and
 * veth peers are in files of their own. */
#include "base/bypass_internal.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/fib_rules.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/xfrm.h>
#include <net/if.h>
#include <stdarg.h>

#include <bpf/bpf.h>

#include "base/netlink.h"
#include "base/util.h"

/* enum bpf_attach_type of Linux 6.6; not in the headers of 6.1 */
#define TCX_INGRESS 46
#define TCX_EGRESS  47

const char *dmm_bypass_word(enum dmm_bypass_kind kind)
{
	static const char *const words[DMM_NUM_BYPASS_KINDS] = {
		"nftables", "iptables", "tc", "ipsec", "policy-routing", "peer-checksum",
	};

	return kind < DMM_NUM_BYPASS_KINDS ? words[kind] : "unknown";
}

void dmm_bypass_report(struct dmm_bypass_scan *scan, enum dmm_bypass_kind kind, const char *hint,
		       const char *format, ...)
{
	struct dmm_bypass found = { .kind = kind };
	va_list ap;

	va_start(ap, format);
	vsnprintf(found.text, sizeof(found.text), format, ap);
	va_end(ap);
	snprintf(found.hint, sizeof(found.hint), "%s", hint);
	scan->count++;
	scan->fn(scan->ctx, &found);
}

int dmm_bypass_ask(int bus, struct nlmsghdr *request, mnl_cb_t cb, void *ctx)
{
	struct mnl_socket *nl = NULL;
	int r = dmm_netlink_open(bus, &nl);

	if (r < 0) /* this kernel may have no such family */
		return r == -EPROTONOSUPPORT ? 0 : r;
	r = dmm_netlink_ask(nl, request, cb, ctx);
	mnl_socket_close(nl);
	/* EOPNOTSUPP, EINVAL: the module behind this question is not there */
	return r == -EOPNOTSUPP || r == -EINVAL ? 0 : r;
}

/* --- policy routing --- */
struct rules {
	unsigned int count;
	uint32_t first_priority;
};

static int count_rule(const struct nlmsghdr *nlh, void *ctx)
{
	const struct fib_rule_hdr *hdr = mnl_nlmsg_get_payload(nlh);
	uint32_t priority = 0, table = hdr->table;
	struct rules *rules = ctx;
	const struct nlattr *attr;

	mnl_attr_for_each(attr, nlh, sizeof(*hdr))
	{
		if (mnl_attr_get_type(attr) == FRA_PRIORITY)
			priority = mnl_attr_get_u32(attr);
		else if (mnl_attr_get_type(attr) == FRA_TABLE)
			table = mnl_attr_get_u32(attr);
	}
	if ((priority == 0 && table == RT_TABLE_LOCAL) ||
	    (priority == 32766 && table == RT_TABLE_MAIN) ||
	    (priority == 32767 && table == RT_TABLE_DEFAULT))
		return MNL_CB_OK;
	if (rules->count++ == 0)
		rules->first_priority = priority;
	return MNL_CB_OK;
}

static int scan_rules(struct dmm_bypass_scan *scan, int family)
{
	bool v6 = family == AF_INET6;
	char buf[MNL_NLMSG_HDRLEN + 64];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct rules rules = { 0 };
	struct fib_rule_hdr *hdr;
	int r;

	nlh->nlmsg_type = RTM_GETRULE;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	hdr = mnl_nlmsg_put_extra_header(nlh, sizeof(*hdr));
	hdr->family = family;
	r = dmm_bypass_ask(NETLINK_ROUTE, nlh, count_rule, &rules);
	if (r == 0 && rules.count)
		dmm_bypass_report(scan, DMM_BYPASS_RULE,
				  v6 ? "ip -6 rule show; stacks follow the main table only"
				     : "ip rule show; stacks follow the main table only",
				  "%u IPv%c policy routing rule%s, first at priority %u",
				  rules.count, v6 ? '6' : '4', rules.count == 1 ? "" : "s",
				  rules.first_priority);
	return r;
}

/* --- IPsec --- */
static int count_policy(const struct nlmsghdr *nlh, void *ctx)
{
	const struct xfrm_userpolicy_info *policy = mnl_nlmsg_get_payload(nlh);

	/* above OUT and IN are those of single sockets (an IKE daemon's own) and of forwarding */
	if (policy->dir <= XFRM_POLICY_OUT)
		(*(unsigned int *)ctx)++;
	return MNL_CB_OK;
}

static int scan_xfrm(struct dmm_bypass_scan *scan)
{
	char buf[MNL_NLMSG_HDRLEN + sizeof(struct xfrm_userpolicy_id)];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	unsigned int count = 0;
	int r;

	nlh->nlmsg_type = XFRM_MSG_GETPOLICY;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	mnl_nlmsg_put_extra_header(nlh, sizeof(struct xfrm_userpolicy_id));
	r = dmm_bypass_ask(NETLINK_XFRM, nlh, count_policy, &count);
	if (r == 0 && count)
		dmm_bypass_report(scan, DMM_BYPASS_XFRM,
				  "ip xfrm policy; keep these destinations in the kernel",
				  "%u IPsec polic%s: steered packets leave in clear text", count,
				  count == 1 ? "y" : "ies");
	return r;
}

/* --- traffic control --- */
struct qdiscs {
	uint32_t ifindex;
	bool classifier; /* clsact or ingress is there: filters may be */
	char shaper[16];
};

static int note_qdisc(const struct nlmsghdr *nlh, void *ctx)
{
	/* what the kernel puts there by itself holds nothing back that a stack would miss */
	static const char *const plain[] = { "noqueue", "pfifo", "bfifo",    "pfifo_fast",
					     "mq",	"fq",	 "fq_codel", "noop" };
	const struct tcmsg *tcm = mnl_nlmsg_get_payload(nlh);
	struct qdiscs *qdiscs = ctx;
	const struct nlattr *attr;
	const char *kind = "";

	if ((uint32_t)tcm->tcm_ifindex != qdiscs->ifindex)
		return MNL_CB_OK;
	mnl_attr_for_each(attr, nlh, sizeof(*tcm)) if (mnl_attr_get_type(attr) == TCA_KIND)
		kind = mnl_attr_get_str(attr);
	if (dmm_streq(kind, "clsact") || dmm_streq(kind, "ingress")) {
		qdiscs->classifier = true;
		return MNL_CB_OK;
	}
	for (size_t i = 0; i < DMM_ARRAY_SIZE(plain); i++)
		if (dmm_streq(kind, plain[i]))
			return MNL_CB_OK;
	if (!qdiscs->shaper[0])
		snprintf(qdiscs->shaper, sizeof(qdiscs->shaper), "%s", kind);
	return MNL_CB_OK;
}

static int count_filter(const struct nlmsghdr *nlh, void *ctx)
{
	const struct tcmsg *tcm = mnl_nlmsg_get_payload(nlh);

	if (tcm->tcm_handle) /* 0: the header of a group of filters */
		(*(unsigned int *)ctx)++;
	return MNL_CB_OK;
}

static int ask_tc(int type, uint32_t ifindex, uint32_t parent, mnl_cb_t cb, void *ctx)
{
	char buf[MNL_NLMSG_HDRLEN + sizeof(struct tcmsg)];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct tcmsg *tcm;

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	tcm = mnl_nlmsg_put_extra_header(nlh, sizeof(*tcm));
	tcm->tcm_ifindex = ifindex;
	tcm->tcm_parent = parent;
	return dmm_bypass_ask(NETLINK_ROUTE, nlh, cb, ctx);
}

static unsigned int count_tcx(uint32_t ifindex, int type)
{
	LIBBPF_OPTS(bpf_prog_query_opts, opts);

	return bpf_prog_query_opts(ifindex, type, &opts) == 0 ? opts.prog_cnt : 0;
}

static int scan_tc(struct dmm_bypass_scan *scan, uint32_t ifindex)
{
	struct qdiscs qdiscs = { .ifindex = ifindex };
	unsigned int in = 0, out = 0;
	char name[IF_NAMESIZE];
	int r;

	if (!if_indextoname(ifindex, name))
		return 0; /* gone meanwhile */
	r = ask_tc(RTM_GETQDISC, ifindex, 0, note_qdisc, &qdiscs);
	if (r == 0 && qdiscs.classifier)
		r = ask_tc(RTM_GETTFILTER, ifindex, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS),
			   count_filter, &in);
	if (r == 0 && qdiscs.classifier)
		r = ask_tc(RTM_GETTFILTER, ifindex, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS),
			   count_filter, &out);
	if (r < 0)
		return r;
	in += count_tcx(ifindex, TCX_INGRESS);
	out += count_tcx(ifindex, TCX_EGRESS);
	if (in || out)
		dmm_bypass_report(scan, DMM_BYPASS_TC, "tc filter show; bpftool net",
				  "tc on %s: %u filters or programs at ingress, %u at egress", name,
				  in, out);
	if (qdiscs.shaper[0])
		dmm_bypass_report(scan, DMM_BYPASS_TC, "tc qdisc show",
				  "tc on %s: qdisc %s shapes only what the kernel sends", name,
				  qdiscs.shaper);
	return 0;
}

static void scan_peer(struct dmm_bypass_scan *scan, uint32_t ifindex)
{
	char name[IF_NAMESIZE], where[96], hint[256];
	struct dmm_veth_peer peer;

	if (dmm_veth_peer(ifindex, &peer) < 0 || !peer.tx_csum || !if_indextoname(ifindex, name))
		return;
	if (!peer.netns[0])
		where[0] = '\0';
	else if (strncmp(peer.netns, "pid ", 4) == 0)
		snprintf(where, sizeof(where), "nsenter --net=/proc/%s/ns/net ", peer.netns + 4);
	else
		snprintf(where, sizeof(where), "ip netns exec %s ", peer.netns);
	snprintf(hint, sizeof(hint), "%sethtool -K %s tx off", where, peer.ifname);
	dmm_bypass_report(
		scan, DMM_BYPASS_CHECKSUM, hint,
		"veth %s: its peer %s%s%s leaves checksums undone (tx offload on): a stack "
		"drops what it sends",
		name, peer.ifname, peer.netns[0] ? " in " : "", peer.netns);
}

int dmm_bypass_scan(const uint32_t *ifindexes, unsigned int n,
		    void (*fn)(void *ctx, const struct dmm_bypass *found), void *ctx)
{
	struct dmm_bypass_scan scan = { .fn = fn, .ctx = ctx };
	int r = dmm_bypass_nftables(&scan, ifindexes, n);

	if (r == 0)
		r = dmm_bypass_iptables(&scan);
	if (r == 0)
		r = scan_xfrm(&scan);
	if (r == 0)
		r = scan_rules(&scan, AF_INET);
	if (r == 0)
		r = scan_rules(&scan, AF_INET6);
	for (unsigned int i = 0; r == 0 && i < n; i++) {
		r = scan_tc(&scan, ifindexes[i]);
		scan_peer(&scan, ifindexes[i]);
	}
	return r < 0 ? r : scan.count;
}
