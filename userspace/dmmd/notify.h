/* SPDX-License-Identifier: Apache-2.0 */
/* What a service manager that speaks sd_notify wants to hear. */
#pragma once

#include <stdint.h>

/* "READY=1", ... to $NOTIFY_SOCKET; without one, nothing. */
void dmmd_notify(const char *text);

/* How often WATCHDOG=1 is due, in ms; 0: not wanted. */
uint64_t dmmd_notify_watchdog_ms(void);
