/* SPDX-License-Identifier: Apache-2.0 */
/* The namespace's addresses and routes, mirrored into dmm_local and dmm_routes.
 *
 * Any notification leads to a new picture and to the difference being written: the kernel does not
 * announce every route it drops (IPv4, with an interface or an address), so the single messages
 * could not be trusted to add up. Entries that stay are never absent, not even for a moment: what is
 * new or changed is written over, then what is gone is deleted. */
#include <errno.h>
#include <net/if.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>

#include "base/util.h"
#include "steer/mirror_internal.h"
#include "steer/steer_internal.h"

#define MAX_KEY	  sizeof(struct dmm_route_key)
#define MAX_VALUE sizeof(struct dmm_route)
#define ATTEMPTS  10

struct entry {
	uint8_t key[MAX_KEY] __attribute__((aligned(4)));
	uint32_t rank;	/* of equal keys the lowest wins, */
	uint32_t order; /* then the first */
	uint8_t value[MAX_VALUE];
};

struct list {
	struct entry *items;
	size_t n;
};

struct target {
	int map;
	size_t key_size, value_size;
	size_t room;	  /* entries that the map may hold */
	struct list have; /* what the map holds, sorted */
	bool known;	  /* have is true */
};

struct dmm_mirror {
	struct mnl_socket *events;
	struct target local, routes;
	int bits;	   /* the map dmm_local_bits */
	char problem[256]; /* why the maps are not what they should be, "": they are */
};

/* --- lists --- */

static int add(struct list *list, const void *key, size_t key_size, uint32_t rank,
	       const void *value, size_t value_size)
{
	struct entry *e = dmm_room_for_one(list->items, list->n, sizeof(*e));

	if (!e)
		return -ENOMEM;
	list->items = e;
	e = &list->items[list->n];
	memset(e, 0, sizeof(*e));
	memcpy(e->key, key, key_size);
	memcpy(e->value, value, value_size);
	e->rank = rank;
	e->order = list->n++;
	return 0;
}

static int compare(const void *pa, const void *pb)
{
	const struct entry *a = pa, *b = pb;
	int c = memcmp(a->key, b->key, sizeof(a->key));

	if (c)
		return c;
	if (a->rank != b->rank)
		return a->rank < b->rank ? -1 : 1;
	return a->order < b->order ? -1 : a->order > b->order;
}

/* Sorts, and keeps the best of equal keys. */
static void settle(struct list *list)
{
	size_t i, n = 0;

	if (list->n)
		qsort(list->items, list->n, sizeof(*list->items), compare);
	for (i = 0; i < list->n; i++)
		if (n == 0 || memcmp(list->items[n - 1].key, list->items[i].key, MAX_KEY) != 0)
			list->items[n++] = list->items[i];
	list->n = n;
}

/* --- picture -> what the maps should hold --- */

enum local_rank { RANK_ADDRESS, RANK_LOCAL_ROUTE, RANK_OTHER };

static int add_local(struct list *list, const uint8_t addr[16], uint32_t ifindex, uint32_t flags,
		     enum local_rank rank)
{
	struct dmm_local value = { .ifindex = ifindex, .flags = flags };

	return add(list, addr, 16, rank, &value, sizeof(value));
}

/* The local table also knows broadcast and anycast addresses, and single ones routed to lo. */
static int want_local(const struct dmm_mirror_picture *p, struct list *ret)
{
	size_t i;
	int r = 0;

	for (i = 0; i < p->n_addrs && r == 0; i++)
		r = add_local(ret, p->addrs[i].addr, p->addrs[i].ifindex, DMM_LOCAL_UNICAST,
			      RANK_ADDRESS);
	for (i = 0; i < p->n_locals && r == 0; i++) {
		const struct dmm_mirror_route *l = &p->locals[i];

		if (l->len != 128)
			continue;
		if (l->type == RTN_LOCAL)
			r = add_local(ret, l->dst, l->ifindex, DMM_LOCAL_UNICAST, RANK_LOCAL_ROUTE);
		else if (l->type == RTN_BROADCAST || l->type == RTN_ANYCAST)
			r = add_local(ret, l->dst, l->ifindex, DMM_LOCAL_OTHER, RANK_OTHER);
	}
	settle(ret);
	return r;
}

