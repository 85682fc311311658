/* SPDX-License-Identifier: Apache-2.0 */
/* "did you mean": the best of the words offered one by one for @wanted. */
#pragma once

#include <stddef.h>

struct dmm_suggestion {
	const char *wanted;
	const char *best; /* NULL: none is near */
	unsigned int distance;
};
void dmm_suggest(struct dmm_suggestion *s, const char *word);
/* "; did you mean 'x'?" or "" in @buf. */
const char *dmm_suggest_text(const struct dmm_suggestion *s, char *buf, size_t size);
