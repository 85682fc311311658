/* SPDX-License-Identifier: Apache-2.0 */
/* Plug-ins that must be refused, each compiled here and now from a few lines against the public
 * header alone, as somebody else would. */
#include "instance/plugin.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/util.h"

static char folder[] = "/tmp/dmm-plugin-XXXXXX";

static const char all_ops[] = "\
#include <dmm/stack.h>\n\
static int create(const struct dmm_stack_params *p, const struct dmm_host *h,\n\
	struct dmm_stack **ret) { (void)p; (void)h; (void)ret; return -1; }\n\
static void destroy(struct dmm_stack *s) { (void)s; }\n\
static void input(struct dmm_stack *s, const struct dmm_frame *f, unsigned int n)\n\
	{ (void)s; (void)f; (void)n; }\n\
static uint64_t tick(struct dmm_stack *s, uint64_t now) { (void)s; return now; }\n\
static int conn_connect(struct dmm_stack *s, const struct dmm_connect *a, struct dmm_conn **ret)\n\
	{ (void)s; (void)a; (void)ret; return -1; }\n\
static ssize_t conn_send(struct dmm_conn *c, const void *b, size_t n)\n\
	{ (void)c; (void)b; (void)n; return -1; }\n\
static size_t number(struct dmm_conn *c) { (void)c; return 0; }\n\
static unsigned int peek(struct dmm_conn *c, struct iovec *v, unsigned int n)\n\
	{ (void)c; (void)v; (void)n; return 0; }\n\
static void done(struct dmm_conn *c, size_t n) { (void)c; (void)n; }\n\
static int conn_shutdown(struct dmm_conn *c) { (void)c; return 0; }\n\
static void end(struct dmm_conn *c) { (void)c; }\n\
static int option(struct dmm_conn *c, enum dmm_stack_option o, int v)\n\
	{ (void)c; (void)o; (void)v; return 0; }\n\
static void set_user(struct dmm_conn *c, void *u) { (void)c; (void)u; }\n\
#ifndef ABI\n#define ABI DMM_STACK_ABI\n#endif\n\
#ifndef SIZE\n#define SIZE sizeof(struct dmm_stack_ops)\n#endif\n\
#ifndef NAME\n#define NAME dmm_stack_plugin\n#endif\n\
const struct dmm_stack_ops NAME = {\n\
	.abi = ABI, .size = SIZE, .name = \"tiny\", .version = \"1\",\n\
	.create = create, .destroy = destroy, .input = input, .tick = tick,\n\
	.connect = conn_connect, .send = conn_send, .send_space = number, .recv_peek = peek,\n\
	.recv_done = done, .unsent = number, .shutdown = conn_shutdown, .close = end, .abort = end,\n\
	.set_option = option, .set_user = set_user,\n\
#ifdef WITHOUT\n	.WITHOUT = 0,\n#endif\n\
#ifdef WITHOUT2\n	.WITHOUT2 = 0,\n#endif\n\
};\n";

static int write_source(void)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "%s/tiny.c", folder);
	f = fopen(path, "w");
	if (!f)
		return -1;
	fputs(all_ops, f);
	return fclose(f);
}

static int setup(void **state)
{
	(void)state;
	return mkdtemp(folder) ? write_source() : -1;
}

static int teardown(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command);
}

/* Compiles the source with these macros and loads what comes out. */
static int load(const char *macros, struct plugin *plugin, char text[512])
{
	char command[512], path[64];

	snprintf(path, sizeof(path), "%s/tiny.so", folder);
	snprintf(command, sizeof(command),
		 "cc -shared -fPIC -Wno-override-init -Iinclude %s -o %s %s/tiny.c", macros, path,
		 folder);
	assert_int_equal(system(command), 0);
	return plugin_load(path, plugin, text, 512);
}

static void a_complete_plugin_is_taken(void **state)
{
	struct plugin plugin;
	char text[512];

	(void)state;
	assert_int_equal(load("", &plugin, text), 0);
	assert_string_equal(plugin.ops->name, "tiny");
	plugin_unload(&plugin);
	assert_null(plugin.ops);
}

static void assert_refused(const char *macros, const char *word)
{
	struct plugin plugin = { 0 };
	char text[512];

	assert_int_equal(load(macros, &plugin, text), -ENOEXEC);
	assert_non_null(strstr(text, word));
	assert_non_null(strstr(text, "tiny.so"));
	assert_null(plugin.ops);
}

static void another_abi_is_refused(void **state)
{
	(void)state;
	assert_refused("-DABI=99", "99");
}

static void another_table_size_is_refused(void **state)
{
	(void)state;
	assert_refused("-DSIZE=8", "8 bytes");
}

static void missing_operations_are_named(void **state)
{
	(void)state;
	assert_refused("-DWITHOUT=recv_done", "recv_done");
	assert_refused("-DWITHOUT=tick -DWITHOUT2=abort", "tick abort");
	assert_refused("-DWITHOUT=name", "no name");
}

static void optional_operations_may_be_missing(void **state)
{
	struct plugin plugin;
	char text[512];

	(void)state;
	assert_int_equal(load("-DWITHOUT=icmp -DWITHOUT2=listen", &plugin, text), 0);
	plugin_unload(&plugin);
}

static void a_missing_symbol_is_named(void **state)
{
	(void)state;
	assert_refused("-DNAME=something_else", DMM_STACK_SYMBOL);
}

static void no_plugin_at_all_is_named(void **state)
{
	struct plugin plugin;
	char text[512];

	(void)state;
	assert_int_equal(plugin_load("/nonexistent/x.so", &plugin, text, sizeof(text)), -ENOENT);
	assert_non_null(strstr(text, "/nonexistent/x.so"));
	assert_int_equal(plugin_load("/etc/passwd", &plugin, text, sizeof(text)), -ENOENT);
	assert_non_null(strstr(text, "/etc/passwd"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_complete_plugin_is_taken),
		cmocka_unit_test(another_abi_is_refused),
		cmocka_unit_test(another_table_size_is_refused),
		cmocka_unit_test(missing_operations_are_named),
		cmocka_unit_test(optional_operations_may_be_missing),
		cmocka_unit_test(a_missing_symbol_is_named),
		cmocka_unit_test(no_plugin_at_all_is_named),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
