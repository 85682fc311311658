/* SPDX-License-Identifier: Apache-2.0 */
/* The matcher by itself (dmm/abi/match.h, the source that the hooks run, here as userspace code): a
 * policy of so many rules, and so many look-ups of addresses that its rules name or just miss.
 *
 *   matcher RULES LOOKUPS
 *
 * Prints one line of JSON. Under callgrind the instructions of LOOKUPS are those of such a run less
 * those of one with none. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/util.h"
#include "policy/compile.h"

static int any_class(void *ctx, const char *cgroup)
{
	(void)ctx, (void)cgroup;
	return 1;
}

static int any_instance(void *ctx, const char *stack, uint32_t ret[static DMM_MAX_INSTANCES_OF])
{
	(void)ctx, (void)stack;
	ret[0] = 0;
	return 1;
}

/* Rule i: 10.x.y.0/24 and 2001:db8:x:y::/64, one port each. */
static char *make_policy(unsigned int n)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	fputs("apiVersion: dmm/v1alpha1\nkind: Policy\nmetadata: {name: bench}\nspec:\n  rules:\n",
	      f);
	for (unsigned int i = 0; i < n; i++)
		fprintf(f,
			"    - {name: r%u, match: {cgroup: /app, proto: tcp, remote: {cidr: "
			"[10.%u.%u.0/24, '2001:db8:%x:%x::/64'], ports: %u}}, action: {stack: "
			"kernel}}\n",
			i, i >> 8, i & 255, i >> 8, i & 255, 1000 + i % 7);
	fputs("  default: {stack: kernel}\n", f);
	fclose(f);
	return text;
}

static int compile(unsigned int n, struct dmm_tables *ret)
{
	const struct dmm_compile_env env = { .class_of = any_class,
					     .instances_of = any_instance,
					     .generation = 1 };
	dmm_autofree char *text = make_policy(n);
	struct dmm_findings found = { 0 };
	struct dmm_policy *policy = NULL;
	int r = text ? dmm_policy_parse(text, strlen(text), "bench", &policy, &found) : -ENOMEM;

	if (r == 0)
		r = dmm_policy_compile(policy, &env, ret, &found);
	dmm_findings_print(&found, stderr);
	dmm_findings_free(&found);
	dmm_policy_free(policy);
	return r;
}

/* An address of rule @i, of either version in turn. */
static void address_of(unsigned int i, uint8_t ret[16])
{
	static const uint8_t v4[16] = { [10] = 0xff, [11] = 0xff, [12] = 10, [15] = 77 };
	static const uint8_t v6[16] = { 0x20, 0x01, 0x0d, 0xb8, [15] = 77 };

	memcpy(ret, i & 1 ? v6 : v4, 16);
	if (i & 1) {
		ret[5] = i >> 8;
		ret[7] = i;
	} else {
		ret[13] = i >> 8;
		ret[14] = i;
	}
}

int main(int argc, char **argv)
{
	unsigned int n = argc == 3 ? atoi(argv[1]) : 0, lookups = argc == 3 ? atoi(argv[2]) : 0;
	struct dmm_tables tables = { 0 };
	uint64_t hits = 0, begin;
	double ns;
	int r;

	if (n < 1) {
		fprintf(stderr, "usage: matcher RULES LOOKUPS\n");
		return 2;
	}
	r = compile(n, &tables);
	if (r < 0) {
		fprintf(stderr, "matcher: %s\n", strerror(-r));
		return 1;
	}
	begin = dmm_now_ns();
	for (unsigned int k = 0, i = 0; k < lookups; k++, i = (i + 7919) % n) {
		uint8_t addr[16];

		address_of(i, addr);
		/* every third has the port of another rule */
		hits += dmm_tables_match(&tables, 1, DMM_DIR_CONNECT, DMM_PROTO_TCP, addr,
					 1000 + i % 7 + (k % 3 == 0)) == i;
	}
	ns = lookups ? (double)(dmm_now_ns() - begin) / lookups : 0;
	printf("{\"rules\": %u, \"lookups\": %u, \"hits\": %lu, \"ns\": %.1f}\n", n, lookups, hits,
	       ns);
	dmm_tables_free(&tables);
	return 0;
}
