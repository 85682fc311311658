/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel modules for an init that has nothing else: those in /modules, in the order of their names, which
 * the maker of the initramfs begins with numbers. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

static inline void load_modules(void)
{
	glob_t found;
	size_t i;

	if (glob("/modules/*.ko", 0, NULL, &found) != 0)
		return;
	for (i = 0; i < found.gl_pathc; i++) {
		dmm_autoclose int fd = open(found.gl_pathv[i], O_RDONLY | O_CLOEXEC);

		if (syscall(SYS_finit_module, fd, "", 0) < 0)
			printf("# module %s: %s\n", found.gl_pathv[i], strerror(errno));
	}
	globfree(&found);
}
