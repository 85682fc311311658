/* SPDX-License-Identifier: Apache-2.0 */
/* The class registry: cgroup path -> class id, the same for as long as anyone may remember it.
 * Sockets keep the id they were made with, so an id is given to another path only when there are no
 * unused ones left, and then the one longest out of use. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dmmd_class {
	char *cgroup;
	uint32_t id;
	uint32_t used; /* last generation that named it */
};

struct dmmd_classes {
	struct dmmd_class *items;
	size_t n;
	uint32_t next; /* lowest id never given */
};

void dmmd_classes_init(struct dmmd_classes *classes);
void dmmd_classes_free(struct dmmd_classes *classes);
int dmmd_classes_clone(const struct dmmd_classes *from, struct dmmd_classes *ret);

/* The id of @cgroup, now used by @generation; given if it has none. -ENOSPC: all ids are in use by
 * this generation. */
int dmmd_classes_get(struct dmmd_classes *classes, const char *cgroup, uint32_t generation);

/* Enters what a state file says. -EINVAL: the id is out of range or taken. */
int dmmd_classes_add(struct dmmd_classes *classes, const char *cgroup, uint32_t id, uint32_t used);
