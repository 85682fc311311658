/* SPDX-License-Identifier: Apache-2.0 */
/* "did you mean": the nearest word by edit distance, swapped neighbours counted as one. */
#include "base/suggest.h"

#include <stdio.h>

#include "base/util.h"

#define MAX_WORD 63 /* longer ones are no typing slip of ours */

static unsigned int min3(unsigned int a, unsigned int b, unsigned int c)
{
	return DMM_MIN(a, DMM_MIN(b, c));
}

static unsigned int distance(const char *a, size_t n, const char *b, size_t m)
{
	unsigned int row[3][MAX_WORD + 1]; /* this one, the one before, the one before that */
	size_t i, j;

	for (j = 0; j <= m; j++)
		row[0][j] = j;
	for (i = 1; i <= n; i++) {
		unsigned int *now = row[i % 3], *last = row[(i + 2) % 3], *older = row[(i + 1) % 3];

		now[0] = i;
		for (j = 1; j <= m; j++) {
			now[j] = min3(last[j] + 1, now[j - 1] + 1,
				      last[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				now[j] = DMM_MIN(now[j], older[j - 2] + 1);
		}
	}
	return row[n % 3][m];
}

void dmm_suggest(struct dmm_suggestion *s, const char *word)
{
	size_t n = strlen(s->wanted), m = strlen(word), shorter = DMM_MIN(n, m);
	unsigned int d;

	if (n == 0 || n > MAX_WORD || m > MAX_WORD)
		return;
	d = distance(s->wanted, n, word, m);
	/* protocol -> proto, interfac -> interface: more letters than slips, but the same start */
	if (d > (shorter + 2) / 3 && (shorter < 4 || strncmp(s->wanted, word, shorter)))
		return;
	if (s->best && s->distance <= d)
		return;
	s->best = word;
	s->distance = d;
}

const char *dmm_suggest_text(const struct dmm_suggestion *s, char *buf, size_t size)
{
	buf[0] = 0;
	if (s->best)
		snprintf(buf, size, "; did you mean '%s'?", s->best);
	return buf;
}
