/* SPDX-License-Identifier: Apache-2.0 */
/* Walks the events along the table of fields: one recursive step per mapping, list or value. What is
 * wrong is added to the findings and skipped; only what cannot be read at all ends the walk. */
#include "policy/policy.h"

#include <errno.h>
#include <fcntl.h>

#include "base/util.h"
#include "policy/events.h"
#include "policy/policy_internal.h"

struct parser {
	struct dmm_events events;
	struct dmm_findings *found;
};

/* Where a value stands in the document, for messages. */
struct context {
	const struct dmm_object *object;
	const struct dmm_field *field;
};

static int parse_object(struct parser *p, const struct dmm_object *object, void *target);

/* What stands at hand, in words. */
static const char *event_text(const struct parser *p)
{
	const yaml_event_t *event = &p->events.event;

	switch (event->type) {
	case YAML_MAPPING_START_EVENT:
		return "a mapping";
	case YAML_SEQUENCE_START_EVENT:
		return "a list";
	case YAML_SCALAR_EVENT:
		return event->data.scalar.length ? "a plain value" : "nothing";
	default:
		return "an alias";
	}
}

/* Says that @wanted should stand here, and goes on behind what does. */
static int wrong_type(struct parser *p, const char *name, const char *wanted, const char *hint)
{
	struct dmm_place place = dmm_events_place(&p->events);
	int r = 0;

	if (p->events.event.type != YAML_ALIAS_EVENT) /* that has been said */
		r = dmm_find(p->found, DMM_CODE_WRONG_TYPE, place, hint, "%s must be %s, not %s",
			     name, wanted, event_text(p));
	return r < 0 ? r : dmm_events_skip(&p->events);
}

/* The scalar at hand. 1: *ret is set (valid until the next event); 0: it was none. */
static int take_scalar(struct parser *p, const struct dmm_field *field, struct dmm_scalar *ret)
{
	const yaml_event_t *event = &p->events.event;
	int r;

	if (event->type == YAML_SEQUENCE_START_EVENT && field->list_later) {
		r = dmm_find(p->found, DMM_CODE_LATER, dmm_events_place(&p->events), NULL,
			     "%s in %s are not supported in this version", field->list_later,
			     field->name);
		return r < 0 ? r : dmm_events_skip(&p->events);
	}
	if (event->type != YAML_SCALAR_EVENT)
		return wrong_type(p, field->name, "a plain value", NULL);
	*ret = (struct dmm_scalar){ .text = (const char *)event->data.scalar.value,
				    .len = event->data.scalar.length,
				    .place = dmm_events_place(&p->events),
				    .field = field->name };
	if (strlen(ret->text) != ret->len) {
		r = dmm_find(p->found, DMM_CODE_ENCODING, ret->place, NULL, "%s holds a NUL byte",
			     field->name);
		return r < 0 ? r : 0;
	}
	return 1;
}

/* "auto, native or generic" */
static const char *list_words(const char *const *words, char *buf, size_t size)
{
	size_t i, n = 0;

	buf[0] = 0;
	for (i = 0; words[i] && n < size; i++)
		n += snprintf(buf + n, size - n, "%s%s",
			      i == 0	     ? ""
			      : words[i + 1] ? ", "
					     : " or ",
			      words[i]);
	return buf;
}

/* Which of the field's words @s is, or -1 with a finding added. */
static int find_word(struct parser *p, const struct dmm_field *field, const struct dmm_scalar *s)
{
	struct dmm_suggestion like = { .wanted = s->text };
	char nearest[DMM_NAME_LEN + 24], words[160];
	int i;

	for (i = 0; field->words[i]; i++) {
		if (dmm_streq(s->text, field->words[i]))
			return i;
		dmm_suggest(&like, field->words[i]);
	}
	list_words(field->words, words, sizeof(words));
	for (i = 0; field->later && field->later[i]; i++) {
		if (dmm_streq(s->text, field->later[i])) {
			dmm_find(p->found, DMM_CODE_LATER, s->place, NULL,
				 "%s '%s' is not supported in this version, only %s", field->name,
				 s->text, words);
			return -1;
		}
	}
	dmm_find(p->found, field->code ? field->code : DMM_CODE_UNKNOWN_WORD, s->place, NULL,
		 "unknown %s '%.80s'%s (known: %s)", field->name, s->text,
		 dmm_suggest_text(&like, nearest, sizeof(nearest)), words);
	return -1;
}

