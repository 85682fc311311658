/* SPDX-License-Identifier: Apache-2.0 */
/* The compiler's promises beyond the right answer: the layout of the tables, what is shared, what is
 * over budget, and that cost does not run away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>

#include "base/util.h"
#include "policy/codes.h"
#include "policy/compile.h"

#define NO_RULE 0xffffffffu

#define HEAD                                                                                       \
	"apiVersion: dmm/v1alpha1\nkind: Policy\nmetadata: {name: test}\nspec:\n"                  \
	"  interfaces: [{name: eth1}]\n"                                                           \
	"  stacks: [{name: fast, plugin: lwip, interface: eth1}]\n"
#define TAIL "  default: {stack: kernel}\n"

/* "/app-7" and "/x/app-7" are class 7. */
static int class_of(void *ctx, const char *cgroup)
{
	(void)ctx;
	cgroup = strrchr(cgroup, '/');
	return strncmp(cgroup, "/app-", 5) ? -ENOENT : atoi(cgroup + 5);
}

static int instances_of(void *ctx, const char *stack, uint32_t ret[static DMM_MAX_INSTANCES_OF])
{
	(void)ctx;
	if (!dmm_streq(stack, "fast"))
		return -ENOENT;
	ret[0] = 5;
	return 1;
}

static struct dmm_policy *policy;
static struct dmm_tables tables;
static struct dmm_findings found;
static struct dmm_compile_env env;

static int prepare(void **state)
{
	(void)state;
	env = (struct dmm_compile_env){ .class_of = class_of,
					.instances_of = instances_of,
					.generation = 7,
					.applied_at = 1234567890 };
	return 0;
}

static int drop(void **state)
{
	(void)state;
	dmm_policy_free(policy);
	policy = NULL;
	dmm_tables_free(&tables);
	dmm_findings_free(&found);
	return 0;
}

static void parse(const char *text)
{
	if (dmm_policy_parse(text, strlen(text), "test.yaml", &policy, &found) < 0) {
		dmm_findings_print(&found, stderr);
		fail();
	}
	dmm_findings_free(&found);
}

static void compile(const char *text)
{
	parse(text);
	assert_int_equal(dmm_policy_compile(policy, &env, &tables, &found), 0);
	assert_int_equal(found.n, 0);
}

static const struct dmm_gen_meta *meta(void)
{
	return tables.blocks[DMM_TABLE_META];
}

static uint32_t root(uint32_t class_id, enum dmm_direction dir, enum dmm_proto proto,
		     enum dmm_family family)
{
	const uint32_t *refs = tables.blocks[DMM_TABLE_ROOTS];

	return refs[DMM_ROOT_INDEX(class_id, dir, proto, family)];
}

static uint32_t match(uint32_t class_id, const char *remote, uint16_t port)
{
	uint8_t addr[16];

	assert_int_equal(inet_pton(AF_INET6, remote, addr), 1);
	return dmm_tables_match(&tables, class_id, DMM_DIR_CONNECT, DMM_PROTO_TCP, addr, port);
}

static void a_policy_without_rules_is_its_default(void **state)
{
	const struct dmm_rule *rule;
	size_t i;

	(void)state;
	compile(HEAD "  default: {stack: fast, onUnavailable: reject}\n");
	assert_int_equal(match(0, "::ffff:10.0.0.1", 80), 0);
	assert_int_equal(match(0, "2001:db8::1", 0), 0);
	rule = dmm_tables_rule(&tables, 0);
	assert_string_equal(rule->name, "default");
	assert_int_equal(rule->action, DMM_ACTION_STACK);
	assert_int_equal(rule->instance, 5);
	assert_int_equal(rule->on_unavailable, DMM_UNAVAILABLE_REJECT);
	for (i = 0; i < DMM_NUM_TABLES; i++) /* a map needs an entry */
		assert_true(tables.n_blocks[i] >= 1 && tables.blocks[i]);
}

