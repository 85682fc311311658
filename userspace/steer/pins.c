/* SPDX-License-Identifier: Apache-2.0 */
/* The bpffs directory: made, checked, locked; pins found, replaced and listed. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/util.h"
#include "steer/steer_internal.h"

#define DEFAULT_BPFFS "/sys/fs/bpf"

const char *const dmm_map_names[DMM_NUM_MAPS] = {
#define DMM_X(name) [DMM_MAP_##name] = "dmm_" #name,
	DMM_STEER_MAPS(DMM_X)
#undef DMM_X
};

/* Ids of mounts are unique among all namespaces. 0: unknown. */
static unsigned int first_mount_of(const char *mountinfo)
{
	dmm_autofclose FILE *f = fopen(mountinfo, "re");
	unsigned int id;

	return f && fscanf(f, "%u", &id) == 1 ? id : 0;
}

/* Their ns links would say it too, but not to a root without CAP_SYS_PTRACE. */
static bool same_mount_namespace_as_init(void)
{
	unsigned int own = first_mount_of("/proc/self/mountinfo");

	return own && own == first_mount_of("/proc/1/mountinfo");
}

static bool is_bpffs(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == BPF_FS_MAGIC;
}

/* systemd mounts /sys/fs/bpf, other init systems leave it to the first user. In a private mount
 * namespace (`ip netns exec` makes one) the pins would vanish with it, so not there. */
