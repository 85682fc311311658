/* SPDX-License-Identifier: Apache-2.0 */
/* JSON helpers over json-c. */
#define _GNU_SOURCE
#include "ctl/json.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/util.h"

struct json_object *dmm_json_parse(const char *text, size_t len)
{
	struct json_tokener *tok;
	struct json_object *obj = NULL;
	size_t end;

	if (len > INT_MAX || memchr(text, '\0', len))
		return NULL;
	tok = json_tokener_new_ex(DMM_JSON_DEPTH);
	if (!tok)
		return NULL;
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8 |
					    JSON_TOKENER_ALLOW_TRAILING_CHARS);
	obj = json_tokener_parse_ex(tok, text, len);
	end = json_tokener_get_parse_end(tok);
	json_tokener_free(tok);
	end += strspn(text + end, " \t\r\n");
	if (obj && (end != len || !json_object_is_type(obj, json_type_object))) {
		json_object_put(obj);
		return NULL;
	}
	return obj;
}

static struct json_object *member(struct json_object *obj, const char *key, enum json_type type)
{
	struct json_object *value;

	if (!obj || !json_object_object_get_ex(obj, key, &value))
		return NULL;
	return json_object_is_type(value, type) ? value : NULL;
}

const char *dmm_json_text(struct json_object *obj, const char *key)
{
	struct json_object *value = member(obj, key, json_type_string);
	const char *text = value ? json_object_get_string(value) : NULL;

	/* no name or path of ours holds a NUL: one that does is taken for missing, not cut */
	if (text && strlen(text) != (size_t)json_object_get_string_len(value))
		return NULL;
	return text;
}

struct json_object *dmm_json_object(struct json_object *obj, const char *key)
{
	return member(obj, key, json_type_object);
}

struct json_object *dmm_json_array(struct json_object *obj, const char *key)
{
	return member(obj, key, json_type_array);
}

bool dmm_json_bool(struct json_object *obj, const char *key)
{
	struct json_object *value = member(obj, key, json_type_boolean);

	return value && json_object_get_boolean(value);
}

bool dmm_json_u64(struct json_object *obj, const char *key, uint64_t max, uint64_t *ret)
{
	struct json_object *value = member(obj, key, json_type_int);
	uint64_t number;

	if (!value || json_object_get_int64(value) < 0)
		return false;
	number = json_object_get_uint64(value);
	if (number > max)
		return false;
	*ret = number;
	return true;
}

void dmm_json_set_text(struct json_object *obj, const char *key, const char *text)
{
	json_object_object_add(obj, key, text ? json_object_new_string(text) : NULL);
}

void dmm_json_set_textf(struct json_object *obj, const char *key, const char *format, ...)
{
	dmm_autofree char *text = NULL;
	va_list ap;

	va_start(ap, format);
	if (vasprintf(&text, format, ap) < 0)
		text = NULL;
	va_end(ap);
	dmm_json_set_text(obj, key, text);
}

void dmm_json_set_u64(struct json_object *obj, const char *key, uint64_t value)
{
	json_object_object_add(obj, key, json_object_new_uint64(value));
}

void dmm_json_set_bool(struct json_object *obj, const char *key, bool value)
{
	json_object_object_add(obj, key, json_object_new_boolean(value));
}

void dmm_json_set_time(struct json_object *obj, const char *key, uint64_t realtime_ns)
{
	time_t seconds = realtime_ns / DMM_NS_PER_SEC;
	char day[32];
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	dmm_json_set_textf(obj, key, "%s.%03uZ", day,
			   (unsigned int)(realtime_ns % DMM_NS_PER_SEC / DMM_NS_PER_MS));
}

struct json_object *dmm_json_document(const char *kind)
{
	struct json_object *doc = json_object_new_object();

	dmm_json_set_text(doc, "apiVersion", DMM_JSON_API_VERSION);
	dmm_json_set_text(doc, "kind", kind);
	return doc;
}

struct json_object *dmm_json_verror(int err, int exit_code, const char *hint, const char *findings,
				    const char *format, va_list ap)
{
	struct json_object *error = json_object_new_object();
	dmm_autofree char *text = NULL;

	if (vasprintf(&text, format, ap) < 0)
		text = NULL;
	dmm_json_set_text(error, "errno", strerrorname_np(-err));
	dmm_json_set_text(error, "text", text);
	if (hint && hint[0])
		dmm_json_set_text(error, "hint", hint);
	dmm_json_set_u64(error, "exit", exit_code);
	if (findings)
		dmm_json_set_text(error, "findings", findings);
	return error;
}

struct json_object *dmm_json_error(int err, int exit_code, const char *hint, const char *findings,
				   const char *format, ...)
{
	struct json_object *error;
	va_list ap;

	va_start(ap, format);
	error = dmm_json_verror(err, exit_code, hint, findings, format, ap);
	va_end(ap);
	return error;
}
