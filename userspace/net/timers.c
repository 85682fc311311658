// SPDX-License-Identifier: Apache-2.0
/* The timers of a connection. It has several deadlines and one place in the wheel, at the earliest
 * of them or before: a deadline that moves to later (as that of retransmission does with each
 * ACK) leaves it where it is, and is looked at when that place is reached. */
#include <errno.h>

#include "base/util.h"
#include "net/congestion.h"
#include "net/net_internal.h"

#define GRANULARITY NET_MS
/* RFC 6298 2.4 says 1 s (SHOULD); 200 ms is what all stacks in use have, and TLP, RACK and undoing
 * make a wrong one cheap. */
#define MIN_RTO	     (200 * NET_MS)
#define MAX_RTO	     (120 * NET_SEC) /* 2.5: at least 60 s */
#define SYN_TIMEOUT  (185 * NET_SEC) /* MUST-23: 3 min */
#define HALF_TIMEOUT (63 * NET_SEC)  /* of who did not ask us for it */
#define USER_TIMEOUT (300 * NET_SEC) /* RFC 9293 3.8.3: R2 at least 100 s */
#define KEEP_EVERY   (75 * NET_SEC)
#define KEEP_TRIES   9
#define SMALL_WINDOW (200 * NET_MS) /* RFC 9293 3.8.6.2.1: 0.1 to 1 s */

static void run_until_first(struct dmm_net_conn *c)
{
	uint64_t first = 0;
	unsigned int i;

	for (i = 0; i < NET_NUM_DUE; i++)
		if (c->due[i] && (!first || c->due[i] < first))
			first = c->due[i];
	if (first)
		net_wheel_set(&c->net->wheel, &c->timer, first);
}

void net_due_set(struct dmm_net_conn *c, enum net_due due, uint64_t at)
{
	const uint64_t before = c->due[due];

	c->due[due] = at;
	/* where it runs already is early enough, unless this is earlier than all */
	if (net_timer_runs(&c->timer) && (before && before <= at))
		return;
	run_until_first(c);
}

void net_due_clear(struct dmm_net_conn *c, enum net_due due)
{
	c->due[due] = 0;
}

static uint64_t backed_off(uint64_t rto, unsigned int backoff)
{
	return backoff >= 16 ? MAX_RTO : DMM_MIN(rto << backoff, MAX_RTO);
}

void net_rtx_arm(struct dmm_net_conn *c)
{
	const bool waits = net_waiting(c) || (c->shut && !c->fin_sent);
	const uint64_t now = c->net->now;
	uint64_t rto = backed_off(c->rto, c->backoff);

	c->rtx = NET_RTX_RTO;
	if (c->snd_nxt == c->snd_una) {
		if (!waits || c->state < NET_ESTABLISHED) {
			net_due_clear(c, NET_DUE_RTX);
			return;
		}
		c->rtx = NET_RTX_PERSIST;
		if (c->snd_wnd && !c->backoff)
			rto = SMALL_WINDOW;
	} else if (!c->snd_wnd && c->state >= NET_ESTABLISHED) {
		c->rtx = NET_RTX_PERSIST;
	} else if (c->reo_wait) {
		c->rtx = NET_RTX_REORDER;
		rto = c->reo_wait;
	} else if (net_tlp_arm(c)) {
		return;
	}
	net_due_set(c, NET_DUE_RTX, now + rto);
}

void net_rto_update(struct dmm_net_conn *c)
{
	const uint64_t rto = c->srtt + DMM_MAX(4 * c->rttvar, GRANULARITY);

	c->rto = DMM_MIN(DMM_MAX(rto, MIN_RTO), MAX_RTO);
}

/* RFC 6298 2.2, 2.3. */
void net_rtt_sample(struct dmm_net_conn *c, uint64_t rtt)
{
	const uint64_t off = rtt > c->srtt ? rtt - c->srtt : c->srtt - rtt;

	if (!c->srtt) {
		c->srtt = rtt;
		c->rttvar = rtt / 2;
	} else {
		c->rttvar += off / 4 - c->rttvar / 4;
		c->srtt += rtt / 8 - c->srtt / 8;
	}
	if (!c->min_rtt || rtt <= c->min_rtt || c->net->now - c->min_rtt_at > 30 * NET_SEC) {
		c->min_rtt = rtt;
		c->min_rtt_at = c->net->now;
	}
	net_rto_update(c);
}

static void keep_again(struct dmm_net_conn *c)
{
	if (c->keep_idle && c->state >= NET_ESTABLISHED)
		net_due_set(c, NET_DUE_KEEP, c->heard_at + c->keep_idle * NET_SEC);
}

