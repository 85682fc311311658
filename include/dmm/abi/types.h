/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Limits and enums shared by the BPF programs, the daemon, the instances and dmmctl. Every
 * struct in this folder crosses the kernel, a process or a socket: fixed-width types, named
 * padding, byte order in the type, 4-byte enums (bpftool prints their names). */
#pragma once

#include <linux/types.h>

/* Changes whenever a pinned map's meaning changes: dmmd refuses pins of another layout by name. */
#define DMM_ABI_LAYOUT 5

#define DMM_MAX_INSTANCES 64	/* slots in every per-instance map; slot = instance id */
#define DMM_MAX_QUEUES	  64	/* per instance: xsk index = instance * DMM_MAX_QUEUES + queue */
#define DMM_MAX_PORTS	  16384 /* wire ports one instance may own */
#define DMM_GEN_SLOTS	  4  /* generations in turn: none is refilled while a program may read it */
#define DMM_NAME_LEN	  64 /* rule, stack and policy names, NUL included (DNS-1123 label) */
#define DMM_INST_NAME_LEN 72 /* "name#index" */
#define DMM_HELD_SYN_MAX  160 /* longest SYN: 40 (v6) + extension headers + 60 (TCP) */

/* Addresses are 16 bytes in network order everywhere; IPv4 as ::ffff:a.b.c.d. */
struct dmm_addr {
	__u8 b[16];
};

enum dmm_family { DMM_FAMILY_V4, DMM_FAMILY_V6, DMM_NUM_FAMILIES };
enum dmm_proto { DMM_PROTO_TCP, DMM_PROTO_UDP, DMM_NUM_PROTOS };
enum dmm_direction { DMM_DIR_CONNECT, DMM_DIR_LISTEN, DMM_NUM_DIRS };

/* What a rule asks for. */
enum dmm_action { DMM_ACTION_KERNEL, DMM_ACTION_STACK, DMM_ACTION_REJECT };
enum dmm_unavailable { DMM_UNAVAILABLE_KERNEL, DMM_UNAVAILABLE_REJECT };

/* What a socket got. */
enum dmm_verdict {
	DMM_VERDICT_NONE,
	DMM_VERDICT_KERNEL,
	DMM_VERDICT_USERSPACE,
	DMM_VERDICT_REJECT
};

/* Life of an instance slot. Only dmmd writes it.
 *   FREE -> STARTING (forked, handover sent) -> READY (it said so; hooks may pick it)
 *   READY -> DRAINING (no new flows) -> DEAD;  any -> DEAD (declared dead: XDP passes its ports)
 *   DEAD -> STARTING (restart, incarnation + 1) or FREE (stack removed) */
enum dmm_inst_state {
	DMM_INST_FREE,
	DMM_INST_STARTING,
	DMM_INST_READY,
	DMM_INST_DRAINING,
	DMM_INST_DEAD,
};

/* Why something went the way it did: one list for both doors, renumbered only with DMM_ABI_LAYOUT.
 * X(name, cli word, one sentence). Socket door reasons end in a verdict; flow door reasons in PASS
 * or DROP. */
