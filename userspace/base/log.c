/* SPDX-License-Identifier: Apache-2.0 */
/* The log: stderr, with journald's <N> priority prefix when it reads us.
 * #syscalls write */
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
	const char *program;
	enum dmm_log_level max;
	bool journal;
} state = { "dmm", DMM_LOG_INFO, false };

void dmm_log_init(const char *program, enum dmm_log_level max)
{
	state.program = program;
	state.max = max;
	state.journal = getenv("JOURNAL_STREAM") != NULL;
}

void dmm_vlog(enum dmm_log_level level, const char *format, va_list ap)
{
	static const char *const words[] = { "error: ", "warning: ", "", "debug: " };
	static const int priority[] = { 3, 4, 6, 7 };
	char line[1024];

	if (level > state.max)
		return;
	vsnprintf(line, sizeof(line), format, ap);
	if (state.journal)
		fprintf(stderr, "<%d>%s\n", priority[level], line);
	else
		fprintf(stderr, "%s: %s%s\n", state.program, words[level], line);
}

void dmm_log(enum dmm_log_level level, const char *format, ...)
{
	int saved = errno;
	va_list ap;

	va_start(ap, format);
	dmm_vlog(level, format, ap);
	va_end(ap);
	errno = saved;
}

int dmm_err(int err, const char *format, ...)
{
	char line[768];
	va_list ap;

	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	dmm_log(DMM_LOG_ERROR, "%s: %s", line, strerror(-err));
	return err;
}
