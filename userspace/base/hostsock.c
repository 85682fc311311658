/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hostsock.h"

#include <errno.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/util.h"

int dmm_hostsock_netlink(int rcvbuf)
{
	dmm_autoclose int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0)
		return -errno;
	/* privileged, and only a larger buffer: losses are noticed anyway */
	if (rcvbuf)
		(void)!setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &rcvbuf, sizeof(rcvbuf));
	return DMM_TAKE_FD(fd);
}

int dmm_hostsock_probe(int family, const char *ifname)
{
	dmm_autoclose int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, ifname, strlen(ifname) + 1) < 0)
		return -errno;
	if (family == AF_INET ? setsockopt(fd, IPPROTO_IP, IP_TTL, &one, sizeof(one))
			      : setsockopt(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &one, sizeof(one)))
		return -errno;
	return DMM_TAKE_FD(fd);
}
