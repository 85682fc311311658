// SPDX-License-Identifier: Apache-2.0
/* Every event in every state: runs each row of tests/script/state.table (or of the file named) as a
 * script of its own, over IPv4 and IPv6. One test for each state, as TAP; a pair without a row, or
 * with two, fails it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "script.h"

#define MAX_LINES  2000
#define MAX_LINE   200
#define MAX_BLOCKS 128

enum kind { STATE, EVENT, REACTION, NUM_KINDS };

static const char *const kinds[NUM_KINDS] = { "state", "event", "reaction" };

/* The indented lines below a heading. */
struct block {
	enum kind kind;
	char name[32];
	unsigned int first, end; /* lines */
};

struct table {
	const char *file;
	char line[MAX_LINES][MAX_LINE];
	unsigned int n_lines;
	struct block block[MAX_BLOCKS];
	unsigned int n_blocks;
	const char *family; /* of the run */
};

static bool load(struct table *t)
{
	FILE *f = fopen(t->file, "re");
	unsigned int i;

	if (!f)
		return false;
	while (t->n_lines < MAX_LINES && fgets(t->line[t->n_lines], MAX_LINE, f))
		t->n_lines++;
	fclose(f);
	for (i = 0; i < t->n_lines; i++) {
		struct block b = { .first = i + 1 };
		char kind[16];

		if (sscanf(t->line[i], "%15[a-z] %31s", kind, b.name) != 2 ||
		    t->n_blocks == MAX_BLOCKS)
			continue;
		for (b.kind = STATE; b.kind < NUM_KINDS && strcmp(kinds[b.kind], kind); b.kind++)
			;
		for (b.end = b.first; b.end < t->n_lines && t->line[b.end][0] == '\t'; b.end++)
			;
		if (b.kind < NUM_KINDS)
			t->block[t->n_blocks++] = b;
	}
	return true;
}

static const struct block *find(const struct table *t, enum kind kind, const char *name)
{
	unsigned int i;

	for (i = 0; i < t->n_blocks; i++)
		if (t->block[i].kind == kind && strcmp(t->block[i].name, name) == 0)
			return &t->block[i];
	return NULL;
}

static bool run_block(struct script *s, const struct table *t, enum kind kind, const char *name)
{
	const struct block *b = find(t, kind, name);
	unsigned int i;

	if (!b) {
		printf("# there is no %s %s\n", kinds[kind], name);
		return false;
	}
	for (i = b->first; i < b->end; i++)
		if (!script_line(s, i + 1, t->line[i]))
			return false;
	return true;
}

static bool run_reactions(struct script *s, const struct table *t, const char *words)
{
	char copy[MAX_LINE], *save, *word;

	snprintf(copy, sizeof(copy), "%s", words);
	for (word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		if (!run_block(s, t, REACTION, word))
			return false;
	return true;
}

/* Whether a row's event came about, had its reactions and led to @next. */
static bool run_row(const struct table *t, unsigned int number, const char *state,
		    const char *event, const char *reactions, const char *next)
{
	struct script *s = script_new(t->file);
	char after[64];
	bool ok;

	snprintf(after, sizeof(after), "expect state %s", next);
	ok = script_line(s, 0, t->family) && run_block(s, t, STATE, "*") &&
	     run_block(s, t, STATE, state);
	if (ok && strcmp(reactions, "cannot") == 0)
		ok = !run_block(s, t, EVENT, event) && strstr(script_error(s), NO_HANDLE);
	else
		ok = ok && run_block(s, t, EVENT, event) && run_reactions(s, t, reactions) &&
		     script_line(s, number, after) && script_line(s, number, "expect no event") &&
		     script_end(s);
	if (!ok)
		printf("# line %u, %s %s: %s\n", number, state, event, script_error(s));
	script_free(s);
	return ok;
}

/* Finds and runs the row of a pair. */
static bool run_pair(const struct table *t, const char *state, const char *event)
{
	unsigned int i, rows = 0;
	bool ok = true;

	for (i = 0; i < t->n_lines; i++) {
		char of[32], at[32], reactions[128], next[32];

		if (sscanf(t->line[i], "%31[A-Z_0-9] %31[^:]: %127[^;]; %31s", of, at, reactions,
			   next) != 4 ||
		    strcmp(of, state) || strcmp(at, event))
			continue;
		rows++;
		ok &= run_row(t, i + 1, state, event, reactions, next);
	}
	if (rows != 1)
		printf("# %s %s: %u rows\n", state, event, rows);
	return ok && rows == 1;
}

static bool run_state(const struct table *t, const char *state)
{
	bool ok = true;
	unsigned int i;

	for (i = 0; i < t->n_blocks; i++)
		if (t->block[i].kind == EVENT)
			ok &= run_pair(t, state, t->block[i].name);
	return ok;
}

/* Returns how many states did not pass; *@n counts them. */
static unsigned int run_all(struct table *t, const char *family, unsigned int *n)
{
	unsigned int i, failed = 0;

	t->family = family;
	for (i = 0; i < t->n_blocks; i++) {
		const struct block *b = &t->block[i];
		bool ok;

		if (b->kind != STATE || strcmp(b->name, "*") == 0)
			continue;
		ok = run_state(t, b->name);
		printf("%s %u - every event in %s, %s\n", ok ? "ok" : "not ok", ++*n, b->name,
		       family);
		failed += !ok;
	}
	return failed;
}

int main(int argc, char **argv)
{
	static struct table t;
	unsigned int n = 0, failed;

	t.file = argc > 1 ? argv[1] : "tests/script/state.table";
	if (!load(&t)) {
		printf("Bail out! %s cannot be read\n", t.file);
		return 1;
	}
	failed = run_all(&t, "ipv4", &n) + run_all(&t, "ipv6", &n);
	printf("1..%u\n", n);
	return failed || !n;
}
