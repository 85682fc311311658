/* SPDX-License-Identifier: Apache-2.0 */
/* dmmd's parts that need no privilege: options, backoff, ports, classes, specs, paths, the loop. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <cmocka.h>

#include "base/util.h"
#include "dmmd/backoff.h"
#include "dmmd/cgroups.h"
#include "dmmd/classes.h"
#include "dmmd/dmmd.h"
#include "dmmd/iface.h"
#include "dmmd/loop.h"
#include "dmmd/options.h"
#include "dmmd/ports.h"
#include "dmmd/spec.h"
#include "policy/compile.h"

/* --- options --- */

static int parse(struct dmmd_options *options, const char *a, const char *b)
{
	char *argv[] = { (char *)"dmmd", (char *)a, (char *)b, NULL };
	int argc = 1 + (a != NULL) + (b != NULL), saved = dup(STDERR_FILENO), r;

	freopen("/dev/null", "w", stderr);
	r = dmmd_options_parse(options, argc, argv);
	fflush(stderr);
	dup2(saved, STDERR_FILENO);
	close(saved);
	return r;
}

static void options_have_their_documented_defaults(void **state)
{
	struct dmmd_options o;

	(void)state;
	assert_int_equal(parse(&o, NULL, NULL), DMMD_GO_ON);
	assert_string_equal(o.run_dir, "/run/dmm");
	assert_string_equal(o.state_dir, "/var/lib/dmm");
	assert_string_equal(o.bpffs, "/sys/fs/bpf/dmm");
	assert_string_equal(o.group, "dmm");
	assert_null(o.policy);
	assert_null(o.netns);
	assert_null(o.cgroup_root);
	assert_int_equal(o.dead_after_ms, 10000);
	assert_int_equal(o.stale_after_ms, 400);
	assert_int_equal(o.log_level, DMM_LOG_INFO);
}

static void options_take_their_value_either_way(void **state)
{
	struct dmmd_options o;

	(void)state;
	assert_int_equal(parse(&o, "--run-dir", "/x"), DMMD_GO_ON);
	assert_string_equal(o.run_dir, "/x");
	assert_int_equal(parse(&o, "--run-dir=/y", NULL), DMMD_GO_ON);
	assert_string_equal(o.run_dir, "/y");
	assert_int_equal(parse(&o, "--dead-after=2.5", "--foreground"), DMMD_GO_ON);
	assert_int_equal(o.dead_after_ms, 2500);
	assert_int_equal(parse(&o, "--log-level", "debug"), DMMD_GO_ON);
	assert_int_equal(o.log_level, DMM_LOG_DEBUG);
}

static void wrong_options_are_usage_errors(void **state)
{
	static const char *const wrong[][2] = {
		{ "--nonsense", NULL },
		{ "file", NULL },
		{ "--run-dir", NULL },
		{ "--run-dir=", NULL },
		{ "--run-dirx", "/x" },
		{ "--log-level", "loud" },
		{ "--dead-after", "x" },
		{ "--dead-after", "nan" },
		{ "--dead-after", "0" },
		{ "--foreground=1", NULL },
		{ "--stale-after", "0.2" }, /* healthy ones beat that seldom */
		{ "-x", NULL },
		{ "--", NULL },
	};
	struct dmmd_options o;

	(void)state;
	for (size_t i = 0; i < DMM_ARRAY_SIZE(wrong); i++)
		if (parse(&o, wrong[i][0], wrong[i][1]) != 2)
			fail_msg("accepted: %s", wrong[i][0]);
}

static void help_lists_each_option(void **state)
{
	static const char *const some[] = { "--policy FILE", "--netns NAME|PATH", "--dead-after",
					    "-V, --version", "--state-dir" };
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	(void)state;
	dmmd_options_help(out);
	fclose(out);
	for (size_t i = 0; i < DMM_ARRAY_SIZE(some); i++)
		assert_non_null(strstr(text, some[i]));
	free(text);
}

/* --- backoff --- */

