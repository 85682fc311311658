/* SPDX-License-Identifier: Apache-2.0 */
/* Any text is a policy or is refused with findings that have a place in it; what is taken can be
 * compiled, and every flow then has an answer. */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "policy/compile.h"

#define MAX_TABLES  (8u << 20)
#define MAX_CGROUPS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Classes in order of appearance; the policy's own text outlives them. */
static const char *cgroups[MAX_CGROUPS];
static int n_cgroups;

static int class_of(void *ctx, const char *cgroup)
{
	(void)ctx;
	for (int i = 0; i < n_cgroups; i++)
		if (dmm_streq(cgroups[i], cgroup))
			return i + 1;
	if (n_cgroups == MAX_CGROUPS)
		return -ENOSPC;
	cgroups[n_cgroups] = cgroup;
	return ++n_cgroups;
}

static int instances_of(void *ctx, const char *stack, uint32_t ret[static DMM_MAX_INSTANCES_OF])
{
	(void)ctx, (void)stack;
	ret[0] = 3;
	return 1;
}

static void look_up(const struct dmm_tables *tables, const uint8_t *data, size_t len)
{
	uint8_t remote[16] = { [10] = 0xff, 0xff, 10, 1, 2, 3 };

	for (size_t i = 0; i < len && i < 64; i++) {
		remote[i % 16] ^= data[i];
		uint32_t rule = dmm_tables_match(tables, i % (n_cgroups + 1), DMM_DIR_CONNECT,
						 i % 3 % 2, remote, (uint16_t)(data[i] * 257u));

		if (!dmm_tables_rule(tables, rule))
			abort();
	}
}

static void compile(const struct dmm_policy *policy, const uint8_t *data, size_t len)
{
	struct dmm_compile_env env = { .class_of = class_of,
				       .instances_of = instances_of,
				       .generation = 1,
				       .max_bytes = MAX_TABLES };
	struct dmm_findings found = { 0 };
	struct dmm_tables tables;

	n_cgroups = 0;
	if (dmm_policy_compile(policy, &env, &tables, &found) == 0) {
		look_up(&tables, data, len);
		dmm_tables_free(&tables);
	}
	dmm_findings_free(&found);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct dmm_policy *policy = NULL;
	struct dmm_findings found;
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	int r = dmm_policy_parse((const char *)data, len, "fuzz.yaml", &policy, &found);

	dmm_findings_print(&found, out);
	fclose(out);
	if ((r == 0) != (policy != NULL) || (r == -EINVAL && size == 0))
		abort();
	for (size_t i = 0; i < size; i++)
		if ((unsigned char)text[i] < 0x20 && text[i] != '\n')
			abort(); /* it is printed to terminals */
	if (policy)
		compile(policy, data, len);
	free(text);
	dmm_findings_free(&found);
	dmm_policy_free(policy);
	return 0;
}
