/* SPDX-License-Identifier: Apache-2.0 */
/* Members of JSON objects without fuss, and the objects every answer is made of. Setters ignore a
 * failing allocation inside json-c: the member is missing then. */
#pragma once

#include <json-c/json.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#define DMM_JSON_API_VERSION "dmm/v1alpha1"
#define DMM_JSON_DEPTH	     16

/* One whole JSON object of @len bytes and nothing else; NULL: it is none. */
struct json_object *dmm_json_parse(const char *text, size_t len);

/* Borrowed; NULL where the member is missing or of another type. */
const char *dmm_json_text(struct json_object *obj, const char *key);
struct json_object *dmm_json_object(struct json_object *obj, const char *key);
struct json_object *dmm_json_array(struct json_object *obj, const char *key);
bool dmm_json_bool(struct json_object *obj, const char *key);
/* False: missing, of another type, or not within 0..@max; *ret untouched. */
bool dmm_json_u64(struct json_object *obj, const char *key, uint64_t max, uint64_t *ret);

/* Setters; a NULL @text is written as null. */
void dmm_json_set_text(struct json_object *obj, const char *key, const char *text);
void dmm_json_set_textf(struct json_object *obj, const char *key, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void dmm_json_set_u64(struct json_object *obj, const char *key, uint64_t value);
void dmm_json_set_bool(struct json_object *obj, const char *key, bool value);
/* Nanoseconds of CLOCK_REALTIME as RFC 3339. */
void dmm_json_set_time(struct json_object *obj, const char *key, uint64_t realtime_ns);

/* {"apiVersion", "kind"} to add to. */
struct json_object *dmm_json_document(const char *kind);

/* An "error" member: @err negative errno. @hint, @findings may be NULL. */
struct json_object *dmm_json_error(int err, int exit_code, const char *hint, const char *findings,
				   const char *format, ...) __attribute__((format(printf, 5, 6)));
struct json_object *dmm_json_verror(int err, int exit_code, const char *hint, const char *findings,
				    const char *format, va_list ap)
	__attribute__((format(printf, 5, 0)));
