/* SPDX-License-Identifier: Apache-2.0 */
/* The option table, its parser and the defaults that only the machine knows. */
#define _GNU_SOURCE
#include "dmmd/options.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <pwd.h>
#include <stddef.h>

#include "base/mountinfo.h"
#include "base/util.h"
#include "dmmd/cgroups.h"

/* A heartbeat older than this turns new flows away in the hooks and in the flow door: a hang shows
 * within half a second. An instance beats every 100 ms at least, beside 8 endless loops on two
 * processors every 150 ms. One that the scheduler keeps from running is as good as hung: kernel 6.18 has
 * been seen to do that for 3 s, with autogroups, beside loops that shared the applications' session. */
#define STALE_AFTER_MS 400

enum kind { TEXT, SECONDS, LEVEL, IGNORED, VERSION, HELP };

struct option_spec {
	const char *name;
	char letter; /* 0: none */
	const char *arg;
	const char *help;
	enum kind kind;
	size_t field;
};

#define FIELD(name) offsetof(struct dmmd_options, name)

static const struct option_spec specs[] = {
	{ "policy", 0, "FILE", "apply this policy at start and on SIGHUP (else: the last good one)",
	  TEXT, FIELD(policy) },
	{ "run-dir", 0, "DIR", "control socket and lock (/run/dmm)", TEXT, FIELD(run_dir) },
	{ "state-dir", 0, "DIR", "what outlives a restart (/var/lib/dmm)", TEXT, FIELD(state_dir) },
	{ "bpffs", 0, "DIR", "pinned programs and maps (/sys/fs/bpf/dmm)", TEXT, FIELD(bpffs) },
	{ "cgroup-root", 0, "DIR", "what the policy's cgroups are relative to (the cgroup2 mount)",
	  TEXT, FIELD(cgroup_root) },
	{ "run-cgroup", 0, "PATH", "where `dmmctl run` and dmmd make cgroups (/, the root)", TEXT,
	  FIELD(run_cgroup) },
	{ "netns", 0, "NAME|PATH", "network namespace to serve (its own)", TEXT, FIELD(netns) },
	{ "group", 0, "NAME", "may read through the control socket (dmm)", TEXT, FIELD(group) },
	{ "user", 0, "NAME", "what instances run as (dmm, else nobody)", TEXT, FIELD(user) },
	{ "libexec", 0, "DIR", "where dmm-stack is", TEXT, FIELD(libexec) },
	{ "stack-socket", 0, "PATH",
	  "have instances started by who listens there (dmm-stack.socket)", TEXT,
	  FIELD(stack_socket) },
	{ "stacks-dir", 0, "DIR", "where the stack plug-ins are", TEXT, FIELD(stacks_dir) },
	{ "stale-after", 0, "SECONDS",
	  "an instance without heartbeat for so long gets no new flows (0.4)", SECONDS,
	  FIELD(stale_after_ms) },
	{ "dead-after", 0, "SECONDS", "an instance without heartbeat for so long is killed (10)",
	  SECONDS, FIELD(dead_after_ms) },
	{ "log-level", 0, "LEVEL", "error, warning, info or debug (info)", LEVEL,
	  FIELD(log_level) },
	{ "foreground", 0, NULL, "the only way it runs; accepted for unit files", IGNORED, 0 },
	{ "version", 'V', NULL, "print the version", VERSION, 0 },
	{ "help", 'h', NULL, "print this", HELP, 0 },
};

void dmmd_options_help(FILE *out)
{
	fprintf(out,
		"Usage: dmmd [OPTION...]\nLets policies decide which network stack carries which "
		"flow.\n\n");
	for (size_t i = 0; i < DMM_ARRAY_SIZE(specs); i++) {
		const struct option_spec *s = &specs[i];
		char left[48];

		snprintf(left, sizeof(left), "%c%c%s--%s%s%s", s->letter ? '-' : ' ',
			 s->letter ? s->letter : ' ', s->letter ? ", " : "  ", s->name,
			 s->arg ? " " : "", s->arg ? s->arg : "");
		fprintf(out, "  %-28s %s\n", left, s->help);
	}
	fprintf(out,
		"\nStopping dmmd (SIGTERM) leaves steering and instances running; the next one adopts "
		"them.\n`dmmctl teardown` switches everything off.\n");
}

