/* SPDX-License-Identifier: Apache-2.0 */
/* The relay against a scripted stack (relayrig.h): what connect() ends with, bytes and their order,
 * half-close, resets, backpressure. */
#include "relayrig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/util.h"
#include "base/packet.h"

/* --- connecting --- */

static void held_syn_is_let_go_once_the_wire_stands(void **state)
{
	struct rig *rig = *state;
	struct dmm_conn *conn;
	struct packet p;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	*port_slot(rig, &app) = 1234;
	syn_is_held(rig, &app);
	assert_int_equal(rig->n_conns, 1);
	assert_int_equal(rig->n_injected, 0);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_USED);
	conn = rig->conns[0];
	assert_int_equal(conn->args.remote.port, htons(80));
	assert_int_equal(conn->args.local.port, htons(PORT_FIRST));

	syn_is_held(rig, &app); /* a retransmission changes nothing */
	assert_int_equal(rig->n_conns, 1);
	assert_int_equal(rig->n_injected, 0);

	stack_says(conn, DMM_EV_CONNECTED, 0);
	assert_int_equal(rig->n_injected, 1);
	assert_true(packet_parse(rig->injected[0].packet, rig->injected[0].len, &p));
	assert_int_equal(checksum_fold(checksum_add(0, rig->injected[0].packet, 20)), 0);
	assert_int_equal(checksum_transport(&p, rig->injected[0].packet + 20, 20), 0);

	syn_is_held(rig, &app); /* the injected one got lost */
	assert_int_equal(rig->n_injected, 2);

	app_connects(rig, &app);
	assert_int_equal(rig->shared->flows_opened, 1);
	assert_int_equal(rig->shared->strangers, 0);
	close(app.fd);
}

static void refused_is_told_as_rst(void **state)
{
	struct rig *rig = *state;
	const uint8_t *tcp = rig->injected[0].packet + 20;
	struct packet p;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	syn_is_held(rig, &app);
	stack_says(rig->conns[0], DMM_EV_ERROR, ECONNREFUSED);
	assert_int_equal(rig->n_injected, 1);
	assert_true(packet_parse(rig->injected[0].packet, rig->injected[0].len, &p));
	assert_int_equal(checksum_transport(&p, tcp, 20), 0);
	assert_int_equal(tcp[13], 0x14); /* RST|ACK */
	assert_int_equal(packet_get32(tcp + 4), 0);
	assert_int_equal(packet_get32(tcp + 8), app.isn + 1);
	assert_memory_equal(tcp + 2, &app.port, 2);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_FREE);
	assert_int_equal(rig->shared->flows_refused, 1);
	assert_int_equal(relay_active(rig->relay), 0);
	close(app.fd);
}

static void timed_out_is_not_told_and_a_new_syn_tries_again(void **state)
{
	struct rig *rig = *state;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	syn_is_held(rig, &app);
	stack_says(rig->conns[0], DMM_EV_ERROR, ETIMEDOUT);
	assert_int_equal(rig->n_injected, 0);
	assert_int_equal(rig->shared->flows_timed_out, 1);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_USED);
	syn_is_held(rig, &app);
	assert_int_equal(rig->n_conns, 2);
	stack_says(rig->conns[1], DMM_EV_CONNECTED, 0);
	assert_int_equal(rig->n_injected, 1);
	close(app.fd);
}

static void stack_without_memory_tries_again_with_the_next_syn(void **state)
{
	struct rig *rig = *state;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	rig->connect_error = -ENOMEM;
	syn_is_held(rig, &app);
	assert_int_equal(rig->n_injected, 0);
	rig->connect_error = 0;
	syn_is_held(rig, &app);
	assert_int_equal(rig->n_conns, 1);
	close(app.fd);
}

static void no_route_is_told_as_icmp(void **state)
{
	struct rig *rig = *state;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	rig->route_error = -ENETUNREACH;
	syn_is_held(rig, &app);
	assert_int_equal(rig->n_conns, 0);
	assert_int_equal(rig->n_injected, 1);
	assert_int_equal(rig->injected[0].packet[9], IPPROTO_ICMP);
	assert_int_equal(rig->injected[0].packet[20], 3);
	assert_int_equal(rig->injected[0].packet[21], 0);
	close(app.fd);
}