static int add_route(struct list *list, const struct dmm_mirror_picture *p,
		     const struct dmm_mirror_route *r, uint32_t ifindex, uint32_t rank)
{
	struct dmm_route_key key = { .prefixlen = r->len };
	struct dmm_route value = { .ifindex = ifindex };

	memcpy(key.addr, r->dst, 16);
	if (ifindex)
		value.has_source = dmm_mirror_source(p, r, value.source);
	return add(list, &key, sizeof(key), rank, &value, sizeof(value));
}

/* Hosts with global and unique local addresses choose between them by destination (RFC 6724, labels):
 * so the default route is split where that choice turns. A real route for it wins. */
static int split_default(struct list *list, const struct dmm_mirror_picture *p,
			 const struct dmm_mirror_route *r)
{
	struct dmm_mirror_route unique_local = *r;

	if (!r->v6 || r->len != 0)
		return 0;
	unique_local.dst[0] = 0xfc;
	unique_local.len = 7;
	return add_route(list, p, &unique_local, r->ifindex, r->metric | 1u << 31);
}

/* Whole local prefixes (127.0.0.0/8) leave by lo, before the main table is asked. Unreachable,
 * prohibit, blackhole, throw: no interface. */
static int want_routes(const struct dmm_mirror_picture *p, struct list *ret)
{
	/* Mapped addresses must not find the IPv6 default route where IPv4 has none. */
	static const struct dmm_mirror_route no_v4 = { .dst = { [10] = 0xff, 0xff }, .len = 96 };
	size_t i;
	int r = add_route(ret, p, &no_v4, 0, UINT32_MAX);

	for (i = 0; i < p->n_locals && r == 0; i++)
		if (p->locals[i].type == RTN_LOCAL && p->locals[i].len < 128)
			r = add_route(ret, p, &p->locals[i], p->locals[i].ifindex, 0);
	for (i = 0; i < p->n_routes && r == 0; i++) {
		bool out = p->routes[i].type == RTN_UNICAST || p->routes[i].type == RTN_LOCAL;

		r = add_route(ret, p, &p->routes[i], out ? p->routes[i].ifindex : 0,
			      p->routes[i].metric);
		if (r == 0 && out)
			r = split_default(ret, p, &p->routes[i]);
	}
	settle(ret);
	return r;
}

/* use_tempaddr of each interface that has temporary addresses (RFC 4941). */
static void read_preferences(struct dmm_mirror_picture *p)
{
	size_t i;

	for (i = 0; i < p->n_addrs; i++) {
		char name[IF_NAMESIZE], path[128];
		int use = 0;
		FILE *f;

		if (!p->addrs[i].v6 || !if_indextoname(p->addrs[i].ifindex, name))
			continue;
		snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/use_tempaddr", name);
		f = fopen(path, "re");
		if (!f)
			continue;
		if (fscanf(f, "%d", &use) == 1)
			p->addrs[i].prefer_temporary = use >= 2;
		fclose(f);
	}
}

/* --- maps --- */

/* Of a dmmd before us. Nobody else writes these maps, so the keys do not move under the loop. */
static int read_map(struct target *t)
{
	uint8_t key[MAX_KEY], value[MAX_VALUE];
	bool first = true;
	int r;

	t->have.n = 0;
	while ((r = bpf_map_get_next_key(t->map, first ? NULL : key, key)) == 0) {
		first = false;
		r = bpf_map_lookup_elem(t->map, key, value);
		if (r == 0)
			r = add(&t->have, key, t->key_size, 0, value, t->value_size);
		if (r < 0)
			return r;
	}
	if (r != -ENOENT)
		return r;
	settle(&t->have);
	t->known = true;
	return 0;
}

