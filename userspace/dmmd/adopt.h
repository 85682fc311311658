/* SPDX-License-Identifier: Apache-2.0 */
/* Taking over what an earlier dmmd left running. */
#pragma once

struct dmmd;

/* Reads the state directory; a file that cannot be read is set aside and everything unknown that runs
 * is stopped. Then takes over cgroups and instances. */
int dmmd_adopt(struct dmmd *d);
