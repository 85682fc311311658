/* SPDX-License-Identifier: Apache-2.0 */
/* The compiled tables against first match the plain way, over random policies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "policy/compile.h"
#include "randpolicy.h"

#define POLICIES 1000 /* times LOOKUPS is a million, with LONG=1 a hundred */
#define LOOKUPS	 1000

static unsigned int rounds(void)
{
	return getenv("LONG") && *getenv("LONG") ? 100 * POLICIES : POLICIES;
}

static void compare(struct rnd *rnd, const struct dmm_policy *policy,
		    const struct dmm_tables *tables, uint64_t seed)
{
	unsigned int i;

	for (i = 0; i < LOOKUPS; i++) {
		struct random_flow flow = random_flow(rnd, policy);
		uint32_t want = naive_match(policy, &flow);
		uint32_t got = random_flow_match(tables, &flow);

		if (got == want)
			continue;
		print_policy(policy, stdout);
		print_flow(&flow, stdout);
		printf("# rule %u, not %u; repeat with SEED=%llu\n", got, want,
		       (unsigned long long)seed);
		fail();
	}
}

static void tables_decide_as_first_match(void **state)
{
	uint64_t seed = rnd_seed();
	unsigned int i;

	(void)state;
	for (i = 0; i < rounds(); i++) {
		struct rnd rnd = rnd_start(seed + i);
		struct dmm_policy *policy = random_policy(&rnd, 20);
		struct dmm_compile_env env = random_env(policy);
		struct dmm_findings found = { 0 };
		struct dmm_tables tables;

		assert_int_equal(dmm_policy_compile(policy, &env, &tables, &found), 0);
		compare(&rnd, policy, &tables, seed + i);
		dmm_tables_free(&tables);
		dmm_policy_free(policy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_decide_as_first_match),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
