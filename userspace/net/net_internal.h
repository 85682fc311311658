/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the engine share: the engine, its connections, and who does what.
 *
 * A packet's way in: engine.c -> ip.c (-> fragment.c) -> demux.c -> input.c, which judges a segment
 * as RFC 9293 3.10.7 does and hands its parts on: handshake.c (SYNs), ack.c and recovery.c (what
 * it acknowledges), receive.c (its bytes). None of them sends: they note what is owed and put the
 * connection on the list of those with output. Its way out: engine.c asks output.c of one
 * connection after another for a segment, reply.c for answers that belong to no connection.
 *
 * The life of a connection, with who moves it:
 *
 *	LISTEN		socket.c; it spawns others and stays
 *	SYN_SENT	socket.c (connect)
 *	SYN_RCVD	handshake.c (a SYN to a listener, or to one in SYN_SENT)
 *	ESTABLISHED	handshake.c
 *	FIN_WAIT1, LAST_ACK		output.c, when the FIN is sent the first time
 *	FIN_WAIT2, TIME_WAIT, CLOSED	input.c, when it is acknowledged
 *	CLOSE_WAIT, CLOSING, TIME_WAIT	receive.c, when the peer's comes in order
 *	CLOSED		net_conn_end() from anywhere; then it only waits for its last event to be
 *			taken, and is freed with it
 *
 * A handle lives until EV_ERROR or EV_CLOSED is taken, or abort(). In TIME_WAIT the connection
 * outlives it: ORPHAN. */
#pragma once

#include <sys/queue.h>

#include <dmm/net.h>

#include "net/pool.h"
#include "net/stream.h"
#include "net/wheel.h"

#define NET_MS	1000000ull
#define NET_SEC (1000 * NET_MS)

#define NET_MIN_MTU	576u /* RFC 9293 3.7.1 counts on it for IPv4; IPv6 has 1280 */
#define NET_MIN_MTU6	1280u
#define NET_HEADER4	20u
#define NET_HEADER6	40u
#define NET_TCP_HEADER	20u
#define NET_UDP_HEADER	8u
#define NET_PROTO_ICMP	1
#define NET_PROTO_TCP	6
#define NET_PROTO_UDP	17
#define NET_PROTO_ICMP6 58

#define NET_FIN 0x01
#define NET_SYN 0x02
#define NET_RST 0x04
#define NET_PSH 0x08
#define NET_ACK 0x10
#define NET_URG 0x20
#define NET_ECE 0x40
#define NET_CWR 0x80

/* What the IP header says of ECN (RFC 3168 5). */
#define NET_NOT_ECT 0
#define NET_ECT	    2 /* ECT(0) */
#define NET_CE	    3

#define NET_MAX_SACK	   4
#define NET_SENTS_OF_CHUNK 4   /* segments on their way for each chunk of bytes */
#define NET_MAX_RANGES	   64  /* of one connection's bytes out of order */
#define NET_MAX_FRAGMENTED 16  /* packets at a time of which not all fragments came */
#define NET_REPLIES	   256 /* answers of no connection that wait to be sent */
#define NET_DEFAULT_MSS4   536 /* MUST-15 */
#define NET_PORT_STEPS	   256 /* counters of local ports */

/* Segments that are acknowledged one by one: at the beginning and after a loss, when a window of one or
 * two would have to wait for the delayed ACK. */
#define NET_QUICK_ACKS 16

enum net_state {
	NET_CLOSED,
	NET_LISTEN,
	NET_SYN_SENT,
	NET_SYN_RCVD,
	NET_ESTABLISHED,
	NET_FIN_WAIT1,
	NET_FIN_WAIT2,
	NET_CLOSE_WAIT,
	NET_CLOSING,
	NET_LAST_ACK,
	NET_TIME_WAIT,
};

/* An IP packet that was found whole and for us. */
struct net_packet {
	struct dmm_endpoint src, dst; /* ports: not of all protocols */
	const uint8_t *data;	      /* of the protocol above */
	uint32_t len;
	uint8_t proto, ecn;
	bool v4;
};

