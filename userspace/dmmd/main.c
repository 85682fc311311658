/* SPDX-License-Identifier: Apache-2.0 */
/* dmmd: compiles policies, keeps the BPF programs and the instances they steer to. Up by the stages
 * below in order, down in reverse; steering and instances outlive it. */
#include <errno.h>
#include <malloc.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/util.h"
#include "dmmd/caps.h"
#include "dmmd/control.h"
#include "dmmd/dmmd.h"
#include "dmmd/service.h"

static int log_init(struct dmmd *d)
{
	dmm_log_init("dmmd", d->options.log_level);
	d->started_at = dmm_clock_ns(CLOCK_REALTIME);
	d->started_mono = dmm_now_ns();
	return 0;
}

static int privilege_init(struct dmmd *d)
{
	(void)d;
	if (geteuid() == 0)
		return 0;
	dmm_error("dmmd must be root: it loads BPF programs and hands sockets to its instances");
	dmm_error("hint: sudo dmmd; the instances themselves run without privileges");
	return -EPERM;
}

static int options_init(struct dmmd *d)
{
	return dmmd_options_complete(&d->options);
}

static void options_exit(struct dmmd *d)
{
	dmmd_options_free(&d->options);
}

/* Each logs why it failed. */
static const struct stage {
	const char *name;
	int (*init)(struct dmmd *d);
	void (*exit)(struct dmmd *d);
} stages[] = {
	{ "log", log_init, NULL },			   /* the others report through it */
	{ "privilege", privilege_init, NULL },		   /* better told by name than by EACCES */
	{ "capabilities", dmmd_caps_init, NULL },	   /* the least that all the rest needs */
	{ "clock", dmmd_clock_check, NULL },		   /* the one that BPF has */
	{ "netns", dmmd_netns_enter, NULL },		   /* all that follows happens there */
	{ "options", options_init, options_exit },	   /* defaults that the machine knows */
	{ "directories", dmmd_dirs_init, dmmd_dirs_exit }, /* one dmmd per set of them */
	{ "steering", dmmd_steer_init, dmmd_steer_exit },  /* loads or adopts the programs */
	{ "events", dmmd_events_init, dmmd_events_exit },
	{ "instances", dmmd_instances_init, dmmd_instances_exit }, /* adopts them */
	{ "control", dmmd_control_init, dmmd_control_exit },
	{ "policy", dmmd_policy_init, NULL }, /* last: packets move from here on */
};

/* Long answers are rare: their memory goes back to the system, whatever else came after it. */
#define MMAP_FROM (128 * 1024)

int main(int argc, char **argv)
{
	static struct dmmd d;
	size_t up = 0;
	int r = dmmd_options_parse(&d.options, argc, argv);

	if (r != DMMD_GO_ON)
		return r;
	mallopt(M_MMAP_THRESHOLD, MMAP_FROM);
	for (; up < DMM_ARRAY_SIZE(stages); up++) {
		if (stages[up].init(&d) < 0) {
			dmm_error("not started (%s)", stages[up].name);
			d.exit_code = 1;
			break;
		}
	}
	if (up == DMM_ARRAY_SIZE(stages)) {
		r = dmmd_loop_run(&d.loop);
		if (r < 0)
			d.exit_code = 1;
	}
	while (up-- > 0)
		if (stages[up].exit)
			stages[up].exit(&d);
	return d.exit_code;
}
