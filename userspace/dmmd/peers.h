/* SPDX-License-Identifier: Apache-2.0 */
/* The far ends of a dead instance's flows. One that sends something gets a reset from the kernel; one
 * that only waits would wait for ever. */
#pragma once

struct dmmd_inst;

/* Makes each of them say something. To be called when the flow door passes what is the instance's to the
 * kernel, and while its shared page is there. */
void dmmd_tell_peers(struct dmmd_inst *inst);
