/* SPDX-License-Identifier: Apache-2.0 */
/* The policy language by its values: what fields become, what text is refused whole, and what a
 * caller gets when it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>

#include "base/util.h"
#include "policy/codes.h"
#include "policy/policy.h"

#define HEAD "apiVersion: dmm/v1alpha1\nkind: Policy\nmetadata: {name: test}\nspec:\n"
#define TAIL "  default: {stack: kernel}\n"
#define STACK                                                                                      \
	"  interfaces: [{name: eth1}]\n  stacks: [{name: fast, plugin: lwip, interface: eth1}]\n"

static struct dmm_policy *policy;
static struct dmm_findings found;

static int parse_bytes(const char *text, size_t len)
{
	dmm_policy_free(policy);
	policy = NULL;
	dmm_findings_free(&found);
	return dmm_policy_parse(text, len, "test.yaml", &policy, &found);
}

static int parse(const char *text)
{
	return parse_bytes(text, strlen(text));
}

static int drop(void **state)
{
	(void)state;
	dmm_policy_free(policy);
	policy = NULL;
	dmm_findings_free(&found);
	return 0;
}

static void assert_found(unsigned int code, uint32_t line, uint32_t column)
{
	size_t i;

	for (i = 0; i < found.n; i++) {
		if (found.items[i].code == code && found.items[i].place.line == line &&
		    found.items[i].place.column == column)
			return;
	}
	dmm_findings_print(&found, stderr);
	fail_msg("no finding %u at %u:%u", code, line, column);
}

static void assert_cidr(const struct dmm_cidr *cidr, const char *addr, unsigned int len)
{
	uint8_t want[16];

	assert_int_equal(inet_pton(AF_INET6, addr, want), 1);
	assert_memory_equal(cidr->addr, want, sizeof(want));
	assert_int_equal(cidr->len, len);
}

static void every_field_lands(void **state)
{
	const struct dmm_policy_rule *rule;

	(void)state;
	assert_int_equal(
		parse(HEAD
		      "  interfaces:\n"
		      "    - {name: eth1, mode: generic, zerocopy: off}\n"
		      "  stacks:\n"
		      "    - {name: fast, plugin: echo, backend: xsk, interface: eth1, "
		      "localPorts: 20000-20999, poll: busy}\n"
		      "  rules:\n"
		      "    - name: api\n"
		      "      match:\n"
		      "        cgroup: /web.slice\n"
		      "        proto: tcp\n"
		      "        direction: connect\n"
		      "        remote: {cidr: [10.0.0.0/8, '2001:db8::/32'], except: "
		      "10.9.0.0/16, ports: [443, 8000-8999]}\n"
		      "      action: {stack: fast, onUnavailable: reject}\n"
		      "    - {name: no, match: {proto: udp}, action: {reject: true}}\n"
		      "    - {name: yes, match: {}, action: {stack: kernel}}\n"
		      "    - {name: in, match: {cgroup: /in, proto: tcp, direction: listen, local: {cidr: "
		      "10.1.0.0/16, ports: 80-81}, remote: {cidr: 10.0.0.0/8}}, action: "
		      "{stack: fast}}\n"
		      "    - {name: any, match: {cgroup: /in, direction: any}, action: {stack: "
		      "fast}}\n" TAIL),
		0);
	assert_int_equal(found.n, 1); /* UDP is not rejected */
	assert_string_equal(policy->name, "test");
	assert_string_equal(policy->source, "test.yaml");
	assert_int_equal(policy->interfaces[0].mode, DMM_XDP_GENERIC);
	assert_int_equal(policy->interfaces[0].zerocopy, DMM_ZC_OFF);
	assert_string_equal(policy->stacks[0].plugin, "echo");
	assert_string_equal(policy->stacks[0].interface, "eth1");
	assert_int_equal(policy->stacks[0].local_ports.first, 20000);
	assert_int_equal(policy->stacks[0].local_ports.last, 20999);
	assert_int_equal(policy->stacks[0].poll, DMM_POLL_BUSY);

	assert_int_equal(policy->n_rules, 5);
	rule = &policy->rules[0];
	assert_string_equal(rule->name, "api");
	assert_string_equal(rule->cgroup, "/web.slice");
	assert_true(rule->proto[DMM_PROTO_TCP] && !rule->proto[DMM_PROTO_UDP]);
	assert_true(rule->dir[DMM_DIR_CONNECT] && !rule->dir[DMM_DIR_LISTEN]);
	assert_int_equal(rule->n_remote, 2);
	assert_cidr(&rule->remote[0], "::ffff:10.0.0.0", 104);
	assert_cidr(&rule->remote[1], "2001:db8::", 32);
	assert_int_equal(rule->n_except, 1);
	assert_cidr(&rule->except[0], "::ffff:10.9.0.0", 112);
	assert_int_equal(rule->n_ports, 2);
	assert_int_equal(rule->ports[0].last, 443);
	assert_int_equal(rule->ports[1].first, 8000);
	assert_int_equal(rule->action, DMM_ACTION_STACK);
	assert_string_equal(rule->stack, "fast");
	assert_int_equal(rule->on_unavailable, DMM_UNAVAILABLE_REJECT);
	assert_int_equal(rule->place.line, 10);
	assert_int_equal(rule->place.column, 13);

	assert_int_equal(policy->rules[1].action, DMM_ACTION_REJECT);
	assert_true(!policy->rules[1].proto[DMM_PROTO_TCP] &&
		    policy->rules[1].proto[DMM_PROTO_UDP]);
	assert_int_equal(policy->rules[2].action, DMM_ACTION_KERNEL);
	assert_true(policy->rules[2].dir[DMM_DIR_CONNECT] && policy->rules[2].proto[DMM_PROTO_UDP]);
	assert_false(policy->rules[2].dir[DMM_DIR_LISTEN]);
	rule = &policy->rules[3];
	assert_true(!rule->dir[DMM_DIR_CONNECT] && rule->dir[DMM_DIR_LISTEN]);
	assert_int_equal(rule->n_local, 1);
	assert_cidr(&rule->local[0], "::ffff:10.1.0.0", 112);
	assert_int_equal(rule->n_ports, 1);
	assert_int_equal(rule->ports[0].first, 80);
	assert_int_equal(rule->n_remote, 1);
	rule = &policy->rules[4];
	assert_true(rule->dir[DMM_DIR_CONNECT] && rule->dir[DMM_DIR_LISTEN]);
	assert_true(policy->fallback.dir[DMM_DIR_CONNECT] && policy->fallback.dir[DMM_DIR_LISTEN]);
	assert_string_equal(policy->fallback.name, "default");
	assert_int_equal(policy->fallback.action, DMM_ACTION_KERNEL);
}

