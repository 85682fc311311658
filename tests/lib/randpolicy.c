/* SPDX-License-Identifier: Apache-2.0 */
/* Policies and flows that meet each other's edges, and a matcher too plain to be wrong. */
#include "randpolicy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define FIXED_SEED 20250601u

uint64_t rnd_seed(void)
{
	const char *text = getenv("SEED");
	uint64_t seed = text && *text ? strtoull(text, NULL, 0) : FIXED_SEED;

	printf("# SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

struct rnd rnd_start(uint64_t seed)
{
	return (struct rnd){ seed };
}

/* splitmix64 */
static uint64_t next(struct rnd *rnd)
{
	uint64_t z = rnd->state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

uint32_t rnd_below(struct rnd *rnd, uint32_t limit)
{
	return (next(rnd) >> 32) % limit;
}

static bool chance(struct rnd *rnd, uint32_t percent)
{
	return rnd_below(rnd, 100) < percent;
}

static void *make(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);

	if (!p)
		abort();
	return p;
}

static const char *const cgroups[] = { "/a", "/a/b", "/a/b/c", "/a/bc", "/d", "/d/e" };

/* Few of them, so that prefixes nest and touch. Some are neighbours of the mapped range. */
static const char *const bases[] = {
	"::ffff:10.1.2.3",
	"::ffff:10.1.255.255",
	"::ffff:192.0.2.128",
	"::ffff:255.255.255.255",
	"::ffff:0.0.0.0",
	"2001:db8::1",
	"2001:db8:0:1::ff",
	"fe80::1",
	"::fffe:10.1.2.3",
	"::1:0:0:0",
	"::",
	"::ffff:10.1.3.0",
	"2001:db8:1:2:3:4:5:6",
};

static void random_base(struct rnd *rnd, uint8_t addr[16])
{
	inet_pton(AF_INET6, bases[rnd_below(rnd, DMM_ARRAY_SIZE(bases))], addr);
	if (chance(rnd, 30)) /* a near relative */
		addr[10 + rnd_below(rnd, 6)] ^= 1 << rnd_below(rnd, 8);
}

static bool bit(const uint8_t *addr, unsigned int i)
{
	return addr[i / 8] >> (7 - i % 8) & 1;
}

static void set_bit(uint8_t *addr, unsigned int i, bool value)
{
	addr[i / 8] &= ~(0x80 >> i % 8);
	addr[i / 8] |= (value ? 0x80 : 0) >> i % 8;
}

static void set_tail(struct dmm_cidr *cidr, bool value)
{
	unsigned int i;

	for (i = cidr->len; i < 128; i++)
		set_bit(cidr->addr, i, value);
}

/* IPv4 prefixes are never shorter than the mapped range; half the lengths end at a byte. */
static struct dmm_cidr random_cidr(struct rnd *rnd)
{
	struct dmm_cidr cidr;
	unsigned int least;

	random_base(rnd, cidr.addr);
	least = dmm_addr_is_v4(cidr.addr) ? 96 : 0;
	cidr.len = least + rnd_below(rnd, 128 - least + 1);
	if (chance(rnd, 40))
		cidr.len &= ~7;
	if (chance(rnd, 10))
		cidr.len = chance(rnd, 50) ? least : 128;
	set_tail(&cidr, false);
	return cidr;
}

/* A part of @cidr, or all of it. */
static struct dmm_cidr random_part(struct rnd *rnd, const struct dmm_cidr *cidr)
{
	struct dmm_cidr part = *cidr;
	unsigned int i;

	part.len += rnd_below(rnd, 128 - part.len + 1);
	for (i = cidr->len; i < part.len; i++)
		set_bit(part.addr, i, chance(rnd, 50));
	return part;
}

static void random_addresses(struct rnd *rnd, struct dmm_policy_rule *rule)
{
	size_t i;

	rule->n_remote = chance(rnd, 25) ? 0 : 1 + rnd_below(rnd, 4);
	rule->remote = make(rule->n_remote, sizeof(*rule->remote));
	for (i = 0; i < rule->n_remote; i++)
		rule->remote[i] = random_cidr(rnd);
	rule->n_except = chance(rnd, 60) ? 0 : 1 + rnd_below(rnd, 4);
	rule->except = make(rule->n_except, sizeof(*rule->except));
	for (i = 0; i < rule->n_except; i++) {
		if (rule->n_remote && chance(rnd, 80))
			rule->except[i] =
				random_part(rnd, &rule->remote[rnd_below(rnd, rule->n_remote)]);
		else
			rule->except[i] = random_cidr(rnd);
	}
}

static void random_locals(struct rnd *rnd, struct dmm_policy_rule *rule)
{
	rule->n_local = chance(rnd, 40) ? 0 : 1 + rnd_below(rnd, 4);
	rule->local = make(rule->n_local, sizeof(*rule->local));
	for (size_t i = 0; i < rule->n_local; i++)
		rule->local[i] = random_cidr(rnd);
}

static void random_ports(struct rnd *rnd, struct dmm_policy_rule *rule)
{
	static const uint16_t edges[] = { 1, 22, 80, 443, 444, 1024, 8000, 8080, 65534, 65535 };
	size_t i;

	rule->n_ports = chance(rnd, 40) ? 0 : 1 + rnd_below(rnd, 4);
	rule->ports = make(rule->n_ports, sizeof(*rule->ports));
	for (i = 0; i < rule->n_ports; i++) {
		uint16_t a = edges[rnd_below(rnd, DMM_ARRAY_SIZE(edges))];
		uint16_t b = edges[rnd_below(rnd, DMM_ARRAY_SIZE(edges))];

		if (chance(rnd, 20))
			b = a;
		rule->ports[i].first = DMM_MIN(a, b);
		rule->ports[i].last = DMM_MAX(a, b);
	}
}

static void random_action(struct rnd *rnd, struct dmm_policy_rule *rule)
{
	rule->action = rnd_below(rnd, 3);
	if (rule->action == DMM_ACTION_STACK)
		snprintf(rule->stack, sizeof(rule->stack), chance(rnd, 50) ? "one" : "two");
	rule->on_unavailable = rnd_below(rnd, 2);
}

static void random_rule(struct rnd *rnd, struct dmm_policy_rule *rule)
{
	unsigned int proto = rnd_below(rnd, 4), dir = rnd_below(rnd, 4);

	random_action(rnd, rule);
	if (chance(rnd, 50)) {
		rule->cgroup = strdup(cgroups[rnd_below(rnd, DMM_ARRAY_SIZE(cgroups))]);
		if (!rule->cgroup)
			abort();
	}
	rule->proto[DMM_PROTO_TCP] = proto != 1;
	rule->proto[DMM_PROTO_UDP] = proto != 2;
	rule->dir[DMM_DIR_CONNECT] = dir != 1;
	rule->dir[DMM_DIR_LISTEN] = dir != 2;
	random_addresses(rnd, rule);
	if (!rule->dir[DMM_DIR_CONNECT])
		random_locals(rnd, rule);
	random_ports(rnd, rule);
}

struct dmm_policy *random_policy(struct rnd *rnd, unsigned int max_rules)
{
	struct dmm_policy *policy = make(1, sizeof(*policy));
	size_t i;

	snprintf(policy->name, sizeof(policy->name), "random");
	policy->n_rules = rnd_below(rnd, max_rules + 1);
	policy->rules = make(policy->n_rules, sizeof(*policy->rules));
	for (i = 0; i < policy->n_rules; i++) {
		random_rule(rnd, &policy->rules[i]);
		snprintf(policy->rules[i].name, sizeof(policy->rules[i].name), "rule-%zu", i);
		policy->rules[i].place = (struct dmm_place){ i + 1, 5, 4 };
	}
	random_action(rnd, &policy->fallback);
	snprintf(policy->fallback.name, sizeof(policy->fallback.name), "default");
	for (i = 0; i < DMM_NUM_PROTOS; i++)
		policy->fallback.proto[i] = true;
	for (i = 0; i < DMM_NUM_DIRS; i++)
		policy->fallback.dir[i] = true;
	return policy;
}

/* Odd ids: 1 + 2 * the first rule of that cgroup. */
static int class_of(void *ctx, const char *cgroup)
{
	const struct dmm_policy *policy = ctx;
	size_t i;

	for (i = 0; i < policy->n_rules; i++) {
		if (policy->rules[i].cgroup && dmm_streq(policy->rules[i].cgroup, cgroup))
			return 1 + 2 * i;
	}
	return -ENOENT;
}

static const char *cgroup_of(const struct dmm_policy *policy, uint32_t class_id)
{
	return class_id ? policy->rules[class_id / 2].cgroup : NULL;
}

static int instances_of(void *ctx, const char *stack, uint32_t ret[static DMM_MAX_INSTANCES_OF])
{
	(void)ctx;
	ret[0] = dmm_streq(stack, "one") ? 1 : 2;
	return 1;
}

struct dmm_compile_env random_env(const struct dmm_policy *policy)
{
	return (struct dmm_compile_env){ .ctx = (void *)policy,
					 .class_of = class_of,
					 .instances_of = instances_of,
					 .generation = 1 };
}

static void step(uint8_t addr[16], int by)
{
	unsigned int i = 16;

	do
		addr[--i] += by;
	while (i && addr[i] == (by > 0 ? 0 : 0xff));
}

/* An address at an edge of @cidr, next to it, or in it. */
static void random_address(struct rnd *rnd, const struct dmm_cidr *cidr, uint8_t ret[16])
{
	struct dmm_cidr c = *cidr;

	switch (rnd_below(rnd, 5)) {
	case 0: /* the first */
		break;
	case 1:
		set_tail(&c, true);
		break;
	case 2:
		step(c.addr, -1);
		break;
	case 3:
		set_tail(&c, true);
		step(c.addr, 1);
		break;
	default:
		c = random_part(rnd, cidr);
		if (chance(rnd, 50) && c.len < 128)
			set_tail(&c, true);
		break;
	}
	memcpy(ret, c.addr, sizeof(c.addr));
}

static uint16_t random_port(struct rnd *rnd, const struct dmm_policy_rule *rule)
{
	const struct dmm_port_range *range;
	uint16_t edge;

	if (!rule || !rule->n_ports || chance(rnd, 20))
		return chance(rnd, 10) ? 0 : rnd_below(rnd, 65536);
	range = &rule->ports[rnd_below(rnd, rule->n_ports)];
	edge = chance(rnd, 50) ? range->first : range->last;
	return edge + rnd_below(rnd, 3) - 1;
}

static const struct dmm_policy_rule *any_rule(struct rnd *rnd, const struct dmm_policy *policy)
{
	return policy->n_rules ? &policy->rules[rnd_below(rnd, policy->n_rules)] : NULL;
}

/* Of the family of flow->remote. */
static void random_local(struct rnd *rnd, const struct dmm_policy_rule *rule,
			 struct random_flow *flow)
{
	do {
		if (rule && rule->n_local && chance(rnd, 80))
			random_address(rnd, &rule->local[rnd_below(rnd, rule->n_local)],
				       flow->local);
		else
			random_base(rnd, flow->local);
	} while (dmm_addr_is_v4(flow->local) != dmm_addr_is_v4(flow->remote));
}

struct random_flow random_flow(struct rnd *rnd, const struct dmm_policy *policy)
{
	const struct dmm_policy_rule *rule = any_rule(rnd, policy), *other = any_rule(rnd, policy);
	struct random_flow flow = { .dir = rnd_below(rnd, DMM_NUM_DIRS),
				    .proto = rnd_below(rnd, DMM_NUM_PROTOS) };

	if (rule && rule->n_except && chance(rnd, 40))
		random_address(rnd, &rule->except[rnd_below(rnd, rule->n_except)], flow.remote);
	else if (rule && rule->n_remote && chance(rnd, 80))
		random_address(rnd, &rule->remote[rnd_below(rnd, rule->n_remote)], flow.remote);
	else
		random_base(rnd, flow.remote);
	random_local(rnd, chance(rnd, 70) ? rule : other, &flow);
	flow.port = random_port(rnd, chance(rnd, 70) ? rule : other);
	if (!chance(rnd, 30))
		other = rule;
	if (other && other->cgroup)
		flow.class_id = class_of((void *)policy, other->cgroup);
	return flow;
}

/* Nothing of the code under test. */
static bool mapped(const uint8_t addr[16])
{
	unsigned int i;

	for (i = 0; i < 10; i++) {
		if (addr[i])
			return false;
	}
	return addr[10] == 0xff && addr[11] == 0xff;
}

static bool in_cidr(const struct dmm_cidr *cidr, const uint8_t addr[16])
{
	unsigned int i;

	if ((cidr->len >= 96 && mapped(cidr->addr)) != mapped(addr))
		return false;
	for (i = 0; i < cidr->len; i++) {
		if (bit(cidr->addr, i) != bit(addr, i))
			return false;
	}
	return true;
}

static bool in_any(const struct dmm_cidr *cidrs, size_t n, const uint8_t addr[16])
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (in_cidr(&cidrs[i], addr))
			return true;
	}
	return false;
}