static struct icmp_error icmp_about(const struct app *app, uint32_t seq, bool hard)
{
	struct dmm_event e = event_of(app, DMM_EVENT_SYN);
	struct icmp_error error = { .type = 3, .code = 1 };

	memcpy(error.about.local.addr, e.local, 16);
	memcpy(error.about.remote.addr, e.remote, 16);
	error.about.local.port = e.local_port;
	error.about.remote.port = e.remote_port;
	error.about.seq = seq;
	error.about.hard = hard;
	error.about.err = EHOSTUNREACH;
	return error;
}

static void icmp_error_ends_the_attempt_with_the_same_error(void **state)
{
	struct rig *rig = *state;
	struct icmp_error error;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	syn_is_held(rig, &app);
	relay_on_wire_syn(rig->relay, htons(PORT_FIRST), 77);

	error = icmp_about(&app, 78, true); /* a guessed one */
	relay_on_icmp(rig->relay, &error);
	assert_int_equal(rig->n_injected, 0);
	error = icmp_about(&app, 77, false); /* too big: for the stack alone */
	relay_on_icmp(rig->relay, &error);
	assert_int_equal(rig->n_icmp, 1);
	assert_int_equal(rig->n_injected, 0);

	error = icmp_about(&app, 77, true);
	relay_on_icmp(rig->relay, &error);
	assert_true(rig->conns[0]->aborted);
	assert_int_equal(rig->n_injected, 1);
	assert_int_equal(rig->injected[0].packet[20], 3);
	assert_int_equal(rig->injected[0].packet[21], 1);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_FREE);
	close(app.fd);
}

static void icmp_error_does_not_end_an_open_flow(void **state)
{
	struct rig *rig = *state;
	struct icmp_error error;
	struct dmm_conn *conn;
	struct app app;

	conn = open_flow(rig, &app);
	error = icmp_about(&app, 5, true);
	relay_on_icmp(rig->relay, &error);
	spin(rig);
	assert_false(conn->aborted);
	assert_int_equal(rig->n_icmp, 1);
	close(app.fd);
}

static bool is_any(void *ctx, const uint8_t remote[16], const uint8_t local[16])
{
	(void)remote, (void)local;
	return *(bool *)ctx;
}

static void lost_next_hop_ends_attempts_only(void **state)
{
	struct rig *rig = *state;
	struct app pending, open;
	struct dmm_conn *conn = open_flow(rig, &open);
	bool hit = false;

	app_bind(rig, &pending, AF_INET, PORT_FIRST + 1);
	syn_is_held(rig, &pending);
	rig->n_injected = 0;
	relay_on_unreachable(rig->relay, is_any, &hit);
	assert_int_equal(rig->n_injected, 0);
	hit = true;
	relay_on_unreachable(rig->relay, is_any, &hit);
	assert_int_equal(rig->n_injected, 1);
	assert_int_equal(rig->injected[0].packet[21], 1);
	assert_true(rig->conns[1]->aborted);
	assert_false(conn->aborted);
	close(pending.fd);
	close(open.fd);
}

static void app_that_gives_up_ends_the_wire(void **state)
{
	struct rig *rig = *state;
	struct dmm_event e;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	syn_is_held(rig, &app);
	e = event_of(&app, DMM_EVENT_CLOSED);
	e.cookie++; /* another socket that had the same port before */
	relay_on_ring(rig->relay, &e);
	assert_false(rig->conns[0]->aborted);
	e.cookie--;
	relay_on_ring(rig->relay, &e);
	assert_true(rig->conns[0]->aborted);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_FREE);
	close(app.fd);
}

