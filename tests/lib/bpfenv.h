/* SPDX-License-Identifier: Apache-2.0 */
/* The BPF programs and their maps for a test: the real objects of bpf/, loaded in a network namespace
 * of the test's own, their maps filled by hand instead of by dmmd. Calls nothing but the kernel, so
 * that the same tests run in the guest of tests/vm. What goes wrong fails the running test. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <dmm/abi/maps.h>
#include <dmm/abi/tables.h>

#include "policy/compile.h"

struct bpf_object;
struct bpf_link;
struct sock_bpf;
struct relay_bpf;
struct steer_bpf;
struct flows_bpf;

struct bpfenv {
	struct sock_bpf *sock; /* its maps are everybody's */
	struct relay_bpf *relay;
	struct steer_bpf *steer;
	struct flows_bpf *flows;
	struct bpf_link *iterator; /* over open flows */
	struct dmm_config config;  /* as in the map; bpfenv_set_config() after a change */
	uint64_t same_call_ns;	   /* set before bpfenv_open(): the socket door's; 0: as built */
};

/* @env must be zeroed. A setup function calls it: it returns 0 or -1 and says why on stderr. */
int bpfenv_open(struct bpfenv *env);
void bpfenv_close(struct bpfenv *env);

/* Makes an object of the test's own, opened and not loaded yet, use the same maps. */
int bpfenv_share(const struct bpfenv *env, struct bpf_object *obj);

/* Runs @run in a child of its own, so that what the kernel drops with a process is dropped however
 * the test ends, then @clean (may be NULL). SIGTERM reaches the child. Its exit status. */
int bpfenv_main(int (*run)(void), void (*clean)(void));

int bpfenv_map(const struct bpfenv *env, const char *name);
void bpfenv_set_config(struct bpfenv *env);
uint64_t bpfenv_counter(const struct bpfenv *env, enum dmm_reason reason);
void bpfenv_inst_stats(const struct bpfenv *env, uint32_t id, struct dmm_inst_stats *ret);

/* The flow of the socket with this cookie, open or ended; false: none is listed. */
bool bpfenv_find_flow(const struct bpfenv *env, uint64_t cookie, struct dmm_flow *ret);
/* How many there are, open and ended. */
unsigned int bpfenv_count_flows(const struct bpfenv *env);

struct dmm_addr bpfenv_addr(const char *text); /* "10.0.0.1" or "fd00::1" */
void bpfenv_set_local(const struct bpfenv *env, const char *addr, uint32_t ifindex, uint32_t flags);
/* @prefixlen counts from the 128 bits: 96 + n for IPv4. @source NULL: none. */
void bpfenv_set_route(const struct bpfenv *env, const char *addr, uint32_t prefixlen,
		      uint32_t ifindex, const char *source);
void bpfenv_set_port(const struct bpfenv *env, enum dmm_proto proto, uint16_t port,
		     enum dmm_port_state state, uint32_t instance);
void bpfenv_set_instance(const struct bpfenv *env, uint32_t id, const struct dmm_instance *inst);
/* A fresh shared page for the slot, mapped; munmap() it. */
struct dmm_inst_shared *bpfenv_make_shared(const struct bpfenv *env, uint32_t id);
/* A fresh ring for the slot, of @size bytes (pages, a power of two): the map's descriptor, the
 * caller's. */
int bpfenv_make_ring(const struct bpfenv *env, uint32_t id, uint32_t size);
void bpfenv_beat(struct dmm_inst_shared *page, uint64_t age_ms); /* age 0: never stale */

/* Fills the slot; bpfenv_go_live() then makes its generation the one that decides. */
void bpfenv_install(const struct bpfenv *env, uint32_t slot, const struct dmm_tables *tables);
void bpfenv_go_live(const struct bpfenv *env, uint32_t slot, uint32_t generation);

/* Adds an address to lo and brings it up. */
void bpfenv_lo_addr(const char *addr);
/* The filter of lo; goes with the network namespace. */
void bpfenv_attach_lo(const struct bpfenv *env);
