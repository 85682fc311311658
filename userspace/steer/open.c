/* SPDX-License-Identifier: Apache-2.0 */
/* Opening the steering: programs loaded, maps made or adopted, pins refreshed, links updated. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/util.h"
#include "steer/steer_internal.h"

#include "bpf/flows.skel.h"
#include "bpf/relay.skel.h"
#include "bpf/sock.skel.h"
#include "bpf/steer.skel.h"

static const char teardown_hint[] =
	"`dmmctl teardown` removes it (steered connections end), then start again";

/* --- what is there already --- */

enum found { FOUND_NOTHING, FOUND_OURS };

static int any_pin(void *ctx, const char *name)
{
	(void)ctx;
	(void)name;
	return 1;
}

/* The layout number comes first in dmm_config, whatever the layout. */
static int read_layout(int fd, uint32_t *ret)
{
	struct bpf_map_info info = {};
	__u32 len = sizeof(info), zero = 0;
	dmm_autofree char *value = NULL;
	int r = bpf_obj_get_info_by_fd(fd, &info, &len);

	if (r < 0)
		return r;
	value = calloc(1, DMM_MAX(info.value_size, sizeof(*ret)));
	if (!value)
		return -ENOMEM;
	r = bpf_map_lookup_elem(fd, &zero, value);
	if (r == 0)
		memcpy(ret, value, sizeof(*ret));
	return r;
}

/* Before anything is loaded: whose pins are these? A start that died before it wrote the layout has
 * attached nothing, so what it left is cleared away. */
static int inspect(const char *bpffs, enum found *ret)
{
	dmm_autoclose int fd = dmm_pin_get(bpffs, "maps", "dmm_config");
	uint32_t layout = 0;
	int r;

	if (fd < 0 && fd != -ENOENT)
		return dmm_steer_fail(fd, NULL, "pinned map dmm_config");
	if (fd >= 0) {
		r = read_layout(fd, &layout);
		if (r < 0)
			return dmm_steer_fail(r, NULL, "pinned map dmm_config");
	}
	if (layout == DMM_ABI_LAYOUT) {
		*ret = FOUND_OURS;
		return 0;
	}
	if (layout != 0)
		return dmm_steer_refuse(-ESTALE, teardown_hint,
					"%s has pins of layout %u, this dmmd needs layout %u",
					bpffs, layout, DMM_ABI_LAYOUT);
	r = dmm_pins_each(bpffs, "links", any_pin, NULL);
	if (r > 0)
		return dmm_steer_refuse(-ESTALE, teardown_hint, "%s has links but no layout",
					bpffs);
	if (r == 0)
		r = dmm_pins_wipe(bpffs, NULL, NULL);
	if (r == 0)
		*ret = FOUND_NOTHING;
	return r;
}

/* libbpf would refuse a pinned map of another shape too, with fewer words. */
static int check_shape(const char *bpffs, const struct bpf_map *map)
{
	const char *name = bpf_map__name(map);
	dmm_autoclose int fd = dmm_pin_get(bpffs, "maps", name);
	struct bpf_map_info info = {};
	__u32 len = sizeof(info);

	if (fd == -ENOENT)
		return 0;
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return dmm_steer_fail(fd < 0 ? fd : -errno, NULL, "pinned map %s", name);
	if (info.type == bpf_map__type(map) && info.key_size == bpf_map__key_size(map) &&
	    info.value_size == bpf_map__value_size(map) &&
	    info.max_entries == bpf_map__max_entries(map))
		return 0;
	return dmm_steer_refuse(-ESTALE, teardown_hint,
				"the pinned map %s has another shape than this dmmd's", name);
}

/* --- objects --- */

static bool is_shared(const struct bpf_map *map)
{
	size_t i;

	for (i = 0; i < DMM_NUM_MAPS; i++)
		if (dmm_streq(bpf_map__name(map), dmm_map_names[i]))
			return true;
	return false;
}

/* Maps with a pin path are reused when the pin is there and pinned when it is not: so the first
 * object makes them and the others share them. */