static void injected_syn_that_nobody_answers_expires(void **state)
{
	struct rig *rig = *state;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	syn_is_held(rig, &app);
	stack_says(rig->conns[0], DMM_EV_CONNECTED, 0);
	rig->now += 9 * DMM_NS_PER_SEC;
	spin(rig);
	assert_false(rig->conns[0]->aborted);
	rig->now += 2 * DMM_NS_PER_SEC;
	spin(rig);
	assert_true(rig->conns[0]->aborted);
	assert_int_equal(relay_active(rig->relay), 0);
	close(app.fd);
}

static void port_reused_by_app_replaces_the_older_attempt(void **state)
{
	struct rig *rig = *state;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	syn_is_held(rig, &app);
	app.wire_port++; /* a new socket from the same port: the older one's end got lost */
	app.isn++;
	syn_is_held(rig, &app);
	assert_true(rig->conns[0]->aborted);
	assert_int_equal(rig->n_conns, 2);
	assert_int_equal(rig->shared->port[0], DMM_PORT_FREE);
	assert_int_equal(rig->shared->port[1], DMM_PORT_USED);
	assert_int_equal(relay_active(rig->relay), 1);
	close(app.fd);
}

static void stranger_is_reset(void **state)
{
	struct rig *rig = *state;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	app_connects(rig, &app);
	assert_app_reset(&app);
	assert_int_equal(rig->shared->strangers, 1);
	close(app.fd);

	/* also while its wire connection is still being made */
	app_bind(rig, &app, AF_INET, PORT_FIRST);
	syn_is_held(rig, &app);
	app_connects(rig, &app);
	assert_app_reset(&app);
	assert_int_equal(rig->shared->strangers, 2);
	close(app.fd);
}

static void nonsense_events_are_ignored(void **state)
{
	struct rig *rig = *state;
	struct dmm_event e;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_LAST + 1); /* not ours */
	syn_is_held(rig, &app);
	app.wire_port = PORT_FIRST;
	e = event_of(&app, DMM_EVENT_SYN);
	e.packet_len = 30; /* cut within the TCP header */
	relay_on_ring(rig->relay, &e);
	e.packet_len = sizeof(e.packet) + 1;
	relay_on_ring(rig->relay, &e);
	assert_int_equal(rig->n_conns, 0);
	assert_int_equal(relay_active(rig->relay), 0);
	close(app.fd);
}

/* --- bytes --- */

static void carry_both_ways_on(struct rig *rig, int family)
{
	struct dmm_conn *conn;
	struct app app;

	conn = open_flow_on(rig, &app, family, PORT_FIRST + 9);
	assert_int_equal(send(app.fd, "hello", 5, 0), 5);
	spin(rig);
	assert_int_equal(conn->n_sent, 5);
	assert_memory_equal(conn->sent, "hello", 5);
	wire_sends(conn, "world!", 6);
	assert_app_reads(&app, "world!", 6);
	assert_int_equal(conn->taken, 6);

	shutdown(app.fd, SHUT_WR); /* half-close: the answer still comes */
	spin(rig);
	assert_true(conn->shut);
	wire_sends(conn, "more", 4);
	assert_app_reads(&app, "more", 4);
	assert_false(conn->closed);
	stack_says(conn, DMM_EV_EOF, 0);
	assert_app_eof(&app);
	assert_true(conn->closed);
	assert_false(conn->aborted);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_USED); /* TIME-WAIT */
	assert_int_equal(relay_active(rig->relay), 0);
	assert_int_equal(relay_closing(rig->relay), 1);
	stack_says(conn, DMM_EV_CLOSED, 0);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_FREE);
	close(app.fd);
}

static void bytes_go_both_ways_and_end_orderly(void **state)
{
	carry_both_ways_on(*state, AF_INET);
}

static void bytes_go_both_ways_over_ipv6(void **state)
{
	struct rig *rig = *state;

	if (rig->listeners[1] < 0)
		skip();
	carry_both_ways_on(rig, AF_INET6);
}

