/* SPDX-License-Identifier: Apache-2.0 */
/* YAML as a stream of events with the parts refused that a policy must not have: anchors, aliases,
 * tags, several documents, deep nesting. Never builds a document: memory is one event. */
#pragma once

#include <yaml.h>

#include "policy/policy.h"

/* Memory the caller zeroes. Text and findings stay the caller's. */
struct dmm_events {
	yaml_parser_t yaml;
	yaml_event_t event; /* the one at hand; owned */
	bool open, have;
	unsigned int depth;
	const char *text;
	size_t len;
	struct dmm_findings *found;
};

int dmm_events_open(struct dmm_events *events, const char *text, size_t len,
		    struct dmm_findings *found);
void dmm_events_close(struct dmm_events *events);

/* Makes the next event the one at hand. -EINVAL: the rest cannot be read, the finding is added. */
int dmm_events_next(struct dmm_events *events);

/* Moves behind the document; adds a finding where another one follows. */
int dmm_events_finish(struct dmm_events *events);

/* Moves behind the value whose first event is at hand, whatever is in it. */
int dmm_events_skip(struct dmm_events *events);

struct dmm_place dmm_events_place(const struct dmm_events *events);