static void backoff_doubles_resets_and_gives_up(void **state)
{
	struct dmmd_backoff b = { 0 };
	int expected = 100;

	(void)state;
	for (int i = 1; i < DMMD_FAST_DEATHS; i++, expected *= 2)
		assert_int_equal(dmmd_backoff_died(&b, i % 2 ? 0 : 999), expected);
	assert_int_equal(dmmd_backoff_died(&b, 0), -1);
	assert_int_equal(dmmd_backoff_died(&b, 0), -1);
	assert_int_equal(dmmd_backoff_died(&b, 1000), 100);
	assert_int_equal(dmmd_backoff_died(&b, 0), 200);
}

/* --- ports --- */

static unsigned int size_of(struct dmm_port_range range)
{
	return range.last - range.first + 1;
}

static void one_stack_leaves_ports_for_others(void **state)
{
	struct dmmd_ports taken = { 0 };
	struct dmm_port_range range;

	(void)state;
	assert_int_equal(dmmd_ports_choose(&taken, 0, NULL), 0);
	assert_int_equal(dmmd_ports_choose(&taken, 1, &range), 0);
	assert_int_equal(range.first, 20000);
	assert_int_equal(range.last, 20000 + DMMD_PORTS_MOST - 1);
}

static void several_stacks_share_evenly_and_disjointly(void **state)
{
	struct dmmd_ports taken = { 0 };
	struct dmm_port_range r[5];

	(void)state;
	dmmd_ports_add(&taken, 25000, 25000);
	assert_int_equal(dmmd_ports_choose(&taken, 5, r), 0);
	for (int i = 0; i < 5; i++) {
		assert_true(size_of(r[i]) >= 2000 && size_of(r[i]) == size_of(r[0]));
		assert_int_equal(dmmd_ports_taken(&taken, r[i].first, r[i].last), 0);
		assert_true(r[i].first >= DMMD_PORTS_FIRST && r[i].last <= DMMD_PORTS_LAST);
		dmmd_ports_add(&taken, r[i].first, r[i].last);
	}
}

static void no_room_is_an_error(void **state)
{
	struct dmmd_ports taken = { 0 };
	struct dmm_port_range range = { 1, 2 };

	(void)state;
	for (unsigned int p = DMMD_PORTS_FIRST; p <= DMMD_PORTS_LAST; p += DMMD_PORTS_MIN)
		dmmd_ports_add(&taken, p, p);
	assert_int_equal(dmmd_ports_choose(&taken, 1, &range), -ENOSPC);
	assert_int_equal(range.first, 1);
	dmmd_ports_remove(&taken, DMMD_PORTS_FIRST + DMMD_PORTS_MIN,
			  DMMD_PORTS_FIRST + DMMD_PORTS_MIN);
	assert_int_equal(dmmd_ports_choose(&taken, 1, &range), 0);
	assert_true(size_of(range) >= DMMD_PORTS_MIN);
}

static void kernel_texts_are_understood(void **state)
{
	static const char sockets[] =
		"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
		"   0: 0100007F:4E20 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 1 1\n"
		"   1: 0100007F:4E21 0100007F:1F90 06 00000000:00000000 00:00000000 00000000  0 0 0 1\n"
		"  10: 00000000000000000000000001000000:4E22 00000000000000000000000000000000:0000 01 "
		"00000000:00000000 00:00000000 00000000  0 0 2 1\n"
		"half a line";
	struct dmmd_ports ports = { 0 };

	(void)state;
	dmmd_ports_parse_sockets(sockets, &ports);
	assert_int_equal(dmmd_ports_taken(&ports, 20000, 20000), 20000);
	assert_int_equal(dmmd_ports_taken(&ports, 20001, 20001), 0); /* TIME-WAIT */
	assert_int_equal(dmmd_ports_taken(&ports, 20001, 30000), 20002);
	memset(&ports, 0, sizeof(ports));
	dmmd_ports_parse_reserved("80,8080-8082,junk,70000,9-3\n", &ports);
	assert_int_equal(dmmd_ports_taken(&ports, 0, 65535), 80);
	assert_int_equal(dmmd_ports_taken(&ports, 81, 65535), 8080);
	assert_int_equal(dmmd_ports_taken(&ports, 8083, 65535), 0);
	dmmd_ports_parse_reserved("\n", &ports);
	dmmd_ports_parse_reserved("", &ports);
}

