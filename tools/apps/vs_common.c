/* SPDX-License-Identifier: Apache-2.0 */
/* vs_common: a server that sends messages back, with blocking reads and a thread for each connection. */
#include "lib/apps.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int serve(int fd, struct app_meter *meter)
{
	const size_t length = meter->options->length;
	char *message = malloc(length);
	int r = message ? 1 : -ENOMEM;

	app_set_patience(fd, meter->options->wait_s);
	while (r > 0 && (r = app_read(fd, message, length)) > 0) {
		r = app_write(fd, message, length);
		if (r == 0) {
			app_meter_count(meter);
			r = 1;
		}
	}
	free(message);
	close(fd);
	return r;
}

int main(int argc, char **argv)
{
	return app_serve_by_threads(argc, argv, "sends messages back: blocking reads", serve);
}
