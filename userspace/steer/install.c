/* SPDX-License-Identifier: Apache-2.0 */
/* A generation goes live: five arrays made and filled aside, entered by one batch, then one write.
 *
 * Entering waits for an RCU grace period, so a slot's old tables are out of use long before its turn
 * comes again; the write decides for every program run that starts after it. */
#include <errno.h>

#include <bpf/btf.h>

#include "base/util.h"
#include "steer/steer_internal.h"

#define FILL_CHUNK 4096u /* blocks per system call */

static const struct {
	const char *map, *type;
} tables_of[DMM_NUM_TABLES] = {
	[DMM_TABLE_ROOTS] = { "dmm_roots", "dmm_roots_block" },
	[DMM_TABLE_NODES] = { "dmm_nodes", "dmm_node" },
	[DMM_TABLE_RUNS] = { "dmm_runs", "dmm_runs_block" },
	[DMM_TABLE_RULES] = { "dmm_rules", "dmm_rules_block" },
	[DMM_TABLE_META] = { "dmm_meta", "dmm_gen_meta" },
};

int dmm_typed_map(struct dmm_steer *steer, const char *name, const char *type, uint32_t value_size,
		  uint32_t n, uint32_t flags)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = flags);
	int key = btf__find_by_name(steer->btf, "__u32");
	int value = btf__find_by_name_kind(steer->btf, type, BTF_KIND_STRUCT);

	if (key > 0 && value > 0) {
		opts.btf_fd = steer->btf_fd;
		opts.btf_key_type_id = key;
		opts.btf_value_type_id = value;
	}
	return bpf_map_create(BPF_MAP_TYPE_ARRAY, name, sizeof(__u32), value_size, n, &opts);
}

static int fill(int fd, const char *blocks, uint32_t n)
{
	dmm_autofree __u32 *keys = calloc(DMM_MIN(n, FILL_CHUNK), sizeof(*keys));
	uint32_t done, i;

	if (!keys)
		return -ENOMEM;
	for (done = 0; done < n;) {
		__u32 count = DMM_MIN(n - done, FILL_CHUNK);
		int r;

		for (i = 0; i < count; i++)
			keys[i] = done + i;
		r = bpf_map_update_batch(fd, keys, blocks + (size_t)done * DMM_BLOCK, &count, NULL);
		if (r < 0)
			return r;
		done += count;
	}
	return 0;
}

static int make_table(struct dmm_steer *steer, const struct dmm_tables *tables,
		      enum dmm_table table, int *ret)
{
	uint32_t n = tables->n_blocks[table];
	dmm_autoclose int fd = dmm_typed_map(steer, tables_of[table].map, tables_of[table].type,
					     DMM_BLOCK, DMM_MAX(n, 1u), BPF_F_INNER_MAP);
	int r = fd < 0 ? fd : 0;

	if (r == 0 && n > 0)
		r = fill(fd, tables->blocks[table], n);
	if (r < 0)
		return dmm_steer_fail(r, NULL, "cannot make the table %s of %u KiB",
				      tables_of[table].map, n);
	*ret = DMM_TAKE_FD(fd);
	return 0;
}

static int enter(struct dmm_steer *steer, struct dmm_live live, const int *fds)
{
	__u32 keys[DMM_NUM_TABLES], n = DMM_NUM_TABLES;
	uint32_t table;
	int r;

	for (table = 0; table < DMM_NUM_TABLES; table++)
		keys[table] = live.slot * DMM_NUM_TABLES + table;
	r = bpf_map_update_batch(steer->map[DMM_MAP_tables], keys, fds, &n, NULL);
	if (r < 0)
		return dmm_steer_fail(r, NULL, "cannot enter the new tables");
	__atomic_store(steer->live, &live, __ATOMIC_RELEASE);
	return 0;
}

static uint32_t next_slot(const struct dmm_steer *steer)
{
	return (steer->live->slot + 1) % DMM_GEN_SLOTS;
}

/* What an older generation left in the slot. */
static void drop_classes(struct dmm_steer *steer, uint32_t slot)
{
	int fd = steer->map[DMM_MAP_serv_class];
	struct dmm_server_key key, next;
	int r = bpf_map_get_next_key(fd, NULL, &next);

	while (r == 0) {
		key = next;
		r = bpf_map_get_next_key(fd, &key, &next);
		if (key.slot == slot)
			bpf_map_delete_elem(fd, &key);
	}
}

int dmm_steer_server_classes(struct dmm_steer *steer, bool live,
			     int (*class_of)(void *ctx, uint64_t cgroup_id), void *ctx)
{
	int fd = steer->map[DMM_MAP_listeners], r, classes = steer->map[DMM_MAP_serv_class];
	struct dmm_server_key to = { .slot = live ? steer->live->slot : next_slot(steer) };
	struct dmm_listener_key key, *after = NULL;
	struct dmm_listener listener;

	if (!live)
		drop_classes(steer, to.slot);
	for (; (r = bpf_map_get_next_key(fd, after, &key)) == 0; after = &key) {
		int class_id;

		if (bpf_map_lookup_elem(fd, &key, &listener) < 0 || !listener.n)
			continue;
		to.cgroup = listener.cgroup;
		class_id = class_of(ctx, listener.cgroup);
		if (class_id < 0)
			continue;
		r = bpf_map_update_elem(classes, &to, &class_id, live ? BPF_NOEXIST : BPF_ANY);
		if (r < 0 && r != -EEXIST)
			break;
	}
	return r == -ENOENT ? 0 : dmm_steer_fail(r, NULL, "cannot enter the classes of servers");
}

void dmm_steer_forget_servers(struct dmm_steer *steer,
			      bool (*is_attached)(void *ctx, const char *path), void *ctx)
{
	int fd = steer->map[DMM_MAP_listeners];
	struct dmm_listener_key key, next;
	struct dmm_listener listener;
	char of[4096];
	int r = bpf_map_get_next_key(fd, NULL, &next);

	while (r == 0) {
		key = next;
		r = bpf_map_get_next_key(fd, &key, &next);
		if (bpf_map_lookup_elem(fd, &key, &listener) == 0 &&
		    dmm_steer_cgroup_path(steer, listener.cgroup, of, sizeof(of)) == 0 &&
		    !is_attached(ctx, of))
			bpf_map_delete_elem(fd, &key);
	}
}

int dmm_steer_install(struct dmm_steer *steer, const struct dmm_tables *tables)
{
	const struct dmm_gen_meta *meta = tables->blocks[DMM_TABLE_META];
	struct dmm_live live = { .slot = next_slot(steer), .generation = meta->generation };
	int fds[DMM_NUM_TABLES] = { -1, -1, -1, -1, -1 };
	uint32_t table;
	int r = 0;

	for (table = 0; table < DMM_NUM_TABLES && r == 0; table++)
		r = make_table(steer, tables, table, &fds[table]);
	if (r == 0)
		r = enter(steer, live, fds);
	for (table = 0; table < DMM_NUM_TABLES; table++)
		dmm_autoclose_fn(&fds[table]);
	return r;
}
