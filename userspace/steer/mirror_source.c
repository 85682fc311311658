/* SPDX-License-Identifier: Apache-2.0 */
/* Which source address does the kernel choose for a route that names none? For IPv4 that depends on
 * the route alone. For IPv6 (RFC 6724) it depends on each destination; here the prefix stands for
 * it, which may differ where several addresses of one scope and label compete: all are ours. */
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>

#include "base/util.h"
#include "steer/mirror_internal.h"

static unsigned int common_bits(const uint8_t *a, const uint8_t *b, unsigned int max)
{
	unsigned int n;

	for (n = 0; n < max; n++)
		if ((a[n / 8] ^ b[n / 8]) & (0x80 >> n % 8))
			break;
	return n;
}

/* --- IPv4 --- */

/* Scopes grow narrower with their number. An address of the host's scope is good enough for nobody
 * else, but loopback addresses never leave. */
static bool v4_wide_enough(const struct dmm_mirror_addr *a, unsigned int scope)
{
	return !a->v6 && !(a->flags & IFA_F_SECONDARY) && a->scope <= scope;
}

static const struct dmm_mirror_addr *v4_on_interface(const struct dmm_mirror_picture *p,
						     const struct dmm_mirror_route *r)
{
	const struct dmm_mirror_addr *first = NULL;
	size_t i;

	for (i = 0; i < p->n_addrs; i++) {
		const struct dmm_mirror_addr *a = &p->addrs[i];

		if (a->ifindex != r->ifindex || !v4_wide_enough(a, r->scope))
			continue;
		if (!r->has_gateway || common_bits(a->addr, r->gateway, a->len) == a->len)
			return a;
		if (!first)
			first = a;
	}
	return first;
}

static const struct dmm_mirror_addr *v4_source(const struct dmm_mirror_picture *p,
					       const struct dmm_mirror_route *r)
{
	const struct dmm_mirror_addr *found = v4_on_interface(p, r);
	size_t i;

	for (i = 0; i < p->n_addrs && !found; i++)
		if (p->addrs[i].scope != RT_SCOPE_LINK && v4_wide_enough(&p->addrs[i], r->scope))
			found = &p->addrs[i];
	return found;
}

/* --- IPv6 --- */

static bool link_local(const uint8_t *a)
{
	return a[0] == 0xfe && (a[1] & 0xc0) == 0x80;
}

/* RFC 6724 §2.1, as far as unicast destinations go. */
static int label_of(const uint8_t *a)
{
	static const uint8_t zero[12] = {};

	if (memcmp(a, zero, 12) == 0)
		return 3;
	if (a[0] == 0x20 && a[1] == 0x02)
		return 2;
	if (a[0] == 0x20 && a[1] == 0x01 && !a[2] && !a[3])
		return 5;
	if ((a[0] & 0xfe) == 0xfc)
		return 13;
	if (a[0] == 0xfe && (a[1] & 0xc0) == 0xc0)
		return 11;
	return a[0] == 0x3f && a[1] == 0xfe ? 12 : 1;
}

/* `::/0` stands for global destinations, not for the label of ::. */
static int label_of_route(const struct dmm_mirror_route *r)
{
	return r->len == 0 ? 1 : label_of(r->dst);
}

static bool v6_candidate(const struct dmm_mirror_addr *a, const struct dmm_mirror_route *r)
{
	static const uint8_t loopback[16] = { [15] = 1 };
	bool settled = !(a->flags & IFA_F_TENTATIVE) || (a->flags & IFA_F_OPTIMISTIC);

	if (!a->v6 || !settled || (a->flags & IFA_F_DADFAILED))
		return false;
	if (link_local(r->dst))
		return a->ifindex == r->ifindex;
	return !link_local(a->addr) && memcmp(a->addr, loopback, 16) != 0;
}

/* Rules 3 to 8 as digits of one number. */
static uint32_t v6_score(const struct dmm_mirror_addr *a, const struct dmm_mirror_route *r)
{
	bool temporary = a->flags & IFA_F_TEMPORARY;
	uint32_t score = 0;

	if (link_local(r->dst) && link_local(a->addr))
		score |= 1u << 20; /* rule 2: the right scope */
	if (!(a->flags & (IFA_F_DEPRECATED | IFA_F_OPTIMISTIC)))
		score |= 1u << 19;
	if (a->ifindex == r->ifindex)
		score |= 1u << 18;
	if (label_of(a->addr) == label_of_route(r))
		score |= 1u << 17;
	if (temporary == a->prefer_temporary)
		score |= 1u << 16;
	return score | common_bits(a->addr, r->dst, DMM_MIN(a->len, r->len));
}

static const struct dmm_mirror_addr *v6_source(const struct dmm_mirror_picture *p,
					       const struct dmm_mirror_route *r)
{
	const struct dmm_mirror_addr *best = NULL;
	uint32_t score, best_score = 0;
	size_t i;

	for (i = 0; i < p->n_addrs; i++) {
		if (!v6_candidate(&p->addrs[i], r))
			continue;
		score = v6_score(&p->addrs[i], r);
		if (!best || score > best_score) {
			best = &p->addrs[i];
			best_score = score;
		}
	}
	return best;
}

bool dmm_mirror_source(const struct dmm_mirror_picture *picture,
		       const struct dmm_mirror_route *route, uint8_t ret[16])
{
	const struct dmm_mirror_addr *found;

	if (route->has_prefsrc) {
		memcpy(ret, route->prefsrc, 16);
		return true;
	}
	found = route->v6 ? v6_source(picture, route) : v4_source(picture, route);
	if (!found)
		return false;
	memcpy(ret, found->addr, 16);
	return true;
}
