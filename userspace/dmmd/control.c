/* SPDX-License-Identifier: Apache-2.0 */
/* Clients of the control socket. One request of a client at a time: while it is being answered, no
 * more is read from it. */
#define _GNU_SOURCE
#include "dmmd/control.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/unixsock.h"
#include "base/util.h"
#include "ctl/ctl.h"
#include "ctl/frame.h"
#include "ctl/json.h"
#include "dmmd/dmmd.h"
#include "dmmd/verbs.h"

#define MAX_CLIENTS 64
#define STUCK_NS    (30 * DMM_NS_PER_SEC)
#define OUTPUT_MAX  (96u << 20)
#define OUTPUT_ALL  (64u << 20) /* that clients leave unread; one answer may be more */

struct client {
	struct dmmd_source source;
	struct dmmd *d;
	uint64_t id;
	struct ucred peer;
	struct dmm_ctl_frame in;
	char *out;
	size_t out_len, out_sent;
	bool busy;	   /* a verb will answer */
	bool ending;	   /* closed once all is sent: EOF, or it broke the rules */
	uint64_t moved_at; /* last byte in or out */
};

struct dmmd_control {
	struct dmmd_source listener;
	struct dmmd *d;
	struct client *clients[MAX_CLIENTS];
	uint64_t next_id;
	int spare; /* given up to accept (and refuse) when descriptors run out */
};

static void work(struct client *client);

static void drop(struct client *client)
{
	struct dmmd_control *control = client->d->control;

	for (unsigned int i = 0; i < MAX_CLIENTS; i++)
		if (control->clients[i] == client)
			control->clients[i] = NULL;
	dmmd_source_remove(&client->d->loop, &client->source);
	dmm_ctl_frame_free(&client->in);
	free(client->out);
	free(client);
}

/* --- answers --- */

/* False: the client is gone. */
static bool send_some(struct client *client)
{
	while (client->out_sent < client->out_len) {
		ssize_t n = send(client->source.fd, client->out + client->out_sent,
				 client->out_len - client->out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN)
			return true;
		if (n < 0 && errno != EINTR) {
			drop(client);
			return false;
		}
		if (n > 0) {
			client->out_sent += n;
			client->moved_at = dmm_now_ns();
		}
	}
	free(client->out);
	client->out = NULL;
	client->out_len = client->out_sent = 0;
	return true;
}

static void queue_line(struct client *client, struct json_object *answer)
{
	size_t len;
	const char *text = json_object_to_json_string_length(
		answer, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);
	char *out = text && len < OUTPUT_MAX ? malloc(len + 1) : NULL;

	if (out) {
		memcpy(out, text, len);
		out[len] = '\n';
		client->out = out;
		client->out_len = len + 1;
		client->out_sent = 0;
	} else {
		client->ending = true; /* nothing it could be told */
	}
	json_object_put(answer);
}

static struct client *find(struct dmmd *d, uint64_t id)
{
	for (unsigned int i = 0; d->control && i < MAX_CLIENTS; i++)
		if (d->control->clients[i] && d->control->clients[i]->id == id)
			return d->control->clients[i];
	return NULL;
}

static void finish(struct dmmd *d, uint64_t id, const char *key, struct json_object *value)
{
	struct client *client = find(d, id);
	struct json_object *answer;

	if (!client || !client->busy) {
		json_object_put(value);
		return;
	}
	answer = json_object_new_object();
	dmm_json_set_bool(answer, "ok", dmm_streq(key, "result"));
	json_object_object_add(answer, key, value);
	client->busy = false;
	queue_line(client, answer);
	/* sent from the loop: the verb may still be on the stack of work() */
	dmmd_source_events(&d->loop, &client->source, EPOLLOUT);
}

void dmmd_answer(struct dmmd *d, uint64_t client, struct json_object *result)
{
	finish(d, client, "result", result);
}

void dmmd_refuse(struct dmmd *d, uint64_t client, struct json_object *error)
{
	finish(d, client, "error", error);
}

/* --- requests --- */

