/* SPDX-License-Identifier: Apache-2.0 */
/* The "off now" switch: needs nothing but the pins. A dmmd that still runs is not asked; its next
 * repair tells it (-ESTALE). Links are detached, not only unpinned, since it holds some of them. */
#include <errno.h>
#include <unistd.h>

#include "base/util.h"
#include "steer/steer_internal.h"

struct wipe {
	const char *bpffs, *folder;
	int (*remove)(const char *path);
	unsigned int removed;
	int error; /* the first; the others are still tried */
};

static int unpin(const char *path)
{
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

static int wipe_pin(void *ctx, const char *name)
{
	struct wipe *w = ctx;
	char path[DMM_PIN_PATH_LEN];
	int r = dmm_pin_path(path, w->bpffs, "%s/%s", w->folder, name);

	if (r == 0)
		r = w->remove(path);
	if (r == 0)
		w->removed++;
	else if (w->error == 0)
		w->error = dmm_steer_fail(r, NULL, "cannot remove %s/%s/%s", w->bpffs, w->folder,
					  name);
	return 0;
}

static int wipe_folder(const char *bpffs, const char *folder, int (*remove)(const char *path),
		       unsigned int *ret)
{
	struct wipe w = { .bpffs = bpffs, .folder = folder, .remove = remove };
	char path[DMM_PIN_PATH_LEN];
	int r = dmm_pins_each(bpffs, folder, wipe_pin, &w);

	if (r == 0)
		r = w.error;
	if (r == 0)
		r = dmm_pin_path(path, bpffs, "%s", folder);
	if (r == 0 && rmdir(path) < 0 && errno != ENOENT)
		r = dmm_steer_fail(-errno, NULL, "cannot remove %s", path);
	if (ret)
		*ret = w.removed;
	return r;
}

int dmm_pins_wipe(const char *bpffs, unsigned int *ret_links, unsigned int *ret_maps)
{
	struct dmm_first first = {};

	dmm_first_note(&first, wipe_folder(bpffs, "links", dmm_link_remove, ret_links));
	dmm_first_note(&first, wipe_folder(bpffs, "progs", unpin, NULL));
	dmm_first_note(&first, wipe_folder(bpffs, "iters", unpin, NULL));
	dmm_first_note(&first, wipe_folder(bpffs, "maps", unpin, ret_maps));
	return dmm_first_end(&first);
}

/* --- what lies outside bpffs --- */

struct outside {
	struct dmm_undo undo;
	uint64_t cookie; /* 0: nothing was attached yet */
	int rings;	 /* who uses it is ours; -1: none does */
	int hops;
};

/* Reads a one-entry map; other layouts may have grown or shrunk: what fits is taken. */
static bool read_map(const char *bpffs, const char *name, void *ret, size_t size)
{
	dmm_autoclose int fd = dmm_pin_get(bpffs, "maps", name);
	struct bpf_map_info info = {};
	__u32 len = sizeof(info), zero = 0;
	dmm_autofree char *value = NULL;

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return false;
	value = calloc(1, DMM_MAX(info.value_size, size));
	if (!value || bpf_map_lookup_elem(fd, &zero, value) < 0)
		return false;
	memcpy(ret, value, size);
	return true;
}

/* Layouts keep the place of netns_cookie and grow dmm_undo at its end. */
static void look_outside(const char *bpffs, struct outside *ret)
{
	struct dmm_config config;

	memset(ret, 0, sizeof(*ret));
	ret->rings = dmm_pin_get(bpffs, "maps", "dmm_rings");
	ret->hops = dmm_pin_get(bpffs, "maps", "dmm_hops");
	if (read_map(bpffs, "dmm_config", &config, sizeof(config)))
		ret->cookie = config.netns_cookie;
	if (!read_map(bpffs, DMM_UNDO_MAP, &ret->undo, sizeof(ret->undo)))
		memset(&ret->undo, 0, sizeof(ret->undo));
}

static int undo_outside(void *ctx)
{
	const struct outside *o = ctx;
	int r = dmm_undo_run(&o->undo, o->rings), r2 = dmm_hops_remove(o->hops);

	return r < 0 ? r : r2;
}

static int clear(const char *bpffs, unsigned int *ret_links, unsigned int *ret_maps)
{
	struct outside outside;
	int r, r2 = 0;

	look_outside(bpffs, &outside);
	/* The hooks first: what they still steer would wait for a SYN that nobody holds. */
	r = wipe_folder(bpffs, "links", dmm_link_remove, ret_links);
	if (outside.cookie)
		r2 = dmm_netns_run(outside.cookie, undo_outside, &outside);
	dmm_autoclose_fn(&outside.rings);
	dmm_autoclose_fn(&outside.hops);
	if (r < 0 || (r2 < 0 && r2 != -ENOENT)) /* ENOENT: it died with its namespace */
		return r < 0 ? r : r2;
	return dmm_pins_wipe(bpffs, NULL, ret_maps);
}

int dmm_steer_teardown(const char *bpffs, unsigned int *ret_links, unsigned int *ret_maps)
{
	unsigned int links = 0, maps = 0;
	dmm_autoclose int dir = -1;
	int r;

	dmm_libbpf_listen();
	r = dmm_pins_open(bpffs, &dir);
	if (r == 0) {
		r = clear(bpffs, &links, &maps);
		if (r == 0 && rmdir(bpffs) < 0 && errno != ENOENT)
			r = dmm_steer_fail(-errno, NULL, "cannot remove %s", bpffs);
	}
	if (r < 0 && r != -ENOENT)
		return r;
	if (ret_links)
		*ret_links = links;
	if (ret_maps)
		*ret_maps = maps;
	return 0;
}
