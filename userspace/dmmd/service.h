/* SPDX-License-Identifier: Apache-2.0 */
/* The stages that dmmd comes up by and goes down by, in the order of main.c. */
#pragma once

struct dmmd;

int dmmd_clock_check(struct dmmd *d); /* a time namespace of its own is refused */
int dmmd_netns_enter(struct dmmd *d);
int dmmd_dirs_init(struct dmmd *d); /* run and state directory, locked */
void dmmd_dirs_exit(struct dmmd *d);
int dmmd_steer_init(struct dmmd *d);
void dmmd_steer_exit(struct dmmd *d);
int dmmd_events_init(struct dmmd *d); /* signals, mirror, the tick */
void dmmd_events_exit(struct dmmd *d);
int dmmd_instances_init(struct dmmd *d); /* adopts */
void dmmd_instances_exit(struct dmmd *d);
int dmmd_policy_init(struct dmmd *d); /* begins to apply; READY=1 follows */