void net_heard(struct dmm_net_conn *c)
{
	c->heard_at = c->net->now;
	if (c->keep_tries) {
		c->keep_tries = 0;
		keep_again(c);
	}
}

/* False: it has waited long enough and is gone. */
static bool may_retry(struct dmm_net_conn *c, uint64_t since, uint64_t limit)
{
	if (c->user_timeout)
		limit = c->user_timeout * NET_MS;
	if (c->net->now - since < limit)
		return true;
	c->net->stats.timed_out++;
	if (c->state >= NET_ESTABLISHED)
		net_reply_abort(c);
	net_conn_end(c, ETIMEDOUT);
	return false;
}

static void on_rto(struct dmm_net_conn *c)
{
	const uint64_t limit = c->state == NET_SYN_SENT	  ? SYN_TIMEOUT
			       : c->state == NET_SYN_RCVD ? HALF_TIMEOUT
							  : USER_TIMEOUT;

	if (!may_retry(c, c->progress_at, limit))
		return;
	c->net->stats.rto++;
	c->backoff += c->backoff < UINT8_MAX;
	net_recovery_timeout(c);
	net_black_hole(c);
	net_rtx_arm(c);
	net_want_output(c);
}

static void on_rtx(struct dmm_net_conn *c)
{
	switch ((enum net_rtx)c->rtx) {
	case NET_RTX_RTO:
		on_rto(c);
		break;
	case NET_RTX_TLP:
		net_tlp_send(c);
		net_rtx_arm(c);
		break;
	case NET_RTX_REORDER: {
		const struct net_segment none = { .ack = c->snd_una };
		struct net_acked a = { .in_flight = net_pipe(c) };

		net_recovery_ack(c, &none, &a);
		net_want_output(c);
		break;
	}
	case NET_RTX_PERSIST: /* MUST-37: for ever, as long as he answers */
		if (!may_retry(c, c->heard_at > c->progress_at ? c->heard_at : c->progress_at,
			       USER_TIMEOUT))
			return;
		c->backoff += c->backoff < UINT8_MAX;
		c->probe = true;
		net_rtx_arm(c);
		net_want_output(c);
		break;
	}
}

/* RFC 9293 3.8.4. */
static void on_keep(struct dmm_net_conn *c)
{
	const uint64_t idle = c->net->now - c->heard_at, limit = c->keep_idle * NET_SEC;

	if (!c->keep_idle)
		return;
	if (idle < limit) {
		keep_again(c);
		return;
	}
	if (c->snd_nxt != c->snd_una) { /* retransmission finds out sooner */
		net_due_set(c, NET_DUE_KEEP, c->net->now + KEEP_EVERY);
		return;
	}
	if (c->keep_tries++ >= KEEP_TRIES) {
		c->net->stats.timed_out++;
		net_reply_abort(c);
		net_conn_end(c, ETIMEDOUT);
		return;
	}
	c->net->stats.keepalives++;
	c->keep_probe = true;
	net_due_set(c, NET_DUE_KEEP, c->net->now + KEEP_EVERY);
	net_want_output(c);
}

static void run_one(struct dmm_net_conn *c, enum net_due due)
{
	switch (due) {
	case NET_DUE_RTX:
		on_rtx(c);
		break;
	case NET_DUE_ACK:
		c->net->stats.delayed_acks++;
		c->ack_now = true;
		net_want_output(c);
		break;
	case NET_DUE_LIFE:
		net_conn_end(c, 0);
		break;
	case NET_DUE_PACE:
		net_want_output(c);
		break;
	case NET_DUE_KEEP:
		on_keep(c);
		break;
	case NET_DUE_SPACE:
		if (!c->want_write)
			break;
		if (!dmm_net_send_space(c)) {
			net_due_set(c, NET_DUE_SPACE, c->net->now + 20 * NET_MS);
			break;
		}
		c->want_write = false;
		net_note(c, DMM_EV_WRITABLE);
		break;
	case NET_NUM_DUE:
		break;
	}
}

void net_timers_run(struct dmm_net_conn *c)
{
	struct dmm_net *net = c->net;
	unsigned int i;

	for (i = 0; i < NET_NUM_DUE; i++) {
		if (!c->due[i] || c->due[i] > net->now)
			continue;
		c->due[i] = 0;
		run_one(c, (enum net_due)i);
		if (c->state == NET_CLOSED) /* it may be gone altogether */
			return;
	}
	run_until_first(c);
}
