/* SPDX-License-Identifier: Apache-2.0 */
/* The socket door's links: which programs sit at which cgroup, kept true to the pins.
 *
 * A pinned link is the whole record: its name says the cgroup's id and the hook, and a cgroup can be
 * opened by id (open_by_handle_at), so nothing else needs to be remembered. The one operation is
 * sync: attach, adopt and repair are all "make this cgroup's links run this build's programs". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include "base/util.h"
#include "steer/steer_internal.h"

const char *const dmm_hook_names[DMM_NUM_HOOKS] = {
	[DMM_HOOK_SOCK_CREATE] = "sock_create",
	[DMM_HOOK_GETPEER4] = "getpeer4",
	[DMM_HOOK_GETPEER6] = "getpeer6",
	[DMM_HOOK_GETSOCK4] = "getsock4",
	[DMM_HOOK_GETSOCK6] = "getsock6",
	[DMM_HOOK_SOCKOPS] = "sockops",
	[DMM_HOOK_CONNECT4] = "connect4",
	[DMM_HOOK_CONNECT6] = "connect6",
	[DMM_HOOK_INGRESS] = "ingress",
	[DMM_HOOK_BIND4] = "bind4",
	[DMM_HOOK_BIND6] = "bind6",
};

static const enum bpf_attach_type attach_types[DMM_NUM_HOOKS] = {
	[DMM_HOOK_SOCK_CREATE] = BPF_CGROUP_INET_SOCK_CREATE,
	[DMM_HOOK_GETPEER4] = BPF_CGROUP_INET4_GETPEERNAME,
	[DMM_HOOK_GETPEER6] = BPF_CGROUP_INET6_GETPEERNAME,
	[DMM_HOOK_GETSOCK4] = BPF_CGROUP_INET4_GETSOCKNAME,
	[DMM_HOOK_GETSOCK6] = BPF_CGROUP_INET6_GETSOCKNAME,
	[DMM_HOOK_SOCKOPS] = BPF_CGROUP_SOCK_OPS,
	[DMM_HOOK_CONNECT4] = BPF_CGROUP_INET4_CONNECT,
	[DMM_HOOK_CONNECT6] = BPF_CGROUP_INET6_CONNECT,
	[DMM_HOOK_INGRESS] = BPF_CGROUP_INET_INGRESS,
	[DMM_HOOK_BIND4] = BPF_CGROUP_INET4_BIND,
	[DMM_HOOK_BIND6] = BPF_CGROUP_INET6_BIND,
};

enum bpf_attach_type dmm_hook_type(enum dmm_hook_id hook)
{
	return attach_types[hook];
}

/* Those that decide. The others only keep what was decided true. */
#define INGRESS (1u << DMM_HOOK_INGRESS)
#define DECIDING                                                                                   \
	(1u << DMM_HOOK_SOCK_CREATE | 1u << DMM_HOOK_CONNECT4 | 1u << DMM_HOOK_CONNECT6 | INGRESS)

/* --- one link --- */

