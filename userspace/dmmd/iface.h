/* SPDX-License-Identifier: Apache-2.0 */
/* Facts about a network interface of this namespace. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct dmmd_iface {
	uint32_t ifindex;
	uint32_t mtu;
	uint32_t queues; /* that receive */
	bool up, loopback, ethernet;
};

/* -ENODEV: no such interface. */
int dmmd_iface_query(const char *name, struct dmmd_iface *ret);

/* Does any route of either family leave by it? */
bool dmmd_iface_has_route(const char *name);

/* Size of an AF_XDP frame that holds a packet of @mtu; 0: none does. */
uint32_t dmmd_iface_frame_size(uint32_t mtu);
