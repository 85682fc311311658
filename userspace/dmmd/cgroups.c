/* SPDX-License-Identifier: Apache-2.0 */
/* The wanted cgroups, kept attached through their coming and going. inotify on the folders above says
 * when to look again. */
#define _GNU_SOURCE
#include "dmmd/cgroups.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mountinfo.h"
#include "base/proc.h"
#include "base/util.h"
#include "dmmd/dmmd.h"

#define WATCH_MASK                                                                                 \
	(IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE_SELF | IN_ONLYDIR)

/* --- paths --- */

int dmmd_cgroup_normalise(const char *path, char ret[static PATH_MAX])
{
	size_t n = 0;

	if (path[0] != '/')
		return -EINVAL;
	while (*path) {
		size_t len;

		path += strspn(path, "/");
		len = strcspn(path, "/");
		if (len == 0 || (len == 1 && path[0] == '.')) {
			path += len;
			continue;
		}
		if (len == 2 && path[0] == '.' && path[1] == '.')
			return -EINVAL;
		if (n + 1 + len + 1 > PATH_MAX)
			return -ENAMETOOLONG;
		ret[n++] = '/';
		memcpy(ret + n, path, len);
		n += len;
		path += len;
	}
	if (n == 0)
		ret[n++] = '/';
	ret[n] = '\0';
	return 0;
}

