/* SPDX-License-Identifier: Apache-2.0 */
/* Loading a stack plug-in. */
#include "instance/plugin.h"

#include <dlfcn.h>
#include <errno.h>

#include "base/util.h"

#define MANDATORY(X)                                                                               \
	X(create)                                                                                  \
	X(destroy)                                                                                 \
	X(input)                                                                                   \
	X(tick)                                                                                    \
	X(connect)                                                                                 \
	X(send)                                                                                    \
	X(send_space)                                                                              \
	X(recv_peek)                                                                               \
	X(recv_done)                                                                               \
	X(unsent)                                                                                  \
	X(shutdown)                                                                                \
	X(close)                                                                                   \
	X(abort)                                                                                   \
	X(set_option)                                                                              \
	X(set_user)

/* Names of the mandatory ops that are not there, separated by blanks. */
static void list_missing(const struct dmm_stack_ops *ops, char *ret, size_t len)
{
	ret[0] = '\0';
#define X(op)                                                                                      \
	if (!ops->op)                                                                              \
		snprintf(ret + strlen(ret), len - strlen(ret), "%s" #op, ret[0] ? " " : "");
	MANDATORY(X)
#undef X
}

static int judge(const char *path, const struct dmm_stack_ops *ops, char *text, size_t len)
{
	char missing[256];

	if (ops->abi != DMM_STACK_ABI) {
		snprintf(text, len, "plug-in '%s' speaks ABI %u, this dmm-stack %u: rebuild it",
			 path, ops->abi, DMM_STACK_ABI);
		return -ENOEXEC;
	}
	if (ops->size != sizeof(*ops)) {
		snprintf(text, len, "plug-in '%s' has an operations table of %u bytes, not %zu",
			 path, ops->size, sizeof(*ops));
		return -ENOEXEC;
	}
	if (!ops->name || !ops->version) {
		snprintf(text, len, "plug-in '%s' has no name or no version", path);
		return -ENOEXEC;
	}
	list_missing(ops, missing, sizeof(missing));
	if (missing[0]) {
		snprintf(text, len, "plug-in '%s' lacks mandatory operations: %s", path, missing);
		return -ENOEXEC;
	}
	return 0;
}

int plugin_load(const char *path, struct plugin *ret, char *reterr_text, size_t text_len)
{
	struct plugin plugin;
	int r;

	plugin.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!plugin.handle) {
		snprintf(reterr_text, text_len, "plug-in cannot be loaded: %s", dlerror());
		return -ENOENT;
	}
	plugin.ops = dlsym(plugin.handle, DMM_STACK_SYMBOL);
	if (plugin.ops) {
		r = judge(path, plugin.ops, reterr_text, text_len);
	} else {
		snprintf(reterr_text, text_len, "plug-in '%s' does not export '%s'", path,
			 DMM_STACK_SYMBOL);
		r = -ENOEXEC;
	}
	if (r < 0) {
		dlclose(plugin.handle);
		return r;
	}
	*ret = plugin;
	return 0;
}

void plugin_unload(struct plugin *plugin)
{
	if (plugin->handle)
		dlclose(plugin->handle);
	*plugin = (struct plugin){ 0 };
}
