/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets that programs go along with, whoever holds them: they are made in a cgroup of their own, which is
 * removed at once. They keep it, and the programs on it, alive. */
#pragma once

struct dmmd;

/* @attach puts the programs on the cgroup, @make makes the sockets in it: in a child that shares memory and
 * descriptors, while the caller waits. Both get @ctx; 0 or the first negative errno. */
int dmmd_confined(struct dmmd *d, int (*attach)(void *ctx, int cgroup_fd), int (*make)(void *ctx),
		  void *ctx);
