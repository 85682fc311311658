/* SPDX-License-Identifier: Apache-2.0 */
/* Interface facts by ioctl: it asks the namespace of the process, which sysfs does not. */
#include "dmmd/iface.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/file.h"
#include "base/util.h"

#define XDP_HEADROOM  256 /* the kernel's, in front of each frame */
#define LINK_OVERHEAD (14 + 4)

static int ask(int fd, unsigned long request, const char *name, struct ifreq *ret)
{
	*ret = (struct ifreq){ 0 };
	snprintf(ret->ifr_name, sizeof(ret->ifr_name), "%s", name);
	return ioctl(fd, request, ret) < 0 ? -errno : 0;
}

/* Drivers that cannot say have one. */
static uint32_t query_queues(int fd, const char *name)
{
	struct ethtool_channels channels = { .cmd = ETHTOOL_GCHANNELS };
	struct ifreq ifr = { 0 };

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	ifr.ifr_data = (char *)&channels;
	if (ioctl(fd, SIOCETHTOOL, &ifr) < 0)
		return 1;
	return DMM_MAX(channels.rx_count + channels.combined_count, 1u);
}

int dmmd_iface_query(const char *name, struct dmmd_iface *ret)
{
	dmm_autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct dmmd_iface iface = { 0 };
	struct ifreq ifr;
	int r;

	if (fd < 0)
		return -errno;
	r = ask(fd, SIOCGIFINDEX, name, &ifr);
	if (r < 0)
		return r;
	iface.ifindex = ifr.ifr_ifindex;
	r = ask(fd, SIOCGIFFLAGS, name, &ifr);
	if (r < 0)
		return r;
	iface.up = ifr.ifr_flags & IFF_UP;
	iface.loopback = ifr.ifr_flags & IFF_LOOPBACK;
	r = ask(fd, SIOCGIFMTU, name, &ifr);
	if (r < 0)
		return r;
	iface.mtu = ifr.ifr_mtu;
	r = ask(fd, SIOCGIFHWADDR, name, &ifr);
	if (r < 0)
		return r;
	iface.ethernet = ifr.ifr_hwaddr.sa_family == ARPHRD_ETHER;
	iface.queues = query_queues(fd, name);
	*ret = iface;
	return 0;
}

/* Does a line of the /proc/net file have @name as its first (or last) word? */
static bool names(const char *path, const char *name, bool last)
{
	dmm_autofree char *text = NULL;
	char *save = NULL;

	if (dmm_file_read(path, 256u << 20, &text, NULL) < 0)
		return false;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *word = line, *end;

		/* each IPv6 interface has these two; they lead nowhere a stack would be asked for */
		if (last && (strncmp(line, "fe80", 4) == 0 || strncmp(line, "ff00", 4) == 0))
			continue;
		for (end = line + strlen(line); end > line && end[-1] == ' '; end--)
			end[-1] = '\0';
		if (last && strrchr(line, ' '))
			word = strrchr(line, ' ') + 1;
		else
			word[strcspn(word, " \t")] = '\0';
		if (dmm_streq(word, name))
			return true;
	}
	return false;
}

bool dmmd_iface_has_route(const char *name)
{
	return names("/proc/net/route", name, false) || names("/proc/net/ipv6_route", name, true);
}

uint32_t dmmd_iface_frame_size(uint32_t mtu)
{
	if (mtu + LINK_OVERHEAD <= 2048 - XDP_HEADROOM)
		return 2048;
	return mtu + LINK_OVERHEAD <= 4096 - XDP_HEADROOM ? 4096 : 0;
}
