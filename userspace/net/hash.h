/* SPDX-License-Identifier: Apache-2.0 */
/* SipHash-2-4: a keyed hash whose results tell nothing of the key. Sequence numbers, cookies,
 * timestamp offsets and hash tables come from it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

uint64_t net_hash(const uint64_t key[2], const void *data, size_t len);
