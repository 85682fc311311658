/* SPDX-License-Identifier: Apache-2.0 */
/* Initial sequence numbers and SYN cookies: who gets one, who can guess one, how long it holds. */
#include "instance/isn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"

static const struct isn secret = { .key = { 1, 2 }, .cookie_key = { 3, 4 } };
static const struct dmm_endpoint server = { .addr = { [10] = 0xff, [11] = 0xff, 10, 0, 0, 1 },
					    .port = 80 };
static const struct dmm_endpoint client = { .addr = { 0xfd, [15] = 7 }, .port = 1234 };

#define AT	(1000 * DMM_NS_PER_SEC)
#define MINUTES (60 * DMM_NS_PER_SEC)

static struct isn_syn syn_of(uint32_t seq, uint16_t mss)
{
	return (struct isn_syn){ .local = &server, .remote = &client, .seq = seq, .mss = mss };
}

static void numbers_grow_with_time_and_differ_by_flow(void **state)
{
	struct dmm_endpoint other = client;
	uint32_t first = isn_make(&secret, &server, &client, AT);
	struct isn another = secret;

	(void)state;
	/* 250 000 a second (RFC 9293, 3.4.1) */
	assert_int_equal(isn_make(&secret, &server, &client, AT + DMM_NS_PER_SEC) - first, 250000);
	other.port++;
	assert_int_not_equal(isn_make(&secret, &server, &other, AT), first);
	other = client;
	other.addr[3] = 1;
	assert_int_not_equal(isn_make(&secret, &server, &other, AT), first);
	another.key[1]++;
	assert_int_not_equal(isn_make(&another, &server, &client, AT), first);
}

static void cookies_say_the_mss(void **state)
{
	static const uint16_t said[][2] = { { 0, 536 },	    { 536, 536 },    { 1219, 536 },
					    { 1220, 1220 }, { 1459, 1452 },  { 1460, 1460 },
					    { 8939, 1460 }, { 0xffff, 8940 } };

	(void)state;
	for (size_t i = 0; i < sizeof(said) / sizeof(*said); i++) {
		struct isn_syn syn = syn_of(77, said[i][0]), back = syn_of(77, 0);
		uint32_t cookie = isn_make_cookie(&secret, &syn, AT);

		assert_true(isn_check_cookie(&secret, cookie, &back, AT + 1));
		assert_int_equal(back.mss, said[i][1]);
	}
}

static void cookies_are_for_one_client_and_one_syn(void **state)
{
	struct isn_syn syn = syn_of(77, 1460), other;
	uint32_t cookie = isn_make_cookie(&secret, &syn, AT);
	struct dmm_endpoint end = client;
	struct isn another = secret;

	(void)state;
	other = syn_of(78, 0);
	assert_false(isn_check_cookie(&secret, cookie, &other, AT));
	end.port++;
	other = syn_of(77, 0);
	other.remote = &end;
	assert_false(isn_check_cookie(&secret, cookie, &other, AT));
	other.remote = &client;
	other.local = &client;
	assert_false(isn_check_cookie(&secret, cookie, &other, AT));
	another.cookie_key[0]++;
	other = syn_of(77, 0);
	assert_false(isn_check_cookie(&another, cookie, &other, AT));
	for (int bit = 0; bit < 32; bit++)
		assert_false(isn_check_cookie(&secret, cookie ^ 1u << bit, &other, AT));
}

static void cookies_hold_a_minute_and_not_three(void **state)
{
	struct isn_syn syn = syn_of(77, 1460), back = syn_of(77, 0);

	(void)state;
	for (uint64_t at = AT; at < AT + 5 * MINUTES; at += 7 * DMM_NS_PER_SEC) {
		uint32_t cookie = isn_make_cookie(&secret, &syn, at);

		assert_true(isn_check_cookie(&secret, cookie, &back, at + MINUTES));
		assert_false(isn_check_cookie(&secret, cookie, &back, at + 3 * MINUTES));
		/* nor where the five bits of its clock come round */
		assert_false(
			isn_check_cookie(&secret, cookie, &back, at + 32 * 64 * DMM_NS_PER_SEC));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_grow_with_time_and_differ_by_flow),
		cmocka_unit_test(cookies_say_the_mss),
		cmocka_unit_test(cookies_are_for_one_client_and_one_syn),
		cmocka_unit_test(cookies_hold_a_minute_and_not_three),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
