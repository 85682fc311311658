/* SPDX-License-Identifier: Apache-2.0 */
/* Whole files: read with a cap, written so that a crash leaves the old or the new text, never half. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* Reads at most @max bytes; *ret is NUL-terminated and the caller's. @path may be in /proc.
 * -EFBIG: longer than @max. @ret_len may be NULL. */
int dmm_file_read(const char *path, size_t max, char **ret, size_t *ret_len);

/* Writes PATH.tmp, syncs it, renames it over @path and syncs the folder. */
int dmm_file_write_atomic(const char *path, const void *data, size_t len, mode_t mode);

/* rename(2), and syncs the folder of @to. */
int dmm_file_rename(const char *from, const char *to);

/* Writes @text to an existing file in one write (sysctl, cgroup.procs). */
int dmm_file_put(const char *path, const char *text);

/* Makes the folder and what is missing above it (0755); the last one gets @mode. An existing one
 * is fine. */
int dmm_mkdirs(const char *path, mode_t mode);

/* Takes the exclusive lock on @path (made if missing, 0600) until the descriptor is closed.
 * -EBUSY: somebody else holds it. */
int dmm_file_lock(const char *path, int *ret_fd);
