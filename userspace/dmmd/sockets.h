/* SPDX-License-Identifier: Apache-2.0 */
/* The sockets by which an instance reaches the servers that its clients want: made here, as it may not
 * make any, each bound to one of its ports. */
#pragma once

#include <dmm/abi/types.h>

#define DMMD_SOCKETS_AT_ONCE 125

struct dmmd_inst;

/* The first ones, unasked, so that the first clients find them; does nothing where none will come. */
void dmmd_sockets_begin(struct dmmd_inst *inst);
/* The answer to DMM_MSG_WANT. */
void dmmd_sockets_give(struct dmmd_inst *inst, enum dmm_family family);
