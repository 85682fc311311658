/* SPDX-License-Identifier: Apache-2.0 */
/* The class registry. */
#include "dmmd/classes.h"

#include <errno.h>

#include "base/util.h"
#include "policy/compile.h"

void dmmd_classes_init(struct dmmd_classes *classes)
{
	*classes = (struct dmmd_classes){ .next = 1 };
}

void dmmd_classes_free(struct dmmd_classes *classes)
{
	for (size_t i = 0; i < classes->n; i++)
		free(classes->items[i].cgroup);
	free(classes->items);
	dmmd_classes_init(classes);
}

static int append(struct dmmd_classes *classes, const char *cgroup, uint32_t id, uint32_t used)
{
	struct dmmd_class *items =
		realloc(classes->items, (classes->n + 1) * sizeof(classes->items[0]));
	char *name = strdup(cgroup);

	if (items)
		classes->items = items;
	if (!items || !name) {
		free(name);
		return -ENOMEM;
	}
	items[classes->n++] = (struct dmmd_class){ .cgroup = name, .id = id, .used = used };
	classes->next = DMM_MAX(classes->next, id + 1);
	return 0;
}

int dmmd_classes_add(struct dmmd_classes *classes, const char *cgroup, uint32_t id, uint32_t used)
{
	if (id == 0 || id >= DMM_MAX_CLASSES || cgroup[0] != '/')
		return -EINVAL;
	for (size_t i = 0; i < classes->n; i++)
		if (classes->items[i].id == id || dmm_streq(classes->items[i].cgroup, cgroup))
			return -EINVAL;
	return append(classes, cgroup, id, used);
}

int dmmd_classes_clone(const struct dmmd_classes *from, struct dmmd_classes *ret)
{
	struct dmmd_classes copy;

	dmmd_classes_init(&copy);
	for (size_t i = 0; i < from->n; i++) {
		const struct dmmd_class *c = &from->items[i];
		int r = append(&copy, c->cgroup, c->id, c->used);

		if (r < 0) {
			dmmd_classes_free(&copy);
			return r;
		}
	}
	copy.next = from->next;
	*ret = copy;
	return 0;
}

static struct dmmd_class *oldest(struct dmmd_classes *classes, uint32_t generation)
{
	struct dmmd_class *found = NULL;

	for (size_t i = 0; i < classes->n; i++) {
		struct dmmd_class *c = &classes->items[i];

		if (c->used != generation && (!found || c->used < found->used))
			found = c;
	}
	return found;
}

static int recycle(struct dmmd_classes *classes, const char *cgroup, uint32_t generation)
{
	struct dmmd_class *c = oldest(classes, generation);
	char *name;

	if (!c)
		return -ENOSPC;
	name = strdup(cgroup);
	if (!name)
		return -ENOMEM;
	free(c->cgroup);
	c->cgroup = name;
	c->used = generation;
	return c->id;
}

int dmmd_classes_get(struct dmmd_classes *classes, const char *cgroup, uint32_t generation)
{
	int r;

	for (size_t i = 0; i < classes->n; i++)
		if (dmm_streq(classes->items[i].cgroup, cgroup)) {
			classes->items[i].used = generation;
			return classes->items[i].id;
		}
	if (classes->next >= DMM_MAX_CLASSES)
		return recycle(classes, cgroup, generation);
	r = append(classes, cgroup, classes->next, generation);
	return r < 0 ? r : (int)classes->items[classes->n - 1].id;
}
