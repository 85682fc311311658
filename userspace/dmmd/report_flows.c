/* SPDX-License-Identifier: Apache-2.0 */
/* The flow list, for those who may not read the pinned maps themselves. */
#include "base/clock.h"
#include "ctl/json.h"
#include "ctl/report.h"
#include "dmmd/dmmd.h"
#include "dmmd/report.h"

struct listing {
	struct dmmd *d;
	struct json_object *items;
	uint64_t limit, total;
	uint64_t now;
};

static int add_flow(void *ctx, const struct dmm_flow *flow)
{
	struct listing *list = ctx;

	if (list->total++ < list->limit)
		json_object_array_add(list->items, dmm_report_flow(list->d->view, list->now, flow));
	return 0;
}

struct json_object *dmmd_report_flows(struct dmmd *d, uint64_t limit)
{
	struct json_object *doc = dmm_json_document("FlowList");
	struct listing list = {
		.d = d, .items = json_object_new_array(), .limit = limit, .now = dmm_now_ns()
	};

	dmm_view_flows(d->view, add_flow, &list);
	json_object_object_add(doc, "items", list.items);
	dmm_json_set_u64(doc, "total", list.total);
	dmm_json_set_bool(doc, "truncated", list.total > limit);
	return doc;
}
