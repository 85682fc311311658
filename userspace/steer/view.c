/* SPDX-License-Identifier: Apache-2.0 */
/* The read side: opens the pins, reads the live generation, and decides as the hooks do. */
#include <errno.h>
#include <sys/mman.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/clock.h"
#include "base/util.h"
#include "steer/view_internal.h"

/* --- open and close --- */

static int open_maps(struct dmm_view *view, const char *bpffs)
{
	size_t i;

	for (i = 0; i < DMM_NUM_MAPS; i++) {
		view->map[i] = dmm_pin_get(bpffs, "maps", dmm_map_names[i]);
		if (view->map[i] < 0)
			return dmm_steer_fail(view->map[i],
					      "dmmd has not run here, or `dmmctl teardown` has",
					      "%s/maps/%s", bpffs, dmm_map_names[i]);
	}
	return 0;
}

static int check_layout(struct dmm_view *view, const char *bpffs)
{
	__u32 zero = 0;
	int r = bpf_map_lookup_elem(view->map[DMM_MAP_config], &zero, &view->config);

	if (r < 0)
		return dmm_steer_fail(r, NULL, "map dmm_config");
	if (view->config.layout != DMM_ABI_LAYOUT)
		return dmm_steer_refuse(-ESTALE, "use the dmmctl of the dmmd that made them",
					"the pins in %s have layout %u, this program knows %u",
					bpffs, view->config.layout, DMM_ABI_LAYOUT);
	return 0;
}

int dmm_view_open(const char *bpffs, struct dmm_view **ret)
{
	struct dmm_view *view = calloc(1, sizeof(*view));
	int r, cpus = libbpf_num_possible_cpus();

	if (!view)
		return -ENOMEM;
	memset(view->map, 0xff, sizeof(view->map));
	memset(view->live.fd, 0xff, sizeof(view->live.fd));
	dmm_libbpf_listen();
	snprintf(view->bpffs, sizeof(view->bpffs), "%s", bpffs);
	r = cpus < 0 ? cpus : open_maps(view, bpffs);
	if (r == 0)
		r = check_layout(view, bpffs);
	if (r < 0) {
		dmm_view_close(view);
		return r;
	}
	view->cpus = cpus;
	*ret = view;
	return 0;
}

static void forget_generation(struct dmm_view_generation *g)
{
	size_t i;

	for (i = 0; i < DMM_NUM_TABLES; i++) {
		dmm_autoclose_fn(&g->fd[i]);
		g->fd[i] = -1;
		g->id[i] = 0;
	}
}

void dmm_view_close(struct dmm_view *view)
{
	size_t i;

	if (!view)
		return;
	dmm_view_unmap_closed(view);
	forget_generation(&view->live);
	for (i = 0; i < DMM_NUM_MAPS; i++)
		dmm_autoclose_fn(&view->map[i]);
	free(view);
}

/* --- the live generation --- */

static int open_tables(struct dmm_view *view, uint32_t slot)
{
	uint32_t table;

	for (table = 0; table < DMM_NUM_TABLES; table++) {
		__u32 key = slot * DMM_NUM_TABLES + table, id;
		int r = bpf_map_lookup_elem(view->map[DMM_MAP_tables], &key, &id);

		if (r < 0) {
			forget_generation(&view->live);
			return r;
		}
		if (id == view->live.id[table] && view->live.fd[table] >= 0)
			continue;
		dmm_autoclose_fn(&view->live.fd[table]);
		view->live.id[table] = id;
		view->live.fd[table] = bpf_map_get_fd_by_id(id);
		if (view->live.fd[table] < 0)
			return view->live.fd[table];
	}
	return 0;
}

static int live_slot(struct dmm_view *view, uint32_t *ret)
{
	struct dmm_live live;
	__u32 zero = 0;
	int r = bpf_map_lookup_elem(view->map[DMM_MAP_live], &zero, &live);

	*ret = r < 0 ? 0 : live.slot;
	return r;
}

/* Opens the tables that are live now. -ENOENT: no policy was ever applied. Taken again when the
 * policy changed under the hand, so that no answer mixes two. */
