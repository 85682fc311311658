// SPDX-License-Identifier: Apache-2.0
/* The user of a script: his calls, and what he is told. */
#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "script_internal.h"

#define PASSED_OVER (DMM_EV_READABLE | DMM_EV_WRITABLE)

struct name {
	const char *name;
	int value;
};

static const struct name errors[] = {
	{ "ENOTCONN", ENOTCONN },	{ "EPIPE", EPIPE },
	{ "EADDRINUSE", EADDRINUSE },	{ "EADDRNOTAVAIL", EADDRNOTAVAIL },
	{ "ECONNRESET", ECONNRESET },	{ "ECONNREFUSED", ECONNREFUSED },
	{ "ETIMEDOUT", ETIMEDOUT },	{ "EHOSTUNREACH", EHOSTUNREACH },
	{ "ENETUNREACH", ENETUNREACH }, { "EAFNOSUPPORT", EAFNOSUPPORT },
	{ "EINVAL", EINVAL },		{ "ENOMEM", ENOMEM },
	{ "EMSGSIZE", EMSGSIZE },	{ "ENOPROTOOPT", ENOPROTOOPT },
	{ "EACCES", EACCES },		{ NULL, 0 },
};

static const struct name events[] = {
	{ "CONNECTED", (int)DMM_EV_CONNECTED }, { "READABLE", (int)DMM_EV_READABLE },
	{ "WRITABLE", (int)DMM_EV_WRITABLE },	{ "EOF", (int)DMM_EV_EOF },
	{ "ERROR", (int)DMM_EV_ERROR },		{ "CLOSED", (int)DMM_EV_CLOSED },
	{ "ACCEPTED", (int)DMM_NET_ACCEPTED },	{ NULL, 0 },
};

static const struct name options[] = {
	{ "nodelay", DMM_NET_NODELAY },
	{ "keepalive", DMM_NET_KEEPALIVE },
	{ "user_timeout", DMM_NET_USER_TIMEOUT },
	{ "congestion", DMM_NET_CONGESTION },
	{ NULL, 0 },
};

static bool named(struct script *s, const struct name *names, const char *word, int *ret)
{
	for (; word && names->name; names++) {
		if (strcmp(names->name, word))
			continue;
		*ret = names->value;
		return true;
	}
	return wrong(s, "'%s' is no name that is known here", word ? word : "");
}

static const char *name_of(const struct name *names, int value)
{
	for (; names->name; names++)
		if (names->value == value)
			return names->name;
	return "another";
}

static void names_of(uint32_t bits, char *to, size_t room)
{
	unsigned int i;
	int n = 0;

	*to = 0;
	for (i = 0; events[i].name; i++)
		if (bits & (uint32_t)events[i].value && (size_t)n < room)
			n += snprintf(to + n, room - (size_t)n, "%s%s", n ? " " : "",
				      events[i].name);
}

/* --- calls --- */

static long long call_send(struct rig_peer *p, struct dmm_net_conn *c, long long len)
{
	uint8_t *buf = malloc((size_t)len + 1);
	long long i;
	ssize_t n;

	if (!buf)
		abort();
	for (i = 0; i < len; i++)
		buf[i] = wire_byte(p->sent + 1 + (uint32_t)i);
	n = dmm_net_send(c, buf, (size_t)len);
	free(buf);
	p->sent += n > 0 ? (uint32_t)n : 0;
	return n;
}

static long long call_recv(struct script *s, struct dmm_net_conn *c, long long most)
{
	struct rig_peer *p = s->rig.peer;
	struct iovec iov[64];
	const unsigned int n = dmm_net_recv_peek(c, iov, 64);
	size_t got = 0, k;
	unsigned int i;

	for (i = 0; i < n && (long long)got < most; i++)
		for (k = 0; k < iov[i].iov_len && (long long)got < most; k++, got++)
			if (((const uint8_t *)iov[i].iov_base)[k] !=
			    wire_byte(p->received + 1 + (uint32_t)got))
				wrong(s, "byte %zu that was received is not that of the stream",
				      p->received + got + 1);
	dmm_net_recv_done(c, got);
	p->received += (uint32_t)got;
	return (long long)got;
}

static long long call_connect(struct script *s, const struct words *w)
{
	struct rig *r = &s->rig;
	struct dmm_endpoint to = r->peer->end;
	struct dmm_net_conn *conn;
	int err;

	if (w->n > 2 && strcmp(w->word[1], "to") == 0 && !read_address(s, w->word[2], to.addr))
		return 0;
	err = dmm_net_connect(r->net, &r->ours, &to, r->peer, r->now, &conn);
	if (err)
		return err;
	r->peer->conn = conn;
	r->peer->sent = r->peer->received = 0;
	return 0;
}

static long long call_listen(struct script *s, long long backlog)
{
	struct rig *r = &s->rig;
	struct dmm_net_conn *l;
	const int err = dmm_net_listen(r->net, &r->ours, (int)backlog, NULL, &l);

	if (!err)
		r->listener = l;
	return err;
}

