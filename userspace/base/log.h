/* SPDX-License-Identifier: Apache-2.0 */
/* Log to stderr, one line per message, for dmmd, dmm-stack and dmmctl. Library folders return
 * errors and log at most at debug. Levels are those of <dmm/stack.h>. */
#pragma once

#include <stdarg.h>

#include <dmm/stack.h>

/* @program stands at the start of each line. Messages above @max are dropped. */
void dmm_log_init(const char *program, enum dmm_log_level max);

void dmm_log(enum dmm_log_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void dmm_vlog(enum dmm_log_level level, const char *format, va_list ap)
	__attribute__((format(printf, 2, 0)));

/* Logs at error level, followed by the errno's text, and returns @err (negative errno). */
int dmm_err(int err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define dmm_error(...)	 dmm_log(DMM_LOG_ERROR, __VA_ARGS__)
#define dmm_warning(...) dmm_log(DMM_LOG_WARNING, __VA_ARGS__)
#define dmm_info(...)	 dmm_log(DMM_LOG_INFO, __VA_ARGS__)
#define dmm_debug(...)	 dmm_log(DMM_LOG_DEBUG, __VA_ARGS__)