struct net_options {
	bool has_mss, has_scale, has_ts, sack_ok;
	uint16_t mss;
	uint8_t scale;
	uint8_t n_sack;
	uint32_t ts_val, ts_ecr;
	struct {
		uint32_t start, end;
	} sack[NET_MAX_SACK];
};

/* A TCP segment. */
struct net_segment {
	const struct net_packet *packet;
	const uint8_t *data;
	uint32_t len; /* of data */
	uint32_t seq, ack;
	uint16_t window; /* as it stands there */
	uint8_t flags;
	uint32_t least_iss; /* of the connection that a SYN makes; 0: any */
	bool had_syn;	    /* so the window is not scaled (RFC 7323 2.2) */
	struct net_options opt;
};

/* What was sent and is not acknowledged: one for each segment, in order of sequence numbers, and
 * in order of the time of sending those of which nothing is known yet (RFC 8985 5.1). */
struct net_sent {
	TAILQ_ENTRY(net_sent) by_seq, by_time;
	struct net_sent *run; /* of the first and the last of a row of sacked ones: the other end */
	uint64_t sent_at;
	uint32_t seq, end;
	bool syn, fin;
	bool sacked;
	bool lost;     /* it was given up; to be sent again, or was */
	bool retrans;  /* sent again, and that is on its way */
	bool timed;    /* on the list by time */
	uint8_t times; /* it was sent, at most 255 */
};

TAILQ_HEAD(net_sent_list, net_sent);

enum net_due {
	NET_DUE_RTX,   /* what @rtx says */
	NET_DUE_ACK,   /* a delayed ACK */
	NET_DUE_LIFE,  /* TIME-WAIT or an orphan's FIN-WAIT-2 ends */
	NET_DUE_KEEP,  /* a keepalive probe */
	NET_DUE_SPACE, /* look for memory again */
	NET_DUE_PACE,  /* send on (pace.c) */
	NET_NUM_DUE
};

enum net_rtx {
	NET_RTX_RTO,
	NET_RTX_TLP,	 /* RFC 8985 7 */
	NET_RTX_REORDER, /* RFC 8985 6.2 step 5 */
	NET_RTX_PERSIST, /* the window is closed */
};

enum net_recovery { NET_OPEN, NET_RECOVERY, NET_LOSS };

/* RFC 5682, after an RTO: waits for the ACK of what was sent again; for that of what is new. */
enum net_frto { NET_FRTO_NONE, NET_FRTO_AGAIN, NET_FRTO_NEW };

struct net_congestion_ops;

struct dmm_net_conn {
	struct dmm_net *net;
	void *user;
	struct dmm_net_conn *hash_next;
	TAILQ_ENTRY(dmm_net_conn) output_link, event_link, wait_link;
	struct net_timer timer;	   /* runs until the earliest of due[], or less */
	uint64_t due[NET_NUM_DUE]; /* 0: not */
	struct dmm_endpoint local, remote;

	uint8_t state; /* enum net_state */
	uint8_t rtx;   /* enum net_rtx: what DUE_RTX means */
	bool v4 : 1;
	bool orphan : 1; /* the handle is gone */
	bool on_output : 1, on_event : 1, waits : 1, hashed : 1;
	bool passive : 1; /* from a listener */
	bool told : 1;	  /* the caller knows of it: CONNECTED, or ACCEPTED was taken */
	bool closing : 1; /* close() was called */
	bool shut : 1;	  /* FIN is to be sent behind tx_end, or was */
	bool fin_sent : 1, fin_acked : 1;
	bool eof : 1;	     /* the peer's FIN came in order */
	bool fin_held : 1;   /* it came out of order: @fin_at */
	bool want_write : 1; /* send() came up short */
	bool nodelay : 1;
	bool ts_ok : 1, sack_ok : 1;
	bool ack_now : 1;
	bool ack_before : 1; /* the last ACK stood before a probe that is on its way */
	bool probe : 1;	     /* send one segment whatever the window is (persist, TLP, RTO) */
	bool keep_probe : 1; /* send an ACK of what the peer has (keepalive) */
	bool undo_ts : 1;    /* undo_at is set */
	bool reordering : 1; /* was seen (RFC 8985) */
	bool tlp_retrans : 1, tlp_out : 1;
	bool ecn_ok : 1;   /* both do; in SYN_SENT: we ask */
	bool ecn_echo : 1; /* a mark came: ECE, until CWR comes */
	bool ecn_only : 1; /* recovery is for a mark, and nothing is lost so far */
	bool ecn_cwr : 1;  /* the window was cut: to be told with the next new bytes */
	bool cookie : 1;   /* made from a SYN cookie */

