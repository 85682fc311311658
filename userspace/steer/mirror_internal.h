/* SPDX-License-Identifier: Apache-2.0 */
/* The mirror's picture of a namespace: addresses and routes as the kernel lists them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmm/abi/maps.h>

struct dmm_mirror_addr {
	uint8_t addr[16]; /* IPv4 mapped */
	uint8_t len;	  /* prefix, of 128 */
	uint8_t scope;	  /* RT_SCOPE_* */
	bool v6;
	bool prefer_temporary; /* of its interface, IPv6 */
	uint32_t flags;	       /* IFA_F_* */
	uint32_t ifindex;
};

struct dmm_mirror_route {
	uint8_t dst[16];
	uint8_t len; /* of 128 */
	bool v6;
	uint8_t type, scope;
	uint32_t metric;
	uint32_t ifindex; /* 0: no usable next hop */
	uint8_t gateway[16], prefsrc[16];
	bool has_gateway, has_prefsrc;
};

/* In the order of the kernel's lists, which is meaningful: earlier addresses win ties. */
struct dmm_mirror_picture {
	struct dmm_mirror_addr *addrs;
	size_t n_addrs;
	struct dmm_mirror_route *routes; /* of the main table */
	size_t n_routes;
	struct dmm_mirror_route *locals; /* of the local table */
	size_t n_locals;
};

void dmm_mirror_picture_free(struct dmm_mirror_picture *picture);
/* Asks the kernel for all of it. -EAGAIN: it changed meanwhile, ask again. */
int dmm_mirror_picture_take(struct dmm_mirror_picture *ret);

/* The source address the kernel would choose for this route; false: none. */
bool dmm_mirror_source(const struct dmm_mirror_picture *picture,
		       const struct dmm_mirror_route *route, uint8_t ret[16]);
