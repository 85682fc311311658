/* SPDX-License-Identifier: Apache-2.0 */
/* Stages and upkeep: what happens at start, at signals and every second. */
#define _GNU_SOURCE
#include "dmmd/service.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <sys/signalfd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/util.h"
#include "ctl/json.h"
#include "dmmd/adopt.h"
#include "dmmd/apply.h"
#include "dmmd/control.h"
#include "dmmd/dmmd.h"
#include "dmmd/inst.h"
#include "dmmd/notify.h"
#include "dmmd/repair.h"

#define TICK_MS	    1000
#define SWEEP_TICKS 60 /* all sockets are read: not at each tick */
#define RETRY_TICKS 10
#define POLICY_MAX  (64u << 20)

/* --- clock, namespace and directories --- */

/* BPF has the machine's CLOCK_MONOTONIC. With another one heartbeats would be old from the start, or would
 * never get old. */
int dmmd_clock_check(struct dmmd *d)
{
	dmm_autofree char *text = NULL;
	long long offset = 0;

	(void)d;
	if (dmm_file_read("/proc/self/timens_offsets", 4096, &text, NULL) < 0)
		return 0; /* a kernel without time namespaces */
	if (sscanf(text, "monotonic %lld", &offset) != 1 || offset == 0)
		return 0;
	dmm_error("this time namespace's CLOCK_MONOTONIC is %lld s off the machine's, by which "
		  "heartbeats are judged",
		  offset);
	dmm_error("hint: run dmmd outside of it");
	return -EINVAL;
}