static void rules_and_meta_are_laid_out(void **state)
{
	const struct dmm_rules_block *rules;

	(void)state;
	compile(HEAD
		"  rules:\n"
		"    - {name: r0, match: {remote: {ports: 1}}, action: {stack: fast}}\n"
		"    - {name: r1, match: {remote: {ports: 2}}, action: {reject: true}}\n"
		"    - {name: r2, match: {remote: {ports: 3}}, action: {stack: fast}}\n"
		"    - {name: r3, match: {remote: {ports: 4}}, action: {stack: fast}}\n"
		"    - {name: r4, match: {remote: {ports: 5}}, action: {stack: fast}}\n"
		"    - {name: r5, match: {remote: {ports: 6}}, action: {stack: fast}}\n"
		"    - {name: r6, match: {remote: {ports: 7}}, action: {stack: fast}}\n"
		"    - {name: r7, match: {remote: {ports: 8}}, action: {stack: fast}}\n"
		"    - {name: r8, match: {remote: {ports: 9}}, action: {stack: kernel}}\n" TAIL);
	assert_int_equal(tables.n_blocks[DMM_TABLE_RULES], 2);
	rules = tables.blocks[DMM_TABLE_RULES];
	assert_string_equal(rules[0].rule[1].name, "r1");
	assert_int_equal(rules[0].rule[1].action, DMM_ACTION_REJECT);
	assert_int_equal(rules[0].rule[1].line, 9);
	assert_int_equal(rules[0].rule[1].column, 14);
	assert_string_equal(rules[1].rule[0].name, "r8");
	assert_int_equal(rules[1].rule[0].action, DMM_ACTION_KERNEL);
	assert_string_equal(rules[1].rule[1].name, "default");
	assert_int_equal(rules[0].rule[2].hits, 0);

	assert_int_equal(meta()->generation, 7);
	assert_int_equal(meta()->applied_at, 1234567890);
	assert_int_equal(meta()->n_rules, 9);
	assert_int_equal(meta()->n_classes, 1);
	assert_int_equal(meta()->n_roots, DMM_ROOTS_PER_CLASS);
	assert_string_equal(meta()->policy, "test");
	assert_string_equal(meta()->source, "test.yaml");
}

static void runs_have_a_header_and_sorted_intervals(void **state)
{
	const struct dmm_run *runs;
	uint32_t ref;

	(void)state;
	compile(HEAD
		"  rules:\n"
		"    - {name: a, match: {remote: {ports: [80, 1-10]}}, action: {stack: fast}}\n"
		"    - {name: b, match: {remote: {ports: 5-80}}, action: {stack: fast}}\n" TAIL);
	ref = root(0, DMM_DIR_CONNECT, DMM_PROTO_TCP, DMM_FAMILY_V4);
	assert_true(ref & DMM_REF_LEAF);
	runs = (const struct dmm_run *)tables.blocks[DMM_TABLE_RUNS] + (ref & ~DMM_REF_LEAF);
	assert_int_equal(runs[0].first, 5);
	assert_true(runs[1].first == 0 && runs[1].rule == 2);
	assert_true(runs[2].first == 1 && runs[2].rule == 0);
	assert_true(runs[3].first == 11 && runs[3].rule == 1);
	assert_true(runs[4].first == 80 && runs[4].rule == 0);
	assert_true(runs[5].first == 81 && runs[5].rule == 2);
	assert_int_equal(meta()->n_runs, 6); /* one run for all roots */
	assert_int_equal(meta()->n_nodes, 0);
}

static void classes_have_the_rules_of_cgroups_above(void **state)
{
	(void)state;
	compile(HEAD
		"  rules:\n"
		"    - {name: low, match: {cgroup: /app-2/app-3}, action: {stack: fast}}\n"
		"    - {name: top, match: {cgroup: /app-2, remote: {ports: 1}}, action: {stack: fast}}\n"
		"    - {name: all, match: {remote: {ports: [1, 2]}}, action: {stack: fast}}\n"
		"    - {name: six, match: {cgroup: /app-6}, action: {stack: fast}}\n" TAIL);
	assert_int_equal(match(3, "::ffff:10.0.0.1", 1), 0);
	assert_int_equal(match(2, "::ffff:10.0.0.1", 1), 1);
	assert_int_equal(match(2, "::ffff:10.0.0.1", 2), 2);
	assert_int_equal(match(6, "::ffff:10.0.0.1", 1), 2);
	assert_int_equal(match(6, "::ffff:10.0.0.1", 3), 3);
	assert_int_equal(match(0, "::ffff:10.0.0.1", 1), 2);
	assert_int_equal(match(0, "::ffff:10.0.0.1", 3), 4);
}

static void class_ids_not_in_use_have_no_roots(void **state)
{
	(void)state;
	compile(HEAD "  rules:\n"
		     "    - {name: a, match: {cgroup: /app-3}, action: {stack: fast}}\n" TAIL);
	assert_int_equal(meta()->n_classes, 4);
	assert_int_equal(root(2, DMM_DIR_CONNECT, DMM_PROTO_TCP, DMM_FAMILY_V6), DMM_REF_NONE);
	assert_int_equal(match(3, "2001:db8::1", 80), 0);
	assert_int_equal(match(0, "2001:db8::1", 80), 1);
	assert_int_equal(match(2, "2001:db8::1", 80), NO_RULE);
	assert_int_equal(match(4, "2001:db8::1", 80), NO_RULE);
}