static int usage(const char *format, const char *what)
{
	fprintf(stderr, "dmmd: ");
	fprintf(stderr, format, what);
	fprintf(stderr, "\nTry 'dmmd --help'.\n");
	return 2;
}

static const struct option_spec *find(const char *arg, const char **ret_value)
{
	for (size_t i = 0; i < DMM_ARRAY_SIZE(specs); i++) {
		const struct option_spec *s = &specs[i];
		size_t len = strlen(s->name);

		*ret_value = NULL;
		if (arg[0] == '-' && s->letter && arg[1] == s->letter && !arg[2])
			return s;
		if (strncmp(arg, "--", 2) != 0 || strncmp(arg + 2, s->name, len) != 0)
			continue;
		if (arg[2 + len] == '\0')
			return s;
		if (arg[2 + len] == '=' && s->arg) {
			*ret_value = arg + 3 + len;
			return s;
		}
	}
	return NULL;
}

static int parse_level(const char *value, enum dmm_log_level *ret)
{
	static const char *const levels[] = { "error", "warning", "info", "debug" };

	for (size_t i = 0; i < DMM_ARRAY_SIZE(levels); i++)
		if (dmm_streq(levels[i], value)) {
			*ret = (enum dmm_log_level)i;
			return 0;
		}
	return -EINVAL;
}

static int parse_seconds(const char *value, uint64_t *ret_ms)
{
	char *end;
	double seconds = strtod(value, &end);

	if (end == value || *end || !(seconds >= 0.4 && seconds <= 86400))
		return -EINVAL;
	*ret_ms = (uint64_t)(seconds * 1000);
	return 0;
}

static int set(struct dmmd_options *options, const struct option_spec *s, const char *value)
{
	void *field = (char *)options + s->field;

	switch (s->kind) {
	case TEXT:
		if (!value[0])
			return usage("option --%s needs a value", s->name);
		*(const char **)field = value;
		return DMMD_GO_ON;
	case SECONDS:
		if (parse_seconds(value, field) < 0)
			return usage("'%s' is no number of seconds (0.4 to 86400)", value);
		return DMMD_GO_ON;
	case LEVEL:
		if (parse_level(value, field) < 0)
			return usage("'%s' is no log level (error, warning, info, debug)", value);
		return DMMD_GO_ON;
	case IGNORED:
		return DMMD_GO_ON;
	case VERSION:
		printf("dmmd %s\n", DMM_VERSION);
		return 0;
	case HELP:
		dmmd_options_help(stdout);
		return 0;
	}
	return DMMD_GO_ON;
}

int dmmd_options_parse(struct dmmd_options *options, int argc, char **argv)
{
	*options = (struct dmmd_options){
		.run_dir = "/run/dmm",
		.state_dir = "/var/lib/dmm",
		.bpffs = "/sys/fs/bpf/dmm",
		.run_cgroup = "/",
		.group = "dmm",
		.log_level = DMM_LOG_INFO,
		.stale_after_ms = STALE_AFTER_MS,
		.dead_after_ms = 10000,
	};
	for (int i = 1; i < argc; i++) {
		const char *value;
		const struct option_spec *s = find(argv[i], &value);
		int r;

		if (!s)
			return usage("unknown option '%s'", argv[i]);
		if (s->arg && !value) {
			if (i + 1 == argc)
				return usage("option '%s' needs a value", argv[i]);
			value = argv[++i];
		}
		r = set(options, s, value);
		if (r != DMMD_GO_ON)
			return r;
	}
	return DMMD_GO_ON;
}

static int keep(struct dmmd_options *options, const char **field, char *owned)
{
	if (!owned)
		return -ENOMEM;
	for (size_t i = 0; i < DMM_ARRAY_SIZE(options->owned); i++)
		if (!options->owned[i]) {
			*field = options->owned[i] = owned;
			return 0;
		}
	free(owned);
	return -ENOSPC;
}

