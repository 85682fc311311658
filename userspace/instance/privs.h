/* SPDX-License-Identifier: Apache-2.0 */
/* Giving up privileges, for good. */
#pragma once

#include <sys/types.h>

/* Becomes @uid and @gid (0: stays what it is) with no other groups, no capability, no way to gain
 * one, no core dump and no ptrace by its own user. Raises the soft limit of descriptors. On failure the
 * caller must exit: some of it may be gone. */
int privs_drop(uid_t uid, gid_t gid);
