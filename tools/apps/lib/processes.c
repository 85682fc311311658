/* SPDX-License-Identifier: Apache-2.0 */
/* A server with a process for each connection. */
#include "apps.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void serve_in_child(int listener, unsigned int wait_s, int (*serve)(int fd))
{
	int fd = app_accept(listener), r;
	pid_t child = fork();

	if (child < 0)
		app_fail("fork", errno);
	if (child == 0) {
		close(listener);
		app_set_patience(fd, wait_s);
		r = serve(fd);
		if (r < 0)
			app_fail("a connection", r);
		exit(0);
	}
	close(fd);
}

/* The children that have ended by now, or all; true where one of them ended badly. */
static bool reap(bool all)
{
	bool failed = false;
	int status;

	for (;;) {
		pid_t child = waitpid(-1, &status, all ? 0 : WNOHANG);

		if (child < 0 && errno == EINTR)
			continue;
		if (child <= 0)
			return failed;
		failed |= status != 0;
	}
}

int app_serve_by_processes(int listener, unsigned int accepts, unsigned int wait_s,
			   int (*serve)(int fd))
{
	bool failed = false;

	for (unsigned int i = 0; !accepts || i < accepts; i++) {
		serve_in_child(listener, wait_s, serve);
		failed |= reap(false);
	}
	close(listener);
	return failed | reap(true);
}