static void fields_left_out_have_defaults(void **state)
{
	(void)state;
	assert_int_equal(parse(HEAD STACK "  default: {stack: fast}\n"), 0);
	assert_int_equal(policy->interfaces[0].mode, DMM_XDP_AUTO);
	assert_int_equal(policy->interfaces[0].zerocopy, DMM_ZC_AUTO);
	assert_string_equal(policy->stacks[0].backend, "xsk");
	assert_int_equal(policy->stacks[0].poll, DMM_POLL_ADAPTIVE);
	assert_int_equal(policy->stacks[0].local_ports.first, 0);
	assert_int_equal(policy->fallback.action, DMM_ACTION_STACK);
	assert_int_equal(policy->fallback.on_unavailable, DMM_UNAVAILABLE_KERNEL);
}

static void prefixes_are_masked_and_mapped_ones_are_ipv4(void **state)
{
	const struct dmm_cidr *c;

	(void)state;
	assert_int_equal(
		parse(HEAD
		      "  rules: [{name: a, match: {remote: {cidr: [10.1.255.255/20, "
		      "'::ffff:10.2.0.0/112', 0.0.0.0/0, '::/0', 255.255.255.255/32, "
		      "'2001:db8::1/127', '::ffff:0:0/95']}}, action: {stack: kernel}}]\n" TAIL),
		0);
	c = policy->rules[0].remote;
	assert_cidr(&c[0], "::ffff:10.1.240.0", 116);
	assert_cidr(&c[1], "::ffff:10.2.0.0", 112);
	assert_cidr(&c[2], "::ffff:0.0.0.0", 96);
	assert_cidr(&c[3], "::", 0);
	assert_cidr(&c[4], "::ffff:255.255.255.255", 128);
	assert_cidr(&c[5], "2001:db8::", 127);
	assert_cidr(&c[6], "::fffe:0:0", 95);
	assert_true(dmm_cidr_is_v4(&c[1]) && !dmm_cidr_is_v4(&c[3]) && !dmm_cidr_is_v4(&c[6]));
}

static void cgroup_paths_are_normalised(void **state)
{
	(void)state;
	assert_int_equal(
		parse(HEAD
		      "  rules: [{name: a, match: {cgroup: //a/./b//}, action: {stack: kernel}},"
		      "{name: b, match: {cgroup: /..a/b..}, action: {stack: kernel}},"
		      "{name: c, match: {cgroup: /}, action: {stack: kernel}}]\n" TAIL),
		0);
	assert_string_equal(policy->rules[0].cgroup, "/a/b");
	assert_string_equal(policy->rules[1].cgroup, "/..a/b..");
	assert_string_equal(policy->rules[2].cgroup, "/");
	assert_int_equal(found.warnings, 1);
	assert_true(dmm_cgroup_covers("/a", "/a/b"));
	assert_true(dmm_cgroup_covers("/", "/a") && dmm_cgroup_covers("/", "/"));
	assert_false(dmm_cgroup_covers("/a", "/ab"));
	assert_false(dmm_cgroup_covers("/a/b", "/a"));
}