int dmmd_netns_enter(struct dmmd *d)
{
	const char *name = d->options.netns;
	dmm_autoclose int fd = -1;
	char path[PATH_MAX];

	if (!name)
		return 0;
	snprintf(path, sizeof(path), "%s%s", strchr(name, '/') ? "" : "/run/netns/", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		return dmm_err(-errno, "network namespace %s", path);
	return 0;
}

static int lock_dir(const char *dir, const char *name, mode_t mode, int *ret_fd)
{
	char path[PATH_MAX];
	int r = dmm_mkdirs(dir, mode);

	if (r == 0 && snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
		r = -ENAMETOOLONG;
	if (r < 0)
		return dmm_err(r, "%s", dir);
	r = dmm_file_lock(path, ret_fd);
	if (r == -EBUSY) {
		dmm_error("another dmmd uses %s", dir);
		dmm_error(
			"hint: stop it, or give this one its own --run-dir, --state-dir and --bpffs");
		return r;
	}
	return r < 0 ? dmm_err(r, "%s", path) : 0;
}

int dmmd_dirs_init(struct dmmd *d)
{
	char path[PATH_MAX];
	int r;

	d->lock[0] = d->lock[1] = -1;
	r = lock_dir(d->options.run_dir, "dmmd.lock", 0755, &d->lock[0]);
	if (r == 0)
		r = lock_dir(d->options.state_dir, "lock", 0700, &d->lock[1]);
	if (r == 0) {
		snprintf(path, sizeof(path), "%s/instances", d->options.run_dir);
		r = dmm_mkdirs(path, 0700);
		if (r < 0)
			dmm_err(r, "%s", path);
	}
	if (r < 0)
		dmmd_dirs_exit(d);
	return r;
}

void dmmd_dirs_exit(struct dmmd *d)
{
	for (size_t i = 0; i < DMM_ARRAY_SIZE(d->lock); i++)
		if (d->lock[i] >= 0)
			close(d->lock[i]);
}

/* --- steering --- */

static int log_steer(int err)
{
	char text[512], *hint;

	snprintf(text, sizeof(text), "%s", dmm_steer_reason());
	hint = strchr(text, '\n');
	if (hint)
		*hint++ = '\0';
	dmm_error("%s", text);
	if (hint)
		dmm_error("hint: %s", hint);
	return err;
}

/* Did somebody steer here before? */
static bool has_pins(struct dmmd *d)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/maps/dmm_config", d->options.bpffs);
	return access(path, F_OK) == 0;
}

int dmmd_steer_init(struct dmmd *d)
{
	struct dmm_steer_options options = {
		.bpffs = d->options.bpffs,
		.cgroup_root = d->options.cgroup_root,
		.stale_ms = d->options.stale_after_ms,
	};
	bool fresh = !has_pins(d);
	int r = dmm_steer_open(&options, &d->steer);

	if (r < 0)
		return log_steer(r);
	r = dmm_view_open(d->options.bpffs, &d->view);
	if (r < 0) {
		dmm_steer_close(d->steer);
		if (fresh)
			dmm_steer_teardown(d->options.bpffs, NULL, NULL);
		return dmm_err(r, "pinned maps below %s", d->options.bpffs);
	}
	return 0;
}

/* Nothing was ever applied or attached. */
static bool is_pristine(struct dmmd *d)
{
	struct dmm_gen_meta meta;

	return dmm_view_meta(d->view, &meta) == 0 && meta.generation == 0 &&
	       dmm_steer_cgroups(d->steer, NULL, 0) == 0;
}

void dmmd_steer_exit(struct dmmd *d)
{
	/* a start that failed leaves no half of anything behind */
	bool undo = d->exit_code != 0 && is_pristine(d);

	dmm_view_close(d->view);
	dmm_steer_close(d->steer);
	if (undo)
		dmm_steer_teardown(d->options.bpffs, NULL, NULL);
}

/* --- policy at start and at SIGHUP --- */

static void log_error_object(struct json_object *error)
{
	const char *findings = dmm_json_text(error, "findings");
	const char *hint = dmm_json_text(error, "hint");

	if (findings)
		fputs(findings, stderr);
	dmm_error("%s", dmm_json_text(error, "text"));
	if (hint)
		dmm_error("hint: %s", hint);
}

/* Pins outlive what is known of them here: the policy's name is in there, too. */
static void adopt_live(struct dmmd *d)
{
	struct dmm_gen_meta meta;

	if (d->live.name[0] || dmm_view_meta(d->view, &meta) < 0 || !meta.generation)
		return;
	memcpy(d->live.name, meta.policy, sizeof(d->live.name));
	d->live.rules = meta.n_rules;
	for (unsigned int i = 0; i < DMM_MAX_INSTANCES; i++)
		if (d->inst[i] && !d->inst[i]->removed && d->inst[i]->spec.index == 0)
			d->live.stacks++;
}

static void serve(struct dmmd *d)
{
	if (d->notified)
		return;
	adopt_live(d);
	d->notified = true;
	dmmd_notify("READY=1");
	dmm_info("dmmd %s serves %s", DMM_VERSION, d->options.bpffs);
}

static bool go_on(struct dmmd *d);

static void applied(void *ctx, struct json_object *result, struct json_object *error)
{
	struct dmmd *d = ctx;
	const char *findings = dmm_json_text(result, "findings");
	uint64_t code = 1;

	if (d->loop.stop) { /* abandoned */
		json_object_put(error);
		return;
	}
	if (findings)
		fputs(findings, stderr);
	if (error) {
		log_error_object(error);
		snprintf(d->policy_problem, sizeof(d->policy_problem), "%s",
			 dmm_json_text(error, "text"));
	}
	/* a first start that fails is a failed start; once there is something to go on with, go on */
	if (error && !d->notified && d->options.policy && d->state.generation == 0) {
		dmm_json_u64(error, "exit", 255, &code);
		d->exit_code = (int)code;
		d->loop.stop = true;
	} else if (!error || d->notified || !go_on(d)) {
		serve(d);
	}
	json_object_put(result);
	json_object_put(error);
}

static int apply_file(struct dmmd *d, const char *path, bool restore)
{
	dmm_autofree char *text = NULL;
	struct dmmd_policy_text policy = { .file = path };
	int r = dmm_file_read(path, POLICY_MAX, &text, &policy.len);

	if (r < 0) {
		snprintf(d->policy_problem, sizeof(d->policy_problem), "%s: %s", path,
			 strerror(-r));
		return dmm_err(r, "policy %s", path);
	}
	policy.text = text;
	dmmd_apply(d, &policy, restore, applied, d);
	return 0;
}

/* The stored text counts, also where the state file that would name its source was lost. */
static int apply_last_good(struct dmmd *d)
{
	dmm_autofree char *text = NULL;
	struct dmmd_policy_text policy = { .file = d->state.policy_file };
	char path[PATH_MAX];
	int r = dmmd_state_load_policy(d->options.state_dir, &text, &policy.len);

	snprintf(path, sizeof(path), "%s/policy.yaml", d->options.state_dir);
	if (r == -ENOENT) {
		if (policy.file)
			dmm_warning("%s is gone: going on with the pins alone", path);
		applied(d, json_object_new_object(), NULL);
		return 0;
	}
	if (r < 0)
		return dmm_err(r, "%s", path);
	if (!policy.file)
		policy.file = path;
	policy.text = text;
	dmmd_apply(d, &policy, true, applied, d);
	return 0;
}

/* What was live is worth more than a file that cannot be used. False: nothing is on its way. */
static bool go_on(struct dmmd *d)
{
	if (!d->options.policy || d->fell_back)
		return false;
	d->fell_back = true;
	dmm_warning("going on with the policy before");
	return apply_last_good(d) == 0;
}

int dmmd_policy_init(struct dmmd *d)
{
	int r = d->options.policy ? apply_file(d, d->options.policy, true) : apply_last_good(d);

	if (r == 0 || d->state.generation == 0)
		return r;
	if (!go_on(d))
		serve(d);
	return 0;
}

static void reload(struct dmmd *d)
{
	const char *path = d->options.policy ? d->options.policy : d->state.policy_file;

	if (!path) {
		dmm_warning("SIGHUP: there is no policy file to read again");
		return;
	}
	if (path == d->state.policy_file && path[0] != '/') {
		dmm_warning("SIGHUP: the policy came from %s: there is no file to read again",
			    path);
		return;
	}
	dmm_info("SIGHUP: reading %s again", path);
	apply_file(d, path, false);
}

/* --- events --- */

static void signals_ready(struct dmmd_source *source, uint32_t events)
{
	struct dmmd *d = dmmd_container(source, struct dmmd, signals);
	struct signalfd_siginfo info;

	(void)events;
	if (read(source->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGHUP) {
		reload(d);
		return;
	}
	dmm_info("SIG%s: ending; steering and instances go on", sigabbrev_np(info.ssi_signo));
	dmmd_notify("STOPPING=1");
	d->loop.stop = true;
}

/* Each problem is told once, however often it is met. */
static void run_mirror(struct dmmd *d)
{
	int r = dmm_steer_mirror_run(d->steer);
	const char *problem = dmm_steer_mirror_problem(d->steer);

	if (dmm_streq(problem, d->mirror_problem))
		return;
	if (r < 0)
		dmm_warning("addresses and routes: %s", dmm_steer_reason());
	else
		dmm_info("addresses and routes are mirrored again");
	snprintf(d->mirror_problem, sizeof(d->mirror_problem), "%s", problem);
}

static void mirror_ready(struct dmmd_source *source, uint32_t events)
{
	(void)events;
	run_mirror(dmmd_container(source, struct dmmd, mirror));
}

static void watchdog(void)
{
	static uint64_t told;
	uint64_t every = dmmd_notify_watchdog_ms(), now = dmm_now_ns();

	if (!every || (told && now - told < (every - every / 4) * DMM_NS_PER_MS))
		return;
	told = now;
	dmmd_notify("WATCHDOG=1");
}

static void tick(struct dmmd_timer *timer)
{
	struct dmmd *d = dmmd_container(timer, struct dmmd, tick);

	dmmd_repair_tick(d);
	d->ticks++;
	if (d->ticks % SWEEP_TICKS == 0)
		dmm_steer_sweep(d->steer);
	if (d->ticks % RETRY_TICKS == 0 && d->mirror_problem[0])
		run_mirror(d);
	dmmd_insts_tick(d);
	dmmd_cgroups_tick(d);
	dmmd_control_tick(d);
	watchdog();
}

static int signals_init(struct dmmd *d)
{
	dmm_autoclose int fd = -1;
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	r = dmmd_source_add(&d->loop, &d->signals, fd, EPOLLIN, signals_ready);
	if (r == 0)
		fd = -1;
	return r;
}

/* The mirror's descriptor stays steer's own. */
static int mirror_init(struct dmmd *d)
{
	dmm_autoclose int fd = fcntl(dmm_steer_mirror_fd(d->steer), F_DUPFD_CLOEXEC, 0);
	int r = fd < 0 ? -errno : dmmd_source_add(&d->loop, &d->mirror, fd, EPOLLIN, mirror_ready);

	if (r < 0)
		return r;
	fd = -1;
	run_mirror(d); /* tells what open met */
	return 0;
}

int dmmd_events_init(struct dmmd *d)
{
	int r = dmmd_loop_init(&d->loop);

	d->signals.fd = d->mirror.fd = d->tick.source.fd = -1;
	if (r < 0)
		return dmm_err(r, "epoll");
	r = signals_init(d);
	if (r == 0)
		r = mirror_init(d);
	if (r == 0)
		r = dmmd_timer_init(&d->loop, &d->tick, tick);
	if (r == 0)
		r = dmmd_cgroups_init(d);
	if (r < 0) {
		dmmd_events_exit(d);
		return dmm_err(r, "event loop");
	}
	dmmd_timer_every(&d->tick, TICK_MS);
	return 0;
}

void dmmd_events_exit(struct dmmd *d)
{
	dmmd_cgroups_exit(d);
	dmmd_timer_exit(&d->loop, &d->tick);
	dmmd_source_remove(&d->loop, &d->mirror);
	dmmd_source_remove(&d->loop, &d->signals);
	dmmd_loop_exit(&d->loop);
}

/* --- instances and state --- */

int dmmd_instances_init(struct dmmd *d)
{
	int r = dmmd_adopt(d);

	if (r < 0)
		return dmm_err(r, "adopting what runs");
	d->adopted = true;
	dmmd_save(d);
	return 0;
}

void dmmd_instances_exit(struct dmmd *d)
{
	dmmd_apply_abandon(d);
	dmmd_save(d);
	for (unsigned int i = 0; i < DMM_MAX_INSTANCES; i++)
		if (d->inst[i])
			dmmd_inst_leave(d->inst[i]);
	dmmd_state_free(&d->state);
}

static void record(const struct dmmd_inst *inst, struct dmmd_stack_record *ret)
{
	*ret = (struct dmmd_stack_record){
		.spec = inst->spec,
		.slot = inst->slot,
		.incarnation = inst->incarnation,
		.pid = inst->pid,
		.start_time = inst->pid ? inst->start_time : 0,
		.restarts = inst->restarts,
		.draining = inst->life == DMMD_DRAINING,
		.removed = inst->removed,
		.stopped = inst->held,
		.zerocopy = inst->zerocopy,
	};
}

static int collect(struct dmmd *d, uint32_t by, char ***texts, size_t *n)
{
	char **now = calloc(d->cgroups.n + 1, sizeof(now[0]));
	size_t count = 0;

	if (!now)
		return -ENOMEM;
	for (size_t i = 0; i < d->cgroups.n; i++)
		if (d->cgroups.items[i].by & by && (now[count] = strdup(d->cgroups.items[i].path)))
			count++;
	for (size_t i = 0; i < *n; i++)
		free((*texts)[i]);
	free(*texts);
	*texts = now;
	*n = count;
	return 0;
}

void dmmd_save(struct dmmd *d)
{
	struct dmmd_state *state = &d->state;
	int r;

	if (!d->adopted) /* half of what was saved has not been looked at yet */
		return;
	state->n_stacks = 0;
	for (unsigned int i = 0; i < DMM_MAX_INSTANCES; i++)
		if (d->inst[i])
			record(d->inst[i], &state->stacks[state->n_stacks++]);
	r = collect(d, DMMD_BY_HAND, &state->attached, &state->n_attached);
	if (r == 0)
		r = collect(d, DMMD_BY_RUN, &state->made, &state->n_made);
	if (r == 0)
		r = collect(d, DMMD_BY_FLOWS, &state->retired, &state->n_retired);
	if (r == 0)
		r = dmmd_state_save(d->options.state_dir, state);
	if (r < 0)
		dmm_err(r, "%s/state.json", d->options.state_dir);
}
