/* SPDX-License-Identifier: Apache-2.0 */
/* The server's side of a connection that never blocks: whole messages are sent back. */
#include "apps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

void app_echo_open(struct app_echo *echo, int fd, size_t length)
{
	*echo = (struct app_echo){ .fd = fd, .message = malloc(length), .length = length };
	if (!echo->message)
		app_fail("memory", ENOMEM);
	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		app_fail("fcntl", errno);
}

enum app_echo_says app_echo_run(struct app_echo *echo, struct app_meter *meter)
{
	for (;;) {
		const bool reads = echo->have < echo->length;
		size_t *done = reads ? &echo->have : &echo->sent;
		ssize_t n = reads ? read(echo->fd, echo->message + *done, echo->length - *done)
				  : send(echo->fd, echo->message + *done, echo->length - *done,
					 MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return reads ? APP_ECHO_READ : APP_ECHO_WRITE;
		if (n < 0)
			return APP_ECHO_ERROR;
		if (n == 0) {
			errno = EPIPE; /* in the middle of a message */
			return echo->have ? APP_ECHO_ERROR : APP_ECHO_END;
		}
		*done += n;
		if (echo->sent < echo->length)
			continue;
		app_meter_count(meter);
		echo->have = echo->sent = 0;
	}
}

void app_echo_close(struct app_echo *echo)
{
	close(echo->fd);
	free(echo->message);
}
