/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: options stand anywhere, the words left over name the command. */
#define _GNU_SOURCE
#include "dmmctl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>

#include "base/log.h"

const struct option_spec option_specs[OPT_COUNT] = {
#define X(id, name, letter, arg, help) { name, letter, arg, help },
	CTL_OPTIONS(X)
#undef X
};

static int find_option(const char *name, size_t len)
{
	for (int i = 0; i < OPT_COUNT; i++)
		if (strlen(option_specs[i].name) == len &&
		    strncmp(option_specs[i].name, name, len) == 0)
			return i;
	return -1;
}

static int find_letter(char letter)
{
	for (int i = 0; i < OPT_COUNT; i++)
		if (option_specs[i].letter == letter)
			return i;
	return -1;
}

static void set_option(struct ctl *ctl, int id, const char *value)
{
	ctl->opt[id] = value;
	if (id == OPT_VERBOSE)
		ctl->verbose++;
}

/* "--name", "--name=value" or "--name value": how many words it took, 0: not an option we know. */
static int parse_long(struct ctl *ctl, char **words, int n)
{
	const char *name = words[0] + 2, *equals = strchr(name, '=');
	int id = find_option(name, equals ? (size_t)(equals - name) : strlen(name));

	if (id < 0 || (equals && !option_specs[id].arg))
		return 0;
	if (!option_specs[id].arg || equals) {
		set_option(ctl, id, equals ? equals + 1 : "");
		return 1;
	}
	if (n < 2)
		return 0;
	set_option(ctl, id, words[1]);
	return 2;
}

/* "-jp", "-ojson" or "-o json": the same. */
static int parse_short(struct ctl *ctl, char **words, int n)
{
	for (const char *p = words[0] + 1; *p; p++) {
		int id = find_letter(*p);

		if (id < 0)
			return 0;
		if (!option_specs[id].arg) {
			set_option(ctl, id, "");
			continue;
		}
		if (!p[1] && n < 2)
			return 0;
		set_option(ctl, id, p[1] ? p + 1 : words[1]);
		return p[1] ? 1 : 2;
	}
	return 1;
}

static const char *plain_word(const char *word)
{
	if (dmm_streq(word, "ls"))
		return "list";
	if (dmm_streq(word, "show"))
		return "get";
	return word;
}

/* The command that the first words name; @ret_words how many they are. */
static const struct command *find_command(char **words, int n, int *ret_words)
{
	char one[64], two[64];

	snprintf(one, sizeof(one), "%.30s", n > 0 ? plain_word(words[0]) : "status");
	snprintf(two, sizeof(two), "%.30s %.30s", one, n > 1 ? plain_word(words[1]) : "list");
	for (unsigned int i = 0; i < n_commands; i++) {
		const char *name = commands[i].name;

		if (dmm_streq(name, one) || dmm_streq(name, two)) {
			*ret_words = DMM_MIN(n, strchr(name, ' ') ? 2 : 1);
			return &commands[i];
		}
	}
	return NULL;
}

static int parse_format(struct ctl *ctl)
{
	static const char *const words[] = { "table", "json", "jsonl", "yaml" };
	const char *asked = ctl->opt[OPT_OUTPUT];

	ctl->format = ctl->opt[OPT_JSON] ? FORMAT_JSON : FORMAT_TABLE;
	for (unsigned int i = 0; asked && i < DMM_ARRAY_SIZE(words); i++) {
		if (dmm_streq(asked, words[i])) {
			ctl->format = i;
			asked = NULL;
		}
	}
	return asked ? usage(ctl, "-o takes table, json, jsonl or yaml") : -1;
}

/* Where things are: an option, else the environment, else what an installed dmmd uses. */
static void choose(char *to, size_t size, const char *option, const char *env, const char *fallback)
{
	const char *value = option ? option : getenv(env);

	snprintf(to, size, "%s", value && *value ? value : fallback);
}

static int parse_places(struct ctl *ctl)
{
	char fallback[sizeof(ctl->run_dir) + 16];

	choose(ctl->run_dir, sizeof(ctl->run_dir), ctl->opt[OPT_RUN_DIR], "DMM_RUN_DIR",
	       CTL_RUN_DIR);
	snprintf(fallback, sizeof(fallback), "%s/dmmd.sock", ctl->run_dir);
	choose(ctl->socket, sizeof(ctl->socket), ctl->opt[OPT_SOCKET], "DMM_SOCKET", fallback);
	choose(ctl->bpffs, sizeof(ctl->bpffs), ctl->opt[OPT_BPFFS], "DMM_BPFFS", CTL_BPFFS);
	if (!ctl->opt[OPT_CGROUP_ROOT])
		ctl->opt[OPT_CGROUP_ROOT] = getenv("DMM_CGROUP_ROOT");
	return -1;
}

