/* SPDX-License-Identifier: Apache-2.0 */
/* What the sample programs share. They are plain sockets programs, of both IP versions: they know
 * nothing of DMM, and whatever stack carries them, they must come to the same end. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* An address and its port. Family 0: any address of both IP versions. */
union app_addr {
	struct sockaddr_storage any;
	struct sockaddr sa;
};

/* --- options.c: the flags of FD.io DMM's vs_* and vc_common --- */

struct app_options {
	union app_addr dest, own; /* -d, -s: with the ports of -p, -r */
	uint16_t client_port;	  /* -a: connection i is bound to this + i; 0: any */
	size_t length;		  /* -l: bytes of a message */
	uint64_t messages;	  /* -t: for each connection */
	unsigned int fds;	  /* -f: connections of the client */
	unsigned int accepts;	  /* -n: connections that the server takes, then it ends */
	unsigned int sleep_us;	  /* -i: taken ... */
	uint64_t sleep_every;	  /* -e: ... every so many messages; 0: never */
	uint64_t say_every;	  /* -u: messages; 0: say nothing before the end */
	bool say_interval;	  /* -x */
	unsigned int wait_s;	  /* -w: longest wait for the other side; 0: for ever */
};

#define APP_MAX_WAIT_S 1000000u /* fits an int of milliseconds */

/* Reads the command line; ends the program where it is wrong or asks for help. */
void app_options_read(int argc, char **argv, const char *what, bool is_client,
		      struct app_options *ret);
/* For programs without flags: ends the program with "usage: PROGRAM @text" where "--help" asks for it
 * (0), or where the command line is not @right (2). */
void app_usage(int argc, char **argv, bool right, const char *text);
/* Arguments that are a port, a number of connections; end the program where they are not. */
uint16_t app_port_read(const char *text);
unsigned int app_count_read(const char *text);
#define APP_FILE_WAIT_S 60u /* the file pair's patience */

/* --- net.c: every program's socket comes from here, and with it SIGPIPE is ignored --- */

/* False: @text is no address, IPv4 or IPv6. */
bool app_addr_read(const char *text, uint16_t port, union app_addr *ret);
/* Any address's @port. */
void app_addr_any(uint16_t port, union app_addr *ret);
/* A socket that listens; ends the program where there can be none. */
int app_listen(const union app_addr *addr);
/* Connected, with a patience of @wait_s, or negative errno. @from without address and port: from
 * wherever. */
int app_connect(const union app_addr *to, const union app_addr *from, unsigned int wait_s);
/* Connection @i of a client; within -w it waits until the server listens. Ends the program where there
 * can be none. */
int app_connect_client(const struct app_options *options, unsigned int i);
void app_addr_set_port(union app_addr *addr, uint16_t port);
/* accept(), through interruptions; -EAGAIN where @listener does not block and nobody is there. Ends the
 * program on other errors. */
int app_accept(int listener);
/* Reads and writes of @fd give up after so long; 0: never. */
void app_set_patience(int fd, unsigned int seconds);

/* 1: all @len bytes; 0: the other side ended before the first of them; negative errno, -EPIPE where it
 * ended in between. */
int app_read(int fd, void *buf, size_t len);
/* 0 or negative errno; of a socket or a file. */
int app_write(int fd, const void *buf, size_t len);

/* "error: WHAT: errno's text" on stderr; ends the program with 1. */
void app_fail(const char *what, int err) __attribute__((noreturn));

/* --- meter.c --- */

/* Counts messages; says how it goes, and sleeps, as the options want. Several threads may share one. */
struct app_meter {
	const struct app_options *options;
	uint64_t n, begin_ns, last_ns;
};

void app_meter_open(struct app_meter *meter, const struct app_options *options);
void app_meter_count(struct app_meter *meter);
/* "WHAT N messages ..." */
void app_meter_end(const struct app_meter *meter, const char *what, unsigned int connections);

/* --- echo.c: the server's side of a connection that never blocks --- */

struct app_echo {
	int fd;
	char *message;
	size_t length, have, sent;
};

enum app_echo_says { APP_ECHO_READ, APP_ECHO_WRITE, APP_ECHO_END, APP_ECHO_ERROR };

/* Takes over @fd; ends the program without memory. */
void app_echo_open(struct app_echo *echo, int fd, size_t length);
/* Goes on as far as it gets: what it waits for now, or how it ended (errno is set). */
enum app_echo_says app_echo_run(struct app_echo *echo, struct app_meter *meter);
void app_echo_close(struct app_echo *echo);

/* --- threads.c: main() of a server with a thread for each connection --- */

/* Serves one connection, and closes it: 0, negative errno where it ended badly. */
typedef int (*app_serve_fn)(int fd, struct app_meter *meter);

int app_serve_by_threads(int argc, char **argv, const char *what, app_serve_fn serve);

/* --- processes.c: a server with a process for each connection --- */

/* Takes @accepts connections (0: for ever); each child ends with 1 where @serve gave negative errno.
 * Waits for them, closes @listener: 0, or 1 where a child ended badly. */
int app_serve_by_processes(int listener, unsigned int accepts, unsigned int wait_s,
			   int (*serve)(int fd));
