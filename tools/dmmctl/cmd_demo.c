/* SPDX-License-Identifier: Apache-2.0 */
/* demo up, status and down: the work is done by the demo program, which is installed with us. */
#include "dmmctl.h"

#include <errno.h>
#include <limits.h>

/* Beside us in a build tree, below libexec when installed. */
static int find_demo(char *exe, char *demo, size_t size)
{
	static const char *const places[] = { "demo/demo.py", "../libexec/dmm/demo/demo.py" };
	ssize_t n = readlink("/proc/self/exe", exe, PATH_MAX - 1);

	if (n < 0)
		return -errno;
	exe[n] = '\0';
	for (unsigned int i = 0; i < DMM_ARRAY_SIZE(places); i++) {
		snprintf(demo, size, "%.*s/%s", (int)(strrchr(exe, '/') - exe), exe, places[i]);
		if (access(demo, X_OK) == 0)
			return 0;
	}
	return -ENOENT;
}

static int exec_demo(const struct ctl *ctl, const char *verb)
{
	char exe[PATH_MAX], demo[PATH_MAX + 32];
	const char *argv[10] = { demo, verb, "--dmmctl", exe };
	int n = 4, r = find_demo(exe, demo, sizeof(demo));

	if (r < 0)
		return fail(ctl, CTL_FAILED, r, "it is installed in libexec/dmm/demo",
			    "the demo program");
	if (ctl->opt[OPT_ID]) {
		argv[n++] = "--id";
		argv[n++] = ctl->opt[OPT_ID];
	}
	if (is_json(ctl))
		argv[n++] = "--json";
	if (ctl->opt[OPT_QUIET])
		argv[n++] = "--quiet";
	execv(demo, (char **)argv);
	return fail(ctl, CTL_FAILED, -errno, "it needs python3", "%s", demo);
}

int cmd_demo_up(struct ctl *ctl)
{
	return exec_demo(ctl, "up");
}

int cmd_demo_status(struct ctl *ctl)
{
	return exec_demo(ctl, "status");
}

int cmd_demo_down(struct ctl *ctl)
{
	return exec_demo(ctl, "down");
}
