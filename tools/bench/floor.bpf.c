/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The least a program can do at the hooks of DMM: what the bench counts from. And the least that leads
 * TCP to a stack that runs alone. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FIRST_PORT 20000 /* as in alone_stack.h */
#define LAST_PORT  31999

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} floor_xsks SEC(".maps");

SEC("xdp")
int floor_xdp(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

/* Where TCP begins, NULL: it is none, or has options before it. */
static const struct tcphdr *find_tcp(struct xdp_md *ctx)
{
	const struct ethhdr *eth = (const void *)(long)ctx->data;
	const void *end = (const void *)(long)ctx->data_end;
	const struct iphdr *ip = (const void *)(eth + 1);
	const struct ipv6hdr *ip6 = (const void *)(eth + 1);
	const struct tcphdr *tcp = NULL;

	if ((const void *)(ip + 1) > end)
		return NULL;
	if (eth->h_proto == bpf_htons(ETH_P_IP) && ip->ihl == 5 && ip->protocol == IPPROTO_TCP)
		tcp = (const void *)(ip + 1);
	else if (eth->h_proto == bpf_htons(ETH_P_IPV6) && (const void *)(ip6 + 1) <= end &&
		 ip6->nexthdr == IPPROTO_TCP)
		tcp = (const void *)(ip6 + 1);
	return tcp && (const void *)(tcp + 1) <= end ? tcp : NULL;
}

SEC("xdp")
int floor_redirect(struct xdp_md *ctx)
{
	const struct tcphdr *tcp = find_tcp(ctx);
	__u16 port = tcp ? bpf_ntohs(tcp->dest) : 0;

	if (port < FIRST_PORT || port > LAST_PORT)
		return XDP_PASS;
	return bpf_redirect_map(&floor_xsks, ctx->rx_queue_index, XDP_PASS);
}

SEC("cgroup/connect4")
int floor_connect4(struct bpf_sock_addr *ctx)
{
	(void)ctx;
	return 1;
}

SEC("cgroup/connect6")
int floor_connect6(struct bpf_sock_addr *ctx)
{
	(void)ctx;
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
