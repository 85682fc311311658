/* SPDX-License-Identifier: Apache-2.0 */
/* The flow list: open flows from the kernel's iterator over sockets, ended ones from the ring that the
 * hooks write. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/util.h"
#include "steer/steer_internal.h"
#include "steer/view_internal.h"

struct open_flows {
	struct dmm_flow *items; /* sorted by cookie, each once */
	size_t n;
};

static int by_cookie(const void *a, const void *b)
{
	const struct dmm_flow *x = a, *y = b;

	return x->cookie < y->cookie ? -1 : x->cookie > y->cookie;
}

/* The kernel finds its place again by counting: what begins while it is read makes it repeat a socket,
 * what ends may make it miss one. */
static void make_unique(struct open_flows *open)
{
	size_t n = 0;

	if (open->n)
		qsort(open->items, open->n, sizeof(*open->items), by_cookie);
	for (size_t i = 0; i < open->n; i++)
		if (n == 0 || open->items[n - 1].cookie != open->items[i].cookie)
			open->items[n++] = open->items[i];
	open->n = n;
}

static int read_all(int fd, struct open_flows *ret)
{
	size_t room = 0, bytes = 0;

	for (;;) {
		ssize_t n;

		if (room - bytes < sizeof(*ret->items)) {
			struct dmm_flow *more;

			room = room ? room * 2 : 256 * sizeof(*more);
			more = realloc(ret->items, room);
			if (!more)
				return -ENOMEM;
			ret->items = more;
		}
		n = read(fd, (char *)ret->items + bytes, room - bytes);
		if (n < 0 && errno != EINTR && errno != EAGAIN) /* EAGAIN: it has paused */
			return -errno;
		if (n == 0)
			break;
		if (n > 0)
			bytes += n;
	}
	ret->n = bytes / sizeof(*ret->items);
	make_unique(ret);
	return 0;
}

static int read_open(struct dmm_view *view, struct open_flows *ret)
{
	char path[DMM_PIN_PATH_LEN];
	dmm_autoclose int fd = -1;
	int r = dmm_pin_path(path, view->bpffs, "%s", DMM_FLOWS_PIN);

	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : read_all(fd, ret);
}

/* A copy of the entry, if it is whole and really @number's. */
static bool read_closed(const struct dmm_closed *ring, uint64_t number, struct dmm_flow *ret)
{
	const struct dmm_closed *entry = &ring[(number - 1) % DMM_MAX_CLOSED];

	if (__atomic_load_n(&entry->number, __ATOMIC_ACQUIRE) != number)
		return false;
	*ret = entry->flow;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return __atomic_load_n(&entry->number, __ATOMIC_RELAXED) == number;
}

static bool is_open(const struct open_flows *open, const struct dmm_flow *flow)
{
	const struct dmm_flow *found =
		open->n ? bsearch(flow, open->items, open->n, sizeof(*open->items), by_cookie)
			: NULL;

	return found && found->opened_ns == flow->opened_ns;
}

/* From the latest on backwards, as far as they are shown. What ended after @before was counted is
 * perhaps listed as open. */
static int each_closed(struct dmm_view *view, const struct open_flows *open, uint64_t before,
		       dmm_flow_fn *fn, void *ctx)
{
	uint64_t last = __atomic_load_n(view->n_closed, __ATOMIC_ACQUIRE), number,
		 now = dmm_now_ns();
	struct dmm_flow flow;

	for (number = last; number > 0 && last - number < DMM_MAX_CLOSED; number--) {
		int stop;

		if (!read_closed(view->closed, number, &flow) ||
		    (number > before && is_open(open, &flow)))
			continue;
		if (flow.closed_ns + DMM_CLOSED_SHOWN_NS < now)
			break;
		stop = fn(ctx, &flow);
		if (stop)
			return stop;
	}
	return 0;
}

static void *map_pages(int map, size_t size)
{
	void *page = mmap(NULL, size, PROT_READ, MAP_SHARED, map, 0);

	return page == MAP_FAILED ? NULL : page;
}

static int map_closed(struct dmm_view *view)
{
	if (!view->n_closed)
		view->n_closed = map_pages(view->map[DMM_MAP_n_closed], sizeof(*view->n_closed));
	if (view->n_closed && !view->closed)
		view->closed = map_pages(view->map[DMM_MAP_closed],
					 sizeof(*view->closed) * DMM_MAX_CLOSED);
	return view->closed ? 0 : -errno;
}

void dmm_view_unmap_closed(struct dmm_view *view)
{
	if (view->n_closed)
		munmap((void *)view->n_closed, sizeof(*view->n_closed));
	if (view->closed)
		munmap((void *)view->closed, sizeof(*view->closed) * DMM_MAX_CLOSED);
}

int dmm_view_flows(struct dmm_view *view, dmm_flow_fn *fn, void *ctx)
{
	struct open_flows open = {};
	uint64_t before;
	int r = map_closed(view);

	if (r < 0)
		return r;
	before = __atomic_load_n(view->n_closed, __ATOMIC_ACQUIRE);
	r = read_open(view, &open);
	for (size_t i = 0; i < open.n && r == 0; i++)
		r = fn(ctx, &open.items[i]);
	if (r == 0)
		r = each_closed(view, &open, before, fn, ctx);
	free(open.items);
	return r;
}
