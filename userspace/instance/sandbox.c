/* SPDX-License-Identifier: Apache-2.0 */
/* Empty root, memory limit, Landlock, seccomp.
 *
 * The list of system calls is made from comments beside the code that needs them
 * (tools/build/syscalls). What the C library does by itself is named here:
 *   malloc, free:		#syscalls brk mmap munmap mremap madvise
 *   abort, after an assertion:	#syscalls rt_sigprocmask gettid getpid tgkill futex
 *   leaving:			#syscalls exit exit_group rt_sigreturn restart_syscall
 *   clocks without a vdso:	#syscalls clock_gettime gettimeofday */
#define _GNU_SOURCE
#include "instance/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#else
#error "which AUDIT_ARCH_ is this?"
#endif

static const int allowed[] = {
#include "instance/syscalls.inc"
};

_Static_assert(DMM_ARRAY_SIZE(allowed) <= 45, "a list this long is no sandbox");

/* --- empty root --- */

int sandbox_empty_root(int fd)
{
	return fchdir(fd) < 0 || chroot(".") < 0 ? -errno : 0;
}

/* --- memory --- */

int sandbox_limit_memory(uint64_t bytes)
{
	struct rlimit limit = { bytes, bytes };

	if (bytes == 0)
		return 0;
	return setrlimit(RLIMIT_DATA, &limit) < 0 ? -errno : 0;
}

/* --- Landlock --- */

/* Every right that version 7 of the kernel's interface knows; those of later calls fail by seccomp
 * anyway. linux/landlock.h of Debian 12 knows less than the kernel may: the numbers are ABI. */
#define FS_V1	 ((1ull << 13) - 1)
#define FS_REFER (1ull << 13) /* 2 */
#define FS_TRUNC (1ull << 14) /* 3 */
#define FS_IOCTL (1ull << 15) /* 5 */
#define NET_BIND 1ull	      /* 4; connect is left: where to, the hooks of its sockets decide */
#define SCOPES	 3ull	      /* 6: abstract unix sockets, signals */

struct landlock_rules {
	uint64_t fs, net, scoped;
};

#define LANDLOCK_VERSION_FLAG 1u

static int landlock_version(void)
{
	long v = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_VERSION_FLAG);

	return v < 0 ? 0 : (int)v;
}

/* A ruleset without a rule: nothing of what it handles is allowed. */
int sandbox_landlock(int *ret_version)
{
	struct landlock_rules rules = { .fs = FS_V1 };
	size_t size = sizeof(rules.fs);
	const int version = landlock_version();
	dmm_autoclose int fd = -1;

	*ret_version = version;
	if (version == 0)
		return 0;
	if (version >= 2)
		rules.fs |= FS_REFER;
	if (version >= 3)
		rules.fs |= FS_TRUNC;
	if (version >= 4) {
		rules.net = NET_BIND;
		size = sizeof(rules.fs) + sizeof(rules.net);
	}
	if (version >= 5)
		rules.fs |= FS_IOCTL;
	if (version >= 6) {
		rules.scoped = SCOPES;
		size = sizeof(rules);
	}
	fd = syscall(SYS_landlock_create_ruleset, &rules, size, 0);
	if (fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		return -errno;
	return 0;
}

/* --- seccomp --- */

static struct {
	char *text;
	size_t size;
} last_words;

/* The call was not made. Once only: the handler is gone when the signal comes again. */
static void on_refused(int sig, siginfo_t *info, void *context)
{
	(void)context;
	snprintf(last_words.text, last_words.size, "system call %d is not allowed here",
		 info->si_syscall);
	syscall(SYS_tgkill, getpid(), (int)syscall(SYS_gettid), sig);
}

static int catch_refused(char *text, size_t size)
{
	struct sigaction action = { .sa_sigaction = on_refused,
				    .sa_flags = SA_SIGINFO | SA_RESETHAND };

	last_words.text = text;
	last_words.size = size;
	return sigaction(SIGSYS, &action, NULL) < 0 ? -errno : 0;
}

#define LOAD(field)                                                                                \
	(struct sock_filter)                                                                       \
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define UNLESS(value, skip)                                                                        \
	(struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (skip))
#define RETURN(value) (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, (value))

/* Signals: to itself only, so that one compromised instance cannot kill another of its user. */
static unsigned int allow_own_signals(struct sock_filter *f)
{
	unsigned int n = 0;

	f[n++] = UNLESS(SYS_tgkill, 4);
	f[n++] = LOAD(args[0]);
	f[n++] = UNLESS((uint32_t)getpid(), 1);
	f[n++] = RETURN(SECCOMP_RET_ALLOW);
	f[n++] = RETURN(SECCOMP_RET_TRAP);
	return n;
}

/* Memory: none that code could be written to and run from. mprotect() is not allowed at all. */
static unsigned int allow_data_pages(struct sock_filter *f)
{
	unsigned int n = 0;

	f[n++] = UNLESS(SYS_mmap, 4);
	f[n++] = LOAD(args[2]);
	f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0);
	f[n++] = RETURN(SECCOMP_RET_ALLOW);
	f[n++] = RETURN(SECCOMP_RET_TRAP);
	return n;
}

static int install_filter(void)
{
	struct sock_filter f[2 * DMM_ARRAY_SIZE(allowed) + 16];
	struct sock_fprog program = { .filter = f };
	unsigned int n = 0;

	f[n++] = LOAD(arch);
	f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 1, 0);
	f[n++] = RETURN(SECCOMP_RET_KILL_PROCESS);
	f[n++] = LOAD(nr);
	n += allow_own_signals(f + n);
	n += allow_data_pages(f + n);
	for (size_t i = 0; i < DMM_ARRAY_SIZE(allowed); i++) {
		f[n++] = UNLESS(allowed[i], 1);
		f[n++] = RETURN(SECCOMP_RET_ALLOW);
	}
	f[n++] = RETURN(SECCOMP_RET_TRAP);
	program.len = n;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? -errno : 0;
}

int sandbox_enter(char *words, size_t size, struct sandbox *ret)
{
	int r = sandbox_landlock(&ret->landlock);

	ret->syscalls = DMM_ARRAY_SIZE(allowed);
	if (r == 0)
		r = catch_refused(words, size);
	return r < 0 ? r : install_filter();
}
