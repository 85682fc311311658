/* SPDX-License-Identifier: Apache-2.0 */
/* What the flow door must do with a frame, written a second time and in another way (offsets into a
 * buffer, no cursor), to be compared with the BPF program. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmm/abi/types.h>

/* What the reference asks of the test's world. Addresses as everywhere: 16 bytes, v4 mapped. */
struct xdpref_world {
	/* Of the owner of a port; REASON_XDP_REDIRECT where it takes what comes. @syn: new flow. */
	enum dmm_reason (*port)(enum dmm_proto proto, uint16_t port, bool syn);
	bool (*is_local)(const uint8_t *addr);	 /* in dmm_local at all */
	bool (*is_unicast)(const uint8_t *addr); /* and one of the host's unicast addresses */
};

struct xdpref_result {
	enum dmm_reason reason;
	enum dmm_proto proto;
	uint16_t port; /* the local one, where the parser got that far */
};

struct xdpref_result xdpref(const struct xdpref_world *world, const uint8_t *frame, size_t len);
