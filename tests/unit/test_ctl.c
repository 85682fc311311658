/* SPDX-License-Identifier: Apache-2.0 */
/* Control protocol: framing and JSON. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/util.h"
#include "ctl/frame.h"
#include "ctl/json.h"

/* Feeds @n bytes; what the frame said. */
static int feed(struct dmm_ctl_frame *frame, const char *bytes, size_t n)
{
	while (n > 0) {
		size_t room;
		char *to;
		int r = dmm_ctl_frame_room(frame, &to, &room);

		if (r < 0)
			return r;
		assert_true(room > 0);
		room = DMM_MIN(room, n);
		memcpy(to, bytes, room);
		dmm_ctl_frame_got(frame, room);
		bytes += room;
		n -= room;
	}
	return 0;
}

static void expect_line(struct dmm_ctl_frame *frame, const char *text)
{
	size_t len = 0;
	char *line = dmm_ctl_frame_next(frame, &len);

	if (!text) {
		assert_null(line);
		return;
	}
	assert_non_null(line);
	assert_int_equal(len, strlen(text));
	assert_string_equal(line, text);
}

static void lines_come_out_however_they_were_cut(void **state)
{
	static const char text[] = "first\n\nthird line\nrest";

	(void)state;
	for (size_t cut = 1; cut < sizeof(text); cut++) {
		struct dmm_ctl_frame frame;
		char all[64] = "";
		size_t len;
		char *line;

		dmm_ctl_frame_init(&frame, 100);
		for (size_t at = 0; at < strlen(text); at += cut) {
			assert_int_equal(feed(&frame, text + at, DMM_MIN(cut, strlen(text) - at)),
					 0);
			while ((line = dmm_ctl_frame_next(&frame, &len))) {
				strcat(all, line);
				strcat(all, "|");
			}
		}
		assert_string_equal(all, "first||third line|");
		assert_int_equal(dmm_ctl_frame_pending(&frame), 4);
		dmm_ctl_frame_free(&frame);
	}
}

static void pipelined_lines_wait_their_turn(void **state)
{
	struct dmm_ctl_frame frame;

	(void)state;
	dmm_ctl_frame_init(&frame, 10);
	assert_int_equal(feed(&frame, "a\nb\nc\nd", 7), 0);
	expect_line(&frame, "a");
	expect_line(&frame, "b");
	assert_int_equal(feed(&frame, "e\n", 2), 0);
	expect_line(&frame, "c");
	expect_line(&frame, "de");
	expect_line(&frame, NULL);
	dmm_ctl_frame_free(&frame);
}

static void a_line_may_be_as_long_as_its_cap(void **state)
{
	struct dmm_ctl_frame frame;
	char *line = test_malloc(100001);

	(void)state;
	memset(line, 'x', 100000);
	line[100000] = '\0';
	dmm_ctl_frame_init(&frame, 100000);
	assert_int_equal(feed(&frame, line, 100000), 0);
	assert_int_equal(feed(&frame, "\n", 1), 0);
	expect_line(&frame, line);
	assert_int_equal(feed(&frame, line, 100000), 0);
	assert_int_equal(feed(&frame, "x", 1), 0);
	expect_line(&frame, NULL);
	assert_int_equal(feed(&frame, "x", 1), -EMSGSIZE);
	dmm_ctl_frame_free(&frame);
	test_free(line);
}

static void memory_of_a_long_line_is_given_back(void **state)
{
	struct dmm_ctl_frame frame;
	char *line = test_calloc(1, 1000000);
	size_t len;

	(void)state;
	dmm_ctl_frame_init(&frame, 2000000);
	memset(line, 'x', 999999);
	line[999999] = '\n';
	assert_int_equal(feed(&frame, line, 1000000), 0);
	assert_non_null(dmm_ctl_frame_next(&frame, &len));
	assert_int_equal(feed(&frame, "y", 1), 0);
	assert_true(frame.cap <= 8192);
	dmm_ctl_frame_free(&frame);
	test_free(line);
}

static struct json_object *parse(const char *text)
{
	return dmm_json_parse(text, strlen(text));
}

static void only_one_whole_object_is_a_request(void **state)
{
	static const char *const wrong[] = {
		"",	     "nonsense",     "[1]",	     "\"text\"",	  "1", "null", "{",
		"{\"a\": }", "{\"a\": 1} x", "{\"a\": 1}{}", "{\"a\": \"\xff\"}",
	};
	char deep[200] = "";
	struct json_object *obj;

	(void)state;
	for (size_t i = 0; i < DMM_ARRAY_SIZE(wrong); i++)
		if (parse(wrong[i]))
			fail_msg("taken for a request: %s", wrong[i]);
	assert_null(dmm_json_parse("{}\0{}", 5));
	for (int i = 0; i < 20; i++)
		strcat(deep, "{\"a\":");
	strcat(deep, "1");
	for (int i = 0; i < 20; i++)
		strcat(deep, "}");
	assert_null(parse(deep));
	obj = parse(" {\"a\": 1} \r");
	assert_non_null(obj);
	json_object_put(obj);
}

static void members_have_their_type_or_are_missing(void **state)
{
	struct json_object *obj =
		parse("{\"t\": \"x\", \"n\": 7, \"neg\": -1, \"b\": true, \"f\": 1.5,"
		      " \"z\": \"a\\u0000b\", \"big\": 18446744073709551615}");
	uint64_t n = 42;

	(void)state;
	assert_string_equal(dmm_json_text(obj, "t"), "x");
	assert_null(dmm_json_text(obj, "n"));
	assert_null(dmm_json_text(obj, "none"));
	assert_null(dmm_json_text(obj, "z"));
	assert_null(dmm_json_text(NULL, "t"));
	assert_true(dmm_json_bool(obj, "b"));
	assert_false(dmm_json_bool(obj, "n"));
	assert_false(dmm_json_u64(obj, "t", 10, &n));
	assert_false(dmm_json_u64(obj, "neg", 10, &n));
	assert_false(dmm_json_u64(obj, "f", 10, &n));
	assert_false(dmm_json_u64(obj, "n", 6, &n));
	assert_false(dmm_json_u64(obj, "big", INT64_MAX, &n));
	assert_int_equal(n, 42);
	assert_true(dmm_json_u64(obj, "n", 7, &n));
	assert_int_equal(n, 7);
	assert_true(dmm_json_u64(obj, "big", UINT64_MAX, &n));
	assert_true(n == UINT64_MAX);
	json_object_put(obj);
}

static void errors_and_times_read_as_documented(void **state)
{
	struct json_object *error = dmm_json_error(-ENOENT, 5, "do this", NULL, "no %s", "thing");

	(void)state;
	dmm_json_set_time(error, "at", 1700000000123456789ull);
	assert_string_equal(json_object_to_json_string_ext(error, JSON_C_TO_STRING_PLAIN),
			    "{\"errno\":\"ENOENT\",\"text\":\"no thing\",\"hint\":\"do this\","
			    "\"exit\":5,\"at\":\"2023-11-14T22:13:20.123Z\"}");
	json_object_put(error);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_come_out_however_they_were_cut),
		cmocka_unit_test(pipelined_lines_wait_their_turn),
		cmocka_unit_test(a_line_may_be_as_long_as_its_cap),
		cmocka_unit_test(memory_of_a_long_line_is_given_back),
		cmocka_unit_test(only_one_whole_object_is_a_request),
		cmocka_unit_test(members_have_their_type_or_are_missing),
		cmocka_unit_test(errors_and_times_read_as_documented),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
