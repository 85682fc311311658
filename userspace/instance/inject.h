/* SPDX-License-Identifier: Apache-2.0 */
/* What an application's kernel socket is told while its SYN is held: the SYN itself, once the wire
 * connection stands; a refusal; or an ICMP error. Builds packets from the held SYN. Pure; sending
 * them is the caller's. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "instance/icmp.h"

/* Large enough for every packet built here. */
#define INJECT_MAX (40 + 8 + DMM_HELD_SYN_MAX)

struct held_syn {
	struct packet ip;
	uint32_t isn;
	uint16_t tcp_len; /* of the TCP header */
	uint16_t len;	  /* of the packet, data stripped */
	uint8_t packet[DMM_HELD_SYN_MAX];
};

/* A SYN as the kernel copied it: partial checksums are made whole, data is cut off. False: not a
 * SYN with all of its headers. */
bool inject_hold(const uint8_t *packet, uint32_t len, struct held_syn *ret);

/* Each returns the packet's length in @ret[INJECT_MAX]. */
size_t inject_refusal(const struct held_syn *syn, uint8_t *ret);
size_t inject_icmp(const struct held_syn *syn, const struct icmp_error *error, uint8_t *ret);
