/* SPDX-License-Identifier: Apache-2.0 */
/* A relay between real applications on loopback and a scripted stack: the wire is a struct that the
 * test writes to, and what would be injected is caught. Failures are the test's own. */
#pragma once

#include <dmm/abi/maps.h>
#include <dmm/stack.h>

#include "instance/relay.h"

#define PORT_FIRST    20000
#define PORT_LAST     20063
#define RIG_LISTENERS 4
#define WIRE_ROOM     4096 /* what the scripted stack takes without an acknowledgement */

struct dmm_conn {
	struct rig *rig;
	void *user;
	struct dmm_connect args;
	uint8_t sent[1 << 20]; /* by the application, as the wire would see it */
	size_t n_sent, space;
	uint8_t received[1 << 20]; /* from the wire, for the application */
	size_t n_received, taken;
	bool short_of_space, shut, closed, aborted;
};

struct injected {
	enum dmm_family family;
	uint8_t packet[512];
	size_t len;
};

struct rig {
	struct relay *relay;
	struct dmm_inst_shared *shared;
	int epoll_fd, listeners[2];
	struct dmm_conn *conns[16];
	unsigned int n_conns;
	struct dmm_conn *plugin_listeners; /* RIG_LISTENERS of them */
	unsigned int n_plugin_listeners;
	unsigned int wanted[2]; /* sockets, how often */
	int connect_error, route_error;
	unsigned int n_icmp;
	struct injected injected[16];
	unsigned int n_injected;
	uint64_t now;
};

struct app {
	int fd;
	int family;
	uint16_t port, relay_port; /* network order */
	uint32_t isn;
	uint16_t wire_port; /* host order */
	uint64_t cookie;
};

/* For cmocka: one rig per test. The teardown sees that no port is left in use. */
int relay_rig_setup(void **state);
int relay_rig_teardown(void **state);

/* A few turns of the loop: everything that epoll has to say, acted upon. Returns the events seen. */
unsigned int spin(struct rig *rig);
void stack_says(struct dmm_conn *conn, uint32_t events, int err);
void wire_sends(struct dmm_conn *conn, const void *data, size_t len);
void wire_acks(struct dmm_conn *conn);

void app_bind(struct rig *rig, struct app *app, int family, uint16_t wire_port);
struct dmm_event event_of(const struct app *app, enum dmm_event_kind kind);
/* What the lo filter does with the first SYN, and with each of its retransmissions. */
void syn_is_held(struct rig *rig, const struct app *app);
/* What the injected SYN sets off. */
void app_connects(struct rig *rig, struct app *app);
uint32_t *port_slot(struct rig *rig, const struct app *app);
struct dmm_conn *open_flow_on(struct rig *rig, struct app *app, int family, uint16_t port);
struct dmm_conn *open_flow(struct rig *rig, struct app *app);

void assert_app_reads(struct app *app, const void *data, size_t len);
void assert_app_eof(struct app *app);
void assert_app_reset(struct app *app);
void reset_by_app(struct app *app);