static int take_generation(struct dmm_view *view)
{
	uint32_t before, after;
	int r;

	do {
		r = live_slot(view, &before);
		if (r < 0)
			return r;
		r = open_tables(view, before);
		if (r == -ENOENT && live_slot(view, &after) == 0 && after == before)
			return r;
		if (r < 0 && r != -ENOENT)
			return r;
		r = live_slot(view, &after);
	} while (r == 0 && before != after);
	return r;
}

static void *read_block(struct dmm_view *view, enum dmm_table table, __u32 index)
{
	void *block = view->block[view->next_block++ % DMM_VIEW_BLOCKS];

	if (view->live.fd[table] < 0 ||
	    bpf_map_lookup_elem(view->live.fd[table], &index, block) < 0)
		return NULL;
	return block;
}

int dmm_view_config(struct dmm_view *view, struct dmm_config *ret)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(view->map[DMM_MAP_config], &zero, ret);
}

int dmm_view_meta(struct dmm_view *view, struct dmm_gen_meta *ret)
{
	const void *block;
	int r = take_generation(view);

	if (r == -ENOENT) {
		memset(ret, 0, sizeof(*ret));
		return 0;
	}
	if (r < 0)
		return r;
	block = read_block(view, DMM_TABLE_META, 0);
	if (!block)
		return -EIO;
	memcpy(ret, block, sizeof(*ret));
	return 0;
}

static int read_rule(struct dmm_view *view, uint32_t index, struct dmm_rule *ret)
{
	const struct dmm_rules_block *block =
		read_block(view, DMM_TABLE_RULES, index / DMM_RULES_BLOCK);

	if (!block)
		return -ENOENT;
	*ret = block->rule[index % DMM_RULES_BLOCK];
	return 0;
}

int dmm_view_rule(struct dmm_view *view, uint32_t index, struct dmm_rule *ret)
{
	struct dmm_gen_meta meta;
	int r = dmm_view_meta(view, &meta);

	if (r < 0)
		return r;
	if (!meta.generation || index > meta.n_rules)
		return -ENOENT;
	return read_rule(view, index, ret);
}

/* --- instances and counters --- */

int dmm_view_instance(struct dmm_view *view, uint32_t id, struct dmm_instance *ret)
{
	return bpf_map_lookup_elem(view->map[DMM_MAP_instances], &id, ret);
}

/* The instance writes while this reads: each number is whole, together they are a glance. */
int dmm_view_shared(struct dmm_view *view, uint32_t id, struct dmm_inst_shared *ret, bool ports)
{
	size_t len = ports ? sizeof(*ret) : offsetof(struct dmm_inst_shared, port);
	dmm_autoclose int fd = -1;
	__u32 map_id;
	void *page;
	int r = bpf_map_lookup_elem(view->map[DMM_MAP_shared], &id, &map_id);

	if (r < 0)
		return r;
	fd = bpf_map_get_fd_by_id(map_id);
	if (fd < 0)
		return fd;
	page = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return -errno;
	memcpy(ret, page, len);
	munmap(page, len);
	return 0;
}

int dmm_view_inst_stats(struct dmm_view *view, uint32_t id, struct dmm_inst_stats *ret)
{
	dmm_autofree struct dmm_inst_stats *all = calloc(view->cpus, sizeof(*all));
	struct dmm_inst_stats sum = {};
	unsigned int i;
	int r;

	if (!all)
		return -ENOMEM;
	r = bpf_map_lookup_elem(view->map[DMM_MAP_inst_stats], &id, all);
	if (r < 0)
		return r;
	for (i = 0; i < view->cpus; i++) {
		sum.packets += all[i].packets;
		sum.bytes += all[i].bytes;
		sum.connects += all[i].connects;
		sum.rejects += all[i].rejects;
	}
	*ret = sum;
	return 0;
}

int dmm_view_counter(struct dmm_view *view, enum dmm_reason reason, uint64_t *ret)
{
	dmm_autofree __u64 *all = calloc(view->cpus, sizeof(*all));
	__u32 key = reason;
	uint64_t sum = 0;
	unsigned int i;
	int r;

	if (!all)
		return -ENOMEM;
	r = bpf_map_lookup_elem(view->map[DMM_MAP_counters], &key, all);
	if (r < 0)
		return r;
	for (i = 0; i < view->cpus; i++)
		sum += all[i];
	*ret = sum;
	return 0;
}

