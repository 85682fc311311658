/* SPDX-License-Identifier: Apache-2.0 */
/* The life of an instance's slot in the maps; see enum dmm_inst_state. */
#include <errno.h>

#include "base/util.h"
#include "steer/steer_internal.h"

#define RING_BYTES (256 * 1024)

static int read_slot(struct dmm_steer *steer, uint32_t id, struct dmm_instance *ret)
{
	int r = -EINVAL;

	if (id < DMM_MAX_INSTANCES)
		r = bpf_map_lookup_elem(steer->map[DMM_MAP_instances], &id, ret);
	return r < 0 ? dmm_steer_fail(r, NULL, "instance slot %u", id) : 0;
}

static int write_slot(struct dmm_steer *steer, uint32_t id, const struct dmm_instance *inst)
{
	int r = bpf_map_update_elem(steer->map[DMM_MAP_instances], &id, inst, BPF_ANY);

	return r < 0 ? dmm_steer_fail(r, NULL, "instance slot %u", id) : 0;
}

/* --- ports --- */

/* Writes the owner of the instance's wire ports: of TCP only, which is all that is carried. UDP ports
 * of the same numbers stay the kernel's. */
static int set_ports(struct dmm_steer *steer, const struct dmm_instance *inst,
		     const struct dmm_port *owner)
{
	bool any = inst->port_last && inst->port_last >= inst->port_first;
	uint32_t n = any ? inst->port_last - inst->port_first + 1u : 0, i;
	dmm_autofree struct dmm_port *values = calloc(n + 1, sizeof(*values));
	dmm_autofree __u32 *keys = calloc(n + 1, sizeof(*keys));

	__u32 count = n;
	int r;

	if (n == 0)
		return 0;
	if (!values || !keys)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		keys[i] = DMM_PROTO_TCP << 16 | (inst->port_first + i);
		values[i] = *owner;
	}
	r = bpf_map_update_batch(steer->map[DMM_MAP_ports], keys, values, &count, NULL);
	return r < 0 ? dmm_steer_fail(r, NULL, "cannot write the ports of %s", inst->name) : 0;
}

static const struct dmm_port nobodys = { .state = DMM_PORT_KERNEL };

/* --- fresh maps for each incarnation: a dead one keeps nothing that the next one trusts --- */

static int enter(struct dmm_steer *steer, enum dmm_steer_map outer, uint32_t id, int fd)
{
	return fd < 0 ? fd : bpf_map_update_elem(steer->map[outer], &id, &fd, BPF_ANY);
}

int dmm_steer_inst_begin(struct dmm_steer *steer, uint32_t id, const struct dmm_instance *inst,
			 struct dmm_inst_fds *ret)
{
	struct dmm_instance slot = *inst, old;
	dmm_autoclose int shared = -1, ring = -1;
	int r = read_slot(steer, id, &old);

	if (r == 0 && (old.port_first != inst->port_first || old.port_last != inst->port_last))
		r = set_ports(steer, &old, &nobodys);
	if (r < 0)
		return r;
	shared = dmm_typed_map(steer, "dmm_inst_shared", "dmm_inst_shared",
			       sizeof(struct dmm_inst_shared), 1, BPF_F_MMAPABLE);
	ring = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "dmm_inst_ring", 0, 0, RING_BYTES, NULL);
	r = enter(steer, DMM_MAP_shared, id, shared);
	if (r == 0)
		r = enter(steer, DMM_MAP_rings, id, ring);
	if (r < 0)
		return dmm_steer_fail(r, NULL, "cannot make the maps of instance %s", inst->name);
	slot.state = DMM_INST_STARTING;
	r = write_slot(steer, id, &slot);
	if (r < 0)
		return r;
	ret->shared = DMM_TAKE_FD(shared);
	ret->ring = DMM_TAKE_FD(ring);
	return 0;
}

