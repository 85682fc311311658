// SPDX-License-Identifier: Apache-2.0
/* Which connection or listener a segment belongs to: hash tables keyed by a secret, so that nobody
 * outside can pick ends that collide. */
#include <string.h>

#include "net/hash.h"
#include "net/net_internal.h"

uint64_t net_tuple_hash(const uint64_t key[2], const struct dmm_endpoint *local,
			const struct dmm_endpoint *remote, uint64_t more)
{
	uint8_t data[44];

	memcpy(data, local->addr, 16);
	memcpy(data + 16, remote->addr, 16);
	memcpy(data + 32, &local->port, 2);
	memcpy(data + 34, &remote->port, 2);
	memcpy(data + 36, &more, 8);
	return net_hash(key, data, sizeof(data));
}

bool net_same_end(const struct dmm_endpoint *a, const struct dmm_endpoint *b)
{
	return a->port == b->port && memcmp(a->addr, b->addr, 16) == 0;
}

/* Of IPv4 only what differs between addresses. */
static struct dmm_net_conn **bucket(const struct dmm_net *net, const struct dmm_endpoint *local,
				    const struct dmm_endpoint *remote)
{
	uint8_t data[12];
	uint64_t hash;

	if (!net_is_v4(local->addr)) {
		hash = net_tuple_hash(net->hash_key, local, remote, 0);
	} else {
		memcpy(data, local->addr + 12, 4);
		memcpy(data + 4, remote->addr + 12, 4);
		memcpy(data + 8, &local->port, 2);
		memcpy(data + 10, &remote->port, 2);
		hash = net_hash(net->hash_key, data, sizeof(data));
	}
	return &net->hash[hash & net->hash_mask];
}

void net_hash_add(struct dmm_net_conn *c)
{
	struct dmm_net_conn **list = bucket(c->net, &c->local, &c->remote);

	c->hash_next = *list;
	*list = c;
	c->hashed = true;
}

static void unlink_from(struct dmm_net_conn **list, struct dmm_net_conn *c)
{
	while (*list != c)
		list = &(*list)->hash_next;
	*list = c->hash_next;
	c->hashed = false;
}

void net_hash_remove(struct dmm_net_conn *c)
{
	unlink_from(bucket(c->net, &c->local, &c->remote), c);
	if (c->net->found == c)
		c->net->found = NULL;
}

static bool is_between(const struct dmm_net_conn *c, const struct dmm_endpoint *local,
		       const struct dmm_endpoint *remote)
{
	return net_same_end(&c->remote, remote) && net_same_end(&c->local, local);
}

struct dmm_net_conn *net_find(struct dmm_net *net, const struct dmm_endpoint *local,
			      const struct dmm_endpoint *remote)
{
	struct dmm_net_conn *c = net->found;

	/* segments come in trains */
	if (c && is_between(c, local, remote))
		return c;
	for (c = *bucket(net, local, remote); c; c = c->hash_next)
		if (is_between(c, local, remote))
			return net->found = c;
	return NULL;
}

static struct dmm_net_conn **listeners_of(const struct dmm_net *net, uint16_t port)
{
	return &net->listeners[net_hash(net->hash_key, &port, sizeof(port)) & net->hash_mask];
}

void net_listeners_add(struct dmm_net_conn *c)
{
	struct dmm_net_conn **list = listeners_of(c->net, c->local.port);

	c->hash_next = *list;
	*list = c;
}

void net_listeners_remove(struct dmm_net_conn *c)
{
	unlink_from(listeners_of(c->net, c->local.port), c);
}

bool net_is_any(const uint8_t addr[16])
{
	static const uint8_t zero[16];

	return memcmp(addr, zero, 16) == 0 || (net_is_v4(addr) && memcmp(addr + 12, zero, 4) == 0);
}

struct dmm_net_conn *net_find_listener(const struct dmm_net *net, const struct dmm_endpoint *local)
{
	struct dmm_net_conn *c, *any = NULL;

	for (c = *listeners_of(net, local->port); c; c = c->hash_next) {
		if (net_same_end(&c->local, local))
			return c;
		if (c->local.port == local->port && net_is_any(c->local.addr) &&
		    (c->v4 == net_is_v4(local->addr)))
			any = c;
	}
	return any;
}
