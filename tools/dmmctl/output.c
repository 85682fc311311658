/* SPDX-License-Identifier: Apache-2.0 */
/* How things are said: documents on stdout, errors and talk on stderr. */
#define _GNU_SOURCE
#include "dmmctl.h"

#include <errno.h>
#include <stdarg.h>
#include <yaml.h>

bool is_json(const struct ctl *ctl)
{
	return ctl->format != FORMAT_TABLE;
}

struct json_object *list_document(const char *kind, struct json_object *items)
{
	struct json_object *doc = dmm_json_document(kind);

	json_object_object_add(doc, "items", items);
	return doc;
}

/* --- YAML: the JSON tree as libyaml events --- */
static void emit_scalar(yaml_emitter_t *emitter, struct json_object *value)
{
	bool text = json_object_is_type(value, json_type_string);
	const char *s = value ? json_object_get_string(value) : "null";
	yaml_event_t event;

	/* a text stays a text: quoted unless libyaml finds that it need not be */
	yaml_scalar_event_initialize(
		&event, NULL, NULL, (const yaml_char_t *)s, strlen(s), !text, 1,
		text ? YAML_DOUBLE_QUOTED_SCALAR_STYLE : YAML_PLAIN_SCALAR_STYLE);
	yaml_emitter_emit(emitter, &event);
}

static void emit_value(yaml_emitter_t *emitter, struct json_object *value)
{
	yaml_event_t event;

	if (json_object_is_type(value, json_type_object)) {
		yaml_mapping_start_event_initialize(&event, NULL, NULL, 1,
						    YAML_BLOCK_MAPPING_STYLE);
		yaml_emitter_emit(emitter, &event);
		json_object_object_foreach(value, key, member)
		{
			yaml_scalar_event_initialize(&event, NULL, NULL, (yaml_char_t *)key,
						     strlen(key), 1, 1, YAML_PLAIN_SCALAR_STYLE);
			yaml_emitter_emit(emitter, &event);
			emit_value(emitter, member);
		}
		yaml_mapping_end_event_initialize(&event);
		yaml_emitter_emit(emitter, &event);
	} else if (json_object_is_type(value, json_type_array)) {
		yaml_sequence_start_event_initialize(&event, NULL, NULL, 1,
						     YAML_BLOCK_SEQUENCE_STYLE);
		yaml_emitter_emit(emitter, &event);
		for (size_t i = 0; i < json_object_array_length(value); i++)
			emit_value(emitter, json_object_array_get_idx(value, i));
		yaml_sequence_end_event_initialize(&event);
		yaml_emitter_emit(emitter, &event);
	} else {
		emit_scalar(emitter, value);
	}
}

static void print_yaml(struct json_object *doc)
{
	yaml_emitter_t emitter;
	yaml_event_t event;

	yaml_emitter_initialize(&emitter);
	yaml_emitter_set_output_file(&emitter, stdout);
	yaml_emitter_set_unicode(&emitter, 1);
	yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING);
	yaml_emitter_emit(&emitter, &event);
	yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1);
	yaml_emitter_emit(&emitter, &event);
	emit_value(&emitter, doc);
	yaml_document_end_event_initialize(&event, 1);
	yaml_emitter_emit(&emitter, &event);
	yaml_stream_end_event_initialize(&event);
	yaml_emitter_emit(&emitter, &event);
	yaml_emitter_delete(&emitter);
}

static void print_json(const struct ctl *ctl, struct json_object *value, FILE *out)
{
	int flags = JSON_C_TO_STRING_NOSLASHESCAPE |
		    (ctl->opt[OPT_PRETTY] ? JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED
					  : JSON_C_TO_STRING_PLAIN);

	fprintf(out, "%s\n", json_object_to_json_string_ext(value, flags));
}

void print_document(const struct ctl *ctl, struct json_object *doc)
{
	struct json_object *items = get_member(doc, "items");

	switch (ctl->format) {
	case FORMAT_TABLE:
		break;
	case FORMAT_JSON:
		print_json(ctl, doc, stdout);
		break;
	case FORMAT_JSONL: /* a line for each item; what is no list is one line */
		if (!items)
			print_json(ctl, doc, stdout);
		for (size_t i = 0; items && i < json_object_array_length(items); i++)
			print_json(ctl, json_object_array_get_idx(items, i), stdout);
		break;
	case FORMAT_YAML:
		print_yaml(doc);
		break;
	}
	json_object_put(doc);
}

enum exit_code exit_of(int err)
{
	return err == -EPERM || err == -EACCES ? CTL_NOT_PERMITTED : CTL_FAILED;
}

static void print_error_json(const struct ctl *ctl, int err, const char *hint, const char *text,
			     struct json_object *found)
{
	struct json_object *doc = json_object_new_object(), *error = json_object_new_object();

	dmm_json_set_text(error, "text", text);
	if (err)
		dmm_json_set_text(error, "errno", strerrorname_np(-err));
	if (hint)
		dmm_json_set_text(error, "hint", hint);
	if (found)
		json_object_object_add(error, "findings", json_object_get(found));
	json_object_object_add(doc, "error", error);
	print_json(ctl, doc, stderr);
	json_object_put(doc);
}

int fail(const struct ctl *ctl, enum exit_code code, int err, const char *hint, const char *format,
	 ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	return fail_found(ctl, code, err, hint, text, NULL);
}

int fail_found(const struct ctl *ctl, enum exit_code code, int err, const char *hint,
	       const char *text, struct json_object *found)
{
	if (!hint && code == CTL_NOT_PERMITTED)
		hint = "run it as root";
	if (is_json(ctl)) {
		print_error_json(ctl, err, hint, text, found);
		return code;
	}
	if (err)
		fprintf(stderr, "dmmctl: %s: %s (%s)\n", text, strerror(-err),
			strerrorname_np(-err) ? strerrorname_np(-err) : "?");
	else
		fprintf(stderr, "dmmctl: %s\n", text);
	if (hint)
		fprintf(stderr, "hint: %s\n", hint);
	return code;
}

void note(const struct ctl *ctl, const char *format, ...)
{
	va_list ap;

	if (ctl->opt[OPT_QUIET])
		return;
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
}

const char *paint(const struct ctl *ctl, enum color color, const char *text)
{
	static const char *const escapes[] = { "\033[32m", "\033[31m", "\033[33m", "\033[2m" };
	static char buf[4][128];
	static unsigned int next;

	if (!ctl->color)
		return text;
	next = (next + 1) % DMM_ARRAY_SIZE(buf);
	snprintf(buf[next], sizeof(buf[next]), "%s%s\033[0m", escapes[color], text);
	return buf[next];
}
