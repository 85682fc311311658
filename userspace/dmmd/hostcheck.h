/* SPDX-License-Identifier: Apache-2.0 */
/* What only this host can say about a policy: findings beside those of the parser. Looks, changes
 * nothing. */
#pragma once

#include "policy/policy.h"

struct dmmd;
struct dmmd_plan;

/* X(name, number, one sentence): continues policy/codes.h. */
#define DMMD_CODES(X)                                                                              \
	X(NO_INTERFACE, 50, "no such network interface")                                           \
	X(LOOPBACK, 51, "a stack on a loopback interface")                                         \
	X(NOT_ETHERNET, 52, "an interface without Ethernet frames")                                \
	X(MTU, 53, "an MTU too large for AF_XDP frames")                                           \
	X(NO_PLUGIN, 54, "a plug-in that is not installed")                                        \
	X(NO_PORTS, 55, "no free range of local ports")                                            \
	X(PORTS_USED, 56, "local ports that somebody else uses or has reserved")                   \
	X(TOO_MANY_STACKS, 57, "more stacks than there are slots")                                 \
	X(LO_DOWN, 58, "lo is down: nothing could be relayed")                                     \
	X(START_FAILED, 60, "the instance of a stack did not start")                               \
	X(CGROUP_MISSING, 107, "a cgroup that does not exist yet")                                 \
	X(BYPASSED, 150, "something of this host that steered traffic goes around or trips over")  \
	X(NO_ROUTE, 151, "no route leaves by a stack's interface")                                 \
	X(INTERFACE_DOWN, 152, "a stack's interface is down")                                      \
	X(NONE_ATTACHED, 153, "a policy that names no cgroup while none is attached")

enum dmmd_code {
#define DMM_X(name, number, text) DMMD_CODE_##name = (number),
	DMMD_CODES(DMM_X)
#undef DMM_X
};

/* Adds to @found; negative errno only where looking itself failed. */
int dmmd_hostcheck(struct dmmd *d, const struct dmm_policy *policy, struct dmm_findings *found);
