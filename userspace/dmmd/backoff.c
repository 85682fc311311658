/* SPDX-License-Identifier: Apache-2.0 */
/* The restart delay. */
#include "dmmd/backoff.h"

#include "base/util.h"

int dmmd_backoff_died(struct dmmd_backoff *backoff, uint64_t ready_ms)
{
	if (ready_ms >= DMMD_BACKOFF_GOOD_MS)
		backoff->deaths = 0;
	backoff->deaths++;
	if (backoff->deaths >= DMMD_FAST_DEATHS)
		return -1;
	return DMM_MIN(DMMD_BACKOFF_FIRST_MS << (backoff->deaths - 1), DMMD_BACKOFF_LAST_MS);
}
