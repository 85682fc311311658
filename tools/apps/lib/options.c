/* SPDX-License-Identifier: Apache-2.0 */
/* The flags of FD.io DMM's sample programs, with what they were documented to mean. */
#include "apps.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_PORT 12345
#define FLAGS	     "p:d:s:a:l:t:i:f:r:n:w:u:e:x:"

static const char help[] =
	"  -d ADDRESS  the server's                    (client)\n"
	"  -p PORT     the server's                    (client, 12345)\n"
	"  -s ADDRESS  our own: the client is bound to it, the server listens there (any)\n"
	"  -r PORT     where the server listens        (12345)\n"
	"  -a PORT     connection i is bound to PORT + i (any); vs_fork: as -r\n"
	"  -l BYTES    of a message                    (256)\n"
	"  -t COUNT    messages for each connection    (1000)\n"
	"  -f COUNT    connections of the client       (1)\n"
	"  -n COUNT    connections that the server takes, then it ends (256)\n"
	"  -i US       microseconds of sleep ...       (1000000)\n"
	"  -e COUNT    ... after so many messages      (10000; 0: never)\n"
	"  -u COUNT    say so after so many messages   (0: at the end only)\n"
	"  -x 1        say the time between two messages, too\n"
	"  -w SECONDS  longest wait: for the server and its answers, for a client's next message\n"
	"              (0: not for the server, for ever for the rest)\n";

static void usage(FILE *to, const char *program, const char *what, bool is_client)
{
	fprintf(to, "%s: %s\nusage: %s %s[FLAGS]\n%s", program, what, program,
		is_client ? "-d ADDRESS " : "", help);
}

/* What a flag's value is read into. */
struct given {
	const char *dest, *own;
	unsigned long port, listen_port, client_port, say_interval;
};

/* @flag: "-t ", or "" for an argument */
static unsigned long read_number(const char *flag, const char *text, unsigned long least,
				 unsigned long most)
{
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (errno || !*text || *text == '-' || *end || n < least || n > most) {
		fprintf(stderr, "error: %s%s: not a number from %lu to %lu\n", flag, text, least,
			most);
		exit(2);
	}
	return n;
}

static unsigned long number(char flag, const char *text, unsigned long least, unsigned long most)
{
	return read_number((char[]){ '-', flag, ' ', '\0' }, text, least, most);
}

uint16_t app_port_read(const char *text)
{
	return read_number("", text, 1, 65535);
}

unsigned int app_count_read(const char *text)
{
	return read_number("", text, 0, 0xffffffff);
}

static void read_flag(int flag, const char *value, struct app_options *o, struct given *given)
{
	const unsigned long any = 0xffffffff, port = 65535;

	switch (flag) {
	case 'd':
		given->dest = value;
		break;
	case 's':
		given->own = value;
		break;
	case 'p':
		given->port = number(flag, value, 1, port);
		break;
	case 'r':
		given->listen_port = number(flag, value, 1, port);
		break;
	case 'a':
		o->client_port = number(flag, value, 0, port);
		break;
	case 'l':
		o->length = number(flag, value, 1, 1 << 30);
		break;
	case 't':
		o->messages = number(flag, value, 0, any);
		break;
	case 'f':
		o->fds = number(flag, value, 1, 65535);
		break;
	case 'n':
		o->accepts = number(flag, value, 1, any);
		break;
	case 'i':
		o->sleep_us = number(flag, value, 0, any);
		break;
	case 'e':
		o->sleep_every = number(flag, value, 0, any);
		break;
	case 'u':
		o->say_every = number(flag, value, 0, any);
		break;
	case 'x':
		o->say_interval = number(flag, value, 0, 1);
		break;
	case 'w':
		o->wait_s = number(flag, value, 0, APP_MAX_WAIT_S);
		break;
	}
}

static void need_addr(char flag, const char *text, unsigned long port, union app_addr *ret)
{
	if (text && !app_addr_read(text, port, ret)) {
		fprintf(stderr, "error: -%c %s: not an IPv4 or IPv6 address\n", flag, text);
		exit(2);
	}
}

void app_options_read(int argc, char **argv, const char *what, bool is_client,
		      struct app_options *ret)
{
	static const struct option words[] = { { "help", no_argument, NULL, 'h' }, { 0 } };
	struct given given = { .port = DEFAULT_PORT, .listen_port = DEFAULT_PORT };
	int flag;

	*ret = (struct app_options){ .length = 256,
				     .messages = 1000,
				     .fds = 1,
				     .accepts = 256,
				     .sleep_us = 1000000,
				     .sleep_every = 10000 };
	while ((flag = getopt_long(argc, argv, FLAGS, words, NULL)) != -1) {
		if (flag == '?')
			exit(2); /* getopt_long() has said why */
		if (flag == 'h') {
			usage(stdout, argv[0], what, is_client);
			exit(0);
		}
		read_flag(flag, optarg, ret, &given);
	}
	if (optind < argc || (is_client && !given.dest)) {
		usage(stderr, argv[0], what, is_client);
		exit(2);
	}
	if (is_client && ret->client_port && ret->client_port + ret->fds - 1 > 65535) {
		fprintf(stderr, "error: -a %u -f %u: the last port would be over 65535\n",
			ret->client_port, ret->fds);
		exit(2);
	}
	app_addr_any(is_client ? 0 : given.listen_port, &ret->own);
	need_addr('d', given.dest, given.port, &ret->dest);
	need_addr('s', given.own, is_client ? 0 : given.listen_port, &ret->own);
}

void app_usage(int argc, char **argv, bool right, const char *text)
{
	const bool asked = argc == 2 && strcmp(argv[1], "--help") == 0;

	if (right && !asked)
		return;
	fprintf(asked ? stdout : stderr, "usage: %s %s", argv[0], text);
	exit(asked ? 0 : 2);
}
