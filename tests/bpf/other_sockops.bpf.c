/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Somebody else's sockops program: asks for callbacks of its own and looks whether it keeps them. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

__u32 flags_seen; /* at the last change of state */

SEC("sockops")
int other_sockops(struct bpf_sock_ops *ops)
{
	if (ops->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		bpf_sock_ops_cb_flags_set(ops, BPF_SOCK_OPS_RTT_CB_FLAG);
	else if (ops->op == BPF_SOCK_OPS_STATE_CB)
		flags_seen = ops->bpf_sock_ops_cb_flags;
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
