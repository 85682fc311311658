/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: descriptors and timers, one callback each. Callbacks may remove any source, their
 * own too, and free what it is embedded in. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#define dmmd_container(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

struct dmmd_source {
	int fd; /* -1: not in a loop */
	void (*ready)(struct dmmd_source *source, uint32_t events);
};

struct dmmd_loop {
	int epoll;
	bool stop; /* set it to make run() return */
	struct epoll_event batch[64];
	int n_batch; /* those of batch that still wait are nulled when their source is removed */
};

int dmmd_loop_init(struct dmmd_loop *loop);
void dmmd_loop_exit(struct dmmd_loop *loop);
/* Runs until stop is set; negative errno when epoll itself fails. */
int dmmd_loop_run(struct dmmd_loop *loop);

/* The descriptor goes over to @source on success; remove() closes it. */
int dmmd_source_add(struct dmmd_loop *loop, struct dmmd_source *source, int fd, uint32_t events,
		    void (*ready)(struct dmmd_source *source, uint32_t events));
int dmmd_source_events(struct dmmd_loop *loop, struct dmmd_source *source, uint32_t events);
void dmmd_source_remove(struct dmmd_loop *loop, struct dmmd_source *source);

struct dmmd_timer {
	struct dmmd_source source;
	void (*fired)(struct dmmd_timer *timer);
};

int dmmd_timer_init(struct dmmd_loop *loop, struct dmmd_timer *timer,
		    void (*fired)(struct dmmd_timer *timer));
/* Fires once after @ms; 0 disarms. */
void dmmd_timer_set(struct dmmd_timer *timer, uint64_t ms);
/* Fires every @ms. */
void dmmd_timer_every(struct dmmd_timer *timer, uint64_t ms);
void dmmd_timer_exit(struct dmmd_loop *loop, struct dmmd_timer *timer);