static int mount_default(const char *parent)
{
	char real[PATH_MAX];

	if (!realpath(parent, real) || !dmm_streq(real, DEFAULT_BPFFS))
		return dmm_steer_refuse(-ENOTSUP, "choose a directory below " DEFAULT_BPFFS,
					"%s is not on a BPF file system", parent);
	if (!same_mount_namespace_as_init())
		return dmm_steer_refuse(
			-ENOTSUP,
			"`ip netns exec` hides it: use `nsenter --net=FILE` or the "
			"option --netns; else: mount -t bpf bpf " DEFAULT_BPFFS,
			"no BPF file system is mounted on %s in this mount namespace", parent);
	if (mount("bpf", DEFAULT_BPFFS, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") < 0)
		return dmm_steer_fail(-errno, NULL, "cannot mount a BPF file system on %s", parent);
	return 0;
}

static int check_parent(const char *bpffs)
{
	dmm_autofree char *parent = strdup(bpffs);
	dmm_autoclose int fd = -1;
	char *slash;

	if (!parent)
		return -ENOMEM;
	slash = strrchr(parent, '/');
	if (!slash || slash == parent || !slash[1])
		return dmm_steer_refuse(-EINVAL, "for example " DEFAULT_BPFFS "/dmm",
					"'%s' cannot be a directory for pins", bpffs);
	*slash = '\0';
	fd = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return dmm_steer_fail(-errno, NULL, "%s", parent);
	return is_bpffs(fd) ? 0 : mount_default(parent);
}

int dmm_pins_open(const char *bpffs, int *ret_dir)
{
	dmm_autoclose int fd = -1;
	struct stat st;

	if (strlen(bpffs) >= sizeof(((struct dmm_steer *)0)->bpffs))
		return dmm_steer_refuse(-ENAMETOOLONG, NULL, "the path %s is too long", bpffs);
	fd = open(bpffs, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && (errno == ELOOP || errno == ENOTDIR))
		return dmm_steer_refuse(-ENOTDIR, "symbolic links are not followed here",
					"%s is not a directory", bpffs);
	if (fd < 0)
		return dmm_steer_fail(-errno, NULL, "%s", bpffs);
	if (!is_bpffs(fd))
		return dmm_steer_refuse(-ENOTSUP, NULL, "%s is not on a BPF file system", bpffs);
	if (fstat(fd, &st) < 0)
		return dmm_steer_fail(-errno, NULL, "%s", bpffs);
	if (st.st_uid != geteuid() || (st.st_mode & 077))
		return dmm_steer_refuse(-EPERM, "it must belong to root with mode 0700",
					"%s belongs to uid %u with mode %04o", bpffs, st.st_uid,
					st.st_mode & 07777);
	*ret_dir = DMM_TAKE_FD(fd);
	return 0;
}

int dmm_pins_claim(const char *bpffs, int *ret_dir)
{
	dmm_autoclose int fd = -1;
	int r = check_parent(bpffs);

	if (r < 0)
		return r;
	if (mkdir(bpffs, 0700) < 0 && errno != EEXIST)
		return dmm_steer_fail(-errno, NULL, "cannot make %s", bpffs);
	r = dmm_pins_open(bpffs, &fd);
	if (r < 0)
		return r;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return dmm_steer_refuse(-EBUSY, "stop it first, or give this one another --bpffs",
					"another dmmd holds %s", bpffs);
	*ret_dir = DMM_TAKE_FD(fd);
	return 0;
}

int dmm_pins_make_folders(const char *bpffs)
{
	static const char *const folders[] = { "maps", "progs", "links", "iters" };
	char path[DMM_PIN_PATH_LEN];
	size_t i;
	int r;

	for (i = 0; i < DMM_ARRAY_SIZE(folders); i++) {
		r = dmm_pin_path(path, bpffs, "%s", folders[i]);
		if (r < 0)
			return r;
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			return dmm_steer_fail(-errno, NULL, "cannot make %s", path);
	}
	return 0;
}

int dmm_pin_path(char *ret, const char *bpffs, const char *format, ...)
{
	int n = snprintf(ret, DMM_PIN_PATH_LEN, "%s/", bpffs);
	va_list ap;

	if (n < DMM_PIN_PATH_LEN) {
		va_start(ap, format);
		n += vsnprintf(ret + n, DMM_PIN_PATH_LEN - n, format, ap);
		va_end(ap);
	}
	return n < DMM_PIN_PATH_LEN ? 0
				    : dmm_steer_refuse(-ENAMETOOLONG, NULL,
						       "a path below %s is too long", bpffs);
}

int dmm_pin_get(const char *bpffs, const char *folder, const char *name)
{
	char path[DMM_PIN_PATH_LEN];
	int r = dmm_pin_path(path, bpffs, "%s/%s", folder, name);

	return r < 0 ? r : bpf_obj_get(path);
}

int dmm_pin_replace(int fd, const char *path)
{
	char new[DMM_PIN_PATH_LEN];
	int n = snprintf(new, sizeof(new), "%s_new", path), r;

	if (n >= (int)sizeof(new))
		return -ENAMETOOLONG;
	if (unlink(new) < 0 && errno != ENOENT)
		return dmm_steer_fail(-errno, NULL, "cannot remove %s", new);
	r = bpf_obj_pin(fd, new);
	if (r == 0 && rename(new, path) < 0)
		r = -errno;
	return r < 0 ? dmm_steer_fail(r, NULL, "cannot pin %s", path) : 0;
}

static int not_hidden(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

int dmm_pins_each(const char *bpffs, const char *folder, int (*fn)(void *ctx, const char *name),
		  void *ctx)
{
	char path[DMM_PIN_PATH_LEN];
	struct dirent **names = NULL;
	int r, i, n;

	r = dmm_pin_path(path, bpffs, "%s", folder);
	if (r < 0)
		return r;
	n = scandir(path, &names, not_hidden, alphasort);
	if (n < 0)
		return errno == ENOENT ? 0 : dmm_steer_fail(-errno, NULL, "%s", path);
	for (i = 0; i < n && !r; i++)
		r = fn(ctx, names[i]->d_name);
	for (i = 0; i < n; i++)
		free(names[i]);
	free(names);
	return r;
}

/* Whole buckets at a time: a get_next_key loop would start anew whenever its key goes away. */
int dmm_map_each(int map, size_t key_size, size_t value_size,
		 int (*fn)(void *ctx, const void *key, const void *value), void *ctx)
{
	__u32 room = 256, batch, next, n;
	bool first = true;
	int r;

	for (;;) {
		dmm_autofree char *keys = calloc(room, key_size);
		dmm_autofree char *values = calloc(room, value_size);
		__u32 i;

		if (!keys || !values)
			return -ENOMEM;
		n = room;
		r = bpf_map_lookup_batch(map, first ? NULL : &batch, &next, keys, values, &n, NULL);
		if (r == -ENOSPC) { /* one bucket is fuller than this */
			room *= 2;
			continue;
		}
		if (r < 0 && r != -ENOENT)
			return r;
		for (i = 0; i < n; i++) {
			int stop = fn(ctx, keys + i * key_size, values + i * value_size);

			if (stop)
				return stop;
		}
		if (r == -ENOENT)
			return 0;
		batch = next;
		first = false;
	}
}