static void handle_line(struct client *client, const char *line, size_t len)
{
	struct json_object *request = dmm_json_parse(line, len);
	struct dmmd_call call = {
		.d = client->d,
		.client = client->id,
		.uid = client->peer.uid,
		.pid = client->peer.pid,
	};

	client->busy = true;
	if (request)
		dmmd_verb_run(&call, request);
	else
		dmmd_refuse(call.d, call.client,
			    dmm_json_error(-EBADMSG, 2, "{\"verb\": \"status\"}", NULL,
					   "a request is one JSON object on one line"));
	json_object_put(request);
}

/* The line has no end in sight, by its cap or for want of memory. */
static void refuse_line(struct client *client, int err)
{
	client->busy = true;
	client->ending = true;
	dmmd_refuse(client->d, client->id,
		    err == -EMSGSIZE
			    ? dmm_json_error(err, 2, NULL, NULL,
					     "the line is longer than %zu bytes", client->in.max)
			    : dmm_json_error(err, 1, NULL, NULL, "the line cannot be read"));
}

/* False: the client is gone. */
static bool read_some(struct client *client)
{
	size_t room;
	ssize_t n;
	char *to;
	int r = dmm_ctl_frame_room(&client->in, &to, &room);

	if (r < 0) {
		refuse_line(client, r);
		return true;
	}
	n = recv(client->source.fd, to, room, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n < 0) {
		drop(client);
		return false;
	}
	if (n == 0)
		client->ending = true;
	dmm_ctl_frame_got(&client->in, n);
	client->moved_at = dmm_now_ns();
	return true;
}

/* Handles what has come in as far as it goes; then waits for what must happen next. */
static void work(struct client *client)
{
	struct dmmd_loop *loop = &client->d->loop;
	size_t len;
	char *line;

	if (!client->busy && !client->out) {
		line = dmm_ctl_frame_next(&client->in, &len);
		if (line)
			handle_line(client, line, len);
	}
	if (client->busy) {
		dmmd_source_events(loop, &client->source, 0);
		return;
	}
	if (client->out) {
		dmmd_source_events(loop, &client->source, EPOLLOUT);
		return;
	}
	if (client->ending) {
		drop(client);
		return;
	}
	dmmd_source_events(loop, &client->source, EPOLLIN);
}

/* Clients that do not read must not fill the memory: those that have not moved for longest go. Before an event of
 * @keep is looked at: the work of no other client is under way then. */
static void bound_output(struct dmmd_control *control, const struct client *keep)
{
	for (;;) {
		struct client *oldest = NULL;
		size_t all = 0;

		for (unsigned int i = 0; i < MAX_CLIENTS; i++) {
			struct client *client = control->clients[i];

			if (!client || !client->out)
				continue;
			all += client->out_len;
			if (client != keep && (!oldest || client->moved_at < oldest->moved_at))
				oldest = client;
		}
		if (all <= OUTPUT_ALL || !oldest)
			return;
		drop(oldest);
	}
}

static void client_ready(struct dmmd_source *source, uint32_t events)
{
	struct client *client = dmmd_container(source, struct client, source);

	bound_output(client->d->control, client);
	if (client->busy) { /* only told of its end: nobody waits for the answer */
		if (events & (EPOLLHUP | EPOLLERR))
			drop(client);
		return;
	}
	if (client->out && !send_some(client))
		return;
	if (!client->out && (events & (EPOLLIN | EPOLLHUP)) && !client->ending &&
	    !read_some(client))
		return;
	work(client);
}

/* --- coming and going --- */

/* A place for one more, if need be that of the one that has not moved for longest: idle, or deaf to
 * its answers. Root's are the last to go. */
static struct client **find_place(struct dmmd_control *control)
{
	struct client **oldest = NULL;

	for (unsigned int i = 0; i < MAX_CLIENTS; i++) {
		struct client **place = &control->clients[i];
		bool worse;

		if (!*place)
			return place;
		if ((*place)->busy)
			continue;
		worse = !oldest || ((*oldest)->peer.uid == 0 && (*place)->peer.uid != 0) ||
			(((*oldest)->peer.uid == 0) == ((*place)->peer.uid == 0) &&
			 (*place)->moved_at < (*oldest)->moved_at);
		if (worse)
			oldest = place;
	}
	if (oldest)
		drop(*oldest);
	return oldest;
}

