/* SPDX-License-Identifier: Apache-2.0 */
/* Clients from the wire: a scripted stack accepts them, real servers on loopback get them. */
#include "relayrig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/packet.h"
#include "base/util.h"
#include "dmm/abi/wire.h"

#define N_PORTS (PORT_LAST - PORT_FIRST + 1)

static const uint8_t loopback4[4] = { 127, 0, 0, 1 };

struct server {
	int fd, client;
	struct dmm_endpoint local;
};

static void serve(struct server *server, int backlog)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);

	*server = (struct server){ .fd = socket(AF_INET, SOCK_STREAM, 0), .client = -1 };
	assert_int_equal(bind(server->fd, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(listen(server->fd, backlog), 0);
	assert_int_equal(getsockname(server->fd, (struct sockaddr *)&addr, &len), 0);
	addr_from_v4(loopback4, server->local.addr);
	server->local.port = addr.sin_port;
}

static struct dmm_endpoint client_at(uint16_t port)
{
	static const uint8_t addr[4] = { 192, 0, 2, 9 };
	struct dmm_endpoint client = { .port = htons(port) };

	addr_from_v4(addr, client.addr);
	return client;
}

/* What dmmd hands over. */
static bool give_socket(struct rig *rig, uint16_t port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return clients_add_socket(rig->relay, DMM_FAMILY_V4, port, fd);
}

static void give_all(struct rig *rig)
{
	for (uint16_t port = PORT_FIRST; port <= PORT_LAST; port++)
		assert_true(give_socket(rig, port));
}

/* From SYN to accept(). */
static struct dmm_conn *join(struct rig *rig, struct server *server, uint16_t port)
{
	struct dmm_endpoint client = client_at(port);
	struct dmm_conn *conn = calloc(1, sizeof(*conn));

	relay_set_now(rig->relay, rig->now);
	assert_int_equal(relay_on_client_syn(rig->relay, &server->local, &client), RELAY_SYN_PASS);
	*conn = (struct dmm_conn){ .rig = rig, .space = WIRE_ROOM };
	rig->conns[rig->n_conns++] = conn;
	conn->user = relay_on_client(rig->relay, conn, &server->local, &client);
	assert_non_null(conn->user);
	for (int i = 0; i < 3; i++)
		spin(rig);
	server->client = accept(server->fd, NULL, NULL);
	assert_true(server->client >= 0);
	spin(rig);
	return conn;
}

static unsigned int ports_used(const struct rig *rig)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < N_PORTS; i++)
		n += rig->shared->port[i] == DMM_PORT_USED;
	return n;
}

/* As the flow door looks for it. */
static bool is_linked(const struct rig *rig, const struct server *server, uint16_t port)
{
	struct dmm_endpoint client = client_at(port);
	uint32_t at = rig->shared->head[dmm_wire_hash(rig->shared->seed, client.addr, client.port,
						      server->local.port)];

	for (; at; at = rig->shared->wire[at - 1].next)
		if (rig->shared->wire[at - 1].remote_port == client.port &&
		    memcmp(rig->shared->wire[at - 1].local, server->local.addr, 16) == 0)
			return true;
	return false;
}

static void a_client_and_its_server(void **state)
{
	struct rig *rig = *state;
	struct dmm_conn *conn;
	struct server server;
	char buf[16];

	serve(&server, 8);
	give_all(rig);
	for (int round = 0; round < 3; round++) { /* the sockets are used again */
		conn = join(rig, &server, 1000 + round);
		assert_true(is_linked(rig, &server, 1000 + round));
		assert_int_equal(ports_used(rig), 1);
		wire_sends(conn, "hello", 5);
		assert_int_equal(recv(server.client, buf, sizeof(buf), 0), 5);
		assert_memory_equal(buf, "hello", 5);
		assert_int_equal(send(server.client, "world!", 6, 0), 6);
		spin(rig);
		assert_int_equal(conn->n_sent, 6);
		assert_memory_equal(conn->sent, "world!", 6);
		stack_says(conn, DMM_EV_EOF, 0);
		assert_int_equal(recv(server.client, buf, sizeof(buf), 0), 0);
		close(server.client);
		spin(rig);
		assert_true(conn->closed || conn->shut);
		stack_says(conn, DMM_EV_CLOSED, 0);
		spin(rig);
		assert_int_equal(ports_used(rig), 0);
		assert_false(is_linked(rig, &server, 1000 + round));
	}
	assert_int_equal(rig->shared->flows_opened, 3);
	assert_int_equal(rig->n_plugin_listeners, 1);
	close(server.fd);
}