static void what_the_environment_refuses_is_passed_on(void **state)
{
	(void)state;
	parse(HEAD "  rules: [{name: a, match: {cgroup: /other}, action: {stack: fast}}]\n" TAIL);
	assert_int_equal(dmm_policy_compile(policy, &env, &tables, &found), -ENOENT);
	assert_null(tables.blocks[0]);
}

static int no_class(void *ctx, const char *cgroup)
{
	(void)ctx, (void)cgroup;
	return -ENOSPC;
}

static void too_many_cgroups_are_told_where(void **state)
{
	(void)state;
	parse(HEAD "  rules: [{name: a, match: {cgroup: /app-3}, action: {stack: fast}}]\n" TAIL);
	env.class_of = no_class;
	assert_int_equal(dmm_policy_compile(policy, &env, &tables, &found), -ENOSPC);
	assert_int_equal(found.n, 1);
	assert_int_equal(found.items[0].code, DMM_CODE_TABLES);
	assert_int_equal(found.items[0].place.line, 7);
	assert_non_null(strstr(found.items[0].text, "/app-3"));
}

/* Text that grows. */
struct text {
	char *s;
	size_t len;
	FILE *f;
};

static void start(struct text *t)
{
	t->f = open_memstream(&t->s, &t->len);
	assert_non_null(t->f);
	fputs(HEAD "  rules:\n", t->f);
}

static void finish(struct text *t)
{
	fputs(TAIL, t->f);
	fclose(t->f);
	compile(t->s);
	free(t->s);
}

static void equal_classes_share_their_tables(void **state)
{
	struct text t;
	uint32_t nodes;
	int i;

	(void)state;
	start(&t);
	for (i = 1; i <= 50; i++)
		fprintf(t.f,
			"    - {name: r%d, match: {cgroup: /app-%d, direction: any, remote: {cidr: 10.0.0.0/8}}, "
			"action: {stack: fast}}\n",
			i, i);
	fputs("    - {name: last, match: {direction: any, remote: {cidr: [192.0.2.1/32, '2001:db8::/32']}}, "
	      "action: {reject: true}}\n",
	      t.f);
	finish(&t);
	nodes = meta()->n_nodes;
	/* each class its own first node; what lies under 192/8 and all of IPv6 is there once */
	assert_int_equal(nodes, 51 + 3 + 4);
	assert_int_equal(root(1, DMM_DIR_CONNECT, DMM_PROTO_TCP, DMM_FAMILY_V6),
			 root(50, DMM_DIR_LISTEN, DMM_PROTO_UDP, DMM_FAMILY_V6));
	assert_int_equal(match(33, "::ffff:10.1.2.3", 80), 32);
	assert_int_equal(match(33, "::ffff:192.0.2.1", 80), 50);
}

static void halves_that_agree_need_no_node(void **state)
{
	(void)state;
	compile(HEAD
		"  rules:\n"
		"    - {name: a, match: {remote: {cidr: [10.0.0.0/9, 10.128.0.0/9]}}, action: {stack: "
		"fast}}\n" TAIL);
	assert_int_equal(meta()->n_nodes, 1);
	assert_int_equal(match(0, "::ffff:10.200.0.0", 1), 0);
}

static void over_budget_names_the_costly_rule(void **state)
{
	struct text t;
	size_t i;

	(void)state;
	start(&t);
	fputs("    - {name: small, match: {remote: {cidr: 10.0.0.0/8}}, action: {stack: fast}}\n",
	      t.f);
	fputs("    - {name: large, match: {remote: {cidr: [", t.f);
	for (i = 0; i < 2000; i++)
		fprintf(t.f, "%s\"2001:db8:%zx:%zx::1/128\"", i ? ", " : "", i * 17, i * 31);
	fputs("]}}, action: {stack: fast}}\n" TAIL, t.f);
	fclose(t.f);
	parse(t.s);
	env.max_bytes = 1 << 20;
	assert_int_equal(dmm_policy_compile(policy, &env, &tables, &found), -E2BIG);
	assert_null(tables.blocks[0]);
	assert_true(found.n >= 1);
	assert_int_equal(found.items[0].code, DMM_CODE_TABLES);
	assert_non_null(strstr(found.items[0].text, "'large'"));
	assert_int_equal(found.items[0].place.line, 9);
	env.max_bytes = 0;
	assert_int_equal(dmm_policy_compile(policy, &env, &tables, &found), 0);
	free(t.s);
}

