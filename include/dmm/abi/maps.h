/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Keys and values of the pinned maps (all but the compiled policy, see tables.h). Map names are in
 * bpf/lib/maps.bpf.h. Times are CLOCK_MONOTONIC nanoseconds unless a field says otherwise. */
#pragma once

#include <dmm/abi/types.h>

/* dmm_config[0]: set by dmmd before anything is attached. */
struct dmm_config {
	__u32 layout;	    /* DMM_ABI_LAYOUT */
	__u32 max_level;    /* deepest cgroup level a policy or attach names */
	__u64 netns_cookie; /* the namespace this dmmd serves */
	__u32 stale_ms;	    /* heartbeat age that turns new flows away */
	__u32 pad;
};

/* dmm_clock[0] (per CPU): the coarse clock as it was when jiffies were the same. */
struct dmm_clock {
	__u64 jiffies, ns;
};

/* dmm_live[0]: the slot of the live generation; one 8-byte write makes a policy live. Generation 0: there
 * is none. */
struct dmm_live {
	__u32 slot;
	__u32 generation;
} __attribute__((aligned(8)));

/* dmm_instances[id]: written by dmmd only. */
struct dmm_instance {
	enum dmm_inst_state state;
	__u32 incarnation; /* +1 at every start */
	__u32 ifindex;
	__u32 n_queues;
	__u16 port_first, port_last;	     /* wire ports it owns, host byte order */
	__be16 relay_port[DMM_NUM_FAMILIES]; /* its listeners on 127.0.0.1 and ::1 */
	__u32 pid;
	__u32 hop_ifindex;	      /* near end of a hop of its own (struct dmm_hop); 0: none */
	char name[DMM_INST_NAME_LEN]; /* "fast#0" */
	char stack[DMM_NAME_LEN];     /* "fast" */
};

/* A queue of an interface has one AF_XDP socket: the first instance's of its stack. Each further one has a
 * pair of veths, its hop. What the flow door has for it goes into the near end and out of the far end to
 * its socket; what it sends comes the other way and leaves by the interface. dmm_hops: the
 * index of either end -> this. Both ends' names begin with DMM_HOP_NAME. */
#define DMM_HOP_NAME "dmm-hop"
struct dmm_hop {
	__u32 instance;
	__u32 ifindex; /* the interface of its stack */
};

/* dmm_shared[id] -> an mmapable array of one of these, made anew for each incarnation and mapped
 * by that instance: it may harm itself by writing here, nobody else.
 * port[i] belongs to wire port port_first + i: 0 is free; the connect hook claims one by writing a
 * stamp (compare and swap); the instance marks it DMM_PORT_USED when the flow's SYN arrives and
 * writes 0 when the wire is done with it (TIME_WAIT over). A stamp that never became a flow is
 * swept by the instance after DMM_PORT_CLAIM_MS. */
#define DMM_PORT_FREE	  0u
#define DMM_PORT_USED	  1u
#define DMM_PORT_CLAIM_MS 200000u /* longer than a kernel connect() may last (tcp_syn_retries 6) */

/* A flow as the wire has it, in struct dmm_inst_shared: wire[i] belongs to port_first + i. For one that
 * an application began that is its local port. For a client's it is the port that the instance talks to
 * the server's socket from, over loopback; that one the flow door finds by its addresses: from head[] of
 * their dmm_wire_hash() by next, an index + 1, 0 at the end. After a death it says whom to tell.
 * The instance alone writes it: an entry is whole before it is linked in, and stays so for the readers
 * that are past the link when it is taken out. A chain is at most DMM_WIRE_CHAIN long. */
#define DMM_WIRE_HEADS 32768
#define DMM_WIRE_CHAIN 16

struct dmm_wire {
	__u8 remote[16], local[16];
	__be16 remote_port, local_port;
	__u32 next;
};

