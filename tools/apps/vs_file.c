/* SPDX-License-Identifier: Apache-2.0 */
/* vs_file: serves the files of its folder, a process for each client: `vs_file tcp ADDRESS PORT [CLIENTS]`.
 * A client sends a name and a newline; the answer is the size, 8 bytes in network order, all ones where
 * there is no such file, and its bytes. */
#include "lib/apps.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_name(int fd, char *ret)
{
	for (size_t i = 0; i <= NAME_MAX; i++) {
		int r = app_read(fd, ret + i, 1);

		if (r <= 0)
			return r ? r : -EPIPE;
		if (ret[i] == '\n') {
			ret[i] = '\0';
			return 0;
		}
	}
	return -ENAMETOOLONG;
}

/* Of this folder, no other. */
static int open_file(const char *name, off_t *ret_size)
{
	/* not blocking: it may be a FIFO */
	const int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	int file = strchr(name, '/') ? -1 : open(name, flags);
	struct stat st;

	if (file >= 0 && (fstat(file, &st) < 0 || !S_ISREG(st.st_mode))) {
		close(file);
		return -1;
	}
	*ret_size = file >= 0 ? st.st_size : -1;
	return file;
}

static int send_file(int fd, int file, off_t size)
{
	off_t at = 0;

	while (at < size) {
		ssize_t n = sendfile(fd, file, &at, (size_t)(size - at));

		if (n < 0 && errno != EINTR)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (n == 0)
			return -EIO; /* it has become shorter */
	}
	return 0;
}

static int serve(int fd)
{
	char name[NAME_MAX + 1];
	uint64_t header;
	off_t size = -1;
	int file, r;

	r = read_name(fd, name);
	if (r < 0)
		return r;
	file = open_file(name, &size);
	header = htobe64((uint64_t)size);
	r = app_write(fd, &header, sizeof(header));
	if (r == 0 && file >= 0)
		r = send_file(fd, file, size);
	if (file >= 0)
		close(file);
	return r;
}

int main(int argc, char **argv)
{
	unsigned int clients;
	union app_addr own;

	app_usage(argc, argv,
		  (argc == 4 || argc == 5) && strcmp(argv[1], "tcp") == 0 &&
			  app_addr_read(argv[2], app_port_read(argv[3]), &own),
		  "tcp ADDRESS PORT [CLIENTS]\n"
		  "serves the files of its folder to so many clients (0: without end)\n");
	clients = argc == 5 ? app_count_read(argv[4]) : 0;
	return app_serve_by_processes(app_listen(&own), clients, APP_FILE_WAIT_S, serve);
}