static void scalars_stay_strings(void **state)
{
	(void)state;
	/* YAML 1.1 readers make a boolean, a base-60 number and an octal of these */
	assert_int_equal(
		parse(HEAD "  rules: [{name: no, match: {}, action: {stack: kernel}}]\n" TAIL), 0);
	assert_string_equal(policy->rules[0].name, "no");
	assert_int_equal(parse(HEAD "  rules: [{name: a, match: {remote: {ports: 22:22}}, "
				    "action: {stack: kernel}}]\n" TAIL),
			 -EINVAL);
	assert_found(DMM_CODE_PORT, 5, 45);
}

static void byte_order_mark_crlf_and_wide_text_are_fine(void **state)
{
	(void)state;
	assert_int_equal(parse("\xef\xbb\xbf" HEAD TAIL), 0);
	assert_int_equal(parse("apiVersion: dmm/v1alpha1\r\nkind: Policy\r\nmetadata: {name: "
			       "crlf}\r\nspec:\r\n  default: {stack: kernl}\r\n"),
			 -EINVAL);
	assert_found(DMM_CODE_UNKNOWN_STACK, 5, 20);
	/* columns count characters */
	assert_int_equal(parse("# \xc3\xa9\xe2\x82\xac\n" HEAD "  default: {st\xc3\xa4"
			       "ck: x, stack: kernl}\n"),
			 -EINVAL);
	assert_found(DMM_CODE_UNKNOWN_STACK, 6, 30);
}

static void what_is_no_text_is_refused(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		uint32_t column;
	} bad[] = {
		{ "ab\0", 3, 3 },
		{ "\xff\xfe"
		  "a\0",
		  4, 1 },
		{ "\xfe\xff\0a", 4, 1 },
		{ "a\xc0\xaf", 3, 2 },
		{ "\xed\xa0\x80", 3, 1 },
		{ "\xf4\x90\x80\x80", 4, 1 },
		{ "\xe2\x82", 2, 1 },
		{ "abc\x1b", 4, 4 },
		{ "a\xef\xbb\xbf", 4, 2 },
		{ "\xc2\x9b", 2, 1 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(bad); i++) {
		assert_int_equal(parse_bytes(bad[i].bytes, bad[i].len), -EINVAL);
		assert_int_equal(found.n, 1);
		assert_found(DMM_CODE_ENCODING, 1, bad[i].column);
	}
}

static char *repeat(const char *head, const char *part, size_t times, const char *tail)
{
	size_t n = strlen(part), at = strlen(head), i;
	char *text = malloc(at + n * times + strlen(tail) + 1);

	assert_non_null(text);
	memcpy(text, head, at);
	for (i = 0; i < times; i++, at += n)
		memcpy(text + at, part, n);
	strcpy(text + at, tail);
	return text;
}

/* libyaml's own effort grows with the square of this; the depth limit must come first. */
static void deep_nesting_is_refused_at_once(void **state)
{
	static const char *const parts[] = { "[", "{", "- ", "? ", "[\n", "{a: " };
	size_t i;

	(void)state;
	for (i = 0; i < DMM_ARRAY_SIZE(parts); i++) {
		char *text = repeat("spec: \n ", parts[i], 2000000, "");

		assert_int_equal(parse(text), -EINVAL);
		assert_true(found.errors > 0 && found.errors < 5);
		free(text);
	}
}

static void more_than_64_mib_are_refused(void **state)
{
	size_t len = DMM_MAX_POLICY_SIZE + 1;
	char *text = malloc(len);

	(void)state;
	assert_non_null(text);
	memset(text, '#', len);
	assert_int_equal(parse_bytes(text, len), -EINVAL);
	assert_int_equal(found.n, 1);
	assert_found(DMM_CODE_SIZE, 1, 1);
	assert_int_equal(parse_bytes(text, len - 1), -EINVAL);
	assert_found(DMM_CODE_EMPTY, 1, 1);
	free(text);
}

