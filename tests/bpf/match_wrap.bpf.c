/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The matcher, test-runnable: cgroup programs cannot be test-run, so this one asks the same header on
 * the same maps. It answers a batch of queries in one run: a run for each would cost fifty times what the
 * matcher does. */
#include "lib/tables.bpf.h"

#include "match_query.h"

#define MAX_QUERIES 1000

struct match_query queries[MAX_QUERIES];
__u32 n_queries;

static long answer(__u32 i, dmm_slot *slot)
{
	struct match_query *q;
	__u32 w[4], l[4];

	if (i >= MAX_QUERIES)
		return 1;
	q = &queries[i];
	/* the matcher wants an address it may index */
	__builtin_memcpy(w, q->remote, sizeof(w));
	__builtin_memcpy(l, q->local, sizeof(l));
	if (q->dir == DMM_DIR_LISTEN)
		q->rule = dmm_match_client(*slot, q->class_id, q->proto, dmm_addr_family((__u8 *)w),
					   (__u8 *)l, q->port, (__u8 *)w);
	else
		q->rule = dmm_match(*slot, q->class_id, q->dir, q->proto,
				    dmm_addr_family((__u8 *)w), (__u8 *)w, q->port);
	return 0;
}

SEC("xdp")
int match_batch(struct xdp_md *ctx)
{
	struct decide_env env = {};

	live_generation(&env);
	return bpf_loop(n_queries, answer, &env.slot, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
