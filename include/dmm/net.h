/* SPDX-License-Identifier: Apache-2.0 */
/* The native engine: TCP, UDP, ICMP errors over IPv4 and IPv6, sans-IO.
 *
 * IP packets go in (dmm_net_input), IP packets come out (dmm_net_output), what happened comes out
 * (dmm_net_event). It has no globals, threads, sockets, files or clock: the time is an argument of
 * the calls that need it, randomness comes as a secret at creation, and all memory is one block
 * given at creation. So any number of engines live in one process, and a run repeats exactly when
 * its calls do.
 *
 * A turn of whoever drives it:
 *
 *	for each packet received	dmm_net_input(net, packet, len, now);
 *	while (dmm_net_event(net, &ev))	what ev says; calls into connections as one likes
 *	dmm_net_tick(net, now);		if dmm_net_deadline(net) <= now
 *	while ((len = dmm_net_output(net, buf, room, now)) > 0)
 *					send buf
 *	sleep until a packet comes or dmm_net_deadline(net)
 *
 * No call is re-entered and none calls back. The time never goes backwards; it is in ns and counts
 * from anywhere. Errors are negative errno. Addresses and ports of endpoints are in network order,
 * IPv4 as ::ffff:a.b.c.d. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <dmm/stack.h>

struct dmm_net;	     /* an engine */
struct dmm_net_conn; /* a TCP connection or listener of it */
struct dmm_net_udp;  /* a UDP socket of it */

enum dmm_net_congestion { DMM_NET_CUBIC, DMM_NET_NEWRENO };

/* RFC 3168: used when the peer asks for it; asked for too; never. */
enum dmm_net_ecn { DMM_NET_ECN_ACCEPT, DMM_NET_ECN_ASK, DMM_NET_ECN_OFF };

struct dmm_net_config {
	uint32_t mtu;		    /* L3 bytes of the interface; at least 576 */
	const uint8_t (*addrs)[16]; /* ours; copied */
	uint32_t n_addrs, max_addrs;
	uint32_t max_conns;	/* connections and listeners the caller holds at a time */
	uint32_t max_time_wait; /* further connections that only wait on the wire */
	uint32_t max_udp;
	/* Most bytes of one connection, each. It begins with 64 KiB, and gets what its path and its
	 * reader make use of. */
	uint32_t send_buffer, receive_buffer;
	uint64_t buffer_memory; /* bytes of all buffers together */
	uint8_t secret[32]; /* random: sequence numbers, cookies and hash tables are keyed by it */
	enum dmm_net_congestion congestion;
	enum dmm_net_ecn ecn;
	void *owner; /* the caller's own: dmm_net_owner() */
	/* Initial sequence numbers, where they are the caller's to choose (RFC 6528); NULL: the engine's. */
	uint32_t (*isn)(void *owner, const struct dmm_endpoint *local,
			const struct dmm_endpoint *remote);
	bool no_pacing;	  /* windows go as fast as ACKs let them */
	bool delay_small; /* connections begin with Nagle's algorithm on (RFC 9293 3.7.4) */
	/* What dmm_net_connect() chooses local ports from; 0: from 1024 on (RFC 6056 3.2). */
	uint16_t first_port, last_port;
};

struct dmm_net_stats {
	uint64_t conns, listeners, time_wait, half_open; /* now */
	uint64_t memory;				 /* bytes of buffers in use, now */

	uint64_t packets_in, packets_out;
	uint64_t bad_ip, bad_checksum, not_ours, bad_tcp, other_proto; /* dropped */
	uint64_t fragments_in, reassembled, fragments_dropped;
	uint64_t segs_in, segs_out;
	uint64_t resets_in, resets_out;
	uint64_t no_memory;	  /* segments or data turned away for want of it */
	uint64_t replies_dropped; /* of no connection; too many at a time */

