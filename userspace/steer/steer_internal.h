/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of userspace/steer share: the handle, pin names, links, and how failures are told. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <dmm/abi/maps.h>
#include <dmm/abi/tables.h>

#include "steer/steer.h"

/* Pinned maps; "dmm_" NAME in the kernel and under maps/. */
#define DMM_STEER_MAPS(X)                                                                          \
	X(config)                                                                                  \
	X(live)                                                                                    \
	X(clock)                                                                                   \
	X(tables)                                                                                  \
	X(instances)                                                                               \
	X(shared)                                                                                  \
	X(rings)                                                                                   \
	X(xsks)                                                                                    \
	X(hops)                                                                                    \
	X(ports)                                                                                   \
	X(listeners)                                                                               \
	X(serv_class)                                                                              \
	X(local)                                                                                   \
	X(local_bits)                                                                              \
	X(routes)                                                                                  \
	X(cgroups)                                                                                 \
	X(sock)                                                                                    \
	X(relay_mark)                                                                              \
	X(closed)                                                                                  \
	X(n_closed)                                                                                \
	X(tuples)                                                                                  \
	X(inst_stats)                                                                              \
	X(counters)

enum dmm_steer_map {
#define DMM_X(name) DMM_MAP_##name,
	DMM_STEER_MAPS(DMM_X)
#undef DMM_X
		DMM_NUM_MAPS
};

/* The cgroup programs, in the order they are attached (and against which they are detached): those
 * that hide a rewrite come before those that rewrite. */
enum dmm_hook_id {
	DMM_HOOK_SOCK_CREATE,
	DMM_HOOK_GETPEER4,
	DMM_HOOK_GETPEER6,
	DMM_HOOK_GETSOCK4,
	DMM_HOOK_GETSOCK6,
	DMM_HOOK_SOCKOPS,
	DMM_HOOK_CONNECT4,
	DMM_HOOK_CONNECT6,
	DMM_HOOK_INGRESS, /* only where dmm_steer_turn_away() says so */
	DMM_NUM_CGROUP_HOOKS,
	DMM_HOOK_BIND4 = DMM_NUM_CGROUP_HOOKS, /* guards: at the cgroup root only */
	DMM_HOOK_BIND6,
	DMM_NUM_HOOKS,
};

struct dmm_prog {
	int fd;
	uint32_t id;
};

struct sock_bpf;
struct relay_bpf;
struct steer_bpf;
struct flows_bpf;
struct dmm_mirror;
struct btf;

struct dmm_steer {
	char bpffs[512];
	char cgroup_root[512];
	int lock; /* the bpffs directory, flocked */
	int cgroup_root_fd;
	uint64_t cgroup_root_id;
	struct sock_bpf *sock;
	struct relay_bpf *relay;
	struct steer_bpf *xdp;
	struct flows_bpf *flows;
	int map[DMM_NUM_MAPS]; /* owned by the objects */
	int undo;	       /* see undo.c */
	const struct btf *btf; /* of an object that knows every table type */
	int btf_fd;
	struct dmm_prog hook[DMM_NUM_HOOKS];
	struct dmm_prog server[DMM_NUM_FAMILIES]; /* what confines sockets to servers */
	struct dmm_prog lo_prog, xdp_prog, hop_prog, hop_out_prog;
	bool turns_away;	  /* attached cgroups have the ingress hook */
	struct dmm_config config; /* as in the map */
	struct dmm_live *live;	  /* mapped */
	struct dmm_mirror *mirror;
	struct {
		uint32_t ifindex;
		int mode;
	} interface[DMM_MAX_INSTANCES]; /* what this process attached, for repair */
	unsigned int n_interfaces;
};

/* --- reason.c --- */
/* Remembers a failure for dmm_steer_reason() and returns @err. fail appends the errno's text, refuse
 * is for sentences that need none. @hint may be NULL. */
