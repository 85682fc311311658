/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets that an instance talks to servers with. */
#include "dmmd/sockets.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/sockopt.h"
#include "base/util.h"
#include "dmmd/confine.h"
#include "dmmd/dmmd.h"
#include "dmmd/inst.h"
#include "dmmd/parcel.h"

static int bind_to(int fd, bool v4, uint16_t port)
{
	struct sockaddr_in6 to6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in to4 = { .sin_family = AF_INET, .sin_port = htons(port) };

	return bind(fd, v4 ? (struct sockaddr *)&to4 : (struct sockaddr *)&to6,
		    v4 ? sizeof(to4) : sizeof(to6)) < 0
		       ? -errno
		       : 0;
}

/* The mark is what lets it through the guard of the instances' ports. */
static int make_one(struct dmmd_inst *inst, bool v4, int *ret_fd)
{
	dmm_autoclose int fd =
		socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r = 0;

	if (fd < 0)
		return -errno;
	if (!v4)
		r = dmm_set_sockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	r = r ? r : dmm_set_sockopt(fd, SOL_SOCKET, SO_RCVBUF, DMMD_RELAY_BUFFER);
	r = r ? r : dmm_set_sockopt(fd, SOL_SOCKET, SO_SNDBUF, DMMD_RELAY_BUFFER);
	r = r ? r
	      : dmm_set_sockopt(fd, SOL_SOCKET, SO_REUSEADDR,
				1); /* what is in TIME-WAIT is no hindrance */
	r = r ? r : dmm_steer_inst_mark(inst->d->steer, inst->slot, fd);
	if (r == 0)
		*ret_fd = DMM_TAKE_FD(fd);
	return r;
}

/* The next port of the instance's that has no socket yet and can be bound. */
static int bind_next(struct dmmd_inst *inst, int fd, bool v4, uint16_t *ret_port)
{
	const struct dmm_port_range *ports = &inst->spec.ports;
	uint32_t n = DMM_MIN(ports->last - ports->first + 1u, DMM_MAX_PORTS);
	int r = -EADDRINUSE;

	for (uint32_t i = 0; i < n && r == -EADDRINUSE; i++) {
		uint32_t at = inst->next_socket++ % n;

		if (inst->given[at / 64] >> at % 64 & 1)
			continue;
		*ret_port = ports->first + at;
		r = bind_to(fd, v4, *ret_port);
		if (r == 0)
			inst->given[at / 64] |= 1ull << at % 64;
	}
	return r;
}

struct order {
	struct dmmd_inst *inst;
	struct dmm_msg_sockets list;
	int fds[DMMD_SOCKETS_AT_ONCE];
};

static int confine(void *ctx, int cgroup_fd)
{
	struct order *order = ctx;

	return dmm_steer_confine(order->inst->d->steer, cgroup_fd);
}

static int make_some(void *ctx)
{
	struct order *order = ctx;
	bool v4 = order->list.family == DMM_FAMILY_V4;
	uint32_t n = order->inst->spec.ports.last - order->inst->spec.ports.first + 1u;
	int r = 0;

	/* of a small range each family gets a part */
	while (order->list.n < DMM_MIN(DMMD_SOCKETS_AT_ONCE, n / 4 + 1) && r == 0) {
		uint16_t *port = &order->list.port[order->list.n];
		dmm_autoclose int fd = -1;

		r = make_one(order->inst, v4, &fd);
		r = r ? r : bind_next(order->inst, fd, v4, port);
		if (r == 0)
			order->fds[order->list.n++] = DMM_TAKE_FD(fd);
	}
	return r == -EADDRINUSE ? 0 : r; /* each port has one */
}

void dmmd_sockets_begin(struct dmmd_inst *inst)
{
	if (!inst->serves || inst->life != DMMD_READY || inst->next_socket)
		return;
	for (int family = 0; family < DMM_NUM_FAMILIES; family++)
		dmmd_sockets_give(inst, family);
}

void dmmd_sockets_give(struct dmmd_inst *inst, enum dmm_family family)
{
	struct order order = { .inst = inst, .list.family = family };
	int r = dmmd_confined(inst->d, confine, make_some, &order);

	if (r < 0)
		dmm_warning("%s: cannot make sockets to talk to servers with: %s", inst->label,
			    strerror(-r));
	r = dmmd_send_message(inst->channel.fd, DMM_MSG_SOCKETS, &order.list, sizeof(order.list),
			      order.fds, order.list.n);
	if (r < 0)
		dmm_warning("%s: sockets not handed over: %s", inst->label, strerror(-r));
	for (unsigned int i = 0; i < order.list.n; i++)
		close(order.fds[i]);
}