/* --- the decision: the hooks' own code on the same maps --- */

static const struct dmm_local *find_local(struct dmm_view *view, const __u8 *addr)
{
	return bpf_map_lookup_elem(view->map[DMM_MAP_local], addr, &view->local) == 0 ? &view->local
										      : NULL;
}

static const struct dmm_route *find_route(struct dmm_view *view, const struct dmm_route_key *key)
{
	view->has_route = bpf_map_lookup_elem(view->map[DMM_MAP_routes], key, &view->route) == 0;
	return view->has_route ? &view->route : NULL;
}

static const struct dmm_instance *find_instance(struct dmm_view *view, __u32 id)
{
	return dmm_view_instance(view, id, &view->instance) == 0 ? &view->instance : NULL;
}

static __u64 find_beat(struct dmm_view *view, __u32 id)
{
	dmm_autofree struct dmm_inst_shared *page = malloc(sizeof(*page));

	return page && dmm_view_shared(view, id, page, false) == 0 ? page->beat_ns : 0;
}

#define DMM_MATCH_TABLES		    struct dmm_view *
#define DMM_MATCH_BLOCK(view, table, index) read_block(view, table, index)
#define DMM_ENV				    struct dmm_view *
#define DMM_ENV_TABLES(view)		    (view)
#define DMM_ENV_LOCAL(view, addr)	    find_local(view, addr)
#define DMM_ENV_ROUTE(view, key)	    find_route(view, key)
#define DMM_ENV_INSTANCE(view, id)	    find_instance(view, id)
#define DMM_ENV_BEAT(view, id)		    find_beat(view, id)
#define DMM_ENV_NOW(view)		    dmm_clock_ns(CLOCK_MONOTONIC_COARSE)
#define DMM_ENV_SPREAD(view)		    0
#define DMM_ENV_STALE_NS(view)		    ((view)->config.stale_ms * DMM_NS_PER_MS)
#include <dmm/abi/decide.h>

int dmm_view_class(struct dmm_view *view, const uint64_t *ids, unsigned int n, uint32_t uid,
		   const char *comm, uint32_t *ret)
{
	char name[16] __attribute__((aligned(8))) = { 0 };
	struct dmm_gen_meta meta;
	uint32_t class_id = 0;
	unsigned int i;
	int r = dmm_view_meta(view, &meta);

	for (i = 0; i < n && r == 0; i++) {
		__u32 id;

		r = bpf_map_lookup_elem(view->map[DMM_MAP_cgroups], &ids[i], &id);
		if (r == 0 && dmm_class_known(view, &meta, id)) {
			class_id = id;
			break;
		}
		if (r == -ENOENT)
			r = 0;
	}
	memcpy(name, comm, strnlen(comm, sizeof(name) - 1));
	if (r == 0)
		*ret = dmm_caller_class(&meta, class_id, uid, name);
	return r;
}

/* What explain shows beyond the choice itself, also where the choice did not need it. */
static void describe(struct dmm_view *view, const uint8_t remote[16],
		     const struct dmm_choice *choice, struct dmm_decision *d)
{
	struct dmm_route_key key = { .prefixlen = 128 };
	uint64_t beat, now = dmm_clock_ns(CLOCK_MONOTONIC_COARSE);

	memcpy(key.addr, remote, 16);
	if (find_route(view, &key)) {
		d->has_route = true;
		d->route = view->route;
	}
	if (choice->rule == DMM_NO_RULE || read_rule(view, choice->rule, &d->matched) < 0)
		return;
	if (choice->action == DMM_ACTION_STACK) {
		beat = find_beat(view, choice->instance);
		d->beat_age_ns = !beat ? UINT64_MAX : now > beat ? now - beat : 0;
	}
}

static int without_policy(const struct dmm_gen_meta *meta, struct dmm_decision *ret)
{
	if (meta->generation)
		return 0;
	*ret = (struct dmm_decision){
		.verdict = DMM_VERDICT_KERNEL,
		.reason = DMM_REASON_NO_POLICY,
		.rule = DMM_NO_RULE,
	};
	return 1;
}

