/* SPDX-License-Identifier: Apache-2.0 */
/* The doctor's checks: each tries the real thing and reports what it saw. */
#pragma once

#include <linux/bpf.h>
#include <stddef.h>

#include "dmmctl.h"

enum health {
	HEALTH_OK,
	HEALTH_LIMIT, /* something DMM does without */
	HEALTH_WARNING,
	HEALTH_ERROR, /* DMM does not work */
	HEALTH_COUNT,
};

struct doctor {
	const struct ctl *ctl;
	struct json_object *items;
	unsigned int count[HEALTH_COUNT];
};

/* @hint: what to do, or what follows; NULL: nothing. */
void diagnose(struct doctor *doctor, enum health health, const char *check, const char *hint,
	      const char *format, ...) __attribute__((format(printf, 5, 6)));

void doctor_host(struct doctor *doctor);    /* kernel, BTF, mounts, sysctls */
void doctor_hook(struct doctor *doctor);    /* cgroup programs */
void doctor_steer(struct doctor *doctor);   /* all of DMM's programs and maps */
void doctor_xsk(struct doctor *doctor);	    /* AF_XDP */
void doctor_network(struct doctor *doctor); /* interfaces, filters, routing policy */

/* Loads a program of a few instructions. On failure @log has the end of what the kernel said. */
int load_program(enum bpf_prog_type type, enum bpf_attach_type attach, const struct bpf_insn *insns,
		 size_t n, char *log, size_t log_size);

/* Runs @fn in a child, which may leave its namespaces and cgroup; the @size bytes it fills in come
 * back in @ret. What else it makes ends with it. */
int run_in_child(void (*fn)(void *ctx, void *ret), void *ctx, void *ret, size_t size);

/* What tiny programs are made of. */
#define INSN(c, d, s, o, i)                                                                        \
	((struct bpf_insn){ .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) })
#define MOV_IMM(dst, imm) INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm)
#define LOAD_MAP(dst, fd)                                                                          \
	INSN(BPF_LD | BPF_DW | BPF_IMM, dst, BPF_PSEUDO_MAP_FD, 0, fd), INSN(0, 0, 0, 0, 0)
#define CALL(helper) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, helper)
#define END()	     INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
