/* SPDX-License-Identifier: Apache-2.0 */
/* Which local ports are taken, and ranges for those stacks whose policy names none. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/policy.h"

#define DMMD_PORTS_FIRST 20000
#define DMMD_PORTS_LAST	 31999
#define DMMD_PORTS_MIN	 128  /* a smaller range is of no use */
#define DMMD_PORTS_MOST	 4000 /* so that more instances find some later */

struct dmmd_ports {
	uint64_t bits[65536 / 64];
};

void dmmd_ports_add(struct dmmd_ports *ports, uint16_t first, uint16_t last);
void dmmd_ports_remove(struct dmmd_ports *ports, uint16_t first, uint16_t last);
/* The lowest taken port of the range; 0: none is. */
uint16_t dmmd_ports_taken(const struct dmmd_ports *taken, uint16_t first, uint16_t last);

/* @count disjoint free ranges of one size, as large as can be up to DMMD_PORTS_MOST, within the default
 * range. -ENOSPC:
 * not even DMMD_PORTS_MIN ports each. */
int dmmd_ports_choose(const struct dmmd_ports *taken, unsigned int count,
		      struct dmm_port_range *ret);

/* Adds what a text like ip_local_reserved_ports says: "8080,20000-20999". */
void dmmd_ports_parse_reserved(const char *text, struct dmmd_ports *ports);
/* Adds the local ports in a /proc/net/tcp or tcp6 text, but those in TIME-WAIT. */
void dmmd_ports_parse_sockets(const char *text, struct dmmd_ports *ports);

/* What this network namespace has reserved and bound (TCP) now. */
int dmmd_ports_reserved(struct dmmd_ports *ports);
int dmmd_ports_bound(struct dmmd_ports *ports);
