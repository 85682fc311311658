/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The matcher, test-runnable: cgroup programs cannot be test-run, so this one asks the same header on
 * the same maps. The frame is an Ethernet header and a struct match_query; the rule is the return
 * value. */
#include "lib/tables.bpf.h"

struct match_query {
	__u32 class_id;
	__u16 dir, proto;
	__u32 port;
	__u8 remote[16];
};

SEC("xdp")
int match_query(struct xdp_md *ctx)
{
	const struct match_query *q = (const void *)(long)ctx->data + 14;
	struct decide_env env = {};
	__u32 w[4];

	if ((const void *)(q + 1) > (const void *)(long)ctx->data_end)
		return DMM_NO_RULE - 1;
	/* the matcher wants an address it may index */
	__builtin_memcpy(w, q->remote, sizeof(w));
	live_generation(&env);
	return dmm_match(env.slot, q->class_id, q->dir, q->proto, dmm_addr_family((__u8 *)w),
			 (__u8 *)w, q->port);
}

char _license[] SEC("license") = "Dual BSD/GPL";
