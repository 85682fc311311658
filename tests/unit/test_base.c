/* SPDX-License-Identifier: Apache-2.0 */
/* Base: mounts, processes, files, unix sockets. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mountinfo.h"
#include "base/proc.h"
#include "base/unixsock.h"
#include "base/util.h"

static const char mounts[] =
	"22 28 0:20 / /proc rw,nosuid - proc proc rw\n"
	"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
	"32 31 0:29 / /sys/fs/cgroup/cpu rw shared:3 master:1 - cgroup cgroup rw,cpu\n"
	"41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n"
	"42 31 0:38 /a /mnt/with\\040space\\134x rw - cgroup2 none rw\n"
	"43 31 0:38 / /sys/fs/cgroup/unified/inner rw - cgroup2 none rw";

static void cgroup2_is_found_among_cgroup1_mounts(void **state)
{
	char path[PATH_MAX];

	(void)state;
	assert_int_equal(dmm_mountinfo_find(mounts, "cgroup2", path, sizeof(path)), 0);
	assert_string_equal(path, "/sys/fs/cgroup/unified");
	assert_int_equal(dmm_mountinfo_find(mounts, "bpf", path, sizeof(path)), -ENOENT);
	assert_int_equal(dmm_mountinfo_find("", "cgroup2", path, sizeof(path)), -ENOENT);
	assert_int_equal(dmm_mountinfo_find("garbage\n\n - \n", "cgroup2", path, sizeof(path)),
			 -ENOENT);
	assert_int_equal(dmm_mountinfo_find(mounts, "cgroup2", path, 8), -ENAMETOOLONG);
}

static void the_covering_mount_is_the_deepest(void **state)
{
	char path[PATH_MAX];

	(void)state;
	assert_int_equal(dmm_mountinfo_covering(mounts, "cgroup2", "/sys/fs/cgroup/unified/a/b",
						path, sizeof(path)),
			 0);
	assert_string_equal(path, "/sys/fs/cgroup/unified");
	assert_int_equal(dmm_mountinfo_covering(mounts, "cgroup2", "/sys/fs/cgroup/unified/inner/b",
						path, sizeof(path)),
			 0);
	assert_string_equal(path, "/sys/fs/cgroup/unified/inner");
	assert_int_equal(dmm_mountinfo_covering(mounts, "cgroup2", "/mnt/with space\\x/y", path,
						sizeof(path)),
			 0);
	assert_string_equal(path, "/mnt/with space\\x");
	assert_int_equal(dmm_mountinfo_covering(mounts, "cgroup2", "/sys/fs/cgroup/unifiedx", path,
						sizeof(path)),
			 -ENOENT);
}

static void start_time_survives_strange_names(void **state)
{
	uint64_t start = 0;

	(void)state;
	assert_int_equal(dmm_proc_parse_stat("7 (a) b (c) S 1 7 7 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 "
					     "987654 1 2",
					     &start),
			 0);
	assert_int_equal(start, 987654);
	assert_int_equal(dmm_proc_parse_stat("7 (a) S 1 2", &start), -EBADMSG);
	assert_int_equal(dmm_proc_parse_stat("", &start), -EBADMSG);
	assert_int_equal(start, 987654);
	assert_int_equal(dmm_proc_start_time(getpid(), &start), 0);
	assert_int_equal(dmm_proc_start_time(INT_MAX, &start), -ESRCH);
}

/* --- files --- */

static char dir[PATH_MAX];

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/dmm-test-base-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[PATH_MAX + 16];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	return system(command);
}

static const char *in_dir(const char *name)
{
	static char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void files_are_replaced_whole(void **state)
{
	const char *path = in_dir("a");
	char tmp[PATH_MAX + 80];
	char *text;
	size_t len;

	(void)state;
	assert_int_equal(dmm_file_write_atomic(path, "one", 3, 0600), 0);
	assert_int_equal(dmm_file_write_atomic(path, "second", 6, 0600), 0);
	assert_int_equal(dmm_file_read(path, 100, &text, &len), 0);
	assert_int_equal(len, 6);
	assert_string_equal(text, "second");
	free(text);
	assert_int_equal(dmm_file_read(path, 5, &text, &len), -EFBIG);
	snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	assert_int_equal(access(tmp, F_OK), -1);
	assert_int_equal(dmm_file_write_atomic(in_dir("no/such"), "x", 1, 0600), -ENOENT);
}

static void folders_are_made_once(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(dmm_mkdirs(in_dir("x/y/z"), 0700), 0);
	assert_int_equal(dmm_mkdirs(in_dir("x/y/z"), 0700), 0);
	assert_int_equal(stat(in_dir("x/y/z"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(dmm_file_write_atomic(in_dir("f"), "", 0, 0600), 0);
	assert_int_equal(dmm_mkdirs(in_dir("f"), 0700), -ENOTDIR);
}

static void a_lock_has_one_holder(void **state)
{
	int one = -1, two = -1;

	(void)state;
	assert_int_equal(dmm_file_lock(in_dir("lock"), &one), 0);
	assert_int_equal(dmm_file_lock(in_dir("lock"), &two), -EBUSY);
	assert_int_equal(two, -1);
	close(one);
	assert_int_equal(dmm_file_lock(in_dir("lock"), &two), 0);
	close(two);
}

/* --- unix sockets --- */

static void check_socket(const char *path)
{
	int listener, client;
	struct stat st;

	assert_int_equal(dmm_unix_connect(path, SOCK_STREAM, &client), -ENOENT);
	assert_int_equal(dmm_unix_listen(path, SOCK_STREAM, 0600, &listener), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(dmm_unix_connect(path, SOCK_STREAM, &client), 0);
	close(client);
	close(listener);
	assert_int_equal(dmm_unix_connect(path, SOCK_STREAM, &client), -ECONNREFUSED);
	assert_int_equal(dmm_unix_listen(path, SOCK_STREAM, 0600, &listener), 0);
	close(listener);
}

static void sockets_listen_at_short_and_long_paths(void **state)
{
	char path[PATH_MAX + 300];

	(void)state;
	check_socket(in_dir("s"));
	snprintf(path, sizeof(path), "%s/%0120d", dir, 1);
	assert_int_equal(dmm_mkdirs(path, 0700), 0);
	strcat(path, "/socket");
	check_socket(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cgroup2_is_found_among_cgroup1_mounts),
		cmocka_unit_test(the_covering_mount_is_the_deepest),
		cmocka_unit_test(start_time_survives_strange_names),
		cmocka_unit_test_setup_teardown(files_are_replaced_whole, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(folders_are_made_once, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(a_lock_has_one_holder, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(sockets_listen_at_short_and_long_paths, make_dir,
						remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
