/* SPDX-License-Identifier: Apache-2.0 */
/* Sweeps what servers leave behind: listeners that are gone, classes of cgroups that are, and the
 * instances that a port is said to have flows of but has none of any more. The hooks write all three while
 * this runs, so what is taken out is looked at once more. */
#include <errno.h>
#include <sys/mman.h>

#include <linux/inet_diag.h>

#include <dmm/abi/wire.h>

#include "base/netlink.h"
#include "base/util.h"
#include "steer/steer_internal.h"

#define LISTEN 10

/* --- listeners --- */

struct entry {
	struct dmm_listener_key key;
	struct dmm_listener value;
	bool alive; /* the kernel has such a socket */
};

struct entries {
	int map;
	size_t n;
	struct entry *items; /* in order of their keys */
};

static int add(void *ctx, const void *key, const void *value)
{
	struct entries *all = ctx;
	struct entry *to = dmm_room_for_one(all->items, all->n, sizeof(*to));

	if (!to)
		return -ENOMEM;
	all->items = to;
	to = &all->items[all->n++];
	*to = (struct entry){};
	memcpy(&to->key, key, sizeof(to->key));
	memcpy(&to->value, value, sizeof(to->value));
	return 0;
}

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct dmm_listener_key)); /* it comes first */
}

static struct entry *entry_of(const struct entries *all, const struct nlmsghdr *nlh)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(nlh);
	struct dmm_listener_key key = { .port = msg->id.idiag_sport };

	dmm_netlink_addr(key.addr, msg->idiag_family, msg->id.idiag_src);
	return bsearch(&key, all->items, all->n, sizeof(*all->items), compare);
}

static int note_living(const struct nlmsghdr *nlh, void *ctx)
{
	struct entry *entry = entry_of(ctx, nlh);

	if (entry)
		entry->alive = true;
	return MNL_CB_OK;
}

/* The hook found the entry, and counted in it, just before it was deleted. */
static int put_back(const struct nlmsghdr *nlh, void *ctx)
{
	const struct entries *all = ctx;
	struct entry *entry = entry_of(all, nlh);

	if (!entry || entry->alive)
		return MNL_CB_OK;
	entry->value.n = 1;
	bpf_map_update_elem(all->map, &entry->key, &entry->value, BPF_NOEXIST);
	return MNL_CB_OK;
}

/* The kernel is asked after the map was read: an entry is made when its socket listens already. */
static int sweep_listeners(struct entries *all)
{
	size_t deleted = 0;
	int r = dmm_map_each(all->map, sizeof(struct dmm_listener_key), sizeof(struct dmm_listener),
			     add, all);

	if (r < 0 || all->n == 0)
		return r;
	qsort(all->items, all->n, sizeof(*all->items), compare);
	r = dmm_netlink_tcp_sockets(1u << LISTEN, note_living, all);
	for (size_t i = 0; i < all->n && r == 0; i++)
		if (!all->items[i].alive)
			deleted += bpf_map_delete_elem(all->map, &all->items[i].key) == 0;
	return r == 0 && deleted ? dmm_netlink_tcp_sockets(1u << LISTEN, put_back, all) : r;
}

/* --- classes --- */

static int drop_class(void *ctx, const void *at, const void *value)
{
	struct dmm_steer *steer = ctx;
	struct dmm_server_key key;
	int fd;

	(void)value;
	memcpy(&key, at, sizeof(key));
	fd = dmm_cgroup_open(steer, key.cgroup);
	if (fd >= 0)
		close(fd);
	else if (fd == -ESTALE) /* ids do not come again */
		bpf_map_delete_elem(steer->map[DMM_MAP_serv_class], &key);
	return 0;
}

/* --- whose flows a port has --- */

/* A bit for each port that some client of the instance has come to; of one that is dead: none. */
static int note_ports(struct dmm_steer *steer, uint32_t id, uint64_t *ports)
{
	struct dmm_inst_shared *page;
	dmm_autoclose int fd = -1;
	__u32 map_id;
	int r = bpf_map_lookup_elem(steer->map[DMM_MAP_shared], &id, &map_id);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	fd = bpf_map_get_fd_by_id(map_id);
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	page = mmap(NULL, sizeof(*page), PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return -errno;
	for (uint32_t i = 0; i < DMM_WIRE_HEADS; i++) {
		uint32_t at = page->head[i];

		for (uint32_t turn = 0; at && at <= DMM_MAX_PORTS && turn < DMM_WIRE_CHAIN;
		     turn++) {
			uint32_t port = __builtin_bswap16(page->wire[at - 1].local_port);

			ports[port / 64] |= 1ull << port % 64;
			at = page->wire[at - 1].next;
		}
	}
	munmap(page, sizeof(*page));
	return 0;
}

struct flows {
	struct dmm_steer *steer;
	bool known[DMM_MAX_INSTANCES];
	uint64_t ports[DMM_MAX_INSTANCES][65536 / 64];
};

static int still_served(struct flows *flows, uint32_t port, uint64_t served, uint64_t *ret)
{
	*ret = 0;
	for (unsigned int place = 0; served; served >>= 8) {
		uint32_t id = (served & 0xff) - 1;
		int r = 0;

		if (id >= DMM_MAX_INSTANCES)
			continue;
		if (!flows->known[id])
			r = note_ports(flows->steer, id, flows->ports[id]);
		if (r < 0)
			return r;
		flows->known[id] = true;
		if (flows->ports[id][port / 64] >> port % 64 & 1)
			*ret |= (uint64_t)(id + 1) << 8 * place++;
	}
	return 0;
}

/* An instance that the flow door notes just now is noted again by the flow's next packet: as long as the
 * policy is the same, it gets the same one. */
static int sweep_port(void *ctx, const void *key, const void *value)
{
	struct flows *flows = ctx;
	struct dmm_port port;
	uint64_t served;
	__u32 number;
	int r;

	memcpy(&number, key, sizeof(number));
	memcpy(&port, value, sizeof(port));
	if (port.state != DMM_PORT_SERVED || !port.served)
		return 0;
	r = still_served(flows, number & 0xffff, port.served, &served);
	if (r < 0 || served == port.served)
		return r;
	port.served = served;
	return bpf_map_update_elem(flows->steer->map[DMM_MAP_ports], &number, &port, BPF_EXIST);
}

int dmm_sweep_servers(struct dmm_steer *steer)
{
	struct entries listeners = { .map = steer->map[DMM_MAP_listeners] };
	dmm_autofree struct flows *flows = calloc(1, sizeof(*flows));
	int r = flows ? sweep_listeners(&listeners) : -ENOMEM;

	free(listeners.items);
	if (r < 0)
		return r;
	r = dmm_map_each(steer->map[DMM_MAP_serv_class], sizeof(struct dmm_server_key),
			 sizeof(__u32), drop_class, steer);
	flows->steer = steer;
	return r ? r
		 : dmm_map_each(steer->map[DMM_MAP_ports], sizeof(__u32), sizeof(struct dmm_port),
				sweep_port, flows);
}
