/* SPDX-License-Identifier: Apache-2.0 */
/* State <-> JSON. Reading trusts nothing: one wrong field and the whole file is refused. */
#include "dmmd/state.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <unistd.h>

#include "base/file.h"
#include "base/util.h"
#include "ctl/json.h"
#include "policy/compile.h"

#define STATE_FORMAT 1
#define STATE_MAX    (256u << 20)
#define STAGED	     "policy.yaml."

void dmmd_state_init(struct dmmd_state *state)
{
	*state = (struct dmmd_state){ 0 };
	dmmd_classes_init(&state->classes);
}

static void free_texts(char **texts, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(texts[i]);
	free(texts);
}

void dmmd_state_free(struct dmmd_state *state)
{
	free(state->policy_file);
	dmmd_classes_free(&state->classes);
	free_texts(state->attached, state->n_attached);
	free_texts(state->made, state->n_made);
	free_texts(state->retired, state->n_retired);
	dmmd_state_init(state);
}

static int path_of(const char *dir, const char *name, char ret[static PATH_MAX])
{
	return (size_t)snprintf(ret, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* --- reading --- */

/* -EBADMSG unless the member is a text that fits with its NUL. */
static int get_name(struct json_object *obj, const char *key, char *ret, size_t size)
{
	const char *text = dmm_json_text(obj, key);

	if (!text || strlen(text) >= size)
		return -EBADMSG;
	memcpy(ret, text, strlen(text) + 1);
	return 0;
}

static int get_u32(struct json_object *obj, const char *key, uint32_t max, uint32_t *ret)
{
	uint64_t value;

	if (!dmm_json_u64(obj, key, max, &value))
		return -EBADMSG;
	*ret = value;
	return 0;
}

static int get_texts(struct json_object *obj, const char *key, char ***ret, size_t *ret_n)
{
	struct json_object *array = dmm_json_array(obj, key);
	size_t n = array ? json_object_array_length(array) : 0;
	char **texts;
	int r = 0;

	if (!array)
		return -EBADMSG;
	texts = calloc(n + 1, sizeof(texts[0]));
	if (!texts)
		return -ENOMEM;
	for (size_t i = 0; i < n && r == 0; i++) {
		struct json_object *item = json_object_array_get_idx(array, i);
		const char *text = json_object_is_type(item, json_type_string)
					   ? json_object_get_string(item)
					   : "";

		if (text[0] != '/')
			r = -EBADMSG;
		else if (!(texts[i] = strdup(text)))
			r = -ENOMEM;
	}
	if (r < 0) {
		free_texts(texts, n);
		return r;
	}
	*ret = texts;
	*ret_n = n;
	return 0;
}

static int get_classes(struct json_object *obj, struct dmmd_classes *classes)
{
	struct json_object *array = dmm_json_array(obj, "classes");
	size_t n = array ? json_object_array_length(array) : 0;
	uint32_t next;
	int r = array ? get_u32(obj, "next_class", DMM_MAX_CLASSES, &next) : -EBADMSG;

	for (size_t i = 0; i < n && r == 0; i++) {
		struct json_object *item = json_object_array_get_idx(array, i);
		const char *cgroup = dmm_json_text(item, "cgroup");
		uint32_t id, used;

		if (!cgroup || get_u32(item, "id", UINT32_MAX, &id) < 0 ||
		    get_u32(item, "used", UINT32_MAX, &used) < 0)
			return -EBADMSG;
		r = dmmd_classes_add(classes, cgroup, id, used);
		if (r == -EINVAL)
			r = -EBADMSG;
	}
	if (r == 0)
		classes->next = DMM_MAX(classes->next, next);
	return r;
}

static int get_spec(struct json_object *obj, struct dmmd_spec *ret)
{
	struct dmmd_spec spec = { 0 };
	uint32_t first, last;
	int poll = dmmd_poll_of(dmm_json_text(obj, "poll"));

	spec.mode = dmmd_mode_of(dmm_json_text(obj, "mode"));
	spec.zerocopy = dmmd_zerocopy_of(dmm_json_text(obj, "zerocopy"));
	if (get_name(obj, "name", spec.name, sizeof(spec.name)) < 0 ||
	    get_name(obj, "plugin", spec.plugin, sizeof(spec.plugin)) < 0 ||
	    get_name(obj, "backend", spec.backend, sizeof(spec.backend)) < 0 ||
	    get_name(obj, "interface", spec.interface, sizeof(spec.interface)) < 0 ||
	    get_u32(obj, "port_first", UINT16_MAX, &first) < 0 ||
	    get_u32(obj, "port_last", UINT16_MAX, &last) < 0 || poll < 0 || spec.mode < 0 ||
	    spec.zerocopy < 0 || first == 0 || last - first >= DMM_MAX_PORTS)
		return -EBADMSG;
	if (get_u32(obj, "memory_mib", UINT32_MAX, &spec.memory_mib) < 0)
		spec.memory_mib = DMMD_MEMORY_MIB; /* written before there was the field */
	if (get_u32(obj, "index", DMM_MAX_INSTANCES_OF - 1, &spec.index) < 0)
		spec.index = 0; /* as above */
	spec.poll = (enum dmm_poll)poll;
	spec.ports = (struct dmm_port_range){ first, last };
	spec.ports_chosen = dmm_json_bool(obj, "ports_chosen");
	*ret = spec;
	return 0;
}

static int get_stack(struct json_object *obj, struct dmmd_stack_record *ret)
{
	struct dmmd_stack_record record = { 0 };
	uint32_t pid;

	if (get_spec(obj, &record.spec) < 0 ||
	    get_u32(obj, "slot", DMM_MAX_INSTANCES - 1, &record.slot) < 0 ||
	    get_u32(obj, "incarnation", UINT32_MAX, &record.incarnation) < 0 ||
	    get_u32(obj, "pid", INT_MAX, &pid) < 0 ||
	    get_u32(obj, "restarts", UINT32_MAX, &record.restarts) < 0 ||
	    !dmm_json_u64(obj, "start_time", UINT64_MAX, &record.start_time))
		return -EBADMSG;
	record.pid = pid;
	record.draining = dmm_json_bool(obj, "draining");
	record.removed = dmm_json_bool(obj, "removed");
	record.stopped = dmm_json_bool(obj, "stopped");
	record.zerocopy = dmm_json_bool(obj, "zerocopy_got");
	*ret = record;
	return 0;
}

static int get_stacks(struct json_object *obj, struct dmmd_state *state)
{
	struct json_object *array = dmm_json_array(obj, "stacks");
	size_t n = array ? json_object_array_length(array) : 0;

	if (!array || n > DMM_MAX_INSTANCES)
		return -EBADMSG;
	for (size_t i = 0; i < n; i++) {
		struct dmmd_stack_record *record = &state->stacks[i];

		if (get_stack(json_object_array_get_idx(array, i), record) < 0)
			return -EBADMSG;
		for (size_t j = 0; j < i; j++)
			if (state->stacks[j].slot == record->slot ||
			    (state->stacks[j].spec.index == record->spec.index &&
			     dmm_streq(state->stacks[j].spec.name, record->spec.name)))
				return -EBADMSG;
		state->n_stacks++;
	}
	return 0;
}

static int from_json(struct json_object *obj, struct dmmd_state *state)
{
	const char *file = dmm_json_text(obj, "policy_file");
	uint32_t format;
	int r;

	if (get_u32(obj, "format", STATE_FORMAT, &format) < 0 || format != STATE_FORMAT ||
	    get_name(obj, "boot_id", state->boot_id, sizeof(state->boot_id)) < 0 ||
	    get_u32(obj, "generation", UINT32_MAX, &state->generation) < 0 ||
	    !dmm_json_u64(obj, "applied_at", UINT64_MAX, &state->applied_at))
		return -EBADMSG;
	if (file && !(state->policy_file = strdup(file)))
		return -ENOMEM;
	r = get_classes(obj, &state->classes);
	if (r == 0)
		r = get_texts(obj, "attached", &state->attached, &state->n_attached);
	if (r == 0)
		r = get_texts(obj, "made", &state->made, &state->n_made);
	if (r == 0 && dmm_json_array(obj, "retired"))
		r = get_texts(obj, "retired", &state->retired, &state->n_retired);
	return r == 0 ? get_stacks(obj, state) : r;
}

int dmmd_state_load(const char *dir, struct dmmd_state *ret)
{
	dmm_autofree char *text = NULL;
	struct json_object *obj;
	struct dmmd_state state;
	char path[PATH_MAX];
	size_t len;
	int r = path_of(dir, "state.json", path);

	if (r == 0)
		r = dmm_file_read(path, STATE_MAX, &text, &len);
	if (r < 0)
		return r == -EFBIG ? -EBADMSG : r;
	obj = dmm_json_parse(text, len);
	if (!obj)
		return -EBADMSG;
	dmmd_state_init(&state);
	r = from_json(obj, &state);
	json_object_put(obj);
	if (r < 0) {
		dmmd_state_free(&state);
		return r;
	}
	*ret = state;
	return 0;
}

/* --- writing --- */

static struct json_object *texts_json(char *const *texts, size_t n)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; i < n; i++)
		json_object_array_add(array, json_object_new_string(texts[i]));
	return array;
}

