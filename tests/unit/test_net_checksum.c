// SPDX-License-Identifier: Apache-2.0
/* The Internet checksum of the engine beside its definition (RFC 1071), for every length of a packet
 * and every alignment, with the widest instructions there are and without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "net/checksum.h"

#define LONGEST 2100
#define ALIGNS	64

static uint8_t bytes[LONGEST + ALIGNS];

/* As it stands in memory. */
static uint16_t defined(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;
	size_t i;

	for (i = 0; i < len; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return __builtin_bswap16((uint16_t)~sum);
}

static void fill(uint8_t (*byte)(size_t i))
{
	size_t i;

	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = byte(i);
}

static uint8_t mixed(size_t i)
{
	return (uint8_t)((i + 1) * 2654435761u >> 11);
}

static uint8_t ones(size_t i)
{
	(void)i;
	return 0xff;
}

static void check_all(void)
{
	size_t at, len;

	for (at = 0; at < ALIGNS; at++)
		for (len = 0; len <= LONGEST; len += len < 300 ? 1 : 7) {
			const uint16_t want = defined(bytes + at, len);

			assert_int_equal(net_sum_finish(net_sum(bytes + at, len, 0)), want);
			assert_int_equal(net_sum_finish(net_sum_plain(bytes + at, len, 0)), want);
		}
}

static void lengths_and_alignments(void **state)
{
	(void)state;
	fill(mixed);
	check_all();
}

/* Where every carry counts. */
static void all_ones(void **state)
{
	(void)state;
	fill(ones);
	check_all();
}

/* A sum is begun with another: of even parts it is that of the whole. */
static void parts(void **state)
{
	size_t cut;

	(void)state;
	fill(mixed);
	for (cut = 0; cut <= LONGEST; cut += 2) {
		const uint64_t first = net_sum(bytes, cut, 0);

		assert_int_equal(net_sum_finish(net_sum(bytes + cut, LONGEST - cut, first)),
				 defined(bytes, LONGEST));
	}
}

/* Nothing beyond the end is read: the byte there would be an error of the sanitizer's. */
static void ends_are_kept(void **state)
{
	size_t len;

	(void)state;
	for (len = 1; len < 200; len++) {
		uint8_t *p = malloc(len);

		memset(p, 0x5a, len);
		assert_int_equal(net_sum_finish(net_sum(p, len, 0)), defined(p, len));
		free(p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lengths_and_alignments),
		cmocka_unit_test(all_ones),
		cmocka_unit_test(parts),
		cmocka_unit_test(ends_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