static int prepare_maps(struct dmm_steer *steer, struct bpf_object *object)
{
	char path[DMM_PIN_PATH_LEN];
	struct bpf_map *map;
	int r;

	bpf_object__for_each_map(map, object)
	{
		if (!is_shared(map))
			continue;
		r = check_shape(steer->bpffs, map);
		if (r == 0)
			r = dmm_pin_path(path, steer->bpffs, "maps/%s", bpf_map__name(map));
		if (r == 0)
			r = bpf_map__set_pin_path(map, path);
		if (r < 0)
			return r;
	}
	return 0;
}

static int explain_load(int err, const char *object)
{
	const char *hint = NULL;

	if (err == -EPERM)
		hint = "root is needed, with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";
	else if (strstr(dmm_libbpf_said(), "valid kernel BTF") ||
		 strstr(dmm_libbpf_said(), "CONFIG_DEBUG_INFO_BTF"))
		hint = "the kernel must have BTF (CONFIG_DEBUG_INFO_BTF)";
	return dmm_steer_refuse(err, hint, "the kernel refuses the %s programs (%s)\n%s", object,
				strerror(-err), dmm_libbpf_said());
}

#define OPEN_AND_LOAD(steer, member, type)                                                         \
	({                                                                                         \
		int r_;                                                                            \
                                                                                                   \
		dmm_libbpf_forget();                                                               \
		(steer)->member = type##__open();                                                  \
		if (!(steer)->member)                                                              \
			r_ = explain_load(-errno, #member);                                        \
		else                                                                               \
			r_ = prepare_maps(steer, (steer)->member->obj);                            \
		if (r_ == 0) {                                                                     \
			r_ = type##__load((steer)->member);                                        \
			if (r_ < 0)                                                                \
				r_ = explain_load(r_, #member);                                    \
		}                                                                                  \
		r_;                                                                                \
	})

static int find_maps(struct dmm_steer *steer, struct bpf_object *object)
{
	size_t i;

	for (i = 0; i < DMM_NUM_MAPS; i++) {
		steer->map[i] = bpf_object__find_map_fd_by_name(object, dmm_map_names[i]);
		if (steer->map[i] < 0)
			return dmm_steer_refuse(-ENOENT, NULL, "this build has no map %s",
						dmm_map_names[i]);
	}
	steer->btf = bpf_object__btf(object);
	steer->btf_fd = bpf_object__btf_fd(object);
	return 0;
}

static int find_prog(struct dmm_steer *steer, const char *name, struct dmm_prog *ret)
{
	struct bpf_object *objects[] = { steer->sock->obj, steer->relay->obj, steer->xdp->obj };
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);
	char full[32];
	size_t i;
	int r;

	snprintf(full, sizeof(full), "dmm_%s", name);
	for (i = 0; i < DMM_ARRAY_SIZE(objects); i++) {
		struct bpf_program *prog = bpf_object__find_program_by_name(objects[i], full);

		if (!prog)
			continue;
		ret->fd = bpf_program__fd(prog);
		r = bpf_obj_get_info_by_fd(ret->fd, &info, &len);
		if (r < 0)
			return dmm_steer_fail(r, NULL, "program %s", full);
		ret->id = info.id;
		return 0;
	}
	return dmm_steer_refuse(-ENOENT, NULL, "this build has no program %s", full);
}

static int find_progs(struct dmm_steer *steer)
{
	int r = find_prog(steer, "lo", &steer->lo_prog);
	size_t i;

	if (r == 0)
		r = find_prog(steer, "xdp", &steer->xdp_prog);
	if (r == 0)
		r = find_prog(steer, "hop_xdp", &steer->hop_prog);
	if (r == 0)
		r = find_prog(steer, "hop_out", &steer->hop_out_prog);
	for (i = 0; i < DMM_NUM_HOOKS && r == 0; i++)
		r = find_prog(steer, dmm_hook_names[i], &steer->hook[i]);
	if (r == 0)
		r = find_prog(steer, "server4", &steer->server[DMM_FAMILY_V4]);
	if (r == 0)
		r = find_prog(steer, "server6", &steer->server[DMM_FAMILY_V6]);
	return r;
}

static int load(struct dmm_steer *steer)
{
	int r = OPEN_AND_LOAD(steer, sock, sock_bpf);

	if (r == 0)
		r = OPEN_AND_LOAD(steer, relay, relay_bpf);
	if (r == 0)
		r = OPEN_AND_LOAD(steer, xdp, steer_bpf);
	if (r == 0)
		r = OPEN_AND_LOAD(steer, flows, flows_bpf);
	if (r == 0)
		r = find_maps(steer, steer->sock->obj);
	return r == 0 ? find_progs(steer) : r;
}

/* --- pins of programs: for eyes (bpftool) --- */

static int pin_prog(struct dmm_steer *steer, const char *name, const struct dmm_prog *prog)
{
	char path[DMM_PIN_PATH_LEN];
	int r = dmm_pin_path(path, steer->bpffs, "progs/dmm_%s", name);

	return r < 0 ? r : dmm_pin_replace(prog->fd, path);
}

static int pin_progs(struct dmm_steer *steer)
{
	int r = pin_prog(steer, "xdp", &steer->xdp_prog);
	size_t i;

	if (r == 0)
		r = pin_prog(steer, "lo", &steer->lo_prog);
	for (i = 0; i < DMM_NUM_HOOKS && r == 0; i++)
		r = pin_prog(steer, dmm_hook_names[i], &steer->hook[i]);
	return r;
}

/* The iterator over the sockets that carry a verdict: a link that only its pin holds. */
static int pin_flows(struct dmm_steer *steer)
{
	union bpf_iter_link_info info = { .map.map_fd = steer->map[DMM_MAP_sock] };
	LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));
	struct bpf_link *link = bpf_program__attach_iter(steer->flows->progs.dmm_flows, &opts);
	char path[DMM_PIN_PATH_LEN];
	int r;

	if (!link)
		return dmm_steer_fail(-errno, NULL, "cannot attach the iterator over flows");
	r = dmm_pin_path(path, steer->bpffs, "%s", DMM_FLOWS_PIN);
	if (r == 0)
		r = dmm_pin_replace(bpf_link__fd(link), path);
	bpf_link__destroy(link);
	return r;
}

