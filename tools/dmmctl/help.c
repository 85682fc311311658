/* SPDX-License-Identifier: Apache-2.0 */
/* Help and completion, made from the tables. */
#include "dmmctl.h"

#include "base/suggest.h"

static void print_options(int from, int to, uint32_t which, FILE *out)
{
	for (int i = from; i < to; i++) {
		const struct option_spec *spec = &option_specs[i];
		char left[64];

		if (!(which & 1u << i))
			continue;
		snprintf(left, sizeof(left), "%s%c%s--%s%s%s", spec->letter ? "-" : " ",
			 spec->letter ? spec->letter : ' ', spec->letter ? ", " : "  ", spec->name,
			 spec->arg ? " " : "", spec->arg ? spec->arg : "");
		fprintf(out, "  %-26s %s\n", left, spec->help);
	}
}

static void print_all(FILE *out)
{
	fputs("usage: dmmctl [OPTIONS] COMMAND [ARGUMENTS]\n\n", out);
	for (unsigned int i = 0; i < n_commands; i++)
		fprintf(out, "  %-15s %s\n", commands[i].name, commands[i].help);
	fputs("\nOptions, anywhere:\n", out);
	print_options(0, CTL_GLOBAL_OPTIONS, UINT32_MAX, out);
	fputs("\nWithout a command: status. `dmmctl help COMMAND` says more; so does dmmctl(8).\n",
	      out);
}

static void print_one(const struct command *command, FILE *out)
{
	fprintf(out, "usage: dmmctl [OPTIONS] %s%s%s\n%s\n", command->name,
		command->synopsis[0] ? " " : "", command->synopsis, command->help);
	if (command->options) {
		fputc('\n', out);
		print_options(CTL_GLOBAL_OPTIONS, OPT_COUNT, command->options, out);
	}
}

static void print_name(const struct command *command, FILE *out)
{
	fprintf(out, "dmmctl %s", command->name);
}

int usage(const struct ctl *ctl, const char *problem)
{
	char hint[128];

	if (ctl->command)
		snprintf(hint, sizeof(hint), "usage: dmmctl %s%s%s", ctl->command->name,
			 ctl->command->synopsis[0] ? " " : "", ctl->command->synopsis);
	else
		snprintf(hint, sizeof(hint), "`dmmctl help` lists the commands");
	return fail(ctl, CTL_USAGE, 0, hint, "%s", problem);
}

/* The commands whose name is @name or begins with it as a word; their number. */
static unsigned int each_of(const char *name, void (*fn)(const struct command *command, FILE *out),
			    FILE *out)
{
	size_t len = strlen(name);
	unsigned int n = 0;

	for (unsigned int i = 0; i < n_commands; i++) {
		if (strncmp(commands[i].name, name, len) ||
		    (commands[i].name[len] && commands[i].name[len] != ' '))
			continue;
		if (n++)
			fputs(fn == print_one ? "\n" : ", ", out);
		fn(&commands[i], out);
	}
	return n;
}

static const char *nearest_to(const char *wanted)
{
	struct dmm_suggestion nearest = { .wanted = wanted };

	for (unsigned int i = 0; i < n_commands; i++)
		dmm_suggest(&nearest, commands[i].name);
	return nearest.best;
}

int no_such_command(const struct ctl *ctl, char **words, int n)
{
	char one[64], two[128], hint[256] = "";
	dmm_autofclose FILE *out = fmemopen(hint, sizeof(hint), "w");
	const char *nearest;

	snprintf(one, sizeof(one), "%.60s", words[0]);
	snprintf(two, sizeof(two), "%s%s%.60s", one, n > 1 ? " " : "", n > 1 ? words[1] : "");
	nearest = nearest_to(two) ?: nearest_to(one);
	if (out && each_of(one, print_name, out) == 0) {
		if (nearest)
			fprintf(out, "did you mean '%s'?", nearest);
		else
			fputs("`dmmctl help` lists the commands", out);
	}
	if (out)
		fflush(out);
	return fail(ctl, CTL_USAGE, 0, hint, "no such command: %s", two);
}

/* Of `stacks`: all of that object. */
int print_help(const struct ctl *ctl, char **words, int n)
{
	char one[64], two[128];

	if (n == 0) {
		print_all(stdout);
		return CTL_OK;
	}
	snprintf(one, sizeof(one), "%.60s", words[0]);
	snprintf(two, sizeof(two), "%s %.60s", one, n > 1 ? words[1] : "");
	if ((n > 1 && each_of(two, print_one, stdout)) || each_of(one, print_one, stdout))
		return CTL_OK;
	return no_such_command(ctl, words, n);
}

int cmd_help(struct ctl *ctl)
{
	return print_help(ctl, ctl->argv, ctl->argc);
}

static void print_verbs(const char *object)
{
	size_t len = strcspn(object, " ");

	printf("\t%.*s) words=\"", (int)len, object);
	for (unsigned int i = 0; i < n_commands; i++)
		if (strncmp(commands[i].name, object, len) == 0 && commands[i].name[len] == ' ')
			printf("%s ", commands[i].name + len + 1);
	puts("\";;");
}

static bool same_object(const char *a, const char *b)
{
	size_t len = strcspn(a, " ");

	return strncmp(a, b, len) == 0 && strcspn(b, " ") == len;
}

int cmd_completion(struct ctl *ctl)
{
	const char *last = "";

	if (ctl->argc != 1 || !dmm_streq(ctl->argv[0], "bash"))
		return usage(ctl, "only bash is known");
	fputs("# bash completion for dmmctl, written by `dmmctl completion bash`\n"
	      "_dmmctl()\n{\n"
	      "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
	      "\tlocal words w object=\n"
	      "\tfor w in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
	      "\t\t[[ $w == -* ]] || { object=$w; break; }\n"
	      "\tdone\n"
	      "\tcase $prev in\n"
	      "\t-o | --output) COMPREPLY=($(compgen -W \"table json jsonl yaml\" -- \"$cur\")); "
	      "return;;\n"
	      "\tcheck | apply | --run-dir | --bpffs | --socket | --cgroup | --cgroup-root)\n"
	      "\t\tCOMPREPLY=($(compgen -f -- \"$cur\")); return;;\n"
	      "\t--netns) COMPREPLY=($(compgen -W \"$(ls /run/netns 2>/dev/null)\" -- \"$cur\")); "
	      "return;;\n"
	      "\tesac\n\tcase $object in\n\t'') words=\"",
	      stdout);
	for (unsigned int i = 0; i < n_commands; i++) {
		if (!same_object(commands[i].name, last))
			printf("%.*s ", (int)strcspn(commands[i].name, " "), commands[i].name);
		last = commands[i].name;
	}
	puts("\";;");
	last = "";
	for (unsigned int i = 0; i < n_commands; i++) {
		if (strchr(commands[i].name, ' ') && !same_object(commands[i].name, last))
			print_verbs(commands[i].name);
		last = commands[i].name;
	}
	fputs("\tesac\n\t[[ $cur == -* ]] && words=\"", stdout);
	for (int i = 0; i < OPT_COUNT; i++)
		printf("--%s ", option_specs[i].name);
	fputs("\"\n\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
	      "complete -o default -F _dmmctl dmmctl\n",
	      stdout);
	return CTL_OK;
}