/* Whether @path is @cgroup or below it. */
static bool in_cgroup(const char *cgroup, const char *path)
{
	char parent[64];

	if (!cgroup)
		return true;
	snprintf(parent, sizeof(parent), "%s/", cgroup);
	return path && (dmm_streq(path, cgroup) || !strncmp(path, parent, strlen(parent)));
}

static bool rule_matches(const struct dmm_policy_rule *rule, const char *cgroup,
			 const struct random_flow *flow)
{
	size_t i;

	if (!rule->dir[flow->dir] || !rule->proto[flow->proto] || !in_cgroup(rule->cgroup, cgroup))
		return false;
	if (rule->n_local && !in_any(rule->local, rule->n_local, flow->local))
		return false;
	if (rule->n_remote && !in_any(rule->remote, rule->n_remote, flow->remote))
		return false;
	if (in_any(rule->except, rule->n_except, flow->remote))
		return false;
	for (i = 0; i < rule->n_ports; i++) {
		if (flow->port >= rule->ports[i].first && flow->port <= rule->ports[i].last)
			return true;
	}
	return rule->n_ports == 0;
}

uint32_t naive_match(const struct dmm_policy *policy, const struct random_flow *flow)
{
	const char *cgroup = cgroup_of(policy, flow->class_id);
	size_t i;

	for (i = 0; i < policy->n_rules; i++) {
		if (rule_matches(&policy->rules[i], cgroup, flow))
			return i;
	}
	return policy->n_rules;
}