int dmm_steer_fail(int err, const char *hint, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
int dmm_steer_refuse(int err, const char *hint, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void dmm_steer_clear_reason(void);
/* For work that goes on after a failure: the first one and its reason. Starts zeroed. */
struct dmm_first {
	int err;
	char *why;
};
/* Notes @r if it is a failure and the first; returns @r, 0 for failures. */
int dmm_first_note(struct dmm_first *first, int r);
/* The first failure, told again by dmm_steer_reason(); 0: there was none. */
int dmm_first_end(struct dmm_first *first);
/* From now on libbpf talks to the log at debug level, and what it says first is kept. */
void dmm_libbpf_listen(void);
void dmm_libbpf_forget(void);
/* The first complaint of libbpf since forget, or the end of the verifier's log; "" for none. */
const char *dmm_libbpf_said(void);

/* The pin of the iterator over open flows. */
#define DMM_FLOWS_PIN "iters/dmm_flows"

/* --- pins.c --- */
extern const char *const dmm_map_names[DMM_NUM_MAPS]; /* of maps and of their pins */
/* Makes or checks the directory (a bpffs, 0700, ours, no symlink) and locks it. */
int dmm_pins_claim(const char *bpffs, int *ret_dir);
/* Opens an existing one without the lock. -ENOENT. */
int dmm_pins_open(const char *bpffs, int *ret_dir);
int dmm_pins_make_folders(const char *bpffs);
__attribute__((format(printf, 3, 4))) int dmm_pin_path(char *ret, const char *bpffs,
						       const char *format, ...);
#define DMM_PIN_PATH_LEN 640
/* The pinned object, a file descriptor; -ENOENT. */
int dmm_pin_get(const char *bpffs, const char *folder, const char *name);
/* Pins @fd as @path in place of what is there, which is replaced at once. */
int dmm_pin_replace(int fd, const char *path);
/* Calls @fn for every name in @folder until it returns non-zero, which it returns. A missing folder
 * is empty. @fn may remove the name. */
int dmm_pins_each(const char *bpffs, const char *folder, int (*fn)(void *ctx, const char *name),
		  void *ctx);
/* Every entry of a hash map, without repeats. */
int dmm_map_each(int map, size_t key_size, size_t value_size,
		 int (*fn)(void *ctx, const void *key, const void *value), void *ctx);

/* --- links.c --- */
extern const char *const dmm_hook_names[DMM_NUM_HOOKS]; /* "dmm_" NAME is the program */
/* Opens steer->cgroup_root. */
int dmm_links_open_root(struct dmm_steer *steer);
/* All links that belong to a living cgroup run this build's programs afterwards; pins of vanished
 * cgroups are gone. Counts what had to be done, also where something failed. */
int dmm_links_adopt(struct dmm_steer *steer, unsigned int *ret_changed);
/* -ESTALE: it has been removed. */
int dmm_cgroup_open(struct dmm_steer *steer, uint64_t id);
enum bpf_attach_type dmm_hook_type(enum dmm_hook_id hook);
/* Detaches whatever is pinned there (also when somebody else holds the link's descriptor). */
int dmm_link_remove(const char *path);
/* The pinned link at @path and what it is: a descriptor, or negative errno. */
int dmm_link_open(const char *path, struct bpf_link_info *ret);

/* --- install.c --- */
/* An array map whose values bpftool can print: @type is a struct in the objects' BTF. */
int dmm_typed_map(struct dmm_steer *steer, const char *name, const char *type, uint32_t value_size,
		  uint32_t n, uint32_t flags);

/* --- lo.c --- */
/* Puts our program into our place among the filters of lo, also where another one was put there since;
 * -EBUSY: it is another dmmd's. 1: had to attach, 0: was there. */
int dmm_lo_attach(struct dmm_steer *steer);
/* A filter on lo. */
struct dmm_lo_filter {
	uint32_t priority, handle;
	bool is_bpf, every_protocol;
	uint32_t prog_id; /* 0: it is no program */
	char kind[16];	  /* "bpf", "u32" ... */
	char name[64];	  /* "": it has none */
};
/* Those on its way out, where ours is, or in, in the order in which segments meet them. */
int dmm_lo_each(bool ingress, void (*fn)(void *ctx, const struct dmm_lo_filter *filter), void *ctx);
bool dmm_lo_is_our_place(const struct dmm_lo_filter *filter);
/* In the current namespace: removes the filter that uses the map @rings (-1: there is none), and the
 * qdisc if @qdisc and nobody else uses it. */
int dmm_lo_detach(int rings, bool qdisc);

/* --- undo.c: what teardown must put back without a daemon --- */
#define DMM_UNDO_MAP "dmm_undo"
struct dmm_undo {
	uint32_t made_clsact;
	uint32_t pad;
	uint8_t reserved[65536 / 8]; /* ports that we added to ip_local_reserved_ports */
};
int dmm_undo_open(struct dmm_steer *steer);
int dmm_undo_made_clsact(struct dmm_steer *steer);
/* In the current namespace. */
int dmm_undo_run(const struct dmm_undo *undo, int rings);

/* --- netns.c --- */
int dmm_netns_cookie(uint64_t *ret);
/* Runs @fn in the namespace of this cookie (in a child where it is not the current one). -ENOENT:
 * there is none any more; else what @fn returned. */
int dmm_netns_run(uint64_t cookie, int (*fn)(void *ctx), void *ctx);

/* --- sweep_servers.c --- */
int dmm_sweep_servers(struct dmm_steer *steer);

/* --- xdp.c --- */
int dmm_xdp_adopt(struct dmm_steer *steer, unsigned int *ret_changed);

/* --- hop.c --- */
/* In the current namespace: removes the hops that the map @hops (-1: there is none) tells of. */
int dmm_hops_remove(int hops);

/* --- teardown.c --- */
/* Detaches and unpins everything in the directory but does not remove it. Counts may be NULL. */
int dmm_pins_wipe(const char *bpffs, unsigned int *ret_links, unsigned int *ret_maps);

/* --- mirror.c --- */
/* More addresses or routes than the maps hold is a problem, not a failure. */
int dmm_mirror_open(int local_map, int bits_map, int routes_map, struct dmm_mirror **ret);
void dmm_mirror_close(struct dmm_mirror *mirror);
int dmm_mirror_fd(struct dmm_mirror *mirror);
int dmm_mirror_run(struct dmm_mirror *mirror);
const char *dmm_mirror_problem(const struct dmm_mirror *mirror);