/* --- classes --- */

static void classes_stay_with_their_cgroup(void **state)
{
	struct dmmd_classes classes, copy;

	(void)state;
	dmmd_classes_init(&classes);
	assert_int_equal(dmmd_classes_get(&classes, "/a", 1), 1);
	assert_int_equal(dmmd_classes_get(&classes, "/b", 1), 2);
	assert_int_equal(dmmd_classes_get(&classes, "/a", 2), 1);
	assert_int_equal(dmmd_classes_clone(&classes, &copy), 0);
	assert_int_equal(dmmd_classes_get(&copy, "/c", 3), 3);
	assert_int_equal(dmmd_classes_get(&classes, "/d", 3),
			 3); /* the copy was another registry */
	assert_int_equal(dmmd_classes_add(&classes, "/e", 3, 0), -EINVAL);
	assert_int_equal(dmmd_classes_add(&classes, "/a", 9, 0), -EINVAL);
	assert_int_equal(dmmd_classes_add(&classes, "/e", 0, 0), -EINVAL);
	assert_int_equal(dmmd_classes_add(&classes, "/e", DMM_MAX_CLASSES, 0), -EINVAL);
	dmmd_classes_free(&classes);
	dmmd_classes_free(&copy);
}

static void the_longest_unused_class_is_given_again(void **state)
{
	struct dmmd_classes classes;

	(void)state;
	dmmd_classes_init(&classes);
	assert_int_equal(dmmd_classes_add(&classes, "/old", 5, 2), 0);
	assert_int_equal(dmmd_classes_add(&classes, "/older", 6, 1), 0);
	assert_int_equal(dmmd_classes_add(&classes, "/now", DMM_MAX_CLASSES - 1, 7), 0);
	assert_int_equal(dmmd_classes_get(&classes, "/x", 7), 6);
	assert_int_equal(dmmd_classes_get(&classes, "/y", 7), 5);
	assert_int_equal(dmmd_classes_get(&classes, "/z", 7), -ENOSPC);
	assert_int_equal(dmmd_classes_get(&classes, "/x", 7), 6);
	dmmd_classes_free(&classes);
}

/* --- specs, paths, interfaces --- */

static void a_spec_changes_with_anything_that_needs_a_restart(void **state)
{
	struct dmmd_spec running = { .name = "fast",
				     .plugin = "lwip",
				     .backend = "xsk",
				     .interface = "eth1",
				     .ports = { 20000, 20999 },
				     .ports_chosen = true };
	struct dmmd_spec wanted = running;

	(void)state;
	assert_true(dmmd_spec_same(&running, &wanted));
	wanted.ports = (struct dmm_port_range){ 0, 0 };
	assert_true(dmmd_spec_same(&running, &wanted));
	running.ports_chosen = false;
	assert_false(dmmd_spec_same(&running, &wanted)); /* the policy named them before */
	wanted = running;
	wanted.ports.last++;
	assert_false(dmmd_spec_same(&running, &wanted));
	wanted = running;
	wanted.poll = DMM_POLL_BUSY;
	assert_false(dmmd_spec_same(&running, &wanted));
	wanted = running;
	wanted.interface[3] = '2';
	assert_false(dmmd_spec_same(&running, &wanted));
	wanted = running;
	wanted.zerocopy = DMM_ZC_OFF;
	assert_false(dmmd_spec_same(&running, &wanted));
}

static void cgroup_paths_are_normalised(void **state)
{
	char path[PATH_MAX], tooLong[PATH_MAX + 8];

	(void)state;
	assert_int_equal(dmmd_cgroup_normalise("//a/./b//", path), 0);
	assert_string_equal(path, "/a/b");
	assert_int_equal(dmmd_cgroup_normalise("/", path), 0);
	assert_string_equal(path, "/");
	assert_int_equal(dmmd_cgroup_normalise("/..a/b..", path), 0);
	assert_int_equal(dmmd_cgroup_normalise("a", path), -EINVAL);
	assert_int_equal(dmmd_cgroup_normalise("", path), -EINVAL);
	assert_int_equal(dmmd_cgroup_normalise("/a/../b", path), -EINVAL);
	memset(tooLong, 'x', sizeof(tooLong));
	tooLong[0] = '/';
	tooLong[sizeof(tooLong) - 1] = '\0';
	assert_int_equal(dmmd_cgroup_normalise(tooLong, path), -ENAMETOOLONG);
}

