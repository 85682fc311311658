/* SPDX-License-Identifier: Apache-2.0 */
/* attach, detach and run: which cgroups' sockets the policy is about. */
#include "dmmctl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mountinfo.h"
#include "base/proc.h"
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
	uint64_t listeners = get_u64(result, "existing_listeners");

	printf("%s %s (cgroup id %s)",
	       get_bool(result, "already") ? "already attached to" : "attached to",
	       get_text(result, "cgroup"), get_text(result, "cgroup_id"));
	if (get_member(result, "existing_sockets"))
		printf(", %lu existing socket%s", sockets,
		       sockets == 1 ? " stays where it is" : "s stay where they are");
	if (listeners)
		printf(", %lu listener%s stay%s in the kernel: restart the server to move %s",
		       listeners, listeners == 1 ? "" : "s", listeners == 1 ? "s" : "",
		       listeners == 1 ? "it" : "them");
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

struct run_cgroup {
	char path[PATH_MAX]; /* below the cgroup root */
	char full[PATH_MAX];
	bool made; /* by us */
};

/* The cgroup that was asked for, or one of its own where dmmd wants them. */
static int name_cgroup(struct ctl *ctl, struct run_cgroup *c)
{
	const char *asked = ctl->opt[OPT_CGROUP];
	struct json_object *status = NULL;
	int r = ask_daemon(ctl, "status", NULL, &status);

	if (r != CTL_OK)
		return r;
	if (asked)
		snprintf(c->path, sizeof(c->path), "%s", below_root(ctl, asked));
	else
		snprintf(c->path, sizeof(c->path), "%s/dmm-run-%d", get_text(status, "run_cgroup"),
			 (int)getpid());
	if (snprintf(c->full, sizeof(c->full), "%s%s", get_text(status, "cgroup_root"), c->path) >=
	    (int)sizeof(c->full))
		r = fail(ctl, CTL_FAILED, -ENAMETOOLONG, NULL, "cgroup %s", c->path);
	json_object_put(status);
	if (r == CTL_OK && c->path[0] != '/')
		return fail(ctl, CTL_USAGE, -EINVAL, "paths start with / at the cgroup root",
			    "'%s' is no cgroup path", c->path);
	return r;
}

/* Where this process is, to go back there. */
static int open_own_procs(int *ret_fd)
{
	char path[PATH_MAX], own[PATH_MAX];
	int r = dmm_mount_find("cgroup2", path, sizeof(path));
	size_t len = strlen(path);

	if (r == 0)
		r = dmm_proc_cgroup(getpid(), own, sizeof(own));
	if (r < 0)
		return r;
	if (snprintf(path + len, sizeof(path) - len, "%s/cgroup.procs", own) >=
	    (int)(sizeof(path) - len))
		return -ENAMETOOLONG;
	*ret_fd = open(path, O_WRONLY | O_CLOEXEC);
	return *ret_fd < 0 ? -errno : 0;
}

static int make_and_enter(struct run_cgroup *c)
{
	char procs[PATH_MAX + 16];
	int r = mkdir(c->full, 0755) < 0 ? -errno : 0;

	if (r == -ENOENT)
		r = dmm_mkdirs(c->full, 0755);
	c->made = r == 0;
	if (r < 0 && r != -EEXIST)
		return r;
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", c->full);
	r = dmm_file_put(procs, "0");
	if (r < 0 && c->made)
		rmdir(c->full);
	return r;
}

/* Enters it before dmmd looks after it: one that dmmd finds empty goes. */
static int enter_attached(struct ctl *ctl, struct run_cgroup *c)
{
	struct json_object *args = json_object_new_object(), *result = NULL;
	dmm_autoclose int before = -1;
	int r = open_own_procs(&before);

	if (r == 0)
		r = make_and_enter(c);
	if (r < 0) {
		json_object_put(args);
		return fail(ctl, exit_of(r), r, NULL, "cannot enter cgroup %s", c->full);
	}
	dmm_json_set_text(args, "cgroup", c->path);
	dmm_json_set_bool(args, "made", c->made);
	r = ask_daemon(ctl, "attach", args, &result);
	if (r != CTL_OK && write(before, "0", 1) == 1 && c->made)
		rmdir(c->full);
	json_object_put(result);
	return r;
}

int cmd_run(struct ctl *ctl)
{
	struct run_cgroup cgroup = { 0 };
	int r;

	if (ctl->argc == 0)
		return usage(ctl, "run what?");
	r = name_cgroup(ctl, &cgroup);
	if (r == CTL_OK)
		r = enter_attached(ctl, &cgroup);
	if (r != CTL_OK)
		return r;
	if (ctl->verbose)
		note(ctl, "dmm: %s runs in cgroup %s", ctl->argv[0], cgroup.path);
	check_netns(ctl);
	ctl->argv[ctl->argc] = NULL;
	execvp(ctl->argv[0], ctl->argv);
	r = -errno;
	fail(ctl, CTL_FAILED, r, NULL, "%s", ctl->argv[0]);
	return r == -ENOENT ? 127 : 126; /* as shells and env(1) have it */
}