static struct json_object *classes_json(const struct dmmd_classes *classes)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; i < classes->n; i++) {
		struct json_object *item = json_object_new_object();

		dmm_json_set_text(item, "cgroup", classes->items[i].cgroup);
		dmm_json_set_u64(item, "id", classes->items[i].id);
		dmm_json_set_u64(item, "used", classes->items[i].used);
		json_object_array_add(array, item);
	}
	return array;
}

static struct json_object *stack_json(const struct dmmd_stack_record *record)
{
	struct json_object *obj = json_object_new_object();
	const struct dmmd_spec *spec = &record->spec;

	dmm_json_set_text(obj, "name", spec->name);
	dmm_json_set_u64(obj, "index", spec->index);
	dmm_json_set_text(obj, "plugin", spec->plugin);
	dmm_json_set_text(obj, "backend", spec->backend);
	dmm_json_set_text(obj, "interface", spec->interface);
	dmm_json_set_text(obj, "mode", dmmd_mode_word(spec->mode));
	dmm_json_set_text(obj, "zerocopy", dmmd_zerocopy_word(spec->zerocopy));
	dmm_json_set_text(obj, "poll", dmmd_poll_word(spec->poll));
	dmm_json_set_u64(obj, "memory_mib", spec->memory_mib);
	dmm_json_set_u64(obj, "port_first", spec->ports.first);
	dmm_json_set_u64(obj, "port_last", spec->ports.last);
	dmm_json_set_bool(obj, "ports_chosen", spec->ports_chosen);
	dmm_json_set_u64(obj, "slot", record->slot);
	dmm_json_set_u64(obj, "incarnation", record->incarnation);
	dmm_json_set_u64(obj, "pid", record->pid);
	dmm_json_set_u64(obj, "start_time", record->start_time);
	dmm_json_set_u64(obj, "restarts", record->restarts);
	dmm_json_set_bool(obj, "draining", record->draining);
	dmm_json_set_bool(obj, "removed", record->removed);
	dmm_json_set_bool(obj, "stopped", record->stopped);
	dmm_json_set_bool(obj, "zerocopy_got", record->zerocopy);
	return obj;
}