	uint64_t retransmits, rto, tlp, fast_recoveries, rack_marked;
	uint64_t spurious, dsack_undos, frto_undos; /* recoveries for nothing; found by */
	uint64_t ce_in, ecn_reductions; /* segments that were marked; windows cut for it */
	uint64_t dsack_in, dsack_out, sack_in, dup_acks_in;
	uint64_t paws_dropped, challenge_acks, out_of_window;
	uint64_t zero_window_probes, window_updates, out_of_order;
	uint64_t delayed_acks, keepalives;
	uint64_t cookies_sent, cookies_taken;
	uint64_t simultaneous_open, simultaneous_close;
	uint64_t icmp_in, pmtu_lowered, black_holes;
	uint64_t timed_out;
	uint64_t udp_in, udp_out, udp_dropped;
};

/* What happened to a connection: DMM_EV_* of <dmm/stack.h>, with the meaning given there, or
 * DMM_NET_ACCEPTED: a connection of a listener is established; @user is the listener's until
 * dmm_net_set_user(). With DMM_EV_ERROR and DMM_EV_CLOSED the handle is dead when this is
 * returned. */
#define DMM_NET_ACCEPTED (1u << 31)

struct dmm_net_event {
	struct dmm_net_conn *conn;
	void *user;
	uint32_t events;
	int err; /* positive errno with DMM_EV_ERROR */
};

/* --- the engine --- */

/* How many bytes an engine of this @config needs; 0: the config is nonsense. */
size_t dmm_net_memory(const struct dmm_net_config *config);
/* @memory: dmm_net_memory() bytes, aligned to 64, whatever they hold; the caller's again when he no
 * longer uses the engine. There is nothing to destroy. */
int dmm_net_create(const struct dmm_net_config *config, void *memory, uint64_t now,
		   struct dmm_net **ret);
/* Our addresses or the MTU are others. Connections of addresses that went stay as they are; what is
 * longer than the MTU is cut, datagrams are dropped. Below 1280 addresses of IPv6 are not ours. */
int dmm_net_configure(struct dmm_net *net, uint32_t mtu, const uint8_t (*addrs)[16],
		      uint32_t n_addrs);

/* One IP packet, from its IP header on. It is only borrowed. */
void dmm_net_input(struct dmm_net *net, const void *packet, uint32_t len, uint64_t now);
/* The next packet to send is written to @buf of @room bytes, at least the MTU. Returns its length,
 * 0: there is none. */
uint32_t dmm_net_output(struct dmm_net *net, void *buf, uint32_t room, uint64_t now);
/* Runs timers that are due. */
void dmm_net_tick(struct dmm_net *net, uint64_t now);
/* When dmm_net_tick() wants to be called; UINT64_MAX: never. May be too early, is never too late.*/
uint64_t dmm_net_deadline(const struct dmm_net *net);
/* True while dmm_net_output() may have something. */
bool dmm_net_has_output(const struct dmm_net *net);
/* Takes the oldest event; false: there is none. */
bool dmm_net_event(struct dmm_net *net, struct dmm_net_event *ret);
/* An ICMP error that arrived elsewhere (they go to the kernel) about a packet of ours. One that
 * comes by dmm_net_input() needs no such call. */
void dmm_net_icmp(struct dmm_net *net, const struct dmm_icmp *error, uint64_t now);
void dmm_net_get_stats(const struct dmm_net *net, struct dmm_net_stats *ret);

/* --- TCP --- */

/* Port 0 of @local: one is chosen that nobody can guess (RFC 6056) and that no connection to @remote
 * has; -EADDRNOTAVAIL: there is none. */
int dmm_net_connect(struct dmm_net *net, const struct dmm_endpoint *local,
		    const struct dmm_endpoint *remote, void *user, uint64_t now,
		    struct dmm_net_conn **ret);
/* Beyond @backlog half-open connections SYNs are answered by cookies (RFC 4987). An address of all
 * zeros (with or without the v4 prefix) stands for all of ours. */
int dmm_net_listen(struct dmm_net *net, const struct dmm_endpoint *local, int backlog, void *user,
		   struct dmm_net_conn **ret);