static void set_word(struct parser *p, const struct dmm_field *field, const struct dmm_scalar *s,
		     void *at)
{
	int word = find_word(p, field, s);
	bool *flags = at;

	if (word < 0)
		return;
	if (field->type == DMM_FIELD_WORD)
		memcpy(at, &word, sizeof(word)); /* an enum */
	else if (field->type == DMM_FIELD_BACKEND)
		snprintf(at, DMM_NAME_LEN, "%s", s->text);
	else if (field->type == DMM_FIELD_DIR) /* connect, listen, any */
		for (int dir = 0; dir < DMM_NUM_DIRS; dir++)
			flags[dir] = word == dir || word == DMM_NUM_DIRS;
	else if (field->type == DMM_FIELD_PROTO && word < DMM_NUM_PROTOS)
		flags[!word] = false; /* the words are tcp, udp, any */
}

static void set_reject(struct parser *p, const struct dmm_scalar *s, enum dmm_action *ret)
{
	if (dmm_streq(s->text, "true"))
		*ret = DMM_ACTION_REJECT;
	else
		dmm_find(p->found, DMM_CODE_ACTION, s->place,
			 "leave it out to let connections through",
			 "reject can only be true, not '%.80s'", s->text);
}

static int parse_scalar(struct parser *p, const struct dmm_field *field, void *at)
{
	struct dmm_scalar s;
	int r = take_scalar(p, field, &s);

	if (r <= 0)
		return r;
	switch (field->type) {
	case DMM_FIELD_NAME:
		dmm_value_name(&s, at, p->found);
		return 0;
	case DMM_FIELD_IFNAME:
		dmm_value_ifname(&s, at, p->found);
		return 0;
	case DMM_FIELD_RANGE:
		dmm_value_range(&s, field->min, field->max, at, p->found);
		return 0;
	case DMM_FIELD_MEMORY:
		dmm_value_memory(&s, field->min, field->max, at, p->found);
		return 0;
	case DMM_FIELD_NUMBER:
		dmm_value_number(&s, field->min, field->max, at, p->found);
		return 0;
	case DMM_FIELD_CGROUP:
		return dmm_value_cgroup(&s, at, p->found);
	case DMM_FIELD_REJECT:
		set_reject(p, &s, at);
		return 0;
	default:
		set_word(p, field, &s, at);
		return 0;
	}
}

/* Room for one more item, zeroed, in the array of @field. NULL: no memory. */
static void *append(const struct dmm_field *field, void *target, size_t size)
{
	void **array = (void **)((char *)target + field->offset);
	size_t *n = (size_t *)((char *)target + field->count_offset);
	void *bigger, *item;

	bigger = dmm_room_for_one(*array, *n, size);
	if (!bigger)
		return NULL;
	*array = bigger;
	item = (char *)*array + (*n)++ * size;
	memset(item, 0, size);
	return item;
}

union item {
	struct dmm_cidr cidr;
	struct dmm_port_range ports;
	struct dmm_uid_range uids;
	char comm[16];
};