int dmm_steer_inst_mark(struct dmm_steer *steer, uint32_t id, int fd)
{
	struct dmm_relay_mark mark = { .instance = id };
	struct dmm_instance inst;
	int r = read_slot(steer, id, &inst);

	if (r < 0)
		return r;
	mark.incarnation = inst.incarnation;
	r = bpf_map_update_elem(steer->map[DMM_MAP_relay_mark], &fd, &mark, BPF_ANY);
	return r < 0 ? dmm_steer_fail(r, NULL, "cannot mark a socket of %s", inst.name) : 0;
}

/* No link: that would take the program away when it is closed. */
int dmm_steer_confine(struct dmm_steer *steer, int cgroup_fd)
{
	static const enum bpf_attach_type types[DMM_NUM_FAMILIES] = { BPF_CGROUP_INET4_CONNECT,
								      BPF_CGROUP_INET6_CONNECT };
	int r = 0;

	for (int i = 0; i < DMM_NUM_FAMILIES && r == 0; i++)
		r = bpf_prog_attach(steer->server[i].fd, cgroup_fd, types[i], BPF_F_ALLOW_MULTI);
	return r < 0 ? dmm_steer_fail(r, NULL, "cannot confine sockets to servers") : 0;
}

int dmm_steer_inst_set_xsk(struct dmm_steer *steer, uint32_t id, uint32_t queue, int xsk_fd)
{
	__u32 key = id * DMM_MAX_QUEUES + queue;
	int r = -EINVAL;

	if (id < DMM_MAX_INSTANCES && queue < DMM_MAX_QUEUES)
		r = bpf_map_update_elem(steer->map[DMM_MAP_xsks], &key, &xsk_fd, BPF_ANY);
	return r < 0 ? dmm_steer_fail(r, NULL, "cannot enter the AF_XDP socket of queue %u", queue)
		     : 0;
}

/* --- states --- */

static void drop_xsks(struct dmm_steer *steer, uint32_t id)
{
	__u32 queue, key;

	for (queue = 0; queue < DMM_MAX_QUEUES; queue++) {
		key = id * DMM_MAX_QUEUES + queue;
		bpf_map_delete_elem(steer->map[DMM_MAP_xsks], &key);
	}
}

static void drop_maps(struct dmm_steer *steer, uint32_t id)
{
	bpf_map_delete_elem(steer->map[DMM_MAP_shared], &id);
	bpf_map_delete_elem(steer->map[DMM_MAP_rings], &id);
}

/* The state is what the doors read: it changes after the ports when they open. */
static int open_ports(struct dmm_steer *steer, uint32_t id, const struct dmm_instance *inst)
{
	struct dmm_port owner = { .state = DMM_PORT_RANGE, .instance = id };
	int r = set_ports(steer, inst, &owner);

	return r < 0 ? r : write_slot(steer, id, inst);
}

/* XDP passes everything of a dead instance. Its ports stay its own: it will be restarted, and the
 * guards keep others from binding them meanwhile. */
static int declare_dead(struct dmm_steer *steer, uint32_t id, const struct dmm_instance *inst)
{
	int r = write_slot(steer, id, inst);

	if (r == 0)
		drop_xsks(steer, id);
	return r;
}

static int free_slot(struct dmm_steer *steer, uint32_t id, const struct dmm_instance *inst)
{
	struct dmm_instance nobody = { .incarnation = inst->incarnation };
	int r = declare_dead(steer, id, inst);

	if (r == 0)
		r = set_ports(steer, inst, &nobodys);
	if (r < 0)
		return r;
	drop_maps(steer, id);
	return write_slot(steer, id, &nobody);
}

int dmm_steer_inst_state(struct dmm_steer *steer, uint32_t id, enum dmm_inst_state state,
			 uint32_t pid)
{
	struct dmm_instance inst;
	int r = read_slot(steer, id, &inst);

	if (r < 0)
		return r;
	inst.state = state;
	inst.pid = pid;
	switch (state) {
	case DMM_INST_READY:
		return open_ports(steer, id, &inst);
	case DMM_INST_DEAD:
		return declare_dead(steer, id, &inst);
	case DMM_INST_FREE:
		return free_slot(steer, id, &inst);
	default:
		return write_slot(steer, id, &inst);
	}
}
