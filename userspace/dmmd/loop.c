/* SPDX-License-Identifier: Apache-2.0 */
/* epoll and timerfd. */
#include "dmmd/loop.h"

#include <errno.h>
#include <sys/timerfd.h>

#include "base/clock.h"
#include "base/util.h"

int dmmd_loop_init(struct dmmd_loop *loop)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd < 0)
		return -errno;
	*loop = (struct dmmd_loop){ .epoll = fd };
	return 0;
}

void dmmd_loop_exit(struct dmmd_loop *loop)
{
	close(loop->epoll);
	loop->epoll = -1;
}

int dmmd_loop_run(struct dmmd_loop *loop)
{
	while (!loop->stop) {
		int n = epoll_wait(loop->epoll, loop->batch, DMM_ARRAY_SIZE(loop->batch), -1);

		if (n < 0 && errno != EINTR)
			return -errno;
		loop->n_batch = n < 0 ? 0 : n;
		for (int i = 0; i < loop->n_batch; i++) {
			struct dmmd_source *source = loop->batch[i].data.ptr;

			if (source)
				source->ready(source, loop->batch[i].events);
		}
		loop->n_batch = 0;
	}
	return 0;
}

int dmmd_source_add(struct dmmd_loop *loop, struct dmmd_source *source, int fd, uint32_t events,
		    void (*ready)(struct dmmd_source *source, uint32_t events))
{
	struct epoll_event ev = { .events = events, .data.ptr = source };

	if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	source->fd = fd;
	source->ready = ready;
	return 0;
}

int dmmd_source_events(struct dmmd_loop *loop, struct dmmd_source *source, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = source };

	return epoll_ctl(loop->epoll, EPOLL_CTL_MOD, source->fd, &ev) < 0 ? -errno : 0;
}

void dmmd_source_remove(struct dmmd_loop *loop, struct dmmd_source *source)
{
	if (source->fd < 0)
		return;
	epoll_ctl(loop->epoll, EPOLL_CTL_DEL, source->fd, NULL);
	close(source->fd);
	source->fd = -1;
	for (int i = 0; i < loop->n_batch; i++)
		if (loop->batch[i].data.ptr == source)
			loop->batch[i].data.ptr = NULL;
}

static void timer_ready(struct dmmd_source *source, uint32_t events)
{
	struct dmmd_timer *timer = dmmd_container(source, struct dmmd_timer, source);
	uint64_t times;

	(void)events;
	/* re-armed since the loop was told: nothing to read yet */
	if (read(source->fd, &times, sizeof(times)) != sizeof(times))
		return;
	timer->fired(timer);
}

int dmmd_timer_init(struct dmmd_loop *loop, struct dmmd_timer *timer,
		    void (*fired)(struct dmmd_timer *timer))
{
	dmm_autoclose int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	int r;

	if (fd < 0)
		return -errno;
	r = dmmd_source_add(loop, &timer->source, fd, EPOLLIN, timer_ready);
	if (r < 0)
		return r;
	timer->fired = fired;
	fd = -1;
	return 0;
}

static void set(struct dmmd_timer *timer, uint64_t first_ms, uint64_t then_ms)
{
	struct itimerspec its = {
		.it_value = { first_ms / 1000, (long)(first_ms % 1000 * DMM_NS_PER_MS) },
		.it_interval = { then_ms / 1000, (long)(then_ms % 1000 * DMM_NS_PER_MS) },
	};

	timerfd_settime(timer->source.fd, 0, &its, NULL); /* fails on bad arguments only */
}

void dmmd_timer_set(struct dmmd_timer *timer, uint64_t ms)
{
	set(timer, ms, 0);
}

void dmmd_timer_every(struct dmmd_timer *timer, uint64_t ms)
{
	set(timer, ms, ms);
}

void dmmd_timer_exit(struct dmmd_loop *loop, struct dmmd_timer *timer)
{
	dmmd_source_remove(loop, &timer->source);
}