/* Its size; 0: it is wrong. */
static size_t read_item(struct parser *p, const struct dmm_field *field, const struct dmm_scalar *s,
			union item *ret)
{
	switch (field->type) {
	case DMM_FIELD_CIDRS:
		return dmm_value_cidr(s, &ret->cidr, p->found) ? sizeof(ret->cidr) : 0;
	case DMM_FIELD_UIDS:
		return dmm_value_uids(s, &ret->uids, p->found) ? sizeof(ret->uids) : 0;
	case DMM_FIELD_COMMS:
		return dmm_value_comm(s, ret->comm, p->found) ? sizeof(ret->comm) : 0;
	default:
		return dmm_value_range(s, 1, 65535, &ret->ports, p->found) ? sizeof(ret->ports) : 0;
	}
}

/* One value of a list; what is wrong is not kept. */
static int parse_item(struct parser *p, const struct dmm_field *field, void *target)
{
	struct dmm_scalar s;
	union item item;
	void *place;
	size_t size;
	int r = take_scalar(p, field, &s);

	if (r <= 0)
		return r;
	size = read_item(p, field, &s, &item);
	if (!size)
		return 0;
	place = append(field, target, size);
	if (!place)
		return -ENOMEM;
	memcpy(place, &item, size);
	return 0;
}

static void start_rule(struct dmm_policy_rule *rule)
{
	size_t i;

	for (i = 0; i < DMM_NUM_PROTOS; i++)
		rule->proto[i] = true;
	rule->dir[DMM_DIR_CONNECT] = true;
}

static int parse_list_item(struct parser *p, const struct dmm_field *field, void *target)
{
	const struct dmm_object *object = field->object;
	struct dmm_policy *policy = target;
	void *item;

	if (field->type != DMM_FIELD_OBJECTS)
		return parse_item(p, field, target);
	if (p->events.event.type != YAML_MAPPING_START_EVENT)
		return wrong_type(p, object->name, "a mapping", NULL);
	item = append(field, target, object->size);
	if (!item)
		return -ENOMEM;
	if (field->offset == offsetof(struct dmm_policy, rules))
		start_rule(&policy->rules[policy->n_rules - 1]);
	return parse_object(p, object, item);
}

static int check_count(struct parser *p, const struct dmm_field *field, struct dmm_place place,
		       size_t n)
{
	if (n < field->min)
		return dmm_find(p->found, DMM_CODE_COUNT, place, "leave the field out to mean any",
				"an empty %s list would match nothing", field->name);
	if (n > field->max)
		return dmm_find(p->found, DMM_CODE_COUNT, place, NULL,
				"%s has %zu items, at most %u are allowed", field->name, n,
				field->max);
	return 0;
}

static int parse_list(struct parser *p, const struct dmm_field *field, void *target)
{
	struct dmm_place place = dmm_events_place(&p->events);
	size_t n;
	int r;

	if (p->events.event.type != YAML_SEQUENCE_START_EVENT) {
		/* one item needs no brackets */
		if (field->type != DMM_FIELD_OBJECTS && p->events.event.type == YAML_SCALAR_EVENT)
			return parse_item(p, field, target);
		return wrong_type(p, field->name, "a list", NULL);
	}
	for (n = 0;; n++) {
		r = dmm_events_next(&p->events);
		if (r < 0)
			return r;
		if (p->events.event.type == YAML_SEQUENCE_END_EVENT)
			return check_count(p, field, place, n);
		r = n < field->max ? parse_list_item(p, field, target)
				   : dmm_events_skip(&p->events);
		if (r < 0)
			return r;
	}
}

struct label {
	char key[DMM_LABEL_MAX + 1];
	struct dmm_place place;
};

static int parse_label(struct parser *p, struct label *labels, size_t n)
{
	const struct dmm_field value = { .name = "label" };
	struct dmm_scalar s;
	size_t i;
	int r;

	r = take_scalar(p, &value, &s);
	if (r < 0)
		return r;
	if (r > 0) {
		snprintf(labels[n].key, sizeof(labels[n].key), "%s", s.text);
		labels[n].place = s.place;
		if (s.len < 1 || s.len > DMM_LABEL_MAX)
			dmm_find(p->found, DMM_CODE_NAME, s.place, NULL,
				 "the key of a label has 1 to %d characters", DMM_LABEL_MAX);
		for (i = 0; i < n; i++) {
			if (dmm_streq(labels[i].key, labels[n].key))
				dmm_find(p->found, DMM_CODE_DUPLICATE_KEY, s.place, NULL,
					 "duplicate key '%.80s' (first at %u:%u)", s.text,
					 labels[i].place.line, labels[i].place.column);
		}
	}
	r = dmm_events_next(&p->events);
	return r < 0 ? r : take_scalar(p, &value, &s);
}

