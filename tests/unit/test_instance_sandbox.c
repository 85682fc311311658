/* SPDX-License-Identifier: Apache-2.0 */
/* An instance that was taken over attacks: every way out is refused. Each attack in a child. */
#define _GNU_SOURCE
#include "instance/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"

#define SURVIVED 7
#define ABORTED	 9

static char *words; /* shared with the children */

/* Runs @attack in the sandbox; the child's wait status. */
static int in_sandbox(void (*attack)(void))
{
	struct sandbox sandbox;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		if (sandbox_enter(words, 256, &sandbox) < 0)
			_exit(ABORTED);
		attack();
		_exit(SURVIVED);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void open_file(void)
{
	open("/etc/shadow", O_RDONLY);
}

static void make_socket(void)
{
	socket(AF_INET, SOCK_STREAM, 0);
}

static void load_bpf(void)
{
	syscall(SYS_bpf, 0, NULL, 0);
}

static void trace_parent(void)
{
	ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}

static void run_shell(void)
{
	execl("/bin/sh", "sh", "-c", "true", NULL);
}

static void make_process(void)
{
	syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
}

static void make_thread(void)
{
	syscall(SYS_clone3, NULL, 0);
}

static void kill_by_pid(void)
{
	kill(getppid(), SIGTERM);
}

static void change_user(void)
{
	syscall(SYS_setuid, 0);
}

static void make_code(void)
{
	mmap(NULL, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void make_code_later(void)
{
	mprotect((void *)((uintptr_t)words & ~4095ul), 4096, PROT_READ | PROT_EXEC);
}

static void catch_signals(void)
{
	signal(SIGSYS, SIG_IGN);
}

static void widen_filter(void)
{
	prctl(PR_SET_SECCOMP, 0, NULL);
}

static void use_ring(void)
{
	syscall(SYS_io_uring_setup, 1, NULL);
}

static const struct attack {
	const char *name;
	void (*run)(void);
	int call;
} attacks[] = {
	{ "open a file", open_file, SYS_openat },
	{ "make a socket", make_socket, SYS_socket },
	{ "bpf()", load_bpf, SYS_bpf },
	{ "ptrace its parent", trace_parent, SYS_getppid },
	{ "execve", run_shell, SYS_execve },
	{ "fork", make_process, SYS_clone },
	{ "make a thread", make_thread, SYS_clone3 },
	{ "kill", kill_by_pid, SYS_getppid },
	{ "become root", change_user, SYS_setuid },
	{ "map code", make_code, SYS_mmap },
	{ "make code of data", make_code_later, SYS_mprotect },
	{ "ignore the signal", catch_signals, SYS_rt_sigaction },
	{ "change the filter", widen_filter, SYS_prctl },
	{ "io_uring", use_ring, SYS_io_uring_setup },
};

static void every_attack_ends_it(void **state)
{
	char expected[64];

	(void)state;
	for (size_t i = 0; i < DMM_ARRAY_SIZE(attacks); i++) {
		int status;

		words[0] = '\0';
		status = in_sandbox(attacks[i].run);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
			fail_msg("%s: wait status %x", attacks[i].name, status);
		snprintf(expected, sizeof(expected), "system call %d is not allowed here",
			 attacks[i].call);
		assert_string_equal(words, expected);
	}
}

static pid_t parent;

static void kill_known_parent(void)
{
	syscall(SYS_tgkill, parent, parent, SIGTERM);
}

static void others_get_no_signal(void **state)
{
	int status;

	(void)state;
	parent = getpid();
	status = in_sandbox(kill_known_parent);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
}

/* Behind seccomp, should a call slip onto its list: what Landlock alone refuses. */
static void landlock_alone_refuses_files_and_ports(void **state)
{
	int status, version;
	pid_t pid;

	(void)state;
	pid = fork();
	if (pid == 0) {
		struct sockaddr_in any = { .sin_family = AF_INET };
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		if (sandbox_landlock(&version) < 0)
			_exit(ABORTED);
		if (version >= 1 && (open("/etc/passwd", O_RDONLY) >= 0 || errno != EACCES))
			_exit(1);
		if (version >= 4 &&
		    (bind(fd, (struct sockaddr *)&any, sizeof(any)) == 0 || errno != EACCES))
			_exit(2);
		if (version >= 6 && (kill(getppid(), 0) == 0 || errno != EPERM))
			_exit(3);
		_exit(version ? SURVIVED : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 0)
		skip(); /* the kernel lacks Landlock */
	assert_int_equal(WEXITSTATUS(status), SURVIVED);
}

/* The allocator of a sanitizer asks the kernel for other things than the C library does. */
#ifndef __SANITIZE_ADDRESS__

static void work(void)
{
	uint8_t *block = malloc(4 << 20);
	struct timespec now;

	if (!block || clock_gettime(CLOCK_MONOTONIC, &now) < 0)
		_exit(1);
	memset(block, 1, 4 << 20);
	block = realloc(block, 64 << 20);
	free(block);
	if (!block || write(2, "", 0) < 0)
		_exit(1);
}

static void its_work_goes_on(void **state)
{
	int status;

	(void)state;
	status = in_sandbox(work);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), SURVIVED);
}

static void fail_assertion(void)
{
	abort();
}

static void a_failed_assertion_is_an_abort(void **state)
{
	int status;

	(void)state;
	status = in_sandbox(fail_assertion);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void memory_has_a_limit(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	if (pid == 0) {
		void *little, *much;

		if (sandbox_limit_memory(64 << 20) < 0)
			_exit(ABORTED);
		little = malloc(8 << 20);
		much = malloc(256 << 20);
		_exit(little && !much ? SURVIVED : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), SURVIVED);
}

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_attack_ends_it),
		cmocka_unit_test(others_get_no_signal),
		cmocka_unit_test(landlock_alone_refuses_files_and_ports),
#ifndef __SANITIZE_ADDRESS__
		cmocka_unit_test(its_work_goes_on),
		cmocka_unit_test(a_failed_assertion_is_an_abort),
		cmocka_unit_test(memory_has_a_limit),
#endif
	};

	words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return words == MAP_FAILED ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