static void a_reset_either_way_is_passed_on(void **state)
{
	struct linger reset = { .l_onoff = 1 };
	struct rig *rig = *state;
	struct dmm_conn *conn;
	struct server server;
	char buf[16];

	serve(&server, 8);
	give_all(rig);
	conn = join(rig, &server, 1000);
	setsockopt(server.client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(server.client);
	spin(rig);
	assert_true(conn->aborted);
	conn = join(rig, &server, 1001);
	stack_says(conn, DMM_EV_ERROR, ECONNRESET);
	assert_int_equal(recv(server.client, buf, sizeof(buf), 0), -1);
	assert_int_equal(errno, ECONNRESET);
	close(server.client);
	assert_int_equal(ports_used(rig), 0);
	close(server.fd);
}

static void a_server_that_is_gone_resets_its_client(void **state)
{
	struct dmm_endpoint client = client_at(1000);
	struct rig *rig = *state;
	struct dmm_conn conn = { .rig = rig };
	struct server server;

	serve(&server, 8);
	give_all(rig);
	assert_int_equal(relay_on_client_syn(rig->relay, &server.local, &client), RELAY_SYN_PASS);
	close(server.fd);
	conn.user = relay_on_client(rig->relay, &conn, &server.local, &client);
	spin(rig);
	spin(rig);
	assert_true(conn.aborted);
	assert_int_equal(rig->shared->flows_refused, 1);
	assert_int_equal(ports_used(rig), 0);
}

static void half_open_clients_take_what_there_is_and_give_it_back(void **state)
{
	struct rig *rig = *state;
	struct server server;

	serve(&server, 8);
	give_all(rig);
	relay_set_now(rig->relay, rig->now);
	for (unsigned int i = 0; i < N_PORTS; i++) {
		struct dmm_endpoint client = client_at(1000 + i);

		assert_int_equal(relay_on_client_syn(rig->relay, &server.local, &client),
				 RELAY_SYN_PASS);
		/* once more is the same */
		assert_int_equal(relay_on_client_syn(rig->relay, &server.local, &client),
				 RELAY_SYN_PASS);
		assert_true(is_linked(rig, &server, 1000 + i));
	}
	assert_int_equal(ports_used(rig), N_PORTS);
	for (int i = 0; i < 3; i++) {
		struct dmm_endpoint client = client_at(100 + i);

		assert_int_equal(relay_on_client_syn(rig->relay, &server.local, &client),
				 RELAY_SYN_DROP);
	}
	assert_int_equal(rig->shared->clients_dropped, 3);
	assert_true(rig->wanted[DMM_FAMILY_V4] > 0);
	rig->now += 31 * DMM_NS_PER_SEC; /* they never come back */
	spin(rig);
	assert_int_equal(ports_used(rig), 0);
	assert_int_equal(relay_active(rig->relay), 0);
	assert_false(join(rig, &server, 1000)->aborted);
	close(server.client);
	close(server.fd);
}

static void ports_that_connects_have_are_passed_over(void **state)
{
	struct dmm_endpoint client = client_at(1000);
	struct rig *rig = *state;
	struct server server;

	serve(&server, 8);
	give_all(rig);
	for (unsigned int free_one = 0; free_one < N_PORTS; free_one += 21) {
		for (unsigned int i = 0; i < N_PORTS; i++)
			rig->shared->port[i] = i == free_one ? DMM_PORT_FREE : 0x7fffffff;
		client.port++;
		assert_int_equal(relay_on_client_syn(rig->relay, &server.local, &client),
				 RELAY_SYN_PASS);
		assert_int_equal(rig->shared->port[free_one], DMM_PORT_USED);
		relay_reset_all(rig->relay);
	}
	for (unsigned int i = 0; i < N_PORTS; i++)
		rig->shared->port[i] = DMM_PORT_FREE;
	close(server.fd);
}

static void sockets_that_are_of_no_use_are_closed(void **state)
{
	struct rig *rig = *state;
	struct server server;
	struct dmm_endpoint client = client_at(1000);

	serve(&server, 8);
	relay_set_now(rig->relay, rig->now);
	assert_int_equal(relay_on_client_syn(rig->relay, &server.local, &client), RELAY_SYN_DROP);
	assert_int_equal(rig->wanted[DMM_FAMILY_V4], 1);
	assert_true(give_socket(rig, PORT_FIRST));
	assert_false(give_socket(rig, PORT_FIRST)); /* a second one for that port */
	assert_false(give_socket(rig, PORT_LAST + 1));
	assert_int_equal(relay_on_client_syn(rig->relay, &server.local, &client), RELAY_SYN_PASS);
	relay_reset_all(rig->relay);
	close(server.fd);
}

static void idle_listeners_make_room(void **state)
{
	struct dmm_endpoint client = client_at(1000);
	struct rig *rig = *state;
	struct server server[2];

	give_all(rig);
	for (int i = 0; i < 2; i++) {
		serve(&server[i], 8);
		relay_set_now(rig->relay, rig->now);
		relay_on_client_syn(rig->relay, &server[i].local, &client);
		rig->now += 40 * DMM_NS_PER_SEC;
		spin(rig);
	}
	assert_int_equal(rig->n_plugin_listeners, 2);
	assert_true(rig->plugin_listeners[0].closed); /* idle for 80 s */
	assert_null(rig->plugin_listeners[0].user);   /* its last event is nobody's */
	assert_false(rig->plugin_listeners[1].closed);
	relay_on_client_syn(rig->relay, &server[0].local, &client);
	assert_int_equal(rig->n_plugin_listeners, 3);
	relay_reset_all(rig->relay);
	close(server[0].fd);
	close(server[1].fd);
}

static void clients_with_a_cookie_are_known_by_it(void **state)
{
	struct dmm_endpoint client = client_at(1000), other = client_at(1001);
	struct rig *rig = *state;
	struct server server;
	uint32_t isn = 0;

	serve(&server, 8);
	give_all(rig);
	assert_true(relay_is_unknown(rig->relay, &server.local, &client));
	assert_true(relay_on_client_cookie(rig->relay, &server.local, &client, 0xc00c1e));
	assert_false(relay_is_unknown(rig->relay, &server.local, &client));
	assert_true(relay_came_by_cookie(rig->relay, &server.local, &client, &isn));
	assert_int_equal(isn, 0xc00c1e);
	assert_int_equal(relay_on_client_syn(rig->relay, &server.local, &other), RELAY_SYN_PASS);
	assert_false(relay_came_by_cookie(rig->relay, &server.local, &other, &isn));
	assert_int_equal(rig->shared->cookies_taken, 1);
	relay_reset_all(rig->relay);
	close(server.fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, relay_rig_setup, relay_rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_client_and_its_server),
		TEST(a_reset_either_way_is_passed_on),
		TEST(a_server_that_is_gone_resets_its_client),
		TEST(half_open_clients_take_what_there_is_and_give_it_back),
		TEST(ports_that_connects_have_are_passed_over),
		TEST(sockets_that_are_of_no_use_are_closed),
		TEST(idle_listeners_make_room),
		TEST(clients_with_a_cookie_are_known_by_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