static int parse_labels(struct parser *p, const struct dmm_field *field)
{
	struct dmm_place place = dmm_events_place(&p->events);
	struct label labels[64] = { 0 };
	size_t n;
	int r;

	if (p->events.event.type != YAML_MAPPING_START_EVENT)
		return wrong_type(p, field->name, "a mapping", NULL);
	for (n = 0;; n++) {
		r = dmm_events_next(&p->events);
		if (r < 0)
			return r;
		if (p->events.event.type == YAML_MAPPING_END_EVENT)
			return check_count(p, field, place, n);
		r = parse_label(p, labels, n % DMM_ARRAY_SIZE(labels));
		if (r < 0)
			return r;
	}
}

static int parse_value(struct parser *p, const struct context *in, struct dmm_place key,
		       void *target)
{
	const struct dmm_field *field = in->field;
	void *at = (char *)target + field->offset;
	char hint[80];
	int r;

	switch (field->type) {
	case DMM_FIELD_LATER:
		r = dmm_find(p->found, DMM_CODE_LATER, key, NULL,
			     "%s in %s is not supported in this version", field->name,
			     in->object->name);
		return r < 0 ? r : dmm_events_skip(&p->events);
	case DMM_FIELD_OBJECT:
		if (p->events.event.type == YAML_MAPPING_START_EVENT)
			return parse_object(p, field->object, at);
		snprintf(hint, sizeof(hint), "for an empty one write `%s: {}`", field->name);
		return wrong_type(p, field->name, "a mapping",
				  dmm_streq(field->name, "match") ? hint : NULL);
	case DMM_FIELD_OBJECTS:
	case DMM_FIELD_CIDRS:
	case DMM_FIELD_PORTS:
	case DMM_FIELD_UIDS:
	case DMM_FIELD_COMMS:
		return parse_list(p, field, target);
	case DMM_FIELD_LABELS:
		return parse_labels(p, field);
	default:
		return parse_scalar(p, field, at);
	}
}

/* What one mapping has shown so far. */
struct mapping {
	const struct dmm_object *object;
	void *target;
	struct dmm_place seen[DMM_MAX_FIELDS]; /* line 0: not yet */
	bool meant[DMM_MAX_FIELDS];	       /* misspelt: not to be reported as missing too */
};

static size_t field_index(const struct dmm_object *object, const char *name)
{
	size_t i;

	for (i = 0; i < object->n_fields; i++) {
		if (dmm_streq(object->fields[i].name, name))
			break;
	}
	return i;
}

static int unknown_field(struct parser *p, struct mapping *m, const struct dmm_scalar *key)
{
	const struct dmm_object *object = m->object;
	struct dmm_suggestion like = { .wanted = key->text };
	char nearest[DMM_NAME_LEN + 24];
	size_t i;

	for (i = 0; i < object->n_fields; i++) {
		if (object->fields[i].type != DMM_FIELD_LATER)
			dmm_suggest(&like, object->fields[i].name);
	}
	if (like.best)
		m->meant[field_index(object, like.best)] = true;
	return dmm_find(p->found, DMM_CODE_UNKNOWN_FIELD, key->place, NULL,
			"unknown field '%.80s' in %s%s", key->text, object->name,
			dmm_suggest_text(&like, nearest, sizeof(nearest)));
}

