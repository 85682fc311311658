/* SPDX-License-Identifier: Apache-2.0 */
/* The policy language by its files: examples have nothing to say against, each wrong file gives
 * exactly what its .expected says, and the schema is the one in policy/. Runs in the tree's top
 * folder. With UPDATE=1 it writes the expected files and the schema instead of comparing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <json-c/json.h>

#include "base/util.h"
#include "dmmd/hostcheck.h"
#include "policy/codes.h"
#include "policy/policy.h"

#define HEADER "# SPDX-License-Identifier: Apache-2.0\n"

struct text {
	char *s;
	size_t len;
};

static struct text read_text(const char *path)
{
	dmm_autofclose FILE *f = fopen(path, "r");
	struct text text = { 0 };
	size_t n;

	if (!f)
		fail_msg("cannot open %s", path);
	text.s = malloc(1 << 20);
	assert_non_null(text.s);
	while ((n = fread(text.s + text.len, 1, (1 << 20) - 1 - text.len, f)))
		text.len += n;
	text.s[text.len] = 0;
	return text;
}

static bool updating(void)
{
	return getenv("UPDATE") && dmm_streq(getenv("UPDATE"), "1");
}

/* Fails, or with UPDATE=1 writes, where @path does not hold @want. */
static void compare_file(const char *path, const char *want)
{
	struct text text;

	if (updating()) {
		dmm_autofclose FILE *f = fopen(path, "w");

		assert_non_null(f);
		fputs(want, f);
		return;
	}
	text = read_text(path);
	if (strcmp(text.s, want)) {
		fprintf(stderr, "%s: expected\n%s\ngot\n%s\n", path, text.s, want);
		fail();
	}
	free(text.s);
}

/* Calls @fn for each .yaml of @folder; their number. */
static unsigned int each_yaml(const char *folder, void (*fn)(const char *folder, const char *name))
{
	struct dirent **names;
	int i, n = scandir(folder, &names, NULL, alphasort);
	unsigned int count = 0;

	for (i = 0; i < n; i++) {
		size_t len = strlen(names[i]->d_name);

		if (len > 5 && dmm_streq(names[i]->d_name + len - 5, ".yaml")) {
			fn(folder, names[i]->d_name);
			count++;
		}
		free(names[i]);
	}
	if (n >= 0)
		free(names);
	return count;
}

static int parse_file(const char *folder, const char *name, struct dmm_policy **ret,
		      struct dmm_findings *found)
{
	char path[512];
	struct text text;
	int r;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	text = read_text(path);
	r = dmm_policy_parse(text.s, text.len, name, ret, found);
	free(text.s);
	return r;
}

static void check_example(const char *folder, const char *name)
{
	struct dmm_policy *policy = NULL;
	struct dmm_findings found;

	if (parse_file(folder, name, &policy, &found) < 0 || found.n) {
		dmm_findings_print(&found, stderr);
		fail_msg("%s has findings", name);
	}
	dmm_findings_free(&found);
	dmm_policy_free(policy);
}

static void examples_have_no_findings(void **state)
{
	(void)state;
	assert_true(each_yaml("policy/examples", check_example) >= 5);
}

static void check_wrong(const char *folder, const char *name)
{
	struct dmm_policy *policy = NULL;
	struct dmm_findings found;
	char path[512], *want;
	size_t size;
	FILE *out = open_memstream(&want, &size);
	int r = parse_file(folder, name, &policy, &found);

	assert_non_null(out);
	fputs(HEADER, out);
	dmm_findings_print(&found, out);
	fclose(out);
	assert_true(found.n > 0);
	assert_int_equal(r, found.errors ? -EINVAL : 0);
	assert_true(!policy == (found.errors > 0));
	snprintf(path, sizeof(path), "%s/%.*s.expected", folder, (int)strlen(name) - 5, name);
	compare_file(path, want);
	free(want);
	dmm_findings_free(&found);
	dmm_policy_free(policy);
}

static void wrong_files_give_what_is_expected(void **state)
{
	(void)state;
	assert_true(each_yaml("policy/wrong", check_wrong) > 0);
}

