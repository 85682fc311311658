/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP and ICMPv6 errors about TCP segments of ours: read from the wire for the plug-in, and
 * written for the application's kernel socket. Pure. */
#pragma once

#include <dmm/stack.h>

#include "base/packet.h"

/* @type and @code are those of the message's own family, so that the same one can be told to the
 * application's kernel. */
struct icmp_error {
	struct dmm_icmp about;
	enum dmm_family family;
	uint8_t type, code;
};

/* An error about a TCP segment? @packet has been parsed from @data. False: another message, or one
 * whose checksum or quotation is wrong. Whether the segment was ours is for the caller to see. */
bool icmp_parse(const struct packet *packet, const uint8_t *data, struct icmp_error *ret);

enum icmp_unreachable { ICMP_NO_ROUTE, ICMP_NO_HOST };
void icmp_unreachable(enum dmm_family family, enum icmp_unreachable what, struct icmp_error *ret);
