/* SPDX-License-Identifier: Apache-2.0 */
/* What was found in a policy: a list in order of place, printed as compilers do. */
#include "policy/policy.h"

#include <errno.h>
#include <stdarg.h>

#include "base/util.h"

#define MAX_TEXT  1024
#define MAX_SHOWN 120 /* characters of a source line */

/* User text may hold what would move a terminal's cursor: C0, DEL and (in UTF-8) C1. */
static void make_harmless(char *s)
{
	unsigned char *p;

	for (p = (unsigned char *)s; *p; p++) {
		if (*p < ' ' || *p == 0x7f)
			*p = '?';
		else if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)
			p[0] = p[1] = '?';
	}
}

static int grow(struct dmm_findings *found)
{
	struct dmm_finding *items = dmm_room_for_one(found->items, found->n, sizeof(*items));

	if (!items)
		return -ENOMEM;
	found->items = items;
	return 0;
}

int dmm_findings_add(struct dmm_findings *found, enum dmm_severity severity, unsigned int code,
		     struct dmm_place place, const char *hint, const char *format, ...)
{
	unsigned int *count = severity == DMM_SEVERITY_ERROR ? &found->errors : &found->warnings;
	dmm_autofree char *own_hint = NULL, *own_text = NULL;
	char text[MAX_TEXT];
	va_list ap;

	if (++*count >
	    DMM_MAX_FINDINGS) /* and where it cannot be stored: it was found all the same */
		return 0;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	make_harmless(text);
	own_text = strdup(text);
	own_hint = hint ? strdup(hint) : NULL;
	if (!own_text || (hint && !own_hint) || grow(found) < 0)
		return -ENOMEM;
	if (own_hint)
		make_harmless(own_hint);
	found->items[found->n++] = (struct dmm_finding){ .severity = severity,
							 .code = code,
							 .place = place,
							 .text = DMM_TAKE_PTR(own_text),
							 .hint = DMM_TAKE_PTR(own_hint) };
	return 0;
}

void dmm_findings_free(struct dmm_findings *found)
{
	size_t i;

	for (i = 0; i < found->n; i++) {
		free(found->items[i].text);
		free(found->items[i].hint);
	}
	free(found->items);
	free(found->file);
	free(found->source);
	*found = (struct dmm_findings){ 0 };
}

static int by_place(const void *a, const void *b)
{
	const struct dmm_finding *x = a, *y = b;

	if (x->place.line != y->place.line)
		return x->place.line < y->place.line ? -1 : 1;
	if (x->place.column != y->place.column)
		return x->place.column < y->place.column ? -1 : 1;
	if (x->code != y->code)
		return x->code < y->code ? -1 : 1;
	return strcmp(x->text, y->text);
}

void dmm_findings_sort(struct dmm_findings *found)
{
	if (found->n)
		qsort(found->items, found->n, sizeof(*found->items), by_place);
}

/* Length of YAML's line break at @s, 0 where there is none. */
static size_t line_break(const char *s, const char *end)
{
	if (*s == '\r')
		return s + 1 < end && s[1] == '\n' ? 2 : 1;
	if (*s == '\n')
		return 1;
	if (end - s >= 2 && memcmp(s, "\xc2\x85", 2) == 0)
		return 2;
	if (end - s >= 3 &&
	    (memcmp(s, "\xe2\x80\xa8", 3) == 0 || memcmp(s, "\xe2\x80\xa9", 3) == 0))
		return 3;
	return 0;
}

/* Where in the source printing has come to; findings come in order, so it only moves on. */
struct cursor {
	const char *line, *end;
	uint32_t number;
};

static bool seek_line(struct cursor *at, uint32_t line)
{
	while (at->number < line && at->line < at->end) {
		size_t n = line_break(at->line, at->end);

		at->number += n > 0;
		at->line += n ? n : 1;
	}
	return at->number == line;
}

static const char *next_char(const char *s, const char *end)
{
	do
		s++;
	while (s < end && (*s & 0xc0) == 0x80);
	return s;
}

/* The source line and, below it, carets; a part of it where it is long. */
static void print_source(struct cursor *at, struct dmm_place place, FILE *out)
{
	uint32_t first = place.column > MAX_SHOWN - 20 ? place.column - MAX_SHOWN / 2 : 1, column;
	char carets[MAX_SHOWN + 1];
	const char *s, *next;
	size_t n = 0;

	if (!place.line || !seek_line(at, place.line))
		return;
	fputs("  ", out);
	for (s = at->line, column = 1; s < at->end && n < MAX_SHOWN; s = next, column++) {
		if (line_break(s, at->end))
			break;
		next = next_char(s, at->end);
		if (column < first)
			continue;
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			fputc(*s == '\t' ? ' ' : '?', out);
		else
			fwrite(s, 1, next - s, out);
		carets[n++] = column == place.column					      ? '^'
			      : column > place.column && column < place.column + place.length ? '~'
											      : ' ';
	}
	if (n < MAX_SHOWN && column == place.column) /* at the end of its line */
		carets[n++] = '^';
	while (n && carets[n - 1] == ' ')
		n--;
	fprintf(out, "\n  %.*s\n", (int)n, carets);
}

static void print_finding(const struct dmm_findings *found, const struct dmm_finding *f,
			  struct cursor *at, FILE *out)
{
	bool error = f->severity == DMM_SEVERITY_ERROR;

	fprintf(out, "%s:", found->file ? found->file : "policy");
	if (f->place.line)
		fprintf(out, "%u:%u:", f->place.line, f->place.column);
	fprintf(out, " %s[%c%03u]: %s\n", error ? "error" : "warning", error ? 'E' : 'W', f->code,
		f->text);
	if (found->source)
		print_source(at, f->place, out);
	if (f->hint)
		fprintf(out, "  hint: %s\n", f->hint);
}

void dmm_findings_print(const struct dmm_findings *found, FILE *out)
{
	struct cursor at = { found->source, found->source, 1 };
	dmm_autofree struct dmm_finding *sorted = NULL;
	const struct dmm_finding *items = found->items;
	size_t i, n = found->n;

	if (found->source)
		at.end += found->source_len;
	sorted = calloc(n + 1, sizeof(*sorted));
	if (sorted && n) { /* without memory: unsorted is better than silent */
		memcpy(sorted, found->items, n * sizeof(*sorted));
		qsort(sorted, n, sizeof(*sorted), by_place);
		items = sorted;
	}
	for (i = 0; i < n; i++)
		print_finding(found, &items[i], &at, out);
	if (found->errors + found->warnings > n)
		fprintf(out, "%s: %zu more are not shown\n", found->file ? found->file : "policy",
			found->errors + found->warnings - n);
}
