/* SPDX-License-Identifier: Apache-2.0 */
/* Sweeps what sockets leave behind: flow entries closed for a while, and the flow and tuple entries of
 * sockets that went without a word (their hooks were detached meanwhile). Such a socket is missed by
 * its cookie or, on the relay leg, its addresses. Relay legs are in this network namespace; what stays
 * in the kernel may be in any, whatever its reason: the hooks ask for the namespace only where a rule
 * names a stack. So the others are searched, too, before such an entry is given up. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/socket.h>

#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>

#include "base/clock.h"
#include "base/netlink.h"
#include "base/netns.h"
#include "base/util.h"
#include "steer/steer_internal.h"

/* --- sets of map keys --- */

struct set {
	size_t size; /* of an item */
	size_t n;
	char *items; /* ordered after sort() */
};

static int add(struct set *set, const void *item)
{
	if ((set->n & (set->n - 1)) == 0) {
		char *more = reallocarray(set->items, set->n ? set->n * 2 : 1, set->size);

		if (!more)
			return -ENOMEM;
		set->items = more;
	}
	memcpy(set->items + set->n++ * set->size, item, set->size);
	return 0;
}

static int compare(const void *a, const void *b, void *size)
{
	return memcmp(a, b, *(size_t *)size);
}

static void sort(struct set *set)
{
	if (set->n)
		qsort_r(set->items, set->n, set->size, compare, &set->size);
}

static bool has(const struct set *set, const void *item)
{
	size_t first = 0, end = set->n;

	while (first < end) {
		size_t middle = first + (end - first) / 2;
		int c = memcmp(item, set->items + middle * set->size, set->size);

		if (c == 0)
			return true;
		if (c < 0)
			end = middle;
		else
			first = middle + 1;
	}
	return false;
}

/* Takes out of @set what @other has. */
static void subtract(struct set *set, const struct set *other)
{
	size_t i, n = 0;

	for (i = 0; i < set->n; i++) {
		const char *item = set->items + i * set->size;

		if (!has(other, item))
			memmove(set->items + n++ * set->size, item, set->size);
	}
	set->n = n;
}

/* --- living sockets --- */

struct living {
	struct set cookies, tuples;
};

static void set_addr(__u8 ret[16], int family, const __be32 addr[4])
{
	static const __u8 mapped[12] = { [10] = 0xff, [11] = 0xff };

	if (family == AF_INET6) {
		memcpy(ret, addr, 16);
		return;
	}
	memcpy(ret, mapped, sizeof(mapped));
	memcpy(ret + sizeof(mapped), addr, 4);
}

static int on_socket(const struct nlmsghdr *nlh, void *data)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	const struct inet_diag_sockid *id = &msg->id;
	uint64_t cookie = (uint64_t)id->idiag_cookie[1] << 32 | id->idiag_cookie[0];
	struct dmm_tuple tuple = { .app_port = id->idiag_sport, .relay_port = id->idiag_dport };
	struct living *living = data;

	set_addr(tuple.app, msg->idiag_family, id->idiag_src);
	set_addr(tuple.relay, msg->idiag_family, id->idiag_dst);
	return add(&living->cookies, &cookie) < 0 || add(&living->tuples, &tuple) < 0 ? MNL_CB_ERROR
										      : MNL_CB_OK;
}

static int add_sockets(struct mnl_socket *nl, struct living *living)
{
	int r = dmm_netlink_tcp_sockets(nl, AF_INET, UINT32_MAX, 0, on_socket, living);

	if (r == 0)
		r = dmm_netlink_tcp_sockets(nl, AF_INET6, UINT32_MAX, 0, on_socket, living);
	mnl_socket_close(nl);
	sort(&living->cookies);
	sort(&living->tuples);
	return r;
}

static int look_here(struct living *living)
{
	struct mnl_socket *nl = NULL;
	int r = dmm_netlink_open(NETLINK_SOCK_DIAG, &nl);

	return r < 0 ? r : add_sockets(nl, living);
}