/* The key at hand and the value behind it. */
static int parse_pair(struct parser *p, struct mapping *m)
{
	const struct dmm_field as_key = { .name = "key" };
	const struct dmm_field *field = NULL;
	struct dmm_place place, value;
	struct dmm_scalar key;
	size_t i;
	int r = take_scalar(p, &as_key, &key);

	if (r > 0) {
		i = field_index(m->object, key.text);
		if (i == m->object->n_fields) {
			r = unknown_field(p, m, &key);
		} else if (m->seen[i].line) {
			r = dmm_find(p->found, DMM_CODE_DUPLICATE_KEY, key.place, NULL,
				     "duplicate key '%s' (first at %u:%u)", key.text,
				     m->seen[i].line, m->seen[i].column);
		} else {
			m->seen[i] = key.place;
			field = &m->object->fields[i];
		}
	}
	if (r < 0)
		return r;
	place = dmm_events_place(&p->events);
	r = dmm_events_next(&p->events);
	if (r < 0)
		return r;
	if (!field)
		return dmm_events_skip(&p->events);
	value = dmm_events_place(&p->events);
	if (field->place_offset)
		memcpy((char *)m->target + field->place_offset, &value, sizeof(value));
	return parse_value(p, &(struct context){ m->object, field }, place, m->target);
}

/* Required fields that are not there, and fields that exclude each other. */
static int check_needed(struct parser *p, const struct mapping *m, struct dmm_place place)
{
	const struct dmm_object *object = m->object;
	unsigned int choices = 0, given = 0;
	char names[80] = "";
	size_t i, n = 0;
	int r = 0;

	for (i = 0; i < object->n_fields && r >= 0; i++) {
		const struct dmm_field *field = &object->fields[i];
		bool seen = m->seen[i].line || m->meant[i];

		if (field->need == DMM_ONE_OF) {
			n += snprintf(names + n, sizeof(names) - n, "%s%s", choices ? " or " : "",
				      field->name);
			choices++;
			given += seen;
		} else if (field->need == DMM_REQUIRED && !seen) {
			r = dmm_find(p->found, DMM_CODE_MISSING_FIELD, place, NULL,
				     "%s needs the field '%s'", object->name, field->name);
		}
	}
	if (r < 0 || !choices || given == 1)
		return r;
	return dmm_find(p->found, DMM_CODE_ACTION, place, NULL, "%s needs %s%s", object->name,
			names, given ? ", not both" : "");
}

static int parse_object(struct parser *p, const struct dmm_object *object, void *target)
{
	struct dmm_place place = dmm_events_place(&p->events);
	struct mapping m = { .object = object, .target = target };
	int r;

	for (;;) {
		r = dmm_events_next(&p->events);
		if (r < 0)
			return r;
		if (p->events.event.type == YAML_MAPPING_END_EVENT)
			return check_needed(p, &m, place);
		r = parse_pair(p, &m);
		if (r < 0)
			return r;
	}
}

static int empty(struct parser *p)
{
	int r = dmm_find(p->found, DMM_CODE_EMPTY, (struct dmm_place){ 1, 1, 1 },
			 "policy/README.md has the language; policy/examples to start from",
			 "there is no policy in this file");

	return r < 0 ? r : -EINVAL;
}

static int parse_stream(struct parser *p, struct dmm_policy *policy)
{
	int r = dmm_events_next(&p->events); /* the stream's start */

	if (r == 0)
		r = dmm_events_next(&p->events);
	if (r < 0)
		return r;
	if (p->events.event.type == YAML_STREAM_END_EVENT)
		return empty(p);
	r = dmm_events_next(&p->events);
	if (r < 0)
		return r;
	if (p->events.event.type == YAML_SCALAR_EVENT && !p->events.event.data.scalar.length)
		return empty(p);
	if (p->events.event.type == YAML_MAPPING_START_EVENT)
		r = parse_object(p, &dmm_policy_object, policy);
	else
		r = wrong_type(p, dmm_policy_object.name, "a mapping", NULL);
	return r < 0 ? r : dmm_events_finish(&p->events);
}

