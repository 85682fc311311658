/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the parts of the bypass scan. */
#pragma once

#include <libmnl/libmnl.h>

#include "base/bypass.h"

struct dmm_bypass_scan {
	void (*fn)(void *ctx, const struct dmm_bypass *found);
	void *ctx;
	int count;
};

void dmm_bypass_report(struct dmm_bypass_scan *scan, enum dmm_bypass_kind kind, const char *hint,
		       const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Sends @request as a dump (or a single question) and hands every answer to @cb. 0 also where the
 * kernel does not know this kind of netlink. */
int dmm_bypass_ask(int bus, struct nlmsghdr *request, mnl_cb_t cb, void *ctx);

int dmm_bypass_nftables(struct dmm_bypass_scan *scan, const uint32_t *ifindexes, unsigned int n);
int dmm_bypass_iptables(struct dmm_bypass_scan *scan);
