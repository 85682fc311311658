/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded into dmmd by test_failures.py, into instances by test_failures_stack.py: the k-th allocation of
 * the program's own code, or the k-th bpf() call of it or of libbpf, fails once.
 *
 *   FAIL_KIND=malloc|bpf  FAIL_AT=k (0: none)  FAIL_COUNT=FILE: how many there were, kept there
 *   FAIL_ALSO=TEXT  allocations of shared objects with TEXT in their path, too
 *
 * Allocations inside other libraries are left alone: how those fail is theirs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct {
	bool malloc, bpf;
	uint64_t at, *count;
	uintptr_t first, last; /* the program's own code */
	const char *also;
	int pid; /* not in what it forks */
} state;

static int find_program(struct dl_phdr_info *info, size_t size, void *data)
{
	(void)size, (void)data;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type == PT_LOAD && p->p_flags & PF_X) {
			state.first = info->dlpi_addr + p->p_vaddr;
			state.last = state.first + p->p_memsz;
		}
	}
	return 1; /* the first one is the program */
}

static void __attribute__((constructor)) begin(void)
{
	const char *kind = getenv("FAIL_KIND"), *at = getenv("FAIL_AT"),
		   *path = getenv("FAIL_COUNT");
	int fd = path ? open(path, O_RDWR | O_CREAT, 0600) : -1;

	if (!kind || !at || fd < 0 || ftruncate(fd, sizeof(*state.count)) < 0)
		return;
	state.count = mmap(NULL, sizeof(*state.count), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (state.count == MAP_FAILED)
		return;
	dl_iterate_phdr(find_program, NULL);
	state.at = strtoull(at, NULL, 10);
	state.also = getenv("FAIL_ALSO");
	state.pid = getpid();
	state.malloc = strcmp(kind, "malloc") == 0;
	state.bpf = strcmp(kind, "bpf") == 0;
}

static bool fails(bool kind)
{
	return kind && state.pid == getpid() && ++*state.count == state.at;
}

static bool own(const void *caller)
{
	Dl_info info;

	if ((uintptr_t)caller >= state.first && (uintptr_t)caller < state.last)
		return true;
	return state.also && dladdr(caller, &info) && strstr(info.dli_fname, state.also);
}

#define FAILS_HERE() (own(__builtin_return_address(0)) && fails(state.malloc))
#define REAL(name)   ((typeof(&name))dlsym(RTLD_NEXT, #name))

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);

static void *no_memory(void)
{
	errno = ENOMEM;
	return NULL;
}

void *malloc(size_t size)
{
	return FAILS_HERE() ? no_memory() : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	return FAILS_HERE() ? no_memory() : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
	return FAILS_HERE() ? no_memory() : __libc_realloc(old, size);
}

char *strdup(const char *s)
{
	return FAILS_HERE() ? no_memory() : REAL(strdup)(s);
}

/* libbpf has no other way to bpf() */
long syscall(long number, ...)
{
	long a[6];
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_bpf && fails(state.bpf)) {
		errno = ENOMEM;
		return -1;
	}
	return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