static void wire_eof_first_leaves_the_app_writing(void **state)
{
	struct rig *rig = *state;
	struct dmm_conn *conn;
	struct app app;

	conn = open_flow(rig, &app);
	memcpy(conn->received, "bye", 3);
	conn->n_received = 3;
	stack_says(conn, DMM_EV_READABLE | DMM_EV_EOF, 0);
	assert_app_reads(&app, "bye", 3);
	assert_app_eof(&app);
	assert_int_equal(send(app.fd, "last", 4, MSG_NOSIGNAL), 4);
	spin(rig);
	assert_memory_equal(conn->sent, "last", 4);
	assert_false(conn->shut);
	close(app.fd);
	spin(rig);
	assert_true(conn->shut && conn->closed);
	assert_false(conn->aborted);
}

static void app_bytes_before_its_fin_all_arrive(void **state)
{
	struct rig *rig = *state;
	uint8_t data[40000];
	struct dmm_conn *conn;
	struct app app;
	size_t i;

	for (i = 0; i < sizeof(data); i++)
		data[i] = i * 7 + (i >> 8);
	conn = open_flow(rig, &app);
	assert_int_equal(send(app.fd, data, sizeof(data), 0), sizeof(data));
	shutdown(app.fd, SHUT_WR);
	spin(rig);
	/* the stack is full: the rest waits in the socket, and nobody spins about it */
	assert_int_equal(conn->n_sent, WIRE_ROOM);
	assert_false(conn->shut);
	assert_int_equal(spin(rig), 0);
	for (i = 0; i < 20; i++)
		wire_acks(conn);
	assert_int_equal(conn->n_sent, sizeof(data));
	assert_memory_equal(conn->sent, data, sizeof(data));
	assert_true(conn->shut);
	close(app.fd);
}

static void app_that_does_not_read_closes_the_window(void **state)
{
	static uint8_t data[1 << 20], back[1 << 20];
	struct rig *rig = *state;
	struct dmm_conn *conn;
	size_t got = 0, i;
	struct app app;
	int small = 4096;

	for (i = 0; i < sizeof(data); i++)
		data[i] = i * 13 + (i >> 9);
	conn = open_flow(rig, &app);
	setsockopt(app.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	wire_sends(conn, data, sizeof(data));
	assert_true(conn->taken < sizeof(data) * 3 / 4);
	i = conn->taken;
	assert_int_equal(spin(rig), 0);
	assert_int_equal(conn->taken, i);
	while (got < sizeof(data)) {
		ssize_t n = recv(app.fd, back + got, sizeof(back) - got, MSG_DONTWAIT);

		if (n > 0)
			got += n;
		spin(rig);
	}
	assert_memory_equal(back, data, sizeof(data));
	close(app.fd);
}

static void urgent_bytes_do_not_stop_the_rest(void **state)
{
	struct rig *rig = *state;
	struct dmm_conn *conn;
	struct app app;

	conn = open_flow(rig, &app);
	assert_int_equal(send(app.fd, "before", 6, 0), 6);
	assert_int_equal(send(app.fd, "!", 1, MSG_OOB), 1);
	assert_int_equal(send(app.fd, "after", 5, 0), 5);
	spin(rig);
	assert_int_equal(conn->n_sent, 11);
	assert_memory_equal(conn->sent, "beforeafter", 11);
	close(app.fd);
}

/* --- resets --- */

static void reset_from_the_wire_resets_the_app(void **state)
{
	struct rig *rig = *state;
	struct dmm_conn *conn;
	struct app app;

	conn = open_flow(rig, &app);
	stack_says(conn, DMM_EV_ERROR, ECONNRESET);
	assert_app_reset(&app);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_FREE);
	assert_int_equal(rig->shared->flows_reset, 1);
	close(app.fd);
}

static void reset_from_the_app_resets_the_wire(void **state)
{
	struct rig *rig = *state;
	struct dmm_conn *conn;
	struct app app;

	conn = open_flow(rig, &app);
	reset_by_app(&app);
	spin(rig);
	assert_true(conn->aborted);
	assert_int_equal(*port_slot(rig, &app), DMM_PORT_FREE);
}

