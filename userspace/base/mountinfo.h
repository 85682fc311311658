/* SPDX-License-Identifier: Apache-2.0 */
/* Where things are mounted, from the text of /proc/self/mountinfo. */
#pragma once

#include <stddef.h>

/* The first mount point of that file system type, escapes undone. -ENOENT: none. -ENAMETOOLONG. */
int dmm_mountinfo_find(const char *mountinfo, const char *fstype, char *ret, size_t size);

/* The same for this process. */
int dmm_mount_find(const char *fstype, char *ret, size_t size);

/* The mount point that @path lies in, of that type (longest match). -ENOENT: none. */
int dmm_mountinfo_covering(const char *mountinfo, const char *fstype, const char *path, char *ret,
			   size_t size);
int dmm_mount_covering(const char *fstype, const char *path, char *ret, size_t size);
