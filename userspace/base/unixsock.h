/* SPDX-License-Identifier: Apache-2.0 */
/* Unix sockets by path, of any length (sockaddr_un alone stops at 107 bytes). All are CLOEXEC. */
#pragma once

#include <sys/types.h>

/* Listens at @path, replacing a socket nobody uses any more (callers hold the folder's lock).
 * @type: SOCK_STREAM or SOCK_SEQPACKET, | SOCK_NONBLOCK. */
int dmm_unix_listen(const char *path, int type, mode_t mode, int *ret_fd);
int dmm_unix_connect(const char *path, int type, int *ret_fd);