static void print_cidrs(const char *name, const struct dmm_cidr *cidrs, size_t n, FILE *out)
{
	char text[INET6_ADDRSTRLEN];
	size_t i;

	for (i = 0; i < n; i++)
		fprintf(out, " %s %s/%u", name,
			inet_ntop(AF_INET6, cidrs[i].addr, text, sizeof(text)), cidrs[i].len);
}

void print_policy(const struct dmm_policy *policy, FILE *out)
{
	size_t i, k;

	for (i = 0; i < policy->n_rules; i++) {
		const struct dmm_policy_rule *rule = &policy->rules[i];

		fprintf(out, "# %zu: cgroup %s%s%s%s%s", i, rule->cgroup ? rule->cgroup : "-",
			rule->proto[DMM_PROTO_TCP] ? " tcp" : "",
			rule->proto[DMM_PROTO_UDP] ? " udp" : "",
			rule->dir[DMM_DIR_CONNECT] ? " connect" : "",
			rule->dir[DMM_DIR_LISTEN] ? " listen" : "");
		print_cidrs("to", rule->remote, rule->n_remote, out);
		print_cidrs("except", rule->except, rule->n_except, out);
		print_cidrs("at", rule->local, rule->n_local, out);
		for (k = 0; k < rule->n_ports; k++)
			fprintf(out, " ports %u-%u", rule->ports[k].first, rule->ports[k].last);
		fputc('\n', out);
	}
}

void print_flow(const struct random_flow *flow, FILE *out)
{
	char text[INET6_ADDRSTRLEN], local[INET6_ADDRSTRLEN];

	fprintf(out, "# flow: class %u %s %s, remote %s, local %s, port %u\n", flow->class_id,
		flow->dir == DMM_DIR_LISTEN ? "listen" : "connect",
		flow->proto == DMM_PROTO_UDP ? "udp" : "tcp",
		inet_ntop(AF_INET6, flow->remote, text, sizeof(text)),
		inet_ntop(AF_INET6, flow->local, local, sizeof(local)), flow->port);
}

uint32_t random_flow_match(const struct dmm_tables *tables, const struct random_flow *flow)
{
	if (flow->dir == DMM_DIR_LISTEN)
		return dmm_tables_match_client(tables, flow->class_id, flow->proto, flow->local,
					       flow->port, flow->remote);
	return dmm_tables_match(tables, flow->class_id, flow->dir, flow->proto, flow->remote,
				flow->port);
}