	uint32_t events; /* to be told */
	int err;

	/* Sending: [snd_una, snd_nxt) is on its way, [snd_nxt, tx_end) waits. */
	struct net_stream tx;
	uint32_t iss, snd_una, snd_nxt, tx_end;
	uint32_t snd_wnd, snd_wl1, snd_wl2, max_wnd;
	uint32_t snd_edge; /* the farthest that the peer ever allowed */
	uint32_t mss;	   /* bytes of data in a full segment */
	uint16_t peer_mss;
	uint16_t path_mtu;    /* 0: that of the interface */
	uint16_t mtu_before;  /* what it was before it was guessed to be less; 0: it was not */
	uint8_t mtu_tries;    /* of a larger one, in vain */
	uint32_t mtu_try_end; /* of the segment that tries one */
	uint64_t mtu_try_at;  /* when one may be sent */
	uint8_t snd_scale, rcv_scale;
	uint8_t dup_acks;
	uint8_t backoff; /* RTOs in a row; also of probes */
	uint8_t syn_tries, keep_tries;

	/* Receiving: [rcv_read, rcv_nxt) waits for the caller. */
	struct net_stream rx;
	struct net_range *held; /* out of order */
	uint32_t fin_at;	/* where the peer's FIN stands, once it came */
	uint32_t irs, rcv_nxt, rcv_read;
	uint32_t rcv_buffer;		 /* bytes; see buffers.c */
	uint32_t round_from, last_round; /* rcv_read when the round began; bytes of the last one */
	uint32_t rcv_rtt_ms;		 /* of what came last, by its timestamp */
	uint64_t round_at;
	uint32_t rcv_adv;		 /* the edge of the window that was told */
	uint32_t unacked;		 /* bytes received since the last ACK */
	uint32_t last_ack;		 /* rcv_nxt as it was told last */
	uint32_t recent[3];		 /* in the parts that came last (RFC 2018 4) */
	uint32_t dsack_start, dsack_end; /* to be told, unless equal (RFC 2883) */
	uint32_t sack_told;		 /* the part that was told last */
	uint16_t dup_acks_owed;		 /* with SACK: new parts that were not told */
	bool sack_more;			 /* the last ACK could not tell of all */
	uint16_t rcv_mss, rcv_len;	 /* a full segment of the peer's; the last one */
	uint8_t quick_acks;

	uint32_t ts_recent, ts_offset;
	uint64_t ts_recent_at;

	/* Loss recovery (recovery.c) */
	struct net_sent_list sent, sent_by_time;
	struct net_sent *sack_high; /* the highest sacked, or NULL */
	uint32_t sack_credit;	    /* steps that searching may still take (recovery.c) */
	struct net_sent *lost_hint; /* none before it is to be sent again; NULL: unknown */
	struct {
		uint32_t start, end;
	} seen[NET_MAX_SACK]; /* SACK blocks of the last ACK: they say nothing new */
	struct net_sent one;  /* so that a connection can always send */
	uint32_t n_sent, n_sacked;
	uint32_t n_to_resend; /* lost, and not sent again */
	uint32_t sacked_bytes, lost_bytes, retrans_bytes;
	uint32_t recover; /* snd_nxt when recovery began */
	uint8_t recovery; /* enum net_recovery */
	uint8_t frto;	  /* enum net_frto */
	bool one_used;
	uint16_t challenge_count;
	uint64_t challenge_since;
	uint64_t invalid_ack_at;
	uint32_t prr_delivered, prr_out, prr_flight;
	uint32_t tlp_end;
	uint32_t undo_cwnd, undo_ssthresh, undo_at;
	/* what was sent again, and how much of it is not known to have been for nothing */
	uint32_t undo_start, undo_end, undo_bytes;
	uint64_t reo_wait; /* until something may have to be held lost; 0: nothing */
	uint64_t rack_sent_at, rack_rtt, min_rtt, min_rtt_at;
	uint32_t rack_end, rack_fack;
	uint8_t reo_mult, reo_persist;
	uint8_t big_lost; /* RTOs in a row of full segments (black holes) */
	uint32_t dsack_round;

