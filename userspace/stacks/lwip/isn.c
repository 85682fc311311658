// SPDX-License-Identifier: Apache-2.0
/* The host's initial sequence numbers for lwIP, which Debian builds without its hook for them.
 *
 * lwIP's next number is its last one plus tcp_ticks, the counter of its slow timer. While a SYN is
 * made, tcp_ticks holds what makes the sum come out as the host wants it. */
#include "stacks/lwip/internal.h"

uint32_t dmm_lwip_isn_begin(uint32_t isn)
{
	const uint32_t ticks = tcp_ticks;
	struct tcp_pcb any = { 0 };
	uint32_t last;

	tcp_ticks = 0;
	last = tcp_next_iss(&any);
	tcp_ticks = isn - last;
	return ticks;
}

void dmm_lwip_isn_end(uint32_t ticks, struct tcp_pcb *touched)
{
	if (touched && touched->tmr == tcp_ticks)
		touched->tmr = ticks;
	if (touched && touched->rttest == tcp_ticks)
		touched->rttest = ticks;
	tcp_ticks = ticks;
}
