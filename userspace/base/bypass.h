/* SPDX-License-Identifier: Apache-2.0 */
/* What this network namespace does to packets that steered traffic goes around or trips over: dmmd
 * says it at apply, `dmmctl doctor` before. Only looks; loads no module and creates no table. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum dmm_bypass_kind {
	DMM_BYPASS_NFTABLES, /* a base chain with rules, or with policy drop */
	DMM_BYPASS_IPTABLES, /* a legacy table with rules of its own */
	DMM_BYPASS_TC,	     /* filters, tcx programs or a shaping qdisc on the interface */
	DMM_BYPASS_XFRM,     /* IPsec policies: steered packets would leave in clear text */
	DMM_BYPASS_RULE,     /* policy routing: the stack only knows the main table */
	DMM_BYPASS_CHECKSUM, /* a veth peer sends partial checksums: the stack drops its packets */
	DMM_NUM_BYPASS_KINDS,
};

struct dmm_bypass {
	enum dmm_bypass_kind kind;
	char text[256]; /* "nftables inet filter/output: 3 rules, policy drop" */
	char hint[256]; /* a command or what it means; "" where there is nothing to do */
};

/* One word for JSON: "nftables", ... */
const char *dmm_bypass_word(enum dmm_bypass_kind kind);

/* Calls @fn for each thing found. tc and checksums are looked at on the interfaces given; chains that
 * only see forwarded packets do not count. What the kernel lacks is silently absent. Returns how
 * many were found, negative errno when the kernel would not say (EPERM: needs CAP_NET_ADMIN). */
int dmm_bypass_scan(const uint32_t *ifindexes, unsigned int n,
		    void (*fn)(void *ctx, const struct dmm_bypass *found), void *ctx);

/* A veth's other end, looked for in this namespace, then in the named ones, then in those of
 * processes. -ENOENT: @ifindex is no veth, or its peer is nowhere visible. */
struct dmm_veth_peer {
	char ifname[16];
	char netns[64]; /* name in /run/netns, "pid 123", or "": this namespace */
	bool tx_csum;	/* it leaves checksums to us */
};
int dmm_veth_peer(uint32_t ifindex, struct dmm_veth_peer *ret);
