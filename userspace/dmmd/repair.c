/* SPDX-License-Identifier: Apache-2.0 */
/* What others do to what is attached, as in repair.h. */
#include "dmmd/repair.h"

#include <errno.h>
#include <inttypes.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/util.h"
#include "dmmd/dmmd.h"
#include "dmmd/inst.h"
#include "dmmd/notify.h"

#define LOOK_TICKS 5 /* every program of every cgroup is asked for: not at each tick */
#define MISSED_FOR (10 * DMM_NS_PER_SEC) /* a sign of it is one for so long */

/* --- putting right --- */

/* Somebody switched everything off under us: that was meant. */
static void torn_down(struct dmmd *d)
{
	dmm_warning("%s has been torn down: ending, with the instances", d->options.bpffs);
	for (unsigned int i = 0; i < DMM_MAX_INSTANCES; i++)
		if (d->inst[i])
			dmmd_inst_send(d->inst[i], DMM_MSG_STOP);
	dmmd_notify("STOPPING=1");
	d->loop.stop = true;
}

/* Once, however often it is met. */
static void tell_problem(struct dmmd_repair *repair, int r)
{
	char text[sizeof(repair->problem)] = "", *hint;

	if (r < 0)
		snprintf(text, sizeof(text), "%s", dmm_steer_reason());
	hint = strchr(text, '\n');
	if (hint)
		*hint++ = '\0';
	if (dmm_streq(text, repair->problem))
		return;
	memcpy(repair->problem, text, sizeof(text));
	if (r >= 0) {
		dmm_info("all attachments are kept again");
		return;
	}
	dmm_warning("attachments cannot all be kept: %s", text);
	if (hint)
		dmm_warning("hint: %s", hint);
}

static void repair(struct dmmd *d)
{
	unsigned int n;
	int r = dmm_steer_repair(d->steer, &n);

	if (r == -ESTALE) {
		torn_down(d);
		return;
	}
	if (n > 0)
		dmm_warning("%u attachment%s had gone and had to be put right", n,
			    n == 1 ? "" : "s");
	tell_problem(&d->repair, r);
}

/* --- who else is there --- */

static bool is_same(const struct dmm_beside *a, const struct dmm_beside *b)
{
	return a->prog_id == b->prog_id && a->first == b->first && dmm_streq(a->where, b->where) &&
	       dmm_streq(a->kind, b->kind) && dmm_streq(a->name, b->name);
}

static bool is_known(const struct dmmd_repair *list, const struct dmm_beside *one)
{
	for (unsigned int i = 0; i < list->n_beside; i++)
		if (is_same(&list->beside[i], one))
			return true;
	return false;
}

static void note(void *ctx, const struct dmm_beside *beside)
{
	struct dmmd_repair *now = ctx;

	if (now->n_beside < DMMD_MAX_BESIDE && !is_known(now, beside))
		now->beside[now->n_beside++] = *beside;
}

static void tell(const struct dmm_beside *one, const char *what)
{
	char id[32] = "";

	if (one->prog_id)
		snprintf(id, sizeof(id), ", id %u", one->prog_id);
	if (one->first)
		dmm_warning("%s: %s '%s'%s of somebody else %s", one->where, one->kind, one->name,
			    id, what);
	else
		dmm_info("%s: %s '%s'%s of somebody else %s", one->where, one->kind, one->name, id,
			 what);
}

void dmmd_look_beside(struct dmmd *d)
{
	static struct dmmd_repair now; /* large; only its list is used */
	struct dmmd_repair *known = &d->repair;
	unsigned int i;

	now.n_beside = 0;
	if (dmm_steer_beside(d->steer, note, &now) < 0)
		return;
	for (i = 0; i < now.n_beside; i++)
		if (!is_known(known, &now.beside[i]))
			tell(&now.beside[i], now.beside[i].first
						     ? "runs before ours: what it stops or changes "
						       "does not get there"
						     : "runs after ours");
	for (i = 0; i < known->n_beside; i++)
		if (!is_known(&now, &known->beside[i]))
			tell(&known->beside[i], "is gone");
	memcpy(known->beside, now.beside, now.n_beside * sizeof(now.beside[0]));
	known->n_beside = now.n_beside;
}

/* --- does the filter on lo see what it must? --- */

static void count_missed(struct dmmd *d)
{
	struct dmmd_repair *repair = &d->repair;
	uint64_t missed, now = dmm_now_ns();

	if (dmm_view_counter(d->view, DMM_REASON_SYN_NOT_HELD, &missed) < 0)
		return;
	if (repair->counting && missed != repair->missed) {
		if (!repair->missed_at || repair->missed_at + MISSED_FOR < now)
			dmm_warning("connects to stacks go past our filter on lo and are reset");
		repair->missed_at = now;
	}
	repair->counting = true;
	repair->missed = missed;
}

void dmmd_missed_syns(struct dmmd *d, char *ret, size_t size)
{
	const struct dmmd_repair *repair = &d->repair;
	const char *before = "";

	ret[0] = '\0';
	count_missed(d);
	if (!repair->missed_at || repair->missed_at + MISSED_FOR < dmm_now_ns())
		return;
	for (unsigned int i = 0; i < repair->n_beside; i++)
		if (repair->beside[i].first && dmm_streq(repair->beside[i].where, "lo egress"))
			before = "; see what runs before ours there";
	snprintf(ret, size, "%" PRIu64 " connects to stacks went past it and were reset%s",
		 repair->missed, before);
}

void dmmd_repair_tick(struct dmmd *d)
{
	repair(d);
	if (d->ticks % LOOK_TICKS == 0)
		dmmd_look_beside(d);
	count_missed(d);
}
