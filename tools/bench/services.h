/* SPDX-License-Identifier: Apache-2.0 */
/* What the servers of the bench listen on: from port P on 8 ports that echo, one that swallows, one that
 * sends without end. */
#pragma once

enum service { ECHO, SWALLOW, SEND };

#define ECHO_PORTS  8
#define SERVE_PORTS (ECHO_PORTS + 2)

/* Of port P + @offset. */
static inline enum service service_of(unsigned int offset)
{
	return offset < ECHO_PORTS ? ECHO : offset == ECHO_PORTS ? SWALLOW : SEND;
}
