/* SPDX-License-Identifier: Apache-2.0 */
/* The table of fields as JSON Schema (draft-07), for editors. */
#include "policy/policy_internal.h"

#include "base/util.h"

#define RANGE_PATTERN "^(0|[1-9][0-9]{0,4})(-(0|[1-9][0-9]{0,4}))?$"
#define CIDR_PATTERN  "^[0-9A-Fa-f:.]+/[0-9]{1,3}$"

struct writer {
	FILE *out;
	unsigned int depth;
	bool first; /* in the object that is open */
};

static void write_string(struct writer *w, const char *s)
{
	fputc('"', w->out);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fputc('\\', w->out);
		fputc(*s, w->out);
	}
	fputc('"', w->out);
}

static void write_key(struct writer *w, const char *key)
{
	fprintf(w->out, "%s\n%*s", w->first ? "" : ",", 2 * w->depth, "");
	write_string(w, key);
	fputs(": ", w->out);
	w->first = false;
}

static void write_open(struct writer *w)
{
	fputc('{', w->out);
	w->depth++;
	w->first = true;
}

static void write_close(struct writer *w)
{
	w->depth--;
	fprintf(w->out, "\n%*s}", 2 * w->depth, "");
	w->first = false;
}

static void write_text(struct writer *w, const char *key, const char *value)
{
	write_key(w, key);
	write_string(w, value);
}

static void write_number(struct writer *w, const char *key, uint32_t value)
{
	write_key(w, key);
	fprintf(w->out, "%u", value);
}

static void write_words(struct writer *w, const char *key, const char *const *words, size_t n)
{
	size_t i;

	write_key(w, key);
	fputc('[', w->out);
	for (i = 0; i < n; i++) {
		fputs(i ? ", " : "", w->out);
		write_string(w, words[i]);
	}
	fputc(']', w->out);
}

static size_t count_words(const char *const *words)
{
	size_t n = 0;

	while (words[n])
		n++;
	return n;
}

static void write_object(struct writer *w, const struct dmm_object *object);

static void write_pattern(struct writer *w, const char *pattern)
{
	write_text(w, "type", "string");
	write_text(w, "pattern", pattern);
}

static void write_port(struct writer *w, uint32_t min, uint32_t max)
{
	write_key(w, "anyOf");
	fputs("[{\"type\": \"integer\", ", w->out);
	fprintf(w->out,
		"\"minimum\": %u, \"maximum\": %u}, {\"type\": \"string\", \"pattern\": ", min,
		max);
	write_string(w, RANGE_PATTERN);
	fputs("}]", w->out);
}

static void write_item(struct writer *w, const struct dmm_field *field)
{
	write_open(w);
	if (field->type == DMM_FIELD_OBJECTS)
		write_object(w, field->object);
	else if (field->type == DMM_FIELD_CIDRS)
		write_pattern(w, CIDR_PATTERN);
	else if (field->type == DMM_FIELD_UIDS)
		fputs("\"type\": [\"integer\", \"string\"]", w->out);
	else if (field->type == DMM_FIELD_COMMS)
		write_pattern(w, "^.{1,15}$");
	else
		write_port(w, 1, 65535);
	write_close(w);
}

static void write_list(struct writer *w, const struct dmm_field *field)
{
	write_text(w, "type", "array");
	if (field->min)
		write_number(w, "minItems", field->min);
	write_number(w, "maxItems", field->max);
	write_key(w, "items");
	write_item(w, field);
}

/* A list, or one of its items without brackets. */
static void write_list_or_one(struct writer *w, const struct dmm_field *field)
{
	write_key(w, "anyOf");
	fputc('[', w->out);
	write_open(w);
	write_list(w, field);
	write_close(w);
	fputs(", ", w->out);
	write_item(w, field);
	fputc(']', w->out);
}

static void write_type(struct writer *w, const struct dmm_field *field)
{
	switch (field->type) {
	case DMM_FIELD_OBJECT:
		write_object(w, field->object);
		break;
	case DMM_FIELD_OBJECTS:
		write_list(w, field);
		break;
	case DMM_FIELD_CIDRS:
	case DMM_FIELD_PORTS:
	case DMM_FIELD_UIDS:
	case DMM_FIELD_COMMS:
		write_list_or_one(w, field);
		break;
	case DMM_FIELD_NAME:
		write_pattern(w, DMM_NAME_PATTERN);
		break;
	case DMM_FIELD_IFNAME:
		write_pattern(w, "^[^\\s/:]{1,15}$");
		break;
	case DMM_FIELD_MEMORY:
		write_pattern(w, "^(0|[1-9][0-9]{0,5})(MiB|GiB)$");
		break;
	case DMM_FIELD_NUMBER:
		write_text(w, "type", "integer");
		write_number(w, "minimum", field->min);
		write_number(w, "maximum", field->max);
		break;
	case DMM_FIELD_CGROUP:
		write_pattern(w, "^/");
		write_number(w, "maxLength", DMM_CGROUP_MAX);
		break;
	case DMM_FIELD_RANGE:
		write_port(w, field->min, field->max);
		break;
	case DMM_FIELD_REJECT:
		write_key(w, "const");
		fputs("true", w->out);
		break;
	case DMM_FIELD_LABELS:
		write_text(w, "type", "object");
		write_number(w, "maxProperties", field->max);
		write_key(w, "additionalProperties");
		fputs("{\"type\": [\"string\", \"number\", \"boolean\"]}", w->out);
		break;
	default:
		write_words(w, "enum", field->words, count_words(field->words));
		break;
	}
}

static void write_field(struct writer *w, const struct dmm_field *field)
{
	write_key(w, field->name);
	write_open(w);
	write_text(w, "description", field->doc);
	if (field->fallback)
		write_text(w, "default", field->fallback);
	write_type(w, field);
	write_close(w);
}

/* Names of the fields that are needed in that way. */
static size_t needed(const struct dmm_object *object, int need, const char **ret)
{
	size_t i, n = 0;

	for (i = 0; i < object->n_fields; i++) {
		if ((int)object->fields[i].need == need)
			ret[n++] = object->fields[i].name;
	}
	return n;
}

static void write_choice(struct writer *w, const char *const *names, size_t n)
{
	size_t i;

	write_key(w, "oneOf");
	fputc('[', w->out);
	for (i = 0; i < n; i++) {
		fputs(i ? ", {\"required\": [" : "{\"required\": [", w->out);
		write_string(w, names[i]);
		fputs("]}", w->out);
	}
	fputc(']', w->out);
}

static void write_object(struct writer *w, const struct dmm_object *object)
{
	const char *names[DMM_MAX_FIELDS];
	size_t i, n;

	write_text(w, "type", "object");
	write_key(w, "additionalProperties");
	fputs("false", w->out);
	n = needed(object, DMM_REQUIRED, names);
	if (n)
		write_words(w, "required", names, n);
	n = needed(object, DMM_ONE_OF, names);
	if (n)
		write_choice(w, names, n);
	write_key(w, "properties");
	write_open(w);
	for (i = 0; i < object->n_fields; i++) {
		if (object->fields[i].type != DMM_FIELD_LATER)
			write_field(w, &object->fields[i]);
	}
	write_close(w);
}

void dmm_policy_schema(FILE *out)
{
	struct writer w = { .out = out };

	write_open(&w);
	write_text(&w, "$schema", "http://json-schema.org/draft-07/schema#");
	write_text(&w, "title", "DMM policy dmm/v1alpha1");
	write_text(&w, "description", dmm_policy_object.doc);
	write_object(&w, &dmm_policy_object);
	write_close(&w);
	fputc('\n', out);
}
