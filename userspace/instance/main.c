/* SPDX-License-Identifier: Apache-2.0 */
/* dmm-stack: one instance of a userspace stack. Started by dmmd, which hands it everything it may
 * touch; runs without privilege. */
#include "instance/host.h"

#include <signal.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/util.h"

struct stage {
	const char *name;
	int (*up)(struct host *host);
	void (*down)(struct host *host);
};

static const struct stage stages[] = {
	{ "handover", host_handover_up, host_handover_down }, /* all else is in it */
	{ "shared", host_shared_up, host_shared_down },	      /* takes last words from here on */
	{ "network", host_network_up, host_network_down },    /* sockets bound to the interface */
	{ "ring", host_ring_up, host_ring_down },	      /* bpf(): refused later */
	{ "privileges", host_privileges_up, NULL },	      /* below here: foreign code */
	{ "plug-in", host_plugin_up, host_plugin_down },      /* the last file that is read */
	{ "root", host_root_up, NULL },
	{ "pktio", host_pktio_up, host_pktio_down },
	{ "sandbox", host_sandbox_up, NULL }, /* below here: foreign bytes */
	{ "stack", host_stack_up, host_stack_down },
	{ "relay", host_relay_up, host_relay_down },
	{ "ready", host_ready_up, NULL }, /* last: dmmd steers from now on */
};

static int run(struct host *host)
{
	size_t up;
	int r = 0;

	for (up = 0; up < DMM_ARRAY_SIZE(stages); up++) {
		r = stages[up].up(host);
		if (r < 0)
			break;
		dmm_debug("stage %s is up", stages[up].name);
	}
	if (r == 0)
		r = host_run(host);
	while (up-- > 0)
		if (stages[up].down)
			stages[up].down(host);
	return r;
}

int main(int argc, char **argv)
{
	static struct host host; /* too large for the stack */

	dmm_log_init("dmm-stack", getenv("DMM_DEBUG") ? DMM_LOG_DEBUG : DMM_LOG_INFO);
	if (argc == 2 && dmm_streq(argv[1], "--version")) {
		puts("dmm-stack " DMM_VERSION);
		return 0;
	}
	if (argc != 3 || !dmm_streq(argv[1], "--handover")) {
		fputs("dmm-stack is started by dmmd: dmm-stack --handover FD\n", stderr);
		return 2;
	}
	/* a library's own last words (lwIP's assertions) find no file and no call to look for one */
	setvbuf(stdout, NULL, _IONBF, 0);
	signal(SIGPIPE, SIG_IGN);
	host.handover_fd = atoi(argv[2]);
	return run(&host) < 0 ? 1 : 0;
}
