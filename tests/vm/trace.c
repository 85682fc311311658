/* SPDX-License-Identifier: Apache-2.0 */
/* trace OBJECT PROG-ID FUNCTION: attaches fentry and fexit to FUNCTION of a loaded BPF program, says
 * "ready", waits for the end of its input, and says how often the program was entered and left, and the
 * nanoseconds between. Exit status 2: the kernel has no such thing. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/util.h"

#define NO_KERNEL 2

static int attach(struct bpf_object *obj, const char *name)
{
	struct bpf_link *link = bpf_program__attach(bpf_object__find_program_by_name(obj, name));

	return link ? 0 : -errno;
}

static int load(struct bpf_object *obj, int target, const char *function)
{
	struct bpf_program *prog;
	int r;

	bpf_object__for_each_program(prog, obj)
	{
		r = bpf_program__set_attach_target(prog, target, function);
		if (r < 0)
			return r;
	}
	r = bpf_object__load(obj);
	if (!r)
		r = attach(obj, "trace_end"); /* first: never more entries than ends by much */
	return r < 0 ? r : attach(obj, "trace_entry");
}

static void tell(const struct bpf_object *obj)
{
	int fd = bpf_object__find_map_fd_by_name(obj, "trace_sums");
	__u32 key;
	__u64 n[3] = { 0 };

	for (key = 0; key < DMM_ARRAY_SIZE(n); key++)
		bpf_map_lookup_elem(fd, &key, &n[key]);
	printf("%llu %llu %llu\n", n[0], n[1], n[2]);
}

int main(int argc, char **argv)
{
	struct bpf_object *obj;
	int target, r;

	if (argc != 4) {
		fprintf(stderr, "usage: trace OBJECT PROG-ID FUNCTION\n");
		return 1;
	}
	target = bpf_prog_get_fd_by_id(atoi(argv[2]));
	obj = bpf_object__open_file(argv[1], NULL);
	if (target < 0 || !obj) {
		fprintf(stderr, "trace: %s\n", strerror(errno));
		return 1;
	}
	r = load(obj, target, argv[3]);
	if (r < 0) {
		fprintf(stderr, "trace: %s: %s\n", argv[3], strerror(-r));
		return r == -EPERM || r == -EINVAL || r == -ENOTSUP ? NO_KERNEL : 1;
	}
	printf("ready\n");
	fflush(stdout);
	while (getchar() != EOF)
		;
	tell(obj);
	return 0;
}