	uint64_t srtt, rttvar, rto; /* ns */
	uint64_t progress_at; /* last time that anything sent was acknowledged, or first sent */
	uint64_t heard_at;
	uint32_t user_timeout; /* ms; 0: the default */
	uint32_t keep_idle;    /* s */

	const struct net_congestion_ops *cc;
	uint32_t cwnd, ssthresh;
	uint64_t pace_at; /* when what was sent would have gone at an even pace */
	uint32_t limited; /* the window of congestion held sending back while una was up to here */
	uint64_t cc_state[10];

	uint32_t half_open, backlog;   /* of a listener */
	struct dmm_net_conn *listener; /* of a half-open one */
};

TAILQ_HEAD(net_conn_list, dmm_net_conn);

/* An answer that belongs to no connection. */
struct net_reply {
	struct dmm_endpoint local, remote;
	uint32_t seq, ack, ts_val, ts_ecr;
	uint8_t flags, scale;
	uint16_t window, mss; /* mss: in a SYN */
	bool v4, ts, sack_ok, no_scale;
};

/* A packet of which fragments came (fragment.c). */
struct net_fragmented {
	uint8_t src[16], dst[16];
	uint32_t id;
	uint8_t proto;
	uint8_t ecn;	     /* bit per codepoint that came */
	bool v4, used, dead; /* dead: fragments overlapped, so all of it is dropped */
	uint32_t total;	     /* 0: the last one did not come yet */
	uint64_t until;
	struct net_stream bytes;
	struct net_range *parts;
};

/* A datagram that waits to be received or sent. */
struct net_datagram {
	TAILQ_ENTRY(net_datagram) link;
	struct dmm_endpoint local, remote;
	struct net_stream bytes;
	uint32_t len;
	struct dmm_net_udp *socket; /* to be sent: whose, NULL: of one that was closed */
};

TAILQ_HEAD(net_datagram_list, net_datagram);

struct dmm_net_udp {
	struct dmm_net *net;
	void *user;
	struct dmm_net_udp *hash_next;
	TAILQ_ENTRY(dmm_net_udp) event_link;
	struct dmm_endpoint local, remote; /* remote: zeros where it has none */
	struct net_datagram_list received;
	uint32_t received_bytes, waiting_bytes;
	int err;
	bool on_event;
};

TAILQ_HEAD(net_udp_list, dmm_net_udp);

struct dmm_net {
	uint64_t now;
	void *owner;
	struct net_wheel wheel;
	struct net_conn_list output, events, waiting; /* waiting: TIME-WAIT, the oldest first */
	uint32_t
		turn; /* segments that the first of @output may still send before the next's turn */
	uint32_t
		kind_turn; /* packets that connections, or UDP, may still send before the other's */
	bool udp_next;	   /* it is UDP's */

	struct net_pool conns, chunks, sents, ranges, datagrams, udps;
	struct dmm_net_conn **hash, **listeners;
	struct dmm_net_conn *found; /* by the last search, while it is in the table */
	uint32_t hash_mask;
	struct dmm_net_udp **udp_hash;
	struct net_udp_list udp_events;
	struct net_datagram_list udp_output;

	uint64_t hash_key[2], isn_key[2], ts_key[2], cookie_key[2], port_key[2];
	uint32_t (*isn)(void *owner, const struct dmm_endpoint *local,
			const struct dmm_endpoint *remote);
	uint32_t send_buffer, receive_buffer;
	uint32_t max_conns; /* that the caller holds */
	uint8_t congestion, ecn;
	bool delay_small, paces;
	uint8_t rcv_scale;

	uint32_t mtu;
	uint32_t n_addrs, max_addrs;
	uint8_t (*addrs)[16]; /* sorted */

	struct net_reply replies[NET_REPLIES];
	uint32_t reply_head, n_replies;
	uint16_t first_port, last_port;
	uint16_t port_steps[NET_PORT_STEPS]; /* ports.c */
	uint64_t cookie_at;		     /* when one was sent last */
	struct net_fragmented fragmented[NET_MAX_FRAGMENTED];
	uint64_t fragments_until; /* the first of them is dropped, or one before it was; 0: none */
	uint8_t *assembled;	  /* 64 KiB: a packet that was put together */