void dmmd_options_free(struct dmmd_options *options)
{
	for (size_t i = 0; i < DMM_ARRAY_SIZE(options->owned); i++)
		free(options->owned[i]);
	memset(options->owned, 0, sizeof(options->owned));
}

/* A build tree has dmm-stack beside dmmd; an installed one has bin or sbin beside libexec and lib. */
static int complete_programs(struct dmmd_options *options)
{
	char exe[PATH_MAX], path[PATH_MAX + 32];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	const char *dir, *stacks, *libexec;
	char *slash;
	bool built;
	int r = 0;

	if (n < 0)
		return dmm_err(-errno, "/proc/self/exe");
	exe[n] = '\0';
	slash = strrchr(exe, '/');
	*slash = '\0';
	dir = exe;
	snprintf(path, sizeof(path), "%s/dmm-stack", dir);
	built = access(path, X_OK) == 0;
	if (!built && (slash = strrchr(exe, '/')))
		*slash = '\0';
	libexec = built ? "" : "/libexec/dmm";
	stacks = built ? "/stacks" : "/lib/dmm/stacks";
	if (!options->libexec) {
		snprintf(path, sizeof(path), "%s%s", dir, libexec);
		r = keep(options, &options->libexec, strdup(path));
	}
	if (r == 0 && !options->stacks_dir) {
		snprintf(path, sizeof(path), "%s%s", dir, stacks);
		r = keep(options, &options->stacks_dir, strdup(path));
	}
	return r;
}

static int complete_cgroup_root(struct dmmd_options *options)
{
	char path[PATH_MAX], resolved[PATH_MAX];
	int r;

	if (!options->cgroup_root) {
		r = dmm_mount_find("cgroup2", path, sizeof(path));
		if (r < 0) {
			dmm_error("no cgroup2 mount in /proc/self/mountinfo");
			dmm_error("hint: mount -t cgroup2 none /sys/fs/cgroup/unified");
			return r;
		}
		return keep(options, &options->cgroup_root, strdup(path));
	}
	if (!realpath(options->cgroup_root, resolved))
		return dmm_err(-errno, "cgroup root %s", options->cgroup_root);
	r = dmm_mount_covering("cgroup2", resolved, path, sizeof(path));
	if (r < 0) {
		dmm_error("cgroup root %s lies in no cgroup2 mount", resolved);
		return r;
	}
	return keep(options, &options->cgroup_root, strdup(resolved));
}

static int complete_run_cgroup(struct dmmd_options *options)
{
	char path[PATH_MAX];

	if (dmmd_cgroup_normalise(options->run_cgroup, path) < 0) {
		dmm_error("'%s' is no cgroup path", options->run_cgroup);
		dmm_error("hint: paths start with / at the cgroup root");
		return -EINVAL;
	}
	return keep(options, &options->run_cgroup, strdup(dmm_streq(path, "/") ? "" : path));
}

static int complete_ids(struct dmmd_options *options)
{
	const struct group *group = getgrnam(options->group);
	const struct passwd *user = getpwnam(options->user ? options->user : "dmm");

	options->socket_gid = group ? group->gr_gid : (gid_t)-1;
	if (options->stack_socket) /* they have a user already */
		return 0;
	if (!user && !options->user) {
		user = getpwnam("nobody");
		dmm_warning("there is no user dmm: instances run as nobody, as others may do");
		dmm_warning("hint: useradd --system dmm");
	}
	if (!user) {
		dmm_error("no user '%s' for the instances",
			  options->user ? options->user : "nobody");
		dmm_error("hint: useradd --system %s", options->user ? options->user : "dmm");
		return -ENOENT;
	}
	if (user->pw_uid == 0) {
		dmm_error("instances cannot run as '%s': it is root", user->pw_name);
		dmm_error("hint: useradd --system dmm");
		return -EPERM;
	}
	options->uid = user->pw_uid;
	options->gid = user->pw_gid;
	return 0;
}

int dmmd_options_complete(struct dmmd_options *options)
{
	int r = complete_programs(options);

	if (r == 0)
		r = complete_cgroup_root(options);
	if (r == 0)
		r = complete_run_cgroup(options);
	if (r == 0)
		r = complete_ids(options);
	return r;
}
