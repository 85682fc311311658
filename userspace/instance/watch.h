/* SPDX-License-Identifier: Apache-2.0 */
/* What an event of the instance's one epoll set is about. */
#pragma once

#include <stdint.h>
#include <sys/epoll.h>

enum watch_kind {
	WATCH_IO,	/* frames wait; nothing to do but to look */
	WATCH_RING,	/* events from the BPF programs */
	WATCH_LISTENER, /* of the relay; index: family */
	WATCH_APP,	/* an application's connection; index: flow */
	WATCH_MIRROR,	/* netlink notifications */
	WATCH_MASTER,	/* the connection to dmmd */
	WATCH_ADOPT,	/* a new dmmd */
};

static inline struct epoll_event watch_event(uint32_t events, enum watch_kind kind, uint32_t index)
{
	return (struct epoll_event){ .events = events, .data.u64 = (uint64_t)kind << 32 | index };
}

static inline enum watch_kind watch_kind_of(const struct epoll_event *event)
{
	return event->data.u64 >> 32;
}

static inline uint32_t watch_index_of(const struct epoll_event *event)
{
	return (uint32_t)event->data.u64;
}
