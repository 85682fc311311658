/* SPDX-License-Identifier: Apache-2.0 */
/* Long paths go through a descriptor of their folder: /proc/self/fd/N/name. */
#define _GNU_SOURCE
#include "base/unixsock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/util.h"

#define BACKLOG 128

static int address(const char *path, struct sockaddr_un *ret, int *ret_dir)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	const char *slash = strrchr(path, '/');
	dmm_autoclose int dir = -1;
	char folder[PATH_MAX];
	size_t n;

	if (strlen(path) < sizeof(sa.sun_path)) {
		memcpy(sa.sun_path, path, strlen(path) + 1);
	} else {
		if (!slash || slash == path || slash - path >= PATH_MAX)
			return -ENAMETOOLONG;
		memcpy(folder, path, slash - path);
		folder[slash - path] = '\0';
		dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			return -errno;
		n = snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/%s", dir,
			     slash + 1);
		if (n >= sizeof(sa.sun_path))
			return -ENAMETOOLONG;
	}
	*ret = sa;
	*ret_dir = DMM_TAKE_FD(dir);
	return 0;
}

/* A socket, and the address of @path as long as *ret_dir is open. */
static int prepare(const char *path, int type, struct sockaddr_un *ret, int *ret_dir, int *ret_fd)
{
	int r = address(path, ret, ret_dir), fd;

	if (r < 0)
		return r;
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int dmm_unix_listen(const char *path, int type, mode_t mode, int *ret_fd)
{
	dmm_autoclose int fd = -1, dir = -1;
	struct sockaddr_un sa;
	int r = prepare(path, type, &sa, &dir, &fd);

	if (r < 0)
		return r;
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	/* Linux makes the socket file with the mode of the socket itself: no moment too open */
	if (fchmod(fd, mode) < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
	    chmod(path, mode) < 0 || listen(fd, BACKLOG) < 0)
		return -errno;
	*ret_fd = DMM_TAKE_FD(fd);
	return 0;
}

int dmm_unix_connect(const char *path, int type, int *ret_fd)
{
	dmm_autoclose int fd = -1, dir = -1;
	struct sockaddr_un sa;
	int r = prepare(path, type, &sa, &dir, &fd);

	if (r < 0)
		return r;
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return -errno;
	*ret_fd = DMM_TAKE_FD(fd);
	return 0;
}
