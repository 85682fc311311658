/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The few kernel fields that no helper gives, read with CO-RE: only the members used are named;
 * libbpf finds their offsets in the running kernel's BTF. A flavour suffix (___old) names the layout
 * of older kernels. */
#pragma once

#include <bpf/bpf_core_read.h>

#include "lib/sockaddr.bpf.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	unsigned int val;
} kuid_t;

struct cred {
	kuid_t uid;
};

struct task_struct {
	int tgid;
	struct task_struct *group_leader;
	const struct cred *cred;
	char comm[16];
	unsigned int flags;
};

#define PF_KTHREAD 0x00200000

struct in6_addr___kernel {
	union {
		__u32 u6_addr32[4];
	} in6_u;
};

struct sock_common {
	unsigned short skc_family;
	volatile unsigned char skc_state;
	__u32 skc_rcv_saddr;
	__u16 skc_num; /* the local port, host byte order */
	struct in6_addr___kernel skc_v6_rcv_saddr;
	unsigned long skc_flags;
};

struct sock {
	struct sock_common __sk_common;
	__u32 sk_ack_backlog,
		sk_max_ack_backlog; /* of a listener: accepted by nobody yet, and how many may be */
};

struct ipv6_pinfo {
	void *opt;
};

struct inet_sock {
	struct sock sk;
	struct ipv6_pinfo *pinet6;
	void *inet_opt;
	unsigned long inet_flags; /* since 6.6 */
};

struct inet_sock___old {
	__u8 transparent : 1; /* until 6.5 */
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	void *md5sig_info;
	__u64 bytes_sent, bytes_retrans, bytes_received;
};

enum sock_flags { SOCK_DEAD, SOCK_DONE };

enum tcp_state {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_TIME_WAIT = 6,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LISTEN = 10,
};

#pragma clang attribute pop

/* A bit number in inet_flags; the kernel's enum has no name that CO-RE could look up. */
#define INET_FLAGS_TRANSPARENT 15

/* IP_TRANSPARENT or IPV6_TRANSPARENT was set on it. */
static __always_inline bool sock_is_transparent(struct tcp_sock *tcp)
{
	struct inet_sock *inet = &tcp->inet_conn.icsk_inet;

	if (bpf_core_field_exists(inet->inet_flags))
		return BPF_CORE_READ(inet, inet_flags) & (1UL << INET_FLAGS_TRANSPARENT);
	return BPF_CORE_READ_BITFIELD_PROBED((struct inet_sock___old *)inet, transparent);
}

/* TCP_MD5SIG keys were set on it. */
static __always_inline bool sock_has_md5(struct tcp_sock *tcp)
{
	return bpf_core_field_exists(tcp->md5sig_info) && BPF_CORE_READ(tcp, md5sig_info);
}

/* IP_OPTIONS, or extension headers (RFC 3542) were set on it: they would not reach the wire. */
static __always_inline bool sock_has_ip_options(struct tcp_sock *tcp)
{
	struct inet_sock *inet = &tcp->inet_conn.icsk_inet;

	if (inet->inet_opt)
		return true;
	return bpf_core_field_exists(inet->pinet6) && inet->pinet6 && inet->pinet6->opt;
}

static __always_inline __be16 sock_local_port(struct tcp_sock *tcp)
{
	return bpf_htons(tcp->inet_conn.icsk_inet.sk.__sk_common.skc_num);
}

static __always_inline void sock_local_addr(struct tcp_sock *tcp, __u8 *addr)
{
	struct sock_common *skc = &tcp->inet_conn.icsk_inet.sk.__sk_common;
	__u32 *w = (__u32 *)addr;

	if (skc->skc_family == AF_INET) {
		addr_from_v4(addr, skc->skc_rcv_saddr);
		return;
	}
	w[0] = skc->skc_v6_rcv_saddr.in6_u.u6_addr32[0];
	w[1] = skc->skc_v6_rcv_saddr.in6_u.u6_addr32[1];
	w[2] = skc->skc_v6_rcv_saddr.in6_u.u6_addr32[2];
	w[3] = skc->skc_v6_rcv_saddr.in6_u.u6_addr32[3];
}

/* A listener that takes no more connections: its kernel drops the SYN. */
static __always_inline bool sock_backlog_is_full(struct tcp_sock *tcp)
{
	const struct sock *sk = &tcp->inet_conn.icsk_inet.sk;

	return sk->sk_ack_backlog > sk->sk_max_ack_backlog;
}

/* Payload that left, counted once. (bytes_acked would count SYN and FIN too.) */
static __always_inline __u64 sock_bytes_sent(struct tcp_sock *tcp)
{
	return tcp->bytes_sent - tcp->bytes_retrans;
}

/* Payload that came: a FIN, which sets SOCK_DONE, is counted as a byte by the kernel. */
static __always_inline __u64 sock_bytes_received(struct tcp_sock *tcp)
{
	unsigned long flags = tcp->inet_conn.icsk_inet.sk.__sk_common.skc_flags;

	return tcp->bytes_received -
	       ((flags >> bpf_core_enum_value(enum sock_flags, SOCK_DONE)) & 1);
}
