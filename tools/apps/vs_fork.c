/* SPDX-License-Identifier: Apache-2.0 */
/* vs_fork: a server with a process for each connection. Sends strings of 50 bytes back; "#exit" ends
 * the connection. */
#include "lib/apps.h"

#include <errno.h>
#include <string.h>

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

int main(int argc, char **argv)
{
	struct app_options o;

	app_options_read(argc, argv, "sends strings back: a process for each connection", false,
			 &o);
	if (o.client_port) /* FD.io DMM's said with -a where it listens */
		app_addr_set_port(&o.own, o.client_port);
	return app_serve_by_processes(app_listen(&o.own), o.accepts, o.wait_s, serve);
}
