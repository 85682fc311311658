/* SPDX-License-Identifier: Apache-2.0 */
/* The client side of the control protocol. */
#include "ctl/ctl.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/unixsock.h"
#include "base/util.h"
#include "ctl/frame.h"
#include "ctl/json.h"

/* Waits for @events until @deadline (monotonic ns, 0: for ever). */
static int wait_for(int fd, short events, uint64_t deadline)
{
	struct pollfd pfd = { .fd = fd, .events = events };
	int timeout = -1, r;

	do {
		if (deadline) {
			uint64_t now = dmm_now_ns();

			timeout = now >= deadline ? 0 : (deadline - now) / DMM_NS_PER_MS + 1;
		}
		r = poll(&pfd, 1, timeout);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	return r == 0 ? -ETIMEDOUT : 0;
}

static int send_all(int fd, const char *data, size_t len, uint64_t deadline)
{
	while (len > 0) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN) {
			int r = wait_for(fd, POLLOUT, deadline);

			if (r < 0)
				return r;
			continue;
		}
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			data += n;
			len -= n;
		}
	}
	return 0;
}

static int receive_line(int fd, struct dmm_ctl_frame *frame, uint64_t deadline, char **ret,
			size_t *ret_len)
{
	for (;;) {
		size_t room;
		ssize_t n;
		char *to;
		int r;

		*ret = dmm_ctl_frame_next(frame, ret_len);
		if (*ret)
			return 0;
		r = wait_for(fd, POLLIN, deadline);
		if (r == 0)
			r = dmm_ctl_frame_room(frame, &to, &room);
		if (r < 0)
			return r;
		n = recv(fd, to, room, MSG_DONTWAIT);
		if (n == 0)
			return -ECONNRESET;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n > 0)
			dmm_ctl_frame_got(frame, n);
	}
}

static int take_answer(const char *line, size_t len, struct json_object **ret_result,
		       struct json_object **reterr_error)
{
	struct json_object *answer = dmm_json_parse(line, len);
	struct json_object *part;
	bool ok = dmm_json_bool(answer, "ok");
	int r = -EPROTO;

	part = dmm_json_object(answer, ok ? "result" : "error");
	if (part) {
		*(ok ? ret_result : reterr_error) = json_object_get(part);
		r = ok ? 0 : -EREMOTEIO;
	}
	json_object_put(answer);
	return r;
}

static int exchange(int fd, struct json_object *request, uint64_t deadline,
		    struct json_object **ret_result, struct json_object **reterr_error)
{
	struct dmm_ctl_frame frame;
	size_t len;
	char *line;
	const char *text = json_object_to_json_string_length(
		request, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);
	int r, sent;

	if (!text)
		return -ENOMEM;
	sent = send_all(fd, text, len, deadline);
	if (sent == 0)
		sent = send_all(fd, "\n", 1, deadline);
	/* a daemon that refuses an over-long line says so before it hangs up: look for its answer */
	if (sent < 0 && sent != -EPIPE && sent != -ECONNRESET)
		return sent;
	dmm_ctl_frame_init(&frame, DMM_CTL_LINE_MAX);
	r = receive_line(fd, &frame, deadline, &line, &len);
	if (r == 0)
		r = take_answer(line, len, ret_result, reterr_error);
	dmm_ctl_frame_free(&frame);
	return r < 0 && r != -EREMOTEIO && sent < 0 ? sent : r;
}

int dmm_ctl_call(const char *socket_path, const char *verb, struct json_object *args,
		 int timeout_ms, struct json_object **ret_result, struct json_object **reterr_error)
{
	uint64_t deadline = timeout_ms < 0 ? 0 : dmm_now_ns() + timeout_ms * DMM_NS_PER_MS;
	struct json_object *request;
	dmm_autoclose int fd = -1;
	int r = dmm_unix_connect(socket_path, SOCK_STREAM, &fd);

	if (r < 0)
		return r;
	request = json_object_new_object();
	if (!request)
		return -ENOMEM;
	dmm_json_set_text(request, "verb", verb);
	if (args)
		json_object_object_add(request, "args", json_object_get(args));
	r = exchange(fd, request, deadline, ret_result, reterr_error);
	json_object_put(request);
	return r;
}
