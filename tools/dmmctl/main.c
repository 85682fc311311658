/* SPDX-License-Identifier: Apache-2.0 */
/* dmmctl: the table of commands and nothing else. Help, completion and dispatch read it; the test
 * compares the man page with it. */
#include "dmmctl.h"

#include <locale.h>

#include "base/log.h"

const struct command commands[] = {
	{ "status", "", "daemon, policy, stacks and flows at a glance", 0, cmd_status, false },
	{ "check", "FILE...", "judge policies; touches nothing", OPT_BIT(OFFLINE) | OPT_BIT(STRICT),
	  cmd_check, false },
	{ "apply", "FILE", "make a policy live (- is standard input)", OPT_BIT(STRICT), cmd_apply,
	  false },
	{ "explain",
	  "tcp connect ADDR[:]PORT | tcp listen ADDR[:]PORT from ADDR [--pid PID | --cgroup PATH] [--uid UID] [--comm NAME]",
	  "what would decide this connection, and why",
	  OPT_BIT(PID) | OPT_BIT(CGROUP) | OPT_BIT(UID) | OPT_BIT(COMM), cmd_explain, false },
	{ "attach", "--cgroup PATH | --pid PID", "put a cgroup's sockets under the policy",
	  OPT_BIT(PID) | OPT_BIT(CGROUP), cmd_attach, false },
	{ "detach", "--cgroup PATH | --pid PID", "leave a cgroup's new sockets alone",
	  OPT_BIT(PID) | OPT_BIT(CGROUP), cmd_detach, false },
	{ "run", "[--cgroup PATH] [--] COMMAND...", "run a command in an attached cgroup",
	  OPT_BIT(CGROUP), cmd_run, true },
	{ "stacks list", "", "the stack instances", 0, cmd_stacks_list, false },
	{ "stacks restart", "NAME[#N]",
	  "restart a stack, or one of its instances: its flows are reset", 0, cmd_stacks_restart,
	  false },
	{ "stacks drain", "NAME[#N]", "no new flows; stop after the last", 0, cmd_stacks_drain,
	  false },
	{ "flows list",
	  "[stack NAME] [rule NAME] [state STATE] [reason WORD] [pid PID] [comm NAME] "
	  "[dport PORT] [sport PORT]",
	  "connections, those of the last minute included", 0, cmd_flows_list, false },
	{ "stats", "", "counters by reason and by instance", OPT_BIT(DESCRIBE) | OPT_BIT(ALL),
	  cmd_stats, false },
	{ "get policy", "", "the live policy as YAML", 0, cmd_get_policy, false },
	{ "get rules", "", "the live rules and how often they decided", 0, cmd_get_rules, false },
	{ "doctor", "[INTERFACE...]", "try what DMM needs of this host", 0, cmd_doctor, false },
	{ "demo up", "", "two network namespaces, nginx, dmmd and a policy", OPT_BIT(ID),
	  cmd_demo_up, false },
	{ "demo status", "", "what of the demo is there", OPT_BIT(ID), cmd_demo_status, false },
	{ "demo down", "", "remove the demo", OPT_BIT(ID), cmd_demo_down, false },
	{ "teardown", "", "off now: detach and remove everything, with or without dmmd", 0,
	  cmd_teardown, false },
	{ "schema", "", "the policy language as JSON Schema, for editors", 0, cmd_schema, false },
	{ "version", "", "versions of everything involved", 0, cmd_version, false },
	{ "completion", "bash", "a completion script", 0, cmd_completion, false },
	{ "help", "[COMMAND]", "this list, or one command", 0, cmd_help, false },
};
const unsigned int n_commands = DMM_ARRAY_SIZE(commands);

int main(int argc, char **argv)
{
	struct ctl ctl = { 0 };
	int r;

	setlocale(LC_CTYPE, "");
	dmm_log_init("dmmctl", DMM_LOG_WARNING);
	r = parse_command_line(&ctl, argc, argv);
	if (r < 0)
		r = ctl.command->run(&ctl);
	if (fflush(stdout) != 0 && r == CTL_OK)
		r = CTL_FAILED; /* the reader of a pipe has gone, or the disk is full */
	return r;
}
