/* SPDX-License-Identifier: Apache-2.0 */
/* The only program of the test guest (tests/vm/run): it is process 1 on a kernel with nothing but an
 * initramfs. Loads every program of every object in /bpf and says how that went, runs the tests in
 * /tests, turns the machine off. Statically linked. */
#define _GNU_SOURCE
#include <errno.h>
#include <glob.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include <bpf/libbpf.h>

#include "base/clock.h"
#include "base/util.h"
#include "modules.h"

#define LOG_LINES    14
#define TEST_SECONDS 100

static unsigned int results;
static char
	said[1 << 16]; /* by libbpf about the program at hand: its end tells why it was refused */
static size_t said_len;

__attribute__((format(printf, 2, 0))) static int keep(enum libbpf_print_level level,
						      const char *format, va_list args)
{
	static char line[sizeof(said) / 2];
	size_t len;

	if (level == LIBBPF_DEBUG)
		return 0;
	vsnprintf(line, sizeof(line), format, args);
	len = strlen(line);
	if (said_len + len >= sizeof(said)) {
		memmove(said, said + sizeof(said) / 2, said_len - said_len / 2);
		said_len -= said_len / 2;
	}
	if (said_len + len >= sizeof(said))
		return 0;
	memcpy(said + said_len, line, len + 1);
	said_len += len;
	return 0;
}

static void tell_why(void)
{
	const char *from = said + said_len;
	char *line, *rest;
	unsigned int lines = 0;

	while (from > said && lines < LOG_LINES)
		lines += *--from == '\n';
	for (rest = (char *)from; (line = strsep(&rest, "\n"));)
		if (*line)
			printf("# %s\n", line);
}

static void result(bool ok, const char *what, const char *name)
{
	printf("%sok %u - %s %s\n", ok ? "" : "not ", ++results, what, name);
	if (!ok)
		tell_why();
	fflush(stdout);
}

/* Loads the object with all its programs (@only NULL), or with just that one. */
static bool loads(const char *path, const char *only)
{
	struct bpf_object *obj;
	struct bpf_program *prog;
	int err;

	said_len = 0;
	said[0] = '\0';
	obj = bpf_object__open_file(path, NULL);
	if (!obj)
		return false;
	bpf_object__for_each_program(prog, obj)
		bpf_program__set_autoload(prog, !only || dmm_streq(bpf_program__name(prog), only));
	err = bpf_object__load(obj);
	bpf_object__close(obj);
	return err == 0;
}

static void load_each_program(const char *path)
{
	struct bpf_object *obj = bpf_object__open_file(path, NULL);
	struct bpf_program *prog;
	bool ok = obj != NULL;

	if (!obj) {
		result(false, path, "opens");
		return;
	}
	bpf_object__for_each_program(prog, obj)
	{
		const char *name = bpf_program__name(prog);
		bool good = loads(path, name);

		ok = ok && good;
		result(good, path, name);
	}
	bpf_object__close(obj);
	if (ok)
		result(loads(path, NULL), path, "as a whole");
}

static void load_objects(void)
{
	glob_t found;
	size_t i;

	libbpf_set_print(keep);
	if (glob("/bpf/*.bpf.o", 0, NULL, &found) != 0) {
		result(false, "/bpf", "has objects");
		return;
	}
	for (i = 0; i < found.gl_pathc; i++)
		load_each_program(found.gl_pathv[i]);
	globfree(&found);
}

static void run_test(const char *path)
{
	static char *const env[] = { "CMOCKA_MESSAGE_OUTPUT=TAP", "TRIALS=20000", NULL };
	char *argv[] = { (char *)path, NULL };
	int status = 0;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		alarm(TEST_SECONDS);
		execve(path, argv, env);
		printf("# %s: %s\n", path, strerror(errno));
		_exit(127);
	}
	waitpid(pid, &status, 0);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	printf("# %s ended %.1f s after the start\n", path, dmm_now_ns() / 1e9);
	result(WIFEXITED(status) && WEXITSTATUS(status) == 0, path, "ends well");
}

static void run_tests(void)
{
	glob_t found;
	size_t i;

	if (glob("/tests/test_*", 0, NULL, &found) != 0)
		return;
	for (i = 0; i < found.gl_pathc; i++)
		run_test(found.gl_pathv[i]);
	globfree(&found);
}

static void make_mounts(void)
{
	static const struct {
		const char *type, *where;
	} mounts[] = {
		{ "devtmpfs", "/dev" },		 { "proc", "/proc" },	   { "sysfs", "/sys" },
		{ "cgroup2", "/sys/fs/cgroup" }, { "bpf", "/sys/fs/bpf" }, { "tmpfs", "/tmp" },
	};
	size_t i;

	for (i = 0; i < DMM_ARRAY_SIZE(mounts); i++) {
		mkdir(mounts[i].where, 0755);
		if (mount(mounts[i].type, mounts[i].where, mounts[i].type, 0, NULL) < 0)
			printf("# mount %s: %s\n", mounts[i].where, strerror(errno));
	}
}

int main(void)
{
	struct utsname kernel;

	if (getpid() != 1) {
		fprintf(stderr, "init: runs as process 1 of the test guest only\n");
		return 1;
	}
	make_mounts();
	setvbuf(stdout, NULL, _IOLBF, 0);
	uname(&kernel);
	printf("DMM-GUEST %s\n", kernel.release);
	load_modules();
	load_objects();
	printf("# objects loaded %.1f s after the start\n", dmm_now_ns() / 1e9);
	run_tests();
	printf("1..%u\nDMM-GUEST-END\n", results);
	fflush(stdout);
	fsync(STDOUT_FILENO);
	reboot(RB_POWER_OFF);
	reboot(RB_AUTOBOOT);
	return 1;
}
