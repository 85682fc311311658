/* SPDX-License-Identifier: Apache-2.0 */
/* Initial sequence numbers of TCP connections (RFC 6528), and SYN cookies (RFC 4987, 3.6): numbers that
 * prove to us, when they come back, that we gave them to that very peer, and when. Pure. */
#pragma once

#include <stdint.h>

#include <dmm/stack.h>

struct isn {
	uint64_t key[2], cookie_key[2]; /* secret, random */
};

/* @now in ns. */
uint32_t isn_make(const struct isn *isn, const struct dmm_endpoint *local,
		  const struct dmm_endpoint *remote, uint64_t now);

/* What a SYN and its answer leave behind in a cookie. */
struct isn_syn {
	const struct dmm_endpoint *local, *remote;
	uint32_t seq; /* the client's initial sequence number */
	uint16_t mss; /* the client's; becomes the next lower one of those that a cookie can say */
};

uint32_t isn_make_cookie(const struct isn *isn, const struct isn_syn *syn, uint64_t now);
/* Is @cookie ours, and at most two minutes old? Fills in @syn->mss. */
bool isn_check_cookie(const struct isn *isn, uint32_t cookie, struct isn_syn *syn, uint64_t now);
