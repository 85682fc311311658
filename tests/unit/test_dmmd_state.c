/* SPDX-License-Identifier: Apache-2.0 */
/* dmmd's state file: what is written is read back; what is damaged is refused whole. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/util.h"
#include "dmmd/state.h"

static char dir[PATH_MAX], file[PATH_MAX + 16];

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/dmm-test-state-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(file, sizeof(file), "%s/state.json", dir);
	return 0;
}

static int remove_dir(void **state)
{
	char command[PATH_MAX + 16];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	return system(command);
}

static void fill(struct dmmd_state *state)
{
	dmmd_state_init(state);
	snprintf(state->boot_id, sizeof(state->boot_id), "01234567-89ab-cdef-0123-456789abcdef");
	state->generation = 4000000000u;
	state->policy_file = strdup("/etc/dmm/web \"x\".yaml");
	state->applied_at = 1700000000123456789ull;
	assert_int_equal(dmmd_classes_add(&state->classes, "/web.slice", 1, 3), 0);
	assert_int_equal(dmmd_classes_add(&state->classes, "/a/b", 65535, 9), 0);
	state->attached = calloc(2, sizeof(char *));
	state->attached[0] = strdup("/by/hand");
	state->attached[1] = strdup("/\xc3\xa9");
	state->n_attached = 2;
	state->retired = calloc(1, sizeof(char *));
	state->retired[0] = strdup("/old");
	state->n_retired = 1;
	state->n_stacks = 2;
	state->stacks[0] = (struct dmmd_stack_record){
		.spec = { .name = "fast",
			  .plugin = "lwip",
			  .backend = "xsk",
			  .interface = "eth1",
			  .mode = DMM_XDP_GENERIC,
			  .zerocopy = DMM_ZC_REQUIRE,
			  .poll = DMM_POLL_BUSY,
			  .ports = { 20000, 31999 },
			  .ports_chosen = true },
		.slot = 3,
		.incarnation = 77,
		.pid = 4711,
		.start_time = UINT64_MAX,
		.restarts = 5,
		.draining = true,
		.removed = true,
		.zerocopy = true,
	};
	state->stacks[1] = (struct dmmd_stack_record){
		.spec = { .name = "slow",
			  .plugin = "lwip",
			  .backend = "xsk",
			  .interface = "eth2",
			  .ports = { 1, 2 } },
		.stopped = true,
	};
}

static void state_survives_the_file(void **ignored)
{
	struct dmmd_state in, out;

	(void)ignored;
	fill(&in);
	assert_int_equal(dmmd_state_load(dir, &out), -ENOENT);
	assert_int_equal(dmmd_state_save(dir, &in), 0);
	assert_int_equal(dmmd_state_load(dir, &out), 0);
	assert_string_equal(out.boot_id, in.boot_id);
	assert_int_equal(out.generation, in.generation);
	assert_string_equal(out.policy_file, in.policy_file);
	assert_true(out.applied_at == in.applied_at);
	assert_int_equal(out.classes.n, 2);
	assert_int_equal(out.classes.next, 65536);
	assert_string_equal(out.classes.items[1].cgroup, "/a/b");
	assert_int_equal(out.classes.items[1].used, 9);
	assert_int_equal(out.n_attached, 2);
	assert_string_equal(out.attached[1], "/\xc3\xa9");
	assert_int_equal(out.n_made, 0);
	assert_int_equal(out.n_retired, 1);
	assert_string_equal(out.retired[0], "/old");
	assert_int_equal(out.n_stacks, 2);
	assert_memory_equal(&out.stacks, &in.stacks, 2 * sizeof(in.stacks[0]));
	dmmd_state_free(&in);
	dmmd_state_free(&out);
}

static char *saved_text(size_t *len)
{
	struct dmmd_state state;
	char *text;

	fill(&state);
	assert_int_equal(dmmd_state_save(dir, &state), 0);
	assert_int_equal(dmm_file_read(file, 1 << 20, &text, len), 0);
	dmmd_state_free(&state);
	return text;
}

static int load_text(const char *text, size_t len)
{
	struct dmmd_state state;
	int r;

	assert_int_equal(dmm_file_write_atomic(file, text, len, 0600), 0);
	r = dmmd_state_load(dir, &state);
	if (r == 0)
		dmmd_state_free(&state);
	return r;
}

static void every_truncation_is_refused(void **ignored)
{
	size_t len;
	char *text = saved_text(&len);

	(void)ignored;
	for (size_t n = 0; n < len; n += n < 40 ? 1 : 7)
		if (text[n] && n + 2 < len && load_text(text, n) != -EBADMSG)
			fail_msg("accepted with %zu of %zu bytes", n, len);
	assert_int_equal(load_text(text, len), 0);
	free(text);
}

/* The saved text with @from replaced by @to. */
static int load_changed(const char *text, const char *from, const char *to)
{
	const char *at = strstr(text, from);
	char *changed;
	int r;

	assert_non_null(at);
	changed = test_malloc(strlen(text) + strlen(to) + 1);
	sprintf(changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
	r = load_text(changed, strlen(changed));
	test_free(changed);
	return r;
}

static void wrong_fields_are_refused(void **ignored)
{
	static const char *const wrong[][2] = {
		{ "\"format\":1", "\"format\":2" },
		{ "\"slot\":3", "\"slot\":64" },
		{ "\"slot\":3", "\"slot\":0" }, /* taken by the other */
		{ "\"name\":\"slow\"", "\"name\":\"fast\"" },
		{ "\"pid\":4711", "\"pid\":-1" },
		{ "\"poll\":\"busy\"", "\"poll\":\"lazy\"" },
		{ "\"port_last\":31999", "\"port_last\":65536" },
		{ "\"port_last\":31999", "\"port_last\":19999" },
		{ "\"id\":65535", "\"id\":1" },
		{ "\"cgroup\":\"/a/b\"", "\"cgroup\":7" },
		{ "\"/by/hand\"", "\"by/hand\"" },
		{ "\"/by/hand\"", "{}" },
		{ "\"interface\":\"eth1\"", "\"interface\":\"a-name-too-long-for-one\"" },
		{ "\"generation\"", "\"degeneration\"" },
	};
	size_t len;
	char *text = saved_text(&len), *compact = strdup(text);
	size_t n = 0;

	(void)ignored;
	for (size_t i = 0; i < len; i++) /* spaces: only indentation and the one in a file name */
		if (text[i] != ' ' && text[i] != '\n')
			compact[n++] = text[i];
	compact[n] = '\0';
	assert_int_equal(load_text(compact, n), 0);
	for (size_t i = 0; i < DMM_ARRAY_SIZE(wrong); i++)
		if (load_changed(compact, wrong[i][0], wrong[i][1]) != -EBADMSG)
			fail_msg("accepted: %s", wrong[i][1]);
	free(text);
	free(compact);
}

static void a_bad_file_is_set_aside(void **ignored)
{
	struct dmmd_state state;
	char bad[PATH_MAX + 32];

	(void)ignored;
	assert_int_equal(load_text("garbage", 7), -EBADMSG);
	assert_int_equal(dmmd_state_set_aside(dir), 0);
	snprintf(bad, sizeof(bad), "%s.bad", file);
	assert_int_equal(access(bad, F_OK), 0);
	assert_int_equal(dmmd_state_load(dir, &state), -ENOENT);
}

static void the_policy_text_is_kept_as_it_was(void **ignored)
{
	char *text;
	size_t len;

	(void)ignored;
	assert_int_equal(dmmd_state_load_policy(dir, &text, &len), -ENOENT);
	assert_int_equal(dmmd_state_stage_policy(dir, 1, "a\0b", 3), 0);
	assert_int_equal(dmmd_state_load_policy(dir, &text, &len), -ENOENT);
	assert_int_equal(dmmd_state_keep_policy(dir, 1), 0);
	assert_int_equal(dmmd_state_load_policy(dir, &text, &len), 0);
	assert_int_equal(len, 3);
	assert_memory_equal(text, "a\0b", 3);
	free(text);
}

static void assert_policy(const char *expected)
{
	char *text;
	size_t len;

	assert_int_equal(dmmd_state_load_policy(dir, &text, &len), 0);
	assert_string_equal(text, expected);
	free(text);
}

static void the_live_generation_says_which_policy_counts(void **ignored)
{
	(void)ignored;
	assert_int_equal(dmmd_state_settle_policy(dir, 0), 0); /* nothing there */
	assert_int_equal(dmmd_state_stage_policy(dir, 7, "seven", 5), 0);
	assert_int_equal(dmmd_state_keep_policy(dir, 7), 0);
	assert_int_equal(dmmd_state_stage_policy(dir, 8, "eight", 5), 0);
	assert_int_equal(dmmd_state_settle_policy(dir, 7), 0); /* killed before */
	assert_policy("seven");
	assert_int_equal(dmmd_state_settle_policy(dir, 8), 0); /* it was dropped */
	assert_policy("seven");
	assert_int_equal(dmmd_state_stage_policy(dir, 8, "again", 5), 0);
	assert_int_equal(dmmd_state_settle_policy(dir, 8), 1); /* killed after */
	assert_policy("again");
	assert_int_equal(dmmd_state_stage_policy(dir, 9, "nine", 4), 0);
	dmmd_state_drop_policy(dir, 9);
	assert_int_equal(dmmd_state_settle_policy(dir, 9), 0);
	assert_policy("again");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(state_survives_the_file, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(every_truncation_is_refused, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(wrong_fields_are_refused, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(a_bad_file_is_set_aside, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(the_policy_text_is_kept_as_it_was, make_dir,
						remove_dir),
		cmocka_unit_test_setup_teardown(the_live_generation_says_which_policy_counts,
						make_dir, remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
