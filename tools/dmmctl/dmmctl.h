/* SPDX-License-Identifier: Apache-2.0 */
/* dmmctl's own back room: commands and options are data (main.c, options.c), each command family has
 * a file. stdout carries data only; what a command has to say besides goes to stderr. */
#pragma once

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <dmm/abi/types.h>

#include "base/util.h"
#include "ctl/json.h"

/* What dmmctl exits with; listed in dmmctl(8). */
enum exit_code {
	CTL_OK = 0,
	CTL_FAILED = 1, /* also: doctor found errors */
	CTL_USAGE = 2,
	CTL_UNREACHABLE = 3, /* no dmmd answers */
	CTL_NOT_PERMITTED = 4,
	CTL_BAD_POLICY = 5, /* check, apply */
};

/* X(id, long name, letter, argument or NULL, help); the first of them hold for every command. */
#define CTL_OPTIONS(X)                                                                             \
	X(OUTPUT, "output", 'o', "FORMAT", "table, json, jsonl or yaml")                           \
	X(JSON, "json", 'j', NULL, "the same as -o json")                                          \
	X(PRETTY, "pretty", 'p', NULL, "indent JSON")                                              \
	X(SOCKET, "socket", 0, "PATH", "dmmd's control socket")                                    \
	X(RUN_DIR, "run-dir", 0, "DIR", "dmmd's run directory (/run/dmm)")                         \
	X(STATE_DIR, "state-dir", 0, "DIR", "dmmd's state directory; accepted as dmmd does")       \
	X(BPFFS, "bpffs", 0, "DIR", "directory of the pins (/sys/fs/bpf/dmm)")                     \
	X(CGROUP_ROOT, "cgroup-root", 0, "DIR", "what cgroup paths start from")                    \
	X(NETNS, "netns", 0, "NAME", "act in this network namespace")                              \
	X(TIMEOUT, "timeout", 0, "SECONDS", "how long to wait for dmmd (30)")                      \
	X(QUIET, "quiet", 'q', NULL, "say nothing but data and errors")                            \
	X(VERBOSE, "verbose", 'v', NULL, "say more; twice: still more")                            \
	X(NO_COLOR, "no-color", 0, NULL, "no colours, as with NO_COLOR=1")                         \
	X(VERSION, "version", 'V', NULL, "the same as the command version")                        \
	X(HELP, "help", 'h', NULL, "help on the command")                                          \
	X(CGROUP, "cgroup", 'c', "PATH", "a cgroup, below the cgroup root or as a full path")      \
	X(PID, "pid", 0, "PID", "a process")                                                       \
	X(UID, "uid", 'u', "UID", "a user's number (0)")                                           \
	X(COMM, "comm", 0, "NAME", "name of a process")                                            \
	X(OFFLINE, "offline", 0, NULL, "do not ask dmmd")                                          \
	X(STRICT, "strict", 0, NULL, "warnings are errors")                                        \
	X(DESCRIBE, "describe", 0, NULL, "what each counter means")                                \
	X(ALL, "all", 'a', NULL, "counters that are 0, too")                                       \
	X(ID, "id", 0, "ID", "name of the demo (demo)")

enum option_id {
#define X(id, name, letter, arg, help) OPT_##id,
	CTL_OPTIONS(X)
#undef X
		OPT_COUNT
};
#define CTL_GLOBAL_OPTIONS (OPT_HELP + 1)
#define OPT_BIT(id)	   (1u << OPT_##id)

/* where an installed dmmd is */
#define CTL_RUN_DIR "/run/dmm"
#define CTL_BPFFS   "/sys/fs/bpf/dmm"

struct option_spec {
	const char *name;
	char letter;
	const char *arg; /* NULL: a flag */
	const char *help;
};
extern const struct option_spec option_specs[OPT_COUNT];

enum format { FORMAT_TABLE, FORMAT_JSON, FORMAT_JSONL, FORMAT_YAML };

struct ctl {
	const struct command *command;
	const char *opt[OPT_COUNT]; /* NULL: not given; a flag: "" */
	enum format format;
	int verbose;
	int timeout_ms;
	bool color; /* of stdout */
	char socket[512], bpffs[256], run_dir[256];
	int argc; /* what is left after command and options */
	char **argv;
};

struct command {
	const char *name;     /* "stacks list" */
	const char *synopsis; /* of its arguments */
	const char *help;
	uint32_t options;	     /* OPT_BIT of its own ones */
	int (*run)(struct ctl *ctl); /* an exit code */
	bool rest;		     /* everything after the first argument is not ours to parse */
};
extern const struct command commands[];
extern const unsigned int n_commands;

/* --- options.c --- */
/* Fills @ctl from the command line; finds the command. An exit code, -1: go on. */
int parse_command_line(struct ctl *ctl, int argc, char **argv);

/* --- output.c --- */
bool is_json(const struct ctl *ctl);
struct json_object *list_document(const char *kind, struct json_object *items);
/* Prints @doc (and releases it) in a machine format; with FORMAT_TABLE only releases it. */
void print_document(const struct ctl *ctl, struct json_object *doc);

