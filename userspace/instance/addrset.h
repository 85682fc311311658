/* SPDX-License-Identifier: Apache-2.0 */
/* The host's addresses, asked once or twice for every received packet: a small hash set. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum addr_kind { ADDR_FOREIGN, ADDR_OWN, ADDR_BROADCAST };

struct addrset {
	struct addrset_slot {
		uint8_t addr[16];
		enum addr_kind kind;
	} * slots;
	size_t n_slots, used; /* a power of two; at most half are used */
};

int addrset_add(struct addrset *set, const uint8_t addr[16], enum addr_kind kind);
enum addr_kind addrset_find(const struct addrset *set, const uint8_t addr[16]);
void addrset_clear(struct addrset *set);

static inline uint64_t addr_hash(const uint8_t addr[16])
{
	uint64_t a, b;

	__builtin_memcpy(&a, addr, 8);
	__builtin_memcpy(&b, addr + 8, 8);
	a = (a ^ (b * 0x9e3779b97f4a7c15ull)) * 0xff51afd7ed558ccdull;
	return a ^ (a >> 32);
}
