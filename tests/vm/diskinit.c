/* SPDX-License-Identifier: Apache-2.0 */
/* The initramfs of the harness: Debian's kernel has the driver of its disk as a module. Loads it and goes
 * on with the system on the disk. Statically linked. */
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "modules.h"

#define DISK "/dev/vda"

static void must(int r, const char *what)
{
	if (r == 0)
		return;
	printf("DMM-GUEST: %s: %s\n", what, strerror(errno));
	exit(1); /* the kernel panics, and qemu ends */
}

int main(void)
{
	if (getpid() != 1) {
		fprintf(stderr, "diskinit: runs as process 1 of the test guest only\n");
		return 1;
	}
	mkdir("/dev", 0755);
	mkdir("/root", 0755);
	must(mount("devtmpfs", "/dev", "devtmpfs", 0, NULL), "devtmpfs");
	load_modules();
	must(mount(DISK, "/root", "ext4", 0, NULL), DISK);
	must(mount("/dev", "/root/dev", NULL, MS_MOVE, NULL), "moving /dev");
	must(chdir("/root"), "/root");
	must(mount(".", "/", NULL, MS_MOVE, NULL), "moving the root");
	must(chroot("."), "chroot");
	execl("/sbin/init", "init", NULL);
	must(-1, "/sbin/init");
}
