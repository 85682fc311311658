/* SPDX-License-Identifier: Apache-2.0 */
/* Compiled tables in memory: the matcher that the hooks run, and looking up rules. */
#include "policy/compile.h"

#include <stdlib.h>

/* A block of a table, NULL behind its end. */
static inline const void *block_at(const struct dmm_tables *tables, enum dmm_table table,
				   uint32_t index)
{
	if (index >= tables->n_blocks[table])
		return NULL;
	return (const char *)tables->blocks[table] + (size_t)index * DMM_BLOCK;
}

#define DMM_MATCH_TABLES		      const struct dmm_tables *
#define DMM_MATCH_BLOCK(tables, table, index) block_at(tables, table, index)
#include <dmm/abi/match.h>

void dmm_tables_free(struct dmm_tables *tables)
{
	size_t i;

	for (i = 0; i < DMM_NUM_TABLES; i++)
		free(tables->blocks[i]);
	*tables = (struct dmm_tables){ 0 };
}

uint32_t dmm_tables_match(const struct dmm_tables *tables, uint32_t class_id,
			  enum dmm_direction dir, enum dmm_proto proto, const uint8_t remote[16],
			  uint16_t port)
{
	const struct dmm_gen_meta *meta = block_at(tables, DMM_TABLE_META, 0);

	if (!meta || class_id >= meta->n_classes)
		return DMM_NO_RULE;
	return dmm_match(tables, class_id, dir, proto,
			 dmm_addr_is_v4(remote) ? DMM_FAMILY_V4 : DMM_FAMILY_V6, remote, port);
}

uint32_t dmm_tables_match_client(const struct dmm_tables *tables, uint32_t class_id,
				 enum dmm_proto proto, const uint8_t local[16], uint16_t port,
				 const uint8_t remote[16])
{
	const struct dmm_gen_meta *meta = block_at(tables, DMM_TABLE_META, 0);

	if (!meta || class_id >= meta->n_classes)
		return DMM_NO_RULE;
	return dmm_match_client(tables, class_id, proto,
				dmm_addr_is_v4(remote) ? DMM_FAMILY_V4 : DMM_FAMILY_V6, local, port,
				remote);
}

const struct dmm_rule *dmm_tables_rule(const struct dmm_tables *tables, uint32_t rule)
{
	const struct dmm_rules_block *block =
		block_at(tables, DMM_TABLE_RULES, rule / DMM_RULES_BLOCK);

	return block ? &block->rule[rule % DMM_RULES_BLOCK] : NULL;
}