struct dmm_inst_shared {
	__u64 beat_ns;	 /* CLOCK_MONOTONIC_COARSE of the last loop turn, >= 5 per second */
	__u32 next_port; /* rotor of the connect hook */
	__u32 flows;	 /* open now */
	__u64 rx_packets, rx_bytes, tx_packets, tx_bytes;
	__u64 flows_opened, flows_refused, flows_timed_out, flows_reset;
	__u64 strangers; /* connections to the relay port that no hook registered */
	__u64 tx_no_frame, rx_dropped, no_neighbour;
	__u64 memory_bytes;    /* flow buffers held now */
	__u64 clients_dropped; /* SYNs of clients that there was no room for: they come again */
	__u64 cookies_sent;    /* SYNs answered by a SYN cookie: too many were half open */
	__u64 cookies_taken;   /* clients that came back with one */
	__u8 pad[4096 - 8 - 4 - 4 - 16 * 8 - 256];
	char last_words[256]; /* why it is about to exit, NUL-terminated; not to be trusted */
	__u32 port[DMM_MAX_PORTS];
	__u64 seed[2]; /* of dmm_wire_hash(), unknown to the wire */
	__u32 head[DMM_WIRE_HEADS];
	struct dmm_wire wire[DMM_MAX_PORTS];
};

/* dmm_ports[proto << 16 | port (host order)]: the flow door's owner of a local port.
 *   KERNEL  nobody else's
 *   RANGE   of an instance's localPorts
 *   SERVED  an attached cgroup listens there, or has: the kernel's, but for the flows of @served (a
 *           byte for each instance: its id + 1), and for new ones that a rule gives to a stack */
enum dmm_port_state { DMM_PORT_KERNEL, DMM_PORT_RANGE, DMM_PORT_SERVED };

struct dmm_port {
	enum dmm_port_state state;
	__u32 instance; /* RANGE */
	__u64 served;
};

/* dmm_listeners: TCP listeners of attached cgroups, by what they are bound to: "any" is :: or
 * ::ffff:0.0.0.0. Written by the hooks. Where several share an address it is told of the latest. */
struct dmm_listener_key {
	__u8 addr[16];
	__be16 port;
	__u16 pad;
};

struct dmm_listener {
	__u32 n; /* sockets */
	__u32 pad;
	__u64 cgroup;
	__u32 pid, uid; /* of whose listen() it was */
	char comm[16];
};
#define DMM_MAX_LISTENERS 16384

/* dmm_serv_class: the class of servers of a cgroup in the generation of a slot, class 0 where there is
 * none. Written by dmmd before that generation goes live, and by the hooks for servers that begin. */
struct dmm_server_key {
	__u64 cgroup;
	__u32 slot;
	__u32 pad;
};

/* dmm_local[addr]: the namespace's own addresses, mirrored from netlink. */
struct dmm_local {
	__u32 ifindex;
	__u32 flags; /* DMM_LOCAL_* */
};
#define DMM_LOCAL_UNICAST 1u
#define DMM_LOCAL_OTHER	  2u /* broadcast, anycast: never steered, never a legal source */

/* dmm_local_bits[0]: bit DMM_LOCAL_BIT(addr) is set for every address in dmm_local. So that nearly all
 * foreign addresses cost no look-up in a hash. */
#define DMM_LOCAL_BIT(addr) ((__u32)(((const __u32 *)(addr))[3] * 0x9e3779b1u) >> 24)

struct dmm_local_bits {
	__u64 word[4];
};

/* dmm_routes: longest prefix -> where it leaves, mirrored from netlink's main table. IPv4 prefixes
 * are stored as 96 + length bits of the mapped address. */
struct dmm_route_key {
	__u32 prefixlen;
	__u8 addr[16];
};

struct dmm_route {
	__u32 ifindex;	  /* 0: unreachable, blackhole or prohibit */
	__u32 has_source; /* 0: no usable source address: the kernel decides */
	__u8 source[16];  /* what the kernel would use as source (prefsrc, else by scope) */
};

/* dmm_cgroups: cgroup id -> class. Class ids are stable across generations. */

/* How far a connection has come. Where hooks are nested each of them sees each event. */
enum dmm_sock_stage {
	DMM_SOCK_DECIDED,
	DMM_SOCK_STARTED, /* CONNECT_CB: the SYN leaves, or the lo filter may hold it */
	DMM_SOCK_ENDED,
	DMM_SOCK_LISTENING,
};

/* dmm_sock: per-socket state (sk_storage), the one place that knows of an open flow. Made in
 * sock_create, or in connect for sockets older than the attach. */
struct dmm_sock {
	__u32 class_id;
	__u32 class_generation; /* of the class table it was computed with */
	enum dmm_verdict verdict;
	enum dmm_reason reason;
	__u32 generation; /* the policy that decided */
	__u32 rule;
	__u32 instance, incarnation;
	__u8 remote[16], local[16]; /* what the application sees */
	__be16 remote_port, local_port;
	__be16 relay_port; /* on the loopback address of remote's family */
	__u16 stage;	   /* enum dmm_sock_stage */
	__u32 claim;	   /* stamp of the wire port while no SYN has left, else 0 */
	__u32 pid;	   /* of the process that called connect() */
	__u32 uid;
	enum dmm_direction direction;
	__u64 cgroup;
	__u64 decided_ns;
	char comm[16];
	char rule_name[DMM_NAME_LEN];
};

