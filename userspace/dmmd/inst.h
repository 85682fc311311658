/* SPDX-License-Identifier: Apache-2.0 */
/* One instance of a stack, supervised: started, watched, declared dead, started again.
 *
 *   STOPPED -> STARTING (forked or asked for, descriptors handed over) -> READY (it said so)
 *   READY -> DRAINING (told to take no new flows) -> STOPPED, or freed if its stack was removed
 *   any -> DEAD (it died; the timer starts it again) -> STARTING;  DEAD -> FAILED (given up)
 *   any -> ENDING (told to stop; killed if it does not) -> STARTING, STOPPED or freed
 *
 * Only inst.c and spawn.c move it. The hooks' view (enum dmm_inst_state) is set in the same places. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <dmm/abi/handover.h>

#include "dmmd/backoff.h"
#include "dmmd/iface.h"
#include "dmmd/loop.h"
#include "dmmd/spec.h"
#include "steer/steer.h"

struct dmmd;

enum dmmd_life {
	DMMD_STOPPED,
	DMMD_STARTING,
	DMMD_READY,
	DMMD_DRAINING,
	DMMD_DEAD,
	DMMD_FAILED,
	DMMD_ENDING,
};

/* What is to happen when the process is gone. */
enum dmmd_after { DMMD_AFTER_RESTART, DMMD_AFTER_START, DMMD_AFTER_STAY, DMMD_AFTER_FREE };

struct dmmd_inst {
	struct dmmd *d;
	struct dmmd_spec spec;	       /* what it runs */
	char label[DMM_INST_NAME_LEN]; /* "fast#0" */
	uint32_t slot, incarnation;
	enum dmmd_life life;
	enum dmmd_after after;
	struct dmmd_spec next;	 /* for DMMD_AFTER_START */
	struct dmmd_iface iface; /* as it was at the last start */
	struct dmm_hop_ends hop; /* 0: it has the interface's own queues */
	bool held;		 /* stopped by hand: a new dmmd leaves it so */
	bool removed;		 /* its stack is no longer in the policy: freed when it ends */
	bool attached;		 /* XDP is on the interface for it */
	struct dmm_xdp_got got;
	bool zerocopy;

	pid_t pid; /* 0: no process, or one that has not come yet (STARTING with a channel) */
	uint64_t start_time;
	struct dmmd_source process, channel; /* pidfd, seqpacket */
	struct dmmd_timer timer;	     /* of STARTING, DEAD and ENDING */
	uint64_t begun_at, ready_at;	     /* monotonic */
	uint64_t retry_at;		     /* DEAD: when the timer fires */
	struct dmmd_backoff backoff;
	uint32_t restarts; /* processes begun to go on for one that ended */
	bool again;	   /* this start is one to go on */
	bool serves;	   /* a rule leads clients to it */
	uint32_t
		next_socket; /* which port the next one of sockets.h is tried on; 0: none was given */
	uint64_t given[DMM_MAX_PORTS / 64]; /* a bit for each port that has one */
	char why[128];			    /* dmmd ended it on purpose: the reason for the log */
	char said[512];			    /* its own last message (FAILED) */
	char last_death[768];		    /* "" : none since it was made */

	/* Called once when a start that was asked for is decided: 0 or negative errno and a text. */
	void (*settled)(void *ctx, struct dmmd_inst *inst, int err, const char *text);
	void *settled_ctx;
};

/* Makes one for a slot, STOPPED. */
int dmmd_inst_new(struct dmmd *d, const struct dmmd_spec *spec, uint32_t slot,
		  struct dmmd_inst **ret);
/* Frees the slot; the process must be gone. */
void dmmd_inst_free(struct dmmd_inst *inst);
/* dmmd exits: lets go, the process goes on. */
void dmmd_inst_leave(struct dmmd_inst *inst);

/* "fast#1", or "fast": the first of its instances. */
struct dmmd_inst *dmmd_inst_find(struct dmmd *d, const char *name);
struct dmmd_inst *dmmd_inst_find_nth(struct dmmd *d, const char *stack, uint32_t index);
const char *dmmd_life_word(enum dmmd_life life);

/* Starts it as @spec, ending what runs now. @settled (may be NULL) hears how that went. */
void dmmd_inst_start(struct dmmd_inst *inst, const struct dmmd_spec *spec, const char *why,
		     void (*settled)(void *ctx, struct dmmd_inst *inst, int err, const char *text),
		     void *ctx);
/* Ends it (its flows are reset), then @after. */
void dmmd_inst_end(struct dmmd_inst *inst, enum dmmd_after after, const char *why);
/* No new flows; ends after the last one. @remove: then frees the slot. */
void dmmd_inst_drain(struct dmmd_inst *inst, bool remove);
/* One that drains starts again after its last flow. */
void dmmd_inst_again(struct dmmd_inst *inst);

/* Takes over a process that an earlier dmmd started; -ESRCH: it is gone (the instance is DEAD then
 * and will be started again). */
int dmmd_inst_adopt(struct dmmd_inst *inst, pid_t pid, uint64_t start_time, bool draining);

/* Once a second: hung ones are killed, those whose interface went or came back ended or started. */
void dmmd_insts_tick(struct dmmd *d);
/* Reserves the ports of all instances and those that are about to be theirs, no others. */
int dmmd_insts_reserve(struct dmmd *d);
/* A snapshot of what it says about itself; its beat is 0 where there is none. */
void dmmd_inst_shared(struct dmmd_inst *inst, struct dmm_inst_shared *ret);

/* --- for inst.c, spawn.c and adopt.c --- */
/* Forks it, or has the service manager start it, and hands everything over. -EBUSY: a queue is still held by the one before (try again).
 * @text says what failed. All is undone on failure. */
int dmmd_spawn(struct dmmd_inst *inst, char *text, size_t size);
/* @text: what failed, and why. Returns @err. */
int dmmd_inst_fail(int err, char *text, size_t size, const char *what);
/* Watches process and channel from now on, or one of them (the other -1); owns both in any case. */
int dmmd_inst_watch(struct dmmd_inst *inst, int pidfd, int channel);
int dmmd_inst_control_path(struct dmmd_inst *inst, char ret[static PATH_MAX]);
/* A message without a body. */
int dmmd_inst_send(struct dmmd_inst *inst, enum dmm_msg_kind kind);
int dmmd_pidfd_open(pid_t pid);