/* One error: what failed on which object, the errno's name, a hint (NULL: none). Returns @code. */
int fail(const struct ctl *ctl, enum exit_code code, int err, const char *hint, const char *format,
	 ...) __attribute__((format(printf, 5, 6)));
/* The same with what was found in a policy (borrowed; NULL: nothing), for JSON. */
int fail_found(const struct ctl *ctl, enum exit_code code, int err, const char *hint,
	       const char *text, struct json_object *found);
/* CTL_NOT_PERMITTED for EPERM and EACCES, else CTL_FAILED. */
enum exit_code exit_of(int err);
/* Talk, to stderr; nothing with -q. */
void note(const struct ctl *ctl, const char *format, ...) __attribute__((format(printf, 2, 3)));

enum color { COLOR_GOOD, COLOR_BAD, COLOR_WARN, COLOR_DIM };
/* The text between escape sequences where stdout takes them; valid until the fourth call after. */
const char *paint(const struct ctl *ctl, enum color color, const char *text);

/* --- json.c: members for printing; to make them there is ctl/json.h --- */
const char *get_text(struct json_object *obj, const char *key); /* "" where there is none */
uint64_t get_u64(struct json_object *obj, const char *key);
bool get_bool(struct json_object *obj, const char *key);
struct json_object *get_member(struct json_object *obj, const char *key); /* borrowed, or NULL */

/* --- table.c --- */
enum cell {
	CELL_TEXT,  /* as it stands; null prints as - */
	CELL_BYTES, /* 1.2M */
	CELL_AGE,   /* milliseconds: 3h2m */
};
struct column {
	const char *title;
	const char *key;
	enum cell cell;
};
/* An aligned table of an array of objects, numbers to the right. */
void print_table(struct json_object *items, const struct column *columns, unsigned int n);
/* Either that or a list document of @kind; releases @items. */
int print_list(const struct ctl *ctl, const char *kind, struct json_object *items,
	       const struct column *columns, unsigned int n);
void format_age(uint64_t ms, char *buf, size_t size);

/* --- sources.c --- */
/* Asks dmmd; @args may be NULL and is released. CTL_OK: *ret is the caller's. Else it has said why. */
int ask_daemon(const struct ctl *ctl, const char *verb, struct json_object *args,
	       struct json_object **ret);
/* The same without a word where no dmmd listens (CTL_UNREACHABLE). *reterr: what it refused with, the
 * caller's, else untouched; NULL: not wanted. */
int ask_daemon_if_there(const struct ctl *ctl, const char *verb, struct json_object *args,
			struct json_object **ret, struct json_object **reterr);
struct dmm_view;
/* Opens the pinned maps; says why not. */
int open_view(const struct ctl *ctl, struct dmm_view **ret);

/* --- caller.c: processes and cgroups as the hooks see them --- */
struct caller {
	int pid; /* 0: only a cgroup */
	char comm[16];
	uint32_t uid;
	char cgroup[4096]; /* below the cgroup2 mount */
	uint64_t ids[64];  /* of it and what is above it, deepest first */
	unsigned int n_ids;
	uint64_t netns; /* cookie; 0: not known */
};
/* From --pid or --cgroup (neither: the root cgroup). An exit code. */
int find_caller(const struct ctl *ctl, struct caller *ret);
/* The cookie of our own network namespace, 0 where it cannot be had. */
uint64_t own_netns(void);

/* --- endpoint.c --- */
/* "10.1.2.3:443", "[fd00::1]:443", or address and port in two words. @ret_port in host byte order.
 * False: it is none. */
bool parse_address(const char *text, uint8_t ret[16]);
bool parse_endpoint(char **words, int n, uint8_t ret_addr[16], uint16_t *ret_port);

/* --- help.c --- */
int usage(const struct ctl *ctl, const char *problem);
/* Help on the command or object that the words name; on none: the list. */
int print_help(const struct ctl *ctl, char **words, int n);
int no_such_command(const struct ctl *ctl, char **words, int n);
int cmd_help(struct ctl *ctl);
int cmd_completion(struct ctl *ctl);

/* --- the commands --- */
int cmd_status(struct ctl *ctl);
int cmd_version(struct ctl *ctl);
int cmd_check(struct ctl *ctl);
int cmd_apply(struct ctl *ctl);
int cmd_schema(struct ctl *ctl);
int cmd_get_policy(struct ctl *ctl);
int cmd_get_rules(struct ctl *ctl);
int cmd_explain(struct ctl *ctl);
int cmd_attach(struct ctl *ctl);
int cmd_detach(struct ctl *ctl);
int cmd_run(struct ctl *ctl);
int cmd_stacks_list(struct ctl *ctl);
int cmd_stacks_restart(struct ctl *ctl);
int cmd_stacks_drain(struct ctl *ctl);
int cmd_flows_list(struct ctl *ctl);
int cmd_stats(struct ctl *ctl);
int cmd_doctor(struct ctl *ctl);
int cmd_demo_up(struct ctl *ctl);
int cmd_demo_down(struct ctl *ctl);
int cmd_demo_status(struct ctl *ctl);
int cmd_teardown(struct ctl *ctl);
