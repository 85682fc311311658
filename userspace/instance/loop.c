/* SPDX-License-Identifier: Apache-2.0 */
/* The instance's event loop: one thread, one epoll set. A turn is: what epoll says, one batch of
 * frames, what that means to flows, what is due in the plug-in, and everything out at once.
 * #syscalls epoll_pwait2 sched_yield */
#define _GNU_SOURCE /* epoll_pwait2() */
#include "instance/host.h"

#include <errno.h>
#include <sched.h>
#include <sys/epoll.h>

#include <bpf/libbpf.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/util.h"
#include "instance/watch.h"

#define MAX_EVENTS 64
#define MAX_SLEEP  (100 * DMM_NS_PER_MS) /* heartbeats are due 5 times per second */
/* Adaptive: so long without work before it sleeps. The answer of a host nearby is mostly there by
 * then, and costs less to look for than to be woken by. */
#define SPIN	     50000 /* ns */
#define UPKEEP_EVERY DMM_NS_PER_SEC
/* How long a drained instance waits for the wire to end its last connections. */
#define DRAIN_LINGER (3 * DMM_NS_PER_SEC)

static void set_now(struct host *host)
{
	host->now = dmm_now_ns();
	host->link.now = host->now;
	relay_set_now(host->relay, host->now);
	host->shared->beat_ns = dmm_clock_ns(CLOCK_MONOTONIC_COARSE);
}

static void take_sockets(struct host *host, const struct master_sockets *sockets)
{
	enum dmm_family family = sockets->list.family;

	unsigned int taken = 0;

	for (unsigned int i = 0; i < sockets->list.n; i++)
		taken += clients_add_socket(host->relay, family, sockets->list.port[i],
					    sockets->fds[i]);
	/* where there is none to be had, that stays so for a while */
	host->ask_for_sockets_at[family & 1] = taken ? 0 : host->now + DMM_NS_PER_SEC;
}

static void on_master(struct host *host)
{
	struct master_sockets sockets;
	int kind;

	while ((kind = master_receive(&host->master, &sockets)) >= 0) {
		switch (kind) {
		case DMM_MSG_DRAIN:
			host->draining = true;
			break;
		case DMM_MSG_STOP:
			host->stopping = true;
			break;
		case DMM_MSG_HELLO:
			/* of somebody else */
			memset(host->ask_for_sockets_at, 0, sizeof(host->ask_for_sockets_at));
			master_send(&host->master, DMM_MSG_READY, NULL, 0);
			break;
		case DMM_MSG_SOCKETS:
			take_sockets(host, &sockets);
			break;
		default:
			dmm_warning("message %d from dmmd is not for a running instance", kind);
			break;
		}
	}
}

static void on_event(struct host *host, const struct epoll_event *event)
{
	switch (watch_kind_of(event)) {
	case WATCH_IO:
		break; /* frames are looked for every turn */
	case WATCH_RING:
		ring_buffer__consume(host->ring);
		break;
	case WATCH_LISTENER:
		relay_on_listener(host->relay, watch_index_of(event));
		break;
	case WATCH_APP:
		relay_on_app(host->relay, watch_index_of(event), event->events);
		break;
	case WATCH_MIRROR:
		mirror_run(&host->mirror);
		break;
	case WATCH_MASTER:
		on_master(host);
		break;
	case WATCH_ADOPT:
		master_adopt(&host->master);
		break;
	}
}

/* Returns how many events there were. */
static int wait_for_events(struct host *host, uint64_t sleep_ns)
{
	struct timespec timeout = { sleep_ns / DMM_NS_PER_SEC, sleep_ns % DMM_NS_PER_SEC };
	struct epoll_event events[MAX_EVENTS];
	int n, i;

	n = epoll_pwait2(host->epoll_fd, events, MAX_EVENTS, &timeout, NULL);
	set_now(host);
	for (i = 0; i < n; i++)
		on_event(host, &events[i]);
	return n;
}

static void upkeep(struct host *host)
{
	struct dmm_stack_stats stack = { 0 };
	struct dmm_pktio_stats io;

	host->next_upkeep = host->now + UPKEEP_EVERY;
	nexthop_tick(&host->nexthops, host->now);
	host->link.io->ops->stats(host->link.io, &io);
	host->shared->rx_dropped += io.rx_dropped - host->rx_dropped_before;
	host->rx_dropped_before = io.rx_dropped;
	if (host->plugin.ops->stats) {
		host->plugin.ops->stats(host->stack, &stack);
		host->shared->memory_bytes = stack.memory;
	}
}

static void turn(struct host *host, uint64_t sleep_ns)
{
	bool worked = wait_for_events(host, sleep_ns) > 0;

	worked |= link_receive(&host->link) > 0;
	worked |= relay_run(host->relay);
	host->tick_at = host->plugin.ops->tick(host->stack, host->now);
	worked |= relay_run(host->relay); /* what the tick said */
	link_flush(&host->link);
	if (host->now >= host->next_upkeep)
		upkeep(host);
	if (worked)
		host->worked_at = host->now;
}

/* What waits for the next turn, frames too, ends its sleep; so this is only about how soon it is
 * seen. While it finds nothing to do it lets others run who want its processor. */
static uint64_t sleep_before(const struct host *host)
{
	const uint64_t idle = host->now - host->worked_at;

	if (idle == 0 || host->tick_at <= host->now)
		return 0;
	if (host->given.params.poll == DMM_POLL_BUSY || idle < SPIN) {
		sched_yield();
		return 0;
	}
	return DMM_MIN(host->tick_at - host->now, MAX_SLEEP);
}

/* Drained: no application is served any more, and the wire is done with the last connections or has
 * had its time for it. */
static bool is_drained(struct host *host)
{
	if (!host->draining || relay_active(host->relay) > 0)
		return false;
	if (!host->stop_at)
		host->stop_at = host->now + DRAIN_LINGER;
	return relay_closing(host->relay) == 0 || host->now >= host->stop_at;
}

int host_run(struct host *host)
{
	while (!host->error && !host->stopping && !is_drained(host))
		turn(host, sleep_before(host));
	return host->error;
}
