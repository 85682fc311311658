/* SPDX-License-Identifier: Apache-2.0 */
/* Steering, the write side: loads, pins and attaches the BPF programs and writes their maps. Only
 * dmmd uses it (and `dmmctl teardown`). Everything lives under one bpffs directory:
 *
 *   maps/NAME   progs/NAME   links/cgroup-<id>-<hook>  links/guard-<hook>  links/xdp-<ifindex>
 *
 * so that steering goes on without the daemon; dmm_steer_open() adopts what it finds: maps by pin,
 * links by updating them to this build's programs. Nothing is half-attached: a failing call undoes
 * what it did. Errors are negative errno; what the user should know beyond that (verifier tail, who
 * holds the hook, what to do) is in dmm_steer_reason(). Single-threaded. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmm/abi/maps.h>

#include "policy/compile.h"

struct dmm_steer;

struct dmm_steer_options {
	const char *bpffs; /* e.g. /sys/fs/bpf/dmm: made 0700 if missing, refused when not ours */
	const char *cgroup_root; /* the port guards and the default for relative cgroup paths */
	uint32_t stale_ms;	 /* heartbeat age that turns new flows away */
};

/* To be called in the network namespace to be served. -EBUSY: another dmmd holds the directory
 * (flock) or this namespace. -ESTALE: pins of another layout or another namespace. */
int dmm_steer_open(const struct dmm_steer_options *options, struct dmm_steer **ret);
/* Lets go of everything without detaching: steering goes on. */
void dmm_steer_close(struct dmm_steer *steer);
/* Detaches and removes everything under @bpffs, with or without a dmmd, links before maps, the lo
 * filter of the namespace it served and the reserved ports included. A running dmmd is not asked and
 * learns it from dmm_steer_repair(). 0 also where nothing was there. Counts may be NULL. */
int dmm_steer_teardown(const char *bpffs, unsigned int *ret_links, unsigned int *ret_maps);

/* One or two sentences about the last failure, with a hint after '\n' where there is one. */
const char *dmm_steer_reason(void);

/* --- socket door --- */
/* @path is absolute or below the cgroup root. Attaches all socket door programs, or none. An
 * already attached one is fine (0). -ENOENT: no such cgroup. */
int dmm_steer_attach_cgroup(struct dmm_steer *steer, const char *path, uint64_t *ret_id);
int dmm_steer_detach_cgroup(struct dmm_steer *steer, const char *path);
/* No connection is decided there any more; those that were steered keep their names and their entry
 * in the flow list. Attaching it again makes it whole. */
int dmm_steer_retire_cgroup(struct dmm_steer *steer, const char *path);
/* Ids of the attached cgroups; returns how many there are (may exceed @n). */
unsigned int dmm_steer_cgroups(struct dmm_steer *steer, uint64_t *ids, unsigned int n);
/* Where a cgroup is in the file system. -ESTALE: it was removed. */
int dmm_steer_cgroup_path(struct dmm_steer *steer, uint64_t id, char *ret, size_t size);
/* Sockets made in this cgroup's subtree from now on have that class. */
int dmm_steer_set_class(struct dmm_steer *steer, uint64_t cgroup_id, uint32_t class_id,
			uint32_t level);
int dmm_steer_unset_class(struct dmm_steer *steer, uint64_t cgroup_id);
/* Re-attaches what somebody took away or replaced (lo filter, links); counts how many it had to, also
 * where one failed. What went with its cgroup or interface is forgotten and not counted: nobody took it. -ESTALE: a
 * teardown has removed everything, nothing is re-attached. */
int dmm_steer_repair(struct dmm_steer *steer, unsigned int *ret_changed);

/* --- others --- */
/* A program or filter of somebody else that runs where one of ours does. */
struct dmm_beside {
	char where[24];	    /* "lo egress", or the name of a cgroup hook */
	uint64_t cgroup_id; /* attached there or above; 0: no cgroup */
	char kind[16];	    /* how it is attached: "tcx", "cgroup"; else a kind of tc filter */
	char name[64];
	uint32_t prog_id; /* 0: it is no program */
	bool first;	  /* it sees before ours what ours is to see */
};
/* All there are, the same one once per cgroup where it runs. */
int dmm_steer_beside(struct dmm_steer *steer,
		     void (*fn)(void *ctx, const struct dmm_beside *beside), void *ctx);

/* Attached cgroups turn away clients that come by the kernel where a rule says so (reject, direction:
 * listen). It costs their servers and clients a look at every packet, so it is on only for policies with
 * such a rule; a policy that is live decides. On failure it is as it was. */