int dmmd_cgroup_full(struct dmmd *d, const char *path, char ret[static PATH_MAX])
{
	const char *root = d->options.cgroup_root;
	int n;

	n = snprintf(ret, PATH_MAX, "%s%s", dmm_streq(root, "/") ? "" : root,
		     dmm_streq(path, "/") ? "" : path);
	return n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static unsigned int depth(const char *path)
{
	unsigned int n = 0;

	for (const char *p = path; *p; p++)
		n += *p == '/' && p[1] && p[1] != '/';
	return n;
}

/* The cgroup2 mount that the root lies in; the root's own path below it follows from its length. */
static int mount_of_root(struct dmmd *d, char ret[static PATH_MAX])
{
	return dmm_mount_covering("cgroup2", d->options.cgroup_root, ret, PATH_MAX);
}

int dmmd_cgroup_of(struct dmmd *d, pid_t pid, char ret[static PATH_MAX])
{
	char mount[PATH_MAX], path[PATH_MAX];
	const char *root;
	size_t len;
	int r = mount_of_root(d, mount);

	if (r == 0)
		r = dmm_proc_cgroup(pid, path, sizeof(path));
	if (r < 0)
		return r;
	root = d->options.cgroup_root + strlen(mount);
	len = strlen(root);
	if (strncmp(path, root, len) != 0 || (len > 0 && path[len] != '/' && path[len] != '\0'))
		return -EXDEV;
	return dmmd_cgroup_normalise(path[len] ? path + len : "/", ret);
}

/* --- what is there --- */

static uint64_t id_of(const char *full)
{
	struct stat st;

	return stat(full, &st) == 0 && S_ISDIR(st.st_mode) ? st.st_ino : 0;
}

static uint32_t level_of(struct dmmd *d, const char *path)
{
	char mount[PATH_MAX];

	if (mount_of_root(d, mount) < 0)
		return depth(path);
	return depth(d->options.cgroup_root + strlen(mount)) + depth(path);
}

static int set_class(struct dmmd *d, struct dmmd_cgroup *cgroup, uint64_t id)
{
	if (!cgroup->class_id)
		return 0;
	return dmm_steer_set_class(d->steer, id, cgroup->class_id, level_of(d, cgroup->path));
}

/* The cgroup that was attached is gone; its links went with it. */
static void forget(struct dmmd *d, struct dmmd_cgroup *cgroup)
{
	if (cgroup->class_id)
		dmm_steer_unset_class(d->steer, cgroup->id);
	cgroup->id = 0;
	cgroup->by &= ~DMMD_BY_FLOWS;
	dmm_info("cgroup %s is gone", cgroup->path);
}

static bool is_retired(const struct dmmd_cgroup *cgroup)
{
	return cgroup->by & DMMD_BY_FLOWS;
}

static bool is_wanted(const struct dmmd_cgroup *cgroup)
{
	return cgroup->by & ~DMMD_BY_FLOWS;
}

static int look(struct dmmd *d, struct dmmd_cgroup *cgroup)
{
	char full[PATH_MAX];
	uint64_t id, attached;
	int r = dmmd_cgroup_full(d, cgroup->path, full);

	if (r < 0)
		return r;
	id = id_of(full);
	if (cgroup->id && cgroup->id != id)
		forget(d, cgroup);
	if (!id || !is_wanted(cgroup) || (cgroup->id == id && !is_retired(cgroup))) {
		cgroup->problem[0] = '\0';
		return 0;
	}
	r = set_class(d, cgroup, id);
	if (r == 0)
		r = dmm_steer_attach_cgroup(d->steer, full, &attached);
	if (r == 0 && attached != id) /* made anew in between: the next event says so */
		id = attached;
	if (r == -ENOENT)
		return 0;
	if (r < 0) {
		dmm_steer_unset_class(d->steer, id);
		snprintf(cgroup->problem, sizeof(cgroup->problem), "%s", dmm_steer_reason());
		return r;
	}
	cgroup->id = id;
	cgroup->fresh = true;
	cgroup->by &= ~DMMD_BY_FLOWS;
	cgroup->problem[0] = '\0';
	dmm_info("cgroup %s attached (id %llu)", cgroup->path, (unsigned long long)id);
	return 0;
}

/* --- watching --- */

static bool watched(const struct dmmd_cgroups *set, int wd)
{
	for (size_t i = 0; i < set->n_watches; i++)
		if (set->watches[i] == wd)
			return true;
	return false;
}

static int watch_folder(struct dmmd_cgroups *set, const char *full)
{
	int wd = inotify_add_watch(set->inotify.fd, full, WATCH_MASK);
	int *more;

	if (wd < 0)
		return -errno;
	if (watched(set, wd))
		return 0;
	more = realloc(set->watches, (set->n_watches + 1) * sizeof(more[0]));
	if (!more)
		return -ENOMEM;
	set->watches = more;
	more[set->n_watches++] = wd;
	return 0;
}

/* Watches every folder above @path that exists, from the root on: cgroups do not tell of their own
 * end, only the one above does; and what is made while we look is seen by it. */
static int watch(struct dmmd *d, const char *path)
{
	char full[PATH_MAX];
	char *end = full + strlen(d->options.cgroup_root);
	int r = dmmd_cgroup_full(d, path, full);

	for (; r == 0; end = strchr(end + 1, '/')) {
		char next = *end;

		*end = '\0';
		r = watch_folder(&d->cgroups, full);
		if (r == -ENOENT)
			return 0;
		*end = next;
		if (!next || !strchr(end + 1, '/'))
			break;
	}
	if (r < 0)
		dmm_warning("cgroup %s cannot be watched: %s", path, strerror(-r));
	return r;
}

/* Watches what is needed now and nothing else. */
static void rewatch(struct dmmd *d)
{
	struct dmmd_cgroups *set = &d->cgroups;
	int *old = set->watches;
	size_t n_old = set->n_watches;

	set->watches = NULL;
	set->n_watches = 0;
	for (size_t i = 0; i < set->n; i++)
		watch(d, set->items[i].path);
	for (size_t i = 0; i < n_old; i++)
		if (!watched(set, old[i]))
			inotify_rm_watch(set->inotify.fd, old[i]);
	free(old);
}

void dmmd_cgroups_sync(struct dmmd *d)
{
	rewatch(d); /* first, so that what appears while we look is not missed */
	for (size_t i = 0; i < d->cgroups.n; i++) {
		struct dmmd_cgroup *cgroup = &d->cgroups.items[i];

		if (look(d, cgroup) < 0)
			dmm_warning("cgroup %s: %s", cgroup->path, cgroup->problem);
	}
}

static void inotify_ready(struct dmmd_source *source, uint32_t events)
{
	struct dmmd_cgroups *set = dmmd_container(source, struct dmmd_cgroups, inotify);
	struct dmmd *d = dmmd_container(set, struct dmmd, cgroups);
	char buf[4096];

	(void)events;
	while (read(source->fd, buf, sizeof(buf)) > 0)
		continue; /* whatever happened: look at all */
	dmmd_cgroups_sync(d);
}

int dmmd_cgroups_init(struct dmmd *d)
{
	dmm_autoclose int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	int r;

	d->cgroups = (struct dmmd_cgroups){ .inotify.fd = -1 };
	if (fd < 0)
		return -errno;
	r = dmmd_source_add(&d->loop, &d->cgroups.inotify, fd, EPOLLIN, inotify_ready);
	if (r == 0)
		fd = -1;
	return r;
}

void dmmd_cgroups_exit(struct dmmd *d)
{
	struct dmmd_cgroups *set = &d->cgroups;

	for (size_t i = 0; i < set->n; i++)
		free(set->items[i].path);
	free(set->items);
	free(set->watches);
	dmmd_source_remove(&d->loop, &set->inotify);
	set->items = NULL;
	set->watches = NULL;
	set->n = set->n_watches = 0;
}

/* --- wanting --- */

struct dmmd_cgroup *dmmd_cgroups_find(struct dmmd *d, const char *path)
{
	for (size_t i = 0; i < d->cgroups.n; i++)
		if (dmm_streq(d->cgroups.items[i].path, path))
			return &d->cgroups.items[i];
	return NULL;
}

bool dmmd_cgroup_is_attached(const struct dmmd_cgroup *cgroup)
{
	return cgroup && cgroup->id && !is_retired(cgroup);
}

static int find_or_add(struct dmmd *d, const char *path, struct dmmd_cgroup **ret)
{
	struct dmmd_cgroups *set = &d->cgroups;
	struct dmmd_cgroup *items = NULL;
	char *copy;

	*ret = dmmd_cgroups_find(d, path);
	if (*ret)
		return 0;
	copy = strdup(path);
	if (copy)
		items = realloc(set->items, (set->n + 1) * sizeof(items[0]));
	if (!items) {
		free(copy);
		return -ENOMEM;
	}
	set->items = items;
	*ret = &items[set->n++];
	**ret = (struct dmmd_cgroup){ .path = copy };
	return 0;
}

static void drop_class(struct dmmd *d, struct dmmd_cgroup *cgroup)
{
	if (cgroup->class_id && cgroup->id)
		dmm_steer_unset_class(d->steer, cgroup->id);
	cgroup->class_id = 0;
}

/* Out of the set, and off the cgroup where it is still the one that was attached. */
static void drop(struct dmmd *d, struct dmmd_cgroup *cgroup)
{
	struct dmmd_cgroups *set = &d->cgroups;
	char full[PATH_MAX];

	if (cgroup->id && dmmd_cgroup_full(d, cgroup->path, full) == 0 &&
	    id_of(full) == cgroup->id) {
		if (dmm_steer_detach_cgroup(d->steer, full) < 0)
			dmm_warning("cgroup %s: %s", cgroup->path, dmm_steer_reason());
		dmm_info("cgroup %s detached", cgroup->path);
	}
	free(cgroup->path);
	*cgroup = set->items[--set->n];
}

/* Is a cgroup attached there, or above, that decides? */
static bool is_governed(void *ctx, const char *full)
{
	struct dmmd *d = ctx;
	const char *root = dmm_streq(d->options.cgroup_root, "/") ? "" : d->options.cgroup_root;

	if (strncmp(full, root, strlen(root)) != 0)
		return false;
	for (size_t i = 0; i < d->cgroups.n; i++)
		if (d->cgroups.items[i].id && d->cgroups.items[i].by & ~DMMD_BY_FLOWS &&
		    dmm_cgroup_covers(d->cgroups.items[i].path, full + strlen(root)))
			return true;
	return false;
}

/* The names of flows that were steered must stay true, so only the hooks that decide go at once. */
static void retire(struct dmmd *d, struct dmmd_cgroup *cgroup)
{
	char full[PATH_MAX];

	if (dmmd_cgroup_full(d, cgroup->path, full) == 0 && id_of(full) == cgroup->id) {
		if (dmm_steer_retire_cgroup(d->steer, full) < 0)
			dmm_warning("cgroup %s: %s", cgroup->path, dmm_steer_reason());
	}
	cgroup->by = DMMD_BY_FLOWS;
	dmm_steer_forget_servers(d->steer, is_governed, d);
	dmm_info("cgroup %s retired: detached after its last steered flow", cgroup->path);
}

static void settle(struct dmmd *d, struct dmmd_cgroup *cgroup)
{
	if (!(cgroup->by & (DMMD_BY_POLICY | DMMD_BY_NEXT)))
		drop_class(d, cgroup);
	if (cgroup->by)
		return;
	if (cgroup->id)
		retire(d, cgroup);
	else
		drop(d, cgroup);
}

/* The retired ones that have no flows any more. Returns whether there were any. */
static bool drop_idle(struct dmmd *d)
{
	bool dropped = false;

	for (size_t i = d->cgroups.n; i-- > 0;) {
		struct dmmd_cgroup *cgroup = &d->cgroups.items[i];

		if (is_wanted(cgroup) || (cgroup->id && dmmd_cgroup_has_flows(d, cgroup->path)))
			continue;
		drop(d, cgroup);
		dropped = true;
	}
	return dropped;
}

int dmmd_cgroups_want(struct dmmd *d, const char *path, uint32_t by, uint32_t class_id)
{
	struct dmmd_cgroup *cgroup;
	int r = find_or_add(d, path, &cgroup);

	if (r < 0)
		return r;
	cgroup->by |= by;
	watch(d, path);
	if (class_id && !cgroup->class_id) {
		cgroup->class_id = class_id;
		r = cgroup->id ? set_class(d, cgroup, cgroup->id) : 0;
	}
	if (r == 0)
		r = look(d, cgroup);
	if (r < 0) {
		cgroup->by &= ~by;
		settle(d, cgroup);
	}
	return r;
}

int dmmd_cgroups_adopt_retired(struct dmmd *d, const char *path)
{
	struct dmmd_cgroup *cgroup;
	char full[PATH_MAX];
	int r = find_or_add(d, path, &cgroup);

	if (r == 0)
		r = dmmd_cgroup_full(d, path, full);
	if (r == 0 && !cgroup->by) {
		cgroup->by = DMMD_BY_FLOWS;
		cgroup->id = id_of(full);
	}
	return r;
}

void dmmd_cgroups_unwant(struct dmmd *d, const char *path, uint32_t by)
{
	struct dmmd_cgroup *cgroup = dmmd_cgroups_find(d, path);

	if (!cgroup)
		return;
	cgroup->by &= ~by;
	settle(d, cgroup);
	rewatch(d);
}

int dmmd_cgroups_prepare(struct dmmd *d, const struct dmm_policy *policy,
			 struct dmmd_classes *classes, uint32_t generation)
{
	for (size_t i = 0; i < policy->n_rules; i++) {
		const char *path = policy->rules[i].cgroup;
		int r;

		if (!path)
			continue;
		r = dmmd_classes_get(classes, path, generation);
		if (r > 0)
			r = dmmd_cgroups_want(d, path, DMMD_BY_NEXT, r);
		if (r < 0) {
			dmmd_cgroups_cancel(d);
			return r;
		}
	}
	return 0;
}

int dmmd_cgroups_next_class(struct dmmd *d, uint64_t cgroup_id)
{
	const char *root = dmm_streq(d->options.cgroup_root, "/") ? "" : d->options.cgroup_root;
	const struct dmmd_cgroup *deepest = NULL;
	char full[PATH_MAX];
	int r = dmm_steer_cgroup_path(d->steer, cgroup_id, full, sizeof(full));

	if (r < 0 || strncmp(full, root, strlen(root)) != 0)
		return r < 0 ? r : -EXDEV;
	for (size_t i = 0; i < d->cgroups.n; i++) {
		const struct dmmd_cgroup *cgroup = &d->cgroups.items[i];

		if (cgroup->by & DMMD_BY_NEXT && cgroup->class_id &&
		    dmm_cgroup_covers(cgroup->path, full + strlen(root)) &&
		    (!deepest || strlen(cgroup->path) > strlen(deepest->path)))
			deepest = cgroup;
	}
	return deepest ? (int)deepest->class_id : 0;
}

/* Those wanted for @from are wanted for @to instead. */
static void turn(struct dmmd *d, uint32_t from, uint32_t to)
{
	for (size_t i = d->cgroups.n; i-- > 0;) {
		struct dmmd_cgroup *cgroup = &d->cgroups.items[i];
		bool keep = cgroup->by & from;

		cgroup->by &= ~(DMMD_BY_POLICY | DMMD_BY_NEXT);
		cgroup->by |= keep ? to : 0;
		settle(d, cgroup);
	}
	rewatch(d);
}

void dmmd_cgroups_commit(struct dmmd *d)
{
	turn(d, DMMD_BY_NEXT, DMMD_BY_POLICY);
}

void dmmd_cgroups_cancel(struct dmmd *d)
{
	turn(d, DMMD_BY_POLICY, DMMD_BY_POLICY);
	drop_idle(d); /* what was attached for nothing goes at once */
}

/* --- upkeep --- */

static bool populated(const char *full)
{
	dmm_autofree char *text = NULL;
	char path[PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/cgroup.events", full);
	if (dmm_file_read(path, 4096, &text, NULL) < 0)
		return false;
	return strstr(text, "populated 1") != NULL;
}

/* True: gone, or for ever out of dmmd's reach. */
static bool remove_empty(struct dmmd *d, struct dmmd_cgroup *cgroup)
{
	char full[PATH_MAX];

	if (dmmd_cgroup_full(d, cgroup->path, full) < 0 || populated(full))
		return false;
	if (rmdir(full) < 0 && errno != ENOENT && errno != EROFS)
		return false; /* somebody came back, or made folders of his own */
	dmm_debug("cgroup %s was empty: removed", cgroup->path);
	return true;
}

void dmmd_cgroups_tick(struct dmmd *d)
{
	bool again = false, removed = drop_idle(d);

	for (size_t i = d->cgroups.n; i-- > 0;) {
		struct dmmd_cgroup *cgroup = &d->cgroups.items[i];

		again |= cgroup->problem[0] != '\0';
		if (!(cgroup->by & DMMD_BY_RUN) || !remove_empty(d, cgroup))
			continue;
		removed = true;
		if (cgroup->id)
			forget(d, cgroup);
		cgroup->by &= ~DMMD_BY_RUN;
		settle(d, cgroup);
	}
	if (again)
		dmmd_cgroups_sync(d);
	if (removed)
		dmmd_save(d);
}