static struct json_object *to_json(const struct dmmd_state *state)
{
	struct json_object *obj = json_object_new_object();
	struct json_object *stacks = json_object_new_array();

	dmm_json_set_u64(obj, "format", STATE_FORMAT);
	dmm_json_set_text(obj, "boot_id", state->boot_id);
	dmm_json_set_u64(obj, "generation", state->generation);
	dmm_json_set_text(obj, "policy_file", state->policy_file);
	dmm_json_set_u64(obj, "applied_at", state->applied_at);
	dmm_json_set_u64(obj, "next_class", state->classes.next);
	json_object_object_add(obj, "classes", classes_json(&state->classes));
	json_object_object_add(obj, "attached", texts_json(state->attached, state->n_attached));
	json_object_object_add(obj, "made", texts_json(state->made, state->n_made));
	json_object_object_add(obj, "retired", texts_json(state->retired, state->n_retired));
	for (size_t i = 0; i < state->n_stacks; i++)
		json_object_array_add(stacks, stack_json(&state->stacks[i]));
	json_object_object_add(obj, "stacks", stacks);
	return obj;
}

int dmmd_state_save(const char *dir, const struct dmmd_state *state)
{
	struct json_object *obj = to_json(state);
	const char *text;
	char path[PATH_MAX];
	size_t len;
	int r = path_of(dir, "state.json", path);

	text = json_object_to_json_string_length(
		obj, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE, &len);
	if (r == 0)
		r = text ? dmm_file_write_atomic(path, text, len, 0600) : -ENOMEM;
	json_object_put(obj);
	return r;
}

int dmmd_state_set_aside(const char *dir)
{
	char from[PATH_MAX], to[PATH_MAX];
	int r = path_of(dir, "state.json", from);

	if (r == 0)
		r = path_of(dir, "state.json.bad", to);
	if (r == 0 && rename(from, to) < 0)
		r = -errno;
	return r;
}

int dmmd_state_load_policy(const char *dir, char **ret, size_t *ret_len)
{
	char path[PATH_MAX];
	int r = path_of(dir, "policy.yaml", path);

	return r < 0 ? r : dmm_file_read(path, 64u << 20, ret, ret_len);
}

/* --- a policy on its way --- */

static int staged_path(const char *dir, uint32_t generation, char ret[static PATH_MAX])
{
	char name[32];

	snprintf(name, sizeof(name), STAGED "%u", generation);
	return path_of(dir, name, ret);
}

int dmmd_state_stage_policy(const char *dir, uint32_t generation, const char *text, size_t len)
{
	char path[PATH_MAX];
	int r = staged_path(dir, generation, path);

	return r < 0 ? r : dmm_file_write_atomic(path, text, len, 0600);
}

int dmmd_state_keep_policy(const char *dir, uint32_t generation)
{
	char from[PATH_MAX], to[PATH_MAX];
	int r = staged_path(dir, generation, from);

	if (r == 0)
		r = path_of(dir, "policy.yaml", to);
	return r < 0 ? r : dmm_file_rename(from, to);
}

void dmmd_state_drop_policy(const char *dir, uint32_t generation)
{
	char path[PATH_MAX];

	if (staged_path(dir, generation, path) == 0)
		unlink(path);
}

int dmmd_state_settle_policy(const char *dir, uint32_t live)
{
	int r = dmmd_state_keep_policy(dir, live);
	struct dirent *entry;
	DIR *folder;

	if (r < 0 && r != -ENOENT)
		return r;
	folder = opendir(dir);
	if (!folder)
		return -errno;
	while ((entry = readdir(folder)))
		if (strncmp(entry->d_name, STAGED, strlen(STAGED)) == 0)
			unlinkat(dirfd(folder), entry->d_name, 0);
	closedir(folder);
	return r == 0;
}
