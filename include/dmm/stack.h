/* SPDX-License-Identifier: Apache-2.0 */
/* The stack plug-in ABI: how a TCP/IP implementation becomes a DMM stack.
 *
 * A plug-in is a shared object that exports `const struct dmm_stack_ops dmm_stack_plugin`. It gets
 * IP packets and socket-like calls, and gives IP packets and events. It touches no socket, file,
 * thread, signal or clock of its own: packets, time, randomness and log go through struct
 * dmm_host. One process runs one plug-in on one thread; no call is re-entered from another thread.
 * The host does Ethernet, next hops, ARP/ND (they stay in the kernel) and the choice of addresses
 * and ports.
 *
 * Re-entry: a plug-in may call the host at any time; the host's event() may call back into
 * send/recv/shutdown/close/abort of that very connection.
 *
 * Errors are negative errno. Addresses are network order; ports in struct dmm_endpoint too. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <dmm/pktio.h>

/* Raised when a struct or a meaning changes; the host refuses any other by name. */
#define DMM_STACK_ABI	 3
#define DMM_STACK_SYMBOL "dmm_stack_plugin"

struct dmm_stack; /* the plug-in's own */
struct dmm_conn;  /* the plug-in's own */

/* IPv4 addresses are ::ffff:a.b.c.d, so family follows from the address. */
struct dmm_endpoint {
	uint8_t addr[16];
	uint16_t port; /* network order */
};

enum dmm_log_level { DMM_LOG_ERROR, DMM_LOG_WARNING, DMM_LOG_INFO, DMM_LOG_DEBUG };

/* What happened to a connection.
 *   CONNECTED  established: connect() worked
 *   READABLE   recv_peek() has bytes
 *   WRITABLE   send_space() is above 0 again, after send() took less than asked
 *   EOF        the peer sent FIN; the bytes before it have been received or wait in recv_peek()
 *   ERROR      the connection is gone and the handle dead; the errno says why (ECONNREFUSED,
 *              ECONNRESET, ETIMEDOUT, ENOMEM ...)
 *   CLOSED     after close(): nothing is left on the wire (TIME-WAIT over), the local port may be
 *              reused. Not sent after ERROR or abort() */
#define DMM_EV_CONNECTED (1u << 0)
#define DMM_EV_READABLE	 (1u << 1)
#define DMM_EV_WRITABLE	 (1u << 2)
#define DMM_EV_EOF	 (1u << 3)
#define DMM_EV_ERROR	 (1u << 4)
#define DMM_EV_CLOSED	 (1u << 5)

struct dmm_host {
	uint32_t abi; /* DMM_STACK_ABI */
	void *ctx;    /* first argument of every call below */

	/* Room for a packet to send: @frame->data is where the IP header goes, frame->room how much
	 * fits. False: out of frames; try again at the next tick. */
	bool (*frame_alloc)(void *ctx, struct dmm_frame *frame);
	void (*frame_free)(void *ctx, const struct dmm_frame *frame);
	/* Sends IP packets (data, len: from the IP header on). Ownership goes over, always; what
	 * cannot be sent is dropped and counted, as on a wire. Checksums must be right. */
	void (*output)(void *ctx, const struct dmm_frame *frames, unsigned int n);
	/* @user is what connect() or set_user() was given. @err is a positive errno with EV_ERROR. */
	void (*event)(void *ctx, void *user, uint32_t events, int err);
	/* A new connection on a listener: returns the @user of it, NULL to refuse (RST). */
	void *(*accepted)(void *ctx, void *listen_user, struct dmm_conn *conn,
			  const struct dmm_endpoint *local, const struct dmm_endpoint *remote);
	/* CLOCK_MONOTONIC, ns; constant within one call into the plug-in. */
	uint64_t (*now)(void *ctx);
	void (*random)(void *ctx, void *buf, size_t len);
	/* The initial sequence number of a connection, ours or a peer's to a listener: the plug-in
	 * takes no other (RFC 6528). Asked once for each connection, host byte order. Under a SYN
	 * flood the host answers SYNs itself, with numbers that are SYN cookies (RFC 4987); a client
	 * that comes back is then given to the plug-in as a SYN and its ACK, and this returns the
	 * number that the client knows. */
	uint32_t (*isn)(void *ctx, const struct dmm_endpoint *local,
			const struct dmm_endpoint *remote);
	void (*log)(void *ctx, enum dmm_log_level level, const char *format, ...)
		__attribute__((format(printf, 3, 4)));
};

struct dmm_stack_params {
	uint32_t mtu;	      /* L3 bytes of the interface */
	uint32_t max_conns;   /* how many the host will ask for at a time */
	uint32_t conn_memory; /* bytes of send and receive buffer a connection may hold, each way */
	/* Where buffers grow with what a connection does, as far as that; 0: not beyond the former. */
	uint32_t conn_memory_most;
	const uint8_t (*addrs)[16]; /* the interface's unicast addresses */
	uint32_t n_addrs;
	const char *options; /* the policy's plug-in options, "" where there are none */
};

