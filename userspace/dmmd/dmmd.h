/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's one context. Each part has its own header; what several parts change is here. */
#pragma once

#include "dmmd/cgroups.h"
#include "dmmd/loop.h"
#include "dmmd/options.h"
#include "dmmd/repair.h"
#include "dmmd/state.h"
#include "steer/steer.h"
#include "steer/view.h"

struct dmmd_inst;
struct dmmd_job;
struct dmmd_control;

/* The policy that is live; its text is in the state directory. */
struct dmmd_live {
	char name[DMM_NAME_LEN]; /* "": none */
	uint32_t rules, stacks;
	bool turns_away; /* clients, by a rule */
};

struct dmmd {
	struct dmmd_options options;
	int lock[2]; /* run and state directory */
	struct dmmd_loop loop;
	struct dmm_steer *steer;
	struct dmm_view *view;
	struct dmmd_source mirror;
	char mirror_problem[256]; /* as last told; "": none */
	struct dmmd_repair repair;

	/* Persistent. Its stacks are filled in from @inst by dmmd_save(). */
	struct dmmd_state state;
	struct dmmd_live live;
	char policy_problem[256]; /* why the file that it should come from is not live; "": none */
	bool fell_back;		  /* at start, to the last good one */
	struct dmmd_cgroups cgroups;
	struct dmmd_inst *inst[DMM_MAX_INSTANCES];		/* by slot; NULL: free */
	struct dmmd_job *job;					/* the apply that is under way */
	struct dmmd_job *queue;					/* those after it */
	struct dmm_port_range pending_ports[DMM_MAX_INSTANCES]; /* of the stacks it will start */
	unsigned int n_pending_ports;
	struct dmmd_control *control;

	struct dmmd_source signals;
	struct dmmd_timer tick;
	uint32_t ticks;
	uint64_t started_at; /* CLOCK_REALTIME */
	uint64_t started_mono;
	bool adopted;  /* d->state and what runs agree: it may be saved */
	bool notified; /* READY=1 */
	int exit_code;
};

/* Writes the state file; a failure is logged and leaves the old one. */
void dmmd_save(struct dmmd *d);
