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

static int on_steered(void *ctx, const struct dmm_peer *peer)
{
	return may_be_below(ctx, peer->cgroup);
}

bool dmmd_cgroup_has_flows(struct dmmd *d, const char *path)
{
	struct search search = { .d = d };

	return dmmd_cgroup_full(d, path, search.full) < 0 ||
	       dmm_view_steered(d->view, on_steered, &search) != 0;
}
