/* SPDX-License-Identifier: Apache-2.0 */
/* The far ends of a dead instance's flows are sent a segment out of any window. RFC 9293 (3.10.7.4) wants
 * it answered by an ACK, and to that the kernel, which knows of no such connection, or the instance that
 * follows, says RST with the right number. Nobody is reset by this segment itself, whatever its
 * addresses: they are the dead one's word. */
#define _GNU_SOURCE
#include "dmmd/peers.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/packet.h"
#include "base/util.h"
#include "dmmd/dmmd.h"
#include "dmmd/inst.h"

/* It leaves by the instance's own interface only. */
static int open_raw(int family, const char *ifname)
{
	int fd = socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW), one = 1;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, ifname, strlen(ifname)) < 0 ||
	    (family == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_HDRINCL, &one, sizeof(one)) < 0)) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

static void send_to(int fd, const struct packet *p, const uint8_t *packet, uint32_t len)
{
	struct sockaddr_in6 to6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in to4 = { .sin_family = AF_INET };
	bool v4 = p->family == DMM_FAMILY_V4;

	memcpy(&to6.sin6_addr, p->dst, 16);
	memcpy(&to4.sin_addr, p->dst + 12, 4);
	(void)!sendto(fd, packet, len, MSG_DONTWAIT,
		      v4 ? (struct sockaddr *)&to4 : (struct sockaddr *)&to6,
		      v4 ? sizeof(to4) : sizeof(to6));
}

static void tell(const int fds[DMM_NUM_FAMILIES], const struct dmm_wire *wire, uint32_t number)
{
	const struct tcp_header tcp = { .src_port = wire->local_port,
					.dst_port = wire->remote_port,
					.seq = number,
					.ack = ~number,
					.flags = TCP_ACK };
	struct packet p = { .family = addr_is_v4(wire->remote) ? DMM_FAMILY_V4 : DMM_FAMILY_V6,
			    .proto = IPPROTO_TCP };
	uint8_t packet[PACKET_TCP_MAX];

	if (!wire->remote_port || addr_is_illegal_source(wire->remote) ||
	    addr_is_illegal_source(wire->local) ||
	    addr_is_v4(wire->local) != addr_is_v4(wire->remote))
		return;
	memcpy(p.src, wire->local, 16);
	memcpy(p.dst, wire->remote, 16);
	send_to(fds[p.family], &p, packet, packet_write_tcp(&p, &tcp, packet));
}

void dmmd_tell_peers(struct dmmd_inst *inst)
{
	dmm_autofree struct dmm_inst_shared *shared = malloc(sizeof(*shared));
	int fds[DMM_NUM_FAMILIES] = { open_raw(AF_INET, inst->spec.interface),
				      open_raw(AF_INET6, inst->spec.interface) };
	unsigned int n = 0, size = inst->spec.ports.last - inst->spec.ports.first + 1;
	uint32_t number = 0;
	int r = shared ? dmm_view_shared(inst->d->view, inst->slot, shared, true) : -ENOMEM;

	if (getrandom(&number, sizeof(number), 0) < 0)
		r = r < 0 ? r : -errno;
	for (unsigned int i = 0; r == 0 && i < DMM_MIN(size, DMM_MAX_PORTS); i++)
		if (shared->port[i] == DMM_PORT_USED) {
			tell(fds, &shared->wire[i], number);
			n++;
		}
	if (r == 0 && n > 0)
		dmm_info("%s: the far ends of %u flows are made to notice", inst->label, n);
	for (int i = 0; i < DMM_NUM_FAMILIES; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}
