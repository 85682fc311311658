/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What dmmd and an instance say to each other, over a SOCK_SEQPACKET unix socket. One message = one
 * packet = struct dmm_msg header + body. An instance is started as
 *   dmm-stack --handover FD
 * where FD is one end of a socketpair with dmmd, or, where a service manager starts it, the accepted end
 * of a connection that dmmd made. It sends DMM_MSG_STARTED. dmmd sends DMM_MSG_HANDOVER with the
 * descriptors of enum dmm_handover_fd by SCM_RIGHTS, the AF_XDP sockets, then DMM_MSG_START, and keeps
 * no copy of them. An instance opens nothing itself: the sockets belong to dmmd's network namespace,
 * whichever the instance is in.
 * When the peer end closes (dmmd died), the instance goes on and accepts one new connection at a
 * time on DMM_FD_CONTROL (listening; only uid 0 is served): the next dmmd adopts it there. */
#pragma once

#include <dmm/abi/types.h>

#define DMM_HANDOVER_VERSION 6

enum dmm_msg_kind {
	DMM_MSG_HANDOVER, /* dmmd -> instance: struct dmm_handover + fds */
	DMM_MSG_XSK,	  /* dmmd -> instance: struct dmm_handover_xsk + 1 fd, n_queues times */
	DMM_MSG_START,	  /* dmmd -> instance: everything has been handed over */
	DMM_MSG_READY,	  /* instance -> dmmd: serving */
	DMM_MSG_FAILED,	  /* instance -> dmmd: struct dmm_msg_text, then it exits */
	DMM_MSG_DRAIN,	  /* dmmd -> instance: no new flows; exit(0) after the last */
	DMM_MSG_STOP,	  /* dmmd -> instance: reset all flows and exit(0) */
	DMM_MSG_HELLO,	  /* dmmd -> instance after adoption; answered by READY */
	DMM_MSG_STARTED,  /* instance -> dmmd: its first, with its SCM_CREDENTIALS */
	DMM_MSG_WANT,	  /* instance -> dmmd: struct dmm_msg_want */
	DMM_MSG_SOCKETS, /* dmmd -> instance: struct dmm_msg_sockets + n fds; the answer, n may be 0 */
};

struct dmm_msg {
	enum dmm_msg_kind kind;
	__u32 len; /* of the body that follows in the same packet */
};

/* Order of the descriptors that come with DMM_MSG_HANDOVER. */
enum dmm_handover_fd {
	DMM_FD_UMEM,	/* sealed memfd, umem_size bytes */
	DMM_FD_SHARED,	/* mmapable map: struct dmm_inst_shared */
	DMM_FD_RING,	/* ring buffer map of struct dmm_event */
	DMM_FD_RELAY4,	/* listener on 127.0.0.1 */
	DMM_FD_RELAY6,	/* listener on ::1 */
	DMM_FD_RAW4,	/* SOCK_RAW IPPROTO_RAW with IP_HDRINCL, confined to lo */
	DMM_FD_RAW6,	/* SOCK_RAW IPPROTO_RAW with IPV6_HDRINCL, confined to lo */
	DMM_FD_CONTROL, /* listening SOCK_SEQPACKET, for adoption by the next dmmd */
	DMM_FD_QUERY,	/* rtnetlink, not bound: questions */
	DMM_FD_WATCH,	/* rtnetlink, not bound: notifications */
	DMM_FD_PROBE4, /* SOCK_DGRAM on the interface, TTL 1: makes the kernel resolve neighbours */
	DMM_FD_PROBE6,
	DMM_FD_ROOT, /* an empty folder: its root */
	DMM_NUM_HANDOVER_FDS,
};
/* Those that a kernel without IPv6 has not. */
#define DMM_FDS_OPTIONAL (1u << DMM_FD_RELAY6 | 1u << DMM_FD_RAW6 | 1u << DMM_FD_PROBE6)

enum dmm_poll { DMM_POLL_ADAPTIVE, DMM_POLL_BUSY };

struct dmm_handover {
	__u32 version;	  /* DMM_HANDOVER_VERSION */
	__u32 fds;	  /* 1 << enum dmm_handover_fd of each that comes along */
	__u32 ifindex;	  /* whose addresses, neighbours and routes count */
	__u32 io_ifindex; /* where its AF_XDP sockets are */
	__u32 mtu;
	__u32 n_queues;
	__u32 port_first, port_last;
	enum dmm_poll poll;
	__u32 uid, gid; /* to become; 0: stay what it was started as */
	__u32 frame_size, n_frames;
	__u64 umem_size;
	__u32 flow_memory; /* bytes of buffering per flow and direction */
	__u32 memory_mib;  /* private memory it may have, 0: no limit */
	char plugin[256];  /* path of the shared object */
	char name[DMM_INST_NAME_LEN];
	char ifname[16];
};

/* One AF_XDP socket, bound to queue @queue of the interface unless the flags say otherwise. Ring sizes
 * in entries. The n_frames of the UMEM are shared evenly: queue i owns frames i * n_frames / n_queues
 * and on. */
struct dmm_handover_xsk {
	__u32 queue;
	__u32 rx_size, tx_size, fill_size, comp_size;
	__u32 flags; /* DMM_XSK_* */
};
#define DMM_XSK_ZEROCOPY    1u
#define DMM_XSK_NEED_WAKEUP 2u
#define DMM_XSK_NATIVE	    4u
#define DMM_XSK_UNBOUND	    8u /* the instance binds it, once it has mapped the rings */

/* More sockets to talk to servers with, please. */
struct dmm_msg_want {
	enum dmm_family family;
};

/* TCP sockets of one family, each bound to one of the instance's ports on all addresses. (One that has
 * spoken IPv4 as an IPv6 socket cannot be used for IPv6 any more.) */
#define DMM_MAX_SOCKETS 250 /* a message takes 253 descriptors */

struct dmm_msg_sockets {
	enum dmm_family family;
	__u16 pad;
	__u16 n;
	__u16 port[DMM_MAX_SOCKETS]; /* host byte order */
};

struct dmm_msg_text {
	char text[512];
};