static void a_flood_of_findings_is_counted(void **state)
{
	char *flood = repeat(HEAD TAIL, "nonsense: 1\n", 5000, ""), *out;
	size_t size;
	FILE *f = open_memstream(&out, &size);

	(void)state;
	assert_int_equal(parse(flood), -EINVAL);
	assert_int_equal(found.n, DMM_MAX_FINDINGS);
	assert_int_equal(found.errors, 5000);
	assert_non_null(f);
	dmm_findings_print(&found, f);
	fclose(f);
	assert_non_null(strstr(out, "test.yaml: 4000 more are not shown"));
	free(out);
	free(flood);
}

static void findings_come_in_order_of_place(void **state)
{
	size_t i;

	(void)state;
	parse(HEAD "  rules:\n"
		   "    - {name: b, match: {nope: 1}, action: {stack: gone}}\n"
		   "    - {name: b, match: {}, action: {reject: maybe}}\n"
		   "  default: {stack: gone, also: 1}\n");
	assert_int_equal(found.errors, 6);
	for (i = 1; i < found.n; i++) {
		struct dmm_place a = found.items[i - 1].place, b = found.items[i].place;

		assert_true(a.line < b.line || (a.line == b.line && a.column <= b.column));
	}
}

/* Names in messages reach a terminal. */
static void control_characters_are_not_printed(void **state)
{
	char *out;
	size_t size, i;
	FILE *f = open_memstream(&out, &size);

	(void)state;
	parse(HEAD "  default: {stack: \"a\\e]0;x\\a\\nb\\x9b\"}\n");
	assert_int_equal(found.errors, 2);
	dmm_findings_print(&found, f);
	fclose(f);
	for (i = 0; i < size; i++)
		assert_true(out[i] == '\n' || (out[i] >= ' ' && out[i] < 0x7f));
	free(out);
}

static void a_bad_policy_leaves_the_output_alone(void **state)
{
	struct dmm_policy *mine = (struct dmm_policy *)&found;
	struct dmm_findings own;

	(void)state;
	assert_int_equal(dmm_policy_parse("a: b", 4, "x", &mine, &own), -EINVAL);
	assert_ptr_equal(mine, &found);
	dmm_findings_free(&own);
	assert_int_equal(dmm_policy_load("no/such/file.yaml", &mine, &own), -ENOENT);
	assert_ptr_equal(mine, &found);
	assert_int_equal(own.n, 0);
	dmm_findings_free(&own);
	assert_int_equal(dmm_policy_load("/", &mine, &own), -EISDIR);
	dmm_findings_free(&own);
}

static void files_and_standard_input_are_read(void **state)
{
	FILE *f = tmpfile();
	int old = dup(STDIN_FILENO);

	(void)state;
	assert_non_null(f);
	fputs(HEAD TAIL, f);
	rewind(f);
	assert_true(dup2(fileno(f), STDIN_FILENO) == STDIN_FILENO);
	assert_int_equal(dmm_policy_load("-", &policy, &found), 0);
	assert_string_equal(policy->source, "<stdin>");
	fclose(f);
	if (old >= 0) {
		dup2(old, STDIN_FILENO);
		close(old);
	}
}

static void duplicates_name_the_first(void **state)
{
	char *out;
	size_t size;
	FILE *f = open_memstream(&out, &size);

	(void)state;
	parse(HEAD "  default: {stack: kernel,\n    stack: kernel}\n");
	assert_found(DMM_CODE_DUPLICATE_KEY, 6, 5);
	dmm_findings_print(&found, f);
	fclose(f);
	assert_string_equal(out,
			    "test.yaml:6:5: error[E003]: duplicate key 'stack' (first at 5:13)\n"
			    "      stack: kernel}\n"
			    "      ^~~~~\n");
	free(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(every_field_lands, drop),
		cmocka_unit_test_teardown(fields_left_out_have_defaults, drop),
		cmocka_unit_test_teardown(prefixes_are_masked_and_mapped_ones_are_ipv4, drop),
		cmocka_unit_test_teardown(cgroup_paths_are_normalised, drop),
		cmocka_unit_test_teardown(scalars_stay_strings, drop),
		cmocka_unit_test_teardown(byte_order_mark_crlf_and_wide_text_are_fine, drop),
		cmocka_unit_test_teardown(what_is_no_text_is_refused, drop),
		cmocka_unit_test_teardown(deep_nesting_is_refused_at_once, drop),
		cmocka_unit_test_teardown(more_than_64_mib_are_refused, drop),
		cmocka_unit_test_teardown(a_flood_of_findings_is_counted, drop),
		cmocka_unit_test_teardown(findings_come_in_order_of_place, drop),
		cmocka_unit_test_teardown(control_characters_are_not_printed, drop),
		cmocka_unit_test_teardown(a_bad_policy_leaves_the_output_alone, drop),
		cmocka_unit_test_teardown(files_and_standard_input_are_read, drop),
		cmocka_unit_test_teardown(duplicates_name_the_first, drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