/* A connection, for `dmmctl flows list`. Reading the pin iters/dmm_flows gives one of these for every
 * open one: made from the sockets and their dmm_sock at that moment. */
enum dmm_flow_state {
	DMM_FLOW_CONNECTING,
	DMM_FLOW_ESTABLISHED,
	DMM_FLOW_CLOSING,
	DMM_FLOW_CLOSED, /* orderly */
	DMM_FLOW_FAILED, /* never established */
	DMM_FLOW_RESET,
};

struct dmm_flow {
	__u64 cookie; /* of the socket */
	enum dmm_flow_state state;
	enum dmm_verdict verdict;
	enum dmm_reason reason;
	enum dmm_family family;
	enum dmm_proto proto;
	__u32 generation;
	__u32 instance;
	__u32 pid;
	__u32 uid;
	enum dmm_direction direction;
	__u8 local[16], remote[16];
	__be16 local_port, remote_port; /* as the application and the wire see them */
	__be16 app_port, relay_port;	/* the relay leg on loopback; 0 in the kernel */
	__u64 cgroup;
	__u64 opened_ns, closed_ns;	  /* coarse; closed 0: it is open */
	__u64 bytes_sent, bytes_received; /* by the application */
	char comm[16];
	char rule[DMM_NAME_LEN];
};

/* dmm_closed[number % DMM_MAX_CLOSED]: the latest connections that ended; dmm_n_closed[0] counts them.
 * Mapped by readers: an entry is whole where @number, written last, is its place's in the count (of the
 * first: 1) before and after it is copied. */
#define DMM_MAX_CLOSED 65536

struct dmm_closed {
	__u64 number;
	struct dmm_flow flow;
};

/* dmm_tuples: relay leg -> true addresses, of every steered connection from CONNECT_CB to its end. For
 * getpeername()/getsockname() of MPTCP sockets, whose hooks see another socket than connect did. */
struct dmm_tuple {
	__u8 app[16], relay[16];
	__be16 app_port, relay_port;
};

struct dmm_peer {
	__u8 local[16], remote[16];
	__be16 local_port, remote_port;
	__u32 pad;
	__u64 cgroup; /* of the application, as in dmm_sock */
};

/* dmm_relay_mark (sk_storage of what dmmd makes for an instance: relay listeners, sockets that are bound to
 * its ports): only dmmd can write it, so nobody can squat on the port of a dead instance. */
struct dmm_relay_mark {
	__u32 instance;
	__u32 incarnation;
};

/* dmm_rings[id] -> ring buffer of these, made anew for each incarnation. */
enum dmm_event_kind {
	DMM_EVENT_SYN,	  /* a relay SYN is held: open the wire, then inject it or refuse */
	DMM_EVENT_CLOSED, /* the application gave up while its SYN was held */
};

struct dmm_event {
	enum dmm_event_kind kind;
	enum dmm_family family; /* of the relay leg and of the wire: they are the same */
	__u64 cookie;
	__u8 app[16], relay[16]; /* relay leg, as in packet */
	__be16 app_port, relay_port;
	__u8 local[16], remote[16]; /* the wire connection to open */
	__be16 local_port, remote_port;
	__u32 packet_len; /* from the IP header on */
	__u32 pad;
	__u8 packet[DMM_HELD_SYN_MAX];
};

/* dmm_inst_stats[id] (per CPU): the flow door's counters. */
struct dmm_inst_stats {
	__u64 packets, bytes; /* redirected to the instance */
	__u64 connects;	      /* decided for it by the connect hooks */
	__u64 rejects;	      /* turned away by onUnavailable or a reason */
};

/* dmm_counters[reason] (per CPU): how often each reason decided. */

_Static_assert(__builtin_offsetof(struct dmm_inst_shared, port) == 4096, "header is one page");
/* with the kernel's own 72 bytes it comes from the slab of 256 */
_Static_assert(sizeof(struct dmm_sock) == 184, "a socket's state");
_Static_assert(sizeof(struct dmm_tuple) == 36, "map key layout is ABI");
_Static_assert(sizeof(struct dmm_route_key) == 20, "map key layout is ABI");