#define DMM_REASONS(X)                                                                             \
	X(NONE, "-", "no special reason: the rule decided")                                        \
	X(RULE, "rule", "the rule says so")                                                        \
	X(NO_POLICY, "no-policy", "no policy has been applied yet")                                \
	X(LOOPBACK, "builtin-loopback", "loopback destinations stay in the kernel")                \
	X(OWN_ADDRESS, "builtin-own", "the host's own addresses stay in the kernel")               \
	X(ROUTE, "builtin-route", "the route leaves by an interface the stack does not own")       \
	X(NO_ROUTE, "no-route", "no route to the destination is known")                            \
	X(NOT_STREAM, "not-tcp", "only TCP is carried by stacks so far")                           \
	X(OTHER_NETNS, "other-netns", "the socket belongs to another network namespace")           \
	X(BOUND_DEVICE, "bound-device", "SO_BINDTODEVICE ties the socket to a device")             \
	X(BOUND_PORT, "bound-port", "the application bound its own local port")                    \
	X(BOUND_ADDRESS, "bound-address", "bound to an address the stack's interface lacks")       \
	X(TRANSPARENT, "transparent", "IP_TRANSPARENT sockets stay in the kernel")                 \
	X(TCP_MD5, "tcp-md5", "TCP_MD5SIG sockets stay in the kernel")                             \
	X(SCOPED, "scoped-link-local", "link-local destinations stay in the kernel")               \
	X(MULTICAST, "multicast", "multicast and broadcast stay in the kernel")                    \
	X(INST_NOT_READY, "instance-not-ready", "the stack has no ready instance")                 \
	X(INST_NO_RELAY, "instance-no-relay", "the instance's relay listener is gone or foreign")  \
	X(INST_STALE, "instance-stale", "the instance's heartbeat is stale")                       \
	X(NO_PORT, "no-wire-port", "the instance has no free local port")                          \
	X(NO_MEMORY, "no-memory", "no memory for the socket's state")                              \
	X(REWRITTEN, "already-steered", "a nested hook met what the inner one had decided")        \
	X(PORT_OWNED, "port-owned", "bind() to a port that an instance owns: EADDRINUSE")          \
	X(SYN_HELD, "syn-held", "relay SYN held for the instance")                                 \
	X(SYN_RING_FULL, "syn-ring-full",                                                          \
	  "the instance's ring is full: a SYN waits for its next copy")                            \
	X(XDP_NOT_IP, "not-ip", "neither IPv4 nor IPv6")                                           \
	X(XDP_VLAN, "vlan", "VLAN-tagged frames belong to the kernel")                             \
	X(XDP_TRUNCATED, "truncated", "shorter than its headers")                                  \
	X(XDP_FRAGMENT, "fragment", "a later fragment, or a first one of a kernel port")           \
	X(XDP_EXT_HEADER, "ext-header", "an extension header chain the flow door does not follow") \
	X(XDP_NOT_TRANSPORT, "not-transport", "neither TCP, UDP nor an ICMP error")                \
	X(XDP_BAD_SOURCE, "bad-source", "the source is local, loopback, multicast or unspecified") \
	X(XDP_NOT_OURS, "not-ours", "the destination is not one of this host's unicast addresses") \
	X(XDP_KERNEL_PORT, "kernel-port", "the port belongs to the kernel")                        \
	X(XDP_WRONG_IF, "wrong-interface", "the port's instance does not own this interface")      \
	X(XDP_INST_DEAD, "instance-dead",                                                          \
	  "the port's instance is dead or has no socket on the queue")                             \
	X(XDP_INST_STALE, "instance-stale-syn", "new flow for an instance with a stale heartbeat") \
	X(XDP_REDIRECT, "redirect", "sent to the instance's AF_XDP socket")                        \
	X(XDP_FIRST_FRAG, "first-fragment",                                                        \
	  "first fragment of an instance's port: to the instance")                                 \
	X(KERNEL_THREAD, "kernel-thread",                                                          \
	  "sockets of kernel threads (NFS, CIFS ...) stay in the kernel")                          \
	X(FALSE_RESET, "false-reset",                                                              \
	  "the kernel reset a relay leg whose handshake it was completing: dropped")               \
	X(IP_OPTIONS, "ip-options",                                                                \
	  "sockets with IP options or IPv6 extension headers stay in the kernel")                  \
	X(SYN_NOT_HELD, "syn-not-held",                                                            \
	  "a relay SYN went past our filter on lo: the connection is reset")                       \
	X(XDP_NO_LISTENER, "no-listener",                                                          \
	  "nobody of an attached cgroup listens there (any more): the kernel answers")             \
	X(XDP_BACKLOG_FULL, "backlog-full", "the server's backlog is full: the kernel drops it")   \
	X(XDP_KERNEL_FLOW, "kernel-flow", "a flow that the kernel has, of a port that is served")  \
	X(XDP_LISTEN_RULE, "listen-rule", "new client: its rule says kernel")                      \
	X(XDP_LISTEN_REJECT, "listen-reject", "new client turned away by its rule: dropped")       \
	X(NOT_BY_STACK, "not-by-stack",                                                            \
	  "the client came through the kernel: before the rule, or by another interface")

enum dmm_reason {
#define DMM_X(name, word, text) DMM_REASON_##name,
	DMM_REASONS(DMM_X)
#undef DMM_X
		DMM_NUM_REASONS
};

/* Places of dmm_counters: a new reason at the end of the list changes no map, so that pins stay good. */
#define DMM_MAX_REASONS 96
_Static_assert(DMM_NUM_REASONS <= DMM_MAX_REASONS, "the pinned counters have no room for them");

_Static_assert(sizeof(enum dmm_reason) == 4, "enums are 4 bytes in maps");