struct dmm_connect {
	struct dmm_endpoint local, remote; /* both complete: the host has chosen the port */
	void *user;
};

enum dmm_stack_option {
	DMM_OPT_NODELAY,   /* int */
	DMM_OPT_KEEPALIVE, /* int: seconds idle, 0 off */
};

/* An ICMP error about a packet of ours, already checked to be about @local -> @remote. */
struct dmm_icmp {
	struct dmm_endpoint local, remote;
	uint32_t seq; /* of the TCP header it quotes */
	uint32_t mtu; /* packet too big: next-hop MTU; else 0 */
	int err;      /* what the kernel would report: EHOSTUNREACH, ECONNREFUSED, ... */
	bool hard;    /* ends a connection attempt */
};

struct dmm_stack_stats {
	uint64_t conns, time_wait;
	uint64_t segs_in, segs_out, retransmits, resets_sent;
	uint64_t memory; /* bytes held for connections */
};

struct dmm_stack_ops {
	uint32_t abi;  /* DMM_STACK_ABI */
	uint32_t size; /* sizeof(struct dmm_stack_ops) */
	const char *name, *version;

	/* All but those marked optional must be there. */
	int (*create)(const struct dmm_stack_params *params, const struct dmm_host *host,
		      struct dmm_stack **ret);
	void (*destroy)(struct dmm_stack *stack);
	/* Addresses or MTU of the interface changed. Optional. */
	void (*configure)(struct dmm_stack *stack, const struct dmm_stack_params *params);

	/* Received IP packets (data, len: from the IP header on; link-layer padding is cut off). The
	 * plug-in only borrows them: it copies what it keeps. */
	void (*input)(struct dmm_stack *stack, const struct dmm_frame *frames, unsigned int n);
	/* Runs what is due at @now; returns when it wants to be called again (UINT64_MAX: never). The
	 * host calls it at least once per turn of its loop: what a call such as connect() or close()
	 * has to say may wait for the next tick() or input(). */
	uint64_t (*tick)(struct dmm_stack *stack, uint64_t now);
	void (*icmp)(struct dmm_stack *stack, const struct dmm_icmp *error); /* optional */

	/* Starts a connection; EV_CONNECTED or EV_ERROR follows. */
	int (*connect)(struct dmm_stack *stack, const struct dmm_connect *args,
		       struct dmm_conn **ret);
	/* Optional (ENOTSUP without): the conn is a listener; close() ends it. */
	int (*listen)(struct dmm_stack *stack, const struct dmm_endpoint *local, int backlog,
		      void *user, struct dmm_conn **ret);

	/* Copies up to the free space; returns the bytes taken, 0 when there is none (EV_WRITABLE
	 * follows), negative errno when the connection cannot send any more. */
	ssize_t (*send)(struct dmm_conn *conn, const void *buf, size_t len);
	size_t (*send_space)(struct dmm_conn *conn);
	/* Optional, both or none: sending without a copy. Free space in place, at most @len bytes of
	 * it: fills up to @n iovecs, returns how many; 0 as with send(). They stay valid until the
	 * next call into this connection, which is send_done(): the first @len bytes, written by
	 * the host, are taken. */
	unsigned int (*send_reserve)(struct dmm_conn *conn, size_t len, struct iovec *iov,
				     unsigned int n);
	void (*send_done)(struct dmm_conn *conn, size_t len);
	/* Received bytes in place: fills up to @n iovecs, returns how many. They stay valid until
	 * the next call into this connection other than recv_peek(). */
	unsigned int (*recv_peek)(struct dmm_conn *conn, struct iovec *iov, unsigned int n);
	/* @len bytes of them are consumed: only now does the receive window open by that much. */
	void (*recv_done)(struct dmm_conn *conn, size_t len);
	/* Bytes sent by the host and not yet acknowledged. */
	size_t (*unsent)(struct dmm_conn *conn);

	int (*shutdown)(struct dmm_conn *conn); /* FIN after what was sent; receiving goes on */
	/* The host lets go: FIN if none was sent, received bytes are thrown away, EV_CLOSED when
	 * the wire is done. The @user pointer is used for that event only. */
	void (*close)(struct dmm_conn *conn);
	void (*abort)(struct dmm_conn *conn); /* RST; the handle is dead at once */
	int (*set_option)(struct dmm_conn *conn, enum dmm_stack_option option, int value);
	void (*set_user)(struct dmm_conn *conn, void *user);
	void (*stats)(struct dmm_stack *stack, struct dmm_stack_stats *ret); /* optional */
};