/* The handle of a listener is dead with close() or abort(), that of a connection with abort(). */
static void forget(struct script *s, const struct dmm_net_conn *c, bool closed)
{
	if (c == s->rig.listener)
		s->rig.listener = NULL;
	else if (!closed)
		s->rig.peer->conn = NULL;
}

/* Those that need a handle: of the connection, else of the listener. */
static bool call_conn(struct script *s, const struct words *w, long long n, long long *ret)
{
	struct rig_peer *p = s->rig.peer;
	struct dmm_net_conn *c = p->conn ? p->conn : s->rig.listener;
	const char *name = w->word[0];
	int which;

	if (!c)
		return wrong(s, NO_HANDLE);
	*ret = 0;
	if (strcmp(name, "send") == 0) {
		*ret = call_send(p, c, n);
	} else if (strcmp(name, "recv") == 0) {
		*ret = call_recv(s, c, n);
	} else if (strcmp(name, "shutdown") == 0) {
		*ret = dmm_net_shutdown(c);
	} else if (strcmp(name, "close") == 0) {
		dmm_net_close(c);
		forget(s, c, true);
	} else if (strcmp(name, "abort") == 0) {
		dmm_net_abort(c);
		forget(s, c, false);
	} else {
		if (!named(s, options, w->word[1], &which) || !read_number(s, w->word[2], &n))
			return false;
		*ret = dmm_net_set_option(c, (enum dmm_net_option)which, (int)n);
	}
	return true;
}

static bool call(struct script *s, const struct words *w, long long n, long long *ret)
{
	struct rig *r = &s->rig;

	*ret = 0;
	if (strcmp(w->word[0], "connect") == 0) {
		*ret = call_connect(s, w);
	} else if (strcmp(w->word[0], "listen") == 0) {
		*ret = call_listen(s, n);
	} else if (strcmp(w->word[0], "unlisten") == 0) {
		if (!r->listener)
			return wrong(s, NO_HANDLE);
		dmm_net_close(r->listener);
		forget(s, r->listener, true);
	} else {
		return call_conn(s, w, n, ret);
	}
	return true;
}

/* --- expectations --- */

static bool expect_event(struct script *s, const char *name, const char *errno_name)
{
	struct rig_peer *p = s->rig.peer;
	char got[200];
	int event, err = 0;

	if (!named(s, events, name, &event) || (errno_name && !named(s, errors, errno_name, &err)))
		return false;
	for (; p->n_events;
	     p->n_events--, memmove(p->events, p->events + 1, p->n_events * sizeof(*p->events))) {
		struct rig_event *ev = p->events;

		if (ev->events & (uint32_t)event) {
			ev->events &= ~(uint32_t)event;
			if (errno_name && ev->err != err)
				return wrong(s, "expected %s %s, got %s", name, errno_name,
					     name_of(errors, ev->err));
			return true;
		}
		if (ev->events & ~PASSED_OVER) {
			names_of(ev->events, got, sizeof(got));
			return wrong(s, "expected event %s, got %s", name, got);
		}
	}
	return wrong(s, "expected event %s, got none", name);
}

static bool no_event(struct script *s, const struct rig_peer *p, uint32_t which)
{
	char got[200];
	unsigned int i;

	for (i = 0; i < p->n_events; i++) {
		if (!(p->events[i].events & which))
			continue;
		names_of(p->events[i].events, got, sizeof(got));
		return wrong(s, "expected no event, got %s %s", got,
			     p->events[i].err ? name_of(errors, p->events[i].err) : "");
	}
	return true;
}

bool no_end_left(struct script *s)
{
	unsigned int i;

	for (i = 0; i < RIG_PEERS; i++)
		if (!no_event(s, &s->rig.peers[i], DMM_EV_ERROR | DMM_EV_CLOSED))
			return false;
	return true;
}

struct field {
	const char *name;
	size_t at;
};

#define STAT(x)                                                                                    \
	{                                                                                          \
#x, offsetof(struct dmm_net_stats, x)                                              \
	}

static const struct field stats[] = {
	STAT(conns),
	STAT(listeners),
	STAT(time_wait),
	STAT(half_open),
	STAT(bad_ip),
	STAT(bad_checksum),
	STAT(not_ours),
	STAT(other_proto),
	STAT(bad_tcp),
	STAT(segs_in),
	STAT(resets_in),
	STAT(resets_out),
	STAT(retransmits),
	STAT(rto),
	STAT(tlp),
	STAT(fast_recoveries),
	STAT(rack_marked),
	STAT(spurious),
	STAT(dsack_in),
	STAT(dsack_out),
	STAT(dup_acks_in),
	STAT(ce_in),
	STAT(ecn_reductions),
	STAT(dsack_undos),
	STAT(frto_undos),
	STAT(paws_dropped),
	STAT(delayed_acks),
	STAT(challenge_acks),
	STAT(out_of_window),
	STAT(out_of_order),
	STAT(keepalives),
	STAT(cookies_sent),
	STAT(cookies_taken),
	STAT(pmtu_lowered),
	STAT(black_holes),
	STAT(timed_out),
	STAT(icmp_in),
	STAT(zero_window_probes),
	STAT(window_updates),
	STAT(simultaneous_open),
	STAT(simultaneous_close),
};