static int parse_text(const char *text, size_t len, struct dmm_policy *policy,
		      struct dmm_findings *found)
{
	struct parser p = { .found = found };
	int r = dmm_text_check(text, len, found);

	if (r < 0)
		return r;
	r = dmm_events_open(&p.events, text, len, found);
	if (r == 0)
		r = parse_stream(&p, policy);
	dmm_events_close(&p.events);
	return r;
}

static int refuse_size(struct dmm_findings *found)
{
	int r = dmm_find(found, DMM_CODE_SIZE, (struct dmm_place){ 1, 1, 1 }, NULL,
			 "the file is larger than %u MiB", DMM_MAX_POLICY_SIZE >> 20);

	return r < 0 ? r : -EINVAL;
}

static struct dmm_policy *new_policy(const char *file)
{
	struct dmm_policy *policy = calloc(1, sizeof(*policy));

	if (!policy)
		return NULL;
	policy->source = strdup(file);
	snprintf(policy->fallback.name, sizeof(policy->fallback.name), "default");
	start_rule(&policy->fallback);
	policy->fallback.dir[DMM_DIR_LISTEN] = true;
	return policy;
}

static void autofree_policy(struct dmm_policy **policy)
{
	dmm_policy_free(*policy);
}

/* Takes @text, found->source from now on. */
static int parse_owned(char *text, size_t len, const char *file, struct dmm_policy **ret,
		       struct dmm_findings *found)
{
	__attribute__((cleanup(autofree_policy))) struct dmm_policy *policy = new_policy(file);
	int r;

	found->source = text;
	found->source_len = len;
	found->file = strdup(file);
	if (!policy || !policy->source || !found->file)
		return -ENOMEM;
	if (len > DMM_MAX_POLICY_SIZE)
		return refuse_size(found);
	if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* a byte order mark */
		found->source_len = len -= 3;
		memmove(text, text + 3, len);
	}
	r = parse_text(text, len, policy, found);
	if (r == 0)
		r = dmm_policy_check(policy, found);
	dmm_findings_sort(found);
	if (r < 0)
		return r;
	if (found->errors)
		return -EINVAL;
	*ret = DMM_TAKE_PTR(policy);
	return 0;
}

int dmm_policy_parse(const char *text, size_t len, const char *file, struct dmm_policy **ret,
		     struct dmm_findings *found)
{
	char *copy = malloc(len + 1);

	*found = (struct dmm_findings){ 0 };
	if (!copy)
		return -ENOMEM;
	memcpy(copy, text, len);
	return parse_owned(copy, len, file, ret, found);
}

/* Reads up to the size limit and one byte more. */
static int read_all(int fd, char **ret, size_t *ret_len)
{
	dmm_autofree char *text = NULL;
	size_t len = 0, size = 0;

	for (;;) {
		size_t room;
		ssize_t n;

		if (len == size) {
			char *bigger = realloc(text, size = size ? size * 2 : 65536);

			if (!bigger)
				return -ENOMEM;
			text = bigger;
		}
		room = DMM_MIN(size, DMM_MAX_POLICY_SIZE + 1ul) - len;
		n = room ? read(fd, text + len, room) : 0;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		len += n;
		if (n == 0)
			break;
	}
	*ret = DMM_TAKE_PTR(text);
	*ret_len = len;
	return 0;
}

int dmm_policy_load(const char *path, struct dmm_policy **ret, struct dmm_findings *found)
{
	bool standard = dmm_streq(path, "-");
	dmm_autoclose int own = -1;
	char *text = NULL;
	size_t len = 0;
	int r;

	*found = (struct dmm_findings){ 0 };
	own = standard ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	if (!standard && own < 0)
		return -errno;
	r = read_all(standard ? STDIN_FILENO : own, &text, &len);
	if (r < 0)
		return r;
	return parse_owned(text, len, standard ? "<stdin>" : path, ret, found);
}
