/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets by which an instance learns of the network and has the kernel resolve neighbours. They are made
 * where the privilege and the network namespace are; who uses them needs neither. */
#pragma once

/* Rtnetlink, not bound, with room for @rcvbuf bytes (0: the default). Negative errno. */
int dmm_hostsock_netlink(int rcvbuf);

/* Datagrams that leave by @ifname only and go no further than the next hop. Negative errno. */
int dmm_hostsock_probe(int family, const char *ifname);