	uint64_t sack_steps; /* for tests: of all searches for what SACKs tell of */
	struct dmm_net_stats stats;
};

/* engine.c */

bool net_is_ours(const struct dmm_net *net, const uint8_t addr[16]);
void net_want_output(struct dmm_net_conn *c);
/* Notes @events for the caller. */
void net_note(struct dmm_net_conn *c, uint32_t events);
/* Makes a connection, in no table yet; NULL: out of memory. */
struct dmm_net_conn *net_conn_new(struct dmm_net *net, const struct dmm_endpoint *local,
				  const struct dmm_endpoint *remote);
/* It is off all lists and its memory goes. Nobody may know of it. */
void net_conn_free(struct dmm_net_conn *c);
/* Closed: off the wire, its buffers go, and the caller is told of @err (0: that all is done). What
 * was received before an error can still be read. */
void net_conn_end(struct dmm_net_conn *c, int err);

/* ip.c */

enum net_verdict { NET_VERDICT_WHOLE, NET_VERDICT_DROP, NET_VERDICT_FRAGMENT };

struct net_fragment {
	uint32_t id, offset;
	bool more;
};

enum net_verdict net_ip_parse(struct dmm_net *net, const uint8_t *p, uint32_t len,
			      struct net_packet *ret, struct net_fragment *ret_fragment);
/* Goes through the extension headers that @packet, put together from fragments, begins with. False: it
 * is to be dropped. */
bool net_ip_inside(struct dmm_net *net, struct net_packet *packet);
/* Writes the header for @len bytes that follow it; returns its length. */
uint32_t net_ip_build(struct dmm_net *net, uint8_t *p, const struct dmm_endpoint *local,
		      const struct dmm_endpoint *remote, bool v4, uint8_t proto, uint8_t ecn,
		      uint32_t len);
bool net_is_v4(const uint8_t addr[16]);
/* It may be a peer's. */
bool net_is_unicast(const uint8_t addr[16]);
uint64_t net_pseudo(const struct dmm_endpoint *a, const struct dmm_endpoint *b, bool v4,
		    uint8_t proto, uint32_t len);

/* fragment.c */

/* True: with this one all are there, and @packet is the whole. */
bool net_fragment(struct dmm_net *net, struct net_packet *packet, const struct net_fragment *f);
/* Drops those that waited too long. */
void net_fragments_expire(struct dmm_net *net);

/* icmp.c */

void net_icmp_input(struct dmm_net *net, const struct net_packet *packet);
/* The MTU of the path as @e tells it; 0: nothing that may be believed. */
uint32_t net_icmp_mtu(const struct dmm_icmp *e);

/* demux.c */

void net_hash_add(struct dmm_net_conn *c);
void net_hash_remove(struct dmm_net_conn *c);
struct dmm_net_conn *net_find(struct dmm_net *net, const struct dmm_endpoint *local,
			      const struct dmm_endpoint *remote);
struct dmm_net_conn *net_find_listener(const struct dmm_net *net, const struct dmm_endpoint *local);
void net_listeners_add(struct dmm_net_conn *c);
void net_listeners_remove(struct dmm_net_conn *c);
bool net_same_end(const struct dmm_endpoint *a, const struct dmm_endpoint *b);
bool net_is_any(const uint8_t addr[16]);
/* Of the two ends: what sequence numbers, offsets and cookies are made from. */
uint64_t net_tuple_hash(const uint64_t key[2], const struct dmm_endpoint *local,
			const struct dmm_endpoint *remote, uint64_t more);

/* ports.c */

/* A local port for @local to @remote, in network order; 0: all are taken. */
uint16_t net_port_for(struct dmm_net *net, const struct dmm_endpoint *local,
		      const struct dmm_endpoint *remote);

/* options.c */

/* False: malformed. */
bool net_options_parse(const uint8_t *p, uint32_t len, struct net_options *ret);
/* These return how many bytes they wrote, a multiple of 4. */
uint32_t net_options_syn(uint8_t *p, uint16_t mss, int scale, bool sack_ok, bool ts,
			 uint32_t ts_val, uint32_t ts_ecr);
