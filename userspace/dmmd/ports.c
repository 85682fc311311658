/* SPDX-License-Identifier: Apache-2.0 */
/* A bit per port. */
#include "dmmd/ports.h"

#include <errno.h>

#include "base/file.h"
#include "base/util.h"

#define PROC_NET_MAX (256u << 20)
#define TIME_WAIT    6

void dmmd_ports_add(struct dmmd_ports *ports, uint16_t first, uint16_t last)
{
	for (unsigned int p = first; p <= last; p++)
		ports->bits[p / 64] |= 1ull << p % 64;
}

void dmmd_ports_remove(struct dmmd_ports *ports, uint16_t first, uint16_t last)
{
	for (unsigned int p = first; p <= last; p++)
		ports->bits[p / 64] &= ~(1ull << p % 64);
}

uint16_t dmmd_ports_taken(const struct dmmd_ports *taken, uint16_t first, uint16_t last)
{
	for (unsigned int p = first; p <= last; p++)
		if (taken->bits[p / 64] >> p % 64 & 1)
			return p;
	return 0;
}

/* First fit. */
static bool place(const struct dmmd_ports *taken, unsigned int count, unsigned int size,
		  struct dmm_port_range *ret)
{
	unsigned int run = 0;

	for (unsigned int p = DMMD_PORTS_FIRST; p <= DMMD_PORTS_LAST && count > 0; p++) {
		run = dmmd_ports_taken(taken, p, p) ? 0 : run + 1;
		if (run < size)
			continue;
		*ret++ = (struct dmm_port_range){ p - size + 1, p };
		count--;
		run = 0;
	}
	return count == 0;
}

int dmmd_ports_choose(const struct dmmd_ports *taken, unsigned int count,
		      struct dmm_port_range *ret)
{
	unsigned int size;

	if (count == 0)
		return 0;
	size = DMM_MIN((DMMD_PORTS_LAST - DMMD_PORTS_FIRST + 1) / count, DMMD_PORTS_MOST);
	for (; size >= DMMD_PORTS_MIN; size -= (size + 15) / 16) {
		struct dmm_port_range found[DMM_MAX_INSTANCES];

		if (count <= DMM_ARRAY_SIZE(found) && place(taken, count, size, found)) {
			memcpy(ret, found, count * sizeof(found[0]));
			return 0;
		}
	}
	return -ENOSPC;
}

void dmmd_ports_parse_reserved(const char *text, struct dmmd_ports *ports)
{
	while (*text) {
		unsigned int first, last;
		int n = sscanf(text, "%u-%u", &first, &last);

		if (n == 1)
			last = first;
		if (n >= 1 && first <= last && last <= UINT16_MAX)
			dmmd_ports_add(ports, first, last);
		text += strcspn(text, ",");
		text += *text == ',';
	}
}

void dmmd_ports_parse_sockets(const char *text, struct dmmd_ports *ports)
{
	const char *line = strchr(text, '\n'); /* the first is a heading */

	for (; line && line[1]; line = strchr(line + 1, '\n')) {
		unsigned int port, state;

		if (sscanf(line + 1, " %*u: %*[0-9A-Fa-f]:%4x %*[0-9A-Fa-f]:%*x %2x", &port,
			   &state) == 2 &&
		    state != TIME_WAIT)
			dmmd_ports_add(ports, port, port);
	}
}

int dmmd_ports_reserved(struct dmmd_ports *ports)
{
	dmm_autofree char *text = NULL;
	int r = dmm_file_read("/proc/sys/net/ipv4/ip_local_reserved_ports", 1u << 20, &text, NULL);

	if (r == 0)
		dmmd_ports_parse_reserved(text, ports);
	return r;
}

int dmmd_ports_bound(struct dmmd_ports *ports)
{
	static const char *const files[] = { "/proc/net/tcp", "/proc/net/tcp6" };

	for (size_t i = 0; i < DMM_ARRAY_SIZE(files); i++) {
		dmm_autofree char *text = NULL;
		int r = dmm_file_read(files[i], PROC_NET_MAX, &text, NULL);

		if (r == -ENOENT)
			continue; /* a kernel without IPv6 */
		if (r < 0)
			return r;
		dmmd_ports_parse_sockets(text, ports);
	}
	return 0;
}