static void tell(const struct dmm_choice *choice, const struct dmm_gen_meta *meta,
		 struct dmm_decision *ret)
{
	ret->verdict = choice->verdict;
	ret->reason = choice->reason;
	ret->rule = choice->rule;
	ret->instance = choice->instance;
	ret->generation = meta->generation;
}

/* 1: there is no policy, and *ret says so. */
static int begin_decision(struct dmm_view *view, struct dmm_gen_meta *ret_meta,
			  struct dmm_decision *ret)
{
	int r = dmm_view_meta(view, ret_meta);

	if (r == 0)
		r = dmm_view_config(view, &view->config);
	return r < 0 ? r : without_policy(ret_meta, ret);
}

int dmm_view_decide_client(struct dmm_view *view, uint32_t class_id, const uint8_t local[16],
			   uint16_t port, const uint8_t remote[16], struct dmm_decision *ret)
{
	struct dmm_decision d = { .class_id = class_id };
	struct dmm_gen_meta meta;
	struct dmm_choice choice;
	int r = begin_decision(view, &meta, ret);

	if (r)
		return r < 0 ? r : 0;
	dmm_decide_client(view, class_id, DMM_PROTO_TCP, local, port, remote, &choice);
	if (find_local(view, remote)) /* the host itself comes by no interface */
		dmm_to_kernel(&choice, DMM_REASON_OWN_ADDRESS);
	if (choice.verdict == DMM_VERDICT_USERSPACE)
		dmm_check_available(view, &choice);
	tell(&choice, &meta, &d);
	describe(view, remote, &choice, &d);
	d.has_route = false; /* it came by the interface that it leaves by */
	*ret = d;
	return 0;
}

int dmm_view_decide(struct dmm_view *view, uint32_t class_id, enum dmm_proto proto,
		    const uint8_t remote[16], uint16_t port, struct dmm_decision *ret)
{
	struct dmm_decision d = { .class_id = class_id };
	struct dmm_gen_meta meta;
	struct dmm_choice choice;
	int r = begin_decision(view, &meta, ret);

	if (r)
		return r < 0 ? r : 0;
	if (proto == DMM_PROTO_TCP) {
		dmm_decide(view, class_id, DMM_DIR_CONNECT, proto, remote, port, &choice);
		if (choice.verdict == DMM_VERDICT_USERSPACE)
			dmm_check_available(view, &choice);
	} else {
		memset(&choice, 0, sizeof(choice));
		choice.rule = DMM_NO_RULE;
		dmm_to_kernel(&choice, DMM_REASON_NOT_STREAM); /* the hooks look at TCP only */
	}
	tell(&choice, &meta, &d);
	describe(view, remote, &choice, &d);
	*ret = d;
	return 0;
}

/* --- relay legs and words --- */

struct each_leg {
	int (*fn)(void *ctx, const struct dmm_peer *peer);
	void *ctx;
};

static int on_leg(void *ctx, const void *key, const void *value)
{
	struct each_leg *each = ctx;

	(void)key;
	return each->fn(each->ctx, value);
}

int dmm_view_steered(struct dmm_view *view, int (*fn)(void *ctx, const struct dmm_peer *peer),
		     void *ctx)
{
	struct each_leg each = { .fn = fn, .ctx = ctx };

	return dmm_map_each(view->map[DMM_MAP_tuples], sizeof(struct dmm_tuple),
			    sizeof(struct dmm_peer), on_leg, &each);
}

static const struct {
	const char *word, *text;
} reasons[DMM_NUM_REASONS] = {
#define DMM_X(name, w, t) [DMM_REASON_##name] = { w, t },
	DMM_REASONS(DMM_X)
#undef DMM_X
};

const char *dmm_reason_word(enum dmm_reason reason)
{
	return reason < DMM_NUM_REASONS ? reasons[reason].word : "unknown";
}

const char *dmm_reason_text(enum dmm_reason reason)
{
	return reason < DMM_NUM_REASONS ? reasons[reason].text
					: "a reason this program is too old for";
}
