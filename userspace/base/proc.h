/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc says about processes. A pid alone may be somebody else by now: pid and start time of
 * one boot name a process for good. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define DMM_BOOT_ID_LEN 37

/* Field 22 of a /proc/PID/stat text (clock ticks since boot), -EBADMSG if it has none. */
int dmm_proc_parse_stat(const char *stat, uint64_t *ret_start_time);

/* -ESRCH: no such process. */
int dmm_proc_start_time(pid_t pid, uint64_t *ret);

/* Its cgroup2 path below the mount, "/" for the root. */
int dmm_proc_cgroup(pid_t pid, char *ret, size_t size);

int dmm_proc_boot_id(char ret[static DMM_BOOT_ID_LEN]);