static void frames_fit_the_mtu(void **state)
{
	struct dmmd_iface lo;

	(void)state;
	assert_int_equal(dmmd_iface_frame_size(1500), 2048);
	assert_int_equal(dmmd_iface_frame_size(1774), 2048);
	assert_int_equal(dmmd_iface_frame_size(1775), 4096);
	assert_int_equal(dmmd_iface_frame_size(9000), 0);
	assert_int_equal(dmmd_iface_query("lo", &lo), 0);
	assert_true(lo.loopback && !lo.ethernet && lo.ifindex == 1);
	assert_int_equal(dmmd_iface_query("no-such-if", &lo), -ENODEV);
}

/* --- the loop --- */

struct pair {
	struct dmmd_loop loop;
	struct dmmd_source a, b;
	struct dmmd_timer timer;
	int calls;
};

static struct pair *the_pair;

static void remove_both(struct dmmd_source *source, uint32_t events)
{
	(void)source;
	(void)events;
	the_pair->calls++;
	dmmd_source_remove(&the_pair->loop, &the_pair->a);
	dmmd_source_remove(&the_pair->loop, &the_pair->b);
}

static void stop_loop(struct dmmd_timer *timer)
{
	(void)timer;
	the_pair->loop.stop = true;
}

static int readable_pipe(void)
{
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	close(fds[1]);
	return fds[0];
}

static void a_removed_source_is_not_called_any_more(void **state)
{
	struct pair pair = { .a.fd = -1, .b.fd = -1 };

	(void)state;
	the_pair = &pair;
	assert_int_equal(dmmd_loop_init(&pair.loop), 0);
	assert_int_equal(
		dmmd_source_add(&pair.loop, &pair.a, readable_pipe(), EPOLLIN, remove_both), 0);
	assert_int_equal(
		dmmd_source_add(&pair.loop, &pair.b, readable_pipe(), EPOLLIN, remove_both), 0);
	assert_int_equal(dmmd_timer_init(&pair.loop, &pair.timer, stop_loop), 0);
	dmmd_timer_set(&pair.timer, 20);
	assert_int_equal(dmmd_loop_run(&pair.loop), 0);
	assert_int_equal(pair.calls, 1); /* both were ready in one batch */
	dmmd_timer_exit(&pair.loop, &pair.timer);
	dmmd_loop_exit(&pair.loop);
}

/* --- sockets of a cgroup --- */

static void what_cannot_be_counted_is_an_error(void **state)
{
	struct dmmd d = { .options.cgroup_root = "/sys/fs/cgroup" };
	struct rlimit before, none;
	struct dmmd_late late;
	int r;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 0; /* no file can be opened */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	r = dmmd_cgroup_count_sockets(&d, "/", &late);
	setrlimit(RLIMIT_NOFILE, &before);
	assert_int_equal(r, -EMFILE);
	assert_int_equal(late.connected + late.listening, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_have_their_documented_defaults),
		cmocka_unit_test(options_take_their_value_either_way),
		cmocka_unit_test(wrong_options_are_usage_errors),
		cmocka_unit_test(help_lists_each_option),
		cmocka_unit_test(what_cannot_be_counted_is_an_error),
		cmocka_unit_test(backoff_doubles_resets_and_gives_up),
		cmocka_unit_test(one_stack_leaves_ports_for_others),
		cmocka_unit_test(several_stacks_share_evenly_and_disjointly),
		cmocka_unit_test(no_room_is_an_error),
		cmocka_unit_test(kernel_texts_are_understood),
		cmocka_unit_test(classes_stay_with_their_cgroup),
		cmocka_unit_test(the_longest_unused_class_is_given_again),
		cmocka_unit_test(a_spec_changes_with_anything_that_needs_a_restart),
		cmocka_unit_test(cgroup_paths_are_normalised),
		cmocka_unit_test(frames_fit_the_mtu),
		cmocka_unit_test(a_removed_source_is_not_called_any_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
