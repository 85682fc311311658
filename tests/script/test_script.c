// SPDX-License-Identifier: Apache-2.0
/* Runs packet scripts: those named, else all of tests/script/. One test each, as TAP. */
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "script.h"

static bool run_file(struct script *s, const char *name)
{
	FILE *f = fopen(name, "re");
	unsigned int number = 0;
	char line[512];
	bool ok = true;

	if (!f)
		return false;
	while (ok && fgets(line, sizeof(line), f))
		ok = script_line(s, ++number, line);
	fclose(f);
	return ok && script_end(s);
}

static bool test(unsigned int number, const char *name)
{
	struct script *s = script_new(name);
	const bool ok = run_file(s, name);

	printf("%s %u - %s\n", ok ? "ok" : "not ok", number, name);
	if (!ok)
		printf("# %s\n", *script_error(s) ? script_error(s) : "cannot be read");
	fflush(stdout);
	script_free(s);
	return ok;
}

int main(int argc, char **argv)
{
	unsigned int i, failed = 0;
	glob_t found = { .gl_pathc = 0 };
	char **names = argv + 1;
	size_t n = (size_t)argc - 1;

	if (!n && glob("tests/script/*.script", 0, NULL, &found) == 0) {
		names = found.gl_pathv;
		n = found.gl_pathc;
	}
	printf("1..%zu\n", n);
	for (i = 0; i < n; i++)
		failed += !test(i + 1, names[i]);
	globfree(&found);
	return failed || !n;
}