int dmm_steer_turn_away(struct dmm_steer *steer, bool on);

/* --- policy --- */
/* Which class the servers of a cgroup have in the tables that dmm_steer_install() is given next; asked of
 * each that has any. Negative: none. With @live for those that began meanwhile, once they are installed. */
int dmm_steer_server_classes(struct dmm_steer *steer, bool live,
			     int (*class_of)(void *ctx, uint64_t cgroup_id), void *ctx);
/* The flow door leads nobody any more to servers of cgroups that are not attached, nor below one. */
void dmm_steer_forget_servers(struct dmm_steer *steer,
			      bool (*is_attached)(void *ctx, const char *path), void *ctx);
/* Installs @tables into the next slot and makes it live with one write. */
int dmm_steer_install(struct dmm_steer *steer, const struct dmm_tables *tables);

/* --- flow door --- */
struct dmm_xdp_got {
	bool native;
	uint32_t prog_id;
};
/* @mode: enum in struct dmm_policy_interface. -EBUSY: the reason names the holder. After a fallback to
 * generic the reason says why not native; otherwise it is empty. */
int dmm_steer_attach_interface(struct dmm_steer *steer, uint32_t ifindex, int mode,
			       struct dmm_xdp_got *ret);
int dmm_steer_detach_interface(struct dmm_steer *steer, uint32_t ifindex);
/* Was it still attached, or could it be attached again, at the last repair? */
bool dmm_steer_has_interface(struct dmm_steer *steer, uint32_t ifindex);

/* --- instances: the slot's life (enum dmm_inst_state) --- */
struct dmm_inst_fds {
	int shared, ring; /* owned by the caller; to be handed over and closed */
};
/* Makes fresh shared and ring maps for the slot and enters them. The slot is STARTING afterwards;
 * @inst gives name, stack, ifindex, n_queues, ports, relay ports, incarnation. */
int dmm_steer_inst_begin(struct dmm_steer *steer, uint32_t id, const struct dmm_instance *inst,
			 struct dmm_inst_fds *ret);
/* Marks a relay listener, or a socket to talk to servers with, as this incarnation's. */
int dmm_steer_inst_mark(struct dmm_steer *steer, uint32_t id, int fd);
/* Whatever is connected from @cgroup_fd on can only reach servers of attached cgroups, at addresses of
 * the host. */
int dmm_steer_confine(struct dmm_steer *steer, int cgroup_fd);
/* A hop (struct dmm_hop) for the slot, to the interface @ifindex; one that is there already is put right. */
struct dmm_hop_ends {
	uint32_t near_index, far_index; /* the flow door's end, and the one for the AF_XDP socket */
};
int dmm_steer_hop_make(struct dmm_steer *steer, uint32_t id, uint32_t ifindex, uint32_t mtu,
		       struct dmm_hop_ends *ret);
void dmm_steer_hop_remove(struct dmm_steer *steer, uint32_t id);
int dmm_steer_inst_set_xsk(struct dmm_steer *steer, uint32_t id, uint32_t queue, int xsk_fd);
/* Moves the slot to @state: READY enters its ports in the flow door; DEAD makes XDP pass them at once
 * and deletes its xsk entries, the ports stay guarded; FREE takes them out. */
int dmm_steer_inst_state(struct dmm_steer *steer, uint32_t id, enum dmm_inst_state state,
			 uint32_t pid);
/* Keeps the instances' ranges from the kernel's own choice: merges them into
 * net.ipv4.ip_local_reserved_ports, remembers what it added, takes it out again when gone. */
int dmm_steer_reserve_ports(struct dmm_steer *steer, const struct dmm_port_range *ranges,
			    unsigned int n);

/* --- upkeep --- */
/* Removes what sockets left behind: tuples of relay legs that are gone, listeners that are, and what was
 * noted because of them. Takes long where there are many sockets. */
int dmm_steer_sweep(struct dmm_steer *steer);
/* Mirrors addresses and routes of the namespace into dmm_local and dmm_routes: first a full
 * picture (open does that), then changes whenever the descriptor is readable, or now and then while
 * there is a problem. */
int dmm_steer_mirror_fd(struct dmm_steer *steer);
int dmm_steer_mirror_run(struct dmm_steer *steer);
/* Why the maps are not what they should be; "": they are. */
const char *dmm_steer_mirror_problem(const struct dmm_steer *steer);
