/* SPDX-License-Identifier: Apache-2.0 */
/* The hooks of two cgroups, one inside the other: both run for each call, and what they do together
 * is what one would have done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sockrig.h"

#include "base/util.h"

/* IPv4, IPv6, and IPv4 on an IPv6 socket. */
static const struct {
	int family;
	const char *remote, *own;
} kinds[] = {
	{ AF_INET, RIG_FAR4, RIG_OWN4 },
	{ AF_INET6, RIG_FAR6, RIG_OWN6 },
	{ AF_INET6, RIG_FAR4, RIG_OWN4 },
};

struct counts {
	uint64_t rule, again, connects, flows;
};

static struct counts counts(struct sockrig *rig)
{
	struct dmm_inst_stats stats;
	struct counts c = {
		.rule = bpfenv_counter(&rig->env, DMM_REASON_RULE),
		.again = bpfenv_counter(&rig->env, DMM_REASON_REWRITTEN),
		.flows = bpfenv_count_flows(&rig->env),
	};

	bpfenv_inst_stats(&rig->env, RIG_ID, &stats);
	c.connects = stats.connects;
	return c;
}

/* One connect() to @port: what moves, moves by one. The socket, or -1 where the door rejects. */
static int connect_once(struct sockrig *rig, unsigned int kind, uint16_t port,
			enum dmm_verdict verdict)
{
	struct counts before = counts(rig), after;
	int fd = sockrig_socket(kinds[kind].family, SOCK_STREAM, 0);
	bool reject = verdict == DMM_VERDICT_REJECT, stack = verdict == DMM_VERDICT_USERSPACE;
	struct linger hard = { .l_onoff = 1 }; /* it ends at once, and is not counted in passing */
	struct dmm_sock st;

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	assert_int_equal(sockrig_connect(fd, kinds[kind].remote, port), reject ? -EPERM : 0);
	sockrig_state(rig, fd, &st);
	assert_int_equal(st.verdict, verdict);
	after = counts(rig);
	assert_int_equal(after.rule - before.rule, 1);
	assert_int_equal(after.again - before.again, 1);
	assert_int_equal(after.connects - before.connects, stack);
	assert_int_equal(after.flows - before.flows, !reject);
	if (!reject)
		return fd;
	close(fd);
	return -1;
}

static void a_kernel_verdict_is_made_once(void **state)
{
	for (unsigned int i = 0; i < DMM_ARRAY_SIZE(kinds); i++) {
		int fd = connect_once(*state, i, RIG_PORT_KERNEL, DMM_VERDICT_KERNEL);

		assert_int_equal(sockrig_outcome(fd, 5000), 0);
		sockrig_assert_peer(fd, kinds[i].remote, RIG_PORT_KERNEL);
		close(fd);
	}
}

static void a_reject_is_made_once(void **state)
{
	for (unsigned int i = 0; i < DMM_ARRAY_SIZE(kinds); i++)
		connect_once(*state, i, RIG_PORT_REJECT, DMM_VERDICT_REJECT);
}

static void a_stack_is_chosen_once(void **state)
{
	struct sockrig *rig = *state;

	for (unsigned int i = 0; i < DMM_ARRAY_SIZE(kinds); i++) {
		int fd = connect_once(rig, i, RIG_PORT_STRICT, DMM_VERDICT_USERSPACE);

		assert_int_equal(sockrig_claims(rig), i + 1);
		/* no filter on lo here: the relay leg stands at once */
		assert_int_equal(sockrig_outcome(fd, 5000), 0);
		sockrig_assert_peer(fd, kinds[i].remote, RIG_PORT_STRICT);
		sockrig_assert_name(fd, kinds[i].own, RIG_FIRST_PORT, RIG_LAST_PORT);
		close(fd);
	}
}

/* The same socket, the same place, but another call. */
static void a_second_call_after_a_stack_is_another(void **state)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	struct sockrig *rig = *state;
	int fd = connect_once(rig, 0, RIG_PORT_STRICT, DMM_VERDICT_USERSPACE);
	struct counts before = counts(rig), after;

	assert_int_equal(connect(fd, &none, sizeof(none)), 0);
	assert_int_equal(sockrig_connect(fd, RIG_FAR4, RIG_PORT_STRICT), 0);
	after = counts(rig);
	assert_int_equal(after.rule - before.rule, 1);
	assert_int_equal(after.again - before.again, 1);
	close(fd);
}

static int run(void)
{
#define TEST(f) cmocka_unit_test_setup(f, sockrig_reset)
	const struct CMUnitTest tests[] = {
		TEST(a_kernel_verdict_is_made_once),
		TEST(a_reject_is_made_once),
		TEST(a_stack_is_chosen_once),
		TEST(a_second_call_after_a_stack_is_another),
	};

	return cmocka_run_group_tests(tests, sockrig_setup_nested, sockrig_teardown);
}

int main(void)
{
	return sockrig_main(run);
}
