/* SPDX-License-Identifier: Apache-2.0 */
/* Trie nodes: equal ones are one, so equal subtries are shared all the way up. */
#include "policy/tables_internal.h"

#include <errno.h>

#include "base/util.h"

static uint64_t hash_of_node(const void *ctx, uint32_t i)
{
	const struct dmm_nodes *nodes = ctx;

	return dmm_hash(&nodes->items[i], sizeof(nodes->items[i]));
}

/* Only leaves may be skipped: a node stands for one byte of the address. */
static bool one_leaf(const struct dmm_node *node)
{
	unsigned int i;

	if (!(node->child[0] & DMM_REF_LEAF))
		return false;
	for (i = 1; i < DMM_ARRAY_SIZE(node->child); i++) {
		if (node->child[i] != node->child[0])
			return false;
	}
	return true;
}

int64_t dmm_nodes_add(struct dmm_nodes *nodes, const struct dmm_node *node)
{
	size_t slot;

	if (one_leaf(node))
		return node->child[0];
	if (dmm_index_reserve(&nodes->index, hash_of_node, nodes) < 0 ||
	    dmm_grow(&nodes->items, &nodes->size, nodes->n, 1, sizeof(*node)) < 0)
		return -ENOMEM;
	for (slot = dmm_index_first(&nodes->index, dmm_hash(node, sizeof(*node)));
	     nodes->index.slots[slot]; slot = dmm_index_next(&nodes->index, slot)) {
		uint32_t i = nodes->index.slots[slot] - 1;

		if (memcmp(&nodes->items[i], node, sizeof(*node)) == 0)
			return i;
	}
	nodes->items[nodes->n++] = *node;
	nodes->index.slots[slot] = nodes->n;
	nodes->index.used++;
	return nodes->n - 1;
}

void dmm_nodes_free(struct dmm_nodes *nodes)
{
	free(nodes->items);
	free(nodes->index.slots);
	*nodes = (struct dmm_nodes){ 0 };
}
