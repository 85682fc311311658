/* SPDX-License-Identifier: Apache-2.0 */
/* Packet scripts: what a peer sends and the user calls, and what the engine must answer, in text.
 * The grammar is at the top of script.c. */
#pragma once

#include <stdbool.h>

#define NO_HANDLE "there is no handle to call with"

struct script;

/* @file: what errors name. */
struct script *script_new(const char *file);
/* False: it went wrong, and nothing more may be asked of it. */
bool script_line(struct script *s, unsigned int number, const char *line);
/* Nothing may be left over that was not expected. */
bool script_end(struct script *s);
/* "file:line: what was expected and what came". */
const char *script_error(const struct script *s);
void script_free(struct script *s);