/* The following mean what struct dmm_stack_ops says of them. */

ssize_t dmm_net_send(struct dmm_net_conn *conn, const void *buf, size_t len);
size_t dmm_net_send_space(struct dmm_net_conn *conn);
unsigned int dmm_net_send_reserve(struct dmm_net_conn *conn, size_t len, struct iovec *iov,
				  unsigned int n);
void dmm_net_send_done(struct dmm_net_conn *conn, size_t len);
unsigned int dmm_net_recv_peek(struct dmm_net_conn *conn, struct iovec *iov, unsigned int n);
void dmm_net_recv_done(struct dmm_net_conn *conn, size_t len);
size_t dmm_net_unsent(const struct dmm_net_conn *conn);
int dmm_net_shutdown(struct dmm_net_conn *conn);
void dmm_net_close(struct dmm_net_conn *conn);
void dmm_net_abort(struct dmm_net_conn *conn);
void dmm_net_set_user(struct dmm_net_conn *conn, void *user);

enum dmm_net_option {
	DMM_NET_NODELAY,      /* 0: Nagle's algorithm (RFC 9293 3.7.4) */
	DMM_NET_KEEPALIVE,    /* seconds idle until the first probe, 0: off (the default) */
	DMM_NET_USER_TIMEOUT, /* ms that sent data may stay without an ACK; 0: the default */
	DMM_NET_CONGESTION,   /* enum dmm_net_congestion; before data was sent */
};
int dmm_net_set_option(struct dmm_net_conn *conn, enum dmm_net_option option, int value);

/* Whose engine it is: what the config said. */
void *dmm_net_owner(const struct dmm_net_conn *conn);
void dmm_net_endpoints(const struct dmm_net_conn *conn, struct dmm_endpoint *ret_local,
		       struct dmm_endpoint *ret_remote);

/* --- UDP --- */

/* @remote NULL: takes what comes from anyone and sends to anyone, else only that one. An address of
 * all zeros in @local as for dmm_net_listen(); such a socket only receives. */
int dmm_net_udp_open(struct dmm_net *net, const struct dmm_endpoint *local,
		     const struct dmm_endpoint *remote, void *user, struct dmm_net_udp **ret);
/* What it has to send still goes. */
void dmm_net_udp_close(struct dmm_net_udp *udp);
/* @to NULL: the remote end it was opened with. -EMSGSIZE: it would have to be cut (RFC 8085 3.2),
 * -EAGAIN: as much waits already as may; that is less where memory is short. */
int dmm_net_udp_send(struct dmm_net_udp *udp, const struct dmm_endpoint *to, const void *buf,
		     size_t len);
/* The oldest datagram, cut to @len, with its ends; returns its whole length. -EAGAIN: there is
 * none; else an error that the network reported about what was sent, once (RFC 1122 4.1.3.3);
 * -EMSGSIZE: the path takes less. */
ssize_t dmm_net_udp_recv(struct dmm_net_udp *udp, void *buf, size_t len,
			 struct dmm_endpoint *ret_from, struct dmm_endpoint *ret_to);
/* A socket that has something to be received, once for all of it; NULL: none. */
struct dmm_net_udp *dmm_net_udp_event(struct dmm_net *net, void **ret_user);

/* What a simulator or an operator wants to see of one connection. */
struct dmm_net_info {
	const char *state; /* "ESTABLISHED" */
	uint32_t cwnd, ssthresh, in_flight, mss;
	uint32_t snd_una, snd_nxt, snd_edge; /* snd_edge: where the peer's window ends */
	uint32_t rcv_nxt, rcv_edge;
	uint32_t unread, held;		     /* received: in order, and out of it */
	uint64_t srtt, rttvar, min_rtt, rto; /* ns */
	bool ecn;			     /* both sides do */
	bool sound; /* its counts of what is on its way are those of its lists */
};
void dmm_net_get_info(const struct dmm_net_conn *conn, struct dmm_net_info *ret);