static int compare_keys(const struct entry *a, const struct entry *b)
{
	if (!a || !b)
		return a ? -1 : 1;
	return memcmp(a->key, b->key, sizeof(a->key));
}

enum pass {
	PASS_WRITE, /* what @want has new or changed */
	PASS_ERASE, /* what it lacks */
};

/* Walks both sorted lists side by side. */
static int difference(struct target *t, const struct list *want, enum pass pass)
{
	size_t h = 0, w = 0;
	int r = 0;

	while (r == 0 && (h < t->have.n || w < want->n)) {
		const struct entry *a = h < t->have.n ? &t->have.items[h] : NULL;
		const struct entry *b = w < want->n ? &want->items[w] : NULL;
		int c = compare_keys(a, b);

		if (c < 0 && pass == PASS_ERASE)
			r = bpf_map_delete_elem(t->map, a->key);
		if (c > 0 && pass == PASS_WRITE)
			r = bpf_map_update_elem(t->map, b->key, b->value, BPF_ANY);
		if (c == 0 && pass == PASS_WRITE && memcmp(a->value, b->value, MAX_VALUE) != 0)
			r = bpf_map_update_elem(t->map, b->key, b->value, BPF_ANY);
		h += c <= 0;
		w += c >= 0;
	}
	return r;
}

/* The map := @want, which is taken. */
static int sync_map(struct target *t, struct list *want)
{
	int r = t->known ? 0 : read_map(t);

	if (r < 0)
		return r;
	t->known = false;
	r = difference(t, want, PASS_WRITE);
	if (r == 0)
		r = difference(t, want, PASS_ERASE);
	if (r < 0)
		return r;
	free(t->have.items);
	t->have = *want;
	t->known = true;
	*want = (struct list){};
	return 0;
}

static void add_to_bits(struct dmm_local_bits *bits, const struct list *list)
{
	for (size_t i = 0; i < list->n; i++) {
		__u32 n = DMM_LOCAL_BIT(list->items[i].key);

		bits->word[n / 64] |= 1ull << (n % 64);
	}
}

static int write_bits(struct dmm_mirror *m, const struct list *want)
{
	struct dmm_local_bits bits = {};
	__u32 zero = 0;

	add_to_bits(&bits, &m->local.have);
	add_to_bits(&bits, want);
	return bpf_map_update_elem(m->bits, &zero, &bits, BPF_ANY);
}

/* While addresses change, the bits let those before and those after through. */
static int sync_local(struct dmm_mirror *m, struct list *want)
{
	int r = m->local.known ? 0 : read_map(&m->local);

	if (r == 0)
		r = write_bits(m, want);
	if (r == 0)
		r = sync_map(&m->local, want);
	return r == 0 ? write_bits(m, want) : r;
}

/* A part of the routes would send some destinations the wrong way. Without any, nothing new is steered;
 * flows keep their addresses. */
static int give_up(struct dmm_mirror *m)
{
	struct list none = {};
	int r = sync_map(&m->routes, &none);

	free(none.items);
	return r < 0 ? r : -E2BIG;
}

static int sync_picture(struct dmm_mirror *m, struct dmm_mirror_picture *picture)
{
	struct list local = {}, routes = {};
	int r;

	read_preferences(picture);
	r = want_local(picture, &local);
	if (r == 0)
		r = want_routes(picture, &routes);
	if (r == 0 && (local.n > m->local.room || routes.n > m->routes.room))
		r = give_up(m);
	if (r == 0)
		r = sync_local(m, &local);
	if (r == 0)
		r = sync_map(&m->routes, &routes);
	free(local.items);
	free(routes.items);
	return r;
}

