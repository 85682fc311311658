/* SPDX-License-Identifier: Apache-2.0 */
/* attach, detach and run: which cgroups' sockets the policy is about. */
#include "dmmctl.h"

#include <errno.h>

#include "base/mountinfo.h"
#include "steer/view.h"

/* A full path, cut to what is below the cgroup root. */
static const char *below_root(const struct ctl *ctl, const char *path)
{
	const char *root = ctl->opt[OPT_CGROUP_ROOT];
	char mount[256];
	size_t len;

	if (!root) {
		if (dmm_mount_find("cgroup2", mount, sizeof(mount)) < 0)
			return path;
		root = mount;
	}
	len = strlen(root);
	return strncmp(path, root, len) == 0 && path[len] == '/' ? path + len : path;
}

static int ask_cgroup(const struct ctl *ctl, const char *verb, struct json_object **ret)
{
	const char *cgroup = ctl->opt[OPT_CGROUP], *pid = ctl->opt[OPT_PID];
	struct json_object *args;
	char *end;

	if (!cgroup == !pid)
		return usage(ctl, "which cgroup? --cgroup PATH or --pid PID");
	if (pid && (strtol(pid, &end, 10) <= 0 || *end))
		return usage(ctl, "--pid takes a process id");
	args = json_object_new_object();
	if (pid)
		dmm_json_set_u64(args, "pid", strtoul(pid, NULL, 10));
	else
		dmm_json_set_text(args, "cgroup", below_root(ctl, cgroup));
	return ask_daemon(ctl, verb, args, ret);
}

static void print_attached(struct json_object *result)
{
	uint64_t sockets = get_u64(result, "existing_sockets");

	printf("%s %s (cgroup id %s)",
	       get_bool(result, "already") ? "already attached to" : "attached to",
	       get_text(result, "cgroup"), get_text(result, "cgroup_id"));
	if (get_member(result, "existing_sockets"))
		printf(", %lu existing socket%s", sockets,
		       sockets == 1 ? " stays where it is" : "s stay where they are");
	putchar('\n');
}

int cmd_attach(struct ctl *ctl)
{
	struct json_object *result = NULL;
	int r = ask_cgroup(ctl, "attach", &result);

	if (r != CTL_OK)
		return r;
	if (!is_json(ctl))
		print_attached(result);
	print_document(ctl, result);
	return CTL_OK;
}

int cmd_detach(struct ctl *ctl)
{
	struct json_object *result = NULL;
	int r = ask_cgroup(ctl, "detach", &result);

	if (r != CTL_OK)
		return r;
	if (!is_json(ctl))
		printf(get_bool(result, "still_named")
			       ? "%s stays attached: the policy names it\n"
			       : "detached from %s; flows that a stack carries go on\n",
		       get_text(result, "cgroup"));
	print_document(ctl, result);
	return CTL_OK;
}

/* The command stays in our network namespace; in another than the served one nothing is steered. */
static void check_netns(const struct ctl *ctl)
{
	struct dmm_config config;
	struct dmm_view *view;

	if (dmm_view_open(ctl->bpffs, &view) < 0)
		return; /* not root: nothing can be said */
	if (dmm_view_config(view, &config) == 0 && own_netns() != config.netns_cookie)
		note(ctl,
		     "dmmctl: warning: dmmd serves another network namespace: %s runs in this one, "
		     "where nothing is steered\nhint: dmmctl --netns NAME run ...",
		     ctl->argv[0]);
	dmm_view_close(view);
}

int cmd_run(struct ctl *ctl)
{
	struct json_object *result = NULL, *args;
	int r;

	if (ctl->argc == 0)
		return usage(ctl, "run what?");
	args = json_object_new_object();
	if (ctl->opt[OPT_CGROUP])
		dmm_json_set_text(args, "cgroup", below_root(ctl, ctl->opt[OPT_CGROUP]));
	r = ask_daemon(ctl, "run", args, &result);
	if (r != CTL_OK)
		return r;
	if (ctl->verbose)
		note(ctl, "dmm: %s runs in cgroup %s", ctl->argv[0], get_text(result, "cgroup"));
	json_object_put(result);
	check_netns(ctl);
	ctl->argv[ctl->argc] = NULL;
	execvp(ctl->argv[0], ctl->argv);
	r = -errno;
	fail(ctl, CTL_FAILED, r, NULL, "%s", ctl->argv[0]);
	return r == -ENOENT ? 127 : 126; /* as shells and env(1) have it */
}
