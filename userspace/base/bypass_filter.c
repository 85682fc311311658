/* SPDX-License-Identifier: Apache-2.0 */
/* The bypass scan's packet filters: nftables' base chains and legacy iptables' tables. */
#include "base/bypass_internal.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

/* after the C library's, which they make room for */
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter_ipv4/ip_tables.h>

#include "base/util.h"

struct chain {
	uint8_t family;
	uint32_t hook;
	bool drop;
	unsigned int rules;
	char table[64], name[64], type[16];
};

struct chains {
	struct chain *items;
	size_t n;
	const uint32_t *ifindexes;
	unsigned int n_ifindexes;
	int err;
};

static bool ours(const struct chains *chains, const char *ifname)
{
	uint32_t ifindex = if_nametoindex(ifname);

	for (unsigned int i = 0; i < chains->n_ifindexes; i++)
		if (chains->ifindexes[i] == ifindex)
			return true;
	return false;
}

/* Chains of the netdev family (and inet ingress) belong to devices: does one of ours have this? */
static bool on_our_device(const struct chains *chains, const struct nlattr *hook)
{
	const struct nlattr *attr, *dev;
	bool any = false;

	mnl_attr_for_each_nested(attr, hook)
	{
		switch (mnl_attr_get_type(attr)) {
		case NFTA_HOOK_DEV:
			any |= ours(chains, mnl_attr_get_str(attr));
			break;
		case NFTA_HOOK_DEVS:
			mnl_attr_for_each_nested(dev, attr)
				any |= ours(chains, mnl_attr_get_str(dev));
			break;
		}
	}
	return any;
}

/* Would packets of this host's own connections pass this hook? */
static bool matters(const struct chains *chains, uint8_t family, uint32_t hook,
		    const struct nlattr *attr)
{
	switch (family) {
	case NFPROTO_IPV4:
	case NFPROTO_IPV6:
		return hook != NF_INET_FORWARD;
	case NFPROTO_INET:
		return hook == NF_INET_INGRESS ? on_our_device(chains, attr)
					       : hook != NF_INET_FORWARD;
	case NFPROTO_NETDEV:
		return on_our_device(chains, attr);
	default: /* arp stays in the kernel anyway; bridge ports are no stack's interface */
		return false;
	}
}

static uint32_t hook_number(const struct nlattr *hook)
{
	const struct nlattr *attr;

	mnl_attr_for_each_nested(attr,
				 hook) if (mnl_attr_get_type(attr) ==
					   NFTA_HOOK_HOOKNUM) return ntohl(mnl_attr_get_u32(attr));
	return NF_INET_NUMHOOKS;
}

static void copy_name(char *to, size_t size, const struct nlattr *attr)
{
	snprintf(to, size, "%s", mnl_attr_get_str(attr));
}

static int note_chain(const struct nlmsghdr *nlh, void *ctx)
{
	const struct nfgenmsg *nfg = mnl_nlmsg_get_payload(nlh);
	struct chain chain = { .family = nfg->nfgen_family };
	const struct nlattr *attr, *hook = NULL;
	struct chains *chains = ctx;
	struct chain *more;

	mnl_attr_for_each(attr, nlh, sizeof(*nfg))
	{
		switch (mnl_attr_get_type(attr)) {
		case NFTA_CHAIN_TABLE:
			copy_name(chain.table, sizeof(chain.table), attr);
			break;
		case NFTA_CHAIN_NAME:
			copy_name(chain.name, sizeof(chain.name), attr);
			break;
		case NFTA_CHAIN_TYPE:
			copy_name(chain.type, sizeof(chain.type), attr);
			break;
		case NFTA_CHAIN_POLICY:
			chain.drop = ntohl(mnl_attr_get_u32(attr)) == NF_DROP;
			break;
		case NFTA_CHAIN_HOOK:
			hook = attr;
			break;
		}
	}
	if (!hook)
		return MNL_CB_OK; /* reached only by jumps from a base chain, which counts */
	chain.hook = hook_number(hook);
	if (!matters(chains, chain.family, chain.hook, hook))
		return MNL_CB_OK;
	more = realloc(chains->items, (chains->n + 1) * sizeof(*more));
	if (!more) {
		chains->err = -ENOMEM;
		return MNL_CB_STOP;
	}
	chains->items = more;
	more[chains->n++] = chain;
	return MNL_CB_OK;
}