static int look_there(void *ctx, int netns, const char *name)
{
	int fd = dmm_netns_socket(netns, AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG);
	struct mnl_socket *nl;

	(void)name;
	if (fd < 0)
		return fd;
	nl = mnl_socket_fdopen(fd);
	if (!nl) {
		close(fd);
		return -ENOMEM;
	}
	return add_sockets(nl, ctx);
}

/* --- the sweep --- */

struct sweep {
	uint64_t now, age;
	struct set closed;
	struct set tuples, steered, others; /* whose sockets are looked for */
};

static int on_tuple(void *ctx, const void *key, const void *value)
{
	(void)value;
	return add(&((struct sweep *)ctx)->tuples, key);
}

static int on_flow(void *ctx, const void *key, const void *value)
{
	const struct dmm_flow *flow = value;
	struct sweep *s = ctx;

	if ((flow->closed_ns ? flow->closed_ns : flow->opened_ns) + s->age > s->now)
		return 0;
	if (flow->closed_ns)
		return add(&s->closed, key);
	if (flow->proto != DMM_PROTO_TCP)
		return 0;
	return add(flow->verdict == DMM_VERDICT_USERSPACE ? &s->steered : &s->others, key);
}

static void erase(int map, const struct set *keys)
{
	for (size_t i = 0; i < keys->n; i++)
		bpf_map_delete_elem(map, keys->items + i * keys->size); /* may be gone by itself */
}

/* Those of @s that no socket stands for any more are left in it. */
static int miss_sockets(struct sweep *s)
{
	struct living living = { .cookies.size = sizeof(__u64),
				 .tuples.size = sizeof(struct dmm_tuple) };
	int r = look_here(&living);

	if (r == 0) {
		subtract(&s->tuples, &living.tuples);
		subtract(&s->steered, &living.cookies);
		subtract(&s->others, &living.cookies);
		/* Not knowing is no reason to forget. */
		if (s->others.n && dmm_netns_each(look_there, &living) < 0)
			s->others.n = 0;
		subtract(&s->others, &living.cookies);
	}
	free(living.cookies.items);
	free(living.tuples.items);
	return r;
}

/* Sockets are looked for at most once in @s->age: that takes long where there are many. */
static int sweep_open(struct dmm_steer *steer, struct sweep *s)
{
	int r = 0;

	if (s->now - steer->looked_ns < s->age)
		return 0;
	steer->looked_ns = s->now;
	if (s->tuples.n || s->steered.n || s->others.n)
		r = miss_sockets(s);
	if (r < 0)
		return r;
	erase(steer->map[DMM_MAP_tuples], &s->tuples);
	erase(steer->map[DMM_MAP_flows], &s->steered);
	erase(steer->map[DMM_MAP_flows], &s->others);
	return 0;
}

int dmm_steer_sweep_flows(struct dmm_steer *steer, uint64_t age_ns)
{
	struct sweep s = { .now = dmm_now_ns(),
			   .age = age_ns,
			   .closed.size = sizeof(__u64),
			   .tuples.size = sizeof(struct dmm_tuple),
			   .steered.size = sizeof(__u64),
			   .others.size = sizeof(__u64) };
	/* Tuples have no age, but each is of a socket that is there already: so they are listed first
	 * and sockets after them. */
	int r = dmm_map_each(steer->map[DMM_MAP_tuples], sizeof(struct dmm_tuple),
			     sizeof(struct dmm_peer), on_tuple, &s);

	if (r == 0)
		r = dmm_map_each(steer->map[DMM_MAP_flows], sizeof(__u64), sizeof(struct dmm_flow),
				 on_flow, &s);
	if (r == 0) {
		erase(steer->map[DMM_MAP_flows], &s.closed);
		r = sweep_open(steer, &s);
	}
	free(s.closed.items);
	free(s.tuples.items);
	free(s.steered.items);
	free(s.others.items);
	return r < 0 ? dmm_steer_fail(r, NULL, "cannot sweep the flow list") : 0;
}
