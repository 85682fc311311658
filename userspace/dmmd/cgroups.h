/* SPDX-License-Identifier: Apache-2.0 */
/* Which cgroups are to be attached and given a class, whether they exist or not: a missing one is
 * taken care of when it appears, one that was removed and made again is attached again. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dmmd/loop.h"
#include "policy/policy.h"

struct dmmd;
struct dmmd_classes;

/* Why a cgroup is wanted; several may hold. */
#define DMMD_BY_POLICY 1u /* a rule of the live policy names it */
#define DMMD_BY_NEXT   2u /* a rule of the policy being applied does */
#define DMMD_BY_HAND   4u
#define DMMD_BY_RUN    8u  /* made by `dmmctl run`: removed when empty */
#define DMMD_BY_FLOWS  16u /* retired: steered flows of its are open, nothing new is decided */

struct dmmd_cgroup {
	char *path; /* below the cgroup root, normalised: "/a/b" */
	uint32_t by;
	uint32_t class_id; /* 0: none */
	uint64_t id;	   /* attached as; 0: not attached */
	char problem[192]; /* why it could not be attached, "" */
	bool fresh;	   /* attached, and nobody has been told what that came too late for */
};

struct dmmd_cgroups {
	struct dmmd_cgroup *items;
	size_t n;
	struct dmmd_source inotify;
	int *watches; /* descriptors of the folders watched now */
	size_t n_watches;
};

int dmmd_cgroups_init(struct dmmd *d);
void dmmd_cgroups_exit(struct dmmd *d);

/* "/a//b/" -> "/a/b", "/" stays. -EINVAL: not absolute, or has "..". */
int dmmd_cgroup_normalise(const char *path, char ret[static PATH_MAX]);
/* Below the cgroup root -> as a file name. */
int dmmd_cgroup_full(struct dmmd *d, const char *path, char ret[static PATH_MAX]);
/* The cgroup of a process, below the cgroup root. -EXDEV: it is not below it. */
int dmmd_cgroup_of(struct dmmd *d, pid_t pid, char ret[static PATH_MAX]);

struct dmmd_cgroup *dmmd_cgroups_find(struct dmmd *d, const char *path);
/* Are its connections decided? NULL and retired ones: no. */
bool dmmd_cgroup_is_attached(const struct dmmd_cgroup *cgroup);

/* Wants @path for @by. 0 also where it does not exist; other errors (see dmm_steer_reason()) leave
 * all as it was. @class_id 0: whatever class it has. */
int dmmd_cgroups_want(struct dmmd *d, const char *path, uint32_t by, uint32_t class_id);
/* Takes @by from it; when nothing is left it is retired, and detached after its last steered flow. */
void dmmd_cgroups_unwant(struct dmmd *d, const char *path, uint32_t by);
/* An earlier dmmd retired it. */
int dmmd_cgroups_adopt_retired(struct dmmd *d, const char *path);

/* All cgroups that @policy's rules name, as DMMD_BY_NEXT; afterwards one of commit and cancel. */
int dmmd_cgroups_prepare(struct dmmd *d, const struct dmm_policy *policy,
			 struct dmmd_classes *classes, uint32_t generation);
/* Between the two: the class of a cgroup, by what is wanted for the next policy; negative: none. */
int dmmd_cgroups_next_class(struct dmmd *d, uint64_t cgroup_id);
void dmmd_cgroups_commit(struct dmmd *d);
void dmmd_cgroups_cancel(struct dmmd *d);

/* Compares what is wanted with what is there. */
void dmmd_cgroups_sync(struct dmmd *d);
/* Removes those that `run` made and nobody is in any more, and the retired ones whose flows have
 * ended; retries what failed. */
void dmmd_cgroups_tick(struct dmmd *d);

/* Steered flows of @path's subtree that are open; also true where that cannot be told. */
bool dmmd_cgroup_has_flows(struct dmmd *d, const char *path);
/* TCP sockets made in @path's subtree that are there already. */
struct dmmd_late {
	uint64_t connected, listening; /* connected, or connecting */
};
int dmmd_cgroup_count_sockets(struct dmmd *d, const char *path, struct dmmd_late *ret);
