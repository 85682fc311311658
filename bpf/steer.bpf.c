/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The flow door: XDP on each interface that a stack uses. A packet for a port that an instance owns
 * goes to that instance's AF_XDP socket; everything else is the kernel's, with a counted reason.
 * The port is looked up first: packets of the kernel pay for little more than that. Of a port that a
 * server listens on each flow is somebody's by itself (serve.bpf.h). */
#include "lib/serve.bpf.h"

#define TC_ACT_SHOT 2

static __always_inline int pass(enum dmm_reason reason)
{
	count(reason);
	return XDP_PASS;
}

static __always_inline int drop(enum dmm_reason reason)
{
	count(reason);
	return XDP_DROP;
}

/* A source that no honest packet from outside has. */
static __always_inline bool bad_source(const __u8 *addr, enum dmm_family family)
{
	const __u32 *w = (const __u32 *)addr;

	if (family == DMM_FAMILY_V4) {
		if (addr[12] == 0 || addr[12] == 127 || addr[12] >= 224)
			return true;
	} else {
		/* ::, ::1 and everything mapped or compatible; multicast */
		if ((!w[0] && !w[1] && (!w[2] || w[2] == bpf_htonl(0xffff))) || addr[0] == 0xff)
			return true;
	}
	return local(addr) != NULL;
}

static __always_inline bool is_ours(const __u8 *addr)
{
	const struct dmm_local *own = local(addr);

	return own && (own->flags & DMM_LOCAL_UNICAST);
}

static __always_inline bool beat_is_stale(__u32 id)
{
	const struct dmm_config *conf = config();
	__u64 beat = beat_of(id), now = coarse_ns();

	return !beat || !conf || (now > beat && now - beat > conf->stale_ms * 1000000ULL);
}

/* An empty slot (the instance died a moment ago) passes to the kernel, which resets. */
static __always_inline int to_socket(__u32 id, __u32 queue)
{
	if (queue >= DMM_MAX_QUEUES)
		return XDP_PASS;
	return bpf_redirect_map(&dmm_xsks, id * DMM_MAX_QUEUES + queue, XDP_PASS);
}

static __always_inline int redirect(struct xdp_md *ctx, __u32 id, const struct dmm_instance *inst,
				    const struct packet *p)
{
	struct dmm_inst_stats *stats;
	int r;

	if (inst->hop_ifindex)
		r = bpf_redirect(inst->hop_ifindex, 0);
	else
		r = to_socket(id, ctx->rx_queue_index);
	if (r != XDP_REDIRECT)
		return pass(DMM_REASON_XDP_INST_DEAD);
	stats = bpf_map_lookup_elem(&dmm_inst_stats, &id);
	if (stats) {
		stats->packets++;
		stats->bytes += ctx->data_end - ctx->data;
	}
	count(p->first_fragment ? DMM_REASON_XDP_FIRST_FRAG : DMM_REASON_XDP_REDIRECT);
	return XDP_REDIRECT;
}

SEC("xdp")
int dmm_xdp(struct xdp_md *ctx)
{
	const struct dmm_instance *inst;
	enum dmm_reason reason;
	struct dmm_port *port;
	struct packet p = {};
	__u8 addr[16];
	__u32 key, id;

	reason = parse_frame(ctx, &p);
	if (reason != DMM_REASON_NONE)
		return pass(reason);

	key = (p.proto << 16) | p.port;
	port = bpf_map_lookup_elem(&dmm_ports, &key);
	if (!port || port->state == DMM_PORT_KERNEL)
		return pass(DMM_REASON_XDP_KERNEL_PORT);

	load_addr(ctx, &p, false, addr);
	if (bad_source(addr, p.family))
		return pass(DMM_REASON_XDP_BAD_SOURCE);
	load_addr(ctx, &p, true, addr);
	if (!is_ours(addr) || (p.is_error && !is_ours(p.quote.source)))
		return pass(DMM_REASON_XDP_NOT_OURS);

	id = port->instance;
	if (port->state == DMM_PORT_SERVED) {
		reason = find_server(ctx, &p, port, &id);
		if (reason == DMM_REASON_XDP_LISTEN_REJECT)
			return drop(reason);
		if (reason != DMM_REASON_NONE)
			return pass(reason);
	}
	inst = instance(id);
	if (!inst || (inst->state != DMM_INST_READY && inst->state != DMM_INST_DRAINING))
		return pass(DMM_REASON_XDP_INST_DEAD);
	if (inst->ifindex != ctx->ingress_ifindex)
		return pass(DMM_REASON_XDP_WRONG_IF);
	if (p.syn && beat_is_stale(id))
		return pass(DMM_REASON_XDP_INST_STALE);
	return redirect(ctx, id, inst, &p);
}

/* The far end of a hop: what comes here the flow door has sent. */
SEC("xdp")
int dmm_hop_xdp(struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;
	const struct dmm_hop *hop = bpf_map_lookup_elem(&dmm_hops, &ifindex);

	if (!hop || to_socket(hop->instance, 0) != XDP_REDIRECT)
		return XDP_DROP;
	return XDP_REDIRECT;
}

/* The near end: what the instance sends. */
SEC("tc")
int dmm_hop_out(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ingress_ifindex;
	const struct dmm_hop *hop = bpf_map_lookup_elem(&dmm_hops, &ifindex);

	return hop ? bpf_redirect(hop->ifindex, 0) : TC_ACT_SHOT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
