/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the script driver share: script.c reads lines, segments.c has < and >, user.c the
 * user's calls and what he expects. */
#pragma once

#include "rig.h"
#include "script.h"

#define MAX_WORDS 32
#define MAX_VARS  16
#define MAX_LINE  512
#define MAX_BODY  64
#define SEC	  1000000000.0

struct variable {
	char name[16];
	long long value;
};

struct script {
	const char *file;
	unsigned int line;
	char error[1500];
	double tolerance;
	struct rig rig;
	struct variable vars[MAX_VARS];
	unsigned int n_vars;
	char body[MAX_BODY][MAX_LINE]; /* of repeat */
	unsigned int body_line[MAX_BODY], n_body;
	long long times;  /* that it is to be done; 0: in none */
	long long result; /* of the last call */
};

/* A line: when, and its words. */
struct words {
	char text[MAX_LINE];
	char *word[MAX_WORDS + 1]; /* NULL behind the last */
	unsigned int n;
	double after, tolerance;
};

/* Notes an error, the first; returns false. */
__attribute__((format(printf, 2, 3))) bool wrong(struct script *s, const char *format, ...);
/* All return false after an error. @word may be NULL. */
bool read_number(struct script *s, const char *word, long long *ret);
bool read_range(struct script *s, const char *word, long long *from, long long *to);
bool read_address(struct script *s, const char *word, uint8_t to[16]);

bool do_send_segment(struct script *s, struct words *w);
bool do_expect_segment(struct script *s, struct words *w);
bool do_icmp(struct script *s, struct words *w);
/* That nothing has left which was not expected. */
bool nothing_left(struct script *s);

bool do_call(struct script *s, struct words *w);
bool do_expect(struct script *s, struct words *w);
/* That no connection ended which was not expected to. */
bool no_end_left(struct script *s);
