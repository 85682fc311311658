/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs that measure hooks share: going into a cgroup, and a hook that does nothing. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include <bpf/libbpf.h>

#include "base/util.h"
#include "bench/floor.skel.h"

static inline int enter(const char *cgroup)
{
	dmm_autofclose FILE *f = NULL;
	char path[512];

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	f = fopen(path, "we");
	if (!f || fprintf(f, "0") < 0 || fflush(f) != 0)
		return -errno;
	return 0;
}

static inline int attach_empty_hook(const char *cgroup, struct floor_bpf **ret)
{
	dmm_autoclose int fd = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct floor_bpf *skel;

	if (fd < 0)
		return -errno;
	skel = floor_bpf__open_and_load();
	if (!skel)
		return -errno;
	skel->links.floor_connect4 = bpf_program__attach_cgroup(skel->progs.floor_connect4, fd);
	skel->links.floor_connect6 = bpf_program__attach_cgroup(skel->progs.floor_connect6, fd);
	if (!skel->links.floor_connect4 || !skel->links.floor_connect6) {
		floor_bpf__destroy(skel);
		return -EINVAL;
	}
	*ret = skel;
	return 0;
}
