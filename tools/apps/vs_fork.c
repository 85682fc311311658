/* SPDX-License-Identifier: Apache-2.0 */
/* vs_fork: a server with a process for each connection. Sends strings of 50 bytes back; "#exit" ends
 * the connection. */
#include "lib/apps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define STRING 50

static int serve(int fd)
{
	char string[STRING];
	int r;

	while ((r = app_read(fd, string, sizeof(string))) > 0) {
		if (strncmp(string, "#exit", sizeof(string)) == 0)
			return 0;
		r = app_write(fd, string, sizeof(string));
		if (r < 0)
			return r;
	}
	return r < 0 ? r : -EPIPE; /* it did not say "#exit" */
}

static void serve_in_child(int listener)
{
	int fd = app_accept(listener), r;
	pid_t child = fork();

	if (child < 0)
		app_fail("fork", errno);
	if (child == 0) {
		close(listener);
		r = serve(fd);
		if (r < 0)
			app_fail("a connection", r);
		exit(0);
	}
	close(fd);
}

int main(int argc, char **argv)
{
	struct app_options o;
	int listener, status, failed = 0;

	app_options_read(argc, argv, "sends strings back: a process for each connection", false,
			 &o);
	listener = app_listen(&o.own);
	for (unsigned int i = 0; i < o.accepts; i++)
		serve_in_child(listener);
	close(listener);
	for (unsigned int i = 0; i < o.accepts; i++)
		failed |= wait(&status) < 0 || status != 0;
	return failed;
}
