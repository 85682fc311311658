/* SPDX-License-Identifier: Apache-2.0 */
/* Socket options that are an int. */
#pragma once

#include <errno.h>
#include <sys/socket.h>

static inline int dmm_set_sockopt(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}