static bool info_of(const struct dmm_net_conn *conn, const char *name, long long *ret)
{
	struct dmm_net_info i;
	size_t k;

	dmm_net_get_info(conn, &i);
	const struct {
		const char *name;
		uint64_t value;
	} fields[] = {
		{ "cwnd", i.cwnd },
		{ "ssthresh", i.ssthresh },
		{ "in_flight", i.in_flight },
		{ "mss", i.mss },
		{ "unread", i.unread },
		{ "held", i.held },
		{ "srtt_us", i.srtt / 1000 },
		{ "rttvar_us", i.rttvar / 1000 },
		{ "rto_us", i.rto / 1000 },
		{ "min_rtt_us", i.min_rtt / 1000 },
		{ "window", (uint32_t)(i.rcv_edge - i.rcv_nxt) },
		{ "send_window", (uint32_t)(i.snd_edge - i.snd_una) },
	};

	for (k = 0; k < sizeof(fields) / sizeof(*fields); k++)
		if (strcmp(fields[k].name, name) == 0) {
			*ret = (long long)fields[k].value;
			return i.sound;
		}
	return false;
}

static bool stat_of(const struct dmm_net *net, const char *name, long long *ret)
{
	struct dmm_net_stats all;
	size_t k;

	dmm_net_get_stats(net, &all);
	for (k = 0; k < sizeof(stats) / sizeof(*stats); k++) {
		uint64_t v;

		if (strcmp(stats[k].name, name))
			continue;
		memcpy(&v, (const uint8_t *)&all + stats[k].at, sizeof(v));
		*ret = (long long)v;
		return true;
	}
	return false;
}

static bool expect_number(struct script *s, const struct words *w, bool info)
{
	long long from, to, got;

	if (w->n != 4 || !read_range(s, w->word[3], &from, &to))
		return wrong(s, "expect stat | info NAME N");
	if (info && !s->rig.peer->conn)
		return wrong(s, "there is no connection");
	if (info ? !info_of(s->rig.peer->conn, w->word[2], &got)
		 : !stat_of(s->rig.net, w->word[2], &got))
		return wrong(s, "there is no '%s', or the connection is not sound", w->word[2]);
	return (got >= from && got <= to) ||
	       wrong(s, "expected %s %s, got %lld", w->word[2], w->word[3], got);
}

static bool expect_result(struct script *s, const char *word)
{
	long long want;
	int err;

	if (word && *word == 'E') {
		if (!named(s, errors, word, &err))
			return false;
		want = -err;
	} else if (!read_number(s, word, &want)) {
		return false;
	}
	return s->result == want ||
	       wrong(s, "expected the call to return %s, got %lld %s", word, s->result,
		     s->result < 0 ? name_of(errors, (int)-s->result) : "");
}

bool do_call(struct script *s, struct words *w)
{
	const char *name = w->word[0], *want = "0";
	const bool counted = strcmp(name, "send") == 0 || strcmp(name, "recv") == 0;
	unsigned int args = w->n;
	long long n = 8; /* listen's, if it says none */

	if (w->n > 2 && strcmp(w->word[w->n - 2], "=") == 0) {
		want = w->word[w->n - 1];
		args = w->n - 2;
	} else if (counted) {
		want = w->word[1];
	}
	if ((counted || (strcmp(name, "listen") == 0 && args > 1)) &&
	    !read_number(s, w->word[1], &n))
		return false;
	if (!call(s, w, n, &s->result))
		return false;
	rig_settle(&s->rig);
	return strcmp(want, "any") == 0 ? !*s->error : expect_result(s, want);
}

bool do_expect(struct script *s, struct words *w)
{
	const char *what = w->word[1] ? w->word[1] : "", *state;

	if (strcmp(what, "event") == 0)
		return expect_event(s, w->word[2], w->n > 3 ? w->word[3] : NULL);
	if (strcmp(what, "no") == 0)
		return no_event(s, s->rig.peer, ~PASSED_OVER);
	if (strcmp(what, "stat") == 0 || strcmp(what, "info") == 0)
		return expect_number(s, w, *what == 'i');
	if (strcmp(what, "result") == 0)
		return expect_result(s, w->word[2]);
	if (strcmp(what, "state") || w->n != 3)
		return wrong(s, "this is nothing to expect");
	state = rig_state(&s->rig);
	return strcmp(state, w->word[2]) == 0 ||
	       wrong(s, "expected state %s, got %s", w->word[2], state);
}
