/* SPDX-License-Identifier: Apache-2.0 */
/* A set of addresses: open addressing, rebuilt twice as large when half full. */
#include "instance/addrset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_SLOTS 16

/* The slot of @addr, or the free one where it would go. */
static struct addrset_slot *slot_of(const struct addrset *set, const uint8_t addr[16])
{
	size_t i = addr_hash(addr);

	for (;; i++) {
		struct addrset_slot *slot = &set->slots[i & (set->n_slots - 1)];

		if (slot->kind == ADDR_FOREIGN || memcmp(slot->addr, addr, 16) == 0)
			return slot;
	}
}

static int grow(struct addrset *set)
{
	struct addrset larger = { .n_slots = set->n_slots ? set->n_slots * 2 : FIRST_SLOTS };
	size_t i;

	larger.slots = calloc(larger.n_slots, sizeof(*larger.slots));
	if (!larger.slots)
		return -ENOMEM;
	for (i = 0; i < set->n_slots; i++)
		if (set->slots[i].kind != ADDR_FOREIGN)
			*slot_of(&larger, set->slots[i].addr) = set->slots[i];
	larger.used = set->used;
	free(set->slots);
	*set = larger;
	return 0;
}

int addrset_add(struct addrset *set, const uint8_t addr[16], enum addr_kind kind)
{
	struct addrset_slot *slot;
	int r;

	if (set->used * 2 >= set->n_slots) {
		r = grow(set);
		if (r < 0)
			return r;
	}
	slot = slot_of(set, addr);
	if (slot->kind == ADDR_FOREIGN)
		set->used++;
	memcpy(slot->addr, addr, 16);
	slot->kind = kind;
	return 0;
}

enum addr_kind addrset_find(const struct addrset *set, const uint8_t addr[16])
{
	return set->n_slots ? slot_of(set, addr)->kind : ADDR_FOREIGN;
}

void addrset_clear(struct addrset *set)
{
	free(set->slots);
	*set = (struct addrset){ 0 };
}
