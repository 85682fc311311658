/* SPDX-License-Identifier: Apache-2.0 */
/* Random policies on real maps: the matcher inside the kernel, the same matcher over the tables in
 * memory, and naive first match agree, also while generations change: on a million look-ups (LONG=1: a
 * hundred).
 *   SEED=n  TRIALS=n look-ups */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/util.h"
#include "policy/policy.h"

#include "bpfenv.h"
#include "match_query.h"
#include "randpolicy.h"

#include "tests/bpf/match_wrap.skel.h"

#define BATCH	  1000 /* queries in one run of the program */
#define MAX_RULES 40
#define NO_RULE	  0xffffffffu /* DMM_NO_RULE: match.h is a template */
#define BATCHES	  5	      /* of each policy: to make and install it takes as long */

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

/* The answers are in wrap->bss->queries[].rule. */
static void ask_kernel(const struct random_flow *flows, unsigned int n)
{
	uint8_t frame[64] = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = sizeof(frame));
	unsigned int i;

	assert_true(n <= DMM_ARRAY_SIZE(wrap->bss->queries));
	for (i = 0; i < n; i++) {
		struct match_query *q = &wrap->bss->queries[i];

		*q = (struct match_query){
			.class_id = flows[i].class_id,
			.dir = flows[i].dir,
			.proto = flows[i].proto,
			.port = flows[i].port,
			.rule = NO_RULE - 1,
		};
		memcpy(q->remote, flows[i].remote, 16);
		memcpy(q->local, flows[i].local, 16);
	}
	wrap->bss->n_queries = n;
	if (bpf_prog_test_run_opts(bpf_program__fd(wrap->progs.match_batch), &opts) < 0)
		fail_msg("test run: %s", strerror(errno));
	assert_int_equal(opts.retval, n);
}

static uint32_t kernel_match(const struct random_flow *flow)
{
	ask_kernel(flow, 1);
	return wrap->bss->queries[0].rule;
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
static void compare(struct rnd *rnd, const struct compiled *c)
{
	static struct random_flow flows[BATCH];
	unsigned int i;

	for (i = 0; i < BATCH; i++)
		flows[i] = random_flow(rnd, c->policy);
	ask_kernel(flows, BATCH);
	for (i = 0; i < BATCH; i++) {
		const struct random_flow *flow = &flows[i];
		uint32_t naive = naive_match(c->policy, flow);
		uint32_t memory = random_flow_match(&c->tables, flow);
		uint32_t kernel = wrap->bss->queries[i].rule;

		if (kernel == naive && memory == naive)
			continue;
		print_policy(c->policy, stdout);
		print_flow(flow, stdout);
		fail_msg("rule %u; in memory %u, in the kernel %u", naive, memory, kernel);
	}
}

static uint64_t lookups(void)
{
	const char *trials = getenv("TRIALS"), *more = getenv("LONG");

	if (trials && *trials)
		return strtoull(trials, NULL, 0);
	return more && *more ? 100000000 : 1000000;
}

static void kernel_memory_and_first_match_agree(void **state)
{
	uint64_t wanted = lookups(), done = 0, start = dmm_now_ns();
	struct rnd rnd = rnd_start(rnd_seed());
	struct compiled live = { 0 }, next;
	uint32_t generation;
	unsigned int i;

	(void)state;
	for (generation = 1; done < wanted; generation++) {
		uint32_t slot = generation % DMM_GEN_SLOTS;

		next = compile(&rnd, generation);
		bpfenv_install(&env, slot, &next.tables);
		if (live.policy) { /* the new one is not live yet */
			compare(&rnd, &live);
			done += BATCH;
		}
		bpfenv_go_live(&env, slot, generation);
		release(&live);
		live = next;
		for (i = 0; i < BATCHES; i++)
			compare(&rnd, &live);
		done += BATCHES * BATCH;
	}
	release(&live);
	print_message("# %" PRIu64 " look-ups in %u policies compared in %.1f s\n", done,
		      generation - 1, (dmm_now_ns() - start) / 1e9);
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
	flow.class_id = meta->n_classes + (1 << 24); /* behind all roots */
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
