/* SPDX-License-Identifier: Apache-2.0 */
/* A place to steer in, for tests of userspace/steer: network and mount namespaces of the test's own with
 * an empty BPF file system, and a cgroup that serves as cgroup root. All of it goes with the test
 * process, however that ends. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "steer/steer.h"

#define RIG_BPFFS "/sys/fs/bpf/dmm-test"

/* main(): runs @run (cmocka) in such a place. */
int steerrig_main(int (*run)(void));

/* The cgroup root of the place, and how a cgroup below it is made and removed. */
const char *steerrig_cgroup_root(void);
void steerrig_mkdir(const char *cgroup);
void steerrig_rmdir(const char *cgroup);

/* Opens with the rig's paths; fails the test with the reason. */
struct dmm_steer *steerrig_open(void);
int steerrig_try_open(struct dmm_steer **ret);

/* How much had to be put right, or the failure. */
int steerrig_repair(struct dmm_steer *steer);

/* Runs a shell command that must succeed; or tells whether it does. */
void steerrig_sh(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool steerrig_sh_ok(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The first line of its output, "" when it fails. */
void steerrig_sh_line(char *ret, size_t size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* A pinned object of the rig by FOLDER/NAME; fails the test when there is none. */
int steerrig_pin(const char *name);
bool steerrig_has_pin(const char *name);
uint32_t steerrig_link_prog(const char *name);

/* A program of two instructions that says @verdict. */
int steerrig_tiny_prog(int type, int attach_type, const char *name, int verdict);

/* One generation by hand: every flow of class 0 gets rule 0 on ports 1000-1999, else the default
 * (kernel). Free it with dmm_tables_free() or steerrig_free_tables(). */
void steerrig_make_tables(struct dmm_tables *ret, uint32_t generation, enum dmm_action action,
			  uint32_t instance);
void steerrig_free_tables(struct dmm_tables *tables);
