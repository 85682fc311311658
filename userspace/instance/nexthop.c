/* SPDX-License-Identifier: Apache-2.0 */
/* Next hops: the cache on the packet path, and what waits for the kernel to resolve.
 * #syscalls sendto close */
#include "instance/nexthop.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/util.h"
#include "base/packet.h"

#define DISCARD_PORT  9
#define ASK_EVERY     DMM_NS_PER_SEC	    /* while unresolved */
#define CONFIRM_EVERY (10 * DMM_NS_PER_SEC) /* while stale and in use */
#define GIVE_UP	      (5 * DMM_NS_PER_SEC)  /* the kernel takes 3 s */

void nexthop_open(struct nexthops *nh, struct mirror *mirror, int probe4, int probe6,
		  const struct nexthop_events *events)
{
	memset(nh, 0, sizeof(*nh));
	nh->mirror = mirror;
	nh->events = *events;
	nh->generation = 1;
	nh->probe4 = probe4;
	nh->probe6 = probe6;
}

/* The kernel resolves whom it has to send to; what it sends is an empty datagram. That it may refuse
 * (EHOSTUNREACH, a firewall) shows as a neighbour that does not get resolved. */
static void ask_kernel(struct nexthops *nh, struct neighbour *n, uint64_t now)
{
	struct sockaddr_in6 to6 = {
		.sin6_family = AF_INET6,
		.sin6_port = htons(DISCARD_PORT),
		.sin6_scope_id = nh->mirror->ifindex,
	};
	struct sockaddr_in to4 = { .sin_family = AF_INET, .sin_port = htons(DISCARD_PORT) };

	n->asked_ns = now;
	if (addr_is_v4(n->addr)) {
		memcpy(&to4.sin_addr, n->addr + 12, 4);
		(void)!sendto(nh->probe4, "", 0, 0, (struct sockaddr *)&to4, sizeof(to4));
	} else {
		memcpy(&to6.sin6_addr, n->addr, 16);
		(void)!sendto(nh->probe6, "", 0, 0, (struct sockaddr *)&to6, sizeof(to6));
	}
}

/* --- neighbours --- */

static uint16_t *hash_of(struct nexthops *nh, const uint8_t addr[16])
{
	return &nh->hash[addr_hash(addr) % NEXTHOP_MAX];
}

static struct neighbour *find_neighbour(struct nexthops *nh, const uint8_t addr[16])
{
	uint16_t i;

	for (i = *hash_of(nh, addr); i; i = nh->neighbours[i - 1].next)
		if (memcmp(nh->neighbours[i - 1].addr, addr, 16) == 0)
			return &nh->neighbours[i - 1];
	return NULL;
}

static void drop_held(struct nexthops *nh, struct neighbour *n)
{
	n->waiting_since_ns = 0;
	if (n->n_held)
		nh->events.dropped(nh->events.ctx, n);
	n->n_held = 0;
}

static void fail(struct nexthops *nh, struct neighbour *n)
{
	n->valid = false;
	drop_held(nh, n);
	nh->events.failed(nh->events.ctx, n);
}

static void resolve(struct nexthops *nh, struct neighbour *n)
{
	n->waiting_since_ns = 0;
	if (n->n_held)
		nh->events.resolved(nh->events.ctx, n);
	n->n_held = 0;
}

static void learn(struct nexthops *nh, struct neighbour *n, const struct mirror_neighbour *seen)
{
	bool was_valid = n->valid;

	n->valid = seen->reach == MIRROR_FRESH || seen->reach == MIRROR_STALE;
	n->stale = seen->reach == MIRROR_STALE;
	if (n->valid) {
		memcpy(n->mac, seen->mac, sizeof(n->mac));
		resolve(nh, n);
	} else if (seen->reach == MIRROR_FAILED) {
		fail(nh, n);
	} else if (was_valid) {
		n->asked_ns = 0; /* forgotten by the kernel: ask with the next frame */
	}
}

void nexthop_forget(struct nexthops *nh)
{
	uint32_t i;

	for (i = 0; i < nh->n_neighbours; i++)
		drop_held(nh, &nh->neighbours[i]);
	memset(nh->hash, 0, sizeof(nh->hash));
	nh->n_neighbours = 0;
	nh->generation++;
}