/* A square law would take minutes here, the runner's limit. */
static void ten_thousand_rules_compile(void **state)
{
	struct text t;
	unsigned int i;

	(void)state;
	start(&t);
	for (i = 0; i < 10000; i++)
		fprintf(t.f,
			"    - {name: r%u, match: {cgroup: /app-%u, remote: {cidr: %u.%u.%u.0/24, "
			"ports: %u-%u}}, action: {stack: fast}}\n",
			i, 1 + i % 500, 1 + i % 200, i / 200, i % 251, 1 + i % 1000, 20000 + i);
	finish(&t);
	assert_int_equal(meta()->n_rules, 10000);
	assert_int_equal(match(1 + 4321 % 500, "::ffff:122.21.54.7", 4000), 4321);
}

/* Rules for ports alone times prefixes: each prefix has its own run of many intervals. */
static void many_ports_under_many_prefixes_compile(void **state)
{
	struct text t;
	unsigned int i;

	(void)state;
	start(&t);
	for (i = 0; i < 2000; i++)
		fprintf(t.f,
			"    - {name: p%u, match: {remote: {ports: %u}}, action: {stack: fast}}\n",
			i, 1 + 2 * i);
	for (i = 0; i < 2000; i++)
		fprintf(t.f,
			"    - {name: n%u, match: {remote: {cidr: 10.%u.%u.0/24}}, "
			"action: {stack: kernel}}\n",
			i, i / 256, i % 256);
	finish(&t);
	assert_int_equal(match(0, "::ffff:10.1.2.3", 2), 2000 + 256 + 2);
	assert_int_equal(match(0, "::ffff:10.1.2.3", 3), 1);
}

/* A rule of as many addresses as a list may have, each with a hole that has nothing to do with the
 * order they stand in. */
static void long_rule(FILE *f, const char *name, const char *last_hole)
{
	unsigned int i, x;

	fprintf(f, "    - {name: %s, action: {stack: kernel}, match: {remote: {cidr: [", name);
	for (i = 0; i < 65536; i++) {
		x = i * 7919 & 65535;
		fprintf(f, "%s10.%u.%u.%u/30", i ? ", " : "", x >> 14, x >> 6 & 255, x << 2 & 255);
	}
	fputs("], except: [", f);
	for (i = 65535; i > 0; i--)
		fprintf(f, "10.%u.%u.%u/32, ", i >> 14, i >> 6 & 255, i << 2 & 255);
	fprintf(f, "%s]}}}\n", last_hole);
}

/* Lists are not compared item by item: that took minutes, in which dmmd would answer nobody, and with
 * sanitizers longer than the runner waits. */
static void long_lists_are_checked(void **state)
{
	unsigned int never = 0, no_effect = 0;
	struct text t;

	(void)state;
	start(&t);
	long_rule(t.f, "first", "10.0.0.4/32"); /* once more */
	for (unsigned int i = 0; i < 4; i++) {
		char name[16];

		snprintf(name, sizeof(name), "dead-%u", i);
		long_rule(t.f, name, "192.0.2.1/32"); /* which takes nothing away */
	}
	fputs(TAIL, t.f);
	fclose(t.f);
	assert_int_equal(dmm_policy_parse(t.s, t.len, "test.yaml", &policy, &found), 0);
	free(t.s);
	for (size_t i = 0; i < found.n; i++) {
		const struct dmm_finding *f = &found.items[i];

		no_effect += f->code == DMM_CODE_NO_EFFECT && f->place.line > 8;
		never += f->code == DMM_CODE_NEVER_MATCHES && strstr(f->text, "'first'");
	}
	assert_int_equal(no_effect, 4);
	assert_int_equal(never, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_policy_without_rules_is_its_default, prepare,
						drop),
		cmocka_unit_test_setup_teardown(rules_and_meta_are_laid_out, prepare, drop),
		cmocka_unit_test_setup_teardown(runs_have_a_header_and_sorted_intervals, prepare,
						drop),
		cmocka_unit_test_setup_teardown(classes_have_the_rules_of_cgroups_above, prepare,
						drop),
		cmocka_unit_test_setup_teardown(class_ids_not_in_use_have_no_roots, prepare, drop),
		cmocka_unit_test_setup_teardown(what_the_environment_refuses_is_passed_on, prepare,
						drop),
		cmocka_unit_test_setup_teardown(too_many_cgroups_are_told_where, prepare, drop),
		cmocka_unit_test_setup_teardown(equal_classes_share_their_tables, prepare, drop),
		cmocka_unit_test_setup_teardown(halves_that_agree_need_no_node, prepare, drop),
		cmocka_unit_test_setup_teardown(over_budget_names_the_costly_rule, prepare, drop),
		cmocka_unit_test_setup_teardown(ten_thousand_rules_compile, prepare, drop),
		cmocka_unit_test_setup_teardown(long_lists_are_checked, prepare, drop),
		cmocka_unit_test_setup_teardown(many_ports_under_many_prefixes_compile, prepare,
						drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
