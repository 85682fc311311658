/* SPDX-License-Identifier: Apache-2.0 */
/* stacks list, restart and drain. */
#include "dmmctl.h"

/* One text from two members, for people. */
static void join(struct json_object *item, const char *key, const char *format, const char *a,
		 const char *b)
{
	char text[160];

	snprintf(text, sizeof(text), format, get_text(item, a), get_text(item, b));
	dmm_json_set_text(item, key, text);
}

static void print_stacks(struct json_object *items)
{
	static const struct column columns[] = {
		{ "INSTANCE", "instance", CELL_TEXT },
		{ "STATE", "state", CELL_TEXT },
		{ "PLUGIN", "plugin", CELL_TEXT },
		{ "IF/QUEUES", "where", CELL_TEXT },
		{ "XDP ASKED->GOT", "xdp", CELL_TEXT },
		{ "PORTS", "ports", CELL_TEXT },
		{ "PID", "pid", CELL_TEXT },
		{ "FLOWS", "flows", CELL_TEXT },
		{ "RECEIVED", "rx_bytes", CELL_BYTES },
		{ "SENT", "tx_bytes", CELL_BYTES },
		{ "MEMORY", "memory_bytes", CELL_BYTES },
		{ "RESTARTS", "restarts", CELL_TEXT },
		{ "LAST DEATH", "last_death", CELL_TEXT },
	};

	for (size_t i = 0; i < json_object_array_length(items); i++) {
		struct json_object *item = json_object_array_get_idx(items, i);

		join(item, "where", "%s/%s", "interface", "queues");
		join(item, "xdp", "%s->%s", "asked", "got");
		join(item, "ports", "%s-%s", "port_first", "port_last");
	}
	print_table(items, columns, DMM_ARRAY_SIZE(columns));
}

int cmd_stacks_list(struct ctl *ctl)
{
	struct json_object *result = NULL;
	int r = ask_daemon(ctl, "stacks list", NULL, &result);

	if (r != CTL_OK)
		return r;
	if (!is_json(ctl))
		print_stacks(get_member(result, "items"));
	print_document(ctl, result);
	return CTL_OK;
}

static void print_change(struct json_object *stack, const char *what)
{
	printf("%s %s: %s, pid %s\n", get_text(stack, "instance"), what, get_text(stack, "state"),
	       get_text(stack, "pid"));
}

static int change_stack(const struct ctl *ctl, const char *verb, const char *what)
{
	struct json_object *result = NULL, *args, *items;
	int r;

	if (ctl->argc != 1)
		return usage(ctl, "which stack?");
	args = json_object_new_object();
	dmm_json_set_text(args, "name", ctl->argv[0]);
	r = ask_daemon(ctl, verb, args, &result);
	if (r != CTL_OK)
		return r;
	items = get_member(result, "items");
	if (!is_json(ctl) && items)
		for (size_t i = 0; i < json_object_array_length(items); i++)
			print_change(json_object_array_get_idx(items, i), what);
	else if (!is_json(ctl))
		print_change(result, what);
	print_document(ctl, result);
	return CTL_OK;
}

int cmd_stacks_restart(struct ctl *ctl)
{
	return change_stack(ctl, "stacks restart", "restarted");
}

int cmd_stacks_drain(struct ctl *ctl)
{
	return change_stack(ctl, "stacks drain", "drains");
}
