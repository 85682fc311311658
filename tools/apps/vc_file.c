/* SPDX-License-Identifier: Apache-2.0 */
/* vc_file: gets a file from vs_file: `vc_file tcp ADDRESS PORT FILE CLIENT-ADDRESS [TARGET]`. */
#include "lib/apps.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TARGET "receive_file.txt"

static void receive(int fd, const char *target, uint64_t size)
{
	int file = open(target, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	static char buf[1 << 16];

	if (file < 0)
		app_fail(target, errno);
	for (uint64_t left = size; left > 0;) {
		size_t part = left < sizeof(buf) ? left : sizeof(buf);
		int r = app_read(fd, buf, part);

		if (r <= 0)
			app_fail("receive", r ? r : -EPIPE);
		r = app_write(file, buf, part);
		if (r < 0)
			app_fail(target, r);
		left -= part;
	}
	if (close(file) < 0)
		app_fail(target, errno);
}

int main(int argc, char **argv)
{
	union app_addr server, own;
	uint64_t size;
	int fd, r;

	app_usage(argc, argv,
		  (argc == 6 || argc == 7) && strcmp(argv[1], "tcp") == 0 &&
			  !strchr(argv[4], '\n') &&
			  app_addr_read(argv[2], app_port_read(argv[3]), &server) &&
			  app_addr_read(argv[5], 0, &own),
		  "tcp ADDRESS PORT FILE CLIENT-ADDRESS [TARGET]\n"
		  "gets FILE from vs_file into TARGET (" TARGET ")\n");
	fd = app_connect(&server, &own, APP_FILE_WAIT_S);
	if (fd < 0)
		app_fail("connect", fd);
	r = app_write(fd, argv[4], strlen(argv[4]));
	r = r ? r : app_write(fd, "\n", 1);
	if (r < 0)
		app_fail("send", r);
	r = app_read(fd, &size, sizeof(size));
	if (r <= 0)
		app_fail("receive", r ? r : -EPIPE);
	size = be64toh(size);
	if (size == UINT64_MAX)
		app_fail(argv[4], ENOENT);
	receive(fd, argc == 7 ? argv[6] : TARGET, size);
	printf("%" PRIu64 " bytes received\n", size);
	close(fd);
	return 0;
}
