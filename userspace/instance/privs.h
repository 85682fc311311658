/* SPDX-License-Identifier: Apache-2.0 */
/* Giving up privileges, for good. */
#pragma once

#include <sys/types.h>

/* Becomes @uid and @gid (0: stays what it is) with no other groups, no capability in effect, no way to
 * gain one by executing, no core dump and no ptrace by its own user. What it needs once more for its
 * empty root it keeps in reserve. Raises the soft limit of descriptors. On failure of any of these
 * the caller must exit: some of it may be gone. */
int privs_lower(uid_t uid, gid_t gid);
/* Puts the reserve into effect. */
int privs_raise(void);
/* Gives it up, for good. */
int privs_drop(void);
