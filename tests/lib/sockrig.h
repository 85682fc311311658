/* SPDX-License-Identifier: Apache-2.0 */
/* The socket door on the bench: a cgroup with the hooks attached, a hand-made policy, and one instance
 * that is the test itself: two marked relay listeners, a shared page, a ring.
 *
 * The test is its own application: sockrig_enter() moves it into the cgroup, sockrig_leave() out
 * again; a socket belongs to the cgroup it was made in. */
#pragma once

#include <netinet/in.h>

#include "bpfenv.h"

#define RIG_ID	       3u /* slot of the instance */
#define RIG_IFINDEX    77u
#define RIG_FIRST_PORT 20000u
#define RIG_LAST_PORT  20031u

/* Classes: that of the cgroup and that of the one inside it. */
#define RIG_CLASS	1u
#define RIG_CHILD_CLASS 2u

/* The policy decides by port. In the child class, RIG_PORT_STACK goes to the kernel. */
#define RIG_PORT_STACK	1001 /* stack, onUnavailable kernel */
#define RIG_PORT_STRICT 1002 /* stack, onUnavailable reject */
#define RIG_PORT_REJECT 1003
#define RIG_PORT_KERNEL 1004 /* the default, as all others */

/* The host: own addresses of the stack's interface, and a far one that is really on lo, where the
 * test listens on RIG_PORT_KERNEL. */
#define RIG_OWN4 "10.77.0.1"
#define RIG_OWN6 "fd77::1"
#define RIG_FAR4 "10.66.0.2"
#define RIG_FAR6 "fd66::2"

enum rig_rule { RIG_RULE_STACK, RIG_RULE_STRICT, RIG_RULE_REJECT, RIG_RULE_DEFAULT };

struct sockrig {
	struct bpfenv env;
	struct bpf_link *links[32];
	unsigned int n_links;
	int relay[DMM_NUM_FAMILIES]; /* the instance's listeners */
	int far[DMM_NUM_FAMILIES];   /* a server in the kernel at RIG_FAR*:RIG_PORT_KERNEL */
	int ring_fd;		     /* 256 KiB; a test may put another in its place */
	struct dmm_instance inst;
	struct dmm_inst_shared *page;
	uint32_t slot, generation;
};

/* For cmocka: one rig in *state for the group; before each test everything is as new. */
int sockrig_setup(void **state);
int sockrig_teardown(void **state);
int sockrig_reset(void **state);
/* main(): runs @run (cmocka) in a child process and removes the cgroups afterwards. */
int sockrig_main(int (*run)(void));

void sockrig_enter(void);
void sockrig_enter_child(void);
void sockrig_leave(void);
/* The child's folder, to attach to. */
int sockrig_open_child(void);

/* As sockrig_setup(), with all hooks attached to the child as well, where applications are then: each
 * call runs two of them, and however slow the machine, they know it for one. */
int sockrig_setup_nested(void **state);

/* Makes the next generation live; @child_known: it knows the child's class. */
void sockrig_next_generation(struct sockrig *rig, bool child_known);
/* Marks @listener as the instance's. */
void sockrig_mark(struct sockrig *rig, int listener);
int sockrig_listen(const char *addr, uint16_t port);
/* A new listener in place of the instance's (@family): same port, so close the other first. */
void sockrig_relisten(struct sockrig *rig, enum dmm_family family, bool mark);

/* A socket made in the cgroup, non-blocking; @family AF_INET or AF_INET6. */
int sockrig_socket(int family, int type, int protocol);
/* connect(): 0 or -errno. A v4 address on a v6 socket is mapped. */
int sockrig_connect(int fd, const char *addr, uint16_t port);
/* The errno that a non-blocking connect ended with, 0 when connected, -ETIMEDOUT after @ms. */
int sockrig_outcome(int fd, int ms);
void sockrig_state(const struct sockrig *rig, int fd, struct dmm_sock *ret);

/* What getpeername() and getsockname() tell the application. */
void sockrig_assert_peer(int fd, const char *addr, uint16_t port);
void sockrig_assert_name(int fd, const char *addr, uint16_t first, uint16_t last);
/* How many wire ports are not free. */
unsigned int sockrig_claims(const struct sockrig *rig);
/* Takes a connection from a listener, within seconds. */
int sockrig_accept(int listener);