static void add_client(struct dmmd_control *control, int fd)
{
	struct client **place = find_place(control);
	struct client *client = place ? calloc(1, sizeof(*client)) : NULL;
	socklen_t len = sizeof(client->peer);

	if (!client) {
		close(fd);
		return;
	}
	client->d = control->d;
	client->id = ++control->next_id;
	client->moved_at = dmm_now_ns();
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &client->peer, &len) < 0 ||
	    dmmd_source_add(&control->d->loop, &client->source, fd, EPOLLIN, client_ready) < 0) {
		close(fd);
		free(client);
		return;
	}
	dmm_ctl_frame_init(&client->in, client->peer.uid == 0 ? DMM_CTL_LINE_MAX
							      : DMM_CTL_LINE_MAX_UNPRIVILEGED);
	*place = client;
}

/* Out of descriptors: accept one on the spare to send it away, else the loop would spin. */
static void refuse_client(struct dmmd_control *control)
{
	int fd;

	close(control->spare);
	fd = accept4(control->listener.fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd >= 0)
		close(fd);
	control->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	dmm_warning("out of file descriptors: a control client was sent away");
}

static void listener_ready(struct dmmd_source *source, uint32_t events)
{
	struct dmmd_control *control = dmmd_container(source, struct dmmd_control, listener);
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd >= 0)
		add_client(control, fd);
	else if (errno == EMFILE || errno == ENFILE)
		refuse_client(control);
}

/* Made as the group's: so it is never open to a wrong one, and CAP_CHOWN is not needed. */
static int listen_for_group(const char *path, gid_t gid, int *ret_fd)
{
	dmm_autoclose int fd = -1;
	struct stat st;
	int r;

	setfsgid(gid);
	r = dmm_unix_listen(path, SOCK_STREAM | SOCK_NONBLOCK, 0660, &fd);
	setfsgid(getegid());
	if (r < 0)
		return r;
	if (stat(path, &st) < 0)
		return -errno;
	if (st.st_gid != gid)
		return -EPERM;
	*ret_fd = DMM_TAKE_FD(fd);
	return 0;
}

int dmmd_control_init(struct dmmd *d)
{
	struct dmmd_options *o = &d->options;
	bool shared = o->socket_gid != (gid_t)-1;
	struct dmmd_control *control;
	dmm_autoclose int fd = -1;
	char path[PATH_MAX];
	int r;

	if (snprintf(path, sizeof(path), "%s/dmmd.sock", o->run_dir) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	r = shared ? listen_for_group(path, o->socket_gid, &fd)
		   : dmm_unix_listen(path, SOCK_STREAM | SOCK_NONBLOCK, 0600, &fd);
	if (r < 0)
		return dmm_err(r, "%s%s%s", path, shared ? " for group " : "",
			       shared ? o->group : "");
	control = calloc(1, sizeof(*control));
	if (!control)
		return -ENOMEM;
	control->d = d;
	control->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	r = dmmd_source_add(&d->loop, &control->listener, fd, EPOLLIN, listener_ready);
	if (r < 0) {
		free(control);
		return r;
	}
	fd = -1;
	d->control = control;
	return 0;
}

void dmmd_control_exit(struct dmmd *d)
{
	struct dmmd_control *control = d->control;
	char path[PATH_MAX];

	for (unsigned int i = 0; i < MAX_CLIENTS; i++)
		if (control->clients[i])
			drop(control->clients[i]);
	dmmd_source_remove(&d->loop, &control->listener);
	if (control->spare >= 0)
		close(control->spare);
	if (snprintf(path, sizeof(path), "%s/dmmd.sock", d->options.run_dir) < (int)sizeof(path))
		unlink(path);
	free(control);
	d->control = NULL;
}

void dmmd_control_tick(struct dmmd *d)
{
	uint64_t now = dmm_now_ns();

	for (unsigned int i = 0; i < MAX_CLIENTS; i++) {
		struct client *client = d->control->clients[i];

		if (!client || client->busy || now - client->moved_at < STUCK_NS)
			continue;
		if (client->out || dmm_ctl_frame_pending(&client->in))
			drop(client);
	}
}
