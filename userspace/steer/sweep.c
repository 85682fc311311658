/* SPDX-License-Identifier: Apache-2.0 */
/* Sweeps what sockets leave behind: the tuples of relay legs that went without a word, since their hooks
 * were detached meanwhile. Relay legs are in this network namespace. */
#define _GNU_SOURCE
#include <errno.h>

#include <linux/inet_diag.h>

#include "base/netlink.h"
#include "base/util.h"
#include "steer/steer_internal.h"

/* --- a set of tuples --- */

struct set {
	size_t n;
	struct dmm_tuple *items; /* of the living ones in order */
};

static int add(struct set *set, const struct dmm_tuple *tuple)
{
	struct dmm_tuple *more = dmm_room_for_one(set->items, set->n, sizeof(*more));

	if (!more)
		return -ENOMEM;
	set->items = more;
	set->items[set->n++] = *tuple;
	return 0;
}

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct dmm_tuple));
}

static bool has(const struct set *set, const struct dmm_tuple *tuple)
{
	return set->n && bsearch(tuple, set->items, set->n, sizeof(*tuple), compare);
}

/* --- living sockets --- */

static int on_socket(const struct nlmsghdr *nlh, void *living)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	const struct inet_diag_sockid *id = &msg->id;
	struct dmm_tuple tuple = { .app_port = id->idiag_sport, .relay_port = id->idiag_dport };

	dmm_netlink_addr(tuple.app, msg->idiag_family, id->idiag_src);
	dmm_netlink_addr(tuple.relay, msg->idiag_family, id->idiag_dst);
	return add(living, &tuple) < 0 ? MNL_CB_ERROR : MNL_CB_OK;
}

static int find_living(struct set *living)
{
	int r = dmm_netlink_tcp_sockets(UINT32_MAX, on_socket, living);

	if (living->n)
		qsort(living->items, living->n, sizeof(*living->items), compare);
	return r;
}

/* --- the sweep --- */

static int on_tuple(void *ctx, const void *key, const void *value)
{
	(void)value;
	return add(ctx, key);
}

/* The sockets are read after the tuples: each tuple is of a socket that was there already. */
static int sweep(int map, struct set *tuples, struct set *living)
{
	int r = dmm_map_each(map, sizeof(struct dmm_tuple), sizeof(struct dmm_peer), on_tuple,
			     tuples);

	if (r == 0 && tuples->n)
		r = find_living(living);
	for (size_t i = 0; i < tuples->n && r == 0; i++)
		if (!has(living, &tuples->items[i]))
			bpf_map_delete_elem(map, &tuples->items[i]); /* may be gone by itself */
	return r;
}

int dmm_steer_sweep(struct dmm_steer *steer)
{
	struct set tuples = {}, living = {};
	int r = sweep(steer->map[DMM_MAP_tuples], &tuples, &living);

	free(tuples.items);
	free(living.items);
	if (r < 0)
		return dmm_steer_fail(r, NULL, "cannot sweep relay legs");
	r = dmm_sweep_servers(steer);
	return r < 0 ? dmm_steer_fail(r, NULL, "cannot sweep listeners") : 0;
}
