/* SPDX-License-Identifier: Apache-2.0 */
/* Who else runs where our programs do: filters on lo's way out, and programs at the hooks of our
 * cgroups or of those above. They may stop or change what ours are to see. */
#include <errno.h>
#include <net/if.h>

#include "base/util.h"
#include "steer/steer_internal.h"

#define MAX_PROGRAMS 1024 /* a cgroup takes 64, and each one above it as many */
#ifndef BPF_F_QUERY_EFFECTIVE
#define BPF_F_QUERY_EFFECTIVE (1U << 0)
#endif
#define TCX_EGRESS 47 /* BPF_TCX_EGRESS, from kernel 6.6 on */

struct listing {
	void (*fn)(void *ctx, const struct dmm_beside *beside);
	void *ctx;
	bool passed;  /* ours */
	bool ingress; /* of lo */
};

static void name_program(uint32_t id, char *ret, size_t size)
{
	dmm_autoclose int fd = bpf_prog_get_fd_by_id(id);
	struct bpf_prog_info info = {};
	__u32 len = sizeof(info);

	if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &len) == 0)
		snprintf(ret, size, "%s", info.name);
}

/* --- lo --- */

static void tell_filter(void *ctx, const struct dmm_lo_filter *filter)
{
	struct listing *listing = ctx;
	struct dmm_beside beside = {
		.where = "lo egress",
		.prog_id = filter->prog_id,
		.first = !listing->passed,
	};

	if (dmm_lo_is_our_place(filter)) {
		listing->passed = true;
		return;
	}
	if (listing->ingress)
		memcpy(beside.where, "lo ingress", sizeof("lo ingress"));
	memcpy(beside.kind, filter->kind, sizeof(beside.kind));
	memcpy(beside.name, filter->name, sizeof(beside.name));
	listing->fn(listing->ctx, &beside);
}

/* All of these come before the filters. */
static void list_tcx(struct listing *listing)
{
	uint32_t ids[MAX_PROGRAMS];
	LIBBPF_OPTS(bpf_prog_query_opts, opts, .prog_ids = ids, .prog_cnt = MAX_PROGRAMS);

	if (bpf_prog_query_opts(if_nametoindex("lo"), TCX_EGRESS, &opts) < 0)
		return; /* an older kernel */
	for (uint32_t i = 0; i < DMM_MIN(opts.prog_cnt, MAX_PROGRAMS); i++) {
		struct dmm_beside beside = {
			.where = "lo egress",
			.kind = "tcx",
			.prog_id = ids[i],
			.first = true,
		};

		name_program(ids[i], beside.name, sizeof(beside.name));
		listing->fn(listing->ctx, &beside);
	}
}

/* --- cgroups --- */

static bool is_among(uint32_t id, const uint32_t *ids, uint32_t n)
{
	while (n-- > 0)
		if (ids[n] == id)
			return true;
	return false;
}

static void list_hook(struct dmm_steer *steer, int cgroup_fd, uint64_t cgroup_id,
		      enum dmm_hook_id hook, struct listing *listing)
{
	uint32_t ids[MAX_PROGRAMS], n = MAX_PROGRAMS, ours = steer->hook[hook].id;

	if (bpf_prog_query(cgroup_fd, dmm_hook_type(hook), BPF_F_QUERY_EFFECTIVE, NULL, ids, &n) <
	    0)
		return;
	n = DMM_MIN(n, MAX_PROGRAMS);
	for (uint32_t i = 0; i < n; i++) {
		struct dmm_beside beside = {
			.cgroup_id = cgroup_id,
			.kind = "cgroup",
			.prog_id = ids[i],
			.first = !is_among(ours, ids, i) && is_among(ours, ids, n),
		};

		if (ids[i] == ours)
			continue;
		snprintf(beside.where, sizeof(beside.where), "%s", dmm_hook_names[hook]);
		name_program(ids[i], beside.name, sizeof(beside.name));
		listing->fn(listing->ctx, &beside);
	}
}

static void list_cgroup(struct dmm_steer *steer, uint64_t id, struct listing *listing)
{
	dmm_autoclose int fd = dmm_cgroup_open(steer, id);

	if (fd < 0)
		return; /* gone */
	for (unsigned int hook = 0; hook < DMM_NUM_CGROUP_HOOKS; hook++)
		list_hook(steer, fd, id, hook, listing);
}

static int list_cgroups(struct dmm_steer *steer, struct listing *listing)
{
	unsigned int n = dmm_steer_cgroups(steer, NULL, 0);
	dmm_autofree uint64_t *ids = calloc(n + 1, sizeof(*ids));

	if (!ids)
		return -ENOMEM;
	n = DMM_MIN(n, dmm_steer_cgroups(steer, ids, n));
	for (unsigned int i = 0; i < n; i++)
		list_cgroup(steer, ids[i], listing);
	return 0;
}

int dmm_steer_beside(struct dmm_steer *steer,
		     void (*fn)(void *ctx, const struct dmm_beside *beside), void *ctx)
{
	struct listing listing = { .fn = fn, .ctx = ctx };
	int r = dmm_lo_each(false, tell_filter, &listing);

	if (r == 0) {
		/* what ours lets go meets them */
		listing.ingress = listing.passed = true;
		r = dmm_lo_each(true, tell_filter, &listing);
	}
	if (r < 0)
		return dmm_steer_fail(r, NULL, "cannot read the filters of lo");
	list_tcx(&listing);
	r = list_cgroups(steer, &listing);
	return r < 0 ? dmm_steer_fail(r, NULL, "cannot list the cgroups' programs") : 0;
}
