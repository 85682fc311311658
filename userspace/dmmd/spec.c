/* SPDX-License-Identifier: Apache-2.0 */
/* Policy stack -> spec, and the words of its enums. */
#include "dmmd/spec.h"

#include "base/util.h"

static const char *const modes[] = {
	[DMM_XDP_AUTO] = "auto", [DMM_XDP_NATIVE] = "native", [DMM_XDP_GENERIC] = "generic"
};
static const char *const zerocopies[] = {
	[DMM_ZC_AUTO] = "auto", [DMM_ZC_REQUIRE] = "require", [DMM_ZC_OFF] = "off"
};
static const char *const polls[] = { [DMM_POLL_ADAPTIVE] = "adaptive", [DMM_POLL_BUSY] = "busy" };

static int index_of(const char *const *words, size_t n, const char *word)
{
	for (size_t i = 0; i < n; i++)
		if (word && dmm_streq(words[i], word))
			return i;
	return -1;
}

const char *dmmd_mode_word(int mode)
{
	return modes[mode];
}

const char *dmmd_zerocopy_word(int zerocopy)
{
	return zerocopies[zerocopy];
}

const char *dmmd_poll_word(enum dmm_poll poll)
{
	return polls[poll];
}

int dmmd_mode_of(const char *word)
{
	return index_of(modes, DMM_ARRAY_SIZE(modes), word);
}

int dmmd_zerocopy_of(const char *word)
{
	return index_of(zerocopies, DMM_ARRAY_SIZE(zerocopies), word);
}

int dmmd_poll_of(const char *word)
{
	return index_of(polls, DMM_ARRAY_SIZE(polls), word);
}

/* Even parts; what is left over is the last one's. */
static struct dmm_port_range part_of(const struct dmm_policy_stack *stack, uint32_t index)
{
	const struct dmm_port_range *all = &stack->local_ports;
	uint32_t size = (all->last - all->first + 1u) / stack->instances;
	struct dmm_port_range part = { all->first + index * size, all->last };

	if (!all->last)
		return *all;
	if (index + 1 < stack->instances)
		part.last = part.first + size - 1;
	return part;
}

void dmmd_spec_from_policy(const struct dmm_policy *policy, const struct dmm_policy_stack *stack,
			   uint32_t index, struct dmmd_spec *ret)
{
	struct dmmd_spec spec = {
		.index = index,
		.poll = stack->poll,
		.memory_mib = stack->memory_mib ? stack->memory_mib : DMMD_MEMORY_MIB,
		.ports = part_of(stack, index),
	};

	memcpy(spec.name, stack->name, sizeof(spec.name));
	memcpy(spec.plugin, stack->plugin, sizeof(spec.plugin));
	memcpy(spec.backend, stack->backend, sizeof(spec.backend));
	memcpy(spec.interface, stack->interface, sizeof(spec.interface));
	spec.ports_chosen = spec.ports.last == 0;
	for (size_t i = 0; i < policy->n_interfaces; i++) {
		const struct dmm_policy_interface *interface = &policy->interfaces[i];

		if (dmm_streq(interface->name, spec.interface)) {
			spec.mode = interface->mode;
			spec.zerocopy = interface->zerocopy;
		}
	}
	*ret = spec;
}

bool dmmd_spec_same(const struct dmmd_spec *running, const struct dmmd_spec *wanted)
{
	bool ports = wanted->ports.last == 0 ? running->ports_chosen
					     : running->ports.first == wanted->ports.first &&
						       running->ports.last == wanted->ports.last;

	return ports && dmm_streq(running->name, wanted->name) && running->index == wanted->index &&
	       dmm_streq(running->plugin, wanted->plugin) &&
	       dmm_streq(running->backend, wanted->backend) &&
	       dmm_streq(running->interface, wanted->interface) && running->mode == wanted->mode &&
	       running->zerocopy == wanted->zerocopy && running->poll == wanted->poll &&
	       running->memory_mib == wanted->memory_mib;
}
