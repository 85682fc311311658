/* SPDX-License-Identifier: Apache-2.0 */
/* What is left to an instance once it serves: the descriptors it was given, memory up to its limit,
 * and the few system calls of its loop. Foreign bytes and foreign code meet nothing else. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Makes the empty folder @fd its root. Needs CAP_SYS_CHROOT, and no other folder may stay open. Negative
 * errno: it stays where it was. */
int sandbox_empty_root(int fd);

/* Private writable memory that the process may have from now on, what it has included; an allocation
 * beyond it fails. 0: no limit. */
int sandbox_limit_memory(uint64_t bytes);

struct sandbox {
	int landlock;	       /* version of the kernel's, 0: it has none */
	unsigned int syscalls; /* that are allowed */
};

/* Landlock, as far as the kernel has it: no file, no TCP port or address, no abstract socket, no
 * signal to others. *ret_version: of the kernel's, 0: it has none. */
int sandbox_landlock(int *ret_version);

/* That, and seccomp: no system call but those that `#syscalls` comments name. The first other one ends
 * the process by SIGSYS, after its number was written to @last_words. For good. */
int sandbox_enter(char *last_words, size_t size, struct sandbox *ret);