static struct neighbour *add_neighbour(struct nexthops *nh, const uint8_t addr[16])
{
	struct mirror_neighbour seen;
	struct neighbour *n;
	uint16_t *head;

	if (nh->n_neighbours == NEXTHOP_MAX)
		nexthop_forget(nh); /* rare: more than a thousand next hops on one link */
	head = hash_of(nh, addr);
	n = &nh->neighbours[nh->n_neighbours++];
	*n = (struct neighbour){ .next = *head };
	memcpy(n->addr, addr, 16);
	*head = nh->n_neighbours;
	mirror_neighbour(nh->mirror, addr, &seen);
	if (seen.reach != MIRROR_FAILED) /* that was before: it gets a new chance */
		learn(nh, n, &seen);
	return n;
}

/* --- the packet path --- */

/* What the routing tables say holds until they change; that the kernel was busy does not. */
static bool is_lasting(int err)
{
	return err == 0 || err == -ENETUNREACH || err == -EHOSTUNREACH || err == -EACCES;
}

static void look_up(struct nexthops *nh, struct nexthop_route *route, const uint8_t dst[16],
		    const uint8_t src[16])
{
	uint8_t hop[16];
	struct neighbour *n = NULL;
	int r;

	r = mirror_route(nh->mirror, dst, src, hop);
	if (r == 0) {
		n = find_neighbour(nh, hop);
		if (!n)
			n = add_neighbour(nh, hop);
	}
	memcpy(route->dst, dst, 16);
	memcpy(route->src, src, 16);
	route->err = r;
	route->neighbour = n;
	route->generation = is_lasting(r) ? nh->generation : 0;
}

struct neighbour *nexthop_find(struct nexthops *nh, const uint8_t dst[16], const uint8_t src[16],
			       uint64_t now, int *reterr_err)
{
	struct nexthop_route *route = &nh->cache[addr_hash(dst) % NEXTHOP_CACHE];
	struct neighbour *n;

	if (route->generation != nh->generation || memcmp(route->dst, dst, 16) ||
	    memcmp(route->src, src, 16))
		look_up(nh, route, dst, src);
	n = route->neighbour;
	if (!n) {
		*reterr_err = route->err;
		return NULL;
	}
	if (n->valid ? n->stale && now - n->asked_ns >= CONFIRM_EVERY
		     : now - n->asked_ns >= ASK_EVERY)
		ask_kernel(nh, n, now);
	return n;
}

bool nexthop_hold(struct neighbour *n, const struct dmm_frame *frame, uint64_t now,
		  struct dmm_frame *ret_dropped)
{
	bool full = n->n_held == NEXTHOP_HELD;

	if (full) {
		*ret_dropped = n->held[0];
		memmove(n->held, n->held + 1, --n->n_held * sizeof(n->held[0]));
	}
	n->held[n->n_held++] = *frame;
	if (!n->waiting_since_ns)
		n->waiting_since_ns = now;
	return full;
}

/* --- upkeep --- */

void nexthop_tick(struct nexthops *nh, uint64_t now)
{
	uint32_t i;

	for (i = 0; i < nh->n_neighbours; i++) {
		struct neighbour *n = &nh->neighbours[i];

		if (n->waiting_since_ns && now - n->waiting_since_ns >= GIVE_UP)
			fail(nh, n);
	}
}

void nexthop_on_neighbour(struct nexthops *nh, const struct mirror_neighbour *seen)
{
	struct neighbour *n = find_neighbour(nh, seen->addr);

	if (n)
		learn(nh, n, seen);
}

void nexthop_on_routes(struct nexthops *nh)
{
	nh->generation++;
}

void nexthop_on_lost(struct nexthops *nh)
{
	uint32_t i;

	for (i = 0; i < nh->n_neighbours; i++) {
		struct mirror_neighbour seen;

		mirror_neighbour(nh->mirror, nh->neighbours[i].addr, &seen);
		learn(nh, &nh->neighbours[i], &seen);
	}
	nh->generation++;
}

void nexthop_close(struct nexthops *nh)
{
	nexthop_forget(nh);
	close(nh->probe4);
	if (nh->probe6 >= 0)
		close(nh->probe6);
}
