/* SPDX-License-Identifier: Apache-2.0 */
/* The last failure in words, and what libbpf said about it. */
#define _GNU_SOURCE
#include <stdarg.h>

#include "base/log.h"
#include "base/util.h"
#include "steer/steer_internal.h"

static char reason[2048];
static char said[1024];
static bool said_verifier;

const char *dmm_steer_reason(void)
{
	return reason;
}

void dmm_steer_clear_reason(void)
{
	reason[0] = '\0';
}

static void add_hint(const char *hint)
{
	size_t n = strlen(reason);

	if (hint)
		snprintf(reason + n, sizeof(reason) - n, "\n%s", hint);
}

/* The arguments may lie in the old reason: build beside it. */
static void set_reason(const char *format, va_list ap)
{
	char text[sizeof(reason)];

	vsnprintf(text, sizeof(text), format, ap);
	memcpy(reason, text, sizeof(reason));
}

int dmm_steer_fail(int err, const char *hint, const char *format, ...)
{
	va_list ap;
	size_t n;

	va_start(ap, format);
	set_reason(format, ap);
	va_end(ap);
	n = strlen(reason);
	snprintf(reason + n, sizeof(reason) - n, ": %s", strerror(-err));
	add_hint(hint);
	return err;
}

int dmm_steer_refuse(int err, const char *hint, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	set_reason(format, ap);
	va_end(ap);
	add_hint(hint);
	return err;
}

int dmm_first_note(struct dmm_first *first, int r)
{
	if (r < 0 && !first->err) {
		first->err = r;
		first->why = strdup(reason);
	}
	return r < 0 ? 0 : r;
}

int dmm_first_end(struct dmm_first *first)
{
	if (first->why)
		dmm_steer_refuse(first->err, NULL, "%s", first->why);
	free(first->why);
	first->why = NULL;
	return first->err;
}

/* The first complaint is the cause, later ones follow from it; but a verifier log beats all. */
static void keep(const char *text)
{
	bool verifier = strstr(text, "BEGIN PROG LOAD LOG") != NULL;
	size_t len = strlen(text);
	size_t skip = len >= sizeof(said) ? len - sizeof(said) + 1 : 0;

	if (said_verifier || (said[0] && !verifier))
		return;
	said_verifier = verifier;
	snprintf(said, sizeof(said), "%s", text + (verifier ? skip : 0));
	for (len = strlen(said); len && said[len - 1] == '\n'; len--)
		said[len - 1] = '\0';
}

static int on_libbpf(enum libbpf_print_level level, const char *format, va_list ap)
{
	dmm_autofree char *text = NULL;

	if (level == LIBBPF_DEBUG)
		return 0;
	if (vasprintf(&text, format, ap) < 0) {
		text = NULL;
		return 0;
	}
	if (level == LIBBPF_WARN)
		keep(text);
	dmm_debug("%.*s", (int)strcspn(text, "\n"), text);
	return 0;
}

void dmm_libbpf_listen(void)
{
	libbpf_set_print(on_libbpf);
	dmm_libbpf_forget();
}

void dmm_libbpf_forget(void)
{
	said[0] = '\0';
	said_verifier = false;
}

const char *dmm_libbpf_said(void)
{
	return said;
}
