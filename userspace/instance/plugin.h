/* SPDX-License-Identifier: Apache-2.0 */
/* Loads a stack plug-in from a shared object and refuses one that does not speak this ABI. */
#pragma once

#include <stddef.h>

#include <dmm/stack.h>

struct plugin {
	void *handle;
	const struct dmm_stack_ops *ops;
};

/* Negative errno, and one line about what is wrong in @reterr_text. */
int plugin_load(const char *path, struct plugin *ret, char *reterr_text, size_t text_len);
void plugin_unload(struct plugin *plugin);