static int parse_timeout(struct ctl *ctl)
{
	const char *text = ctl->opt[OPT_TIMEOUT];
	char *end;
	double seconds;

	ctl->timeout_ms = 30000; /* an instance that hangs is given up before */
	if (!text)
		return -1;
	seconds = strtod(text, &end);
	if (*end || end == text || !(seconds > 0 && seconds <= 86400))
		return usage(ctl, "--timeout takes seconds, above 0");
	ctl->timeout_ms = seconds * 1000 + 0.5;
	return -1;
}

static int enter_netns(struct ctl *ctl)
{
	const char *name = ctl->opt[OPT_NETNS];
	dmm_autoclose int fd = -1;
	char path[PATH_MAX];

	if (!name)
		return -1;
	snprintf(path, sizeof(path), "%s%s", strchr(name, '/') ? "" : "/run/netns/", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		return fail(ctl, exit_of(-errno), -errno,
			    errno == ENOENT ? "`ip netns list` shows which there are" : NULL,
			    "network namespace %s", name);
	return -1;
}

static int refuse_foreign_options(const struct ctl *ctl)
{
	char text[128];

	for (int i = CTL_GLOBAL_OPTIONS; i < OPT_COUNT; i++) {
		if (ctl->opt[i] && !(ctl->command->options & 1u << i)) {
			snprintf(text, sizeof(text), "`%s` takes no --%s", ctl->command->name,
				 option_specs[i].name);
			return usage(ctl, text);
		}
	}
	return -1;
}

/* Sorts @words into options and the rest, which moves to the front; returns how many that is,
 * negative: usage. A command with `rest` set ends the options. */
static int take_options(struct ctl *ctl, int argc, char **argv)
{
	int rest = 0;

	for (int i = 1; i < argc;) {
		const char *word = argv[i];
		int words, took;

		if (dmm_streq(word, "--")) {
			while (++i < argc)
				argv[rest++] = argv[i];
			break;
		}
		if (word[0] != '-' || !word[1]) { /* "-" is a file name */
			const struct command *command = find_command(argv, rest, &words);

			if (rest > 0 && command && command->rest && rest >= words) {
				while (i < argc)
					argv[rest++] = argv[i++];
				break;
			}
			argv[rest++] = argv[i++];
			continue;
		}
		took = word[1] == '-' ? parse_long(ctl, argv + i, argc - i)
				      : parse_short(ctl, argv + i, argc - i);
		if (!took) {
			char text[128];

			snprintf(text, sizeof(text),
				 "unknown option, or its value is missing: %.60s", word);
			return -usage(ctl, text);
		}
		i += took;
	}
	return rest;
}

int parse_command_line(struct ctl *ctl, int argc, char **argv)
{
	int rest = take_options(ctl, argc, argv), words = 0, r;

	if (rest < 0)
		return -rest;
	ctl->color = isatty(STDOUT_FILENO) && !ctl->opt[OPT_NO_COLOR] && !getenv("NO_COLOR");
	if (ctl->opt[OPT_QUIET])
		dmm_log_init("dmmctl", DMM_LOG_ERROR);
	else if (ctl->verbose)
		dmm_log_init("dmmctl", ctl->verbose > 1 ? DMM_LOG_DEBUG : DMM_LOG_INFO);
	r = parse_format(ctl);
	if (r < 0)
		r = parse_timeout(ctl);
	if (r < 0)
		r = parse_places(ctl);
	if (r >= 0)
		return r;

	if (ctl->opt[OPT_HELP])
		return print_help(ctl, argv, rest);
	if (ctl->opt[OPT_VERSION])
		return cmd_version(ctl);
	ctl->command = find_command(argv, rest, &words);
	if (!ctl->command)
		return no_such_command(ctl, argv, rest);
	ctl->argc = rest - words;
	ctl->argv = argv + words;
	/* a synopsis that begins with an option has nothing else */
	if (ctl->argc > 0 && (!ctl->command->synopsis[0] || ctl->command->synopsis[0] == '-'))
		return usage(ctl, "too many arguments");
	r = refuse_foreign_options(ctl);
	return r < 0 ? enter_netns(ctl) : r;
}
