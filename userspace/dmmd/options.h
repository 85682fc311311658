/* SPDX-License-Identifier: Apache-2.0 */
/* dmmd's command line: one table from which parsing and --help are made. */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/log.h"

struct dmmd_options {
	const char *policy; /* NULL: the last good one */
	const char *run_dir, *state_dir, *bpffs;
	const char *cgroup_root; /* NULL until completed: the cgroup2 mount */
	const char *run_cgroup;	 /* below it; completed: "" is the root itself */
	const char *netns;	 /* NULL: its own */
	const char *group, *user;
	const char *libexec, *stacks_dir; /* NULL until completed */
	const char *stack_socket;	  /* NULL: instances are forked */
	enum dmm_log_level log_level;
	uint64_t stale_after_ms, dead_after_ms;

	/* found by complete() */
	gid_t socket_gid; /* of --group; (gid_t)-1: no such group */
	uid_t uid;	  /* instances become this */
	gid_t gid;
	char *owned[5]; /* strings behind the pointers above */
};

#define DMMD_GO_ON -1

/* DMMD_GO_ON, or what to exit with: 0 after --help and --version, 2 after saying what is wrong. */
int dmmd_options_parse(struct dmmd_options *options, int argc, char **argv);
/* Fills in what depends on the machine; logs what is missing. */
int dmmd_options_complete(struct dmmd_options *options);
void dmmd_options_free(struct dmmd_options *options);

void dmmd_options_help(FILE *out);
