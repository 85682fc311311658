/* SPDX-License-Identifier: Apache-2.0 */
/* The doctor's look at interfaces and at what steered traffic would go around. */
#include "doctor.h"

#include <errno.h>
#include <net/if.h>

#include <dmm/abi/maps.h>

#include "base/bypass.h"

#define MAX_INTERFACES 64

static void report(void *ctx, const struct dmm_bypass *found)
{
	diagnose(ctx, HEALTH_WARNING, dmm_bypass_word(found->kind), found->hint, "%s", found->text);
}

/* Nobody's packets come or go by loopback or by DMM's own hops alone. */
static bool carries_traffic(const char *name)
{
	return !dmm_streq(name, "lo") && strncmp(name, DMM_HOP_NAME, strlen(DMM_HOP_NAME)) != 0;
}

/* Those named on the command line, else all that carry traffic. */
static unsigned int choose_interfaces(struct doctor *doctor, uint32_t *ret)
{
	const struct ctl *ctl = doctor->ctl;
	struct if_nameindex *all;
	unsigned int n = 0;

	for (int i = 0; i < ctl->argc && n < MAX_INTERFACES; i++) {
		ret[n] = if_nametoindex(ctl->argv[i]);
		if (ret[n])
			n++;
		else
			diagnose(doctor, HEALTH_ERROR, ctl->argv[i], "ip link",
				 "no such interface");
	}
	all = ctl->argc ? NULL : if_nameindex();
	for (struct if_nameindex *p = all; p && p->if_index && n < MAX_INTERFACES; p++)
		if (carries_traffic(p->if_name))
			ret[n++] = p->if_index;
	if (all)
		if_freenameindex(all);
	return n;
}

void doctor_network(struct doctor *doctor)
{
	uint32_t ifindexes[MAX_INTERFACES];
	unsigned int n = choose_interfaces(doctor, ifindexes);
	int r = dmm_bypass_scan(ifindexes, n, report, doctor);

	if (r < 0)
		diagnose(doctor, HEALTH_WARNING, "filters, tc and routing policy", NULL,
			 "the kernel does not say: %s", strerror(-r));
	else if (r == 0)
		diagnose(doctor, HEALTH_OK, "filters, tc and routing policy", NULL,
			 "none that steered traffic would go around (%u interface%s)", n,
			 n == 1 ? "" : "s");
}