/* --- open and close --- */

static int write_config(struct dmm_steer *steer, const struct dmm_steer_options *options,
			enum found found)
{
	struct dmm_config *config = &steer->config;
	__u32 zero = 0;
	uint64_t cookie;
	int r = dmm_netns_cookie(&cookie);

	if (r < 0)
		return r;
	r = bpf_map_lookup_elem(steer->map[DMM_MAP_config], &zero, config);
	if (r < 0)
		return dmm_steer_fail(r, NULL, "map dmm_config");
	if (found == FOUND_OURS && config->netns_cookie != cookie)
		return dmm_steer_refuse(-ESTALE, teardown_hint,
					"%s serves another network namespace", steer->bpffs);
	config->layout = DMM_ABI_LAYOUT;
	config->netns_cookie = cookie;
	config->stale_ms = options->stale_ms;
	r = bpf_map_update_elem(steer->map[DMM_MAP_config], &zero, config, BPF_ANY);
	return r < 0 ? dmm_steer_fail(r, NULL, "map dmm_config") : 0;
}

static int map_live(struct dmm_steer *steer)
{
	void *page = mmap(NULL, sizeof(*steer->live), PROT_READ | PROT_WRITE, MAP_SHARED,
			  steer->map[DMM_MAP_live], 0);

	if (page == MAP_FAILED)
		return dmm_steer_fail(-errno, NULL, "cannot map dmm_live");
	steer->live = page;
	return 0;
}

static int attach_all(struct dmm_steer *steer)
{
	unsigned int changed;
	int r = pin_progs(steer);

	if (r == 0)
		r = pin_flows(steer);
	if (r == 0)
		r = DMM_MIN(dmm_lo_attach(steer), 0);
	if (r == 0)
		r = dmm_xdp_adopt(steer, &changed);
	if (r == 0)
		r = dmm_links_adopt(steer, &changed);
	return r;
}