uint32_t net_options_data(struct dmm_net_conn *c, uint8_t *p, bool sack);
uint32_t net_ts_now(const struct dmm_net_conn *c);

/* input.c */

void net_tcp_input(struct dmm_net *net, const struct net_packet *packet);
/* RFC 5961 7: an ACK to what may be forged, limited for each connection. */
void net_challenge(struct dmm_net_conn *c);
void net_enter_time_wait(struct dmm_net_conn *c);

/* handshake.c */

/* The least initial number of one that follows (RFC 9293 3.4.3, MAY-2): beyond all that was used. */
static inline uint32_t net_iss_behind(const struct dmm_net_conn *c)
{
	return c->snd_nxt + 0x10000;
}
uint32_t net_isn(const struct dmm_net *net, const struct dmm_endpoint *local,
		 const struct dmm_endpoint *remote);
/* A connection for @syn, in SYN_RCVD; NULL: out of memory. */
struct dmm_net_conn *net_spawn(struct dmm_net_conn *listener, const struct net_segment *syn,
			       uint32_t iss, bool cookie);
void net_listen_input(struct dmm_net_conn *listener, struct net_segment *s);
void net_syn_sent_input(struct dmm_net_conn *c, struct net_segment *s);
void net_establish(struct dmm_net_conn *c, const struct net_segment *s);
void net_set_mss(struct dmm_net_conn *c);
uint16_t net_our_mss(const struct dmm_net *net, bool v4);

/* cookie.c */

/* The ACK of one of ours, not too old. */
bool net_cookie_is_ours(const struct dmm_net *net, const struct net_segment *s);
/* By its time he may have got one. */
bool net_cookie_may_be(const struct dmm_net *net, const struct net_segment *s);
void net_cookie_send(struct dmm_net_conn *listener, const struct net_segment *s);
/* An ACK to a listener: a connection, if its number is a cookie of ours. */
struct dmm_net_conn *net_cookie_accept(struct dmm_net_conn *listener, const struct net_segment *s);

/* reply.c */

void net_reply_reset(struct dmm_net *net, const struct net_segment *s);
void net_reply_add(struct dmm_net *net, const struct net_reply *reply);
/* RST of @c itself. */
void net_reply_abort(struct dmm_net_conn *c);
uint32_t net_reply_output(struct dmm_net *net, uint8_t *p, uint32_t room);

/* Bytes that were never sent yet. */
static inline uint32_t net_waiting(const struct dmm_net_conn *c)
{
	return c->fin_sent ? 0 : c->tx_end - c->snd_nxt;
}

/* Where the peer's window ends now. */
static inline uint32_t net_send_edge(const struct dmm_net_conn *c)
{
	return c->snd_wl2 + c->snd_wnd;
}

/* The window that a SYN without ACK tells, and a cookie. */
static inline uint16_t net_syn_window(const struct dmm_net *net)
{
	return net->receive_buffer < 0xffff ? (uint16_t)net->receive_buffer : 0xffff;
}

/* ack.c */

void net_ack_input(struct dmm_net_conn *c, const struct net_segment *s);
void net_window_update(struct dmm_net_conn *c, const struct net_segment *s);

/* buffers.c */

void net_buffers_begin(struct dmm_net_conn *c);
/* How many bytes of @c may wait for their ACK now. */
uint32_t net_send_buffer(const struct dmm_net_conn *c);
/* Bytes were read: the receive buffer may grow for it. */
void net_receive_buffer_read(struct dmm_net_conn *c);

/* pace.c */

/* May a segment go now? If not, a timer is set for when it may. */
bool net_pace_allows(struct dmm_net_conn *c);
void net_pace_sent(struct dmm_net_conn *c, uint32_t len);

/* ecn.c */

/* Flags of our SYN, and what the peer's says of him. */
uint8_t net_ecn_syn_flags(const struct dmm_net_conn *c);
bool net_ecn_agreed(const struct dmm_net_conn *c, const struct net_segment *s);
/* New bytes came: marked, or they tell that the peer has heard of it. */
void net_ecn_receive(struct dmm_net_conn *c, const struct net_segment *s);
/* The peer tells of marks, for the first time in this window (RFC 3168 6.1.2). */
bool net_ecn_is_told(const struct dmm_net_conn *c, const struct net_segment *s);

