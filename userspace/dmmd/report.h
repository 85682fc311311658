/* SPDX-License-Identifier: Apache-2.0 */
/* What dmmd says about itself, as the objects of userspace/ctl/README.md. All are the caller's. */
#pragma once

#include <json-c/json.h>
#include <stdint.h>

struct dmmd;
struct dmmd_inst;

struct json_object *dmmd_report_version(void);
struct json_object *dmmd_report_status(struct dmmd *d);
struct json_object *dmmd_report_problems(struct dmmd *d);
struct json_object *dmmd_report_stack(struct dmmd_inst *inst);
struct json_object *dmmd_report_stacks(struct dmmd *d);
struct json_object *dmmd_report_flows(struct dmmd *d, uint64_t limit);
struct json_object *dmmd_report_stats(struct dmmd *d);
