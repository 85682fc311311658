/* SPDX-License-Identifier: Apache-2.0 */
/* Random policies on real maps: the matcher inside the kernel, the same matcher over the tables in
 * memory, and naive first match agree, also while generations change.
 *   SEED=n  TRIALS=n lookups (30000; LONG=1: a million) */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include "base/util.h"
#include "policy/policy.h"

#include "bpfenv.h"
#include "randpolicy.h"

#include "tests/bpf/match_wrap.skel.h"

#define FLOWS_PER_POLICY 300
#define MAX_RULES	 40
#define NO_RULE		 0xffffffffu /* DMM_NO_RULE: match.h is a template */

struct query {
	uint8_t eth[14];
	struct {
		uint32_t class_id;
		uint16_t dir, proto;
		uint32_t port;
		uint8_t remote[16];
	} __attribute__((packed)) q;
} __attribute__((packed));

static struct bpfenv env;
static struct match_wrap_bpf *wrap;

static int setup(void **state)
{
	(void)state;
	if (bpfenv_open(&env) < 0)
		return -1;
	wrap = match_wrap_bpf__open();
	if (!wrap || bpfenv_share(&env, wrap->obj) < 0)
		return -1;
	return match_wrap_bpf__load(wrap);
}

static int teardown(void **state)
{
	(void)state;
	match_wrap_bpf__destroy(wrap);
	bpfenv_close(&env);
	return 0;
}

static uint32_t kernel_match(const struct random_flow *flow)
{
	struct query query = { .q = { flow->class_id, flow->dir, flow->proto, flow->port, { 0 } } };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = &query, .data_size_in = sizeof(query));

	memcpy(query.q.remote, flow->remote, 16);
	if (bpf_prog_test_run_opts(bpf_program__fd(wrap->progs.match_query), &opts) < 0)
		fail_msg("test run: %s", strerror(errno));
	return opts.retval;
}

struct compiled {
	struct dmm_policy *policy;
	struct dmm_tables tables;
};

static struct compiled compile(struct rnd *rnd, uint32_t generation)
{
	struct compiled c = { .policy = random_policy(rnd, MAX_RULES) };
	struct dmm_compile_env cenv = random_env(c.policy);

	cenv.generation = generation;
	assert_int_equal(dmm_policy_compile(c.policy, &cenv, &c.tables, NULL), 0);
	return c;
}

static void release(struct compiled *c)
{
	dmm_tables_free(&c->tables);
	dmm_policy_free(c->policy);
	memset(c, 0, sizeof(*c));
}

/* What the kernel says about flows of the policy that is live. */
static void compare(struct rnd *rnd, const struct compiled *c, unsigned int n)
{
	while (n-- > 0) {
		struct random_flow flow = random_flow(rnd, c->policy);
		uint32_t naive = naive_match(c->policy, &flow);
		uint32_t memory = dmm_tables_match(&c->tables, flow.class_id, flow.dir, flow.proto,
						   flow.remote, flow.port);
		uint32_t kernel = kernel_match(&flow);

		if (kernel == naive && memory == naive)
			continue;
		print_policy(c->policy, stdout);
		print_flow(&flow, stdout);
		fail_msg("rule %u; in memory %u, in the kernel %u", naive, memory, kernel);
	}
}

static unsigned int lookups(void)
{
	const char *trials = getenv("TRIALS"), *more = getenv("LONG");

	if (trials && *trials)
		return atoi(trials);
	return more && *more ? 1000000 : 30000;
}

static void kernel_memory_and_first_match_agree(void **state)
{
	unsigned int policies = lookups() / FLOWS_PER_POLICY + 1, i;
	struct rnd rnd = rnd_start(rnd_seed());
	struct compiled live = { 0 }, next;

	(void)state;
	for (i = 0; i < policies; i++) {
		uint32_t slot = i % DMM_GEN_SLOTS;

		next = compile(&rnd, i + 1);
		bpfenv_install(&env, slot, &next.tables);
		if (live.policy)
			compare(&rnd, &live, FLOWS_PER_POLICY / 3); /* not live yet */
		bpfenv_go_live(&env, slot, i + 1);
		release(&live);
		live = next;
		compare(&rnd, &live, FLOWS_PER_POLICY * 2 / 3);
	}
	release(&live);
}

static void classes_of_other_generations_match_nothing(void **state)
{
	struct rnd rnd = rnd_start(7);
	struct compiled c = compile(&rnd, 1);
	const struct dmm_gen_meta *meta = c.tables.blocks[DMM_TABLE_META];
	struct random_flow flow = random_flow(&rnd, c.policy);

	(void)state;
	bpfenv_install(&env, 1, &c.tables);
	bpfenv_go_live(&env, 1, 1);
	flow.class_id = meta->n_classes + 1000;
	assert_int_equal(kernel_match(&flow), NO_RULE);
	/* a slot that was never filled */
	flow.class_id = 0;
	assert_int_equal(kernel_match(&flow), naive_match(c.policy, &flow));
	bpfenv_go_live(&env, DMM_GEN_SLOTS, 2);
	assert_int_equal(kernel_match(&flow), NO_RULE);
	release(&c);
}

static int run(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kernel_memory_and_first_match_agree),
		cmocka_unit_test(classes_of_other_generations_match_nothing),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

int main(void)
{
	return bpfenv_main(run, NULL);
}
