/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Watches another BPF program from its entry and its end, as people do who trace; see trace.c. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* 0: entries, 1: ends, 2: nanoseconds between */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} trace_sums SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} trace_begun SEC(".maps");

static __always_inline void add(__u32 key, __u64 n)
{
	__u64 *sum = bpf_map_lookup_elem(&trace_sums, &key);

	if (sum)
		__sync_fetch_and_add(sum, n);
}

SEC("fentry/to_be_named")
int trace_entry(void *ctx)
{
	__u64 now = bpf_ktime_get_ns();
	__u32 zero = 0;

	(void)ctx;
	bpf_map_update_elem(&trace_begun, &zero, &now, BPF_ANY);
	add(0, 1);
	return 0;
}

SEC("fexit/to_be_named")
int trace_end(void *ctx)
{
	__u32 zero = 0;
	__u64 *begun = bpf_map_lookup_elem(&trace_begun, &zero);

	(void)ctx;
	add(1, 1);
	if (begun && *begun)
		add(2, bpf_ktime_get_ns() - *begun);
	return 0;
}

char _license[] SEC("license") = "GPL";
