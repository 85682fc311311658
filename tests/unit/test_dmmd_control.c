/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket, served by a real loop in a child process; the verbs that need no kernel object. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/unixsock.h"
#include "base/util.h"
#include "ctl/ctl.h"
#include "ctl/json.h"
#include "dmmd/control.h"
#include "dmmd/dmmd.h"

static char dir[PATH_MAX], path[PATH_MAX + 16];
static pid_t server;

static void serve(void)
{
	static struct dmmd d;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	d.options.run_dir = dir;
	d.options.socket_gid = (gid_t)-1;
	if (dmmd_loop_init(&d.loop) == 0 && dmmd_control_init(&d) == 0)
		dmmd_loop_run(&d.loop);
	_exit(1);
}

static int start_server(void **state)
{
	int fd = -1;

	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/dmm-test-control-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/dmmd.sock", dir);
	server = fork();
	if (server == 0)
		serve();
	while (dmm_unix_connect(path, SOCK_STREAM, &fd) < 0) {
		if (waitpid(server, NULL, WNOHANG) != 0)
			return -1;
		usleep(1000);
	}
	close(fd);
	return 0;
}

static int stop_server(void **state)
{
	(void)state;
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	unlink(path);
	return rmdir(dir);
}

static int dial(void)
{
	int fd;

	assert_int_equal(dmm_unix_connect(path, SOCK_STREAM, &fd), 0);
	return fd;
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Reads until @lines newlines or the end; returns how many there were. */
static int hear(int fd, int lines, char *buf, size_t size)
{
	size_t n = 0;
	int seen = 0;

	while (seen < lines && n + 1 < size) {
		struct pollfd pfd = { .fd = fd, .events = POLLIN };
		ssize_t got;

		if (poll(&pfd, 1, 5000) != 1)
			break;
		got = recv(fd, buf + n, size - n - 1, 0);
		if (got <= 0)
			break;
		for (ssize_t i = 0; i < got; i++)
			seen += buf[n + i] == '\n';
		n += got;
	}
	buf[n] = '\0';
	return seen;
}

static void a_request_in_pieces_is_one_request(void **state)
{
	int fd = dial();
	char buf[4096];

	(void)state;
	for (const char *p = "{\"verb\": \"ping\"}\n"; *p; p++) {
		char byte[2] = { *p, '\0' };

		say(fd, byte);
		usleep(500);
	}
	assert_int_equal(hear(fd, 1, buf, sizeof(buf)), 1);
	assert_non_null(strstr(buf, "\"ok\":true"));
	assert_non_null(strstr(buf, "\"kind\":\"VersionInfo\""));
	close(fd);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
	int fd = dial();
	char buf[8192];

	(void)state;
	say(fd,
	    "{\"verb\": \"ping\"}\nrubbish\n{\"verb\": \"nonsense\"}\n{\"verb\": \"version\"}\n");
	shutdown(fd, SHUT_WR); /* as socat does: answers come all the same */
	assert_int_equal(hear(fd, 5, buf, sizeof(buf)), 4);
	char *second = strchr(buf, '\n') + 1, *third = strchr(second, '\n') + 1;
	char *fourth = strchr(third, '\n') + 1;

	assert_non_null(strstr(buf, "VersionInfo"));
	assert_true(strstr(second, "EBADMSG") && strstr(second, "EBADMSG") < third);
	assert_true(strstr(third, "unknown verb 'nonsense'") < fourth);
	assert_non_null(strstr(fourth, "VersionInfo"));
	close(fd);
}

static void an_endless_line_ends_the_connection(void **state)
{
	size_t max = getuid() == 0 ? DMM_CTL_LINE_MAX : DMM_CTL_LINE_MAX_UNPRIVILEGED;
	char block[4096], buf[4096];
	int fd = dial(), other = dial();
	size_t sent = 0;

	(void)state;
	memset(block, 'x', sizeof(block));
	while (sent <= max + sizeof(block)) {
		ssize_t n = send(fd, block, sizeof(block), MSG_NOSIGNAL);

		if (n < 0)
			break;
		sent += n;
	}
	assert_int_equal(hear(fd, 1, buf, sizeof(buf)), 1);
	assert_non_null(strstr(buf, "EMSGSIZE"));
	assert_int_equal(hear(fd, 1, buf, sizeof(buf)), 0);
	say(other, "{\"verb\": \"ping\"}\n");
	assert_int_equal(hear(other, 1, buf, sizeof(buf)), 1);
	close(fd);
	close(other);
}

static void idle_clients_do_not_keep_others_out(void **state)
{
	int fds[100], fd;
	char buf[4096];

	(void)state;
	for (size_t i = 0; i < DMM_ARRAY_SIZE(fds); i++)
		fds[i] = dial();
	fd = dial();
	say(fd, "{\"verb\": \"ping\"}\n");
	assert_int_equal(hear(fd, 1, buf, sizeof(buf)), 1);
	close(fd);
	for (size_t i = 0; i < DMM_ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

static void who_does_not_read_blocks_nobody(void **state)
{
	int deaf = dial(), fd = dial();
	char buf[4096];

	(void)state;
	for (int i = 0; i < 4000; i++)
		if (send(deaf, "{\"verb\": \"ping\"}\n", 17, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break;
	say(fd, "{\"verb\": \"ping\"}\n");
	assert_int_equal(hear(fd, 1, buf, sizeof(buf)), 1);
	close(fd);
	close(deaf);
}

static void the_client_library_tells_results_from_errors(void **state)
{
	struct json_object *result = NULL, *error = NULL;

	(void)state;
	assert_int_equal(dmm_ctl_call(path, "version", NULL, 5000, &result, &error), 0);
	assert_non_null(dmm_json_text(result, "version"));
	json_object_put(result);
	result = NULL;
	assert_int_equal(dmm_ctl_call(path, "nonsense", NULL, 5000, &result, &error), -EREMOTEIO);
	assert_null(result);
	assert_string_equal(dmm_json_text(error, "errno"), "EINVAL");
	json_object_put(error);
	assert_int_equal(dmm_ctl_call("/nonexistent/x", "ping", NULL, 5000, &result, &error),
			 -ENOENT);
	kill(server, SIGSTOP);
	assert_int_equal(dmm_ctl_call(path, "ping", NULL, 50, &result, &error), -ETIMEDOUT);
	kill(server, SIGCONT);
}

static void only_root_may_change_things(void **state)
{
	struct json_object *result = NULL, *error = NULL;

	(void)state;
	assert_int_equal(dmm_ctl_call(path, "apply", NULL, 5000, &result, &error), -EREMOTEIO);
	/* root gets as far as the missing policy */
	assert_string_equal(dmm_json_text(error, "errno"), getuid() == 0 ? "EINVAL" : "EPERM");
	json_object_put(error);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_in_pieces_is_one_request),
		cmocka_unit_test(pipelined_requests_are_answered_in_order),
		cmocka_unit_test(an_endless_line_ends_the_connection),
		cmocka_unit_test(idle_clients_do_not_keep_others_out),
		cmocka_unit_test(who_does_not_read_blocks_nobody),
		cmocka_unit_test(the_client_library_tells_results_from_errors),
		cmocka_unit_test(only_root_may_change_things),
	};

	return cmocka_run_group_tests(tests, start_server, stop_server);
}