static void reset_is_seen_while_the_stack_is_full(void **state)
{
	static uint8_t data[20000];
	struct rig *rig = *state;
	struct dmm_conn *conn;
	struct app app;

	conn = open_flow(rig, &app);
	assert_int_equal(send(app.fd, data, sizeof(data), 0), sizeof(data));
	spin(rig);
	assert_int_equal(conn->space, 0);
	reset_by_app(&app);
	spin(rig);
	assert_true(conn->aborted);
	assert_int_equal(relay_active(rig->relay), 0);
}

static void dying_instance_shows_as_a_reset(void **state)
{
	struct rig *rig = *state;
	struct dmm_conn *conn;
	struct app app;

	conn = open_flow(rig, &app);
	wire_sends(conn, "part of", 7);
	stack_says(conn, DMM_EV_EOF, 0); /* half-closed: still no clean end */
	shutdown(app.fd, SHUT_WR);
	relay_reset_all(rig->relay);
	assert_app_reads(&app, "part of", 7);
	close(app.fd);

	conn = open_flow_on(rig, &app, AF_INET, PORT_FIRST + 6);
	relay_reset_all(rig->relay);
	assert_app_reset(&app);
	assert_true(conn->aborted);
	close(app.fd);
}

/* --- upkeep --- */

static void stale_claims_are_swept(void **state)
{
	struct rig *rig = *state;
	uint32_t now = dmm_clock_ns(CLOCK_MONOTONIC_COARSE) >> 20;

	rig->shared->port[0] = (now - DMM_PORT_CLAIM_MS - 100) | 2;
	rig->shared->port[1] = (now - 1000) | 2;
	rig->shared->port[2] = (now + 5000) | 2; /* the stamp's low bits are not the clock's */
	spin(rig);
	assert_int_equal(rig->shared->port[0], DMM_PORT_FREE);
	assert_int_not_equal(rig->shared->port[1], DMM_PORT_FREE);
	assert_int_not_equal(rig->shared->port[2], DMM_PORT_FREE);
}

static void no_descriptor_left_waits_without_spinning(void **state)
{
	struct rig *rig = *state;
	struct rlimit old, low;
	struct app app;

	app_bind(rig, &app, AF_INET, PORT_FIRST);
	syn_is_held(rig, &app);
	stack_says(rig->conns[0], DMM_EV_CONNECTED, 0);
	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = app.fd + 1;
	setrlimit(RLIMIT_NOFILE, &low);
	app_connects(rig, &app);
	assert_int_equal(rig->shared->flows_opened, 0);
	assert_int_equal(spin(rig), 0);
	setrlimit(RLIMIT_NOFILE, &old);
	rig->now += DMM_NS_PER_SEC;
	spin(rig);
	assert_int_equal(rig->shared->flows_opened, 1);
	close(app.fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, relay_rig_setup, relay_rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(held_syn_is_let_go_once_the_wire_stands),
		TEST(refused_is_told_as_rst),
		TEST(timed_out_is_not_told_and_a_new_syn_tries_again),
		TEST(stack_without_memory_tries_again_with_the_next_syn),
		TEST(no_route_is_told_as_icmp),
		TEST(icmp_error_ends_the_attempt_with_the_same_error),
		TEST(icmp_error_does_not_end_an_open_flow),
		TEST(lost_next_hop_ends_attempts_only),
		TEST(app_that_gives_up_ends_the_wire),
		TEST(injected_syn_that_nobody_answers_expires),
		TEST(port_reused_by_app_replaces_the_older_attempt),
		TEST(stranger_is_reset),
		TEST(nonsense_events_are_ignored),
		TEST(bytes_go_both_ways_and_end_orderly),
		TEST(bytes_go_both_ways_over_ipv6),
		TEST(wire_eof_first_leaves_the_app_writing),
		TEST(app_bytes_before_its_fin_all_arrive),
		TEST(app_that_does_not_read_closes_the_window),
		TEST(urgent_bytes_do_not_stop_the_rest),
		TEST(reset_from_the_wire_resets_the_app),
		TEST(reset_from_the_app_resets_the_wire),
		TEST(reset_is_seen_while_the_stack_is_full),
		TEST(dying_instance_shows_as_a_reset),
		TEST(stale_claims_are_swept),
		TEST(no_descriptor_left_waits_without_spinning),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
