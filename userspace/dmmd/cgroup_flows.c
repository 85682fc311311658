/* SPDX-License-Identifier: Apache-2.0 */
/* Looks for the steered flows that a retired cgroup still has to name. */
#include <string.h>

#include "dmmd/dmmd.h"

struct search {
	struct dmmd *d;
	char full[PATH_MAX];
};

/* One that was removed may have been anywhere. */
static bool may_be_below(const struct search *search, uint64_t cgroup)
{
	size_t len = strlen(search->full);
	char path[PATH_MAX];

	return dmm_steer_cgroup_path(search->d->steer, cgroup, path, sizeof(path)) < 0 ||
	       (strncmp(path, search->full, len) == 0 && (!path[len] || path[len] == '/'));
}

static int on_flow(void *ctx, uint64_t cookie, const struct dmm_flow *flow)
{
	(void)cookie;
	return flow->verdict == DMM_VERDICT_USERSPACE && !flow->closed_ns &&
	       may_be_below(ctx, flow->cgroup);
}

bool dmmd_cgroup_has_flows(struct dmmd *d, const char *path)
{
	struct search search = { .d = d };

	return dmmd_cgroup_full(d, path, search.full) < 0 ||
	       dmm_view_flows(d->view, on_flow, &search) != 0;
}