static int start(struct dmm_steer *steer, const struct dmm_steer_options *options, enum found found)
{
	int r = dmm_pins_make_folders(steer->bpffs);

	if (r == 0)
		r = load(steer);
	if (r == 0)
		r = dmm_undo_open(steer);
	if (r == 0)
		r = write_config(steer, options, found);
	if (r == 0)
		r = map_live(steer);
	/* Own addresses and routes must be known before the first packet is judged. */
	if (r == 0)
		r = dmm_mirror_open(steer->map[DMM_MAP_local], steer->map[DMM_MAP_local_bits],
				    steer->map[DMM_MAP_routes], &steer->mirror);
	return r == 0 ? attach_all(steer) : r;
}

static void undo_start(const char *bpffs)
{
	dmm_autofree char *why = strdup(dmm_steer_reason());

	dmm_steer_teardown(bpffs, NULL, NULL);
	if (why)
		dmm_steer_refuse(0, NULL, "%s", why);
}

static int set_paths(struct dmm_steer *steer, const struct dmm_steer_options *options)
{
	if (strlen(options->bpffs) >= sizeof(steer->bpffs) ||
	    strlen(options->cgroup_root) >= sizeof(steer->cgroup_root))
		return dmm_steer_refuse(-ENAMETOOLONG, NULL, "a path is too long");
	strcpy(steer->bpffs, options->bpffs);
	strcpy(steer->cgroup_root, options->cgroup_root);
	return 0;
}

int dmm_steer_open(const struct dmm_steer_options *options, struct dmm_steer **ret)
{
	struct dmm_steer *steer = calloc(1, sizeof(*steer));
	enum found found = FOUND_OURS;
	int r;

	if (!steer)
		return -ENOMEM;
	steer->lock = steer->cgroup_root_fd = steer->undo = -1;
	dmm_steer_clear_reason();
	dmm_libbpf_listen();

	r = set_paths(steer, options);
	if (r == 0)
		r = dmm_links_open_root(steer);
	if (r == 0)
		r = dmm_pins_claim(steer->bpffs, &steer->lock);
	if (r == 0)
		r = inspect(steer->bpffs, &found);
	if (r == 0)
		r = start(steer, options, found);
	if (r == 0) {
		*ret = steer;
		return 0;
	}
	if (found == FOUND_NOTHING)
		undo_start(steer->bpffs);
	dmm_steer_close(steer);
	return r;
}

void dmm_steer_close(struct dmm_steer *steer)
{
	if (!steer)
		return;
	dmm_mirror_close(steer->mirror);
	if (steer->live)
		munmap(steer->live, sizeof(*steer->live));
	sock_bpf__destroy(steer->sock);
	relay_bpf__destroy(steer->relay);
	steer_bpf__destroy(steer->xdp);
	flows_bpf__destroy(steer->flows);
	dmm_autoclose_fn(&steer->undo);
	dmm_autoclose_fn(&steer->cgroup_root_fd);
	dmm_autoclose_fn(&steer->lock);
	free(steer);
}

int dmm_steer_repair(struct dmm_steer *steer, unsigned int *ret_changed)
{
	unsigned int links = 0, interfaces = 0;
	struct dmm_first first = {};
	struct stat st;
	int lo;

	*ret_changed = 0;
	/* After a teardown the directory is gone, only this descriptor still knows it. */
	if (fstat(steer->lock, &st) < 0 || st.st_nlink == 0)
		return dmm_steer_refuse(-ESTALE, "restart dmmd to steer again",
					"%s has been removed by a teardown", steer->bpffs);
	lo = dmm_first_note(&first, dmm_lo_attach(steer));
	dmm_first_note(&first, dmm_xdp_adopt(steer, &interfaces));
	dmm_first_note(&first, dmm_links_adopt(steer, &links));
	*ret_changed = lo + interfaces + links;
	return dmm_first_end(&first);
}

int dmm_steer_mirror_fd(struct dmm_steer *steer)
{
	return dmm_mirror_fd(steer->mirror);
}

int dmm_steer_mirror_run(struct dmm_steer *steer)
{
	return dmm_mirror_run(steer->mirror);
}

const char *dmm_steer_mirror_problem(const struct dmm_steer *steer)
{
	return dmm_mirror_problem(steer->mirror);
}
