// SPDX-License-Identifier: Apache-2.0
/* Local ports (RFC 6056 3.3.4, the double-hash algorithm): where the search begins is a secret of
 * the two ends, so that nobody else can guess it; the step is shared by a few of them, so that one
 * that was used lately does not come back at once. */
#include <arpa/inet.h>

#include "net/net_internal.h"

uint16_t net_port_for(struct dmm_net *net, const struct dmm_endpoint *local,
		      const struct dmm_endpoint *remote)
{
	const uint32_t n = net->last_port - net->first_port + 1u;
	struct dmm_endpoint ours = *local;
	uint64_t hash;
	uint16_t *step;
	uint32_t tries;

	ours.port = 0;
	hash = net_tuple_hash(net->port_key, &ours, remote, 0);
	step = &net->port_steps[(hash >> 32) % NET_PORT_STEPS];
	for (tries = 0; tries < n; tries++) {
		ours.port = htons((uint16_t)(net->first_port + ((uint32_t)hash + (*step)++) % n));
		if (!net_find(net, &ours, remote))
			return ours.port;
	}
	return 0;
}
