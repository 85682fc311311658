/* SPDX-License-Identifier: Apache-2.0 */
/* Members of JSON objects that are for printing: whatever is there, as text or number. */
#include "dmmctl.h"

struct json_object *get_member(struct json_object *obj, const char *key)
{
	struct json_object *value = NULL;

	json_object_object_get_ex(obj, key, &value);
	return value;
}

const char *get_text(struct json_object *obj, const char *key)
{
	struct json_object *value = get_member(obj, key);

	return value ? json_object_get_string(value) : "";
}

uint64_t get_u64(struct json_object *obj, const char *key)
{
	return json_object_get_uint64(get_member(obj, key));
}

bool get_bool(struct json_object *obj, const char *key)
{
	return json_object_get_boolean(get_member(obj, key));
}
