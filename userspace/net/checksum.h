/* SPDX-License-Identifier: Apache-2.0 */
/* The Internet checksum (RFC 1071). Sums are of 16-bit words as they lie in memory, so they may be
 * stored with memcpy(); a sum can be begun with another one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Adds @len bytes that begin at an even place of the whole. */
uint64_t net_sum(const void *data, size_t len, uint64_t sum);
/* The same, without wide registers. */
uint64_t net_sum_plain(const void *data, size_t len, uint64_t sum);
/* What goes into a checksum field, in network order. */
uint16_t net_sum_finish(uint64_t sum);
/* Of what TCP and UDP add: addresses (each 4 or 16 bytes), protocol and length. */
uint64_t net_sum_pseudo(const uint8_t *src, const uint8_t *dst, size_t addr_len, uint8_t proto,
			uint32_t len);