static bool has_code(const char *file, unsigned int code)
{
	struct dmm_policy *policy = NULL;
	struct dmm_findings found;
	bool has = false;
	size_t i;

	parse_file("policy/wrong", file, &policy, &found);
	for (i = 0; i < found.n; i++)
		has |= found.items[i].code == code;
	dmm_findings_free(&found);
	dmm_policy_free(policy);
	return has;
}

static const struct {
	const char *name;
	unsigned int code;
} codes[] = {
#define DMM_X(name, number, text) { #name, number },
	DMM_POLICY_CODES(DMM_X)
#undef DMM_X
};

/* policy/wrong/unknown-field.yaml for UNKNOWN_FIELD. */
static void each_code_has_a_wrong_file(void **state)
{
	size_t i, k;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(codes); i++) {
		char file[64];

		/* a file of 64 MiB, and tables of 256 MiB: tested from memory */
		if (codes[i].code == DMM_CODE_SIZE || codes[i].code == DMM_CODE_TABLES)
			continue;
		snprintf(file, sizeof(file), "%s.yaml", codes[i].name);
		for (k = 0; file[k]; k++)
			file[k] = file[k] == '_' ? '-' : tolower((unsigned char)file[k]);
		if (!has_code(file, codes[i].code))
			fail_msg("%s does not show %u", file, codes[i].code);
	}
}

/* And nothing else is. */
static void each_code_is_in_the_readme(void **state)
{
#define X(name, number, text) number,
	static const unsigned int all[] = { DMM_POLICY_CODES(X) DMMD_CODES(X) };
#undef X
	struct text text = read_text("policy/README.md");
	unsigned int rows = 0, number;
	char row[16], *p;
	size_t i;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(all); i++) {
		snprintf(row, sizeof(row), "\n| %c%03u |", all[i] < 100 ? 'E' : 'W', all[i]);
		if (!strstr(text.s, row))
			fail_msg("policy/README.md has no %s", row + 1);
	}
	for (p = text.s; (p = strstr(p, "\n| ")); p++)
		rows += sscanf(p, "\n| %*1[EW]%3u |", &number) == 1;
	assert_int_equal(rows, DMM_ARRAY_SIZE(all));
	free(text.s);
}

static void schema_is_the_one_in_policy(void **state)
{
	struct json_object *json, *value;
	char *schema;
	size_t size;
	FILE *out = open_memstream(&schema, &size);

	(void)state;
	assert_non_null(out);
	dmm_policy_schema(out);
	fclose(out);
	compare_file("policy/policy.schema.json", schema);
	json = json_tokener_parse(schema);
	assert_true(json_object_object_get_ex(json, "properties", &value));
	assert_true(json_object_object_get_ex(value, "spec", &value));
	json_object_put(json);
	free(schema);
}

/* Whatever an editor writes half of, or a bit flips in. */
static void check_damage(const char *folder, const char *name)
{
	static const char bytes[] = { 0, ':', '[', '}', '"', '\n', '&', '-', '9', (char)0xff };
	char path[512];
	struct text text;
	size_t i, k;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	text = read_text(path);
	for (i = 0; i <= text.len; i++) {
		for (k = 0; k <= DMM_ARRAY_SIZE(bytes); k++) {
			struct dmm_policy *policy = NULL;
			struct dmm_findings found;
			char *copy = malloc(text.len + 1); /* exact, for the sanitizer */
			size_t len = k ? text.len : i;
			int r;

			assert_non_null(copy);
			memcpy(copy, text.s, len);
			if (k && i < len)
				copy[i] = bytes[k - 1];
			r = dmm_policy_parse(copy, len, name, &policy, &found);
			assert_true(r == 0 ? policy && !found.errors : !policy && found.errors);
			free(copy);
			dmm_findings_free(&found);
			dmm_policy_free(policy);
		}
	}
	free(text.s);
}

static void damaged_examples_are_parsed_or_refused(void **state)
{
	(void)state;
	each_yaml("policy/examples", check_damage);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(examples_have_no_findings),
		cmocka_unit_test(wrong_files_give_what_is_expected),
		cmocka_unit_test(each_code_has_a_wrong_file),
		cmocka_unit_test(each_code_is_in_the_readme),
		cmocka_unit_test(schema_is_the_one_in_policy),
		cmocka_unit_test(damaged_examples_are_parsed_or_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
