/* SPDX-License-Identifier: Apache-2.0 */
/* vs_epoll: a server that sends messages back, with a thread and an edge-triggered epoll for each
 * connection. */
#include "lib/apps.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

static enum app_echo_says wait_and_run(int epoll, struct app_echo *echo, struct app_meter *meter)
{
	const unsigned int wait_s = meter->options->wait_s;
	struct epoll_event event;
	int n = epoll_wait(epoll, &event, 1, wait_s ? (int)wait_s * 1000 : -1);

	if (n < 0 && errno == EINTR)
		return APP_ECHO_READ;
	if (n <= 0) {
		errno = n ? errno : ETIMEDOUT;
		return APP_ECHO_ERROR;
	}
	return app_echo_run(echo, meter);
}

static int serve(int fd, struct app_meter *meter)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET };
	int epoll = epoll_create1(EPOLL_CLOEXEC), err = 0;
	enum app_echo_says says = APP_ECHO_READ;
	struct app_echo echo;

	app_echo_open(&echo, fd, meter->options->length);
	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		says = APP_ECHO_ERROR;
	while (says == APP_ECHO_READ || says == APP_ECHO_WRITE)
		says = wait_and_run(epoll, &echo, meter);
	if (says == APP_ECHO_ERROR)
		err = -errno;
	if (epoll >= 0)
		close(epoll);
	app_echo_close(&echo);
	return err;
}

int main(int argc, char **argv)
{
	return app_serve_by_threads(argc, argv, "sends messages back: edge-triggered epoll", serve);
}