static int count_rule(const struct nlmsghdr *nlh, void *ctx)
{
	const struct nfgenmsg *nfg = mnl_nlmsg_get_payload(nlh);
	const char *table = "", *name = "";
	struct chains *chains = ctx;
	const struct nlattr *attr;

	mnl_attr_for_each(attr, nlh, sizeof(*nfg))
	{
		if (mnl_attr_get_type(attr) == NFTA_RULE_TABLE)
			table = mnl_attr_get_str(attr);
		else if (mnl_attr_get_type(attr) == NFTA_RULE_CHAIN)
			name = mnl_attr_get_str(attr);
	}
	for (size_t i = 0; i < chains->n; i++) {
		struct chain *chain = &chains->items[i];

		if (chain->family == nfg->nfgen_family && dmm_streq(chain->table, table) &&
		    dmm_streq(chain->name, name))
			chain->rules++;
	}
	return MNL_CB_OK;
}

static int ask_nft(int what, mnl_cb_t cb, void *ctx)
{
	char buf[MNL_NLMSG_HDRLEN + sizeof(struct nfgenmsg)];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct nfgenmsg *nfg;

	nlh->nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | what;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));
	nfg->nfgen_family = NFPROTO_UNSPEC;
	nfg->version = NFNETLINK_V0;
	return dmm_bypass_ask(NETLINK_NETFILTER, nlh, cb, ctx);
}

static const char *family_word(uint8_t family)
{
	switch (family) {
	case NFPROTO_IPV4:
		return "ip";
	case NFPROTO_IPV6:
		return "ip6";
	case NFPROTO_INET:
		return "inet";
	default:
		return "netdev";
	}
}

int dmm_bypass_nftables(struct dmm_bypass_scan *scan, const uint32_t *ifindexes, unsigned int n)
{
	struct chains chains = { .ifindexes = ifindexes, .n_ifindexes = n };
	int r = ask_nft(NFT_MSG_GETCHAIN, note_chain, &chains);

	if (r == 0)
		r = chains.err;
	if (r == 0 && chains.n)
		r = ask_nft(NFT_MSG_GETRULE, count_rule, &chains);
	for (size_t i = 0; r == 0 && i < chains.n; i++) {
		const struct chain *chain = &chains.items[i];

		if (!chain->rules && !chain->drop)
			continue;
		dmm_bypass_report(scan, DMM_BYPASS_NFTABLES,
				  "nft list ruleset; steered traffic passes by it",
				  "nftables %s %s/%s (%s): %u rule%s%s", family_word(chain->family),
				  chain->table, chain->name, chain->type, chain->rules,
				  chain->rules == 1 ? "" : "s", chain->drop ? ", policy drop" : "");
	}
	free(chains.items);
	return r;
}

/* One legacy table; struct ip6t_getinfo has the same layout. */
static void scan_table(struct dmm_bypass_scan *scan, int fd, int level, const char *tool,
		       const char *table)
{
	struct ipt_getinfo info = { 0 };
	socklen_t len = sizeof(info);
	unsigned int builtin;

	snprintf(info.name, sizeof(info.name), "%s", table);
	if (getsockopt(fd, level, IPT_SO_GET_INFO, &info, &len) < 0)
		return;
	/* an empty table has one policy entry per hook and one that ends it */
	builtin = __builtin_popcount(info.valid_hooks) + 1;
	if (info.num_entries > builtin)
		dmm_bypass_report(scan, DMM_BYPASS_IPTABLES,
				  "iptables-legacy-save; steered traffic passes by it",
				  "%s table %s: %u entries of its own", tool, table,
				  info.num_entries - builtin);
}

static void scan_tables(struct dmm_bypass_scan *scan, const char *names, int family, int level,
			const char *tool)
{
	dmm_autofclose FILE *f = fopen(names, "re");
	dmm_autoclose int fd = -1;
	char table[XT_TABLE_MAXNAMELEN];

	/* asking for a table that is not listed would create it */
	while (f && fscanf(f, "%31s", table) == 1) {
		if (fd < 0)
			fd = socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
		if (fd < 0)
			return;
		scan_table(scan, fd, level, tool, table);
	}
}

int dmm_bypass_iptables(struct dmm_bypass_scan *scan)
{
	scan_tables(scan, "/proc/self/net/ip_tables_names", AF_INET, IPPROTO_IP, "iptables");
	scan_tables(scan, "/proc/self/net/ip6_tables_names", AF_INET6, IPPROTO_IPV6, "ip6tables");
	return 0;
}