int dmm_link_remove(const char *path)
{
	dmm_autoclose int fd = bpf_obj_get(path);

	if (fd == -ENOENT)
		return 0;
	/* Not all link types can be detached; dropping the last reference detaches those. */
	if (fd >= 0)
		bpf_link_detach(fd);
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

int dmm_link_open(const char *path, struct bpf_link_info *ret)
{
	dmm_autoclose int fd = bpf_obj_get(path);
	__u32 len = sizeof(*ret);
	int r;

	if (fd < 0)
		return fd;
	memset(ret, 0, sizeof(*ret));
	r = bpf_obj_get_info_by_fd(fd, ret, &len);
	return r < 0 ? r : DMM_TAKE_FD(fd);
}

/* 0: the link at @path is attached to that cgroup and runs @prog. 1: and had to be updated.
 * -ENOENT: there is none that could. */
static int update_link(const char *path, const struct dmm_prog *prog, uint64_t cgroup_id)
{
	struct bpf_link_info info;
	dmm_autoclose int fd = dmm_link_open(path, &info);
	int r;

	if (fd < 0)
		return fd;
	if (info.type != BPF_LINK_TYPE_CGROUP || info.cgroup.cgroup_id != cgroup_id)
		return -ENOENT; /* detached by force, or of another cgroup root */
	if (info.prog_id == prog->id)
		return 0;
	r = bpf_link_update(fd, prog->fd, NULL);
	return r < 0 ? r : 1;
}

static int make_link(const char *path, const struct dmm_prog *prog, int cgroup_fd,
		     enum bpf_attach_type type)
{
	dmm_autoclose int fd = bpf_link_create(prog->fd, cgroup_fd, type, NULL);
	int r;

	if (fd < 0)
		return fd;
	r = bpf_obj_pin(fd, path);
	return r < 0 ? r : 1;
}

static int sync_link(struct dmm_steer *steer, enum dmm_hook_id hook, const char *path,
		     int cgroup_fd, uint64_t cgroup_id)
{
	int r = update_link(path, &steer->hook[hook], cgroup_id);

	if (r == -ENOENT || r == -ENOLINK) {
		r = dmm_link_remove(path);
		if (r == 0)
			r = make_link(path, &steer->hook[hook], cgroup_fd, attach_types[hook]);
	}
	if (r == -EPERM)
		return dmm_steer_fail(r,
				      "a program that allows no others may be attached there or "
				      "above: see `bpftool cgroup tree`",
				      "cannot attach dmm_%s", dmm_hook_names[hook]);
	return r < 0 ? dmm_steer_fail(r, NULL, "cannot attach dmm_%s", dmm_hook_names[hook]) : r;
}

/* --- one cgroup --- */

static int link_path(char *ret, const struct dmm_steer *steer, uint64_t id, enum dmm_hook_id hook)
{
	return dmm_pin_path(ret, steer->bpffs, "links/cgroup-%" PRIu64 "-%s", id,
			    dmm_hook_names[hook]);
}

/* Takes the links of hooks below @end away, the rewriting ones first. */
static int remove_links(struct dmm_steer *steer, uint64_t id, unsigned int end, uint32_t which)
{
	char path[DMM_PIN_PATH_LEN];
	int r, first = 0;

	while (end-- > 0) {
		if (!(which & 1u << end))
			continue;
		r = link_path(path, steer, id, end);
		if (r == 0)
			r = dmm_link_remove(path);
		if (r < 0 && first == 0)
			first = dmm_steer_fail(r, NULL, "cannot detach dmm_%s",
					       dmm_hook_names[end]);
	}
	return first;
}

static bool is_pinned(struct dmm_steer *steer, uint64_t id, enum dmm_hook_id hook)
{
	char path[DMM_PIN_PATH_LEN];

	return link_path(path, steer, id, hook) == 0 && access(path, F_OK) == 0;
}

/* The links that an attached cgroup is to have. What an earlier process attached stays until a policy says
 * otherwise. */
static uint32_t wanted_hooks(struct dmm_steer *steer, uint64_t id)
{
	return steer->turns_away || is_pinned(steer, id, DMM_HOOK_INGRESS) ? UINT32_MAX : ~INGRESS;
}

/* A retired one, known by having no deciding link any more, is left so. */
static uint32_t adopted_hooks(struct dmm_steer *steer, uint64_t id)
{
	for (unsigned int hook = 0; hook < DMM_NUM_CGROUP_HOOKS; hook++)
		if (DECIDING & 1u << hook && is_pinned(steer, id, hook))
			return wanted_hooks(steer, id);
	return ~DECIDING;
}

/* All links of @which or, on failure, none that were not there before. */
static int sync_cgroup(struct dmm_steer *steer, int cgroup_fd, uint64_t id, uint32_t which,
		       unsigned int *ret_changed)
{
	unsigned int hook, changed = 0;
	char path[DMM_PIN_PATH_LEN];
	uint32_t made = 0;
	int r;

	for (hook = 0; hook < DMM_NUM_CGROUP_HOOKS; hook++) {
		bool existed = is_pinned(steer, id, hook);

		if (!(which & 1u << hook))
			continue;
		r = link_path(path, steer, id, hook);
		if (r == 0)
			r = sync_link(steer, hook, path, cgroup_fd, id);
		if (r < 0) {
			remove_links(steer, id, hook, made);
			return r;
		}
		changed += r;
		if (!existed)
			made |= 1u << hook;
	}
	*ret_changed = changed;
	return 0;
}

/* Each by itself; what fails is in @first. */
static unsigned int sync_guards(struct dmm_steer *steer, struct dmm_first *first)
{
	char path[DMM_PIN_PATH_LEN];
	unsigned int hook, changed = 0;
	int r;

	for (hook = DMM_NUM_CGROUP_HOOKS; hook < DMM_NUM_HOOKS; hook++) {
		r = dmm_pin_path(path, steer->bpffs, "links/guard-%s", dmm_hook_names[hook]);
		if (r == 0)
			r = sync_link(steer, hook, path, steer->cgroup_root_fd,
				      steer->cgroup_root_id);
		changed += dmm_first_note(first, r);
	}
	return changed;
}

/* --- cgroups by id and by path --- */

struct cgroup_handle {
	struct file_handle head;
	uint64_t id;
};

#ifndef FILEID_KERNFS
#define FILEID_KERNFS 0xfe
#endif

static int cgroup_id_of(int fd, uint64_t *ret)
{
	struct cgroup_handle h = { .head.handle_bytes = sizeof(h.id) };
	int mount;

	if (name_to_handle_at(fd, "", &h.head, &mount, AT_EMPTY_PATH) < 0)
		return -errno;
	*ret = h.id;
	return 0;
}

int dmm_cgroup_open(struct dmm_steer *steer, uint64_t id)
{
	struct cgroup_handle h = {
		.head = { .handle_bytes = sizeof(h.id), .handle_type = FILEID_KERNFS },
		.id = id,
	};
	int fd = open_by_handle_at(steer->cgroup_root_fd, &h.head,
				   O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static bool is_cgroup2(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC;
}

/* A path of the file system, or one below the cgroup root as policies write it. */
static int open_cgroup(struct dmm_steer *steer, const char *path, uint64_t *ret_id, int *ret_fd)
{
	dmm_autoclose int fd = -1;
	const char *below = path;
	uint64_t id = 0;
	int r;

	if (path[0] == '/')
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && !is_cgroup2(fd)) {
		close(fd);
		fd = -1;
	}
	if (fd < 0) {
		while (*below == '/')
			below++;
		fd = openat(steer->cgroup_root_fd, *below ? below : ".",
			    O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	if (fd < 0 || !is_cgroup2(fd))
		return dmm_steer_refuse(-ENOENT, "make it first (mkdir), or see systemd-cgls",
					"there is no cgroup %s, also not below %s", path,
					steer->cgroup_root);
	r = cgroup_id_of(fd, &id);
	if (r < 0)
		return dmm_steer_fail(r, NULL, "cannot ask for the id of cgroup %s", path);
	*ret_id = id;
	*ret_fd = DMM_TAKE_FD(fd);
	return 0;
}

int dmm_links_open_root(struct dmm_steer *steer)
{
	dmm_autoclose int fd = open(steer->cgroup_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return dmm_steer_fail(-errno, NULL, "cgroup root %s", steer->cgroup_root);
	if (!is_cgroup2(fd))
		return dmm_steer_refuse(-EINVAL, "grep cgroup2 /proc/self/mountinfo",
					"%s is not a cgroup v2 file system", steer->cgroup_root);
	r = cgroup_id_of(fd, &steer->cgroup_root_id);
	if (r < 0)
		return dmm_steer_fail(r, NULL, "%s", steer->cgroup_root);
	steer->cgroup_root_fd = DMM_TAKE_FD(fd);
	return 0;
}

/* --- all cgroups --- */

struct id_list {
	uint64_t *ids;
	unsigned int n;
	int error;
};

/* Names come sorted, so the links of one cgroup follow each other. */
static int collect_id(void *ctx, const char *name)
{
	struct id_list *list = ctx;
	uint64_t id, *more;

	if (sscanf(name, "cgroup-%" SCNu64 "-", &id) != 1 ||
	    (list->n && list->ids[list->n - 1] == id))
		return 0;
	more = reallocarray(list->ids, list->n + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	list->ids = more;
	list->ids[list->n++] = id;
	return 0;
}

static int list_ids(struct dmm_steer *steer, struct id_list *ret)
{
	return dmm_pins_each(steer->bpffs, "links", collect_id, ret);
}

static int adopt_cgroup(struct dmm_steer *steer, uint64_t id, unsigned int *ret_changed)
{
	dmm_autoclose int fd = dmm_cgroup_open(steer, id);

	if (fd == -ESTALE) /* it was removed: nothing to be put right */
		return remove_links(steer, id, DMM_NUM_CGROUP_HOOKS, UINT32_MAX);
	if (fd < 0)
		return dmm_steer_fail(fd, NULL, "cannot open cgroup %" PRIu64, id);
	return sync_cgroup(steer, fd, id, adopted_hooks(steer, id), ret_changed);
}

int dmm_links_adopt(struct dmm_steer *steer, unsigned int *ret_changed)
{
	dmm_autofree uint64_t *ids = NULL;
	struct dmm_first first = {};
	struct id_list list = {};
	unsigned int i, total;

	total = sync_guards(steer, &first);
	dmm_first_note(&first, list_ids(steer, &list));
	ids = list.ids;
	for (i = 0; i < list.n; i++) {
		unsigned int changed = 0;

		dmm_first_note(&first, adopt_cgroup(steer, list.ids[i], &changed));
		total += changed;
	}
	*ret_changed = total;
	return dmm_first_end(&first);
}

int dmm_steer_attach_cgroup(struct dmm_steer *steer, const char *path, uint64_t *ret_id)
{
	dmm_autoclose int fd = -1;
	unsigned int changed;
	uint64_t id;
	int r = open_cgroup(steer, path, &id, &fd);

	if (r == 0)
		r = sync_cgroup(steer, fd, id, wanted_hooks(steer, id), &changed);
	if (r == 0 && ret_id)
		*ret_id = id;
	return r;
}

static int detach(struct dmm_steer *steer, const char *path, uint32_t which)
{
	dmm_autoclose int fd = -1;
	uint64_t id;
	int r = open_cgroup(steer, path, &id, &fd);

	return r < 0 ? r : remove_links(steer, id, DMM_NUM_CGROUP_HOOKS, which);
}

int dmm_steer_detach_cgroup(struct dmm_steer *steer, const char *path)
{
	return detach(steer, path, UINT32_MAX);
}

int dmm_steer_retire_cgroup(struct dmm_steer *steer, const char *path)
{
	return detach(steer, path, DECIDING);
}

static int set_ingress(struct dmm_steer *steer, uint64_t id)
{
	dmm_autoclose int fd = -1;
	unsigned int changed;

	if (!steer->turns_away)
		return remove_links(steer, id, DMM_NUM_CGROUP_HOOKS, INGRESS);
	if (!(adopted_hooks(steer, id) & INGRESS))
		return 0;
	fd = dmm_cgroup_open(steer, id);
	if (fd < 0)
		return fd == -ESTALE ? 0
				     : dmm_steer_fail(fd, NULL, "cannot open cgroup %" PRIu64, id);
	return sync_cgroup(steer, fd, id, INGRESS, &changed);
}

int dmm_steer_turn_away(struct dmm_steer *steer, bool on)
{
	bool before = steer->turns_away;
	dmm_autofree uint64_t *ids = NULL;
	struct id_list list = {};
	int r = list_ids(steer, &list);

	ids = list.ids;
	steer->turns_away = on;
	for (unsigned int i = 0; i < list.n && r == 0; i++)
		r = set_ingress(steer, ids[i]);
	if (r == 0)
		return 0;
	steer->turns_away = before;
	for (unsigned int i = 0; i < list.n && !before; i++)
		remove_links(steer, ids[i], DMM_NUM_CGROUP_HOOKS, INGRESS);
	return r;
}

unsigned int dmm_steer_cgroups(struct dmm_steer *steer, uint64_t *ids, unsigned int n)
{
	struct id_list list = {};
	unsigned int i;

	if (list_ids(steer, &list) < 0)
		list.n = 0;
	for (i = 0; i < DMM_MIN(n, list.n); i++)
		ids[i] = list.ids[i];
	free(list.ids);
	return list.n;
}

int dmm_steer_cgroup_path(struct dmm_steer *steer, uint64_t id, char *ret, size_t size)
{
	dmm_autoclose int fd = dmm_cgroup_open(steer, id);
	char link[32];
	ssize_t n;

	if (fd < 0)
		return fd;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, ret, size);
	if (n < 0 || (size_t)n >= size)
		return n < 0 ? -errno : -ENAMETOOLONG;
	ret[n] = '\0';
	return 0;
}

/* --- classes --- */

static int raise_level(struct dmm_steer *steer, uint32_t level)
{
	struct dmm_config config = steer->config;
	__u32 zero = 0;
	int r;

	if (level <= config.max_level)
		return 0;
	config.max_level = level;
	r = bpf_map_update_elem(steer->map[DMM_MAP_config], &zero, &config, BPF_ANY);
	if (r == 0)
		steer->config = config;
	return r;
}

/* The level first: a hook that finds the class must already look that deep. It is never lowered
 * again: that would save the hooks one lookup per level. */
int dmm_steer_set_class(struct dmm_steer *steer, uint64_t cgroup_id, uint32_t class_id,
			uint32_t level)
{
	int r = raise_level(steer, level);

	if (r == 0)
		r = bpf_map_update_elem(steer->map[DMM_MAP_cgroups], &cgroup_id, &class_id,
					BPF_ANY);
	return r < 0 ? dmm_steer_fail(r, NULL, "cannot enter the class of cgroup %" PRIu64,
				      cgroup_id)
		     : 0;
}

int dmm_steer_unset_class(struct dmm_steer *steer, uint64_t cgroup_id)
{
	int r = bpf_map_delete_elem(steer->map[DMM_MAP_cgroups], &cgroup_id);

	return r < 0 && r != -ENOENT
		       ? dmm_steer_fail(r, NULL, "cannot remove the class of cgroup %" PRIu64,
					cgroup_id)
		       : 0;
}
