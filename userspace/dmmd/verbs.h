/* SPDX-License-Identifier: Apache-2.0 */
/* What can be asked of dmmd: one table. userspace/ctl/README.md describes arguments and results. */
#pragma once

#include "dmmd/control.h"

/* Finds the verb, checks that the caller may, runs it. */
void dmmd_verb_run(struct dmmd_call *call, struct json_object *request);