/* recovery.c */

struct net_acked {
	uint32_t bytes;	    /* cumulatively, SYN and FIN included */
	uint32_t delivered; /* newly known to have arrived */
	uint32_t in_flight; /* before */
	uint64_t rtt;	    /* 0: no sample */
	bool dup;	    /* a duplicate ACK (RFC 5681 2) */
	bool dsack;
	bool all_dup; /* the last of what was sent again is told as a duplicate */
	bool sacked_new;
	bool retrans_acked;
};

struct net_sent *net_sent_new(struct dmm_net_conn *c);
void net_sent_free(struct dmm_net_conn *c, struct net_sent *sent);
void net_sent_now(struct dmm_net_conn *c, struct net_sent *sent);
void net_mark_lost(struct dmm_net_conn *c, struct net_sent *sent);
void net_recovery_ack(struct dmm_net_conn *c, const struct net_segment *s, struct net_acked *a);
void net_recovery_timeout(struct dmm_net_conn *c);
uint32_t net_pipe(const struct dmm_net_conn *c);
/* The counts are what the lists say: for tests. */
bool net_recovery_is_sound(const struct dmm_net_conn *c);
struct net_sent *net_next_lost(struct dmm_net_conn *c);

/* rack.c */

void net_rack_delivered(struct dmm_net_conn *c, const struct net_sent *sent,
			const struct net_segment *s);
/* Marks what is lost; arms the reorder timer if something may be soon. */
void net_rack_detect(struct dmm_net_conn *c);
void net_rack_dsack(struct dmm_net_conn *c);
bool net_tlp_arm(struct dmm_net_conn *c);
void net_tlp_send(struct dmm_net_conn *c);
void net_tlp_ack(struct dmm_net_conn *c, const struct net_segment *s, const struct net_acked *a);

/* receive.c */

void net_receive(struct dmm_net_conn *c, struct net_segment *s);
/* How far the window may reach now. */
uint32_t net_receive_edge(const struct dmm_net_conn *c);
void net_held_clear(struct dmm_net_conn *c);

/* output.c */

/* The next segment of @c; 0: there is none now. */
uint32_t net_tcp_output(struct dmm_net_conn *c, uint8_t *p, uint32_t room);
uint32_t net_tcp_header(struct dmm_net *net, uint8_t *p, const struct dmm_endpoint *local,
			const struct dmm_endpoint *remote, bool v4, uint8_t ecn,
			uint32_t options_len, uint32_t len);

/* timers.c */

void net_due_set(struct dmm_net_conn *c, enum net_due due, uint64_t at);
void net_due_clear(struct dmm_net_conn *c, enum net_due due);
void net_timers_run(struct dmm_net_conn *c);
/* What is on its way has to be watched: RTO, TLP or persist, from now on. */
void net_rtx_arm(struct dmm_net_conn *c);
void net_rtt_sample(struct dmm_net_conn *c, uint64_t rtt);
void net_rto_update(struct dmm_net_conn *c);
void net_heard(struct dmm_net_conn *c);

/* pmtu.c */

void net_pmtu_lower(struct dmm_net_conn *c, uint32_t mtu);
/* How many bytes the next full segment is to have: now and then, where @most allows it, more than
 * others, to see whether it arrives (RFC 4821). */
uint32_t net_pmtu_try(struct dmm_net_conn *c, uint32_t most);
/* What @sent says of that: it arrived. */
void net_pmtu_arrived(struct dmm_net_conn *c, const struct net_sent *sent);
void net_icmp_error(struct dmm_net *net, const struct dmm_icmp *error);
/* After an RTO: full segments that never arrive, small ones that do (RFC 4821). */
void net_black_hole(struct dmm_net_conn *c);

/* udp.c */

/* An ICMP error about a datagram of ours. */
void net_udp_error(struct dmm_net *net, const struct dmm_icmp *error);
void net_udp_input(struct dmm_net *net, const struct net_packet *packet);
uint32_t net_udp_output(struct dmm_net *net, uint8_t *p, uint32_t room);