static int read_room(struct target *t)
{
	struct bpf_map_info info = {};
	uint32_t len = sizeof(info);
	int r = bpf_obj_get_info_by_fd(t->map, &info, &len);

	t->room = info.max_entries;
	return r < 0 ? dmm_steer_fail(r, NULL, "cannot ask a map for its size") : 0;
}

static int try_sync(struct dmm_mirror *m)
{
	struct dmm_mirror_picture picture = {};
	int r = -EAGAIN, attempt;

	for (attempt = 0; attempt < ATTEMPTS && r == -EAGAIN; attempt++)
		r = dmm_mirror_picture_take(&picture);
	if (r == -EAGAIN)
		return r;
	if (r < 0)
		return dmm_steer_fail(r, NULL, "cannot read addresses and routes");
	r = sync_picture(m, &picture);
	dmm_mirror_picture_free(&picture);
	if (r == -E2BIG)
		return dmm_steer_refuse(-E2BIG, "nothing new is steered until there are fewer",
					"this namespace has more addresses (%zu at most) or routes "
					"(%zu) than are mirrored",
					m->local.room, m->routes.room);
	return r < 0 ? dmm_steer_fail(r, NULL, "cannot write the mirrored addresses and routes")
		     : 0;
}

static int resync(struct dmm_mirror *m)
{
	int r = try_sync(m);
	const char *why = r < 0 ? dmm_steer_reason() : "";

	if (r == -EAGAIN) /* it changes all the while: then more is waiting already */
		return 0;
	snprintf(m->problem, sizeof(m->problem), "%.*s", (int)strcspn(why, "\n"), why);
	return r;
}

/* --- events --- */

static int listen_events(struct dmm_mirror *m)
{
	unsigned int groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR |
			      RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;

	m->events = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!m->events || mnl_socket_bind(m->events, groups, MNL_SOCKET_AUTOPID) < 0)
		return dmm_steer_fail(-errno, NULL, "cannot listen to netlink");
	return 0;
}

/* How many messages were waiting; an overrun counts, too: the picture is taken anew in any case. */
static unsigned int drain(struct dmm_mirror *m)
{
	char buf[32768];
	unsigned int n = 0;

	for (;;) {
		if (mnl_socket_recvfrom(m->events, buf, sizeof(buf)) >= 0 || errno == ENOSPC ||
		    errno == ENOBUFS)
			n++;
		else if (errno != EINTR)
			return n;
	}
}

int dmm_mirror_run(struct dmm_mirror *mirror)
{
	return drain(mirror) || mirror->problem[0] ? resync(mirror) : 0;
}

const char *dmm_mirror_problem(const struct dmm_mirror *mirror)
{
	return mirror->problem;
}

int dmm_mirror_fd(struct dmm_mirror *mirror)
{
	return mnl_socket_get_fd(mirror->events);
}

int dmm_mirror_open(int local_map, int bits_map, int routes_map, struct dmm_mirror **ret)
{
	struct dmm_mirror *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return -ENOMEM;
	m->bits = bits_map;
	m->local = (struct target){
		.map = local_map,
		.key_size = sizeof(struct dmm_addr),
		.value_size = sizeof(struct dmm_local),
	};
	m->routes = (struct target){
		.map = routes_map,
		.key_size = sizeof(struct dmm_route_key),
		.value_size = sizeof(struct dmm_route),
	};
	r = read_room(&m->local);
	if (r == 0)
		r = read_room(&m->routes);
	if (r == 0)
		r = listen_events(m); /* before the picture: nothing in between is missed */
	if (r == 0)
		r = resync(m);
	if (r < 0 && r != -E2BIG) {
		dmm_mirror_close(m);
		return r;
	}
	*ret = m;
	return 0;
}

void dmm_mirror_close(struct dmm_mirror *mirror)
{
	if (!mirror)
		return;
	if (mirror->events)
		mnl_socket_close(mirror->events);
	free(mirror->local.have.items);
	free(mirror->routes.have.items);
	free(mirror);
}
