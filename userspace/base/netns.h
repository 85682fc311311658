/* SPDX-License-Identifier: Apache-2.0 */
/* Other network namespaces: finding them, and sockets in them. */
#pragma once

/* Calls @fn with every network namespace but the current one, until it returns non-zero, which it
 * returns. Found are those with a name in /run/netns and those with a process that this one may look
 * into (/proc/PID/ns), each once. @name: "web" or "pid 123". */
int dmm_netns_each(int (*fn)(void *ctx, int netns, const char *name), void *ctx);
/* A CLOEXEC socket that lives in @netns: sockets stay where they were made. */
int dmm_netns_socket(int netns, int family, int type, int protocol);
