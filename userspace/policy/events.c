/* SPDX-License-Identifier: Apache-2.0 */
/* libyaml's events, one at a time, and what is refused among them. */
#include "policy/events.h"

#include <errno.h>

#include "policy/policy_internal.h"

int dmm_events_open(struct dmm_events *events, const char *text, size_t len,
		    struct dmm_findings *found)
{
	if (!yaml_parser_initialize(&events->yaml))
		return -ENOMEM;
	events->open = true;
	events->text = text;
	events->len = len;
	events->found = found;
	yaml_parser_set_encoding(&events->yaml, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&events->yaml, (const unsigned char *)text, len);
	return 0;
}

void dmm_events_close(struct dmm_events *events)
{
	if (events->have)
		yaml_event_delete(&events->event);
	if (events->open)
		yaml_parser_delete(&events->yaml);
	*events = (struct dmm_events){ 0 };
}

static struct dmm_place place_of(const yaml_mark_t *start, const yaml_mark_t *end)
{
	struct dmm_place place = { start->line + 1, start->column + 1, 1 };

	if (end->line == start->line && end->column > start->column)
		place.length = end->column - start->column;
	return place;
}

struct dmm_place dmm_events_place(const struct dmm_events *events)
{
	return place_of(&events->event.start_mark, &events->event.end_mark);
}

/* IPv6 prefixes are where YAML's own rules surprise. The mark counts characters: while all before it
 * is ASCII that is the byte, else this only misses. */
static bool at_colon(const struct dmm_events *events)
{
	size_t index = events->yaml.problem_mark.index;

	return index < events->len && events->text[index] == ':';
}

static int syntax_error(struct dmm_events *events)
{
	const yaml_parser_t *yaml = &events->yaml;
	struct dmm_place place = place_of(&yaml->problem_mark, &yaml->problem_mark);
	char hint[160] = "";
	int r;

	if (yaml->error == YAML_MEMORY_ERROR)
		return -ENOMEM;
	if (at_colon(events))
		snprintf(hint, sizeof(hint),
			 "inside [ ] and { } put quotes around what starts with ':'");
	else if (yaml->context)
		snprintf(hint, sizeof(hint), "%s that starts at %zu:%zu", yaml->context,
			 yaml->context_mark.line + 1, yaml->context_mark.column + 1);
	r = dmm_find(events->found, DMM_CODE_SYNTAX, place, hint[0] ? hint : NULL, "%s",
		     yaml->problem ? yaml->problem : "not well-formed YAML");
	return r < 0 ? r : -EINVAL;
}

static void refuse_anchor_and_tag(struct dmm_events *events, const yaml_char_t *anchor,
				  const yaml_char_t *tag)
{
	struct dmm_place place = dmm_events_place(events);

	if (anchor)
		dmm_find(events->found, DMM_CODE_ALIAS, place, "write the value where it is used",
			 "anchor '&%.80s' is not allowed", (const char *)anchor);
	if (tag)
		dmm_find(events->found, DMM_CODE_TAG, place, "every field has its own type",
			 "tag '%.80s' is not allowed", (const char *)tag);
}

static int enter(struct dmm_events *events)
{
	int r;

	if (++events->depth <= DMM_MAX_DEPTH)
		return 0;
	r = dmm_find(events->found, DMM_CODE_DEPTH, dmm_events_place(events), NULL,
		     "nested more than %d deep", DMM_MAX_DEPTH);
	return r < 0 ? r : -EINVAL;
}

int dmm_events_next(struct dmm_events *events)
{
	yaml_event_t *event = &events->event;

	if (events->have)
		yaml_event_delete(event);
	events->have = yaml_parser_parse(&events->yaml, event);
	if (!events->have)
		return syntax_error(events);

	switch (event->type) {
	case YAML_ALIAS_EVENT:
		dmm_find(events->found, DMM_CODE_ALIAS, dmm_events_place(events),
			 "write the value where it is used", "alias '*%.80s' is not allowed",
			 (const char *)event->data.alias.anchor);
		return 0;
	case YAML_SCALAR_EVENT:
		refuse_anchor_and_tag(events, event->data.scalar.anchor, event->data.scalar.tag);
		return 0;
	case YAML_SEQUENCE_START_EVENT:
		refuse_anchor_and_tag(events, event->data.sequence_start.anchor,
				      event->data.sequence_start.tag);
		return enter(events);
	case YAML_MAPPING_START_EVENT:
		refuse_anchor_and_tag(events, event->data.mapping_start.anchor,
				      event->data.mapping_start.tag);
		return enter(events);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		events->depth--;
		return 0;
	default:
		return 0;
	}
}

int dmm_events_finish(struct dmm_events *events)
{
	int r = dmm_events_next(events); /* the document's end */

	if (r == 0)
		r = dmm_events_next(events);
	if (r == 0 && events->event.type != YAML_STREAM_END_EVENT)
		r = dmm_find(events->found, DMM_CODE_DOCUMENTS, dmm_events_place(events),
			     "put each policy into a file of its own",
			     "a second document starts here");
	return r;
}

int dmm_events_skip(struct dmm_events *events)
{
	unsigned int depth = events->depth;
	int r;

	if (events->event.type != YAML_SEQUENCE_START_EVENT &&
	    events->event.type != YAML_MAPPING_START_EVENT)
		return 0;
	do {
		r = dmm_events_next(events);
		if (r < 0)
			return r;
	} while (events->depth >= depth);
	return 0;
}
